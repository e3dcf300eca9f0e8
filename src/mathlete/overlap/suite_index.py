"""Overlap of rows with a suite: the pairs that are the same problem, word for word or reworded.

A pair is of the first kind that holds: *exact*, the same tokens; *ngram*, one statement has at least four fifths of the
other's runs of eight tokens; *near*, the Jaccard similarity of their runs of three tokens is at least 0.5, where
candidates come from MinHash and LSH (Broder 1997; `rensa`). GPT-3 and later decontaminations flag any shared run (arXiv
2005.14165, appendix C); among olympiad problems that flags "where m and n are relatively prime positive integers. Find
m+n." For *ngram* and *near*, numbers and gold answers must agree too: a template with other numbers is another problem.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from mathlete.overlap.statements import Statement, containment, jaccard
from mathlete.problems import Problem

if TYPE_CHECKING:
    from rensa import RMinHashLSH

Kind = Literal["exact", "ngram", "near"]
_SHINGLE, _RUN = 3, 8
_NEAR, _CONTAINED = 0.5, 0.8
_EXTRA_NUMBERS = 2
"""Numbers that one wording may have and the other lack, as in "(1 point)". Two replaced numbers are never allowed."""
HASHES, BANDS = 126, 42
"""Bands of three hashes: a pair of similarity 0.5 becomes a candidate with probability 1 - (1 - 0.5^3)^42 = 0.996."""
_BATCH = 2000


@dataclass(frozen=True, kw_only=True)
class RepeatedProblem:
    """A row and the suite's problem that it repeats."""

    row: Problem
    suite: Problem
    kind: Kind
    similarity: float
    """Jaccard similarity of their runs of three tokens, 0 to 1."""
    suite_name: str = ""
    """Name of the suite, where several are compared with."""

    def to_json(self) -> dict[str, object]:
        """Return the pair side by side, as a line of `overlap.jsonl` has it."""
        name = {"name": self.suite_name} if self.suite_name else {}
        sides = {
            side: {"id": problem.id, "statement": problem.statement, "gold": problem.gold}
            for side, problem in (("row", self.row), ("suite", self.suite))
        }
        return {**name, "kind": self.kind, "similarity": round(self.similarity, 4), **sides}

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> "RepeatedProblem":
        """Return the pair of a line of `overlap.jsonl`."""
        return cls(
            row=Problem(**line["row"]),
            suite=Problem(**line["suite"]),
            kind=line["kind"],
            similarity=line["similarity"],
            suite_name=line.get("name", ""),
        )


class SuiteIndex:
    """The problems of suites, indexed to look up the rows that repeat one of them."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self._problems = problems
        self._statements = [Statement.parse(problem.statement) for problem in problems]
        self._exact: dict[tuple[str, ...], list[int]] = {}
        self._runs: dict[tuple[str, ...], list[int]] = {}
        for number, statement in enumerate(self._statements):
            self._exact.setdefault(statement.tokens, []).append(number)
            for run in statement.grams(_RUN):
                self._runs.setdefault(run, []).append(number)
        self._near = _build_near_index(self._statements)

    def pairs(self, rows: Iterable[Problem]) -> Iterator[RepeatedProblem]:
        """Yield every pair of a row and a suite's problem that are the same problem, in the rows' order."""
        stream = iter(rows)
        while batch := list(islice(stream, _BATCH)):
            statements = [Statement.parse(row.statement) for row in batch]
            # One call for the whole batch: rensa sketches many statements in parallel.
            for row, statement, sketch in zip(batch, statements, _make_sketches(statements), strict=True):
                yield from self._match_row(row, statement, near=set(self._near.query(sketch)))

    def _match_row(self, row: Problem, statement: Statement, *, near: set[int]) -> Iterator[RepeatedProblem]:
        runs = (number for run in statement.grams(_RUN) for number in self._runs.get(run, ()))
        for number in sorted({*self._exact.get(statement.tokens, ()), *runs, *near}):
            other = self._statements[number]
            suite = self._problems[number]
            conventions = (row.answers, suite.answers)
            kind = match_statements(statement, other, golds=(row.gold, suite.gold), conventions=conventions)
            if kind is not None:
                similarity = jaccard(statement.grams(_SHINGLE), other.grams(_SHINGLE))
                yield RepeatedProblem(row=row, suite=suite, kind=kind, similarity=similarity)


def match_statements(
    one: Statement, other: Statement, *, golds: tuple[str, str], conventions: tuple[str, str] = ("", "")
) -> Kind | None:
    """Return in what way two statements are the same problem, or None.

    Args:
        one: a statement.
        other: the other.
        golds: their right answers; "" is unknown.
        conventions: of the answers to each. Golds that are the same by either are the same: a problem that is kept out
            of the training rows without need costs less than one of a suite that gets in.
    """
    kind = _match_texts(one, other)
    # A drawing is part of the question: with another drawing, equal words do not make an equal problem.
    redrawn = bool(one.drawing and other.drawing) and one.drawing != other.drawing
    if kind is None or (kind == "exact" and not redrawn):
        return kind
    if all(golds) and not any(_same_answer(*golds, settings) for settings in dict.fromkeys(conventions)):
        return None
    if all(any(character.isdigit() for character in gold) for gold in golds):
        # Equal numbers as golds are evidence enough; with another drawing, "find x in the diagram" needs more text.
        return None if redrawn and kind != "ngram" else kind
    # Without a gold, or where it is a letter or "neither", it cannot tell "the least value" from "the largest value".
    return kind if kind == "ngram" and not redrawn and (one.holds(other) or other.holds(one)) else None


def _match_texts(one: Statement, other: Statement) -> Kind | None:
    if one.tokens == other.tokens:
        return "exact"
    more, less = one.numbers - other.numbers, other.numbers - one.numbers
    # Numbers on both sides that the other lacks are a template filled in anew.
    if (more and less) or more.total() + less.total() > _EXTRA_NUMBERS:
        return None
    if containment(one.grams(_RUN), other.grams(_RUN)) >= _CONTAINED:
        return "ngram"
    return "near" if jaccard(one.grams(_SHINGLE), other.grams(_SHINGLE)) >= _NEAR else None


def _same_answer(one: str, other: str, settings: str) -> bool:
    from mathlete.answers import compare

    return one == other or compare(answer=one, gold=other, settings=settings).outcome == "equal"


def make_shingles(statement: Statement) -> list[str]:
    """Return the runs of three tokens that a statement's sketch is made of."""
    return [" ".join(gram) for gram in statement.grams(_SHINGLE)]


def _build_near_index(statements: Sequence[Statement]) -> "RMinHashLSH":
    from rensa import RMinHashLSH

    index = RMinHashLSH(threshold=_NEAR, num_perm=HASHES, num_bands=BANDS)
    for number, sketch in enumerate(_make_sketches(statements)):
        index.insert(number, sketch)
    return index


def _make_sketches(statements: Sequence[Statement]) -> list[object]:
    from rensa import RMinHash

    shingles = [make_shingles(statement) for statement in statements]
    sketches: list[object] = RMinHash.from_token_sets(shingles, num_perm=HASHES, seed=0)
    return sketches
