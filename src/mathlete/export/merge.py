"""Merge: the adapter becomes part of the weights, saved in 16 bits and compared with the model as it was trained.

The adapter was trained on the 4-bit weights, error and all; added to the original weights it meets other ones. So the
default merges into the dequantised 4-bit base (facts on a small model: KL 6e-5 against 2e-2). The other view, that for
most models the original is the better base, is a flag away: unslothai/unsloth-zoo pull request 810.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathlete.export.hops import require_kl
from mathlete.export.settings import MergeBase, Survival
from mathlete.export.survival import heldout_rows, kl, log_probabilities, row_losses
from mathlete.export.tuned import TunedModel
from mathlete.metrics import paired_difference
from mathlete.models import Device, ModelSource, load_model, load_prompt_format
from mathlete.runs import Advance, read_json, require_space

if TYPE_CHECKING:
    import torch
    from datasets import Dataset


def merge_adapter(
    merged: Path,
    *,
    tuned: TunedModel,
    limits: Survival,
    advance: Advance,
    say: Callable[[Any], None],
) -> dict[str, object]:
    """Writes the merged model's folder, in the first 16-bit type that keeps the KL limit; returns the figures.

    Where the model's original weights are at hand, the other base is measured too, and the better one named.

    Raises:
        UserError: no type keeps the limit.
    """
    rows = heldout_rows(tuned.data)
    advance(0, 4, "the trained model's distributions")
    reference = log_probabilities(tuned.load(), rows)
    for dtype in _storage_types():
        advance(1, 4, f"merging, {_name(dtype)}")
        parameters = _save_merged(merged, tuned, dtype=dtype)
        advance(2, 4, "comparing")
        found = log_probabilities(load_model(ModelSource(name="merged", location=str(merged))), rows)
        kl_merged = kl(reference, found)
        if kl_merged <= limits.kl_merged:
            break
    advance(3, 4, "the other base")
    bases = {tuned.base: found, **_other_base(tuned, rows=rows, dtype=dtype)}
    compared = compare_bases(bases, reference=reference, rows=rows) if len(bases) > 1 else {}
    if compared:
        say(bases_in_words(compared, chosen=tuned.base))
    advance(4, 4, f"KL {kl_merged:.1e}")
    require_kl("merged", kl_merged, limits)
    return {
        **compared,
        "base": tuned.base,
        "dtype": _name(dtype),
        "parameters": parameters,
        "kl_merged": kl_merged,
        "kl_tokens": len(reference),
    }


def _other_base(tuned: TunedModel, *, rows: "Dataset", dtype: "torch.dtype") -> "dict[MergeBase, torch.Tensor]":
    """What the merge into the other base would give; nothing where there is no other one."""
    if tuned.source.is_quantized() or not tuned.is_adapter:
        return {}
    other: MergeBase = "original" if tuned.base == "dequant" else "dequant"
    model = _merged(replace(tuned, base=other)).to(dtype).to(Device.current().torch_dtype)
    return {other: log_probabilities(model.eval(), rows)}


def compare_bases(
    found: "Mapping[MergeBase, torch.Tensor]", *, reference: "torch.Tensor", rows: "Dataset"
) -> dict[str, Any]:
    """Both bases' distance from the trained model and loss on held-out rows, and the one to be proposed.

    That is the one of lower loss, where the paired 95% interval of the difference leaves out 0; else the nearer one.

    Returns:
        {"bases": {base: {"kl", "loss"}}, "loss_difference": original - dequant with its interval, "proposed": base}.
    """
    losses = {base: row_losses(values, rows) for base, values in found.items()}
    difference = paired_difference(losses["dequant"], losses["original"])
    bases = {
        base: {"kl": kl(reference, values), "loss": sum(losses[base]) / len(losses[base])}
        for base, values in sorted(found.items())
    }
    nearer = min(bases, key=lambda base: bases[base]["kl"])
    proposed = "dequant" if difference.lo > 0 else "original" if difference.hi < 0 else nearer
    return {"bases": bases, "loss_difference": [difference.value, difference.lo, difference.hi], "proposed": proposed}


def bases_in_words(compared: Mapping[str, Any], *, chosen: MergeBase) -> str:
    """Both bases in a line, and which is better."""
    both = "; ".join(
        f"{base} KL {row['kl']:.1e}, held-out loss {row['loss']:.4f}" for base, row in compared["bases"].items()
    )
    value, low, high = compared["loss_difference"]
    better = compared["proposed"]
    cure = "" if better == chosen else f": --merge-base {better}"
    return (
        f"merge base: {both}; original - dequant {value:+.4f} [{low:+.4f}, {high:+.4f}]; "
        f"{better} is the better one{cure}"
    )


def _storage_types() -> "list[torch.dtype]":
    """16-bit types to save in, first choice first: what the GPU computes in, or on a CPU the finer one."""
    import torch

    dtype = Device.current().torch_dtype
    return [torch.float16, torch.bfloat16] if dtype == torch.float32 else [dtype]


def _name(dtype: "torch.dtype") -> str:
    return str(dtype).removeprefix("torch.")


def _save_merged(merged: Path, tuned: TunedModel, *, dtype: "torch.dtype") -> int:
    source, model = tuned.source, _merged(tuned).to(dtype)
    parameters = int(model.num_parameters())
    require_space(merged, needed_bytes=2 * parameters)
    # A base loaded from 4-bit files: save_original_format would try to re-quantise it, and fail.
    model.save_pretrained(merged, save_original_format=not source.is_quantized())
    prompts = load_prompt_format(source)
    prompts.tokenizer.save_pretrained(merged)
    prompts.save(merged)
    if "quantization_config" in read_json(merged / "config.json"):
        raise RuntimeError(f"{merged / 'config.json'} of a merged model still has a quantization_config")
    return parameters


def _merged(tuned: TunedModel) -> Any:
    """The model with the adapter within its weights, or as all its weights were trained."""
    from peft import PeftModel

    if not tuned.is_adapter:
        return tuned.load()
    weights: Any = load_model(tuned.source, precision="nf4" if tuned.base == "dequant" else "dense")
    if tuned.base == "dequant":
        weights = weights.dequantize()
        weights.is_loaded_in_4bit = False  # transformers leaves it set, and peft asks it
    return PeftModel.from_pretrained(weights, str(tuned.adapter)).merge_and_unload(safe_merge=True)
