"""Models by name, on the hardware at hand: where their files are, their tokenizers, their shapes, their weights.

>>> model_source("pocket").folder is not None
True
"""

from mathlete.models.hardware import BF16_CAPABILITY, DeviceName, capability, compute_dtype, device_name, dtype_for
from mathlete.models.loading import Precision, is_quantized, load_model, model_config, quiet_libraries, weight_bytes
from mathlete.models.names import MODEL_NAMES, ModelSource, default_model, model_source, pinned
from mathlete.models.tokenizers import load_tokenizer, prompt_format

__all__ = [
    "BF16_CAPABILITY",
    "MODEL_NAMES",
    "DeviceName",
    "ModelSource",
    "Precision",
    "capability",
    "compute_dtype",
    "default_model",
    "device_name",
    "dtype_for",
    "is_quantized",
    "load_model",
    "load_tokenizer",
    "model_config",
    "model_source",
    "pinned",
    "prompt_format",
    "quiet_libraries",
    "weight_bytes",
]
