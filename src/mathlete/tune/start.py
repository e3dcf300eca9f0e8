"""The model that a training starts from: its base as the method holds it, and the first weights of the adapter."""

from typing import TYPE_CHECKING, Any

from mathlete.models import ModelSource, load_model
from mathlete.tune.adapters import load_4bit_base
from mathlete.tune.plan import Plan
from mathlete.tune.recipe import Recipe
from mathlete.tune.shards import is_sharded, make_shardable

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedModel

_MAGNITUDE = "lora_magnitude_vector"
"""DoRA's lengths of a weight's rows, which TRL does not round: they are not random."""
_EVA_ROWS = 64
"""Rows whose activations EVA looks at, 8 at a time."""


def load_base(source: ModelSource, plan: Plan) -> "PreTrainedModel":
    """Load the model to be trained on: in 4 bits, the same dequantised, or in fp32 where every weight is trained.

    Raises:
        UserError: it can't be loaded, or every weight of a quantised model is to be trained.
    """
    if plan.spec.quantized:
        model = load_4bit_base(source, dense=plan.dense, computing=plan.dtype)
        return make_shardable(model) if is_sharded() else model
    # Updates of bf16 weights are rounded away (arXiv 1710.03740, section 3.1); the computing is autocast.
    return load_model(source, precision="dense", dtype="float32")


def set_first_weights(model: "PreTrainedModel", *, recipe: Recipe, rows: "Dataset", padding_id: int) -> None:
    """Make the trained weights fp32, and draw EVA's first ones from the first rows."""
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            # TRL rounds an adapter's first weights where the base is in 4 bits; a base that is held dequantised starts
            # from the same ones, so that a run is the same on a CPU, on a GPU and sharded.
            if recipe.spec.quantized and _MAGNITUDE not in name:
                weight.data = weight.data.bfloat16()
            weight.data = weight.data.float()
    if recipe.lora.init == "eva":
        from peft import initialize_lora_eva_weights

        initialize_lora_eva_weights(model, dataloader=_batches(rows, padding_id=padding_id, device=model.device))


def _batches(rows: "Dataset", *, padding_id: int, device: "torch.device") -> "list[dict[str, torch.Tensor]]":
    import torch
    from torch.nn.utils.rnn import pad_sequence

    sequences: list[Any] = [torch.tensor(ids) for ids in rows[:_EVA_ROWS]["input_ids"]]
    batches = []
    for start in range(0, len(sequences), 8):
        ids = pad_sequence(sequences[start : start + 8], batch_first=True, padding_value=padding_id)
        batches.append({"input_ids": ids.to(device), "attention_mask": (ids != padding_id).long().to(device)})
    return batches
