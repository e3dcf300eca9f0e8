"""The page's tables, as rows of text; Jinja escapes them."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mathlete.export.records import Hop, TuningChange
from mathlete.losses import CAUSES
from mathlete.metrics import format_change, format_percent, to_points
from mathlete.report.hops import HEAD, hop_cells
from mathlete.report.training import TrainRun
from mathlete.scoring import EvalRun, RunFacts

_MOST_WIDE = 3
"""Runs of which a table has two columns each."""
_MOST_ROWS = 200
"""Answers that the page lists of those on which scorer and checker differ; scorer.json has all."""


@dataclass(frozen=True, kw_only=True)
class PageTable:
    """A table of the page."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1
    """Leading columns that hold words; numbers are set flush right."""


def score_table(runs: Sequence[EvalRun]) -> PageTable:
    """Return the scores, a line for each run."""
    head = ("run", "pass@1 ± se", "maj@k [95%]", "pass@k", "problems", "n", "no answer", "unknown", "fallbacks",
            "tokens/s", "seconds", "model")  # fmt: skip
    return PageTable(head=head, rows=[_score_row(run) for run in runs])


def _score_row(run: EvalRun) -> list[str]:
    scores, facts = run.results.scores, run.results.facts
    speed = facts.tokens_per_s if facts else None
    return [
        run.name if facts else f"{run.name} (unfinished)",
        *scores.format(),
        str(scores.problems),
        str(scores.k),
        str(scores.counts.unanswered),
        str(scores.counts.unknown),
        str(scores.fallbacks),
        "–" if speed is None else f"{speed:,.0f}",
        # Other tools' logs do not say how long the run took.
        f"{facts.seconds:,.0f}" if facts and facts.seconds else "–",
        f"{facts.model} ({facts.settings.precision})" if facts else "not recorded",
    ]


def subset_table(runs: Sequence[EvalRun]) -> PageTable:
    """Return the scores by group and subset, a line for each run that has it."""
    rows = []
    # A group and a subset of one name hold the same problems, so either's scores do.
    parts = [{**run.results.subsets, **run.results.groups} for run in runs]
    # Groups come before subsets; a name that several runs have keeps its first place, so that they stand together.
    groups = [name for run in runs for part in (run.results.groups, run.results.subsets) for name in part]
    for name in dict.fromkeys(filter(None, groups)):
        for run, part in zip(runs, parts, strict=True):
            if name in part:
                label = [name, run.name] if len(runs) > 1 else [name]
                rows.append([*label, str(part[name].problems), *part[name].format()])
    labels = ["level or subject", "run"] if len(runs) > 1 else ["level or subject"]
    head = [*labels, "problems", "pass@1 ± se", "maj@k [95%]", "pass@k"]
    return PageTable(head=head, rows=rows, words=len(labels))


def losses_table(runs: Sequence[EvalRun]) -> PageTable:
    """Return problems and samples of each class that some run has: two columns for each run, of many runs one."""
    kinds = ("problems", "samples") if len(runs) <= _MOST_WIDE else ("problems",)
    counted = [getattr(run.losses, kind) for run in runs for kind in kinds]
    named = [run.name for run in runs]
    head = (
        [*kinds]
        if len(runs) == 1
        else named
        if len(kinds) == 1
        else [f"{name} {kind}" for name in named for kind in kinds]
    )
    totals = [max(1, sum(part.values())) for part in counted]
    rows = [
        [words.label]
        + [f"{part[cause]:,} ({part[cause] / total:.1%})" for part, total in zip(counted, totals, strict=True)]
        for cause, words in CAUSES.items()
        if cause == "won" or any(part[cause] for run in runs for part in (run.losses.problems, run.losses.samples))
    ]
    return PageTable(head=["", *head], rows=rows)


def scorer_table(runs: Sequence[EvalRun]) -> PageTable | None:
    """Return the answers on which the organiser's scorer and mathlete's checker differ; None where they never do."""
    judged = [(run.name, one) for run in runs if run.scorer for one in run.scorer.judged if one.lost or one.gained]
    rows = [
        [name] * (len(runs) > 1)
        + [one.id if one.index is None else f"{one.id} · sample {one.index}", one.gold]
        + [_nothing(one.read), "right" if one.right else "wrong", _nothing(one.answer), one.own, f"{one.points:g}"]
        for name, one in judged[:_MOST_ROWS]
    ]
    words = ["run"] * (len(runs) > 1) + ["problem", "gold", "the scorer read", "and calls it", "mathlete read"]
    head = [*words, "and calls it", "points"]
    return PageTable(head=head, rows=rows, words=len(words) + 1) if rows else None


def _nothing(text: str | None) -> str:
    return "nothing" if text is None else text


