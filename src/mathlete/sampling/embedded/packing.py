"""Linear layers of a large model on a CPU, their weights laid out once as the matrix kernels read them.

torch's own `Linear` has oneDNN lay the weights out anew in every call, or runs kernels that are made for many rows. The
decode step of a 0.5B model spends nearly all of its time there: with packed weights it takes half the time in bf16 and
a third in fp32 (bench/sampling.py). The products are the same but for the order of their sums.
"""

import platform
from typing import Any

import torch

_ROWS = 32
"""Rows that the layout is made for. Others are as fast, from one to prompts of a thousand tokens."""
_TYPES = (torch.float32, torch.bfloat16)


class PackedLinear(torch.nn.Module):
    """What a `torch.nn.Linear` computes, from weights in oneDNN's own layout. It cannot be trained or saved."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        """Copy the layer's weights into that layout."""
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        # The operators that torch's own compiler turns linear layers into (torch/_inductor/fx_passes/mkldnn_fusion.py).
        operators: Any = torch.ops.mkldnn
        self._multiply = operators._linear_pointwise
        self._packed: torch.Tensor = operators._reorder_linear_weight(linear.weight.detach(), _ROWS)
        self._bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return inputs · weightsᵀ + bias, (…, out_features)."""
        outputs: torch.Tensor = self._multiply(inputs, self._packed, self._bias, "none", [], "")
        return outputs


def pack_linears(model: torch.nn.Module) -> int:
    """Replace the plain linear layers of a model on a CPU, whose own weights are freed; return how many.

    None are where oneDNN is missing, on other processors than x86, or in another type than fp32 and bf16. Quantised
    layers stay as they are.
    """
    mkldnn: Any = torch.backends.mkldnn  # has no type hints
    if not mkldnn.is_available() or platform.machine() not in ("x86_64", "AMD64"):
        return 0
    plain = [
        (parent, name)
        for parent in [*model.modules()]
        for name, layer in parent.named_children()
        # Not the classes below it: those of bitsandbytes and others hold something else than a matrix.
        # A layer of compressed-tensors is of this class too, and has no such parameter while it is compressed.
        if type(layer) is torch.nn.Linear
        and isinstance(layer._parameters.get("weight"), torch.nn.Parameter)
        and layer.weight.device.type == "cpu"
        and layer.weight.dtype in _TYPES
    ]
    for parent, name in plain:
        # One after another, so that memory holds both copies of one layer only.
        setattr(parent, name, PackedLinear(getattr(parent, name)))
    return len(plain)
