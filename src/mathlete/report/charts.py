"""Charts of runs as data: Chart.js draws them on the report's page, matplotlib draws the same as PNG."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any, Literal

from mathlete.export.records import LayerCost
from mathlete.losses import CAUSES
from mathlete.metrics import Interval, standard_error
from mathlete.report.training import TrainRun
from mathlete.sampling import Sample
from mathlete.scoring import EvalRun, Graded

Kind = Literal["lines", "dots", "bars", "rows"]
"""Curves with bands · one row for each category, with whiskers · stacked bars, with curves over them · lying bars, one
of each series for each category."""
MOST_CATEGORIES = 40
"""Subsets drawn; the tables hold all."""
_BINS = 30
_Z95 = 1.96


@dataclass(frozen=True, kw_only=True)
class Series:
    """One curve, row of dots or layer of bars."""

    name: str
    colour: str
    """The position of its run (0, 1, …), or right, wrong, outvoted, none, limit."""
    y: Sequence[float | None]
    lo: Sequence[float] | None = None
    hi: Sequence[float] | None = None
    dashed: bool = False
    line: bool = False
    """Whether it is a curve among bars."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One chart."""

    key: str
    """Its PNG's name."""
    title: str
    note: str
    """What it shows, in a sentence."""
    kind: Kind
    x: Sequence[float | str]
    """Of every series; categories' names for dots."""
    series: list[Series] = field(default_factory=list)
    x_label: str = ""
    y_label: str = ""
    log_x: bool = False
    percent: bool = False
    """Whether values are fractions, shown as percent."""

    def to_json(self) -> dict[str, Any]:
        """Return the chart for the page's script."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class _Place:
    """How one run's charts are told from the other runs'."""

    position: int
    alone: bool
    name: str

    @property
    def tail(self) -> str:
        """What follows a chart's key."""
        return "" if self.alone else f"-{self.position + 1}"

    @property
    def title(self) -> str:
        """What follows a chart's title."""
        return "" if self.alone else f": {self.name}"


def build_charts(runs: Sequence[EvalRun | TrainRun]) -> list[Chart]:
    """Return all charts of some runs: those that the runs share, then each kind run by run."""
    places = [_Place(position=at, alone=len(runs) == 1, name=run.name) for at, run in enumerate(runs)]
    evaluated = [(run, place) for run, place in zip(runs, places, strict=True) if isinstance(run, EvalRun)]
    trained = [(run, place) for run, place in zip(runs, places, strict=True) if isinstance(run, TrainRun)]
    charts = _shared_charts([run for run, _ in evaluated]) if evaluated else []
    for build, needed in ((_votes, ""), (_lengths, "tokens"), (_times, "seconds")):
        # Of what an imported log does not say there is nothing to draw.
        charts += [build(run, place) for run, place in evaluated if needed not in run.missing]
    for train_run, place in trained:
        charts += [*_training_curves(train_run, place), *_layers(train_run, place)]
    return charts


def _shared_charts(runs: Sequence[EvalRun]) -> list[Chart]:
    return [_accuracy_by_k(runs), *_lost_problems(runs), *_accuracy_by_subset(runs), *_calibration(runs)]


def _lost_problems(runs: Sequence[EvalRun]) -> list[Chart]:
    """Return why problems were lost: a row for each class that some run has, but for those that were won."""
    lost = [run.losses.problems for run in runs]
    causes = [cause for cause in CAUSES if cause != "won" and any(counts[cause] for counts in lost)]
    if not causes:
        return []
    series = [
        Series(
            name=run.name,
            colour=str(position),
            y=[counts[cause] / max(1, sum(counts.values())) for cause in causes],
        )
        for position, (run, counts) in enumerate(zip(runs, lost, strict=True))
    ]
    return [
        Chart(
            key="losses",
            title="Why problems were lost",
            note="Share of all problems, by the class of the loss; the rest was right and won. The table above has the "
            "numbers, of samples too.",
            kind="rows",
            x=[CAUSES[cause].label for cause in causes],
            series=series,
            percent=True,
        )
    ]


def _accuracy_by_k(runs: Sequence[EvalRun]) -> Chart:
    # An early stop may end one run's curve before another's: the longest gives the axis.
    ks = max(([*run.results.scores.maj_at] for run in runs), key=len)
    series = []
    for position, run in enumerate(runs):
        prefix = f"{run.name} " if len(runs) > 1 else ""
        votes = run.results.scores.maj_at
        passes = {k: _normal_interval([item.pass_at(k) for item in run.graded]) for k in ks if k in votes}
        series += [
            _curve(f"{prefix}maj@k", position, ks, votes, dashed=False),
            _curve(f"{prefix}pass@k", position, ks, passes, dashed=True),
        ]
    return Chart(
        key="accuracy",
        title="Accuracy against k",
        note="maj@k: the vote of k samples is right. pass@k: one of k is. Bands: 95%. Where pass@k rises and maj@k "
        "does not, a better vote or verifier would help; where both are flat, more samples will not.",
        kind="lines",
        x=ks,
        series=series,
        x_label="k, samples a problem",
        log_x=True,
        percent=True,
    )


