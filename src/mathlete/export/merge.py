"""Merge: the adapter becomes part of the weights, saved in 16 bits and compared with the model as it was trained.

The adapter was trained on the 4-bit weights, error and all; added to the original weights it meets other ones. So the
default merges into the dequantised 4-bit base (facts on a small model: KL 6e-5 against 2e-2). The other view, that for
most models the original is the better base, is a flag away: unslothai/unsloth-zoo pull request 810.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathlete.export.distributions import kl_divergence, log_probabilities, row_losses
from mathlete.export.exact import EXACT, load_exact, store_in, widen
from mathlete.export.limits import find_merge_breaches
from mathlete.export.model_card import write_card
from mathlete.export.noise import measure_exactly
from mathlete.export.records.tuning import BaseComparison, BaseFigures, MergeFigures
from mathlete.export.settings import MergeBase, Survival
from mathlete.export.tuned import TunedModel
from mathlete.gates import GateOutcome, judge_breaches
from mathlete.metrics import PairedChange, format_change, paired_change
from mathlete.models import Device, ModelSource, load_prompt_format
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
    accept_refused: str = "",
    advance: Advance,
    say: Callable[[str], None],
) -> dict[str, object]:
    """Write the merged model's folder, in the finest 16-bit type that it fits, and measure it; return the figures.

    Where the model's original weights are at hand, the other base is measured too, and the better one named.

    Raises:
        Refused: no type keeps the limit, and there is no reason to accept that.
    """
    rows = tuned.load_rows()
    advance(0, 4, "the trained model's distributions")
    trained = tuned.load(dtype=EXACT)
    exact = measure_exactly(trained, rows)
    reference, noise = exact.log_probs, max(exact.noise)
    del trained
    most = limits.merge_limit(noise)
    stored = write_merged(merged, tuned, reference=reference, most=most, advance=advance)
    advance(3, 4, "the other base")
    bases = {tuned.base: stored.log_probabilities, **_measure_other_base(tuned, rows=rows, dtype=stored.dtype)}
    comparison = compare_bases(bases, reference=reference, rows=rows) if len(bases) > 1 else None
    if comparison:
        say(describe_bases(comparison, chosen=tuned.base, most=most, rows=len(rows)))
    advance(4, 4, f"KL {stored.kl:.1e}")
    say(f"merge: KL {stored.kl:.1e}, stored in {stored.dtype}, at most {most:.1e}; noise of computing {noise:.1e}")
    into: MergeBase = "dequant" if tuned.on_16bit else tuned.base  # of 16 bits they are what was trained on
    breaches = find_merge_breaches(stored.kls, dtype=stored.dtype, limits=limits, noise=noise, base=into)
    outcome = judge_breaches([*breaches], reason=accept_refused, folder=merged)
    write_card(
        merged,
        source=tuned.source,
        title=f"merged, stored in {stored.dtype}",
        library="transformers",
        tags=["math", "reasoning"],
        usage="AutoModelForCausalLM.from_pretrained(THIS_FOLDER)",
        made_of={"rows": tuned.data, "adapter": tuned.adapter},
        figures={"kl_merged": stored.kl, **GateOutcome.join([GateOutcome.of_step(tuned.adapter), outcome]).to_json()},
    )
    return MergeFigures(
        comparison=comparison,
        base=tuned.base,
        dtype=stored.dtype,
        parameters=stored.parameters,
        kl=stored.kl,
        tokens=len(reference),
        noise=noise,
        limit=most,
        outcome=outcome,
    ).to_json()


@dataclass(frozen=True, kw_only=True)
class StoredMerge:
    """A merged model in its folder, measured."""

    dtype: str
    """What its weights are stored in, by torch's name."""
    kls: Mapping[str, float]
    """KL(trained || merged) by each type that was tried, nats a token."""
    log_probabilities: "torch.Tensor"
    parameters: int

    @property
    def kl(self) -> float:
        """KL(trained || merged), nats a token."""
        return self.kls[self.dtype]


def write_merged(
    merged: Path, tuned: TunedModel, *, reference: "torch.Tensor", most: float, advance: Advance
) -> StoredMerge:
    """Write the merged model's folder in the first type that keeps the limit, else in the one that is nearest."""
    rows, kls = tuned.load_rows(), {}
    source = ModelSource(name="merged", location=str(merged))

    def store(dtype: str) -> "tuple[int, torch.Tensor]":
        advance(1, 4, f"merging, {dtype}")
        parameters = save_merged(merged, tuned, dtype=dtype)
        advance(2, 4, "comparing")
        return parameters, log_probabilities(load_exact(source), rows)

    for dtype in STORAGE_TYPES:
        parameters, log_probs = store(dtype)
        kls[dtype] = kl_divergence(reference, log_probs)
        if kls[dtype] <= most:
            break
    best = min(kls, key=lambda name: _distance(kls[name]))
    if best != dtype:
        parameters, log_probs = store(best)
    return StoredMerge(dtype=best, kls=kls, log_probabilities=log_probs, parameters=parameters)


