"""The figures of the format step, as its manifest, its card and `data show` have them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self


@dataclass(frozen=True, kw_only=True)
class Packing:
    """How full sequences would be if short rows shared them."""

    budget: int
    """Tokens of a sequence."""
    sequences: int
    efficiency: float
    """Share of the sequences' tokens that are rows, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Parity:
    """The proof that rows are what is served and must be written."""

    rows: int
    mismatches: int
    first: str = ""
    """Of the first mismatch: its problem, and where it differs."""


@dataclass(frozen=True, kw_only=True)
class BadRowFigures:
    """Rows of the sources that could not be read."""

    rows: int
    first: list[str]
    """The errors of the first of them."""


@dataclass(frozen=True, kw_only=True)
class RowFigures:
    """What became of the traces."""

    traces: int
    """Traces that were read."""
    kept: int
    """Traces that became rows."""
    rows: int
    """Rows to train on."""
    heldout: int
    shortened: int
    tokens: int
    """Of the rows to train on, as the next two."""
    trained_tokens: int
    longest: int
    packing: Packing
    drops: dict[str, int]
    """{reason: traces that were left out}."""
    parity: Parity
    unverified: int = 0
    """Traces that became rows though nothing has checked them: there is no gold."""

    def to_json(self) -> dict[str, object]:
        """Return the figures as the manifest has them; the first mismatch only where there is one."""
        figures = asdict(self)
        if not self.parity.first:
            del figures["parity"]["first"]
        return figures


@dataclass(frozen=True, kw_only=True)
class FormatFigures(RowFigures):
    """What was read, and what became of it."""

    sources: dict[str, int]
    """{source: rows taken}."""
    ended_by: str
    """The weighted source that ran out first and so ended the mix; "" for none."""
    commits: dict[str, str | None]
    """{source read from the hub: its commit}."""
    suites: list[str]
    """Suites whose problems were left out."""
    bad_rows: BadRowFigures
    columns: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    """{source: the names of its columns that were read, and of those that were not}."""

    @classmethod
    def from_json(cls, figures: Mapping[str, Any]) -> Self:
        """Return the figures of a manifest."""
        records = {"packing": Packing, "parity": Parity, "bad_rows": BadRowFigures}
        # Manifests of before have not all of them.
        values = {one.name: figures[one.name] for one in fields(cls) if one.name in figures}
        return cls(**values | {name: record(**values[name]) for name, record in records.items()})
