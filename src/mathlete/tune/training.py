"""Tune: a model is trained on rows that are tokens already, by TRL's trainers, each step resumable.

QLoRA (arXiv 2305.14314): the base in NF4 with double quantisation, adapters on all linear layers. Two things differ
from TRL's own defaults. Adapter weights stay in fp32 (TRL casts them to bf16 on a quantised base): a 16-bit GPU can
train them under autocast, and a checkpoint gives back exactly what it was given. And the order of the rows is made
here, as a function of the seed alone, so that a resumed run sees what an unbroken one sees.
"""

import json
import math
import shutil
import time
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathlete.models import ModelSource
from mathlete.runs import Advance, read_json, require_space, write_atomically, write_json
from mathlete.tune.adapters import ADAPTER_CONFIG, AdapterFolder, step_of
from mathlete.tune.divergence import kept_words, require_calm, require_finite, told
from mathlete.tune.plan import gib
from mathlete.tune.ranks import (
    broadcast_from_first_rank,
    call_other_ranks,
    is_first_rank,
    wait_for_all_ranks,
)
from mathlete.tune.recipe import Recipe
from mathlete.tune.shards import describe_shards, gather_state, is_sharded, require_same_sharding
from mathlete.tune.tracking import track
from mathlete.tune.trainers import prepare_trainer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch.utils.tensorboard import SummaryWriter

METRICS, LOGS = "metrics.jsonl", "logs"


def train_adapter(
    adapter: Path,
    *,
    data: Path,
    source: ModelSource,
    recipe: Recipe,
    seed: int,
    advance: Advance,
    say: "Callable[[str], None]",
) -> dict[str, object]:
    """Train into the folder `adapter`, or go on from its last complete checkpoint; return the figures.

    The first process calls for the others, which wait in `ranks.follow_first_rank`; they call this too.

    Raises:
        UserError: the model can't be loaded, memory or disk have no room, or the rows do not suit the method.
    """
    import torch

    if is_first_rank():
        call_other_ranks()
    training = prepare_trainer(adapter, data=data, source=source, recipe=recipe, seed=seed, say=say)
    trainer, plan = training.trainer, training.plan
    # Counted now, and not kept: shares take the weights' place.
    trained = [(weight.numel(), weight.dtype) for weight in training.model.parameters() if weight.requires_grad]
    # What is trained, two moments and the same as saved, in two checkpoints.
    require_space(adapter, needed_bytes=8 * sum(count * 4 for count, _ in trained))
    meter = Meter(training.lengths, rows=recipe.tune.step_rows)
    trainer.add_callback(_follower(adapter, meter=meter, advance=advance))
    checkpoint = broadcast_from_first_rank(AdapterFolder(adapter).last_checkpoint() if is_first_rank() else None)
    if checkpoint is not None:
        require_same_sharding(checkpoint)
        say(f"going on from {checkpoint.name}")
    with told(lambda: _kept(adapter)):
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    if is_sharded():
        say(describe_shards(training.model))
    _save(trainer, adapter)
    curve = _curve(trainer.state.log_history)
    if is_first_rank():
        say(track(adapter / METRICS, name=adapter.resolve().parent.name))
    measured = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    if measured is not None:
        say(f"memory: {gib(measured):.2f} GiB measured, {gib(plan.allocated):.2f} planned, CUDA's own aside")
    return {
        "method": recipe.method,
        "steps": training.steps,
        "rows_seen": training.steps * recipe.tune.step_rows,
        "trainable_parameters": sum(count for count, _ in trained),
        "adapter_dtype": str(trained[0][1]).removeprefix("torch."),
        "first_loss": curve[0]["loss"],
        "last_loss": curve[-1]["loss"],
        **training.figures,
        "planned_peak_bytes": plan.allocated,
        "cuda_peak_bytes": measured,
    }


