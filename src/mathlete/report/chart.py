"""A chart as data: Chart.js draws it on the report's page, matplotlib draws the same as PNG."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Kind = Literal["lines", "dots", "bars", "rows", "points"]
"""Curves with bands · one row for each category, with whiskers · stacked bars, with curves over them · lying bars, one
of each series for each category · points with whiskers and their names from `ids`, and vertical lines at `clocks`."""

Link = Literal["", "problem", "lost", "subset", "share"]
"""What the reader shows after a click on a place of the axis: nothing · the problem in `ids` · problems lost for that
reason · those of that subset · those whose vote won with about that share."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """One curve, row of dots or layer of bars."""

    name: str
    colour: str
    """Of a run or an export: its position (0, 1, …); else right, wrong, outvoted, none, limit."""
    y: Sequence[float | None]
    lo: Sequence[float] | None = None
    hi: Sequence[float] | None = None
    dashed: bool = False
    line: bool = False
    """Whether it is a curve among bars."""
    marks: bool = False
    """Whether its points stand alone among curves."""
    run: int | None = None
    """The position of the run whose problems its values are of."""


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
    step: float | None = None
    """Width of bars that begin at their x; None where they stand on it."""
    most: float | None = None
    """Where the axis of values ends, so that the charts of several runs have one scale; None: where they end."""
    link: Link = ""
    clocks: Sequence[float] = ()
    ids: Sequence[str] = ()
    """The problems of the places on the axis."""

    def to_json(self) -> dict[str, Any]:
        """Return the chart for the page's script."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class RunLabel:
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
