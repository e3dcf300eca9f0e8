"""compressed-tensors, vLLM's own format: a scale for each row of weights, activations as they are or in 8 bits too.

Integers: s = max|w| / 127.5 of each output row, q = round(w / s) within -128..127. Floating point: s = max|w| / 448,
the largest number of float8_e4m3fn (arXiv:2209.05433, table 1), q the nearest such number to w / s. Activations of 8
bits get their scale for each token while the model runs. The output layer and the embeddings stay in 16 bits, as
llm-compressor leaves them.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mathlete.export.formats.weights import LayerWeights, WriteOptions, open_tensors
from mathlete.models import ModelSource, load_model

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["pack-quantized", "int-quantized", "float-quantized"]
"""How the numbers lie in the files, by the library's words."""
_LARGEST: dict[str, float] = {"int": 127.5, "float": 448.0}
"""What the largest weight of a row becomes."""


def write_w8a16(folder: Path, merged: Path, options: WriteOptions) -> None:
    """Write 8-bit weights, packed four to an int32, which a GPU unpacks as it multiplies."""
    _write(folder, merged, dtype=options.dtype, kind="pack-quantized")


def write_w8a8(folder: Path, merged: Path, options: WriteOptions) -> None:
    """Write 8-bit weights for a GPU that multiplies 8-bit integers."""
    _write(folder, merged, dtype=options.dtype, kind="int-quantized")


def write_fp8(folder: Path, merged: Path, options: WriteOptions) -> None:
    """Write 8-bit floating-point weights for a GPU that multiplies such numbers."""
    _write(folder, merged, dtype=options.dtype, kind="float-quantized")


def _write(folder: Path, merged: Path, *, dtype: str, kind: Kind) -> None:
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import QuantizationStatus, apply_quantization_config

    source = ModelSource(name="merged", location=str(merged))
    # Any: compressed-tensors puts scales and a status on the modules.
    model: Any = load_model(source, precision="dense", dtype=dtype)
    numbers = "float" if kind == "float-quantized" else "int"
    apply_quantization_config(model, _config(numbers, activations=kind != "pack-quantized"))
    for module in model.modules():
        if hasattr(module, "weight_scale"):
            scale = module.weight.data.float().abs().amax(1, keepdim=True) / _LARGEST[numbers]
            module.weight_scale.data.copy_(scale.clamp(min=1e-8))  # a row of zeros
            if hasattr(module, "weight_zero_point"):
                module.weight_zero_point.data.zero_()
            # The scales are set here: no calibration on data follows.
            module.quantization_status = QuantizationStatus.FROZEN
    compressor: Any = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(folder)
    compressor.update_config(str(folder))


def _config(numbers: str, *, activations: bool) -> Any:
    """Return the library's configuration: 8-bit rows of all linear layers but the output's, and of activations too."""
    from compressed_tensors.quantization import (
        QuantizationArgs,
        QuantizationConfig,
        QuantizationScheme,
        QuantizationStatus,
    )

    weights = QuantizationArgs(num_bits=8, type=numbers, symmetric=True, strategy="channel")
    tokens = QuantizationArgs(num_bits=8, type=numbers, symmetric=True, strategy="token", dynamic=True)
    scheme = QuantizationScheme(targets=["Linear"], weights=weights, input_activations=tokens if activations else None)
    return QuantizationConfig(
        config_groups={"group_0": scheme}, ignore=["lm_head"], quantization_status=QuantizationStatus.INITIALIZED
    )


def w8a16_weights(folder: Path) -> LayerWeights:
    """Return the layers that the packed integers stand for."""
    import torch
    from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32

    tensor = open_tensors(folder)

    def unpack(layer: str) -> "Tensor":
        shape = torch.Size(tensor(f"{layer}.weight_shape").tolist())
        integers: Tensor = unpack_from_int32(tensor(f"{layer}.weight_packed"), 8, shape)
        return integers.float() * tensor(f"{layer}.weight_scale").float()

    return unpack


def w8a8_weights(folder: Path) -> LayerWeights:
    """Return the layers that the integers, or the floating-point numbers of 8 bits, stand for."""
    tensor = open_tensors(folder)
    return lambda layer: tensor(f"{layer}.weight").float() * tensor(f"{layer}.weight_scale").float()
