"""What the page answers first: a card for each comparison, lone run and training, and a matrix of many runs."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Literal

from mathlete.errors import UserError
from mathlete.export.records import TuningChange
from mathlete.gates import SURVIVAL, GateOutcome
from mathlete.losses import CAUSES
from mathlete.metrics import (
    INFORMATIVE,
    Interval,
    format_ends,
    format_interval,
    format_percent,
    format_with_error,
    to_points,
)
from mathlete.problems import Problem
from mathlete.report.training import TrainRun
from mathlete.runs import MANIFEST, read_json
from mathlete.scoring import EvalRun, Pool, compare_runs

Tone = Literal["better", "worse", "even"]
MOST_CARDS = 4
"""Evaluations up to which each is compared with the first on a card; more are compared pair by pair in a matrix."""
_MOST_GROUPS = 4
"""Groups of subsets up to which a card has the change in each."""
_TONES: dict[str, Tone] = {"A": "worse", "B": "better"}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number of a card."""

    label: str
    value: str
    interval: str = ""
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Jump:
    """A button to what the reader shows under a filter."""

    words: str
    run: int
    filter: str


@dataclass(frozen=True, kw_only=True)
class Card:
    """One answer."""

    title: str
    verdict: str = ""
    tone: Tone = "even"
    figures: Sequence[Figure]
    jumps: Sequence[Jump] = ()
    broken: Sequence[str] = ()
    """Gates that did not let the model pass, in sentences."""
    lines: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One difference of the matrix."""

    value: str
    interval: str = ""
    tone: Tone = "even"
    title: str = ""


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """Differences of pass@1: the run of the line less that of the column."""

    names: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str


def make_cards(runs: Sequence[EvalRun | TrainRun]) -> list[Card]:
    """Return the cards of some runs, in the order in which they answer: comparisons or the lone run, then trainings."""
    evaluated = [(at, run) for at, run in enumerate(runs) if isinstance(run, EvalRun)]
    if len(evaluated) == 1:
        cards = [_run_card(*evaluated[0])]
    elif len(evaluated) <= MOST_CARDS:
        cards = [_compare_card(evaluated[0][1], run, at) for at, run in evaluated[1:]]
    else:
        cards = []
    return cards + [_train_card(run) for run in runs if isinstance(run, TrainRun)]


def _run_card(at: int, run: EvalRun) -> Card:
    scores, losses = run.results.scores, run.losses
    largest = losses.largest
    jumps = [Jump(words=f"{sum(item.verdict != 'equal' for item in run.graded)} not right", run=at, filter="wrong")]
    if outvoted := losses.problems.get("outvoted", 0):
        jumps.append(Jump(words=f"{outvoted} right but outvoted", run=at, filter="outvoted"))
    why = f"most lost problems: {CAUSES[largest].label} ({losses.problems[largest]})" if largest else ""
    return Card(
        title=run.name if run.results.facts else f"{run.name} (unfinished)",
        figures=[
            Figure(
                label="pass@1 ± standard error",
                value=format_with_error(scores.pass_at_1, scores.pass_at_1_se) + "%",
                detail=f"{scores.problems} problems × {scores.k} samples",
            ),
            _share_figure(f"maj@{scores.k}", scores.maj_at_k),
        ],
        jumps=jumps,
        broken=_broken_gates(run),
        lines=[line for line in (why, _passed_gates(run)) if line],
    )


def _share_figure(label: str, interval: Interval) -> Figure:
    value, bounds = format_interval(interval).split(" ", 1)
    return Figure(label=label, value=f"{value}%", interval=bounds)


def _compare_card(a: EvalRun, b: EvalRun, at: int) -> Card:
    title = f"{b.name} against {a.name}"
    try:
        comparison = compare_runs(a.pool, b.pool)
    except UserError as error:
        # Other suites, or other problems under the same ids: side by side they may stand, compared they cannot be.
        return Card(title=title, verdict="not compared", figures=[], lines=[f"{error.rule}, got {error.value}"])
    before = {item.problem.id: item.verdict == "equal" for item in a.graded if item.solution.samples}
    after = {item.problem.id: item.verdict == "equal" for item in b.graded if item.solution.samples}
    shared = [name for name in before if name in after]
    gained = sum(after[name] and not before[name] for name in shared)
    lost = sum(before[name] and not after[name] for name in shared)
    first = comparison.scores[0]
    return Card(
        title=title,
        verdict={"A": "worse", "B": "better", "neither": "no difference shown"}[first.better],
        tone=_TONES.get(first.better, "even"),
        figures=[
            Figure(
                label=f"{score.score}, points",
                value=_points(score.difference.value),
                interval=_format_points(score.difference),
                detail=f"{format_percent(score.a)} → {format_percent(score.b)}%, {score.p_words}",
            )
            for score in comparison.scores
        ],
        jumps=[
            Jump(words=f"{gained} gained", run=at, filter="gained"),
            Jump(words=f"{lost} lost", run=at, filter="lost"),
        ],
        lines=[
            f"on the {comparison.problems} problems that both have, paired; intervals 95%",
            *_describe_groups(a.pool, b.pool),
            *(score.describe() for score in comparison.scores if score.better == "neither"),
            *comparison.describe()[len(comparison.scores) :],
            *_describe_votes(a, b),
            *(line for line in (_passed_gates(b),) if line),
        ],
        broken=_broken_gates(b),
    )


def _describe_groups(a: Pool, b: Pool) -> list[str]:
    """Return what pass@1 changed in each group of subsets, such as hard and easy, where these are a few."""
    both = {one.problem.id for one in a.problems} & {one.problem.id for one in b.problems}
    groups = Counter(_group(one.problem) for one in a.problems if one.problem.id in both)
    if not 1 < len(groups) <= _MOST_GROUPS or min(groups.values()) < INFORMATIVE:
        return []
    parts = []
    for name, problems in groups.most_common():
        pair = [
            replace(pool, problems=[one for one in pool.problems if _group(one.problem) == name]) for pool in (a, b)
        ]
        by = compare_runs(*pair).scores[0].difference
        parts.append(f"{name or 'others'} ({problems}) {_points(by.value)} {_format_points(by)}")
    return [f"pass@1, points: {' · '.join(parts)}"]


def _group(problem: Problem) -> str:
    return problem.subset.partition("/")[0]


def _describe_votes(a: EvalRun, b: EvalRun) -> list[str]:
    n = a.results.scores.k, b.results.scores.k
    if n[0] == n[1]:
        return []
    return [f"gained and lost are by each run's own vote, of {n[0]} and of {n[1]} samples; maj@k is of equally many"]


def _points(share: float) -> str:
    """Return a difference in points; none is minus nothing.

    >>> _points(0.1234), _points(-0.0001)
    ('+12.3', '+0.0')
    """
    return f"{round(100 * share, 1) + 0.0:+.1f}"


def _format_points(interval: Interval) -> str:
    return f"[{_points(interval.lo)}, {_points(interval.hi)}]"


def _find_outcome(run: EvalRun) -> GateOutcome | None:
    """Return what the gates said of the model that was evaluated; None where no gates are known of it."""
    facts = run.results.facts
    if facts is None:
        return None
    accepted, folder = GateOutcome.from_json(facts.engine_facts), Path(facts.model)
    if accepted.breaches:
        return accepted
    known = facts.model and (folder / SURVIVAL).is_file() and _is_unchanged(run.manifest, folder)
    return GateOutcome.from_json(read_json(folder / SURVIVAL)) if known else None


def _broken_gates(run: EvalRun) -> list[str]:
    outcome = _find_outcome(run)
    return [f"{run.name}: {line}" for line in _describe_breaches(outcome)] if outcome else []


def _passed_gates(run: EvalRun) -> str:
    outcome = _find_outcome(run)
    return "" if outcome is None or outcome.breaches else f"{run.name}: its model passed the gates"


def _describe_breaches(outcome: GateOutcome) -> list[str]:
    if not outcome.breaches:
        return []
    accepted = f"; accepted, because {outcome.reason}" if outcome.reason else ""
    return [f"a gate is broken{accepted}: {breach}" for breach in outcome.breaches]


def _is_unchanged(manifest: Mapping[str, object], folder: Path) -> bool:
    """Return whether a model's folder is still the one that was evaluated, by the hashes in both manifests."""
    inputs = manifest.get("inputs")
    taken = inputs.get("model") if isinstance(inputs, dict) else None
    made = read_json(folder / MANIFEST).get("outputs") if (folder / MANIFEST).is_file() else None
    return isinstance(taken, dict) and isinstance(made, dict) and all(made.get(name) == taken[name] for name in taken)


