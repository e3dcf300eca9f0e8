"""The one table of GPUs, and the device that models compute on here."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from mathlete.errors import UserError, nearest

if TYPE_CHECKING:
    import torch

BF16_CAPABILITY = 8.0
"""Compute capability from which tensor cores take bf16: Ampere (CUDA C++ Programming Guide, "Compute Capabilities")."""
_BF16_FLAGS = {"avx512_bf16", "amx_bf16"}
"""What /proc/cpuinfo calls instructions that multiply bf16 numbers."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """A GPU, or a CPU with its main memory.

    >>> GPUS["t4"].dtype, GPUS["l4"].dtype
    ('float16', 'bfloat16')
    """

    name: str
    memory: int
    """Bytes; of a GPU, one GPU's."""
    capability: float | None
    """CUDA compute capability; None for a CPU."""
    machines: Mapping[str, int | None] = field(default_factory=dict)
    """{Kaggle's machine, by its `machine_shape` in kernel-metadata.json: its GPUs, None where their number was not
    found}."""
    peak_tflops: float | None = None
    """16-bit matrix products with sums in fp32, without sparsity; None for a CPU, or a GPU that is not in the table."""
    bf16_instructions: bool = False
    """Whether a CPU multiplies bf16 numbers itself. Known on x86 with Linux; elsewhere the answer is no."""

    large_model: ClassVar[int] = 50_000_000
    """Parameters from which matrix products are nearly all of a decode step on a CPU (bench/sampling.py)."""
    retired_machines: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("NvidiaTeslaP100", "TpuV38", "Tpu1VmV38"), "NvidiaTeslaT4"
    )
    """{machine that Kaggle retired: what a notebook that names it runs on instead} (kaggle_api_extended.py, 2.2.5)."""

    @classmethod
    def current(cls, *, free: bool = False) -> "Device":
        """Return this process's GPU, or the CPU where there is none, with all its memory or what is free of it now."""
        import torch

        if not torch.cuda.is_available():
            memory = _main_memory("MemAvailable" if free else "MemTotal")
            return cls(name="cpu", memory=memory, capability=None, bf16_instructions=has_bf16_instructions())
        gpu = torch.cuda.get_device_properties(torch.cuda.current_device())
        memory = torch.cuda.mem_get_info()[0] if free else gpu.total_memory
        return cls(name=gpu.name, memory=memory, capability=gpu.major + gpu.minor / 10)

    @classmethod
    def of_machine(cls, shape: str) -> "Device | None":
        """Return one GPU of a machine of Kaggle's; None where no GPU of the table is in such a machine."""
        return next((gpu for gpu in GPUS.values() if shape in gpu.machines), None)

    @staticmethod
    def names() -> list[str]:
        """Return the names that `find` knows, in their order."""
        return sorted([*GPUS, *_MACHINES])

    @staticmethod
    def find(name: str) -> "tuple[Device, int]":
        """Return (a GPU, how many of them) by a GPU's or a machine's name.

        >>> gpu, count = Device.find("t4x2")
        >>> gpu.name, count
        ('t4', 2)

        Raises:
            UserError: no such name.
        """
        if name not in Device.names():
            cure = nearest(name, Device.names())
            raise UserError("--device must be in the table of GPUs", value=repr(name), cure=cure)
        gpu, count = _MACHINES.get(name, (name, 1))
        return GPUS[gpu], count

    @property
    def memory_gib(self) -> float:
        """Its memory in GiB."""
        return self.memory / 2**30

    @property
    def usable(self) -> float:
        """Bytes of its memory that a plan may fill: the allocator's gaps need the rest."""
        return 0.95 * self.memory

    @property
    def context_bytes(self) -> int:
        """What CUDA itself takes of a GPU, not in torch's counts: seen on an H200, bitsandbytes and Triton loaded."""
        return 0 if self.capability is None else 768 * 2**20

    @property
    def has_bf16(self) -> bool:
        """Whether it is a GPU whose tensor cores take bf16."""
        return self.capability is not None and self.capability >= BF16_CAPABILITY

    @property
    def dtype(self) -> str:
        """Type of activations and dense weights, by torch's name."""
        return "float32" if self.capability is None else "bfloat16" if self.has_bf16 else "float16"

    def choose_serving_dtype(self, parameters: int | None) -> tuple[str, str]:
        """Return (the type that a model of that size draws samples and trains in, why); None: its size is not known.

        Measurements stay in `dtype`. A GPU serves in that too; a CPU that has the instructions serves large models in
        bf16, as every GPU since Ampere does.

        >>> cpu = Device(name="cpu", memory=2**34, capability=None, bf16_instructions=True)
        >>> cpu.choose_serving_dtype(494_000_000)
        ('bfloat16', 'this CPU multiplies bf16 numbers, and the model has 494 million parameters')
        >>> cpu.choose_serving_dtype(850_000)[0], GPUS["t4"].choose_serving_dtype(494_000_000)[0]
        ('float32', 'float16')
        """
        if self.capability is not None or not self.bf16_instructions:
            return self.dtype, self.dtype_reason
        if parameters is None or parameters < self.large_model:
            return self.dtype, "CPU: fp32 costs a small model nothing"
        millions = f"{parameters / 1e6:.0f} million parameters"
        return "bfloat16", f"this CPU multiplies bf16 numbers, and the model has {millions}"

    @property
    def torch_dtype(self) -> "torch.dtype":
        """Type of activations and dense weights."""
        import torch

        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype

    @property
    def dtype_reason(self) -> str:
        """Why it computes in that type."""
        if self.capability is None:
            return "CPU: fp32 is the safe choice, bf16 is slower on most CPUs"
        if self.has_bf16:
            return f"compute capability {self.capability} is 8.0 or later, which has bf16"
        return f"compute capability {self.capability} is below 8.0 and has no bf16"


