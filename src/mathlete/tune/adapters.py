"""The folder that training writes: an adapter, or a whole model, and the checkpoints on the way to it."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathlete.models import ModelSource, load_model
from mathlete.tune.ranks import Ranks
from mathlete.tune.shards import find_4bit_layers

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

ADAPTER_CONFIG = "adapter_config.json"
"""peft's own name for it."""
_COMPLETE = "whole"
"""Empty file in a checkpoint that was written to its end."""


@dataclass(frozen=True)
class AdapterFolder:
    """What one training wrote."""

    path: Path

    @property
    def holds_adapter(self) -> bool:
        """Whether an adapter was trained, and not every weight."""
        return (self.path / ADAPTER_CONFIG).is_file()

    def load(self, source: ModelSource) -> "PreTrainedModel | PeftModel":
        """Load the model as it was trained, in eval mode: its base with the adapter in place, or all its weights.

        Virtual tokens are not part of any layer: a model with such is peft's own.
        """
        from peft import PeftModel

        if not self.holds_adapter:
            return load_model(ModelSource(name="trained", location=str(self.path)), precision="dense")
        base: Any = load_model(source, precision="nf4")
        model: Any = PeftModel.from_pretrained(base, str(self.path)).eval()
        config = model.active_peft_config
        if getattr(config, "use_dora", False):
            forbid_repacking(model)
        loaded: PreTrainedModel | PeftModel = model if config.is_prompt_learning else model.get_base_model().eval()
        return loaded

    def checkpoint(self, step: int) -> Path:
        """Return the folder of the checkpoint at a step."""
        return self.path / f"checkpoint-{step}"

    def mark_complete(self, step: int) -> None:
        """Mark the checkpoint at a step as written to its end."""
        (self.checkpoint(step) / _COMPLETE).touch()

    def last_checkpoint(self) -> Path | None:
        """Return the checkpoint to go on from; delete half-written ones, which a kill leaves."""
        complete = []
        for folder in self.path.glob("checkpoint-*"):
            if (folder / _COMPLETE).is_file():
                complete.append(folder)
            else:
                shutil.rmtree(folder)
        return max(complete, key=_step_of, default=None)

    def describe_checkpoint(self) -> str:
        """Say which checkpoint a person can go on from."""
        if not Ranks.from_launcher().is_first:
            return "the first process says what is kept"
        checkpoint = self.last_checkpoint()
        return f"{checkpoint} is complete" if checkpoint else "no checkpoint was written yet"

    def drop_checkpoints_after(self, step: int) -> str:
        """Delete the checkpoints after a step; say which is left."""
        while Ranks.from_launcher().is_first and (checkpoint := self.last_checkpoint()) and _step_of(checkpoint) > step:
            shutil.rmtree(checkpoint)
        return self.describe_checkpoint()


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def forbid_repacking(model: "PreTrainedModel | PeftModel") -> None:
    """Keep the model's 4-bit weights in the layout that they were loaded in.

    bitsandbytes repacks them on CPUs with bf16 instructions when they first compute outside training, as samples for
    rewards and EVA do: rounded scales from there on, and a layout that DoRA, which reads the weights, takes for noise.
    """
    for layer in find_4bit_layers(model):
        layer.support_avx512bf16_for_cpu = False
