"""The tables of formats: how each is written, read back, served, checked for a GPU, shipped and described.

`EXPORT_FORMATS` is the one place that knows which formats are exported: the command line's choices, a run's folders,
the measurements, the model cards and the checks before a submission follow from its entries. `MOUNTED_FORMATS` holds
what a notebook may mount besides.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mathlete.errors import UserError
from mathlete.export.formats.calibrated import AWQ_4, GPTQ_4, GPTQ_8, PACKAGE, Calibrated
from mathlete.export.formats.compressed import (
    Kind,
    packed_weights,
    w8a8_weights,
    write_fp8,
    write_w4a16,
    write_w8a8,
    write_w8a16,
)
from mathlete.export.formats.gguf_files import F16, Q4_0, Q8_0, Gguf
from mathlete.export.formats.int8 import int8_weights, write_int8
from mathlete.export.formats.weights import LayerWeights, WriteOptions
from mathlete.models import GPUS, ModelSource, Shape, load_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DEFAULT_FORMAT = "int8"
"""The format that every run is exported in, and that other commands take where its gates let it pass."""


def load_folder(folder: Path) -> "PreTrainedModel":
    """Load an export that transformers reads by its config.json.

    Raises:
        UserError: not a model folder.
    """
    return load_model(ModelSource(name="export", location=str(folder)))


@dataclass(frozen=True, kw_only=True)
class StoredFormat:
    """One way of storing weights, and what a notebook needs to load them."""

    stored_as: str | None
    """The word of `read_storage` for how the weights are stored, by which `python -m submit` knows what they need;
    None: a notebook can't load them."""
    least: float
    """Compute capability from which its kernels run."""
    below: float | None = None
    """Compute capability from which they no longer do; None: all later ones have them."""
    wheels: tuple[str, ...] = ()
    """Requirements beyond Kaggle's image that a notebook needs to load it."""
    embedded: bool = True
    """Whether the embedded engine loads it; else vLLM alone."""
    layout: Kind | None = None
    """The `format` of its quantization_config, where several formats are stored in one way."""

    def fits(self, capability: float) -> bool:
        """Return whether there are kernels for a compute capability."""
        return capability >= self.least and (self.below is None or capability < self.below)


@dataclass(frozen=True, kw_only=True)
class ExportFormat(StoredFormat):
    """One format of an export."""

    name: str
    """Its word on the command line, in the names of its folder and of its figures."""
    title: str
    """What it is, on the model card."""
    bits: int = 8
    """Bits of a weight, on the model card."""
    activation_bits: int = 16
    """Bits of the activations that its kernels multiply."""
    has_threshold: bool = False
    """Whether --export.threshold keeps columns of large activations in 16 bits."""

    write: Callable[[Path, Path, WriteOptions], None]
    """Writes the weights: folder, the merged model's folder, options."""
    require_model: Callable[[ModelSource], object] = lambda _: None
    """Raises UserError where a model of such a config and tokenizer can't be written."""
    package: str | None = None
    """The module it needs beside the project's own; None: none."""
    extra: str = "formats"
    """The project's extra that brings the package."""
    is_calibrated: bool = False
    """Whether it is made for the activations of the run's training rows."""

    load: "Callable[[Path], PreTrainedModel]" = load_folder
    """Loads the export with transformers."""
    weights: Callable[[Path], LayerWeights] | None
    """The fp32 weights that the numbers in the files stand for; None: they can't be held against the merged model's."""
    suffix: str = ".safetensors"
    """How the names of its weight files end."""
    engine: str | None = "vllm"
    """What serves it beside transformers: an engine of `mathlete.export.served`."""

    library: str = "transformers"
    """The hub's name of the library that loads it, for the model card."""
    usage: str = "vllm serve THIS_FOLDER"
    """A line that loads it, for the model card."""

    @property
    def family(self) -> str:
        """What kernels take it for: w8a16 of w8a16-gptq."""
        return self.name.partition("-")[0]

    @property
    def folder(self) -> str:
        """Its folder in a run: `export` for the default, which all other commands read."""
        return "export" if self.name == DEFAULT_FORMAT else f"export-{self.name}"

    def files(self, export: Path) -> list[Path]:
        """Return the weight files in an export's folder."""
        return sorted(file for file in export.iterdir() if file.suffix == self.suffix)

    def size(self, export: Path) -> int:
        """Return the bytes of an export's weights."""
        return sum(file.stat().st_size for file in self.files(export))

    @property
    def is_installed(self) -> bool:
        """Whether the package that it needs is here."""
        return self.package is None or find_spec(self.package) is not None

    def needed_bytes(self, merged: Path) -> int:
        """Return the disk that must be free before the merged model is written in this format: its own size at most."""
        return ModelSource(name="merged", location=str(merged)).weight_bytes

    def require(self, gpu: str | None) -> str:
        """Check that the format can be written here and run on the GPU; return the type it computes in, in words.

        Raises:
            UserError: its package is not installed, or the GPU has no kernel for it.
        """
        if not self.is_installed:
            cure = f'pip install "mathlete[{self.extra}]" -c constraints.txt'
            raise UserError(f"{self.name} needs {self.package}", value="not installed", cure=cure)
        if gpu is None:
            return f"{self.name}: stored in the merged model's type; name the GPU that will serve it with --export.gpu"
        device, capability = GPUS[gpu], GPUS[gpu].capability
        assert capability is not None
        if not self.fits(capability):
            upper = "" if self.below is None else f" and below {self.below:g}"
            raise UserError(
                f"{self.name} runs on compute capability {self.least:g} or later{upper}",
                value=f"--export.gpu {gpu}, which has {capability:g}",
                cure="use " + " or ".join(sorted(one.name for one in EXPORT_FORMATS.values() if one.fits(capability))),
            )
        return f"{self.name}: {gpu} takes it, in {device.dtype} because {device.dtype_reason}"