def survival_table(run: TrainRun) -> PageTable | None:
    """Return what each hop cost beside what it may cost; None before the merge."""
    if not run.hops:
        return None
    rows = [[*hop_cells(hop), *_limits(hop, run)] for hop in run.hops]
    return PageTable(head=(*HEAD, "KL at most", "unchanged at least"), rows=rows, words=2)


def _limits(hop: Hop, run: TrainRun) -> list[str]:
    """Return what a hop may cost, by the noise that was measured; nothing for the models before the first one."""
    settings = run.manifests.get("export", {}).get("settings", {})
    if hop.name == "merged":
        limit = settings.get("kl_merged") if run.merge is None or run.merge.limit is None else run.merge.limit
        # The hop's own figure is of this device's type.
        return ["" if limit is None else f"{limit:.0e} in fp32", ""]
    gates = next((figures.gates for figures in run.exports.values() if hop in figures.hops), None)
    if hop.name in ("base", "trained") or not (gates or settings):
        return ["", ""]
    # Files of earlier versions hold no limits of their own.
    kl, unchanged = (gates.kl, gates.unchanged) if gates else (settings["kl_int8"], settings["greedy"])
    return [f"{kl:.0e}" if hop.kl is not None else "", f"{unchanged:.0%}"]


def effect_table(run: TrainRun) -> PageTable | None:
    """Return what the training changed, before any merge; None where that was not measured."""
    if run.effect is None:
        return None
    rows = [_change_cells(change) for change in (run.effect.heldout, run.effect.general) if change]
    head = ("", "problems", "loss before", "after", "change [95%]", "greedy right before", "after", "change [95%]")
    return PageTable(head=head, rows=rows)


def _change_cells(change: TuningChange) -> list[str]:
    return [
        f"general: {change.source}" if change.source else "held out",
        str(change.problems),
        *(f"{value:.3f}" for value in change.loss),
        format_change(change.loss_change, problems=change.problems, digits=3),
        *(format_percent(share) for share in change.accuracy),
        format_change(to_points(change.accuracy_change), problems=change.problems),
    ]


def bases_table(run: TrainRun) -> PageTable | None:
    """Return the two weights an adapter can be merged into and the better of them; None where one was measured."""
    if run.merge is None or run.merge.comparison is None:
        return None
    marks = {"taken": run.merge.base, "better": run.merge.comparison.proposed}
    rows = [
        [base, f"{figures.kl:.1e}", f"{figures.loss:.4f}", ", ".join(mark for mark, of in marks.items() if of == base)]
        for base, figures in run.merge.comparison.bases.items()
    ]
    return PageTable(head=("merged into", "KL, nats a token", "held-out loss", ""), rows=rows)


def drops_table(run: TrainRun) -> PageTable | None:
    """Return the traces that were left out, and why; None before the format step."""
    if run.format is None:
        return None
    taken = [["taken", f"{run.format.kept:,}", f"{run.format.rows:,} to train on, {run.format.heldout:,} held out"]]
    return PageTable(
        head=("reason", "traces", "which means"),
        rows=[*taken, *([reason, f"{count:,}", meaning] for reason, count, meaning in run.drops)],
    )


def facts_table(run: EvalRun | TrainRun) -> PageTable:
    """Return where and of what a run was made: commit, packages, hardware, settings, hashes of inputs and outputs."""
    rows = []
    if isinstance(run, EvalRun) and run.results.facts:
        rows = [[key, _format(value)] for key, value in _run_facts(run.results.facts).items()]
    manifests = {"": run.manifest} if isinstance(run, EvalRun) else run.manifests
    rows += [row for step, manifest in manifests.items() for row in _manifest_rows(step, manifest)]
    return PageTable(head=("", "value"), rows=rows, words=2)


def _run_facts(facts: RunFacts) -> dict[str, object]:
    settings = facts.settings
    return {
        "suite": settings.suite,
        "suite_sha": settings.suite_sha,
        "model": facts.model,
        "model_sha": settings.model_sha,
        "prompt_sha": facts.prompt_sha,
        "engine": settings.engine,
        **facts.engine_facts,
        "precision": settings.precision,
        "policy": settings.policy.to_json(),
        **({"budget": asdict(settings.budget)} if settings.budget else {}),
        **({"not recorded": ", ".join(facts.missing)} if facts.missing else {}),
    }


_SHOWN = ("finished", "seconds", "argv", "git", "python", "packages", "hardware", "settings", "inputs", "outputs")


def _manifest_rows(step: str, manifest: dict[str, Any]) -> list[list[str]]:
    shown = [(key, manifest[key]) for key in _SHOWN if key in manifest]
    return [[f"{step} {key}".strip(), _format(value)] for key, value in shown]


def _format(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
