"""Tune: a model is trained on rows that are tokens already, by TRL's trainers, each step resumable.

QLoRA (arXiv 2305.14314): the base in NF4 with double quantisation, adapters on all linear layers. Two things differ
from TRL's own defaults. Adapter weights stay in fp32 (TRL casts them to bf16 on a quantised base): a 16-bit GPU can
train them under autocast, and a checkpoint gives back exactly what it was given. And the order of the rows is made
here, as a function of the seed alone, so that a resumed run sees what an unbroken one sees.
"""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathlete.models import ModelSource
from mathlete.runs import read_json, require_space, write_atomically, write_json
from mathlete.tune.devices import gib
from mathlete.tune.methods import ADAPTER_CONFIG
from mathlete.tune.recipe import Recipe
from mathlete.tune.settings import Advance
from mathlete.tune.trainers import prepared

if TYPE_CHECKING:
    from collections.abc import Callable

METRICS, LOGS = "metrics.jsonl", "logs"
_WHOLE = "whole"
"""Mark of a checkpoint that was written to its end."""


def tune(
    adapter: Path,
    *,
    data: Path,
    source: ModelSource,
    recipe: Recipe,
    seed: int,
    advance: Advance,
    say: "Callable[[str], None]",
) -> dict[str, object]:
    """Trains into the folder `adapter`, or goes on from its last whole checkpoint; returns the figures.

    Raises:
        UserError: the model can't be loaded, memory or disk have no room, or the rows are none for the method.
    """
    import torch

    training = prepared(adapter, data=data, source=source, recipe=recipe, seed=seed, say=say)
    trainer, plan = training.trainer, training.plan
    trainable = [weight for weight in trainer.model.parameters() if weight.requires_grad]
    # What is trained, two moments and the same as saved, in two checkpoints.
    require_space(adapter, needed_bytes=8 * sum(weight.numel() * 4 for weight in trainable))
    trainer.add_callback(_follower(adapter, advance=advance))
    checkpoint = last_whole_checkpoint(adapter)
    if checkpoint is not None:
        say(f"going on from {checkpoint.name}")
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    trainer.model.save_pretrained(adapter)
    _sort_target_modules(adapter)
    curve = _curve(trainer.state.log_history)
    measured = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    if measured is not None:
        say(f"memory: {gib(measured):.2f} GiB measured, {gib(plan.allocated):.2f} planned, CUDA's own aside")
    return {
        "method": recipe.method,
        "steps": training.steps,
        "rows_seen": training.steps * recipe.tune.batch * recipe.tune.accumulate,
        "trainable_parameters": sum(weight.numel() for weight in trainable),
        "adapter_dtype": str(trainable[0].dtype).removeprefix("torch."),
        "first_loss": curve[0]["loss"],
        "last_loss": curve[-1]["loss"],
        **training.figures,
        "planned_peak_bytes": plan.allocated,
        "cuda_peak_bytes": measured,
    }


def _follower(adapter: Path, *, advance: Advance) -> Any:
    """The callback that shows progress, keeps the loss curve and marks whole checkpoints."""
    from torch.utils.tensorboard import SummaryWriter
    from transformers import TrainerCallback

    class Follower(TrainerCallback):
        def __init__(self) -> None:
            self.board = SummaryWriter(log_dir=str(adapter / LOGS))

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            curve = _curve(state.log_history)
            advance(state.global_step, state.max_steps, f"loss {curve[-1]['loss']:.4f}" if curve else "")

        def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            curve = _curve(state.log_history)
            write_atomically(adapter / METRICS, "".join(json.dumps(point) + "\n" for point in curve))
            if state.log_history and "loss" in state.log_history[-1]:
                for name, value in curve[-1].items():
                    self.board.add_scalar(f"train/{name}", value, state.global_step)

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            (adapter / f"checkpoint-{state.global_step}" / _WHOLE).touch()

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.board.close()

    return Follower()


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
)


def _curve(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The points of the loss curve in the trainer's history."""
    return [{key: point[key] for key in _POINT if key in point} for point in history if "loss" in point]


def last_whole_checkpoint(adapter: Path) -> Path | None:
    """The checkpoint to go on from; half-written ones, which a kill leaves, are deleted."""
    whole = []
    for folder in adapter.glob("checkpoint-*"):
        if (folder / _WHOLE).is_file():
            whole.append(folder)
        else:
            shutil.rmtree(folder)
    return max(whole, key=lambda folder: int(folder.name.rpartition("-")[2]), default=None)


def _sort_target_modules(adapter: Path) -> None:
    # peft writes a set in whatever order it has: sorted, the same run gives the same bytes.
    file = adapter / ADAPTER_CONFIG
    if file.is_file():
        config: dict[str, Any] = read_json(file)
        sets = {name: sorted(config[name]) for name in _SETS if isinstance(config.get(name), list)}
        write_json(file, {**config, **sets})