_COMPRESSED = ("compressed-tensors>=0.20",)
"""transformers reads such weights with this package (its quantizer_compressed_tensors.py), which the image lacks."""


def _gguf(file: Gguf, *, title: str, bits: int = 8, activation_bits: int = 16) -> ExportFormat:
    """Make the entry of a GGUF file."""
    return ExportFormat(
        name=file.name,
        title=title,
        write=file.write,
        package="gguf",
        load=file.load,
        weights=file.weights,
        bits=bits,
        activation_bits=activation_bits,
        require_model=file.require,
        suffix=".gguf",
        engine="llama.cpp",
        least=5.0,
        stored_as=None,
        library="gguf",
        usage=f"llama-server -m {file.file}",
    )


def _calibrated(how: Calibrated, *, title: str) -> ExportFormat:
    """Make the entry of a format that is calibrated on rows, stored as plain rounding is."""
    return ExportFormat(
        name=how.name,
        title=title,
        bits=how.bits,
        write=how.write,
        package=PACKAGE,
        extra="gptq",
        is_calibrated=True,
        # AWQ moves factors from one layer into another: neither is what it was.
        weights=packed_weights(how.bits) if how.method == "gptq" else None,
        least=7.5,
        stored_as="compressed-tensors",
        layout="pack-quantized",
        wheels=_COMPRESSED,
    )


_ENTRIES = (
    ExportFormat(
        name="int8",
        title="bitsandbytes LLM.int8 (arXiv 2208.07339)",
        write=write_int8,
        weights=int8_weights,
        activation_bits=8,
        has_threshold=True,
        least=7.5,
        stored_as="int8",
        wheels=("bitsandbytes>=0.49",),
        usage='AutoModelForCausalLM.from_pretrained("THIS FOLDER", device_map="auto")   '
        "# transformers and bitsandbytes",
    ),
    ExportFormat(
        name="w8a16",
        title="compressed-tensors, 8-bit weights, 16-bit activations",
        write=write_w8a16,
        package="compressed_tensors",
        weights=packed_weights(8),
        least=7.5,
        stored_as="compressed-tensors",
        layout="pack-quantized",
        wheels=_COMPRESSED,
    ),
    ExportFormat(
        name="w8a8",
        title="compressed-tensors, 8-bit weights and activations",
        write=write_w8a8,
        package="compressed_tensors",
        weights=w8a8_weights,
        activation_bits=8,
        least=7.5,
        below=10.0,
        stored_as="compressed-tensors",
        layout="int-quantized",
        wheels=_COMPRESSED,
    ),
    ExportFormat(
        name="fp8",
        title="compressed-tensors, 8-bit floating-point weights and activations",
        write=write_fp8,
        package="compressed_tensors",
        weights=w8a8_weights,
        activation_bits=8,
        least=8.9,
        stored_as="compressed-tensors",
        layout="float-quantized",
        wheels=_COMPRESSED,
    ),
    ExportFormat(
        name="w4a16",
        title="compressed-tensors, 4-bit weights in groups, 16-bit activations",
        bits=4,
        write=write_w4a16,
        package="compressed_tensors",
        weights=packed_weights(4),
        least=7.5,
        stored_as="compressed-tensors",
        layout="pack-quantized",
        wheels=_COMPRESSED,
    ),
    _calibrated(GPTQ_8, title="compressed-tensors, 8-bit weights by GPTQ, 16-bit activations"),
    _calibrated(GPTQ_4, title="compressed-tensors, 4-bit weights by GPTQ, 16-bit activations"),
    _calibrated(AWQ_4, title="compressed-tensors, 4-bit weights by AWQ, 16-bit activations"),
    _gguf(Q8_0, title="GGUF Q8_0, for llama.cpp", activation_bits=8),  # it multiplies blocks of 8-bit activations
    _gguf(Q4_0, title="GGUF Q4_0, for llama.cpp", bits=4, activation_bits=8),
    _gguf(F16, title="GGUF in 16 bits, for llama.cpp", bits=16),
)
EXPORT_FORMATS: dict[str, ExportFormat] = {entry.name: entry for entry in _ENTRIES}
"""Capabilities: bitsandbytes' README (LLM.int8), vLLM's "Supported Hardware" of its quantization pages, whose INT8 page
says that W8A8 is not supported from 10.0 (Blackwell) on and whose FP8 page wants 8.9 for it, and llama.cpp's
docs/build.md (CUDA)."""

