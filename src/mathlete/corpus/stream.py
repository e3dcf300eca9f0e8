"""The traces of one or several sources as one stream: mixed by weight, bad rows named or counted."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from mathlete.corpus.adapters import read_traces
from mathlete.corpus.layouts import SAMPLES, read_traced
from mathlete.corpus.sources import Source, find_source, load_sources, read_hub_rows
from mathlete.corpus.tables import FORMATS, is_table
from mathlete.errors import OnBad, UserError, nearest, stop
from mathlete.pocket import TRACE_SOURCES, generate_traces
from mathlete.traces import TracedProblem

FIRST_BAD_ROWS = 20
"""Bad rows that are shown; the others are only counted."""


@dataclass(frozen=True, kw_only=True)
class SourceSpec:
    """A source as the command line names it: `NAME`, `NAME:CONFIG`, a file or a run's folder, then `=WEIGHT`."""

    name: str
    weight: float | None = None
    """Its share of the mix relative to the other weights; None: all of it, before any weighted source."""

    @staticmethod
    def names_file(word: str) -> bool:
        """Return whether a word of `--source` names a file, with or without a weight.

        >>> [SourceSpec.names_file(word) for word in ("mine.jsonl", "mine.jsonl=2", "gsm8k=1")]
        [True, True, False]
        """
        names = (word, word.rpartition("=")[0])
        return any(is_table(name) or _is_run(name) for name in names if name)

    @property
    def registered(self) -> Source | None:
        """Its entry in the registry; None for a file or the pocket generator."""
        return None if is_table(self.name) or self.name in TRACE_SOURCES else find_source(self.name)

    def files(self, mirror: Path | None) -> list[Path]:
        """Return the files on this machine that it is read from."""
        if is_table(self.name):
            return [Path(self.name)]
        entry = self.registered
        return [file for part in entry.parts for file in entry.files(mirror, part)] if entry and mirror else []


def parse_source(word: str) -> SourceSpec:
    """Return the source that a word of the command line names.

    >>> parse_source("gsm8k=2")
    SourceSpec(name='gsm8k', weight=2.0)

    Raises:
        UserError: an unknown name, a source without traces, or a weight that is not a number above 0.
    """
    name, equals, number = word.rpartition("=")
    if not equals or is_table(word) or _is_run(word):
        return _require_known(word)
    try:
        weight = float(number)
    except ValueError:
        weight = 0.0
    if not 0 < weight < float("inf"):
        raise UserError("a source's weight must be a number above 0", value=repr(word), cure="write openr1=2 gsm8k=1")
    return _require_known(name, weight)


def _is_run(word: str) -> bool:
    return (Path(word) / SAMPLES).is_file()


def _require_known(name: str, weight: float | None = None) -> SourceSpec:
    spec = SourceSpec(name=str(Path(name) / SAMPLES) if _is_run(name) else name, weight=weight)
    if is_table(spec.name) or spec.name in TRACE_SOURCES:
        return spec
    with_traces = sorted(["pocket", *(name for name, entry in load_sources().items() if entry.trace)])
    if spec.name not in load_sources() and spec.name.partition(":")[0] not in load_sources():
        files = f"a file of traced problems ending in {', '.join(FORMATS)}, or the folder of an evaluation run"
        cure = f"{nearest(spec.name, with_traces)}, or {files}"
        raise UserError("the source must be a known one", value=repr(spec.name), cure=cure)
    if not find_source(spec.name).trace:
        cure = f"use {' or '.join(with_traces)}"
        raise UserError("training needs a source with traces", value=repr(spec.name), cure=cure)
    return spec


@dataclass
class BadRows:
    """Handles rows that cannot be read: the first one ends the run, or each is counted and left out."""

    skip: bool
    say: Callable[[str], None] = field(default=lambda _: None)
    """Receives a line for each of the first bad rows at once."""
    keep_all: bool = False
    """Keep the messages of all bad rows; otherwise only of the first."""
    count: int = 0
    messages: list[str] = field(default_factory=list)
    """What was wrong, with file and row."""

    @property
    def first(self) -> list[str]:
        """The messages of the first bad rows."""
        return self.messages[:FIRST_BAD_ROWS]

    def __call__(self, error: UserError) -> None:
        """Count a bad row.

        Raises:
            UserError: the error itself, where bad rows are not skipped.
        """
        if not self.skip:
            raise error
        self.count += 1
        if self.count <= FIRST_BAD_ROWS:
            self.say(f"skipped: {error}")
        if self.keep_all or self.count <= FIRST_BAD_ROWS:
            self.messages.append(str(error))


