"""What every format's writer is given, and the weights in a folder's files, one layer at a time."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathlete.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor

LayerWeights = Callable[[str], "Tensor"]
"""A linear layer's weights in fp32, (out, in), by the layer's name."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The rows whose activations a calibrated format is made for."""

    rows: Path
    """A datasets folder with `input_ids`: those that the run trained on, never a suite."""
    count: int
    """How many of them, drawn by the seed."""
    tokens: int
    """Tokens after which a row is cut."""
    seed: int

    def describe(self) -> str:
        """Return it in words, for manifest and card."""
        return f"{self.count} rows of the training at most, of {self.tokens} tokens at most, drawn by seed {self.seed}"

    def draw(self) -> list[list[int]]:
        """Return the token ids of the rows that are drawn, all where there are no more.

        Raises:
            UserError: there are none.
        """
        import datasets

        if not self.rows.is_dir():
            cure = "make the export in the run that trained the model: `python -m train math … --run RUN`"
            raise UserError("a calibrated format needs the run's training rows", value=f"no {self.rows}", cure=cure)
        rows: Dataset = datasets.load_from_disk(self.rows)
        # Not by the library's `shuffle`, which leaves a file of its order in the run's folder.
        drawn = random.Random(self.seed).sample(range(len(rows)), min(self.count, len(rows)))
        return [rows[index]["input_ids"][: self.tokens] for index in drawn]


@dataclass(frozen=True, kw_only=True)
class WriteOptions:
    """How a format's writer is to write."""

    dtype: str
    """torch's name of the type that what is dense in the export is stored in."""
    threshold: float
    """Activations from which LLM.int8 keeps a column in 16 bits; other formats have none."""
    group: int | None = None
    """Weights of a row that share a scale in compressed-tensors' integers; None: the format's own choice."""
    calibration: Calibration | None = None
    """What calibrated formats look at; others don't."""
    watch: Callable[[str], None] = lambda _: None
    """Told how far a calibrated format is."""


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
