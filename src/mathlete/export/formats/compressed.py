"""compressed-tensors, vLLM's own format: a scale for a row or a group of weights, activations as they are or in 8 bits.

Integers of b bits: s = max|w| / (2^(b-1) - 0.5) of each slice, q = round(w / s) within -2^(b-1)..2^(b-1)-1. Floating
point: s = max|w| / 448, the largest number of float8_e4m3fn (arXiv:2209.05433, table 1), q the nearest such number to
w / s. Activations of 8 bits get their scale for each token while the model runs. The output layer and the embeddings
stay in 16 bits, as llm-compressor leaves them.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mathlete.errors import UserError
from mathlete.export.formats.weights import LayerWeights, WriteOptions, open_tensors
from mathlete.models import ModelSource, load_model

if TYPE_CHECKING:
    from compressed_tensors.quantization import QuantizationScheme
    from torch import Tensor
    from torch.nn import Module

Kind = Literal["pack-quantized", "int-quantized", "float-quantized"]
"""How the numbers lie in the files, by the library's words."""
GROUPS = (128, 64, 32)
"""Sizes of a group that vLLM's kernels know (MARLIN_SUPPORTED_GROUP_SIZES of 0.19.1)."""


def write_w8a16(folder: Path, merged: Path, options: WriteOptions) -> None:
    """Write 8-bit weights, packed four to an int32, which a GPU unpacks as it multiplies."""
    _write(folder, merged, options, kind="pack-quantized")


def write_w4a16(folder: Path, merged: Path, options: WriteOptions) -> None:
    """Write 4-bit weights, packed eight to an int32, with a scale for each group."""
    _write(folder, merged, options, kind="pack-quantized", bits=4)


def write_w8a8(folder: Path, merged: Path, options: WriteOptions) -> None:
    """Write 8-bit weights for a GPU that multiplies 8-bit integers."""
    _write(folder, merged, options, kind="int-quantized")


def write_fp8(folder: Path, merged: Path, options: WriteOptions) -> None:
    """Write 8-bit floating-point weights for a GPU that multiplies such numbers."""
    _write(folder, merged, options, kind="float-quantized")


def _write(folder: Path, merged: Path, options: WriteOptions, *, kind: Kind, bits: int = 8) -> None:
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import QuantizationConfig, QuantizationStatus, apply_quantization_config

    # Any: compressed-tensors puts scales and a status on the modules.
    model: Any = load_model(ModelSource(name="merged", location=str(merged)), precision="dense", dtype=options.dtype)
    group = choose_group(model, bits=bits, asked=options.group) if kind == "pack-quantized" else None
    config = QuantizationConfig(
        config_groups={"group_0": make_scheme(kind, bits=bits, group=group)},
        ignore=["lm_head"],
        quantization_status=QuantizationStatus.INITIALIZED,
    )
    apply_quantization_config(model, config)
    largest = 448.0 if kind == "float-quantized" else 2 ** (bits - 1) - 0.5
    for module in model.modules():
        if hasattr(module, "weight_scale"):
            rows = module.weight_scale.shape[0]
            slices = module.weight.data.float().reshape(rows, module.weight_scale.shape[1], -1)
            # At least so much: a slice of zeros.
            module.weight_scale.data.copy_((slices.abs().amax(-1) / largest).clamp(min=1e-8))
            if hasattr(module, "weight_zero_point"):
                module.weight_zero_point.data.zero_()
            # The scales are set here: no calibration on data follows.
            module.quantization_status = QuantizationStatus.FROZEN
    compressor: Any = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(folder)
    compressor.update_config(str(folder))


def make_scheme(kind: Kind, *, bits: int, group: int | None) -> "QuantizationScheme":
    """Return the library's description of all linear layers' numbers, and of activations that kernels multiply in 8."""
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    numbers = "float" if kind == "float-quantized" else "int"
    strategy = "channel" if group is None else "group"
    weights = QuantizationArgs(num_bits=bits, type=numbers, symmetric=True, strategy=strategy, group_size=group)
    tokens = QuantizationArgs(num_bits=8, type=numbers, symmetric=True, strategy="token", dynamic=True)
    return QuantizationScheme(
        targets=["Linear"], weights=weights, input_activations=None if kind == "pack-quantized" else tokens
    )


def choose_group(model: "Module", *, bits: int, asked: int | None) -> int | None:
    """Return how many weights of a row share a scale; None: the whole row, which 8 bits have if nothing is asked for.

    Raises:
        UserError: the rows of a layer are no whole number of groups.
    """
    from torch.nn import Linear

    columns = {one.in_features for name, one in model.named_modules() if isinstance(one, Linear) and name != "lm_head"}
    fits = [size for size in GROUPS if all(count % size == 0 for count in columns)]
    if asked is None:
        return None if bits == 8 else next(iter(fits), None)
    if asked not in fits:
        cure = f"use --export.group {fits[0]}" if fits else "leave it out"
        value = f"{asked} in rows of {', '.join(map(str, sorted(columns)))}"
        raise UserError("--export.group must divide the rows of every layer", value=value, cure=cure)
    return asked


def packed_weights(bits: int) -> Callable[[Path], LayerWeights]:
    """Return what reads the layers that packed integers of so many bits stand for."""

    def read_weights(folder: Path) -> LayerWeights:
        import torch
        from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32

        tensor = open_tensors(folder)

        def unpack(layer: str) -> "Tensor":
            shape, scale = torch.Size(tensor(f"{layer}.weight_shape").tolist()), tensor(f"{layer}.weight_scale").float()
            integers: Tensor = unpack_from_int32(tensor(f"{layer}.weight_packed"), bits, shape)
            return (integers.float().reshape(*scale.shape, -1) * scale[..., None]).reshape(shape)

        return unpack

    return read_weights


def w8a8_weights(folder: Path) -> LayerWeights:
    """Return the layers that the integers, or the floating-point numbers of 8 bits, stand for."""
    tensor = open_tensors(folder)
    return lambda layer: tensor(f"{layer}.weight").float() * tensor(f"{layer}.weight_scale").float()
