"""The machine that the notebook runs on: looked at before the first question, written into its journal and its log.

A notebook may be given another GPU than it was built for. In the commit run that is an error, which costs nothing; in
the rerun, where an error would cost the submission, it is a loud line.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mathlete.models import Device

_PACKAGES = (
    *("mathlete", "torch", "transformers", "tokenizers", "accelerate", "safetensors", "bitsandbytes"),
    *("compressed-tensors", "vllm", "numpy", "polars", "pandas", "pyarrow", "grpcio", "protobuf"),
)
"""Packages whose versions the notebook's answers may depend on."""
_ASKED = "name,memory.total,compute_cap,driver_version"
_SLACK = 0.1
"""Share by which a GPU's memory may differ from the table's: drivers keep some for themselves."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU, as nvidia-smi names it."""

    name: str
    memory_mib: int
    capability: float | None
    """None where an old driver does not tell."""
    driver: str = ""


def list_gpus(command: Sequence[str] = ("nvidia-smi",)) -> list[Gpu]:
    """Return the machine's GPUs without loading torch, which would take memory of one; [] where there is none."""
    words = [*command, f"--query-gpu={_ASKED}", "--format=csv,noheader,nounits"]
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30.0)
        lines = done.stdout.splitlines() if done.returncode == 0 else []
        return [gpu for line in lines if (gpu := _read_gpu(line)) is not None]
    return []


def _read_gpu(line: str) -> Gpu | None:
    """Return the GPU of a line.

    >>> _read_gpu("NVIDIA H100 80GB HBM3, 81559, 9.0, 570.124.06").capability
    9.0
    >>> _read_gpu("Failed to initialize NVML: Driver/library version mismatch")
    """
    name, *rest = (part.strip() for part in line.split(","))
    if len(rest) != 3 or not rest[0].isdigit():
        return None
    memory, capability, driver = rest
    known = float(capability) if capability.replace(".", "", 1).isdigit() else None
    return Gpu(name=name, memory_mib=int(memory), capability=known, driver=driver)


def describe_machine(gpus: Sequence[Gpu], *, working: Path) -> dict[str, object]:
    """Return what the machine is, as JSON values: GPUs, cores, memory, free disk, Python and packages."""
    return {
        "gpus": [asdict(gpu) for gpu in gpus],
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "disk_free_gib": {str(place): round(_free(place) / 2**30, 1) for place in (working, Path("/tmp"))},
        "python": ".".join(map(str, sys.version_info[:3])),
        "packages": dict(_list_versions()),
    }


def _free(place: Path) -> int:
    return shutil.disk_usage(place).free if place.is_dir() else 0


def _list_versions() -> Mapping[str, str]:
    versions = dict[str, str]()
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def find_difference(gpus: Sequence[Gpu], shape: str) -> str:
    """Return in words how the GPUs differ from those of Kaggle's machine of that name; empty where they do not.

    >>> find_difference([Gpu(name="Tesla T4", memory_mib=15360, capability=7.5)], "NvidiaH100")
    'built for NvidiaH100 with h100 (80 GiB, 9.0), this machine has Tesla T4 (15 GiB, 7.5)'
    >>> find_difference([], "NvidiaTeslaT4").endswith("this machine has no GPU")
    True
    """
    built = Device.of_machine(shape)
    if built is None or any(_is_like(gpu, built) for gpu in gpus):
        return ""
    there = ", ".join(f"{gpu.name} ({gpu.memory_mib / 1024:.0f} GiB, {gpu.capability})" for gpu in gpus)
    wanted = f"{built.name} ({built.memory_gib:.0f} GiB, {built.capability})"
    return f"built for {shape} with {wanted}, this machine has {there or 'no GPU'}"


def _is_like(gpu: Gpu, built: Device) -> bool:
    near = abs(gpu.memory_mib * 2**20 - built.memory) <= _SLACK * built.memory
    return near and gpu.capability in (built.capability, None)
