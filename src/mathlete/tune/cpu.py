"""What a step of low-rank adapters costs a CPU beside its matrix products, and how it costs less there."""

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LANES = 4
"""Random numbers of 16 bits that are read from one of 64."""
_WIDENS = "cast_input_dtype_enabled"
"""peft's name (0.21) for whether a layer makes its input fp32."""


class LaneDropout(torch.nn.Dropout):
    """Dropout as torch's, but for each input it draws 16 random bits, where torch draws a number.

    On a CPU drawing is what dropout costs: 6 ns an input with torch's, an eighth of a step of SmolLM2-135M. The share
    is a multiple of 1/65536: 0.05 becomes 0.050003, for which the inputs that are left are scaled up.
    """

    @property
    def cut(self) -> int:
        """Of the 65,536 numbers that may be drawn, those that drop an input."""
        return round(self.p * 2**16)

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 (torch's name)
        """Drop a share of the inputs and scale up the others; in eval mode return the inputs."""
        if not self.training or not self.cut:
            return input
        draws = torch.empty(-(-input.numel() // _LANES), dtype=torch.int64).random_(-(2**63), None)
        dropped = draws.view(torch.int16)[: input.numel()].view(input.shape) < self.cut - 2**15
        # By a number: a mask that is scaled, as torch's is, would round the scale to 16 bits.
        return input.masked_fill(dropped, 0.0) * (2**16 / (2**16 - self.cut))


def spare_a_cpu(model: "PreTrainedModel", *, dtype: str) -> None:
    """Draw dropout's masks by lanes, and leave inputs of adapters in the type that is computed in.

    On a CPU peft does not see that autocast is on (it asks about a GPU's), and makes an adapter's input fp32, which
    autocast makes 16 bits again.
    """
    for path, layer in [*model.named_modules()]:
        if type(layer) is torch.nn.Dropout:
            model.set_submodule(path, LaneDropout(layer.p))
        # DoRA's and other variants compute more than linear layers with them.
        if dtype != "float32" and not getattr(layer, "lora_variant", True):
            setattr(layer, _WIDENS, False)
