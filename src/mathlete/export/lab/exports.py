"""The formats of an export as schemes of the lab: each is written, read back and measured, as a run does it.

The model is stored in 16 bits before, as a merged one is: the files are those that a run would write. Calibrated
formats look at problems that no figure is measured on.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathlete.errors import UserError
from mathlete.export.formats import EXPORT_FORMATS, ExportFormat
from mathlete.export.formats.weights import Calibration
from mathlete.export.formats.writing import write_format
from mathlete.export.lab.quantizers import Scheme, list_part_schemes, list_schemes
from mathlete.export.merge import STORAGE_TYPES
from mathlete.export.settings import Export
from mathlete.models import ModelSource, load_model, load_prompt_format

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ExportScheme:
    """A format of an export, as the lab measures it."""

    made: ExportFormat

    @property
    def name(self) -> str:
        """The scheme in the lab's table: export/w8a16-gptq."""
        return f"export/{self.made.name}"


def list_export_schemes() -> Iterator[ExportScheme]:
    """Yield each format that `--export.formats` may name."""
    for made in EXPORT_FORMATS.values():
        yield ExportScheme(made=made)


def find_schemes(only: str, *, parts: bool = False) -> list[Scheme | ExportScheme]:
    """Return the schemes and exports, or with `parts` those of a model's parts, whose name contains a text.

    Raises:
        UserError: no name contains it.
    """
    every = list_part_schemes() if parts else chain[Scheme | ExportScheme](list_schemes(), list_export_schemes())
    chosen = [scheme for scheme in every if only in scheme.name]
    if not chosen:
        cure = "try int8/ or fp8" if parts else "try int4/, fp8 or export/"
        raise UserError("--only must be part of a scheme's name", value=repr(only), cure=cure)
    return chosen


def find_lacking(schemes: Sequence[Scheme | ExportScheme], source: ModelSource) -> dict[str, str]:
    """Return {scheme: why it can't be measured here}: no package, or a model that the format can't hold."""
    lacking = {}
    for scheme in schemes:
        if isinstance(scheme, ExportScheme):
            try:
                scheme.made.require(None)
                scheme.made.require_model(source)
            except UserError as error:
                lacking[scheme.name] = f"{error.rule}, got {error.value}: {error.cure}"
    return lacking


@dataclass(frozen=True, kw_only=True)
class Exporting:
    """What formats are written of, and where."""

    scratch: Path
    """A folder that is deleted afterwards."""
    calibration: Calibration
    watch: Callable[[str], None]
    """Told how far a calibrated format is."""

    @property
    def dense(self) -> Path:
        """The folder of the model in 16 bits."""
        return self.scratch / "dense"

    def save(self, source: ModelSource, *, rows: "Dataset") -> None:
        """Write the model in 16 bits, and the rows that calibrated formats are made for.

        Raises:
            UserError: the model can't be read, or is quantised already.
        """
        for dtype in STORAGE_TYPES:
            model = load_model(source, precision="dense", dtype=dtype)
            if all(bool(weight.isfinite().all()) for weight in model.parameters()):
                break  # none is beyond the type's largest number
        model.save_pretrained(self.dense)
        prompts = load_prompt_format(source)
        prompts.tokenizer.save_pretrained(self.dense)
        prompts.save(self.dense)
        if len(rows):
            rows.save_to_disk(self.calibration.rows)

    def write(self, made: ExportFormat) -> Path:
        """Write the model in a format; return the folder.

        Raises:
            UserError: the format can't hold this model, or the disk is full.
        """
        folder = self.scratch / made.name
        write_format(
            folder,
            merged=self.dense,
            name=made.name,
            settings=Export(),
            calibration=self.calibration if made.is_calibrated else None,
            watch=lambda words: self.watch(f"{made.name}: {words}"),
        )
        return folder


def measure_error(folder: Path, made: ExportFormat, weights: "Mapping[str, Tensor]") -> float | None:
    """Return the Frobenius norm of what the files lost over that of the weights; None where a format moves factors."""
    if made.weights is None:
        return None
    stored, lost, whole = made.weights(folder), 0.0, 0.0
    for name, weight in weights.items():
        lost += float((weight - stored(name)).double().square().sum())
        whole += float(weight.double().square().sum())
    return float((lost / whole) ** 0.5)


def measure_bits(folder: Path, made: ExportFormat, weights: "Mapping[str, Tensor]") -> float:
    """Return the bits that the files hold for a weight of these layers, scales and zero points included."""
    stored = sum(_gguf_bytes(file) if made.suffix == ".gguf" else _bytes(file, weights) for file in made.files(folder))
    return 8 * stored / sum(weight.numel() for weight in weights.values())


def _bytes(file: Path, layers: "Mapping[str, Tensor]") -> int:
    """Return the bytes of all tensors of these layers but the biases."""
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        names = [name.rpartition(".") for name in opened.keys()]  # noqa: SIM118 - no mapping
        of_layers = [f"{layer}.{kind}" for layer, _, kind in names if layer in layers and kind != "bias"]
        return sum(opened.get_tensor(name).nbytes for name in of_layers)


def _gguf_bytes(file: Path) -> int:
    """Return the bytes of the matrices of a GGUF's blocks: its linear layers but the output's."""
    from gguf import GGUFReader

    # Any: gguf has no types of its own.
    tensors: Any = GGUFReader(str(file)).tensors
    return sum(int(one.n_bytes) for one in tensors if one.name.startswith("blk.") and len(one.shape) == 2)
