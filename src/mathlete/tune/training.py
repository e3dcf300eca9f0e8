"""Training: a model is trained on rows that are tokens already, by TRL's trainers, each step resumable.

QLoRA (arXiv 2305.14314): the base in NF4 with double quantisation, adapters on all linear layers. Two things differ
from TRL's own defaults. Adapter weights stay in fp32 (TRL casts them to bf16 on a quantised base): a 16-bit GPU can
train them under autocast, and a checkpoint gives back exactly what it was given. And the order of the rows is made
here, as a function of the seed alone, so that a resumed run sees what an unbroken one sees.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathlete.adapters import ADAPTER_CONFIG
from mathlete.models import ModelSource
from mathlete.reporters import Reporter, report_training
from mathlete.runs import Advance, read_json, require_space, write_json
from mathlete.tune.adapters import AdapterFolder
from mathlete.tune.curve import METRICS, Meter, read_curve
from mathlete.tune.divergence import explain_full_memory_or_disk
from mathlete.tune.memory import to_gib
from mathlete.tune.ranks import Ranks
from mathlete.tune.recipe import Recipe
from mathlete.tune.shards import describe_shards, gather_state, require_same_sharding
from mathlete.tune.tracking import log_to_trackio
from mathlete.tune.trainers import ReadyTrainer, prepare_trainer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from transformers import Trainer

_SETS = ("target_modules", "feedforward_modules")
"""Keys of peft's configuration whose values are sets."""


def train_adapter(
    adapter: Path,
    *,
    data: Path,
    source: ModelSource,
    recipe: Recipe,
    seed: int,
    advance: Advance,
    say: "Callable[[str], None]",
    report_to: "Sequence[Reporter]" = (),
    is_over: "Callable[[], bool] | None" = None,
) -> dict[str, object]:
    """Train into the folder `adapter`, or go on from its last complete checkpoint; return the figures.

    The first process calls for the others, which wait in `Ranks.follow_first`; they call this too. Where
    nothing is reported to, the curve is kept for TensorBoard and trackio, as far as they are installed. The first
    process asks `is_over` after each step: where it is before the last one, the step's checkpoint is written, and the
    figures are {"stopped": the step} alone.

    Raises:
        UserError: the model can't be loaded, memory or disk have no room, or the rows do not suit the method.
    """
    ranks, folder = Ranks.from_launcher(), AdapterFolder(adapter)
    advance(0, None, "loading the model")
    if ranks.is_first:
        ranks.call_others()
    training = prepare_trainer(adapter, data=data, source=source, recipe=recipe, seed=seed, say=say)
    # Imported here, where the warnings of transformers' Trainer are silenced.
    from mathlete.tune.callback import TrainingCallback

    # Record sizes now: FSDP replaces these parameters by shards.
    trained = [(weight.numel(), weight.dtype) for weight in training.model.parameters() if weight.requires_grad]
    parameters = sum(count for count, _ in trained)
    # Two checkpoints × (weights, two Adam moments, saved copy), fp32.
    require_space(adapter, needed_bytes=2 * 4 * 4 * parameters)
    meter = Meter(training.lengths, rows=recipe.tune.step_rows)
    training.trainer.add_callback(
        TrainingCallback(folder, meter=meter, advance=advance, board=not report_to, is_over=is_over)
    )
    # Only the first process looks: it deletes half-written checkpoints.
    checkpoint = ranks.broadcast_from_first(folder.last_checkpoint() if ranks.is_first else None)
    if checkpoint is not None:
        require_same_sharding(checkpoint)
        say(f"going on from {checkpoint.name}")
    with (
        report_training(report_to, training.trainer, adapter=adapter, say=say),
        explain_full_memory_or_disk(folder.describe_checkpoint),
    ):
        training.trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    state = training.trainer.state
    if state.global_step < state.max_steps:
        return {"stopped": state.global_step}
    if ranks.sharded:
        say(describe_shards(training.model))
    _save(training.trainer, folder, ranks=ranks)
    if ranks.is_first and not report_to:
        say(log_to_trackio(adapter / METRICS, name=adapter.resolve().parent.name))
    measured = _measure_peak(training, say=say)
    curve = read_curve(training.trainer.state.log_history)
    return {
        "method": recipe.method,
        "steps": training.steps,
        "rows_seen": training.steps * recipe.tune.step_rows,
        "trainable_parameters": parameters,
        "adapter_dtype": str(trained[0][1]).removeprefix("torch."),
        "first_loss": curve[0].loss,
        "last_loss": curve[-1].loss,
        **training.figures,
        "planned_peak_bytes": training.plan.allocated,
        "cuda_peak_bytes": measured,
    }


def _measure_peak(training: ReadyTrainer, *, say: "Callable[[str], None]") -> int | None:
    """Return the peak of the GPU's memory in bytes, beside the planned one; None without a GPU."""
    import torch

    if not torch.cuda.is_available():
        return None
    measured = torch.cuda.max_memory_allocated()
    planned = to_gib(training.plan.allocated)
    say(f"memory: {to_gib(measured):.2f} GiB measured, {planned:.2f} planned, without what CUDA itself takes")
    return measured


def _save(trainer: "Trainer", folder: AdapterFolder, *, ranks: Ranks) -> None:
    """Write what was trained, in peft's or transformers' own files; by the first process, gathered from all."""
    trained: Any = trainer.model
    model: Any = trainer.accelerator.unwrap_model(trained)
    gathered = {"state_dict": gather_state(trained)} if ranks.sharded else {}
    if ranks.is_first:
        model.save_pretrained(folder.path, **gathered)
        _sort_sets(folder.path / ADAPTER_CONFIG)
    ranks.wait_for_all()


def _sort_sets(config_file: Path) -> None:
    # peft writes a set in whatever order it has: sorted, the same run gives the same bytes.
    if config_file.is_file():
        config: dict[str, Any] = read_json(config_file)
        sets = {name: sorted(config[name]) for name in _SETS if isinstance(config.get(name), list)}
        write_json(config_file, {**config, **sets})
