"""Where training runs: this machine's device, or a GPU of which memory and capability are known."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from mathlete.errors import UserError, nearest
from mathlete.models import capability
from mathlete.tune.ranks import world
from mathlete.tune.shards import sharded


@dataclass(frozen=True, kw_only=True)
class Device:
    """Where training runs."""

    name: str
    memory: int
    """Bytes that are there for it."""
    capability: float | None
    """CUDA compute capability; None: a CPU."""
    processes: int = 1
    """Processes of the training, each with such a device, that share the rows of a pass."""
    sharded: bool = False
    """Whether they share the model's weights too (FSDP)."""

    @property
    def shares(self) -> int:
        """Devices over which the weights are shared out."""
        return self.processes if self.sharded else 1

    @property
    def width(self) -> int:
        """Bytes of an activation."""
        return 4 if self.capability is None else 2


def _gpu(name: str, mib: int, of: float) -> Device:
    return Device(name=name, memory=mib * 2**20, capability=of)


DEVICES: dict[str, Device] = {
    "t4": _gpu("t4", 15360, 7.5),
    "p100": _gpu("p100", 16280, 6.0),
    "v100": _gpu("v100", 16160, 7.0),
    "l4": _gpu("l4", 23034, 8.9),
    "a10g": _gpu("a10g", 23028, 8.6),
    "rtx4090": _gpu("rtx4090", 24564, 8.9),
    "a100-40": _gpu("a100-40", 40960, 8.0),
    "a100-80": _gpu("a100-80", 81920, 8.0),
    "h100": _gpu("h100", 81559, 9.0),
    "h200": _gpu("h200", 143771, 9.0),
    "rtx5090": _gpu("rtx5090", 32607, 12.0),
    "b200": _gpu("b200", 183359, 10.0),
}
"""Memory as nvidia-smi names it, MiB, and NVIDIA's table of compute capabilities."""


def device_named(name: str | None) -> Device:
    """A known GPU, or this machine's device where none is named; one of several, as the launcher says."""
    if name is None:
        return this_device()
    if name not in DEVICES:
        raise UserError("--device must be a known one", value=repr(name), cure=nearest(name, [*DEVICES]))
    return _launched(DEVICES[name])


def _launched(device: Device) -> Device:
    return replace(device, processes=world(), sharded=sharded())


def this_device(*, whole: bool = False) -> Device:
    """This machine's GPU with the memory that is free there now, or its CPU with the free main memory.

    With `whole`, all the memory it has: what is chosen by that is chosen alike when a run goes on.
    """
    import torch

    if torch.cuda.is_available():
        memory = torch.cuda.mem_get_info()[int(whole)]
        return _launched(Device(name=torch.cuda.get_device_name(), memory=memory, capability=capability()))
    memory = _memory("MemTotal:" if whole else "MemAvailable:") // world()
    return _launched(Device(name="cpu", memory=memory, capability=None))


def _memory(of: str) -> int:
    """Main memory in all, or what is free or can be freed, bytes; a container's own limit is not seen."""
    linux = Path("/proc/meminfo")
    if not linux.is_file():
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    (line,) = (line for line in linux.read_text().splitlines() if line.startswith(of))
    return int(line.split()[1]) * 1024


def gib(count: int) -> float:
    """Bytes in GiB."""
    return count / 2**30
