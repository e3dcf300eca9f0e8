"""Export: the merged model in 8 bits, reloaded and compared with the trained one; int8 always, others on request."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mathlete.export.effect import read_effect
from mathlete.export.formats import EXPORT_FORMATS, export_bytes, load_export, write_format
from mathlete.export.hops import Reference, require_survival
from mathlete.export.layers import layer_costs
from mathlete.export.model_card import write_card
from mathlete.export.served import served_hops
from mathlete.export.settings import Export, Survival
from mathlete.export.tuned import TunedModel
from mathlete.models import ModelSource, load_model
from mathlete.runs import Advance, require_space, write_json

SURVIVAL = "survival.json"


def export_model(
    output: Path,
    *,
    name: str,
    tuned: TunedModel,
    effect: Path,
    merged: Path,
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
    require_space(output, needed_bytes=ModelSource(name="merged", location=str(merged)).weight_bytes)
    write_format(output, merged=merged, name=name, settings=formats)
    advance(1, steps, "the trained model")
    before, answers = read_effect(effect)
    reference = tuned.reference(answers=answers, max_tokens=limits.max_tokens)
    hops = []
    for done, hop in enumerate(_hops(output, name=name, merged=merged, reference=reference, formats=formats), start=2):
        advance(done, steps, f"{hop['hop']}, read by {hop['engine']}")
        hops.append(hop)
    costs = layer_costs(tuned, merged=merged, export=output)
    figures = {**_figures(name, hops, tokens=len(reference.log_probabilities)), "hops": hops, "layers": costs}
    write_json(output / SURVIVAL, figures)
    show([*(before["hops"] if name == "int8" else []), *hops], len(reference.log_probabilities))
    for hop in hops:
        require_survival(hop, limits)
    made_of = {"rows": tuned.data, "adapter": tuned.adapter, "merged": merged}
    told = {key: value for key, value in figures.items() if not isinstance(value, list)}
    write_card(output, words=EXPORT_FORMATS[name].words, name=name, source=tuned.source, made_of=made_of, figures=told)
    advance(steps, steps, "")
    return {**told, **_weakest(costs)}


def _hops(output: Path, *, name: str, merged: Path, reference: Reference, formats: Export) -> Iterator[dict[str, Any]]:
    if name == "int8":
        source = ModelSource(name="merged", location=str(merged))
        yield reference.hop("merged", lambda: load_model(source), size=source.weight_bytes)
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
