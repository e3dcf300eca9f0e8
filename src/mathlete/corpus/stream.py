"""The traces of one or several sources as one stream: mixed by weight, bad rows named or counted."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from mathlete.corpus.adapters import read_traces
from mathlete.corpus.cells import Cells
from mathlete.corpus.chats import chat_of
from mathlete.corpus.columns import ColumnUse, Reading
from mathlete.corpus.layouts import SAMPLES, read_traced_rows
from mathlete.corpus.sources import Source, find_source, load_sources, names_hub_set, read_hub_rows
from mathlete.corpus.tables import FORMATS, is_table, list_tables, read_rows
from mathlete.errors import OnBad, UserError, nearest, stop
from mathlete.pocket import TRACE_SOURCES, generate_traces
from mathlete.traces import TracedProblem

FIRST_BAD_ROWS = 20
"""Bad rows that are shown; the others are only counted."""


@dataclass(frozen=True, kw_only=True)
class SourceSpec:
    """A source as the command line names it, then `=WEIGHT`.

    That is `NAME`, `NAME:CONFIG`, a file, a folder or pattern of files, a run's folder, or a hub id.
    """

    name: str
    weight: float | None = None
    """Its share of the mix relative to the other weights; None: all of it, before any weighted source."""

    @staticmethod
    def parse(word: str) -> "SourceSpec":
        """Return the source that a word of the command line names.

        >>> SourceSpec.parse("gsm8k=2")
        SourceSpec(name='gsm8k', weight=2.0)

        Raises:
            UserError: an unknown name, a source without traces, or a weight that is not a number above 0.
        """
        name, equals, number = word.rpartition("=")
        if not equals or is_local(word) or _is_run(word):
            return _require_known(word)
        try:
            weight = float(number)
        except ValueError:
            weight = 0.0
        if not 0 < weight < float("inf"):
            cure = "write openr1=2 gsm8k=1"
            raise UserError("a source's weight must be a number above 0", value=repr(word), cure=cure)
        return _require_known(name, weight)

    @staticmethod
    def names_file(word: str) -> bool:
        """Return whether a word of `--source` names a file, with or without a weight.

        >>> [SourceSpec.names_file(word) for word in ("mine.jsonl", "mine.jsonl=2", "gsm8k=1")]
        [True, True, False]
        """
        names = (word, word.rpartition("=")[0])
        return any(_is_run(name) or is_local(name) for name in names if name)

    @property
    def registered(self) -> Source | None:
        """Its entry in the registry; None for a file or the pocket generator."""
        return None if is_local(self.name) or self.name in TRACE_SOURCES else find_source(self.name)

    def files(self, mirror: Path | None) -> list[Path]:
        """Return the files on this machine that it is read from."""
        if is_local(self.name):
            return [*list_tables(self.name)] or [Path(self.name)]
        entry = self.registered
        return [file for part in entry.parts for file in entry.files(mirror, part)] if entry and mirror else []


def _is_run(word: str) -> bool:
    return (Path(word) / SAMPLES).is_file()


def is_local(word: str) -> bool:
    """Return whether a word names files on this machine; a registered set's name does not, whatever lies here."""
    return word not in TRACE_SOURCES and word not in load_sources() and is_table(word)


