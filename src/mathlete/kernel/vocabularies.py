"""Vocabulary files that came with the wheels, shown to the libraries that would else download them."""

import importlib.util
import os
from pathlib import Path

from mathlete.kaggle_image import VOCABULARIES

_VARIABLES = ("TIKTOKEN_ENCODINGS_BASE", "TIKTOKEN_CACHE_DIR")
"""Where openai-harmony 0.0.11 looks for a file by its name, and where tiktoken looks for one by the hash of its address
(tiktoken/load.py)."""


def show_vocabularies() -> Path | None:
    """Set the environment variables of this process and its children; return the folder, None where there is none."""
    spec = importlib.util.find_spec(VOCABULARIES)
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent
    for variable in _VARIABLES:
        os.environ.setdefault(variable, str(folder))
    return folder
