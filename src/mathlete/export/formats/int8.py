"""LLM.int8 (arXiv 2208.07339): rows of weights by absmax, and outlier columns of activations in 16 bits."""

from pathlib import Path

from mathlete.export.formats.weights import LayerWeights, WriteOptions, open_tensors
from mathlete.models import ModelSource, load_model


def write_int8(folder: Path, merged: Path, options: WriteOptions) -> None:
    """Write the merged model as bitsandbytes int8.

    Raises:
        UserError: the merged model can't be loaded.
    """
    source = ModelSource(name="merged", location=str(merged))
    model = load_model(source, precision="int8", dtype=options.dtype, threshold=options.threshold)
    model.save_pretrained(folder)


def int8_weights(folder: Path) -> LayerWeights:
    """Return the layers that the integers stand for: 127 is a row's largest weight (arXiv 2208.07339, section 2.1)."""
    tensor = open_tensors(folder)
    return lambda layer: tensor(f"{layer}.weight").float() * tensor(f"{layer}.SCB")[:, None].float() / 127
