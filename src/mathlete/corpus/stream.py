"""Traced problems of one or several sources as one stream: mixed by weight, bad rows named or counted."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from mathlete.corpus.adapters import traced_of
from mathlete.corpus.layouts import is_file, read_traced
from mathlete.corpus.sources import Source, rows_of, source, sources
from mathlete.corpus.tables import FORMATS
from mathlete.errors import OnBad, UserError, nearest, stop
from mathlete.traces import TracedProblem

POCKET = ("pocket", "pocket-hard", "pocket-easy")
SHOWN = 20
"""Bad rows of which a person is told; the others are counted."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A source as the command line names it: `NAME`, `NAME:CONFIG` or a file, and `=WEIGHT` after it."""

    name: str
    weight: float | None = None
    """Its share of the mix against the other weights; None: all of it, after what was named before."""

    @property
    def registered(self) -> Source | None:
        """Its entry in the registry; None for a file or the pocket generator."""
        return None if is_file(self.name) or self.name in POCKET else source(self.name)

    def files(self, mirror: Path | None) -> list[Path]:
        """The files it is read from on this machine."""
        if is_file(self.name):
            return [Path(self.name)]
        src = self.registered
        return [file for part in src.parts for file in src.files(mirror, part)] if src and mirror else []


def parse_spec(word: str) -> Spec:
    """The source that a word of the command line names.

    Raises:
        UserError: an unknown name, a source without traces, or a weight that is not a number above 0.
    """
    name, equals, number = word.rpartition("=")
    if not equals or is_file(word):
        return _known(Spec(name=word))
    try:
        weight = float(number)
    except ValueError:
        weight = 0.0
    if not 0 < weight < float("inf"):
        raise UserError("a source's weight must be a number above 0", value=repr(word), cure="write openr1=2 gsm8k=1")
    return _known(Spec(name=name, weight=weight))


def _known(spec: Spec) -> Spec:
    if is_file(spec.name) or spec.name in POCKET:
        return spec
    with_traces = sorted(["pocket", *(name for name, src in sources().items() if src.trace)])
    if spec.name not in sources() and spec.name.partition(":")[0] not in sources():
        cure = f"{nearest(spec.name, with_traces)}, or a file of traced problems ending in {', '.join(FORMATS)}"
        raise UserError("the source must be a known one", value=repr(spec.name), cure=cure)
    if not source(spec.name).trace:
        cure = f"use {' or '.join(with_traces)}"
        raise UserError("training needs a source with traces", value=repr(spec.name), cure=cure)
    return spec


@dataclass
class BadRows:
    """The rows that could not be read: the first ends all, or each is counted."""

    skip: bool
    say: Callable[[str], None] = field(default=lambda _: None)
    """Is told of the first of them at once."""
    keep: bool = False
    """Whether to note all of them; otherwise the first."""
    count: int = 0
    noted: list[str] = field(default_factory=list)
    """What was wrong, with file and row."""

    def __call__(self, error: UserError) -> None:
        """Takes note of a bad row.

        Raises:
            UserError: the same, where bad rows are not to be skipped.
        """
        if not self.skip:
            raise error
        self.count += 1
        if self.count <= SHOWN:
            self.say(f"skipped: {error}")
        if self.keep or self.count <= SHOWN:
            self.noted.append(str(error))


def opened(
    spec: Spec, *, mirror: Path | None, limit: int | None = None, seed: int = 0, on_bad: OnBad = stop
) -> Iterator[list[TracedProblem]]:
    """Yields the traces of each row of a source, at most `limit` rows; `seed` chooses the pocket generator's.

    Raises:
        UserError: the source can't be read; with `stop`, a bad row.
    """
    src = spec.registered
    rows: Iterator[list[TracedProblem]]
    if spec.name in POCKET:
        from mathlete.pocket import training_traces

        rows = ([one] for one in training_traces(spec.name, count=limit, seed=seed))
    elif src is None:
        rows = ([one] for one in read_traced(Path(spec.name), on_bad=on_bad))
    else:
        rows = _adapted(src, mirror=mirror, on_bad=on_bad)
    return islice(_unique(rows, on_bad=on_bad), limit)


def _adapted(src: Source, *, mirror: Path | None, on_bad: OnBad) -> Iterator[list[TracedProblem]]:
    for number, (where, row) in enumerate(rows_of(src, mirror=mirror, on_bad=on_bad)):
        try:
            found = traced_of(src, row, number=number, where=where)
        except UserError as error:
            on_bad(error)
        else:
            yield found


def _unique(rows: Iterator[list[TracedProblem]], *, on_bad: OnBad) -> Iterator[list[TracedProblem]]:
    """The rows without those whose id an earlier row has with another statement: which is meant, nobody can say."""
    seen: dict[int, int] = {}  # hashes, not texts: this grows with the rows
    for some in rows:
        problem, where = some[0].problem, some[0].where
        statement = hash(problem.statement)
        if seen.setdefault(hash(problem.id), statement) == statement:
            yield some
        else:
            value = f"{problem.id!r}, which an earlier row has with another statement"
            on_bad(UserError(f"{where}: ids must be unique", value=value, cure="rename one"))


class Mix:
    """The rows of several sources as one stream, which says afterwards how many it took of each."""

    def __init__(
        self, specs: Sequence[Spec], *, mirror: Path | None, limit: int | None, seed: int, on_bad: OnBad = stop
    ) -> None:
        self._streams = {spec: opened(spec, mirror=mirror, limit=limit, seed=seed, on_bad=on_bad) for spec in specs}
        self._limit = limit
        self.taken = dict.fromkeys((spec.name for spec in specs), 0)
        """Rows taken of each source."""
        self.ended_by = ""
        """The weighted source that ran out first and so ended the mix."""

    def __iter__(self) -> Iterator[list[TracedProblem]]:
        """Yields the traces of a row at a time."""
        return islice(self._rows(), self._limit)

    def _rows(self) -> Iterator[list[TracedProblem]]:
        weighted = {spec: spec.weight for spec in self._streams if spec.weight is not None}
        for spec, stream in self._streams.items():
            if spec not in weighted:
                for row in stream:
                    self.taken[spec.name] += 1
                    yield row
        yield from self._mixed(weighted)

    def _mixed(self, weights: dict[Spec, float]) -> Iterator[list[TracedProblem]]:
        # The one furthest behind its share is next: no chance in it, and shares hold in every part of the stream.
        while weights:
            spec = max(weights, key=lambda one: weights[one] / (self.taken[one.name] + 1))
            row = next(self._streams[spec], None)
            if row is None:
                self.ended_by = spec.name
                return
            self.taken[spec.name] += 1
            yield row


def iter_traces(
    name: str, *, mirror: Path | None = None, limit: int | None = None, seed: int = 0
) -> Iterator[TracedProblem]:
    """Yields the traced problems of one source's first `limit` rows; a wrong name is an error of the call itself."""
    rows = opened(parse_spec(name), mirror=mirror, limit=limit, seed=seed)
    return (one for row in rows for one in row)
