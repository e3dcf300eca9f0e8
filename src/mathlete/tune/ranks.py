"""Several processes of one training: the first does every step, the others wait and join it in training alone.

Started by `accelerate launch`; each process has one device. They agree over a gloo group of their own, whose timeout is
that of the longest step, so that no device is kept busy by waiting.

>>> Ranks.from_launcher({"WORLD_SIZE": "4", "RANK": "1"}).is_first
False
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
    """The processes of a training, each with one device, as this one sees them."""

    size: int = 1
    """How many share the rows of a pass."""
    index: int = 0
    """Which of them this is."""
    sharded: bool = False
    """Whether they share the model's weights too (FSDP)."""

    @classmethod
    def from_launcher(cls, environment: Mapping[str, str] = os.environ) -> "Ranks":
        """Return what the launcher started; without one, this process alone."""
        size, index = (int(environment.get(name, least)) for name, least in (("WORLD_SIZE", 1), ("RANK", 0)))
        return cls(size=size, index=index, sharded=is_sharded(environment))

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes files and prints."""
        return self.index == 0

    @property
    def shards(self) -> int:
        """Devices over which the weights are spread."""
        return self.size if self.sharded else 1

    def split_rows(self, batch: int) -> int:
        """Return the rows of a forward pass in each process, so that a step has the rows it would have in one.

        Raises:
            UserError: the batch can't be split evenly.
        """
        if batch % self.size:
            cure = f"use --tune.batch {-(-batch // self.size) * self.size}, or another number of processes"
            raise UserError(f"--tune.batch must be a multiple of the {self.size} processes", value=batch, cure=cure)
        return batch // self.size

    def broadcast_from_first(self, value: T) -> T:
        """Return the first process's value in each process; all must call this."""
        if self.size == 1:
            return value
        import torch.distributed as dist

        box = [value]
        dist.broadcast_object_list(box, src=0, group=_group())
        return box[0]

    def wait_for_all(self) -> None:
        """Return when all processes have called this."""
        if self.size > 1:
            import torch.distributed as dist

            dist.barrier(group=_group())

    def call_others(self) -> None:
        """Let the processes that wait in `follow_first` do their work once; for the first process."""
        self.broadcast_from_first(True)

    def follow_first(self, work: Callable[[], object]) -> None:
        """Do the work as often as the first process calls for it, until it dismisses; for all other processes."""
        while self.broadcast_from_first(False):
            work()
        self._leave()

    def dismiss_others(self) -> None:
        """End the processes that wait in `follow_first`; for the first process, when nothing is left to do."""
        self.broadcast_from_first(False)
        self._leave()

    def _leave(self) -> None:
        """Leave the process group; a process that exits without may abort."""
        if self.size > 1:
            import torch.distributed as dist

            if dist.is_initialized():
                self.wait_for_all()
                dist.destroy_process_group()


@cache
def _group() -> "ProcessGroup":
    import torch.distributed as dist
    from accelerate import PartialState

    # The trainer takes this state over, and its timeout.
    PartialState(timeout=_TIMEOUT, cpu=os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true"))
    group: ProcessGroup = dist.new_group(backend="gloo", timeout=_TIMEOUT)
    return group


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
