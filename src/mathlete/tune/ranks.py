"""Several processes of one training: the first does every step, the others wait and join it in training alone.

Started by `accelerate launch`; each process has one device. The others hear what to do over a gloo group of their own,
whose patience is that of the longest step, so that no device is kept busy by waiting.
"""

import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import cache
from typing import Any

from mathlete.errors import UserError

PATIENCE = timedelta(days=7)
"""How long a process waits for another: formatting and export may take hours, training days."""


def world(environment: Mapping[str, str] = os.environ) -> int:
    """Processes of this training, as the launcher says; 1 without one."""
    return int(environment.get("WORLD_SIZE", 1))


def first(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is the one that writes files and speaks."""
    return int(environment.get("RANK", 0)) == 0


def require_launcher(devices: int, environment: Mapping[str, str] = os.environ) -> None:
    """Checks that several visible GPUs come with a process for each.

    Raises:
        UserError: they do not, and the trainer would fail late with words of its own.
    """
    if devices > 1 and "WORLD_SIZE" not in environment:
        raise UserError(
            "several GPUs need a launcher, a process for each",
            value=f"{devices} visible GPUs and one process",
            cure="set CUDA_VISIBLE_DEVICES=0 for one of them, or use all: accelerate launch --config_file "
            '"$(python -m train launch-config ddp)" -m train math … (docs/fleets.md)',
        )


def rows_each(batch: int) -> int:
    """Rows of a forward pass in each process, so that a step has the rows it would have in one.

    Raises:
        UserError: the batch can't be split evenly.
    """
    if batch % world():
        cure = f"use --tune.batch {-(-batch // world()) * world()}, or another --num_processes"
        raise UserError(f"--tune.batch must be a multiple of the {world()} processes", value=batch, cure=cure)
    return batch // world()


@cache
def _group() -> Any:
    import torch.distributed as dist
    from accelerate import PartialState

    # The trainer takes this state over, and its patience.
    PartialState(timeout=PATIENCE, cpu=os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true"))
    return dist.new_group(backend="gloo", timeout=PATIENCE)


def shared(value: Any = None) -> Any:
    """The first process's value, in each of them; all must call it. One process gets its own back."""
    if world() == 1:
        return value
    import torch.distributed as dist

    box = [value]
    dist.broadcast_object_list(box, src=0, group=_group())
    return box[0]


def together() -> None:
    """Waits until all processes are here."""
    if world() > 1:
        import torch.distributed as dist

        dist.barrier(group=_group())


def leave() -> None:
    """Ends what the processes had in common, once nothing is left to do; a process that exits without may abort."""
    if world() > 1:
        import torch.distributed as dist

        if dist.is_initialized():
            together()
            dist.destroy_process_group()


def join(work: Callable[[], object]) -> None:
    """In all but the first process: joins in the work as often as the first one begins it, until that is done."""
    while shared():
        work()