def _measure_other_base(tuned: TunedModel, *, rows: "Dataset", dtype: str) -> "dict[MergeBase, torch.Tensor]":
    """Measure the distributions of the merge into the other base; empty where only one base is at hand."""
    if tuned.source.is_quantized() or not tuned.is_adapter or tuned.on_16bit:
        return {}
    other: MergeBase = "original" if tuned.base == "dequant" else "dequant"
    # Through the storage type, as if it had been saved.
    model = store_in(replace(tuned, base=other).merge(dtype=dtype), dtype)
    model = store_in(model, EXACT) if Device.current().capability is None else widen(model)
    return {other: log_probabilities(model, rows)}


def compare_bases(
    log_probs: "Mapping[MergeBase, torch.Tensor]", *, reference: "torch.Tensor", rows: "Dataset"
) -> BaseComparison:
    """Compare both bases' distance from the trained model and loss on held-out rows, and propose one.

    That is the one of lower loss, where the difference is a number and no chance; else the nearer one.
    """
    losses = {base: row_losses(values, rows) for base, values in log_probs.items()}
    difference = paired_change(losses["dequant"], losses["original"])
    bases = {
        base: BaseFigures(kl=kl_divergence(reference, values), loss=sum(losses[base]) / len(losses[base]))
        for base, values in sorted(log_probs.items())
    }
    nearer = min(bases, key=lambda base: _distance(bases[base].kl))
    lower = _lower_loss(difference)
    proposed = lower if lower and math.isfinite(bases[lower].kl) else nearer
    return BaseComparison(bases=bases, loss_difference=difference, proposed=proposed)


def _lower_loss(difference: PairedChange) -> MergeBase | None:
    """Return the base of lower loss, by that of original - dequant; None where none is shown."""
    if not difference.is_shown:
        return None
    return "dequant" if difference.value > 0 else "original"


def _distance(kl: float) -> float:
    """Return a KL as a distance: one that is no number is the farthest of all."""
    return kl if math.isfinite(kl) else math.inf


def describe_bases(comparison: BaseComparison, *, chosen: MergeBase, most: float, rows: int | None = None) -> str:
    """Describe both bases in a line, which is better, and how to take it.

    Args:
        comparison: of both.
        chosen: the one that was merged into.
        most: the largest KL of a merge.
        rows: held-out rows of the losses; None where they are not known.
    """
    both = "; ".join(
        f"{base} KL {figures.kl:.1e}, held-out loss {figures.loss:.4f}" for base, figures in comparison.bases.items()
    )
    difference, proposed = comparison.loss_difference, comparison.proposed
    kl = comparison.bases[proposed].kl
    verdict = (
        f"{proposed} is better"
        if math.isfinite(kl) and _lower_loss(difference) == proposed
        else f"{'' if difference.is_shown else 'no difference shown, '}{proposed} is nearer to the trained model"
        if math.isfinite(kl)
        else f"KL of {proposed} is no number, so neither is better"
    )
    accept = (
        f" --accept-refused REASON, as that KL is above the limit of {most:.1e}; the reason accepts what the exports "
        "cost too, whose KL has the merge's in it"
    )
    cure = f": --merge-base {proposed} --overwrite{accept if kl > most else ''}"
    change = format_change(difference, problems=rows, digits=4)
    # What is no number is no model that a reason makes one.
    return (
        f"merge base: {both}; loss, original - dequant {change}: {verdict}"
        f"{cure if proposed != chosen and math.isfinite(kl) else ''}"
    )


STORAGE_TYPES = ("float16", "bfloat16")
"""What merged weights are stored in, the finer one first: 11 significant bits, or 8 where a weight is beyond 65,504."""


def save_merged(merged: Path, tuned: TunedModel, *, dtype: str) -> int:
    """Merge and write the model's folder; return its number of parameters."""
    import torch

    source = tuned.source
    model: Any = tuned.merge(dtype=dtype)
    parameters = int(model.num_parameters())
    require_space(merged, needed_bytes=2 * parameters)
    # A base loaded from 4-bit files: save_original_format would try to re-quantise it, and fail.
    prompts = load_prompt_format(source)
    _name_special_tokens(model, prompts.tokenizer)
    model.to(getattr(torch, dtype)).save_pretrained(merged, save_original_format=not source.is_quantized())
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