def _follower(adapter: Path, *, meter: "Meter", advance: Advance) -> Any:
    """The callback that shows progress, keeps the loss curve, marks whole checkpoints and stops a run that diverged."""
    from transformers import TrainerCallback

    class Follower(TrainerCallback):
        def __init__(self) -> None:
            self.board = _tensorboard_writer(adapter / LOGS) if is_first_rank() else None

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            meter.start(_curve(state.log_history))

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            if not args.fp16:  # there the loss is scaled until it overflows, and such steps are left out
                require_finite(more["model"].parameters(), step=state.global_step + 1, kept=lambda: _kept(adapter))

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            curve = _curve(state.log_history)
            advance(state.global_step, state.max_steps, f"loss {curve[-1]['loss']:.4f}" if curve else "")

        def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            history = state.log_history
            if history and "loss" in history[-1]:
                history[-1].update(meter.read(state.global_step, history[-1]))
            if not is_first_rank():
                return
            curve = _curve(history)
            write_atomically(adapter / METRICS, "".join(json.dumps(point) + "\n" for point in curve))
            if history and "loss" in history[-1]:
                if self.board is not None:
                    for name, value in curve[-1].items():
                        self.board.add_scalar(f"train/{name}", value, state.global_step)
                require_calm(curve, kept=lambda: _kept(adapter, sound=curve[:-1]))

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            wait_for_all_ranks()  # each writes a part of it
            if is_first_rank():
                AdapterFolder(adapter).mark_complete(state.global_step)

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if self.board is not None:
                self.board.close()

    return Follower()


def _tensorboard_writer(folder: Path) -> "SummaryWriter | None":
    """The writer of TensorBoard's log, where its package is installed."""
    if find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(log_dir=str(folder))


def _save(trainer: Any, adapter: Path) -> None:
    """Writes what was trained, in peft's or transformers' own files; by the first process, gathered from all."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    gathered = {"state_dict": gather_state(trainer.model)} if is_sharded() else {}
    if is_first_rank():
        model.save_pretrained(adapter, **gathered)
        _sort_target_modules(adapter)
    wait_for_all_ranks()


class Meter:
    """Tokens and seconds of training so far: over a resume they go on, as if it had never stopped."""

    def __init__(self, lengths: "Sequence[int]", *, rows: int) -> None:
        self._rows, self._tokens = rows, [0, *accumulate(lengths)]
        self._last: dict[str, Any] = {"seconds": 0.0, "tokens": 0}
        self._began = 0.0

    def start(self, curve: "Sequence[dict[str, Any]]") -> None:
        """Begins to count, after the points that a checkpoint brought."""
        self._last = {**self._last, **(curve[-1] if curve else {})}
        self._began = time.monotonic() - float(self._last["seconds"])

    def read(self, step: int, point: dict[str, Any]) -> dict[str, Any]:
        """{"seconds", "tokens", "tokens_per_s"} at a step; tokens where the method doesn't draw its own rows: TRL's."""
        seconds = time.monotonic() - self._began
        known = len(self._tokens) > 1
        tokens = self._tokens[min(step * self._rows, len(self._tokens) - 1)] if known else int(point["num_tokens"])
        rate = (tokens - self._last["tokens"]) / max(1e-9, seconds - self._last["seconds"])
        found = {"seconds": round(seconds, 3), "tokens": tokens, "tokens_per_s": round(rate, 1)}
        self._last = found
        return found


def _kept(adapter: Path, sound: "Sequence[dict[str, Any]] | None" = None) -> str:
    """What is kept of a run; of one that diverged, checkpoints after the last sound point of its curve are deleted."""
    last = math.inf if sound is None else sound[-1]["step"] if sound else 0
    if not is_first_rank():
        return "the first process says what is kept"
    while (checkpoint := AdapterFolder(adapter).last_checkpoint()) and step_of(checkpoint) > last:
        shutil.rmtree(checkpoint)
    return kept_words(checkpoint)


_SETS = ("target_modules", "feedforward_modules")
_POINT = (
    "step",
    "loss",
    "learning_rate",
    "grad_norm",
    "entropy",
    "mean_token_accuracy",
    "reward",
    "completions/mean_length",
    "rewards/accuracies",
    "rewards/margins",
    "tokens",
    "tokens_per_s",
    "seconds",
)


def _curve(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The points of the loss curve in the trainer's history."""
    return [{key: point[key] for key in _POINT if key in point} for point in history if "loss" in point]


def _sort_target_modules(adapter: Path) -> None:
    # peft writes a set in whatever order it has: sorted, the same run gives the same bytes.
    file = adapter / ADAPTER_CONFIG
    if file.is_file():
        config: dict[str, Any] = read_json(file)
        sets = {name: sorted(config[name]) for name in _SETS if isinstance(config.get(name), list)}
        write_json(file, {**config, **sets})
