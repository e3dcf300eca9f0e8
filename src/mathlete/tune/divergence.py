"""What ends a training early: NaN, an exploding gradient, full memory, a full disk; each error names what is kept."""

import errno
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import TYPE_CHECKING

from mathlete.errors import UserError
from mathlete.tune.curve import CurvePoint

if TYPE_CHECKING:
    import torch

EXPLODED = 1000.0
"""Times the median norm of the points before: a norm ten or a hundred times the usual is a hard batch, and clipped."""
_POINTS = 5
"""Points of the curve that make a median."""
_FULL_MEMORY = re.compile(r"can't allocate memory|CUDA.*\bout of memory|CUBLAS_STATUS_ALLOC_FAILED")
"""How torch says it: its allocator, CUDA itself and cuBLAS each in words of their own."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def require_finite(weights: "Iterable[torch.nn.Parameter]", *, step: int, kept: Callable[[], str]) -> None:
    """Check the gradients before they change a weight; `kept` says which checkpoint is left.

    Raises:
        UserError: one is NaN or infinite.
    """
    import torch
    from torch.distributed.tensor import DTensor

    gradients = [weight.grad for weight in weights if weight.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    # Under FSDP each rank sees only its shard; reduce, so that all ranks stop together.
    if not torch.isfinite(norm.full_tensor() if isinstance(norm, DTensor) else norm):
        raise _divergence_error("the gradient must be finite", value=f"NaN or infinity in step {step}", kept=kept)


def require_calm(curve: Sequence[CurvePoint], *, kept: Callable[[], str]) -> None:
    """Check the last point of the loss curve against those before it; `kept` says which checkpoint is left.

    Raises:
        UserError: its loss is no number, or its gradient norm exploded.
    """
    *before, last = curve
    if not math.isfinite(last.loss):
        raise _divergence_error("the loss must be a number", value=f"{last.loss} at step {last.step}", kept=kept)
    norms = [point.grad_norm for point in before if point.grad_norm is not None]
    usual, norm = median(norms) if len(norms) >= _POINTS else math.inf, last.grad_norm or 0.0
    if norm > EXPLODED * usual:
        value = f"{norm:.3g} at step {last.step}, after a median of {usual:.3g}"
        raise _divergence_error(
            f"the gradient's norm must stay below {EXPLODED:g} times its median", value=value, kept=kept
        )


def _divergence_error(rule: str, *, value: str, kept: Callable[[], str]) -> UserError:
    cure = "lower --tune.rate or --tune.clip, which starts from the beginning; the same settings would end here again"
    return UserError(rule, value=value, cure=f"{cure} ({kept()})")


@contextmanager
def explain_full_memory_or_disk(kept: Callable[[], str]) -> Iterator[None]:
    """Turn what a full memory or disk raises while training into a UserError; `kept` says which checkpoint is left."""
    try:
        yield
    except (OSError, RuntimeError, MemoryError) as error:
        if _is_out_of_memory(error):
            cure = "use --tune.checkpointing on, which goes on from there, or fewer rows a pass: --tune.batch"
            rule = "memory must hold a training step"
            raise UserError(rule, value=_first_line(error), cure=f"{cure} ({kept()})") from error
        if _is_disk_full(error):
            cure = "free some space and run the same command again"
            raise UserError("the disk must have room", value=_first_line(error), cure=f"{cure} ({kept()})") from error
        raise


def _is_out_of_memory(error: BaseException) -> bool:
    """Return whether a GPU's or the machine's memory was full: neither torch nor numpy has one class for both."""
    message = str(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or _FULL_MEMORY.search(message) is not None
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
    )


def _is_disk_full(error: BaseException) -> bool:
    """Return whether a write had no room; torch's and safetensors' writers keep the error number only in the text."""
    message = str(error)
    number = error.errno if isinstance(error, OSError) else None
    return number in _FULL or any(
        phrase in message
        # torch's zip writer says no more than where it fails.
        for phrase in (
            "No space left",
            "File too large",
            "Disk quota",
            "PytorchStreamWriter failed",
            "inline_container.cc",
        )
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
