"""What a replay tells: a table, a JSON object, a plot, and in words which rules are safe."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mathlete.metrics import describe_finish_order
from mathlete.replay.outcomes import SAFE_LOSS, Outcome, Submissions
from mathlete.scoring import Pool

if TYPE_CHECKING:
    from rich.table import Table

_ENOUGH = 4
"""Recorded samples for each of n; with fewer, draws repeat each other and intervals come out too narrow."""


def policy_json(outcome: Outcome) -> dict[str, object]:
    """One policy as JSON values. `score`, `lo` and `hi` are against a new set of questions."""
    wall = outcome.wall
    intervals = {"new_set": outcome.new_set, "subset": outcome.subset, "same_set": outcome.same_set}
    return {
        "n": outcome.n,
        "max_tokens": outcome.max_tokens,
        "stop": outcome.stop,
        "vote": outcome.vote,
        "budget_s": wall and wall.wall_s,
        "floor_s": wall and wall.floor_s,
        "ceiling_s": wall and wall.ceiling_s,
        "score": outcome.new_set.value,
        "lo": outcome.new_set.lo,
        "hi": outcome.new_set.hi,
        "p_overrun": outcome.p_overrun,
        "samples_per_problem": outcome.spent.arrivals,
        "penalised": outcome.two_runs.value,
        "penalised_lo": outcome.two_runs.lo,
        "penalised_hi": outcome.two_runs.hi,
        "intervals": {name: asdict(interval) for name, interval in intervals.items()},
        "change": asdict(outcome.change),
        "safe": outcome.safe,
        "spent_per_problem": asdict(outcome.spent),
        "saved": asdict(outcome.saved),
        "submission_s": outcome.submission_s,
        "submission_p95_s": outcome.submission_p95_s,
    }


def policy_name(outcome: Outcome, *, whole: int) -> str:
    """A policy in a few words; the cap only where it is below `whole`, the longest sample."""
    parts = [f"n={outcome.n}", outcome.stop]
    parts += [outcome.vote] if outcome.vote != "majority" else []
    parts += [f"≤{outcome.max_tokens} tokens"] if outcome.max_tokens < whole else []
    if outcome.wall is not None:
        wall = outcome.wall
        parts.append(
            f"{wall.wall_s:g} s" + (" free" if wall.floor_s is None else f" {wall.floor_s:g}–{wall.ceiling_s:g}")
        )
    return " · ".join(parts)


def outcome_table(found: Sequence[Outcome], pool: Pool, submissions: Submissions) -> "Table":
    """The policies, a line each."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        box=SIMPLE_HEAD,
        title=f"{pool.name} · {submissions.questions} questions · {submissions.simulations} submissions a policy · "
        "90% intervals (change: 95%)",
    )
    for name in (
        *("policy", "score", "new set", "subset", "same set", "two runs", "change", "P(overrun)"),
        *("arrivals", "wall s", "generated s", "saved", "submission s"),
    ):
        table.add_column(name, justify="left" if name == "policy" else "right", no_wrap=True)
    for outcome in found:
        table.add_row(policy_name(outcome, whole=pool.longest), *_cells(outcome))
    return table


def _cells(outcome: Outcome) -> list[str]:
    saved = (outcome.saved.arrivals, outcome.saved.wall_s, outcome.saved.generated_s)
    return [
        f"{outcome.new_set.value:.2f}",
        *(f"{interval.lo:g}–{interval.hi:g}" for interval in (outcome.new_set, outcome.subset)),
        f"{outcome.same_set.lo:.1f}–{outcome.same_set.hi:.1f}",
        f"{outcome.two_runs.value:.2f} {outcome.two_runs.lo:g}–{outcome.two_runs.hi:g}",
        f"{outcome.change.value:+.2f} [{outcome.change.lo:+.2f}, {outcome.change.hi:+.2f}]",
        f"{outcome.p_overrun:.3f}",
        f"{outcome.spent.arrivals:.1f}",
        f"{outcome.spent.wall_s:.3g}",
        f"{outcome.spent.generated_s:.3g}",
        " ".join(f"{100 * share:.0f}%" for share in saved),
        f"{outcome.submission_s:.4g}",
    ]


def replay_in_words(found: Sequence[Outcome], pool: Pool, submissions: Submissions) -> list[str]:
    """What the figures rest on and what follows: bias, safe rules, warnings."""
    words = [
        "new set: questions drawn with replacement, what another set of the kind would give; subset: drawn from these "
        f"{len(pool.problems)}; same set: these questions again. Saved: arrivals, wall, generated seconds.",
        describe_finish_order(pool.finish_order),
        *_safe_words([one for one in found if one.max_tokens >= pool.longest and one.vote == "majority"]),
    ]
    if pool.fewest < _ENOUGH * (most := max(outcome.n for outcome in found)):
        words.append(
            f"warning: {pool.fewest} samples are recorded, n = {most} needs {_ENOUGH * most} "
            "(4 n) for intervals that are not too narrow; run `python -m eval` with other --seed and replay all runs"
        )
    if submissions.questions > len(pool.problems):
        words.append(
            f"warning: only {len(pool.problems)} problems are recorded for {submissions.questions} questions; "
            "each comes several times and the subset interval is the new set's"
        )
    if pool.stopped_early:
        words.append(
            "warning: the problems have different numbers of samples: the recording stopped early, its missing samples "
            "are the late ones, and what is replayed from the rest is biased towards quick answers"
        )
    return words


def _safe_words(found: Sequence[Outcome]) -> list[str]:
    rules: dict[str, list[Outcome]] = {}
    for outcome in found:
        if outcome.stop != "none" and outcome.wall is None:
            rules.setdefault(outcome.stop, []).append(outcome)
    if not rules:
        return []
    safe = [stop for stop, tried in rules.items() if all(outcome.safe for outcome in tried)]
    others = [
        f"{stop} ({worst.change.value:+.2f} of {worst.questions}, low end {worst.change.lo:+.2f})"
        for stop, tried in rules.items()
        if stop not in safe
        for worst in [min(tried, key=lambda outcome: outcome.change.lo)]
    ]
    # Under a cap or another vote the change would be theirs, too.
    limit = f"at most {100 * SAFE_LOSS:g}% of the questions lost at the low end"
    return [
        f"safe on this run ({limit}): {', '.join(safe) or 'no rule tried'}",
        *([f"not shown safe: {', '.join(others)}"] if others else []),
    ]


def plot_outcomes(found: Sequence[Outcome], pool: Pool, path: Path) -> None:
    """Writes a PNG: score against the seconds of a submission, with the 90% interval against a new set."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    for outcome in found:
        name = policy_name(outcome, whole=pool.longest)
        below, above = outcome.new_set.value - outcome.new_set.lo, outcome.new_set.hi - outcome.new_set.value
        axes.errorbar(
            outcome.submission_s, outcome.new_set.value, yerr=[[max(0, below)], [max(0, above)]],
            fmt="o", capsize=3, label=name,
        )  # fmt: skip
    axes.set_xlabel("seconds of a submission, mean")
    axes.set_ylabel(f"right of {found[0].questions} (90%: a new set of questions)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, format="png", dpi=110)
    temporary.replace(path)