def _train_card(run: TrainRun) -> Card:
    figures: list[Figure] = []
    tone: Tone = "even"
    verdict = ""
    if run.effect:
        heldout = run.effect.heldout
        tone, verdict = _judge_change(heldout)
        for change in (heldout, run.effect.general):
            if change:
                figures += _change_figures(change)
    outcomes = {name: one.gates.outcome for name, one in run.exports.items() if one.gates}
    passed = [name for name, outcome in outcomes.items() if not outcome.breaches]
    lines = [f"passed the gates: {', '.join(passed)}"] if passed else []
    if run.format:
        lines.append(f"trained on {run.format.rows:,} traces, {run.format.heldout:,} held out")
    return Card(
        title=f"{run.name}: what the training changed",
        verdict=verdict,
        tone=tone,
        figures=figures,
        broken=[f"{name}: {line}" for name, outcome in outcomes.items() for line in _describe_breaches(outcome)],
        lines=lines,
    )


def _judge_change(change: TuningChange) -> tuple[Tone, str]:
    """Return (tone, verdict) of held-out greedy answers."""
    by = change.accuracy_change
    if change.problems < INFORMATIVE:
        return "even", f"too few to say: {change.problems} held out"
    if not by.is_shown:
        return "even", "no difference shown"
    return ("better", "better") if by.value > 0 else ("worse", "worse")


