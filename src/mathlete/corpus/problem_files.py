"""Problems to solve from a user's file: JSON lines, JSON, CSV or parquet, in the columns that such files have.

`load_suite` reads with it for evaluation, training's suites, rehearsal and golds. What `mathlete.problems` reads is a
run's own file, and strict.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mathlete.corpus.cells import GOLDS, IDS, STATEMENTS, SUBSETS, Cells, find_gold, format_cell, format_gold, tidy
from mathlete.corpus.columns import ColumnUse
from mathlete.corpus.tables import read_rows
from mathlete.errors import UserError
from mathlete.problems import Problem, collect_problems

_CURE = (
    "give each row a statement (statement, problem, question) and its gold (gold, answer), with an id if you like, as "
    "Kaggle's id,problem,answer has them"
)


@dataclass(frozen=True, kw_only=True)
class ProblemFile:
    """The problems of a file, in its order."""

    problems: list[Problem]
    note: str
    """Which columns were read, and which were not; "" where all were."""


def read_problem_file(path: Path) -> ProblemFile:
    """Read the problems of a file in any of the formats.

    A row without an id is named after the file and its place. A gold may be a number; columns that are none of a
    problem's are left unread, and named.

    Raises:
        UserError: no such file, a row without statement or gold, a repeated id, or no problem at all.
    """
    use = ColumnUse(path.name)

    def read() -> Iterator[tuple[str, Problem]]:
        for number, (where, row) in enumerate(read_rows(path)):
            cells = Cells(tidy(row, where=where))
            yield where, _read_problem(cells, where=where, name=f"{path.stem}-{number}")
            use.note(cells, where=where)

    problems = collect_problems(read(), path=path, cure=_CURE)
    return ProblemFile(problems=problems, note=use.describe() if use.unread else "")


def _read_problem(cells: Cells, *, where: str, name: str) -> Problem:
    _, statement = cells.first(STATEMENTS)
    if not isinstance(statement, str) or not statement.strip():
        raise UserError(f"{where}: a problem needs its statement as text", value=sorted(map(str, cells)), cure=_CURE)
    column, value = find_gold(cells, cells.find_columns(GOLDS))
    gold = format_gold(value, column, where=where)
    if not gold:
        raise UserError(f"{where}: a problem needs gold", value=sorted(map(str, cells)), cure=_CURE)
    return Problem(
        id=_read_id(cells, where=where) or name,
        statement=statement,
        gold=gold,
        subset=_read_word(cells, SUBSETS),
        **{name: _read_word(cells, (name,)) for name in ("source", "licence", "answers")},
    )


def _read_id(cells: Cells, *, where: str) -> str:
    _, value = cells.first(IDS)
    if isinstance(value, bool | float | Mapping | list):
        # Kaggle's 424e18 without quotes is a float, and the id is lost before it can be read.
        raise UserError(f"{where}: an id must be text or a whole number", value=repr(value), cure="quote it")
    return format_cell(value)


def _read_word(cells: Cells, columns: tuple[str, ...]) -> str:
    """Return the first of the columns that holds a word or a number, as text; "" where none does."""
    _, value = cells.first(columns)
    return "" if isinstance(value, Mapping | list) else format_cell(value)
