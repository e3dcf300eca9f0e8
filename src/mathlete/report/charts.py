"""What a run's pictures show, as data: drawn once by Chart.js in the report and once by matplotlib as PNG."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any, Literal

from mathlete.export.records import LayerCost
from mathlete.metrics import standard_error
from mathlete.report.training import TrainRun
from mathlete.scoring import EvalRun, Graded

Kind = Literal["lines", "dots", "bars"]
"""Curves with bands · a category a line with whiskers · stacked bars over numbers, with a curve where one is given."""
MOST_CATEGORIES = 40
"""Subsets drawn; the tables hold all."""
_BINS = 30
_Z95 = 1.96


@dataclass(frozen=True, kw_only=True)
class Series:
    """One curve, row of dots or layer of bars."""

    name: str
    colour: str
    """A run's place (0, 1, …), or right, wrong, outvoted, none, limit."""
    y: Sequence[float | None]
    lo: Sequence[float] | None = None
    hi: Sequence[float] | None = None
    dashed: bool = False
    line: bool = False
    """Whether it is a curve among bars."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One picture."""

    key: str
    """Its PNG's name."""
    title: str
    note: str
    """What is to be seen, in a sentence."""
    kind: Kind
    x: Sequence[float | str]
    """Of every series; categories' names for dots."""
    series: list[Series] = field(default_factory=list)
    x_label: str = ""
    y_label: str = ""
    log_x: bool = False
    percent: bool = False
    """Whether values are fractions, shown as percent."""

    @property
    def as_json(self) -> dict[str, Any]:
        """For the page."""
        return asdict(self)


def charts_of(runs: Sequence[EvalRun | TrainRun]) -> list[Chart]:
    """All pictures of some runs: shared ones, then each kind run by run."""
    evaluated = [run for run in runs if isinstance(run, EvalRun)]
    found = [_by_k(evaluated), *_by_subset(evaluated), *_shares(evaluated)] if evaluated else []
    several = len(runs) > 1
    told = [(run, f"-{at + 1}" if several else "", f": {run.name}" if several else "") for at, run in enumerate(runs)]
    for draw in (_votes, _lengths, _time):
        found += [draw(run, tail, title) for run, tail, title in told if isinstance(run, EvalRun)]
    for place, (run, tail, title) in enumerate(told):
        if isinstance(run, TrainRun):
            found += [*_curves(run, tail, title, place), *_layers(run, tail, title)]
    return found


def _by_k(runs: Sequence[EvalRun]) -> Chart:
    ks = max(([int(k) for k in run.found["maj_at"]] for run in runs), key=len)
    series = []
    for place, run in enumerate(runs):
        found, before = run.found["maj_at"], f"{run.name} " if len(runs) > 1 else ""
        votes = [found.get(str(k)) for k in ks]
        known = [k for k in ks if str(k) in found]
        passes = {k: _around([item.pass_at(k) for item in run.graded]) for k in known}
        series.append(
            Series(
                name=f"{before}maj@k", colour=str(place), y=[vote and vote["value"] for vote in votes],
                lo=[vote["lo"] for vote in votes if vote], hi=[vote["hi"] for vote in votes if vote],
            )
        )  # fmt: skip
        series.append(
            Series(
                name=f"{before}pass@k", colour=str(place), dashed=True,
                y=[passes[k][0] if k in passes else None for k in ks],
                lo=[lo for _, lo, _ in passes.values()], hi=[hi for _, _, hi in passes.values()],
            )
        )  # fmt: skip
    return Chart(
        key="accuracy",
        title="Accuracy against k",
        note="maj@k: the vote of k samples is right. pass@k: one of k is. Bands: 95%. Where pass@k climbs on and maj@k "
        "does not, a better vote or verifier would help; where both are flat, more samples will not.",
        kind="lines",
        x=ks,
        series=series,
        x_label="k, samples a problem",
        log_x=True,
        percent=True,
    )


