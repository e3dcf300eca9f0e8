"""Layer by layer: is what the adapter changed larger than what the 8-bit numbers lose, and is it still there?"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathlete.export.formats import load_export
from mathlete.export.formats.q8_0 import GGUF_FILE
from mathlete.export.tuned import TunedModel
from mathlete.models import ModelSource, load_model
from mathlete.runs import read_json

if TYPE_CHECKING:
    from torch import Tensor

Weights = Callable[[str], "Tensor"]
"""A layer's weights in fp32, (out, in), by its name."""


def layer_costs(tuned: TunedModel, *, merged: Path, export: Path) -> list[dict[str, Any]]:
    """What became of each layer that was trained.

    With W the weights it was trained on, M the merged and Q the exported ones, and norms Frobenius':

    Returns:
        [{"layer", "signal": |M - W| / |M|, "noise": |Q - M| / |M|, "kept": <Q - W, M - W> / |M - W|²}]: kept is the
        share of the change that is still in the export, 1 where the noise leaves it alone.
    """
    after, stored = _in_file(merged), stored_weights(export)
    found = []
    for name, before in _trained_on(tuned.source, dense=tuned.base == "original" or not tuned.is_adapter):
        whole = after(name)
        change, noise = whole - before, stored(name) - whole
        # Rounding to 16 bits moves an untrained layer too, by less than any training.
        if (size := float(change.norm())) > 0:
            scale = float(whole.norm())
            kept = 1 + float((noise * change).sum()) / size**2
            found.append({"layer": name, "signal": size / scale, "noise": float(noise.norm()) / scale, "kept": kept})
    return found


def _trained_on(source: ModelSource, *, dense: bool) -> "Iterator[tuple[str, Tensor]]":
    """Yields (name, weights) of the base's linear layers, but the output's, as the adapter met them."""
    from bitsandbytes.functional import dequantize_4bit
    from torch.nn import Linear

    model = load_model(source, precision="dense" if dense else "nf4")
    for name, module in model.named_modules():
        if isinstance(module, Linear) and "head" not in name:
            weight: Any = module.weight
            if hasattr(weight, "quant_state"):
                weight = dequantize_4bit(weight.data, weight.quant_state)
            yield name, weight.detach().float().cpu()


def stored_weights(export: Path) -> Weights:
    """The weights that the file of an export stands for, whatever its format."""
    if (export / GGUF_FILE).is_file():
        model = load_export(export)
        return lambda name: model.get_submodule(name).weight.detach().float().cpu()
    tensor = _tensors(export)
    config: Any = read_json(export / "config.json")["quantization_config"]
    if config["quant_method"] == "bitsandbytes":
        # LLM.int8: a row's largest weight is 127 (arXiv 2208.07339, section 2.1).
        return lambda name: tensor(f"{name}.weight").float() * tensor(f"{name}.SCB")[:, None].float() / 127
    if config["format"] == "int-quantized":
        return lambda name: tensor(f"{name}.weight").float() * tensor(f"{name}.weight_scale").float()
    return lambda name: _unpacked(name, tensor)


def _unpacked(name: str, tensor: Weights) -> "Tensor":
    import torch
    from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32

    shape = torch.Size(tensor(f"{name}.weight_shape").tolist())
    whole: Tensor = unpack_from_int32(tensor(f"{name}.weight_packed"), 8, shape)
    return whole.float() * tensor(f"{name}.weight_scale").float()


def _in_file(folder: Path) -> Weights:
    tensor = _tensors(folder)
    return lambda name: tensor(f"{name}.weight").float()


def _tensors(folder: Path) -> Weights:
    """Reads one tensor at a time of a folder's files."""
    from safetensors import safe_open

    opened: list[Any] = [safe_open(file, framework="pt") for file in sorted(folder.glob("*.safetensors"))]
    where = {name: file for file in opened for name in file.keys()}  # noqa: SIM118 - no mapping

    def tensor(name: str) -> "Tensor":
        found: Tensor = where[name].get_tensor(name)
        return found

    return tensor
