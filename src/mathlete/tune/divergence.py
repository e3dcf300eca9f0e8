"""What ends a training run early, told with the checkpoint to go back to: NaN, an exploding gradient, memory, disk."""

import errno
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from mathlete.errors import UserError

EXPLODED = 1000.0
"""Times the median norm of the points before: a norm ten or a hundred times the usual is a hard batch, and clipped."""
_POINTS = 5
"""Points of the curve that make a median."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def require_finite(weights: Iterable[Any], *, step: int, kept: Callable[[], str]) -> None:
    """Checks the gradients before they change a weight.

    Raises:
        UserError: one is NaN or infinite.
    """
    import torch
    from torch.distributed.tensor import DTensor

    gradients = [weight.grad for weight in weights if weight.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    # Of shares, each process knows its own: all must come to the same end.
    if not torch.isfinite(norm.full_tensor() if isinstance(norm, DTensor) else norm):
        raise _diverged("the gradient must be finite", value=f"NaN or infinity in step {step}", kept=kept)


def require_calm(curve: Sequence[dict[str, Any]], *, kept: Callable[[], str]) -> None:
    """Checks the last point of the loss curve against those before it.

    Raises:
        UserError: its loss is no number, or its gradient norm exploded.
    """
    *before, last = curve
    loss, norm = float(last["loss"]), float(last.get("grad_norm", 0.0))
    if not math.isfinite(loss):
        raise _diverged("the loss must be a number", value=f"{loss} at step {last['step']}", kept=kept)
    usual = median(float(point["grad_norm"]) for point in before) if len(before) >= _POINTS else math.inf
    if norm > EXPLODED * usual:
        value = f"{norm:.3g} at step {last['step']}, after a median of {usual:.3g}"
        raise _diverged(f"the gradient's norm must stay below {EXPLODED:g} times its median", value=value, kept=kept)


def _diverged(rule: str, *, value: str, kept: Callable[[], str]) -> UserError:
    cure = "lower --tune.rate or --tune.clip, which begins anew; the same settings would end here again"
    return UserError(rule, value=value, cure=f"{cure} ({kept()})")


@contextmanager
def told(kept: Callable[[], str]) -> Iterator[None]:
    """Turns what a full memory or disk raises while training into a UserError that names what is kept."""
    try:
        yield
    except (OSError, RuntimeError, MemoryError) as error:
        if out_of_memory(error):
            cure = "use --tune.checkpointing on, which goes on from there, or fewer rows a pass: --tune.batch"
            rule = "memory must hold a training step"
            raise UserError(rule, value=_line(error), cure=f"{cure} ({kept()})") from error
        if disk_full(error):
            cure = "free some space and run the same command again"
            raise UserError("the disk must have room", value=_line(error), cure=f"{cure} ({kept()})") from error
        raise


def out_of_memory(error: BaseException) -> bool:
    """Whether a GPU's or the machine's memory was full: neither torch nor numpy has one class for both."""
    words = str(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in words
        or "CUDA out of memory" in words
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
    )


def disk_full(error: BaseException) -> bool:
    """Whether a write found no room: torch's and safetensors' writers keep the number in their words at most."""
    words = str(error)
    number = error.errno if isinstance(error, OSError) else None
    return number in _FULL or any(
        mark in words
        # torch's zip writer says no more than where it fails.
        for mark in (
            "No space left",
            "File too large",
            "Disk quota",
            "PytorchStreamWriter failed",
            "inline_container.cc",
        )
    )


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def kept_words(checkpoint: Path | None) -> str:
    """What a person can still use."""
    return f"{checkpoint} is whole" if checkpoint else "no checkpoint was written yet"