def _by_subset(runs: Sequence[EvalRun]) -> list[Chart]:
    parts = [{**_told(run.found["groups"]), **_told(run.found["subsets"])} for run in runs]
    names = sorted({name for part in parts for name in part})
    if len(names) < 2:
        return []
    shown = sorted(names, key=lambda name: -max(part[name]["problems"] for part in parts if name in part))
    names = [name for name in names if name in shown[:MOST_CATEGORIES]]
    series = []
    for place, (run, part) in enumerate(zip(runs, parts, strict=True)):
        before = f"{run.name} " if len(runs) > 1 else ""
        votes = [(part[name]["maj_at_k"], *part[name]["maj_at_k_interval"]) if name in part else None for name in names]
        series.append(_dots(f"{before}maj@{run.found['k']}", str(place), votes))
        if len(runs) == 1:
            series.append(
                _dots("pass@1", "1", [_normal(part[name]["pass_at_1"], part[name]["pass_at_1_se"]) for name in names])
            )
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


def _told(parts: dict[str, Any]) -> dict[str, Any]:
    return {name: row for name, row in parts.items() if name}


def _around(values: Sequence[float]) -> tuple[float, float, float]:
    """(mean over problems, its 95% interval by the standard error)."""
    return _normal(fmean(values), standard_error(values) if len(values) > 1 else 0.0)


def _normal(mean: float, error: float | None) -> tuple[float, float, float]:
    half = _Z95 * (error or 0.0)
    return mean, max(0.0, mean - half), min(1.0, mean + half)


def _dots(name: str, colour: str, points: Sequence[tuple[float, float, float] | None]) -> Series:
    given = [point or (None, 0.0, 0.0) for point in points]
    return Series(
        name=name,
        colour=colour,
        y=[value for value, _, _ in given],
        lo=[lo for _, lo, _ in given],
        hi=[hi for _, _, hi in given],
    )


def _shares(runs: Sequence[EvalRun]) -> list[Chart]:
    series = []
    # The bins are those of the vote's share, the same in every run.
    edges = sorted({(part["lo"], part["hi"]) for run in runs for part in run.found.get("calibration", ())})
    for place, run in enumerate(runs):
        parts = {(part["lo"], part["hi"]): part for part in run.found.get("calibration", ())}
        y = [parts[edge]["right"] if edge in parts else None for edge in edges]
        series.append(Series(name=run.name, colour=str(place), y=y))
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


