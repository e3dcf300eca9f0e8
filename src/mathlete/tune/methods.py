"""Each method's model: the base as it is held, peft's configuration, its first weights; and how it is loaded again."""

from typing import TYPE_CHECKING, Any

from mathlete.models import ModelSource, load_model
from mathlete.tune.adapters import forbid_repacking
from mathlete.tune.recipe import Recipe
from mathlete.tune.settings import Lora
from mathlete.tune.shards import is_sharded, make_shardable

if TYPE_CHECKING:
    from datasets import Dataset

_EVA_ROWS = 64
"""Rows whose activations EVA looks at, 8 at a time."""


def base_model(source: ModelSource, recipe: Recipe) -> Any:
    """The model to be trained on: in 4 bits, or in fp32 where every weight is trained.

    Raises:
        UserError: it can't be loaded, or every weight of a quantised model is to be trained.
    """
    if recipe.quantized:
        model = load_model(source, precision="nf4")
        forbid_repacking(model)
        return make_shardable(model) if is_sharded() else model
    # Updates of bf16 weights are rounded away (arXiv 1710.03740, section 3.1); the computing is autocast.
    return load_model(source, precision="dense", dtype="float32")


def peft_config(recipe: Recipe) -> Any:
    """peft's configuration of the method; None where every weight is trained."""
    import peft

    lora, method = recipe.lora, recipe.method
    if method == "full":
        return None
    if method == "prefix":
        return peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=lora.virtual_tokens)
    if method == "prompt":
        # Vectors of the vocabulary are a better start than random ones (arXiv 2104.08691, section 3.2).
        return peft.PromptTuningConfig(
            task_type="CAUSAL_LM", num_virtual_tokens=lora.virtual_tokens, prompt_tuning_init="SAMPLE_VOCAB"
        )
    if method == "ia3":
        # Keys, values and the inner activations of the feed-forward layers (arXiv 2205.05638, section 3.3).
        return peft.IA3Config(
            task_type="CAUSAL_LM",
            target_modules=["k_proj", "v_proj", "down_proj"],
            feedforward_modules=["down_proj"],
        )
    return _lora_config(lora, rslora=method == "rslora", dora=method == "dora")


def _lora_config(lora: Lora, *, rslora: bool, dora: bool) -> Any:
    import peft

    return peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
        use_rslora=rslora,
        use_dora=dora,
        init_lora_weights=True if lora.init == "default" else lora.init,
        # rho 1: the same rank everywhere, as the settings and the memory plan say.
        eva_config=peft.EvaConfig(rho=1.0) if lora.init == "eva" else None,
    )


def set_first_weights(model: Any, *, recipe: Recipe, rows: "Dataset", padding: int) -> None:
    """Trained weights in fp32, and EVA's first ones from the first rows."""
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()
    if recipe.lora.init != "eva":
        return
    from peft import initialize_lora_eva_weights

    initialize_lora_eva_weights(model, dataloader=_batches(rows, padding=padding, device=model.device))


def _batches(rows: "Dataset", *, padding: int, device: Any) -> list[dict[str, Any]]:
    import torch
    from torch.nn.utils.rnn import pad_sequence

    found = [torch.tensor(ids) for ids in rows[:_EVA_ROWS]["input_ids"]]
    batches = []
    for start in range(0, len(found), 8):
        ids = pad_sequence(found[start : start + 8], batch_first=True, padding_value=padding)
        batches.append({"input_ids": ids.to(device), "attention_mask": (ids != padding).long().to(device)})
    return batches
