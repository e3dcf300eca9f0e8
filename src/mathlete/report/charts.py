"""Charts of runs: what each shows, and where it would show nothing.

A chart is there only where its data mean something: no curve over one k, no votes of one sample, no time of a question
where no clock made one wait for another. Charts of several runs have one scale and, where they count, the same bins.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate, repeat
from statistics import fmean

from mathlete.losses import CAUSES
from mathlete.metrics import Interval, standard_error
from mathlete.report.chart import Chart, RunLabel, Series
from mathlete.report.training import TrainRun
from mathlete.report.training_charts import layer_charts, training_curves
from mathlete.sampling import Sample
from mathlete.scoring import EvalRun, Graded

MOST_CATEGORIES = 40
"""Subsets drawn of one or two runs, fewer of more; the tables hold all."""
_MOST_BANDS = 4
"""Runs whose bands are drawn; more hide each other."""
_BINS = 30
"""Bars of a histogram, about."""
_Z95 = 1.96


def build_charts(runs: Sequence[EvalRun | TrainRun]) -> list[Chart]:
    """Return all charts of some runs: those that the runs share, then each kind run by run."""
    places = [RunLabel(position=at, alone=len(runs) == 1, name=run.name) for at, run in enumerate(runs)]
    evaluated = [(run, place) for run, place in zip(runs, places, strict=True) if isinstance(run, EvalRun)]
    trained = [(run, place) for run, place in zip(runs, places, strict=True) if isinstance(run, TrainRun)]
    charts = _shared_charts(evaluated) if evaluated else []
    # Of what an imported log does not say there is nothing to draw.
    charts += [_votes(run, place) for run, place in evaluated if run.results.scores.k > 1]
    charts += _lengths([(run, place) for run, place in evaluated if "tokens" not in run.missing])
    charts += _times([(run, place) for run, place in evaluated if "seconds" not in run.missing])
    for train_run, place in trained:
        charts += [*training_curves(train_run, place), *layer_charts(train_run, place)]
    return charts


Placed = tuple[EvalRun, RunLabel]


def _shared_charts(runs: Sequence[Placed]) -> list[Chart]:
    return [*_accuracy_by_k(runs), *_lost_problems(runs), *_accuracy_by_subset(runs), *_calibration(runs)]


def _lost_problems(runs: Sequence[Placed]) -> list[Chart]:
    """Return why problems were lost: a row for each class that some run has, but for those that were won."""
    lost = [run.losses.problems for run, _ in runs]
    causes = [cause for cause in CAUSES if cause != "won" and any(counts[cause] for counts in lost)]
    if not causes:
        return []
    series = [
        Series(
            name=run.name,
            colour=str(place.position),
            run=place.position,
            y=[counts[cause] / max(1, sum(counts.values())) for cause in causes],
        )
        for (run, place), counts in zip(runs, lost, strict=True)
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
            link="lost",
        )
    ]


def _accuracy_by_k(runs: Sequence[Placed]) -> list[Chart]:
    # An early stop may end one run's curve before another's: the longest gives the axis.
    ks = max(([*run.results.scores.maj_at] for run, _ in runs), key=len)
    if len(ks) < 2:
        return []
    series, alone = [], len(runs) == 1
    for run, place in runs:
        prefix, position = ("" if alone else f"{run.name} "), place.position
        votes = run.results.scores.maj_at
        passes = {k: _normal_interval([item.pass_at(k) for item in run.graded]) for k in ks if k in votes}
        series.append(_curve(f"{prefix}maj@k", position, ks, votes, band=len(runs) <= _MOST_BANDS))
        # Many runs' curves of both kinds, and bands over bands, hide each other; the table has the numbers.
        if len(runs) <= _MOST_BANDS:
            series.append(_curve(f"{prefix}pass@k", position, ks, passes, dashed=True, band=alone))
    bands = "Bands: 95%. " if alone else "Bands: 95% of maj@k. " if len(runs) <= _MOST_BANDS else ""
    return [
        Chart(
            key="accuracy",
            title="Accuracy against k",
            note=f"maj@k: the vote of k samples is right. pass@k: one of k is. {bands}Where pass@k rises and maj@k "
            "does not, a better vote or verifier would help; where both are flat, more samples will not.",
            kind="lines",
            x=ks,
            series=series,
            x_label="k, samples a problem",
            log_x=True,
            percent=True,
        )
    ]


def _curve(
    name: str, position: int, ks: Sequence[int], points: dict[int, Interval], *, dashed: bool = False, band: bool
) -> Series:
    known = [points[k] for k in ks if k in points] if band else None
    return Series(
        name=name,
        colour=str(position),
        run=position,
        dashed=dashed,
        y=[points[k].value if k in points else None for k in ks],
        lo=None if known is None else [point.lo for point in known],
        hi=None if known is None else [point.hi for point in known],
    )


def _accuracy_by_subset(runs: Sequence[Placed]) -> list[Chart]:
    # A subset without a slash has the name of its group and the same problems: merged, it is drawn once.
    parts = [{**run.results.groups, **run.results.subsets} for run, _ in runs]
    names = sorted({name for part in parts for name in part if name})
    if len(names) < 2:
        return []
    # The largest ones, whose intervals say most; drawn in the order of their names, so that groups stay together.
    largest = sorted(names, key=lambda name: -max(part[name].problems for part in parts if name in part))
    names = [name for name in names if name in largest[: MOST_CATEGORIES // max(1, len(runs) // 2)]]
    series = []
    for (run, place), part in zip(runs, parts, strict=True):
        prefix = f"{run.name} " if len(runs) > 1 else ""
        votes = [part[name].maj_at_k if name in part else None for name in names]
        series.append(_dots(f"{prefix}maj@{run.results.scores.k}", str(place.position), votes, run=place.position))
        # Beside another run's dots, pass@1 would double the rows; the table has it.
        if len(runs) == 1:
            passes = [_normal_around(part[name].pass_at_1, part[name].pass_at_1_se) for name in names]
            series.append(_dots("pass@1", "1", passes, run=place.position))
    return [
        Chart(
            key="subsets",
            title="Accuracy by level and subject",
            note="Whiskers: 95%. A subset of few problems has wide ones: read those, not the dots.",
            kind="dots",
            x=names,
            series=series,
            percent=True,
            most=1.0,
            link="subset",
        )
    ]


def _normal_interval(values: Sequence[float]) -> Interval:
    """Return the mean over problems with its 95% interval by the standard error."""
    return _normal_around(fmean(values), standard_error(values) if len(values) > 1 else 0.0)


def _normal_around(mean: float, error: float | None) -> Interval:
    half = _Z95 * (error or 0.0)
    return Interval(value=mean, lo=max(0.0, mean - half), hi=min(1.0, mean + half))


def _dots(name: str, colour: str, points: Sequence[Interval | None], *, run: int) -> Series:
    return Series(
        name=name,
        run=run,
        colour=colour,
        y=[point.value if point else None for point in points],
        lo=[point.lo if point else 0.0 for point in points],
        hi=[point.hi if point else 0.0 for point in points],
    )


def _calibration(runs: Sequence[Placed]) -> list[Chart]:
    series = []
    # Bins are cut by the vote's share alone, so that equal edges in two runs are the same bin.
    edges = sorted({(part.lo, part.hi) for run, _ in runs for part in run.results.calibration})
    for run, place in runs:
        shares = {(part.lo, part.hi): part.right for part in run.results.calibration}
        position, y = place.position, [shares.get(edge) for edge in edges]
        series.append(Series(name=run.name, colour=str(position), run=position, y=y))
    # A vote of one sample always has the whole share.
    if len(edges) < 2 or all(run.results.scores.k < 2 for run, _ in runs):
        return []
    middles = [round((lo + hi) / 2, 6) for lo, hi in edges]
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
            most=1.0,
            link="share",
        )
    ]


def _votes(run: EvalRun, place: RunLabel) -> Chart:
    rows = sorted(
        ((_vote_row(item), item.problem.id) for item in run.graded), key=lambda row: (-row[0][0], row[0][1] + row[0][2])
    )
    layers = (
        ("right answer", "right"),
        ("wrong answer that won", "wrong"),
        ("other wrong ones", "outvoted"),
        ("no answer", "none"),
    )
    return Chart(
        key=f"votes{place.tail}",
        title=f"Votes{place.title}",
        note="A bar a problem, those with most right votes first; a click opens it. Where a wrong answer won above "
        "right votes, the vote lost what the model knew.",
        kind="bars",
        x=list(range(1, len(rows) + 1)),
        series=[
            Series(name=name, colour=colour, run=place.position, y=[row[layer] for row, _ in rows])
            for layer, (name, colour) in enumerate(layers)
        ],
        x_label="problems",
        y_label="share of the samples",
        percent=True,
        most=1.0,
        link="problem",
        ids=[name for _, name in rows],
    )


def _vote_row(item: Graded) -> tuple[float, float, float, float]:
    """Return the shares (right samples, wrong ones of the winning answer, other wrong ones, without answer)."""
    right, none, samples = item.right, item.verdicts.count("none"), len(item.verdicts)
    wins = 0 if item.verdict == "equal" or not item.solution.votes else item.solution.votes[0].count
    # The model's own judgement may prefer a wrong answer to a right vote, whose samples are in `right` already.
    wins = min(wins, samples - right - none)
    one, two, three, four = (
        round(count / max(1, samples), 6) for count in (right, wins, samples - right - none - wins, none)
    )
    return one, two, three, four


def _lengths(runs: Sequence[Placed]) -> list[Chart]:
    """Return how long samples were: one chart a run, all with the same bins and one scale."""
    pairs = [
        [pair for item in run.graded for pair in zip(item.solution.samples, item.verdicts, strict=True)]
        for run, _ in runs
    ]
    lengths = [sample.tokens for some in pairs for sample, _ in some]
    if not any(lengths):
        return []
    step = round_step((max(lengths) - min(lengths)) / _BINS, least=1)
    first = min(lengths) // step
    bins = int(max(lengths) // step - first) + 1

    def count(some: Sequence[tuple[Sample, str]], grades: Sequence[str]) -> list[float]:
        number = [0] * bins
        for (tokens, grade), times in Counter((sample.tokens, grade) for sample, grade in some).items():
            if grade in grades:
                number[int(tokens // step - first)] += times
        # As if each sample added its share: rounding may go either way.
        sums = [*accumulate(repeat(1 / max(1, len(some)), max(number)), initial=0.0)]
        return [round(sums[times], 6) for times in number]

    layers = (
        ("right", "right", ("equal",)),
        ("wrong", "wrong", ("different", "unknown")),
        ("no answer", "none", ("none",)),
    )
    drawn = [[(name, colour, count(some, grades)) for name, colour, grades in layers] for some in pairs]
    most = max(max(map(sum, zip(*(y for _, _, y in one), strict=True))) for one in drawn)
    return [
        Chart(
            key=f"tokens{place.tail}",
            title=f"Tokens a sample{place.title}",
            note=_describe_lengths(some),
            kind="bars",
            x=[step * (first + place_of_bin) for place_of_bin in range(bins)],
            series=[Series(name=name, colour=colour, run=place.position, y=y) for name, colour, y in one],
            x_label="tokens",
            y_label="share of the samples",
            percent=True,
            step=step,
            most=_round_up(most),
        )
        for (_, place), some, one in zip(runs, pairs, drawn, strict=True)
        if some
    ]


def round_step(step: float, *, least: float = 0.0) -> float:
    """Return the least of 1, 2, 5, 10, 20, … (and 0.5, 0.2, …) that is no smaller than a step.

    >>> round_step(7.3), round_step(213), round_step(0.03), round_step(0.2, least=1)
    (10, 500, 0.05, 1)
    """
    step = max(step, least, 1e-9)
    scale = 10.0 ** math.floor(math.log10(step))
    rounded = next(scale * digit for digit in (1, 2, 5, 10) if scale * digit >= step * (1 - 1e-9))
    return int(rounded) if rounded >= 1 else round(rounded, 12)


def _round_up(share: float) -> float:
    """Return where an axis of shares may end: a tenth of the way up to the next round number is enough."""
    step = round_step(share / 5)
    return min(1.0, round(step * math.ceil(share / step - 1e-9), 6))


def _describe_lengths(pairs: Iterable[tuple[Sample, str]]) -> str:
    lengths: dict[str, list[int]] = {"right": [], "other": []}
    for sample, grade in pairs:
        lengths["right" if grade == "equal" else "other"].append(sample.tokens)
    means = " and ".join(f"{fmean(tokens):,.0f} tokens ({name})" for name, tokens in lengths.items() if tokens)
    return f"On average {means}. A pile of samples without an answer at the right end was cut at the cap."


def _times(runs: Sequence[Placed]) -> list[Chart]:
    """Return how long questions took and might have taken: of runs whose questions shared a clock, one by one."""
    clocked = [(run, place, run.allowances_s or []) for run, place in runs if run.allowances_s]
    longest = max((seconds for run, _, given in clocked for seconds in (*given, *_seconds(run))), default=0.0)
    if not longest:
        return []
    step = round_step(longest / 5)
    return [
        Chart(
            key=f"time{place.tail}",
            title=f"Time a question{place.title}",
            note="The dashed line is what the shared clock allowed each question. A click opens the problem.",
            kind="bars",
            x=list(range(1, len(run.graded) + 1)),
            series=[
                Series(name="seconds, right", colour="right", run=place.position, y=_seconds_where(run, right=True)),
                Series(
                    name="seconds, not right", colour="wrong", run=place.position, y=_seconds_where(run, right=False)
                ),
                Series(name="allowed", colour="limit", y=given, line=True, dashed=True),
            ],
            x_label="questions in their order",
            y_label="seconds",
            most=step * math.ceil(longest / step),
            link="problem",
            ids=[item.problem.id for item in run.graded],
        )
        for run, place, given in clocked
    ]


def _seconds(run: EvalRun) -> list[float]:
    return [round(item.solution.seconds, 3) for item in run.graded]


def _seconds_where(run: EvalRun, *, right: bool) -> list[float | None]:
    kept = [(item.verdict == "equal") == right for item in run.graded]
    return [value if keep else 0.0 for value, keep in zip(_seconds(run), kept, strict=True)]
