"""Export: the merged model in fewer bits, reloaded and compared with the trained one; int8 always, others as asked."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mathlete.export.effect import MeasuredEffect
from mathlete.export.formats.table import DEFAULT_FORMAT, EXPORT_FORMATS, ExportFormat
from mathlete.export.formats.writing import choose_dtype, write_format
from mathlete.export.greedy import Watch
from mathlete.export.layers import measure_layers
from mathlete.export.limits import find_breaches
from mathlete.export.model_card import write_export_card
from mathlete.export.records.exports import Hop, SurvivalFigures
from mathlete.export.reference import Reference
from mathlete.export.served import measure_served
from mathlete.export.settings import Export, Survival
from mathlete.export.tuned import TunedModel
from mathlete.gates import SURVIVAL, GateOutcome, Gates, judge_breaches, outcome_of
from mathlete.models import ModelSource, load_model
from mathlete.rows import RowFiles
from mathlete.runs import Advance, write_json


def export_model(
    output: Path,
    *,
    name: str,
    tuned: TunedModel,
    effect: Path,
    merged: Path,
    limits: Survival,
    formats: Export,
    seed: int = 0,
    accept_refused: str = "",
    advance: Advance,
    show: Callable[[Sequence[Hop], SurvivalFigures], None],
) -> dict[str, object]:
    """Write the folder of a format, and what the hops to it cost as `survival.json`; return the main figures.

    `seed` draws the rows that a calibrated format is made for. `show` is given the hops, the first ones too for
    int8, and all figures, before any limit is kept.

    Raises:
        Refused: a hop cost more than its limit, and there is no reason to accept that.
        UserError: the format can't hold the model or its GPU can't run it.
    """
    export_format = EXPORT_FORMATS[name]
    steps = 5 if name == DEFAULT_FORMAT else 4
    advance(0, steps, f"writing {name}")
    calibration = formats.calibrate(RowFiles(tuned.data).train, seed=seed) if export_format.is_calibrated else None
    write_format(
        output,
        merged=merged,
        name=name,
        settings=formats,
        calibration=calibration,
        watch=lambda words: advance(0, steps, f"writing {name}: {words}"),
    )
    advance(1, steps, "the trained model")
    before = MeasuredEffect.read(effect)
    reference = tuned.reference(answers=before.answers, again=before.again, max_tokens=limits.max_tokens)
    hops: list[Hop] = []
    measuring = _measure_hops(
        output,
        export_format,
        merged=merged,
        reference=reference,
        formats=formats,
        watch=lambda words: advance(1 + len(hops), steps, words),
    )
    for hop in measuring:
        hops.append(hop)
        advance(1 + len(hops), steps, f"{hop.name}, read by {hop.engine}")
    layers = measure_layers(tuned, merged=merged, export=output, export_format=export_format)
    noise, stored = before.figures.noise, choose_dtype(merged, formats)
    breaches = [
        one for hop in hops for one in find_breaches(hop, limits=limits, export=formats, noise=noise, stored=stored)
    ]
    # What was accepted on the way here goes with the export: it is the one folder that others see.
    earlier = [before.figures.outcome, *map(GateOutcome.of_step, (tuned.adapter, merged))]
    outcome = GateOutcome.join([*earlier, outcome_of(breaches, reason=accept_refused)])
    gates = Gates(
        noise=noise,
        kl=limits.export_limit(noise, bits=export_format.bits),
        unchanged=limits.unchanged_limit(noise, bits=export_format.bits),
        outcome=outcome,
    )
    figures = SurvivalFigures(tokens=len(reference.log_probabilities), hops=tuple(hops), layers=layers, gates=gates)
    # Written and shown before the limits are kept: a breach is explained by the figures of all hops.
    write_json(output / SURVIVAL, figures.to_json())
    show([*(before.figures.hops if name == DEFAULT_FORMAT else ()), *hops], figures)
    judge_breaches(breaches, reason=accept_refused, folder=output)
    made_of = {"rows": tuned.data, "adapter": tuned.adapter, "merged": merged}
    drawn = {} if calibration is None else {"calibration": calibration.describe()}
    cost = {**figures.summary, **drawn, **outcome.to_json()}
    write_export_card(output, export_format=export_format, source=tuned.source, made_of=made_of, figures=cost)
    advance(steps, steps, "")
    weakest = figures.weakest_layer
    return {
        **figures.summary,
        **drawn,
        **outcome.to_json(),
        **({"least_signal_to_noise": weakest.signal_to_noise, "least_layer": weakest.layer} if weakest else {}),
    }


def _measure_hops(
    output: Path, export_format: ExportFormat, *, merged: Path, reference: Reference, formats: Export, watch: Watch
) -> Iterator[Hop]:
    """Yield the merged model's hop once a run, with its default format, then those of the export itself."""
    if export_format.name == DEFAULT_FORMAT:
        source = ModelSource(name="merged", location=str(merged))
        yield reference.measure(
            "merged",
            lambda: load_model(source),
            size=source.weight_bytes,
            watch=lambda words: watch(f"the merged model: {words}"),
        )
    yield reference.measure(
        export_format.name,
        lambda: export_format.load(output),
        size=export_format.size(output),
        watch=lambda words: watch(f"{export_format.name}: {words}"),
    )
    yield from measure_served(output, export_format=export_format, reference=reference, engines=formats.engines)