def _curve(name: str, position: int, ks: Sequence[int], points: dict[int, Interval], *, dashed: bool) -> Series:
    known = [points[k] for k in ks if k in points]
    return Series(
        name=name,
        colour=str(position),
        dashed=dashed,
        y=[points[k].value if k in points else None for k in ks],
        lo=[point.lo for point in known],
        hi=[point.hi for point in known],
    )


def _accuracy_by_subset(runs: Sequence[EvalRun]) -> list[Chart]:
    # A subset without a slash has the name of its group and the same problems: merged, it is drawn once.
    parts = [{**run.results.groups, **run.results.subsets} for run in runs]
    names = sorted({name for part in parts for name in part if name})
    if len(names) < 2:
        return []
    # The largest ones, whose intervals say most; drawn in the order of their names, so that groups stay together.
    largest = sorted(names, key=lambda name: -max(part[name].problems for part in parts if name in part))
    names = [name for name in names if name in largest[:MOST_CATEGORIES]]
    series = []
    for position, (run, part) in enumerate(zip(runs, parts, strict=True)):
        prefix = f"{run.name} " if len(runs) > 1 else ""
        votes = [part[name].maj_at_k if name in part else None for name in names]
        series.append(_dots(f"{prefix}maj@{run.results.scores.k}", str(position), votes))
        # Beside another run's dots, pass@1 would double the rows; the table has it.
        if len(runs) == 1:
            passes = [_normal_around(part[name].pass_at_1, part[name].pass_at_1_se) for name in names]
            series.append(_dots("pass@1", "1", passes))
    return [
        Chart(
            key="subsets",
            title="Accuracy by level and subject",
            note="Whiskers: 95%. A subset of few problems has wide ones: read those, not the dots.",
            kind="dots",
            x=names,
            series=series,
            percent=True,
        )
    ]


def _normal_interval(values: Sequence[float]) -> Interval:
    """Return the mean over problems with its 95% interval by the standard error."""
    return _normal_around(fmean(values), standard_error(values) if len(values) > 1 else 0.0)


def _normal_around(mean: float, error: float | None) -> Interval:
    half = _Z95 * (error or 0.0)
    return Interval(value=mean, lo=max(0.0, mean - half), hi=min(1.0, mean + half))


def _dots(name: str, colour: str, points: Sequence[Interval | None]) -> Series:
    return Series(
        name=name,
        colour=colour,
        y=[point.value if point else None for point in points],
        lo=[point.lo if point else 0.0 for point in points],
        hi=[point.hi if point else 0.0 for point in points],
    )


def _calibration(runs: Sequence[EvalRun]) -> list[Chart]:
    series = []
    # Bins are cut by the vote's share alone, so that equal edges in two runs are the same bin.
    edges = sorted({(part.lo, part.hi) for run in runs for part in run.results.calibration})
    for position, run in enumerate(runs):
        shares = {(part.lo, part.hi): part.right for part in run.results.calibration}
        series.append(Series(name=run.name, colour=str(position), y=[shares.get(edge) for edge in edges]))
    middles = [(lo + hi) / 2 for lo, hi in edges]
    if len(edges) < 2:
        return []
    return [
        Chart(
            key="trust",
            title="How far the vote can be trusted",
            note="Share of problems that are right, by the share of samples that voted for the winner. On the dashed "
            "line the share is the probability.",
            kind="lines",
            x=middles,
            series=[*series, Series(name="share = probability", colour="limit", y=middles, dashed=True)],
            x_label="winner's share of the samples",
            percent=True,
        )
    ]


def _votes(run: EvalRun, place: _Place) -> Chart:
    rows = sorted((_vote_row(item) for item in run.graded), key=lambda row: (-row[0], row[1] + row[2]))
    layers = (
        ("right answer", "right"),
        ("wrong answer that won", "wrong"),
        ("other wrong ones", "outvoted"),
        ("no answer", "none"),
    )
    return Chart(
        key=f"votes{place.tail}",
        title=f"Votes{place.title}",
        note="A bar a problem, those with most right votes first. Where a wrong answer won above right votes, the vote "
        "lost what the model knew.",
        kind="bars",
        x=list(range(1, len(rows) + 1)),
        series=[
            Series(name=name, colour=colour, y=[row[layer] for row in rows])
            for layer, (name, colour) in enumerate(layers)
        ],
        x_label="problems",
        y_label="samples",
    )


def _vote_row(item: Graded) -> tuple[int, int, int, int]:
    """Return (right samples, wrong ones of the winning answer, other wrong ones, samples without answer)."""
    right, none, samples = item.right, item.verdicts.count("none"), len(item.verdicts)
    wins = 0 if item.verdict == "equal" or not item.solution.votes else item.solution.votes[0].count
    # The model's own judgement may prefer a wrong answer to a right vote, whose samples are in `right` already.
    wins = min(wins, samples - right - none)
    return right, wins, samples - right - none - wins, none


