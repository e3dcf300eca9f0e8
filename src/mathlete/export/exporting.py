"""Export: the merged model in 8 bits, reloaded and compared with the trained one; int8 always, others on request."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mathlete.export.effect import read_effect
from mathlete.export.formats import FORMATS, export_bytes, load_export, write_format
from mathlete.export.hops import Heldout, Reference, require_survival
from mathlete.export.layers import layer_costs
from mathlete.export.model_card import write_card
from mathlete.export.served import served_hops
from mathlete.export.settings import Export, FormatName, MergeBase, Survival
from mathlete.export.survival import log_probabilities
from mathlete.models import ModelSource, load_model, weight_bytes
from mathlete.runs import Advance, require_space, write_json
from mathlete.tune.methods import trained_model

SURVIVAL = "survival.json"


@dataclass(frozen=True, kw_only=True)
class Made:
    """The folders that an export is made of, and the model that was trained."""

    source: ModelSource
    data: Path
    adapter: Path
    effect: Path
    merged: Path
    base: MergeBase

    def reference(self, *, max_tokens: int) -> Reference:
        """The trained model on the held-out rows."""
        heldout = Heldout.of(self.data, source=self.source, max_tokens=max_tokens)
        _, answers = read_effect(self.effect)
        model = trained_model(self.source, self.adapter)
        return Reference(heldout=heldout, log_probabilities=log_probabilities(model, heldout.rows), answers=answers)


def export(
    output: Path,
    *,
    name: FormatName,
    made: Made,
    limits: Survival,
    formats: Export,
    advance: Advance,
    show: Callable[[list[dict[str, Any]], int], None],
) -> dict[str, object]:
    """Writes the folder of a format, and what the hops to it cost as `survival.json`; returns that.

    `show` is given the hops, the first ones too for int8, and the number of held-out tokens, before any limit is kept.

    Raises:
        UserError: the format can't hold the model or its GPU can't run it, or a hop cost more than its limit.
    """
    steps = 5 if name == "int8" else 4
    advance(0, steps, f"writing {name}")
    require_space(output, needed_bytes=weight_bytes(made.merged))
    write_format(output, merged=made.merged, name=name, settings=formats)
    advance(1, steps, "the trained model")
    reference = made.reference(max_tokens=limits.max_tokens)
    hops = []
    for done, hop in enumerate(_hops(output, name=name, made=made, reference=reference, formats=formats), start=2):
        advance(done, steps, f"{hop['hop']}, read by {hop['engine']}")
        hops.append(hop)
    costs = layer_costs(made.source, adapter=made.adapter, base=made.base, merged=made.merged, export=output)
    figures = {**_figures(name, hops, tokens=len(reference.log_probabilities)), "hops": hops, "layers": costs}
    write_json(output / SURVIVAL, figures)
    before = read_effect(made.effect)[0]["hops"] if name == "int8" else []
    show([*before, *hops], len(reference.log_probabilities))
    for hop in hops:
        require_survival(hop, limits)
    made_of = {"rows": made.data, "adapter": made.adapter, "merged": made.merged}
    told = {key: value for key, value in figures.items() if not isinstance(value, list)}
    write_card(output, words=FORMATS[name].words, name=name, source=made.source, made_of=made_of, figures=told)
    advance(steps, steps, "")
    return {**told, **_weakest(costs)}


def _hops(
    output: Path, *, name: FormatName, made: Made, reference: Reference, formats: Export
) -> Iterator[dict[str, Any]]:
    if name == "int8":
        source = ModelSource(name="merged", location=str(made.merged))
        yield reference.hop("merged", lambda: load_model(source), size=weight_bytes(made.merged))
    yield reference.hop(name, lambda: load_export(output), size=export_bytes(output))
    yield from served_hops(output, name=name, reference=reference, engines=formats.engines)


def _figures(name: str, hops: list[dict[str, Any]], *, tokens: int) -> dict[str, Any]:
    """The hops' main figures by name: those of the 8-bit model as transformers reads it."""
    costs = {f"kl_{hop['hop']}": hop["kl"] for hop in hops if hop["kl"] is not None}
    own = next(hop for hop in hops if hop["hop"] == name)
    return {
        **costs,
        "kl_tokens": tokens,
        "top1": own["top1"],
        "greedy_problems": own["problems"],
        "greedy_answered": own["answered"],
        "greedy_unchanged": own["unchanged"],
        "greedy_right": own["right"],
        "bytes": own["bytes"],
    }


def _weakest(costs: list[dict[str, Any]]) -> dict[str, object]:
    """The layer whose change is smallest beside its noise."""
    if not costs:
        return {}
    least = min(costs, key=lambda row: float(row["signal"] / max(row["noise"], 1e-12)))
    return {"least_signal_to_noise": least["signal"] / max(least["noise"], 1e-12), "least_layer": least["layer"]}
