"""The page's tables, as rows of text; Jinja escapes them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mathlete.export.records import Hop, TuningChange
from mathlete.metrics import percent, plus_minus, with_interval
from mathlete.report.hops import HEAD, hop_cells
from mathlete.report.training import TrainRun
from mathlete.scoring import EvalRun, compare_runs


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of the page."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1
    """Leading columns that are words, not numbers."""


def score_table(runs: Sequence[EvalRun]) -> Table:
    """A line a run."""
    head = ("run", "model", "problems", "n", "pass@1 ± se", "maj@k [95%]", "pass@k", "no answer", "unknown",
            "fallbacks", "tokens/s", "seconds")  # fmt: skip
    return Table(head=head, rows=[_scores(run) for run in runs], words=2)


def _scores(run: EvalRun) -> list[str]:
    found = run.found
    speed, seconds = found.get("tokens_per_s"), found.get("seconds")
    model = f"{found['model']} ({found['precision']})" if "model" in found else "not told"
    return [
        f"{run.name}{' (unfinished)' if found.get('unfinished') else ''}",
        model,
        str(found["problems"]),
        str(found["k"]),
        *_cells(found),
        str(found["unanswered"]),
        str(found["unknown"]),
        str(found["fallbacks"]),
        "–" if speed is None else f"{speed:,.0f}",
        "–" if seconds is None else f"{seconds:,.0f}",
    ]


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        plus_minus(row["pass_at_1"], row["pass_at_1_se"]),
        with_interval(row["maj_at_k"], row["maj_at_k_interval"]),
        percent(row["pass_at"].get(str(row["k"]))),
    ]


def subset_table(runs: Sequence[EvalRun]) -> Table:
    """A line a part of the problems and run."""
    rows = []
    names = list(dict.fromkeys(name for run in runs for key in ("groups", "subsets") for name in run.found[key]))
    for name in (name for name in names if name):
        for run in runs:
            part = run.found["groups"].get(name) or run.found["subsets"].get(name)
            if part:
                rows.append([name, *([run.name] if len(runs) > 1 else []), str(part["problems"]), *_cells(part)])
    several = ["run"] if len(runs) > 1 else []
    return Table(
        head=["level or subject", *several, "problems", "pass@1 ± se", "maj@k [95%]", "pass@k"],
        rows=rows,
        words=1 + len(several),
    )


def paired_words(runs: Sequence[EvalRun]) -> list[str]:
    """What the paired tests of the first run against each other say; problems that only one has are left out."""
    words = []
    for other in runs[1:]:
        mine = {item.problem.id for item in runs[0].graded if item.solution.samples}
        if mine & {item.problem.id for item in other.graded if item.solution.samples}:
            found = compare_runs(runs[0].pool, other.pool)
            names = f"{runs[0].name} (A) and {other.name} (B) on {found.problems} problems"
            words += [f"{names}: {row.in_words}" for row in found.scores]
    return words


def survival_table(run: TrainRun) -> Table | None:
    """What each hop cost beside what it may cost; None before the merge."""
    if not run.hops:
        return None
    limits = run.manifests.get("export", {}).get("settings", {})
    rows = [[*hop_cells(hop), *_limits(hop, limits)] for hop in run.hops]
    return Table(head=(*HEAD, "KL at most", "unchanged at least"), rows=rows, words=2)


def _limits(hop: Hop, limits: dict[str, Any]) -> list[str]:
    """What a hop may cost; nothing for the models before the first one."""
    if hop.name in ("base", "trained") or not limits:
        return ["", ""]
    if hop.name == "merged":
        return [f"{limits['kl_merged']:.0e}", ""]
    return [f"{limits['kl_int8']:.0e}" if hop.kl is not None else "", f"{limits['greedy']:.0%}"]


def effect_table(run: TrainRun) -> Table | None:
    """What the training changed, before any merge; None where that was not measured."""
    if run.effect is None:
        return None
    rows = [_change_cells(change) for change in (run.effect.heldout, run.effect.general) if change]
    head = ("", "problems", "loss before", "after", "change [95%]", "greedy right before", "after", "change [95%]")
    return Table(head=head, rows=rows)


def _change_cells(change: TuningChange) -> list[str]:
    loss, points = change.loss_change, change.accuracy_change
    return [
        f"general: {change.source}" if change.source else "held out",
        str(change.problems),
        *(f"{value:.3f}" for value in change.loss),
        f"{loss.value:+.3f} [{loss.lo:+.3f}, {loss.hi:+.3f}]",
        *(percent(share) for share in change.accuracy),
        f"{100 * points.value:+.1f} [{100 * points.lo:+.1f}, {100 * points.hi:+.1f}]",
    ]


def bases_table(run: TrainRun) -> Table | None:
    """The two weights an adapter can be merged into, and which is better; None where only one could be measured."""
    if run.merge is None or run.merge.comparison is None:
        return None
    marks = {"taken": run.merge.base, "better": run.merge.comparison.proposed}
    rows = [
        [base, f"{figures.kl:.1e}", f"{figures.loss:.4f}", ", ".join(mark for mark, of in marks.items() if of == base)]
        for base, figures in run.merge.comparison.bases.items()
    ]
    return Table(head=("merged into", "KL, nats a token", "held-out loss", ""), rows=rows)


def drops_table(run: TrainRun) -> Table | None:
    """Traces that were left out, and why; None before the format step."""
    figures = run.figures("data")
    if not figures:
        return None
    taken = [["taken", f"{figures['kept']:,}", f"{figures['rows']:,} to train on, {figures['heldout']:,} held out"]]
    return Table(
        head=("reason", "traces", "which means"),
        rows=[*taken, *([reason, f"{count:,}", meaning] for reason, count, meaning in run.drops)],
    )


def facts_table(run: EvalRun | TrainRun) -> Table:
    """Where a run was made and of what: commit, packages, hardware, settings, hashes of what went in and came out."""
    manifests = {"": run.manifest} if isinstance(run, EvalRun) else run.manifests
    rows = [row for step, manifest in manifests.items() for row in _facts(step, manifest)]
    if isinstance(run, EvalRun):
        told = ("suite", "suite_sha", "model", "model_sha", "prompt_sha", "engine", "precision", "policy", "budget")
        rows = [[key, _text(run.found[key])] for key in told if key in run.found] + rows
    return Table(head=("", "value"), rows=rows, words=2)


_SHOWN = ("finished", "seconds", "argv", "git", "python", "packages", "hardware", "settings", "inputs", "outputs")


def _facts(step: str, manifest: dict[str, Any]) -> list[list[str]]:
    shown = [(key, manifest[key]) for key in _SHOWN if key in manifest]
    return [[f"{step} {key}".strip(), _text(value)] for key, value in shown]


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