def _lengths(run: EvalRun, place: _Place) -> Chart:
    import numpy as np

    pairs = [pair for item in run.graded for pair in zip(item.solution.samples, item.verdicts, strict=True)]
    # One set of edges for all layers: the bars stand on each other.
    edges = np.histogram_bin_edges([sample.tokens for sample, _ in pairs] or [0], bins=_BINS)

    def count(has: Callable[[str], bool]) -> list[float | None]:
        counts: list[float | None] = np.histogram([one.tokens for one, grade in pairs if has(grade)], edges)[0].tolist()
        return counts

    return Chart(
        key=f"tokens{place.tail}",
        title=f"Tokens a sample{place.title}",
        note=_describe_lengths(pairs),
        kind="bars",
        x=((edges[:-1] + edges[1:]) / 2).round(1).tolist(),
        series=[
            Series(name="right", colour="right", y=count(lambda grade: grade == "equal")),
            Series(name="wrong", colour="wrong", y=count(lambda grade: grade in ("different", "unknown"))),
            Series(name="no answer", colour="none", y=count(lambda grade: grade == "none")),
        ],
        x_label="tokens",
        y_label="samples",
    )


def _describe_lengths(pairs: Iterable[tuple[Sample, str]]) -> str:
    lengths: dict[str, list[int]] = {"right": [], "other": []}
    for sample, grade in pairs:
        lengths["right" if grade == "equal" else "other"].append(sample.tokens)
    means = " and ".join(f"{fmean(tokens):,.0f} tokens ({name})" for name, tokens in lengths.items() if tokens)
    return f"On average {means}. A pile of samples without an answer at the right end was cut at the cap."


def _times(run: EvalRun, place: _Place) -> Chart:
    allowances = run.allowances_s
    note = (
        "The dashed line is what the shared clock allowed each question."
        if allowances
        else "This run had no shared clock: problems were solved side by side, so that their times overlap."
    )
    limit = [Series(name="allowed", colour="limit", y=allowances, line=True, dashed=True)] if allowances else []
    seconds = [round(item.solution.seconds, 3) for item in run.graded]
    right = [item.verdict == "equal" for item in run.graded]
    return Chart(
        key=f"time{place.tail}",
        title=f"Time a question{place.title}",
        note=note,
        kind="bars",
        x=list(range(1, len(run.graded) + 1)),
        series=[
            Series(name="seconds, right", colour="right", y=_where(seconds, right)),
            Series(name="seconds, not right", colour="wrong", y=_where(seconds, [not one for one in right])),
            *limit,
        ],
        x_label="questions in their order",
        y_label="seconds",
    )


def _where(values: Sequence[float], mask: Sequence[bool]) -> list[float | None]:
    return [value if kept else 0.0 for value, kept in zip(values, mask, strict=True)]


def _training_curves(run: TrainRun, place: _Place) -> list[Chart]:
    steps = [point["step"] for point in run.curve]
    curves = (
        ("loss", "loss", "Loss", "Loss on the rows' completions, nats a token."),
        ("rate", "learning_rate", "Learning rate", "Warm-up, then a cosine down to 0."),
    )
    return [
        Chart(
            key=f"{key}{place.tail}",
            title=f"{title}{place.title}",
            note=note,
            kind="lines",
            x=steps,
            series=[
                Series(name=title.lower(), colour=str(place.position), y=[point.get(column) for point in run.curve])
            ],
            x_label="step",
        )
        for key, column, title, note in curves
        if run.curve
    ]


def _layers(run: TrainRun, place: _Place) -> list[Chart]:
    """Return how much of each layer's change by training outweighs what an export loses of it, a curve an export."""
    longest = max((len(figures.layers) for figures in run.exports.values()), default=0)
    if longest < 2:
        return []
    ratios = {
        name: [_log_ratio(layer) for layer in figures.layers] for name, figures in run.exports.items() if figures.layers
    }
    curves = [
        Series(name=name, colour=str(export % 5), y=[*row, *[None] * (longest - len(row))])
        for export, (name, row) in enumerate(ratios.items())
    ]
    return [
        Chart(
            key=f"layers{place.tail}",
            title=f"What 8 bits leave of the training{place.title}",
            note="A layer's change by training over what 8-bit numbers lose of it, log10: above 0 the change is the "
            "larger. " + _describe_weakest(run),
            kind="lines",
            x=list(range(1, longest + 1)),
            series=[*curves, Series(name="as large as the loss", colour="limit", y=[0.0] * longest, dashed=True)],
            x_label="linear layers in their order",
            y_label="log10(change / loss)",
        )
    ]


def _log_ratio(layer: LayerCost) -> float:
    """Return the change by training over the export's noise, in orders of magnitude."""
    return round(math.log10(layer.signal_to_noise), 4)


def _describe_weakest(run: TrainRun) -> str:
    weakest = min((layer for one in run.exports.values() for layer in one.layers), key=lambda layer: layer.kept)
    return f"Least of its change is left to {weakest.layer}: {weakest.kept:.1%}."