def open_source(
    name: str, *, mirror: Path | None = None, limit: int | None = None, seed: int = 0, on_bad: OnBad = stop
) -> Iterator[list[TracedProblem]]:
    """Return an iterator over a source's rows, each as the list of its traces.

    Args:
        name: a source as for `parse_source`; a weight has no effect.
        mirror: folder that stands in for the hub's data sets.
        limit: rows at most; None: all.
        seed: chooses the pocket generator's problems.
        on_bad: receives the error of a row that cannot be read.

    Raises:
        UserError: an unknown name, or the source cannot be read; with `stop`, a bad row.
    """
    spec = parse_source(name)
    entry = spec.registered
    rows: Iterator[list[TracedProblem]]
    if spec.name in TRACE_SOURCES:
        rows = ([traced] for traced in generate_traces(spec.name, count=limit, seed=seed))
    elif entry is None:
        rows = ([traced] for traced in read_traced(Path(spec.name), on_bad=on_bad))
    else:
        rows = _read_registered(entry, mirror=mirror, on_bad=on_bad)
    return islice(_without_ambiguous_ids(rows, on_bad=on_bad), limit)


def _read_registered(entry: Source, *, mirror: Path | None, on_bad: OnBad) -> Iterator[list[TracedProblem]]:
    for number, (where, row) in enumerate(read_hub_rows(entry, mirror=mirror, on_bad=on_bad)):
        try:
            traces = read_traces(entry, row, number=number, where=where)
        except UserError as error:
            on_bad(error)
        else:
            yield traces


def _without_ambiguous_ids(rows: Iterator[list[TracedProblem]], *, on_bad: OnBad) -> Iterator[list[TracedProblem]]:
    """Yield the rows except those whose id belongs to another statement in an earlier row."""
    statements: dict[int, int] = {}  # hashes, not texts: this grows with the rows
    for row in rows:
        problem, where = row[0].problem, row[0].where
        statement = hash(problem.statement)
        if statements.setdefault(hash(problem.id), statement) == statement:
            yield row
        else:
            value = f"{problem.id!r}, which an earlier row has with another statement"
            on_bad(UserError(f"{where}: ids must be unique", value=value, cure="rename one"))


class Mix:
    """The rows of several sources as one stream, which counts how many it took of each."""

    def __init__(
        self,
        specs: Sequence[SourceSpec],
        *,
        mirror: Path | None,
        limit: int | None,
        seed: int,
        bad_rows: BadRows | None = None,
    ) -> None:
        self.bad_rows = bad_rows or BadRows(skip=False)
        self._streams = {
            spec: open_source(spec.name, mirror=mirror, limit=limit, seed=seed, on_bad=self.bad_rows) for spec in specs
        }
        self._limit = limit
        self.taken = dict.fromkeys((spec.name for spec in specs), 0)
        """Rows taken of each source."""
        self.ended_by = ""
        """The weighted source that ran out first and so ended the mix."""

    def __iter__(self) -> Iterator[list[TracedProblem]]:
        """Yield the traces of one row at a time."""
        return islice(self._rows(), self._limit)

    def _rows(self) -> Iterator[list[TracedProblem]]:
        weighted = {spec: spec.weight for spec in self._streams if spec.weight is not None}
        for spec, stream in self._streams.items():
            if spec not in weighted:
                for row in stream:
                    self.taken[spec.name] += 1
                    yield row
        yield from self._mix(weighted)

    def _mix(self, weights: dict[SourceSpec, float]) -> Iterator[list[TracedProblem]]:
        # Always the source furthest behind its share: without chance, the shares hold in every part of the stream.
        while weights:
            spec = max(weights, key=lambda one: weights[one] / (self.taken[one.name] + 1))
            row = next(self._streams[spec], None)
            if row is None:
                self.ended_by = spec.name
                return
            self.taken[spec.name] += 1
            yield row
