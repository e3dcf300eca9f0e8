"""What happens beside the steps of a training: progress, loss curve, marked checkpoints, an end where it diverges."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from mathlete.runs import Advance, write_atomically
from mathlete.tune.adapters import AdapterFolder
from mathlete.tune.curve import METRICS, Meter, read_curve
from mathlete.tune.divergence import require_calm, require_finite
from mathlete.tune.ranks import Ranks

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_BOARD_FOLDER = "logs"


class TrainingCallback(TrainerCallback):
    """Called by transformers' Trainer, in every process."""

    def __init__(
        self,
        adapter: AdapterFolder,
        *,
        meter: Meter,
        advance: Advance,
        board: bool = True,
        is_over: Callable[[], bool] | None = None,
    ) -> None:
        """Write into the adapter's folder, for TensorBoard too with `board`, and report progress to `advance`.

        After the step at which `is_over`, the training ends with a checkpoint; None: not before its last step.
        """
        self._is_over = is_over
        self._adapter, self._meter, self._advance, self._ranks = adapter, meter, advance, Ranks.from_launcher()
        self._board = _open_board(adapter.path / _BOARD_FOLDER) if board and self._ranks.is_first else None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Start the meter, and say that the model is loaded."""
        self._meter.start(read_curve(state.log_history), step=state.global_step)
        self._advance(state.global_step, state.max_steps, "the first step")

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **_: object,
    ) -> None:
        """Check the gradients."""
        # In fp16 the loss is scaled up until it overflows, and the trainer leaves such steps out itself.
        if not args.fp16 and model is not None:
            step = state.global_step + 1
            require_finite(model.parameters(), step=step, kept=self._adapter.describe_checkpoint)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Show the progress, and end the training with a checkpoint where the time is over."""
        self._show(state)
        # The clocks of two processes differ: all must end after the same step.
        if self._is_over is not None and self._ranks.broadcast_from_first(self._ranks.is_first and self._is_over()):
            control.should_save = control.should_training_stop = True

    def _show(self, state: TrainerState) -> None:
        curve = read_curve(state.log_history)
        parts = [*([f"loss {curve[-1].loss:.4f}"] if curve else []), *self._meter.describe(state.global_step)]
        if (memory := _used_gib()) is not None:
            parts.append(f"{memory:.1f} GiB")
        self._advance(state.global_step, state.max_steps, " · ".join(parts))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, object] | None = None,
        **_: object,
    ) -> None:
        """Write the curve, and check its last point; integrations that come after this one get the meter's values."""
        history = state.log_history
        is_point = bool(history) and "loss" in history[-1]
        if is_point:
            # Into the trainer's own history, for that is what a checkpoint saves.
            measured = asdict(self._meter.read(state.global_step, history[-1]))
            history[-1].update(measured)
            if logs is not None:
                logs.update({name: value for name, value in measured.items() if value is not None})
        # The trainer logs after the step's end: the loss that is shown must be this one.
        self._show(state)
        if not self._ranks.is_first:
            return
        curve = read_curve(history)
        lines = "".join(json.dumps(point.to_json()) + "\n" for point in curve)
        write_atomically(self._adapter.path / METRICS, lines)
        if is_point:
            if self._board is not None:
                for name, value in curve[-1].to_json().items():
                    self._board.add_scalar(f"train/{name}", value, state.global_step)
            last_sound = curve[-2].step if len(curve) > 1 else 0
            require_calm(curve, kept=lambda: self._adapter.drop_checkpoints_after(last_sound))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Mark the checkpoint."""
        self._ranks.wait_for_all()  # each writes a part of it
        if self._ranks.is_first:
            self._adapter.mark_complete(state.global_step)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Close TensorBoard's log."""
        if self._board is not None:
            self._board.close()


def _used_gib() -> float | None:
    """Return the memory in use: the peak of the GPU's, else this process's on Linux; None where it can't be read."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**30


def _open_board(folder: Path) -> "SummaryWriter | None":
    """Return the writer of TensorBoard's log, where its package is installed."""
    if find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(log_dir=str(folder))
