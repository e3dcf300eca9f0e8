"""The frozen base of an adapter, put back as it was after the adapter was merged into it and taken out again.

TRL does so at each step for the vLLM that draws GRPO's samples (`VLLMGeneration`). What is added and subtracted is
rounded each time: of the pocket model's weights in bfloat16 three times change a seventh, of 4-bit ones seven eighths.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn


class BaseWeights:
    """The weights of the layers that have an adapter, as they were when this was made; in main memory."""

    def __init__(self, model: "nn.Module") -> None:
        """Copy them."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        layers: list[Any] = [layer for layer in model.modules() if isinstance(layer, BaseTunerLayer)]
        self._kept: list[tuple[torch.Tensor, torch.Tensor]] = [
            (weight := layer.get_base_layer().weight.data, weight.to("cpu", copy=True)) for layer in layers
        ]

    def restore(self) -> None:
        """Write them back, into the same memory."""
        for weight, kept in self._kept:
            weight.copy_(kept)


def restore_after_sync(trainer: Any) -> None:
    """Have a trainer of TRL's (untyped) put the base back each time after it handed its weights to its vLLM."""
    base, hand_on = BaseWeights(trainer.model), trainer.vllm_generation.sync_weights

    def hand_on_and_restore() -> None:
        hand_on()
        base.restore()

    trainer.vllm_generation.sync_weights = hand_on_and_restore
