"""Models that compute in fp32, so that what is measured on them is their weights and not the device's arithmetic."""

from functools import partial
from typing import TYPE_CHECKING

from mathlete.models import Device, ModelSource, load_model

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel

EXACT = "float32"
"""What the trained model and its merge are compared in: 16 bits alone put a KL of 1e-3 between a model and itself."""


def load_exact(source: ModelSource) -> "PreTrainedModel":
    """Load a dense model so that it computes in fp32.

    A GPU that has room for the 16 bits of its files may have none for 32: there a layer widens them as it computes.
    """
    if Device.current().capability is None:
        return load_model(source, precision="dense", dtype=EXACT)
    return widen(load_model(source, precision="dense", dtype=str(source.read_config()["dtype"])))


def store_in(model: "PreTrainedModel", dtype: str) -> "PreTrainedModel":
    """Let a model hold its weights in a type, and return it, as if it had been read from such files.

    Its `to` would round the frequencies of its positions too, which are in no file and stay in fp32.
    """
    import torch

    for weight in model.parameters():
        weight.data = weight.data.to(getattr(torch, dtype))
    return model


def widen(model: "PreTrainedModel") -> "PreTrainedModel":
    """Let a dense model compute in fp32 with weights that stay in 16 bits; vectors, which are small, are converted."""
    import torch
    from torch import nn

    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.forward = partial(_multiply, module)  # type: ignore[method-assign]
        elif isinstance(module, nn.Embedding):
            module.register_forward_hook(_widen_output)
    for weight in model.parameters():
        if weight.dim() == 1:
            weight.data = weight.data.to(torch.float32)
    return model


def _multiply(layer: "nn.Linear", inputs: "Tensor") -> "Tensor":
    import torch

    bias = None if layer.bias is None else layer.bias.float()
    return torch.nn.functional.linear(inputs.float(), layer.weight.float(), bias)


def _widen_output(_layer: "nn.Module", _inputs: "tuple[torch.Tensor, ...]", output: "Tensor") -> "Tensor":
    return output.float()