def _votes(run: EvalRun, tail: str, title: str) -> Chart:
    rows = sorted((_vote_row(item) for item in run.graded), key=lambda row: (-row[0], row[1] + row[2]))
    names = (("right answer", "right"), ("wrong answer that won", "wrong"), ("other wrong ones", "outvoted"))
    layers = [*names, ("no answer", "none")]
    return Chart(
        key=f"votes{tail}",
        title=f"Votes{title}",
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
    wins = 0 if item.verdict == "equal" or not item.solution.votes else item.solution.votes[0].count
    none = item.verdicts.count("none")
    right = item.right
    wins = min(wins, len(item.verdicts) - right - none)
    return right, wins, len(item.verdicts) - right - none - wins, none


def _lengths(run: EvalRun, tail: str, title: str) -> Chart:
    import numpy as np

    pairs = [pair for item in run.graded for pair in zip(item.solution.samples, item.verdicts, strict=True)]
    edges = np.histogram_bin_edges([sample.tokens for sample, _ in pairs] or [0], bins=_BINS)

    def count(wanted: Callable[[str], bool]) -> list[float | None]:
        return np.histogram([one.tokens for one, verdict in pairs if wanted(verdict)], edges)[0].tolist()  # type: ignore[no-any-return]

    return Chart(
        key=f"tokens{tail}",
        title=f"Tokens a sample{title}",
        note=_longer(pairs),
        kind="bars",
        x=((edges[:-1] + edges[1:]) / 2).round(1).tolist(),
        series=[
            Series(name="right", colour="right", y=count(lambda verdict: verdict == "equal")),
            Series(name="wrong", colour="wrong", y=count(lambda verdict: verdict in ("different", "unknown"))),
            Series(name="no answer", colour="none", y=count(lambda verdict: verdict == "none")),
        ],
        x_label="tokens",
        y_label="samples",
    )


def _longer(pairs: Sequence[tuple[Any, str]]) -> str:
    means = {
        words: fmean(lengths)
        for words, right in (("right", True), ("other", False))
        if (lengths := [sample.tokens for sample, verdict in pairs if (verdict == "equal") == right])
    }
    said = " and ".join(f"{mean:,.0f} tokens ({words})" for words, mean in means.items())
    return f"On average {said}. A pile of samples without an answer at the right end was cut at the cap."


def _time(run: EvalRun, tail: str, title: str) -> Chart:
    given = run.allowances_s
    note = (
        "The dashed line is what the shared clock allowed each question."
        if given
        else "This run had no shared clock: problems were solved side by side, so that their times overlap."
    )
    limit = [Series(name="allowed", colour="limit", y=given, line=True, dashed=True)] if given else []
    seconds = [round(item.solution.seconds, 3) for item in run.graded]
    return Chart(
        key=f"time{tail}",
        title=f"Time a question{title}",
        note=note,
        kind="bars",
        x=list(range(1, len(run.graded) + 1)),
        series=[
            Series(name="seconds, right", colour="right", y=_where(run.graded, seconds, right=True)),
            Series(name="seconds, not right", colour="wrong", y=_where(run.graded, seconds, right=False)),
            *limit,
        ],
        x_label="questions in their order",
        y_label="seconds",
    )


def _where(graded: Sequence[Graded], values: Sequence[float], *, right: bool) -> list[float | None]:
    return [value if (item.verdict == "equal") == right else 0.0 for item, value in zip(graded, values, strict=True)]


def _curves(run: TrainRun, tail: str, title: str, place: int) -> list[Chart]:
    steps = [point["step"] for point in run.curve]
    named = (
        ("loss", "loss", "Loss", "Loss on the rows' completions, nats a token."),
        ("rate", "learning_rate", "Learning rate", "Warm-up, then a cosine down to 0."),
    )
    return [
        Chart(
            key=f"{key}{tail}",
            title=f"{words}{title}",
            note=note,
            kind="lines",
            x=steps,
            series=[Series(name=words.lower(), colour=str(place), y=[point.get(field) for point in run.curve])],
            x_label="step",
        )
        for key, field, words, note in named
        if run.curve
    ]


def _layers(run: TrainRun, tail: str, title: str) -> list[Chart]:
    """Each layer's change by training over what an export loses of it, a curve an export."""
    longest = max((len(figures.layers) for figures in run.exports.values()), default=0)
    if longest < 2:
        return []
    ratios = {
        name: [_orders(layer) for layer in figures.layers] for name, figures in run.exports.items() if figures.layers
    }
    return [
        Chart(
            key=f"layers{tail}",
            title=f"What 8 bits leave of the training{title}",
            note="A layer's change by training over what 8-bit numbers lose of it, log10: above 0 the change is the "
            "larger. " + _weakest(run),
            kind="lines",
            x=list(range(1, longest + 1)),
            series=[
                Series(name=name, colour=str(place % 5), y=[*row, *[None] * (longest - len(row))])
                for place, (name, row) in enumerate(ratios.items())
            ]
            + [Series(name="as large as the loss", colour="limit", y=[0.0] * longest, dashed=True)],
            x_label="linear layers in their order",
            y_label="log10(change / loss)",
        )
    ]


def _orders(layer: LayerCost) -> float:
    """The change by training over the export's noise, in orders of magnitude."""
    return round(math.log10(layer.signal_to_noise), 4)


def _weakest(run: TrainRun) -> str:
    least = min((layer for figures in run.exports.values() for layer in figures.layers), key=lambda layer: layer.kept)
    return f"Least of its change is left to {least.layer}: {least.kept:.1%}."
