"""Layer by layer: is what the training changed larger than what the 8-bit numbers lose, and is it still there?"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathlete.export.formats.table import ExportFormat
from mathlete.export.formats.weights import dense_weights
from mathlete.export.records.exports import LayerCost
from mathlete.export.tuned import TunedModel
from mathlete.models import ModelSource, load_model

if TYPE_CHECKING:
    from torch import Tensor


def measure_layers(
    tuned: TunedModel, *, merged: Path, export: Path, export_format: ExportFormat
) -> tuple[LayerCost, ...]:
    """Measure what an export costs each layer that was trained, in the order of the model's layers.

    None where the export's layers can't be held against the merged model's.
    """
    if export_format.weights is None:
        return ()
    merged_weights, exported_weights = dense_weights(merged), export_format.weights(export)
    costs = []
    for layer, before in _read_as_trained(tuned.source, dense=tuned.base == "original" or not tuned.is_adapter):
        after = merged_weights(layer)
        change, noise = after - before, exported_weights(layer) - after
        # A layer that was not trained has no change that could be lost; rounding to 16 bits counts as a small one.
        if (size := float(change.norm())) > 0:
            scale = float(after.norm())
            # <Q - W, M - W> = |M - W|² + <Q - M, M - W>, and the latter loses fewer digits.
            kept = 1 + float((noise * change).sum()) / size**2
            costs.append(LayerCost(layer=layer, signal=size / scale, noise=float(noise.norm()) / scale, kept=kept))
    return tuple(costs)


def _read_as_trained(source: ModelSource, *, dense: bool) -> "Iterator[tuple[str, Tensor]]":
    """Yield (name, fp32 weights) of the base's linear layers, but the output's, as the training met them."""
    from bitsandbytes.functional import dequantize_4bit
    from torch.nn import Linear

    model = load_model(source, precision="dense" if dense else "nf4")
    for name, module in model.named_modules():
        if isinstance(module, Linear) and "head" not in name:
            weight: Any = module.weight
            if hasattr(weight, "quant_state"):
                weight = dequantize_4bit(weight.data, weight.quant_state)
            yield name, weight.detach().float().cpu()
