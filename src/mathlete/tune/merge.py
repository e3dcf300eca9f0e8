"""Merge: the adapter becomes part of the weights, saved in 16 bits and compared with the model as it was trained.

The adapter was trained on the 4-bit weights, error and all; added to the original weights it meets other ones. So the
default merges into the dequantised 4-bit base (facts on a small model: KL 6e-5 against 2e-2). The other view, that for
most models the original is the better base, is a flag away: unslothai/unsloth-zoo pull request 810.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathlete.models import ModelSource, compute_dtype, is_quantized, load_model, load_tokenizer
from mathlete.prompts import PromptFormat
from mathlete.runs import read_json, require_space
from mathlete.tune.methods import ADAPTER_CONFIG, trained_model
from mathlete.tune.settings import Advance, MergeBase, Survival
from mathlete.tune.survival import heldout_rows, kl, log_probabilities, require_survival

if TYPE_CHECKING:
    import torch


def merge(
    merged: Path,
    *,
    adapter: Path,
    data: Path,
    source: ModelSource,
    base: MergeBase,
    limits: Survival,
    advance: Advance,
) -> dict[str, object]:
    """Writes the merged model's folder, in the first 16-bit type that keeps the KL limit; returns the figures.

    Raises:
        UserError: no type keeps the limit.
    """
    rows = heldout_rows(data)
    advance(0, 3, "the trained model's distributions")
    reference = log_probabilities(trained_model(source, adapter), rows)
    for dtype in _storage_types():
        advance(1, 3, f"merging, {_name(dtype)}")
        parameters = _save_merged(merged, adapter=adapter, source=source, base=base, dtype=dtype)
        advance(2, 3, "comparing")
        found = log_probabilities(load_model(ModelSource(name="merged", location=str(merged))), rows)
        kl_merged = kl(reference, found)
        if kl_merged <= limits.kl_merged:
            break
    advance(3, 3, f"KL {kl_merged:.1e}")
    require_survival({"kl_merged": kl_merged}, limits)
    return {
        "base": base,
        "dtype": _name(dtype),
        "parameters": parameters,
        "kl_merged": kl_merged,
        "kl_tokens": len(reference),
    }


def _storage_types() -> "list[torch.dtype]":
    """16-bit types to save in, first choice first: what the GPU computes in, or on a CPU the finer one."""
    import torch

    dtype, _ = compute_dtype()
    return [torch.float16, torch.bfloat16] if dtype == torch.float32 else [dtype]


def _name(dtype: "torch.dtype") -> str:
    return str(dtype).removeprefix("torch.")


def _save_merged(merged: Path, *, adapter: Path, source: ModelSource, base: MergeBase, dtype: "torch.dtype") -> int:
    model = _merged(adapter, source=source, base=base).to(dtype)
    parameters = int(model.num_parameters())
    require_space(merged, needed_bytes=2 * parameters)
    # Of a base that was 4-bit on the disk, transformers would undo its reading, which for 4 bits it can't.
    model.save_pretrained(merged, save_original_format=not is_quantized(source))
    load_tokenizer(source).save_pretrained(merged)
    PromptFormat(tokenizer=load_tokenizer(source), instruction=source.instruction).save(merged)
    if "quantization_config" in read_json(merged / "config.json"):
        raise RuntimeError(f"{merged / 'config.json'} of a merged model still has a quantization_config")
    return parameters


def _merged(adapter: Path, *, source: ModelSource, base: MergeBase) -> Any:
    """The model with the adapter within its weights, or as all its weights were trained."""
    from peft import PeftModel

    if not (adapter / ADAPTER_CONFIG).is_file():
        return load_model(ModelSource(name="trained", location=str(adapter)), precision="dense")
    weights: Any = load_model(source, precision="nf4" if base == "dequant" else "dense")
    if base == "dequant":
        weights = weights.dequantize()
        weights.is_loaded_in_4bit = False  # transformers leaves it set, and peft asks it
    return PeftModel.from_pretrained(weights, str(adapter)).merge_and_unload(safe_merge=True)
