"""What every format's writer is given, and the weights in a folder's files, one layer at a time."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

LayerWeights = Callable[[str], "Tensor"]
"""A linear layer's weights in fp32, (out, in), by the layer's name."""


@dataclass(frozen=True, kw_only=True)
class WriteOptions:
    """How a format's writer is to write."""

    dtype: str
    """torch's name of the type that the export computes in."""
    threshold: float
    """Activations from which LLM.int8 keeps a column in 16 bits; other formats have none."""


def dense_weights(folder: Path) -> LayerWeights:
    """Return the layers of a folder whose weights are not quantised."""
    tensor = open_tensors(folder)
    return lambda layer: tensor(f"{layer}.weight").float()


def open_tensors(folder: Path) -> "Callable[[str], Tensor]":
    """Open a folder's safetensors files; the function returned reads one tensor by its name."""
    from safetensors import safe_open

    files: list[Any] = [safe_open(file, framework="pt") for file in sorted(folder.glob("*.safetensors"))]
    file_of = {name: file for file in files for name in file.keys()}  # noqa: SIM118 - no mapping

    def read_tensor(name: str) -> "Tensor":
        tensor: Tensor = file_of[name].get_tensor(name)
        return tensor

    return read_tensor
