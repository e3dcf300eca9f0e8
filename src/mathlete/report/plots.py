"""The report's charts as PNG, drawn by matplotlib from the same data as the page's."""

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mathlete.files import replace_when_done
from mathlete.folders import CHART_MAKER, is_chart
from mathlete.report.chart import Chart

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RUN_COLOURS = ("#009e73", "#aa3377", "#8a6d00", "#5e4fa2", "#1b1f24", "#cc79a7", "#7a4b21", "#66a61e")
"""Of runs, in their order and then again: none is the blue of what is right or the orange of what is wrong."""
_MARKERS = "os^D*x+P"
"""Of runs as well, so that colour is not all that tells them apart."""
_COLOURS = {
    "right": "#0072b2",
    "wrong": "#d55e00",
    "outvoted": "#f0b27a",
    "none": "#9aa0a6",
    "limit": "#444444",
}
"""Colours that colour-blind people can tell apart too (Okabe, Ito 2008, "Color universal design")."""

_LONGEST = 40
"""Characters of a name that are drawn at most."""


def write_plots(folder: Path, charts: Sequence[Chart]) -> list[Path]:
    """Write a PNG for each chart into the folder and delete those of earlier charts there; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = [write_plot(folder / f"{chart.key}.png", chart) for chart in charts]
    for old in {*folder.glob("*.png")} - {*written}:
        if is_chart(old):
            old.unlink()
    return written


def write_plot(path: Path, chart: Chart) -> Path:
    """Write one chart as PNG; returns its path."""
    from matplotlib.figure import Figure

    lying = chart.kind in ("dots", "rows")
    height = 0.6 + 0.28 * len(chart.x) * max(1, len(chart.series) / 2) if lying else 3.8
    height = max(height, 1.5 + 0.2 * len(chart.x)) if chart.kind == "points" else height
    figure = Figure(figsize=(7.5, max(2.2, height)), layout="constrained")
    axes: Axes = figure.subplots()
    {"lines": _lines, "dots": _dots, "bars": _bars, "rows": _rows, "points": _points}[chart.kind](axes, chart)
    axes.set_title(_plain(chart.title), fontsize=11, loc="left")
    axes.set_xlabel(chart.x_label)
    axes.set_ylabel(chart.y_label)
    axes.spines[["top", "right"]].set_visible(False)
    if chart.most is not None:
        (axes.set_xlim if lying else axes.set_ylim)(0, chart.most * (100 if chart.percent else 1))
    axes.grid(alpha=0.25, axis="x" if lying else "y")
    if len(chart.series) > 1:
        figure.legend(fontsize=8, frameon=False, loc="outside upper right", ncols=4)
    with replace_when_done(path) as temporary, warnings.catch_warnings():
        # matplotlib draws boxes for letters that its font lacks; the page, with the browser's fonts, has the name.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        figure.savefig(
            temporary, format="png", dpi=100, metadata={"Software": CHART_MAKER}, pil_kwargs={"compress_level": 3}
        )
    return path


def _plain(text: object) -> str:
    r"""Return a name shortened, its dollars escaped: matplotlib would read what stands between them as mathematics.

    >>> print(_plain("$x$"), len(_plain("a" * 99)))
    \$x\$ 40
    """
    words = str(text)
    return (words if len(words) <= _LONGEST else f"{words[: _LONGEST - 1]}…").replace("$", r"\$")


def _colour(name: str) -> str:
    return RUN_COLOURS[int(name) % len(RUN_COLOURS)] if name.isdigit() else _COLOURS.get(name, "#555555")


def _marker(name: str) -> str:
    return _MARKERS[int(name) % len(_MARKERS)] if name.isdigit() else "o"


def _scale(chart: Chart, values: Sequence[float | None]) -> list[float]:
    factor = 100 if chart.percent else 1
    return [float("nan") if value is None or not math.isfinite(value) else factor * value for value in values]


def _lines(axes: "Axes", chart: Chart) -> None:
    for series in chart.series:
        colour = _colour(series.colour)
        y = _scale(chart, series.y)
        if series.marks:
            axes.plot(chart.x, y, "D", ms=7, color=colour, label=_plain(series.name), zorder=3)
            continue
        # Dots mark the few k of a curve; on hundreds of training steps, or on a limit, they would hide the line.
        marker = "" if series.colour == "limit" or len(chart.x) > 60 else _marker(series.colour)
        axes.plot(
            chart.x, y, "--" if series.dashed else "-", marker=marker, ms=4, color=colour, label=_plain(series.name)
        )
        if series.lo is not None and series.hi is not None:
            # A band has values only where its curve has: a run that stopped early ends before the axis does.
            known = [x for x, value in zip(chart.x, series.y, strict=True) if value is not None]
            band = _scale(chart, series.lo), _scale(chart, series.hi)
            axes.fill_between(known, *band, color=colour, alpha=0.08 if series.dashed else 0.18, lw=0)
    if chart.log_x and len(chart.x) > 1:
        axes.set_xscale("log", base=2)
        axes.set_xticks(chart.x, labels=[str(x) for x in chart.x])
    if chart.percent:
        axes.yaxis.set_major_formatter("{x:.0f}%")


def _dots(axes: "Axes", chart: Chart) -> None:
    for number, series in enumerate(chart.series):
        shift = 0.3 * (number - (len(chart.series) - 1) / 2)
        value, lo, hi = (_scale(chart, part or ()) for part in (series.y, series.lo, series.hi))
        below = [max(0.0, one - low) for one, low in zip(value, lo, strict=True)]
        above = [max(0.0, high - one) for one, high in zip(value, hi, strict=True)]
        heights = [row + shift for row in range(len(chart.x))]
        colour = _colour(series.colour)
        axes.errorbar(
            value,
            heights,
            xerr=[below, above],
            fmt=_marker(series.colour),
            ms=4,
            lw=1.2,
            color=colour,
            label=_plain(series.name),
        )
    axes.set_yticks(range(len(chart.x)), labels=[_plain(name) for name in chart.x])
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter("{x:.0f}%")


def _rows(axes: "Axes", chart: Chart) -> None:
    width = 0.8 / len(chart.series)
    for number, series in enumerate(chart.series):
        heights = [row + width * (number - (len(chart.series) - 1) / 2) for row in range(len(chart.x))]
        colour = _colour(series.colour)
        axes.barh(heights, _scale(chart, series.y), height=width, color=colour, label=_plain(series.name))
    axes.set_yticks(range(len(chart.x)), labels=[_plain(name) for name in chart.x])
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter("{x:g}%")


def _bars(axes: "Axes", chart: Chart) -> None:
    import numpy as np

    middles = np.asarray(chart.x, dtype=float)
    width = chart.step or (float(np.diff(middles).min()) if len(middles) > 1 else 1.0)
    middles = middles + width / 2 if chart.step else middles
    base = np.zeros(len(middles))
    for series in chart.series:
        heights = np.asarray(_scale(chart, series.y))
        colour = _colour(series.colour)
        if series.line:
            axes.plot(middles, heights, "--", color=colour, lw=1.2, label=_plain(series.name))
        else:
            # One outline: a thousand bars drawn one by one take seconds.
            edges = [*(middles - width / 2), middles[-1] + width / 2]
            axes.stairs(base + heights, edges, baseline=base, fill=True, color=colour, label=_plain(series.name))
            base = base + heights
    axes.set_xlim(middles[0] - width / 2, middles[-1] + width / 2)
    if chart.percent:
        axes.yaxis.set_major_formatter("{x:g}%")


def _points(axes: "Axes", chart: Chart) -> None:
    axes.axhline(0, ls="--", lw=1, color=_COLOURS["limit"])
    for clock in chart.clocks:
        axes.axvline(clock, ls="--", lw=1, color=_COLOURS["limit"])
        axes.text(clock, 0.02, f" clock {clock:,g} s", transform=axes.get_xaxis_transform(), fontsize=7)
    for series in chart.series:
        for place, value, lo, hi in zip(chart.x, series.y, series.lo or (), series.hi or (), strict=True):
            if value is not None:
                arms = [[max(0.0, value - lo)], [max(0.0, hi - value)]]
                axes.errorbar(float(place), value, yerr=arms, fmt="o", ms=5, lw=1, color=_colour(series.colour))
        axes.plot([], [], "o", color=_colour(series.colour), label=series.name)
    axes.set_xlim(0, 1.12 * max(*map(float, chart.x), *chart.clocks, 1e-9))
    # Names stand beside their points, from the highest down, each below the one before where that is near.
    places = [
        (value, float(x), name)
        for one in chart.series
        for x, value, name in zip(chart.x, one.y, chart.ids, strict=True)
        if value is not None
    ]
    low, high = axes.get_ylim()
    line, last = (high - low) * 0.2 / max(3.0, 1.0 + 0.2 * len(chart.x)), high
    for value, wall, name in sorted(places, key=lambda place: -place[0]):
        last = min(value, last - line)
        axes.annotate(
            _plain(name), (wall, value), (wall + 0.02 * axes.get_xlim()[1], last), fontsize=7, va="center",
            arrowprops={"arrowstyle": "-", "relpos": (0, 0.5), "lw": 0.4, "color": _COLOURS["none"]},
        )  # fmt: skip
    axes.set_ylim(min(low, last - line), high)
