"""The 8-bit formats an export can have: what writes each, what reads it, which GPU computes in it."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mathlete.errors import UserError
from mathlete.export.formats.compressed import write_w8a8, write_w8a16
from mathlete.export.formats.int8 import write_int8
from mathlete.export.formats.q8_0 import GGUF_FILE, write_q8_0
from mathlete.export.settings import Export
from mathlete.models import GPUS, ModelSource, load_model, load_prompt_format
from mathlete.runs import read_json


@dataclass(frozen=True, kw_only=True)
class ExportFormat:
    """One 8-bit format."""

    name: str
    words: str
    """What it is."""
    write: Callable[[Path, Path, str, Export], None]
    """Writes the weights: folder, the merged model's folder, torch's name of the computing type, settings."""
    package: str | None
    """The module it needs beside the project's own; None: none."""
    least: float
    """Compute capability from which its kernels run."""
    below: float | None = None
    """Compute capability from which they no longer do."""

    @property
    def folder(self) -> str:
        """Its folder in a run: `export` for the default, which all other commands read."""
        return "export" if self.name == "int8" else f"export-{self.name}"

    def require(self, gpu: str | None) -> str:
        """Which type it computes in on the GPU, in words; for no named GPU, that of the merged model.

        Raises:
            UserError: its package is not installed, or the GPU has no kernel for it.
        """
        if self.package and find_spec(self.package) is None:
            cure = 'pip install "mathlete[formats]" -c constraints.txt'
            raise UserError(f"{self.name} needs {self.package}", value="not installed", cure=cure)
        if gpu is None:
            return f"{self.name}: in the merged model's type; name the GPU that will serve it with --export.gpu"
        device, capability = GPUS[gpu], GPUS[gpu].capability
        assert capability is not None
        if capability < self.least or (self.below is not None and capability >= self.below):
            upper = "" if self.below is None else f" and below {self.below:g}"
            raise UserError(
                f"{self.name} runs on compute capability {self.least:g} or later{upper}",
                value=f"--export.gpu {gpu}, which has {capability:g}",
                cure="use " + " or ".join(sorted(one.name for one in EXPORT_FORMATS.values() if one.fits(capability))),
            )
        return f"{self.name}: {gpu} takes it, in {device.dtype} because {device.dtype_reason}"

    def fits(self, capability: float) -> bool:
        """Whether there are kernels for a compute capability."""
        return capability >= self.least and (self.below is None or capability < self.below)


EXPORT_FORMATS: dict[str, ExportFormat] = {
    one.name: one
    for one in (
        ExportFormat(
            name="int8", words="bitsandbytes LLM.int8 (arXiv 2208.07339)", write=write_int8, package=None, least=7.5
        ),
        ExportFormat(
            name="w8a16",
            words="compressed-tensors, 8-bit weights, 16-bit activations",
            write=write_w8a16,
            package="compressed_tensors",
            least=7.5,
        ),
        ExportFormat(
            name="w8a8",
            words="compressed-tensors, 8-bit weights and activations",
            write=write_w8a8,
            package="compressed_tensors",
            least=7.5,
            below=10.0,
        ),
        ExportFormat(name="q8_0", words="GGUF Q8_0, for llama.cpp", write=write_q8_0, package="gguf", least=5.0),
    )
}
"""Capabilities: bitsandbytes' README (LLM.int8), vLLM's "Supported Hardware" of its quantization pages, whose INT8 page
says that W8A8 is not supported from 10.0 (Blackwell) on, and llama.cpp's docs/build.md (CUDA)."""


def write_format(folder: Path, *, merged: Path, name: str, settings: Export) -> None:
    """Writes the whole folder of a format: weights, tokenizer, chat template, instruction, generation settings.

    Raises:
        UserError: the format can't hold this model, its package is missing, or its GPU can't run it.
    """
    found = EXPORT_FORMATS[name]
    found.require(settings.gpu)
    found.write(folder, merged, served_dtype(merged, settings), settings)
    prompts = load_prompt_format(ModelSource(name="merged", location=str(merged)))
    prompts.tokenizer.save_pretrained(folder)
    prompts.save(folder)
    if (generation := merged / "generation_config.json").is_file():
        (folder / generation.name).write_bytes(generation.read_bytes())


def served_dtype(merged: Path, settings: Export) -> str:
    """torch's name of the type the export computes in: the GPU's where one is named, else the merged model's."""
    if settings.gpu is None:
        return str(read_json(merged / "config.json")["dtype"])
    return GPUS[settings.gpu].dtype


def load_export(folder: Path) -> Any:
    """The model of an export as transformers reads it; of a GGUF, its dequantised weights.

    Raises:
        UserError: not a model folder.
    """
    if not (folder / GGUF_FILE).is_file():
        return load_model(ModelSource(name="export", location=str(folder)))
    return load_model(ModelSource(name="export", location=str(folder)), gguf_file=GGUF_FILE)


def export_bytes(folder: Path) -> int:
    """Size of an export's weights."""
    return sum(file.stat().st_size for file in folder.iterdir() if file.suffix in (".safetensors", ".gguf"))
