"""The device that models compute on here, and the type of number that it computes in."""

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

BF16_CAPABILITY = 8.0
"""Compute capability from which tensor cores take bf16: Ampere (CUDA C++ Programming Guide, "Compute Capabilities")."""


def dtype_for(capability: float | None) -> tuple[str, str]:
    """(torch's name of the type of activations and dense weights, why) for a CUDA capability, or None for a CPU.

    >>> dtype_for(7.5)[0], dtype_for(8.0)[0], dtype_for(None)[0]
    ('float16', 'bfloat16', 'float32')
    """
    if capability is None:
        return "float32", "CPU: fp32 is the safe choice, bf16 is slower on most CPUs"
    if capability >= BF16_CAPABILITY:
        return "bfloat16", f"compute capability {capability} is 8.0 or later, which has bf16"
    return "float16", f"compute capability {capability} is below 8.0 and has no bf16"


def capability() -> float | None:
    """The CUDA device's compute capability; None where there is none."""
    import torch

    if not torch.cuda.is_available():
        return None
    major, minor = torch.cuda.get_device_capability()
    return major + minor / 10


def compute_dtype() -> tuple["torch.dtype", str]:
    """(dtype of activations and dense weights, why) for this machine."""
    import torch

    name, why = dtype_for(capability())
    found: torch.dtype = getattr(torch, name)
    return found, why


def device_name() -> str:
    """`cuda` where there is one, else `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


DeviceName = Literal[
    "t4", "p100", "v100", "l4", "a10g", "rtx4090", "a100-40", "a100-80", "h100", "h200", "rtx5090", "b200"
]
"""GPUs whose memory and capability are known."""