if TYPE_CHECKING:
    ServingEngine = str
else:
    # The command line's choices are the table's engines.
    ServingEngine = Literal[tuple(sorted({entry.engine for entry in _ENTRIES if entry.engine}))]

MOUNTED_FORMATS = (
    StoredFormat(stored_as="dense", least=6.0),
    StoredFormat(stored_as="nf4", least=6.0, wheels=("bitsandbytes>=0.49",)),
    StoredFormat(stored_as="mxfp4", least=8.0, embedded=False),
    StoredFormat(stored_as="gptq", least=6.0, embedded=False),
    StoredFormat(stored_as="awq", least=7.5, embedded=False),
    StoredFormat(stored_as="fp8", least=7.5, embedded=False),
)
"""What a notebook's engine loads and mathlete does not write: bitsandbytes' table, and `get_min_capability` of each in
vLLM 0.19.1 (model_executor/layers/quantization). In transformers those four need kernels of a GPU that no rehearsal
here can try."""


_OTHERS = {"compressed-tensors": StoredFormat(stored_as="compressed-tensors", least=7.0, embedded=False)}
"""{word: what is stored in that way and is none of the exports}; vLLM is asked by `find_wrong_scheme` of submission."""


def read_storage(config: Mapping[str, object]) -> str:
    """Return how weights are stored, by their config.json: dense, int8 or nf4 (bitsandbytes), or its own word.

    >>> read_storage({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}})
    'nf4'
    """
    if (how := Shape.read_quantization(config)) is None:
        return "dense"
    if how.get("quant_method") == "bitsandbytes":
        return "nf4" if how.get("load_in_4bit") else "int8"
    return str(how.get("quant_method"))


def find_formats(stored: str, config: Mapping[str, object] | None = None) -> tuple[StoredFormat, ...]:
    """Return the formats that weights stored so may be of; none where no engine loads them.

    Args:
        stored: the word of `read_storage`.
        config: the model's config.json, by which formats that are stored in one way are told apart; None: they are not.

    >>> [one.least for one in find_formats("nf4")], find_formats("torchao")
    ([6.0], ())
    >>> fp8 = {"quantization_config": {"quant_method": "compressed-tensors", "format": "float-quantized"}}
    >>> [one.least for one in find_formats(read_storage(fp8), fp8)]
    [8.9]
    """
    exported = tuple(entry for entry in EXPORT_FORMATS.values() if entry.stored_as == stored)
    how = Shape.read_quantization(config or {}) or {}
    layout, bits = how.get("format"), _read_bits(how)
    told = tuple(entry for entry in exported if entry.layout == layout and bits <= {entry.bits})
    # What is exported says itself what it needs: the second table never overrides it.
    if exported and layout is not None:
        return told or tuple(one for word, one in _OTHERS.items() if word == stored)
    return exported or tuple(one for one in MOUNTED_FORMATS if one.stored_as == stored)


def _read_bits(how: Mapping[str, object]) -> set[object]:
    """Return the bits of the weights, one number for each that compressed-tensors' groups name."""
    groups = how.get("config_groups")
    weights = (
        [one.get("weights") for one in groups.values() if isinstance(one, Mapping)]
        if isinstance(groups, Mapping)
        else []
    )
    return {one.get("num_bits") for one in weights if isinstance(one, Mapping)}
