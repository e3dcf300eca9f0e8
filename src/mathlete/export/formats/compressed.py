"""compressed-tensors, vLLM's own format: a scale for each row of weights, activations as they are or in 8 bits too.

Weights: s = max|w| / 127.5 of each output row, q = round(w / s) within -128..127. Activations of W8A8 get their scale
for each token while the model runs. The output layer and the embeddings stay in 16 bits, as llm-compressor leaves them.
"""

from pathlib import Path
from typing import Any, Literal

from mathlete.export.settings import Export
from mathlete.models import ModelSource, load_model


def write_w8a16(folder: Path, merged: Path, dtype: str, _: Export) -> None:
    """Writes 8-bit weights, packed four to an int32, which a GPU unpacks as it multiplies."""
    _write(folder, merged, dtype=dtype, kind="pack-quantized")


def write_w8a8(folder: Path, merged: Path, dtype: str, _: Export) -> None:
    """Writes 8-bit weights for a GPU that multiplies 8-bit integers."""
    _write(folder, merged, dtype=dtype, kind="int-quantized")


def _write(folder: Path, merged: Path, *, dtype: str, kind: Literal["pack-quantized", "int-quantized"]) -> None:
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationStatus, apply_quantization_config

    source = ModelSource(name="merged", location=str(merged))
    model: Any = load_model(source, precision="dense", dtype=dtype)
    activations = QuantizationArgs(num_bits=8, type="int", symmetric=True, strategy="token", dynamic=True)
    apply_quantization_config(model, _config(activations if kind == "int-quantized" else None))
    for module in model.modules():
        if hasattr(module, "weight_scale"):
            scale = module.weight.data.float().abs().amax(1, keepdim=True) / 127.5
            module.weight_scale.data.copy_(scale.clamp(min=1e-8))  # a row of zeros
            if hasattr(module, "weight_zero_point"):
                module.weight_zero_point.data.zero_()
            module.quantization_status = QuantizationStatus.FROZEN
    compressor: Any = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(folder)
    compressor.update_config(str(folder))


def _config(activations: Any) -> Any:
    from compressed_tensors.quantization import (
        QuantizationArgs,
        QuantizationConfig,
        QuantizationScheme,
        QuantizationStatus,
    )

    weights = QuantizationArgs(num_bits=8, type="int", symmetric=True, strategy="channel")
    scheme = QuantizationScheme(targets=["Linear"], weights=weights, input_activations=activations)
    return QuantizationConfig(
        config_groups={"group_0": scheme}, ignore=["lm_head"], quantization_status=QuantizationStatus.INITIALIZED
    )