def _change_figures(change: TuningChange) -> list[Figure]:
    name = f"general, {change.source}" if change.source else "held out"
    points, loss = change.accuracy_change, change.loss_change
    before, after = (format_percent(share) for share in change.accuracy)
    return [
        Figure(
            label=f"{name}: greedy right, points",
            value=_points(points.value),
            interval=format_ends(to_points(points), problems=change.problems),
            detail=f"{before} → {after}%, {change.problems} problems",
        ),
        Figure(
            label=f"{name}: loss",
            value=f"{loss.value:+.3f}",
            interval=format_ends(loss, problems=change.problems, digits=3),
            detail=f"{change.loss[0]:.3f} → {change.loss[1]:.3f}",
        ),
    ]


def make_matrix(runs: Sequence[EvalRun | TrainRun]) -> Matrix | None:
    """Return the paired differences of all evaluations; None where they are few enough for cards."""
    evaluated = [run for run in runs if isinstance(run, EvalRun)]
    if len(evaluated) <= MOST_CARDS:
        return None
    pools = [run.pool for run in evaluated]
    cells = {(at, at): Cell(value=format_percent(run.results.scores.pass_at_1)) for at, run in enumerate(evaluated)}
    for a, b in combinations(range(len(evaluated)), 2):
        cells[a, b], cells[b, a] = _difference_cells(pools[a], pools[b])
    pairs = len(evaluated) * (len(evaluated) - 1) // 2
    return Matrix(
        names=[run.name for run in evaluated],
        rows=[[cells[line, column] for column in range(len(evaluated))] for line in range(len(evaluated))],
        note=f"pass@1 of the line less that of the column, in points, with the paired 95% interval; on the diagonal "
        f"pass@1 itself. Coloured: p below 0.05 by the sign-flip test. Of {pairs} comparisons of equal models about "
        f"{max(1, round(0.05 * pairs))} would be coloured by chance.",
    )


def _difference_cells(a: Pool, b: Pool) -> tuple[Cell, Cell]:
    """Return (A less B, B less A)."""
    try:
        score = compare_runs(a, b).scores[0]
    except UserError as error:
        apart = Cell(value="–", title=f"{error.rule}, got {error.value}")
        return apart, apart
    tones: dict[str, tuple[Tone, Tone]] = {"A": ("better", "worse"), "B": ("worse", "better")}
    by = score.difference
    # The comparison is B less A; turned round, its ends change places.
    turned = Interval(value=-by.value, lo=-by.hi, hi=-by.lo)
    first, second = (
        Cell(value=_points(one.value), interval=_format_points(one), tone=tone, title=score.p_words)
        for one, tone in zip((turned, by), tones.get(score.better, ("even", "even")), strict=True)
    )
    return first, second
