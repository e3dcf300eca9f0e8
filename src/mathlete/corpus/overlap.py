"""Overlap: which rows are problems of a suite, word for word or reworded, with the pairs to look at.

Three kinds, the first that holds: *exact*, the same tokens; *ngram*, one statement holds at least four fifths of the
other's runs of eight tokens (GPT-3's and later decontaminations flag any shared run, arXiv 2005.14165, appendix C,
which among olympiad problems flags "where m and n are relatively prime positive integers. Find m+n."); *near*, a
Jaccard similarity of at least 0.5 of their runs of three tokens, candidates found by MinHash and LSH (Broder 1997;
`rensa`). The last two ask that numbers and gold answers agree: a template filled with other numbers is another problem.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from mathlete.corpus.statements import Statement, containment, jaccard
from mathlete.problems import Problem

if TYPE_CHECKING:
    from rensa import RMinHashLSH

Kind = Literal["exact", "ngram", "near"]
_SHINGLE, _RUN = 3, 8
_NEAR, _CONTAINED = 0.5, 0.8
_EXTRA_NUMBERS = 2
"""Numbers that one wording may have and the other lack, as in "(1 point)"; a replaced number is another problem."""
HASHES, BANDS = 126, 42
"""Bands of three hashes: a pair of similarity 0.5 is a candidate with probability 1 - (1 - 0.5^3)^42 = 0.996."""
_BATCH = 2000


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A row and the suite's problem it is."""

    row: Problem
    suite: Problem
    kind: Kind
    similarity: float
    """Jaccard similarity of their runs of three tokens, 0 to 1."""


def pair_line(pair: Pair) -> dict[str, Any]:
    """The pair side by side, as it is written into a file of pairs."""
    sides = {"row": pair.row, "suite": pair.suite}
    shown = {key: {"id": one.id, "statement": one.statement, "gold": one.gold} for key, one in sides.items()}
    return {"kind": pair.kind, "similarity": round(pair.similarity, 4), **shown}


class SuiteIndex:
    """A suite's problems, to find those that rows repeat."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self._problems = problems
        self._read = [Statement.of(problem.statement) for problem in problems]
        self._exact: dict[tuple[str, ...], list[int]] = {}
        self._runs: dict[tuple[str, ...], list[int]] = {}
        for number, statement in enumerate(self._read):
            self._exact.setdefault(statement.tokens, []).append(number)
            for run in statement.grams(_RUN):
                self._runs.setdefault(run, []).append(number)
        self._near = near_index(self._read)

    def pairs(self, rows: Iterable[Problem]) -> Iterator[Pair]:
        """Yields every pair of a row and a suite's problem that are the same problem, in the rows' order."""
        stream = iter(rows)
        while some := list(islice(stream, _BATCH)):
            read = [Statement.of(row.statement) for row in some]
            for row, statement, near in zip(some, read, near_candidates(self._near, read), strict=True):
                yield from self._pairs_of(row, statement, near)

    def _pairs_of(self, row: Problem, statement: Statement, near: set[int]) -> Iterator[Pair]:
        runs = (number for run in statement.grams(_RUN) for number in self._runs.get(run, ()))
        for number in sorted({*self._exact.get(statement.tokens, ()), *runs, *near}):
            kind = kind_of(statement, self._read[number], golds=(row.gold, self._problems[number].gold))
            if kind is not None:
                similarity = jaccard(statement.grams(_SHINGLE), self._read[number].grams(_SHINGLE))
                yield Pair(row=row, suite=self._problems[number], kind=kind, similarity=similarity)


def kind_of(one: Statement, other: Statement, *, golds: tuple[str, str]) -> Kind | None:
    """In what way two statements are the same problem, or None. A gold of "" is not known."""
    kind = _kind_of_texts(one, other)
    redrawn = bool(one.drawing and other.drawing) and one.drawing != other.drawing
    if kind is None or (kind == "exact" and not redrawn):
        return kind
    if all(golds) and not _same_answer(*golds):
        return None
    if all(any(character.isdigit() for character in gold) for gold in golds):
        return None if redrawn and kind != "ngram" else kind
    # No gold, a letter or "neither" cannot tell "the least value" from "the largest value".
    return kind if kind == "ngram" and not redrawn and (one.holds(other) or other.holds(one)) else None


def _kind_of_texts(one: Statement, other: Statement) -> Kind | None:
    if one.tokens == other.tokens:
        return "exact"
    more, less = one.numbers - other.numbers, other.numbers - one.numbers
    if (more and less) or more.total() + less.total() > _EXTRA_NUMBERS:
        return None
    if containment(one.grams(_RUN), other.grams(_RUN)) >= _CONTAINED:
        return "ngram"
    return "near" if jaccard(one.grams(_SHINGLE), other.grams(_SHINGLE)) >= _NEAR else None


def _same_answer(one: str, other: str) -> bool:
    from mathlete.answers import compare

    return one == other or compare(answer=one, gold=other).outcome == "equal"


def near_index(statements: Sequence[Statement]) -> "RMinHashLSH":
    """An index of the statements' sketches, numbered in their order."""
    from rensa import RMinHashLSH

    index = RMinHashLSH(threshold=_NEAR, num_perm=HASHES, num_bands=BANDS)
    for number, sketch in enumerate(sketches(statements)):
        index.insert(number, sketch)
    return index


def near_candidates(index: "RMinHashLSH", statements: Sequence[Statement]) -> list[set[int]]:
    """For each statement, the numbers of the indexed ones that may be similar."""
    return [set(index.query(sketch)) for sketch in sketches(statements)]


def sketches(statements: Sequence[Statement]) -> list[object]:
    """The statements' MinHash sketches."""
    from rensa import RMinHash

    shingles = [shingles_of(statement) for statement in statements]
    found: list[object] = RMinHash.from_token_sets(shingles, num_perm=HASHES, seed=0)
    return found


def shingles_of(statement: Statement) -> list[str]:
    """What a statement's sketch is made of."""
    return [" ".join(gram) for gram in statement.grams(_SHINGLE)]