def _gpu(name: str, mib: int, capability: float, peak_tflops: float, **machines: int | None) -> Device:
    return Device(name=name, memory=mib * 2**20, capability=capability, peak_tflops=peak_tflops, machines=machines)


GPUS = {
    gpu.name: gpu
    for gpu in (
        _gpu("t4", 15360, 7.5, 65, NvidiaTeslaT4=2, NvidiaTeslaT4Highmem=None),
        _gpu("p100", 16280, 6.0, 18.7),
        _gpu("v100", 16160, 7.0, 125),
        _gpu("l4", 23034, 8.9, 121, NvidiaL4=4, NvidiaL4X1=1),
        _gpu("a10g", 23028, 8.6, 70),
        _gpu("rtx3090", 24576, 8.6, 71),
        _gpu("rtx4090", 24564, 8.9, 165),
        _gpu("a6000", 49140, 8.6, 155),
        _gpu("l40s", 46068, 8.9, 362),
        _gpu("a100-40", 40960, 8.0, 312, NvidiaTeslaA100=None),
        _gpu("a100-80", 81920, 8.0, 312),
        _gpu("h100", 81559, 9.0, 989, NvidiaH100=1),
        _gpu("h200", 143771, 9.0, 989),
        _gpu("rtx5090", 32607, 12.0, 210),
        _gpu("b200", 183359, 10.0, 2250),
        _gpu("rtx-pro-6000", 97887, 12.0, 504, NvidiaRtxPro6000=None),
    )
}
"""Memory as nvidia-smi names it, MiB; NVIDIA's table of compute capabilities; peaks by its data sheets and architecture
papers; Kaggle's machines by its docs/kernels.md
(February 2026), their GPUs by its editor (T4 x2) and by AIMO-2's and AIMO-3's code requirements (four L4, one H100)."""

_MACHINES = {"t4x2": ("t4", 2), "l4x4": ("l4", 4)}
"""{Kaggle's machines of several GPUs: which and how many}."""

if TYPE_CHECKING:
    GpuName = str
else:
    # The command line's choices are the table's names.
    GpuName = Literal[tuple(GPUS)]


def _main_memory(field: Literal["MemTotal", "MemAvailable"]) -> int:
    """Return the main memory in all, or what is free or can be freed, bytes; a container's own limit is not seen."""
    linux = Path("/proc/meminfo")
    if not linux.is_file():
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    (line,) = (line for line in linux.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def has_bf16_instructions(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether an x86 processor multiplies bf16 numbers itself, by what Linux says of it."""
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    return any(_BF16_FLAGS & {*line.split()} for line in lines if line.startswith("flags"))