def _require_known(name: str, weight: float | None = None) -> SourceSpec:
    spec = SourceSpec(name=str(Path(name) / SAMPLES) if _is_run(name) else name, weight=weight)
    if is_local(spec.name) or spec.name in TRACE_SOURCES or names_hub_set(spec.name):
        return spec
    with_traces = sorted(["pocket", *(name for name, entry in load_sources().items() if entry.trace)])
    if spec.name not in load_sources() and spec.name.partition(":")[0] not in load_sources():
        files = (
            f"a file of traced problems ending in {', '.join(FORMATS)}, a folder or pattern of them, a hub id as in "
            "OWNER/NAME, or the folder of an evaluation run"
        )
        if (path := Path(spec.name)).exists():
            held = f"a folder without such files: {path}" if path.is_dir() else str(path)
            raise UserError(f"a source on the disk is {files}", value=held, cure="name the file, or rename it")
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

    def describe(self) -> str:
        """Return in words how many rows could not be read, and what was wrong with the first; "" for none."""
        if not self.count:
            return ""
        first = " ".join(self.messages[0].split())
        return f"{self.count} rows could not be read; the first, {first}"

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
    name: str,
    *,
    mirror: Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    on_bad: OnBad = stop,
    reading: Reading | None = None,
    use: ColumnUse | None = None,
) -> Iterator[list[TracedProblem]]:
    """Return an iterator over a source's rows, each as the list of its traces.

    Args:
        name: a source as for `SourceSpec.parse`; a weight has no effect.
        mirror: folder that stands in for the hub's data sets.
        limit: rows at most; None: all.
        seed: chooses the pocket generator's problems.
        on_bad: receives the error of a row that cannot be read.
        reading: what the command line says of the columns.
        use: counts which columns were read.

    Raises:
        UserError: an unknown name, or the source cannot be read; with `stop`, a bad row.
    """
    spec, reading = SourceSpec.parse(name), reading or Reading()
    entry, use = spec.registered, use or ColumnUse(name)
    rows: Iterator[list[TracedProblem]]
    if spec.name in TRACE_SOURCES:
        traces = generate_traces(spec.name, count=limit, seed=seed)
        rows = (chat_of(one) if reading.task == "chat" else [one] for one in traces)
    elif entry is None:
        path = Path(spec.name)
        rows = read_traced_rows(read_rows(path, on_bad=on_bad), path, on_bad=on_bad, reading=reading, use=use)
    elif not entry.statement:
        table = read_hub_rows(entry, mirror=mirror, on_bad=on_bad)
        rows = read_traced_rows(table, Path(entry.hub), on_bad=on_bad, reading=reading, use=use)
    else:
        rows = _read_registered(entry, mirror=mirror, on_bad=on_bad, reading=reading, use=use)
    return islice(_without_ambiguous_ids(rows, on_bad=on_bad), limit)


def _read_registered(
    entry: Source, *, mirror: Path | None, on_bad: OnBad, reading: Reading, use: ColumnUse
) -> Iterator[list[TracedProblem]]:
    for number, (where, table_row) in enumerate(read_hub_rows(entry, mirror=mirror, on_bad=on_bad)):
        row = Cells(table_row)
        try:
            traces = read_traces(entry, row, number=number, where=where)
        except UserError as error:
            on_bad(error)
            continue
        use.note(row, where=where)
        yield [one for trace in traces for one in chat_of(trace)] if reading.task == "chat" else traces


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


def _rename(traced: TracedProblem, name: str) -> TracedProblem:
    problem, trace = replace(traced.problem, id=name), replace(traced.trace, problem_id=name)
    return replace(traced, problem=problem, trace=trace)


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
        reading: Reading | None = None,
    ) -> None:
        self.bad_rows = bad_rows or BadRows(skip=False)
        self.columns = {spec.name: ColumnUse(spec.name) for spec in specs}
        """What was read of each source's columns."""
        self._registered = {spec.name for spec in specs if spec.registered and spec.registered.statement}
        self._ids: dict[int, int] = {}
        self._streams = {
            spec: self._name_apart(
                number,
                open_source(
                    spec.name,
                    mirror=mirror,
                    limit=limit,
                    seed=seed,
                    on_bad=self.bad_rows,
                    reading=reading,
                    use=self.columns[spec.name],
                ),
            )
            for number, spec in enumerate(specs, start=1)
        }
        self._limit = limit
        self.taken = dict.fromkeys((spec.name for spec in specs), 0)
        """Rows taken of each source."""
        self.ended_by = ""
        """The weighted source that ran out first and so ended the mix."""

    def check_columns(self) -> None:
        """Check what was read so far of files and sets of any columns; of a registered set its entry says what is read.

        Raises:
            UserError: a column that most rows say something in was read by nobody.
        """
        for name, use in self.columns.items():
            if name not in self._registered:
                use.check()

    def _name_apart(self, number: int, rows: Iterator[list[TracedProblem]]) -> Iterator[list[TracedProblem]]:
        """Yield the rows of a source; an id that another source has given to another statement gets its number."""
        for row in rows:
            problem = row[0].problem
            statement, name = hash(problem.statement), problem.id
            while self._ids.setdefault(hash(name), statement) != statement:
                name = f"{name}@{number}"
            yield row if name == problem.id else [_rename(one, name) for one in row]

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
