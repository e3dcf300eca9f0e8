"""replay.html and replay.png: what each policy changes against all samples without a clock, beside what it costs."""

from collections.abc import Sequence
from pathlib import Path

from mathlete.metrics import Verdict
from mathlete.replay import Replay
from mathlete.report.chart import Chart, Series
from mathlete.report.html.headline import Card, Figure, Tone
from mathlete.report.html.pages import render
from mathlete.report.html.tables import PageTable
from mathlete.report.plots import write_plot
from mathlete.runs import write_atomically

PAGE, PLOT = "replay.html", "replay.png"
_FARTHEST = 3.0
"""Longest submissions that the axis is long for a clock; farther off, it would press all points together."""
_APART = 0.012
"""Share of the axis by which points stand apart that would hide each other."""
_TONES: dict[Verdict, Tone] = {"better": "better", "worse": "worse", "few": "even", "even": "even"}
_VERDICTS: dict[Verdict, str] = {"few": "too few problems differ to say", "even": "no difference shown"}


def write_replay(result: Replay, folder: Path, *, recording: str, names: Sequence[str], timed: bool) -> list[Path]:
    """Write both files into the folder; returns those that there are.

    Args:
        result: the replay.
        folder: where to.
        recording: what was replayed.
        names: its policies' names, in their order.
        timed: whether the samples' seconds are known; without them there is no cost to draw.
    """
    charts = [build_replay_chart(result, names)] if timed else []
    page = render(
        "replay.html.j2",
        title=f"replay of {recording}",
        scripts=("page.js", "charts.js", "replay.js"),
        content={"charts": [chart.to_json() for chart in charts]},
        cards=[_best_card(result, names)],
        charts=[(chart.key, chart.title, chart.note) for chart in charts],
        policies=_policy_table(result, names),
        words=result.words,
    )
    write_atomically(folder / PAGE, page)
    return [folder / PAGE, *(write_plot(folder / PLOT, chart) for chart in charts)]


def build_replay_chart(result: Replay, names: Sequence[str]) -> Chart:
    """Return the paired change of each policy with its 95% interval against the time of a submission."""
    changes = [outcome.change.value for outcome in result.outcomes]
    walls = [outcome.submission_s for outcome in result.outcomes]
    longest = max(walls) or 1.0
    # A clock far off would press all points together at the left.
    clocks = sorted({outcome.wall.wall_s for outcome in result.outcomes if outcome.wall})
    near = [clock for clock in clocks if clock <= _FARTHEST * longest]
    far = [f"{clock:,.0f} s" for clock in clocks if clock not in near]
    beyond = f" Beyond the axis: the clock of {' and '.join(far)}." if far else ""
    return Chart(
        key="replay",
        title="Change against time",
        note=f"Right answers of {result.questions} questions more or less than all samples' majority without stop and "
        "clock, on the same questions: paired, 95%. Further left is cheaper, above the line better; the questions' "
        f"luck is in neither. Vertical lines: clocks.{beyond} Points that would hide each other stand a little apart.",
        kind="points",
        x=_spread(walls, changes),
        series=_series(result),
        x_label="seconds of a submission, mean",
        y_label="change of the score",
        ids=names,
        clocks=near,
    )


def _series(result: Replay) -> list[Series]:
    changes = [outcome.change for outcome in result.outcomes]
    tones = [_TONES[outcome.verdict] for outcome in result.outcomes]
    return [
        Series(
            name=words,
            colour=colour,
            y=[change.value if tone == of else None for change, tone in zip(changes, tones, strict=True)],
            lo=[change.lo for change in changes],
            hi=[change.hi for change in changes],
        )
        for of, colour, words in (
            ("better", "right", "better"),
            ("even", "none", "no difference shown"),
            ("worse", "wrong", "worse"),
        )
        if of in tones
    ]


def _spread(walls: Sequence[float], changes: Sequence[float]) -> list[float]:
    """Return the walls, those of points in one place moved apart."""
    width, height = max(walls) or 1.0, (max(changes) - min(changes)) or 1.0
    placed: list[tuple[float, float]] = []
    for wall, change in zip(walls, changes, strict=True):
        while any(abs(wall - x) < _APART * width and abs(change - y) < 0.03 * height for x, y in placed):
            wall += _APART * width
        placed.append((wall, change))
    return [round(x, 6) for x, _ in placed]


def _best_card(result: Replay, names: Sequence[str]) -> Card:
    scored = [(round(one.score.new_set.value, 6), -one.submission_s) for one in result.outcomes]
    at = scored.index(max(scored))
    best, score = result.outcomes[at], result.outcomes[at].score.new_set
    verdict = _VERDICTS.get(best.verdict, best.verdict)
    return Card(
        title=f"highest score: {names[at]}",
        verdict=f"{verdict} against all samples",
        tone=_TONES[best.verdict],
        figures=[
            Figure(
                label=f"score of {result.questions}, 90% on a new set",
                value=f"{score.value:.2f}",
                interval=f"[{score.lo:g}, {score.hi:g}]",
            ),
            Figure(
                label="change, paired 95%",
                value=_sign(best.change.value),
                interval=f"[{_sign(best.change.lo)}, {_sign(best.change.hi)}]",
            ),
            Figure(
                label="seconds of a submission",
                value=f"{best.submission_s:,.0f}",
                detail=f"95% take no more than {best.submission_p95_s:,.0f}",
            ),
        ],
        lines=[
            f"{result.simulations:,} submissions a policy, of {result.problems} problems with "
            f"{result.recorded_per_problem} samples each"
        ],
    )


def _sign(value: float) -> str:
    return f"{round(value, 2) + 0.0:+.2f}"


def _policy_table(result: Replay, names: Sequence[str]) -> PageTable:
    head = (
        "policy",
        "score",
        "change [95%]",
        "new set [90%]",
        "P(overrun)",
        "submission s",
        "samples a problem",
        "saved",
    )
    return PageTable(
        head=head,
        rows=[
            [
                name,
                f"{one.score.new_set.value:.2f}",
                f"{_sign(one.change.value)} [{_sign(one.change.lo)}, {_sign(one.change.hi)}]",
                f"{one.score.new_set.lo:g} to {one.score.new_set.hi:g}",
                f"{one.p_overrun:.3f}",
                f"{one.submission_s:,.0f}",
                f"{one.spent.arrivals:.1f}",
                f"{one.saved.generated_s:z.0%} of generating",
            ]
            for name, one in zip(names, result.outcomes, strict=True)
        ],
    )
