"""Merge: the adapter becomes part of the weights, saved in 16 bits and compared with the model as it was trained.

The adapter was trained on the 4-bit weights, error and all; added to the original weights it meets other ones. So the
default merges into the dequantised 4-bit base (facts on a small model: KL 6e-5 against 2e-2). The other view, that for
most models the original is the better base, is a flag away: unslothai/unsloth-zoo pull request 810.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathlete.export.distributions import kl_divergence, load_heldout_rows, log_probabilities, row_losses
from mathlete.export.limits import require_kl
from mathlete.export.records.tuning import BaseComparison, BaseFigures, MergeFigures
from mathlete.export.settings import MergeBase, Survival
from mathlete.export.tuned import TunedModel
from mathlete.metrics import paired_difference
from mathlete.models import Device, ModelSource, load_model, load_prompt_format
from mathlete.runs import Advance, read_json, require_space

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def merge_adapter(
    merged: Path,
    *,
    tuned: TunedModel,
    limits: Survival,
    advance: Advance,
    say: Callable[[str], None],
) -> dict[str, object]:
    """Write the merged model's folder, in the first 16-bit type that keeps the KL limit; return the figures.

    Where the model's original weights are at hand, the other base is measured too, and the better one named.

    Raises:
        UserError: no type keeps the limit.
    """
    rows = load_heldout_rows(tuned.data)
    advance(0, 4, "the trained model's distributions")
    reference = log_probabilities(tuned.load(), rows)
    for dtype in _storage_types():
        advance(1, 4, f"merging, {_name(dtype)}")
        parameters = _save_merged(merged, tuned, dtype=dtype)
        advance(2, 4, "comparing")
        log_probs = log_probabilities(load_model(ModelSource(name="merged", location=str(merged))), rows)
        kl_merged = kl_divergence(reference, log_probs)
        if kl_merged <= limits.kl_merged:
            break
    advance(3, 4, "the other base")
    bases = {tuned.base: log_probs, **_measure_other_base(tuned, rows=rows, dtype=dtype)}
    comparison = compare_bases(bases, reference=reference, rows=rows) if len(bases) > 1 else None
    if comparison:
        say(describe_bases(comparison, chosen=tuned.base))
    advance(4, 4, f"KL {kl_merged:.1e}")
    require_kl("merged", kl_merged, limits)
    return MergeFigures(
        comparison=comparison,
        base=tuned.base,
        dtype=_name(dtype),
        parameters=parameters,
        kl=kl_merged,
        tokens=len(reference),
    ).to_json()


def _measure_other_base(tuned: TunedModel, *, rows: "Dataset", dtype: "torch.dtype") -> "dict[MergeBase, torch.Tensor]":
    """Measure the distributions of the merge into the other base; empty where only one base is at hand."""
    if tuned.source.is_quantized() or not tuned.is_adapter:
        return {}
    other: MergeBase = "original" if tuned.base == "dequant" else "dequant"
    model: Any = _merge(replace(tuned, base=other))
    # Through the storage type and back, as if it had been saved.
    return {other: log_probabilities(model.to(dtype).to(Device.current().torch_dtype).eval(), rows)}


def compare_bases(
    log_probs: "Mapping[MergeBase, torch.Tensor]", *, reference: "torch.Tensor", rows: "Dataset"
) -> BaseComparison:
    """Compare both bases' distance from the trained model and loss on held-out rows, and propose one.

    That is the one of lower loss, where the paired 95% interval of the difference leaves out 0; else the nearer one.
    """
    losses = {base: row_losses(values, rows) for base, values in log_probs.items()}
    difference = paired_difference(losses["dequant"], losses["original"])
    bases = {
        base: BaseFigures(kl=kl_divergence(reference, values), loss=sum(losses[base]) / len(losses[base]))
        for base, values in sorted(log_probs.items())
    }
    nearer = min(bases, key=lambda base: bases[base].kl)
    proposed = "dequant" if difference.lo > 0 else "original" if difference.hi < 0 else nearer
    return BaseComparison(bases=bases, loss_difference=difference, proposed=proposed)


def describe_bases(comparison: BaseComparison, *, chosen: MergeBase) -> str:
    """Describe both bases in a line, and which is better."""
    both = "; ".join(
        f"{base} KL {figures.kl:.1e}, held-out loss {figures.loss:.4f}" for base, figures in comparison.bases.items()
    )
    difference, better = comparison.loss_difference, comparison.proposed
    cure = "" if better == chosen else f": --merge-base {better}"
    return (
        f"merge base: {both}; original - dequant {difference.value:+.4f} [{difference.lo:+.4f}, {difference.hi:+.4f}]; "
        f"{better} is the better one{cure}"
    )


def _storage_types() -> "list[torch.dtype]":
    """Return the 16-bit types to save in, first choice first: what the GPU computes in; on a CPU the finer one."""
    import torch

    dtype = Device.current().torch_dtype
    return [torch.float16, torch.bfloat16] if dtype == torch.float32 else [dtype]


def _name(dtype: "torch.dtype") -> str:
    return str(dtype).removeprefix("torch.")


def _save_merged(merged: Path, tuned: TunedModel, *, dtype: "torch.dtype") -> int:
    """Merge and write the model's folder; return its number of parameters."""
    source = tuned.source
    model: Any = _merge(tuned)
    parameters = int(model.num_parameters())
    require_space(merged, needed_bytes=2 * parameters)
    # A base loaded from 4-bit files: save_original_format would try to re-quantise it, and fail.
    prompts = load_prompt_format(source)
    _name_special_tokens(model, prompts.tokenizer)
    model.to(dtype).save_pretrained(merged, save_original_format=not source.is_quantized())
    prompts.tokenizer.save_pretrained(merged)
    prompts.save(merged)
    # Else transformers would read the 16-bit weights as quantised ones.
    if "quantization_config" in read_json(merged / "config.json"):
        raise RuntimeError(f"{merged / 'config.json'} of a merged model still has a quantization_config")
    return parameters


def _name_special_tokens(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> None:
    """Have the model's settings name the eos that its rows ended on, beside its others, and its padding token.

    Engines that read them, and not the tokenizer, would go on after a turn's end.
    """
    own, eos = model.generation_config.eos_token_id, tokenizer.eos_token_id
    others = own if isinstance(own, list) else [] if own is None else [own]
    if eos not in others:
        model.generation_config.eos_token_id = [eos, *others] if others else eos
    model.generation_config.pad_token_id = model.config.get_text_config().pad_token_id = tokenizer.pad_token_id


def _merge(tuned: TunedModel) -> "PreTrainedModel":
    """Return the model with the adapter in its weights, or with all its weights as they were trained."""
    from peft import PeftModel

    if not tuned.is_adapter:
        return tuned.load()
    # Any: peft and the 4-bit loading put attributes on the model that its class does not name.
    model: Any = load_model(tuned.source, precision="nf4" if tuned.base == "dequant" else "dense")
    if tuned.base == "dequant":
        model = model.dequantize()
        # transformers leaves it set, and peft reads it to choose how it merges.
        model.is_loaded_in_4bit = False
    merged: PreTrainedModel = PeftModel.from_pretrained(model, str(tuned.adapter)).merge_and_unload(safe_merge=True)
    return merged
