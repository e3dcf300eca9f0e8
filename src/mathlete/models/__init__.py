"""Models by name, and the hardware they run on.

A model is named once, as `pocket`, a preset, a folder or a hub id, and is a `ModelSource` from there on: it says where
the files are. From it come its weights (`load_model`, in a `Precision`), its tokenizer with the prompt that it is
served with (`load_prompt_format`) and its `Shape`. `GPUS` is the one table of devices.

>>> source = find_model("pocket")
>>> source.folder is not None, source.is_quantized()
(True, False)
>>> Shape.of(find_model("r1-qwen-7b")).layers
28
>>> GPUS["l4"].capability, GPUS["l4"].dtype
(8.9, 'bfloat16')
"""

from mathlete.models.hardware import GPUS, Device, GpuName
from mathlete.models.loading import Precision, load_model
from mathlete.models.names import ModelSource, find_model, pick_default_model
from mathlete.models.shapes import Shape
from mathlete.models.tokenizers import load_prompt_format

__all__ = [
    "GPUS",
    "Device",
    "GpuName",
    "ModelSource",
    "Precision",
    "Shape",
    "find_model",
    "load_model",
    "load_prompt_format",
    "pick_default_model",
]
