"""Several processes of one training: the first does every step, the others wait and join it in training alone.

Started by `accelerate launch`; each process has one device. They agree over a gloo group of their own, whose timeout is
that of the longest step, so that no device is kept busy by waiting.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from mathlete.errors import UserError
from mathlete.tune.shards import is_sharded, require_shardable

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

T = TypeVar("T")
_TIMEOUT = timedelta(days=7)
"""How long a process waits for another: formatting and export may take hours, training days."""


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """The processes of a training, each with one device."""

    size: int = 1
    """How many share the rows of a pass."""
    sharded: bool = False
    """Whether they share the model's weights too (FSDP)."""

    @classmethod
    def launched(cls) -> "Ranks":
        """Return what the launcher started."""
        return cls(size=world_size(), sharded=is_sharded())

    @property
    def shards(self) -> int:
        """Devices over which the weights are spread."""
        return self.size if self.sharded else 1


def world_size(environment: Mapping[str, str] = os.environ) -> int:
    """Return the number of processes of this training, as the launcher says; 1 without one."""
    return int(environment.get("WORLD_SIZE", 1))


def is_first_rank(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is the one that writes files and prints."""
    return int(environment.get("RANK", 0)) == 0


def require_launcher(method: str, *, devices: int | None = None, environment: Mapping[str, str] = os.environ) -> None:
    """Check that several visible GPUs come with a process for each, and that FSDP can shard what is trained.

    Args:
        method: what is trained.
        devices: visible GPUs; None: counts them.
        environment: where the launcher says what it started.

    Raises:
        UserError: they do not, and the trainer would fail late with a message of its own.
    """
    if devices is None:
        import torch

        devices = torch.cuda.device_count()
    if devices > 1 and "WORLD_SIZE" not in environment:
        raise UserError(
            "several GPUs need a launcher, a process for each",
            value=f"{devices} visible GPUs and one process",
            cure="set CUDA_VISIBLE_DEVICES=0 for one of them, or use all: accelerate launch --config_file "
            '"$(python -m train launch-config ddp)" -m train math … (docs/fleets.md)',
        )
    require_shardable(method, environment)


def rows_per_rank(batch: int) -> int:
    """Return the rows of a forward pass in each process, so that a step has the rows it would have in one.

    Raises:
        UserError: the batch can't be split evenly.
    """
    size = world_size()
    if batch % size:
        cure = f"use --tune.batch {-(-batch // size) * size}, or another number of processes"
        raise UserError(f"--tune.batch must be a multiple of the {size} processes", value=batch, cure=cure)
    return batch // size


@cache
def _group() -> "ProcessGroup":
    import torch.distributed as dist
    from accelerate import PartialState

    # The trainer takes this state over, and its timeout.
    PartialState(timeout=_TIMEOUT, cpu=os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true"))
    group: ProcessGroup = dist.new_group(backend="gloo", timeout=_TIMEOUT)
    return group


def broadcast_from_first_rank(value: T) -> T:
    """Return the first process's value in each process; all must call this."""
    if world_size() == 1:
        return value
    import torch.distributed as dist

    box = [value]
    dist.broadcast_object_list(box, src=0, group=_group())
    return box[0]


def wait_for_all_ranks() -> None:
    """Return when all processes have called this."""
    if world_size() > 1:
        import torch.distributed as dist

        dist.barrier(group=_group())


def call_other_ranks() -> None:
    """Let the processes that wait in `follow_first_rank` do their work once; for the first process."""
    broadcast_from_first_rank(True)


def follow_first_rank(work: Callable[[], object]) -> None:
    """Do the work as often as the first process calls for it, until it ends; for all other processes."""
    while broadcast_from_first_rank(False):
        work()
    _leave()


def dismiss_other_ranks() -> None:
    """End the processes that wait in `follow_first_rank`; for the first process, when nothing is left to do."""
    broadcast_from_first_rank(False)
    _leave()


def _leave() -> None:
    """Leave the process group; a process that exits without may abort."""
    if world_size() > 1:
        import torch.distributed as dist

        if dist.is_initialized():
            wait_for_all_ranks()
            dist.destroy_process_group()
