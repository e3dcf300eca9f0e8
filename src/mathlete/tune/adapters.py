"""The folder that training writes: an adapter, or a whole model, and the checkpoints on the way to it."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathlete.adapters import ADAPTER_CONFIG, ForeignAdapter
from mathlete.files import replace_when_done
from mathlete.models import Device, ModelSource, Shape, load_model
from mathlete.tune.ranks import Ranks
from mathlete.tune.shards import find_4bit_layers

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

    from mathlete.tune.recipe import Recipe

_NAME = re.compile(r"checkpoint-\d+")
_COMPLETE = "whole"
"""Empty file in a checkpoint that was written to its end."""
_MOVED = 0.02
"""Standard deviation of a random adapter's numbers. On SmolLM2-135M its KL from the base is 2e-3 nats a token, on the
pocket model 4e-4, which is what a training of some steps has."""


@dataclass(frozen=True)
class AdapterFolder:
    """What one training wrote."""

    path: Path

    @property
    def holds_adapter(self) -> bool:
        """Whether an adapter was trained, and not every weight."""
        return (self.path / ADAPTER_CONFIG).is_file()

    def load(
        self, source: ModelSource, *, dtype: str | None = None, on_16bit: bool = False
    ) -> "PreTrainedModel | PeftModel":
        """Load the model as it was trained, in eval mode: its base with the adapter in place, or all its weights.

        Virtual tokens are not part of any layer: a model with such is peft's own. `dtype` is that of `load_model`.
        `on_16bit` says that the adapter was trained on the base's own weights, elsewhere.
        """
        from peft import PeftModel

        if not self.holds_adapter:
            whole = ModelSource(name="trained", location=str(self.path))
            return load_model(whole, precision="dense", dtype=dtype)
        # A CPU has the memory, and would dequantise every layer for every row and token.
        base: Any = (
            load_model(source, precision="dense", dtype=dtype)
            if on_16bit
            else load_4bit_base(source, dense=Device.current().capability is None, dtype=dtype)
        )
        model: Any = PeftModel.from_pretrained(base, str(self.path)).eval()
        plain = not model.active_peft_config.is_prompt_learning
        loaded: PreTrainedModel | PeftModel = model.get_base_model().eval() if plain else model
        return loaded

    def take(self, adapter: Path, *, source: ModelSource) -> dict[str, object]:
        """Copy an adapter that was made elsewhere into this folder; return its figures.

        Raises:
            UserError: it does not fit the base.
        """
        foreign = ForeignAdapter(adapter)
        foreign.require_base(source)
        self.path.mkdir(parents=True, exist_ok=True)
        for name, file in foreign.files.items():
            with replace_when_done(self.path / name) as temporary:
                shutil.copyfile(file, temporary)
        return foreign.describe()

    def fill_at_random(self, source: ModelSource, *, recipe: "Recipe") -> None:
        """Write what the recipe would train, with random numbers in the place of training; all weights, unmoved ones.

        Raises:
            UserError: the model can't be loaded.
        """
        import torch
        from peft import get_peft_model

        config = recipe.spec.configure(recipe.lora, Shape.of(source))
        # Any: peft puts its methods on the model.
        model: Any
        if config is None:
            model = load_model(source, precision="dense", dtype="float32")
        else:
            # The training that follows must draw what it would have drawn.
            with torch.random.fork_rng(), torch.no_grad():
                torch.manual_seed(0)
                model = get_peft_model(load_4bit_base(source), config, autocast_adapter_dtype=False)
                for weight in model.parameters():
                    if weight.requires_grad:
                        weight.add_(torch.randn_like(weight), alpha=_MOVED)
        model.save_pretrained(self.path)

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
            if not _NAME.fullmatch(folder.name):
                continue  # a person's own copy
            if (folder / _COMPLETE).is_file():
                complete.append(folder)
            elif folder.is_dir():
                _remove(folder)
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
            _remove(checkpoint)
        return self.describe_checkpoint()


def _remove(checkpoint: Path) -> None:
    """Delete a checkpoint; of one that was moved to another disk, the link to it."""
    if checkpoint.is_symlink():
        checkpoint.unlink()
    else:
        shutil.rmtree(checkpoint)


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def load_4bit_base(
    source: ModelSource, *, dense: bool = False, dtype: str | None = None, computing: str | None = None
) -> "PreTrainedModel":
    """Load a base as adapters are trained on it, in eval mode: the same numbers on every device.

    On CPUs with bf16 instructions bitsandbytes would repack 4-bit weights when they first compute outside training, as
    samples for rewards and EVA do, and so does whoever measures the model: rounded scales from there on (KL 4e-4 on
    SmolLM2-135M, where a perfect merge costs 1e-11), and a layout that DoRA, which reads the weights, takes for noise.

    Args:
        source: the base.
        dense: hold the 4-bit numbers dequantised, in the type that is computed in: they compute the same.
        dtype: that of `load_model`.
        computing: type that is computed in, by torch's name; None: `dtype`. The 4-bit numbers don't depend on it.
    """
    import torch

    # Any: the 4-bit loading puts attributes on the model that its class does not name.
    model: Any = load_model(source, precision="nf4", dtype=dtype)
    named = computing or dtype
    held: torch.dtype = Device.current().torch_dtype if named is None else getattr(torch, named)
    if dense:
        model = model.dequantize(held)
        # transformers leaves it set, and peft reads it to choose how it merges.
        model.is_loaded_in_4bit = False
    if dense or computing is not None:
        _compute_in(model, held)
    for layer in find_4bit_layers(model):
        layer.support_avx512bf16_for_cpu = False
    loaded: PreTrainedModel = model
    return loaded


def _compute_in(model: "PreTrainedModel", dtype: "torch.dtype") -> None:
    """Hold dense weights in a type, and have 4-bit ones compute in it."""
    for layer in find_4bit_layers(model):
        layer.compute_dtype, layer.compute_type_is_set = dtype, True
    for weight in model.parameters():
        # No buffer: rotary embeddings need their frequencies in fp32. The bytes of a 4-bit weight may be stored as
        # floating-point numbers.
        if weight.is_floating_point() and not hasattr(weight, "quant_state"):
            weight.data = weight.data.to(dtype)
