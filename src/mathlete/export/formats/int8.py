"""LLM.int8 (arXiv 2208.07339): rows of weights by absmax, and outlier columns of activations in 16 bits."""

from pathlib import Path
from typing import Any

from mathlete.export.settings import Export
from mathlete.models import ModelSource, load_model


def write_int8(folder: Path, merged: Path, dtype: str, settings: Export) -> None:
    """Writes the merged model as bitsandbytes int8.

    Raises:
        UserError: the merged model can't be loaded.
    """
    source = ModelSource(name="merged", location=str(merged))
    model: Any = load_model(source, precision="int8", dtype=dtype, threshold=settings.threshold)
    model.save_pretrained(folder)
