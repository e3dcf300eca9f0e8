"""Problems to solve from a user's file: JSON lines, JSON, CSV or parquet, in the columns that such files have.

`load_suite` reads with it for evaluation, training's suites, rehearsal and golds; `Questions` are what is to be
answered, whose golds nobody may know. What `mathlete.problems` reads is a run's own file, and strict.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from mathlete.corpus.cells import (
    GOLDS,
    IDS,
    STATEMENTS,
    SUBSETS,
    Cells,
    TableRow,
    find_gold,
    format_cell,
    format_gold,
    tidy,
)
from mathlete.corpus.columns import ColumnUse
from mathlete.corpus.tables import read_rows
from mathlete.errors import UserError, nearest
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


_NAMED = "say which column is which, as in --columns id=NAME statement=NAME"


@dataclass(frozen=True, kw_only=True)
class Questions:
    """The questions of a file that is to be answered, in its order."""

    problems: list[Problem]
    """Their ids are to the letter those of the file; a gold is "" where none was asked for, or the row has none."""
    id_column: str
    """The column of the ids, as the file spells it."""
    note: str
    """Which columns were read, and which were not."""

    @classmethod
    def read(cls, path: Path, *, columns: Mapping[str, str], whose: str, golds: bool = False) -> Self:
        """Read the questions of a file in any of the formats; each has an id, by which its answer is known.

        Args:
            path: the file.
            columns: {id, statement or gold: the column that has it}; the others are recognised.
            whose: who names these columns, for the errors.
            golds: whether the right answers are read, where there are any.

        Raises:
            UserError: no such file, a column that is missing, an id or a text that is empty, a repeated id, or no
                question at all.
        """
        use, chosen = ColumnUse(path.name), dict[str, str]()

        def read() -> Iterator[tuple[str, Problem]]:
            for where, row in read_rows(path):
                cells = Cells(tidy(row, where=where))
                for what, usual in (("id", IDS), ("statement", STATEMENTS), *((("gold", GOLDS),) if golds else ())):
                    if what not in chosen:
                        chosen[what] = _find_column(cells, what, usual, columns, where=where, whose=whose)
                yield where, _read_question(cells, row, chosen, where=where)
                use.note(cells, where=where)

        cure = "give the file a row for each question, with its id and its text"
        problems = collect_problems(read(), path=path, cure=cure)
        return cls(problems=problems, id_column=chosen["id"], note=use.describe())


def _find_column(
    cells: Cells, what: str, usual: Sequence[str], columns: Mapping[str, str], *, where: str, whose: str
) -> str:
    """Return the column that has ids, statements or golds: the one that is named, else the first of the usual ones."""
    names = [*map(str, cells)]
    if what in columns:
        if columns[what] in names:
            return columns[what]
        rule, cure = f"{where}: the column of {what} that {whose} names must be there", nearest(columns[what], names)
        raise UserError(f"{rule}, {columns[what]!r}", value=f"columns {', '.join(names)}", cure=f"{cure}; {_NAMED}")
    if not (there := cells.find_columns(usual)):
        raise UserError(f"{where}: a question needs its {what}", value=f"columns {', '.join(names)}", cure=_NAMED)
    return there[0]


def _read_question(cells: Cells, row: TableRow, chosen: Mapping[str, str], *, where: str) -> Problem:
    identity, statement = cells.get(chosen["id"]), cells.get(chosen["statement"])
    if not isinstance(statement, str) or not statement.strip():
        rule = f"{where}: a question needs its text in {chosen['statement']}"
        raise UserError(rule, value=repr(statement), cure="write it into the row, or take the row out")
    if not _read_id(identity, where=where):
        rule = f"{where}: a question needs its id in {chosen['id']}, by which its answer is known"
        raise UserError(rule, value=repr(identity), cure="write it into the row, or take the row out")
    column, value = find_gold(cells, [chosen["gold"]]) if "gold" in chosen else ("", None)
    gold = format_gold(value, column, where=where)
    # To the letter: not even a blank at its end is anyone's to take away.
    return Problem(id=str(row[chosen["id"]]), statement=statement, gold=gold)


def _read_problem(cells: Cells, *, where: str, name: str) -> Problem:
    _, statement = cells.first(STATEMENTS)
    if not isinstance(statement, str) or not statement.strip():
        value = _tell_lacking(cells, STATEMENTS)
        raise UserError(f"{where}: a problem needs its statement as text", value=value, cure=_CURE)
    column, value = find_gold(cells, cells.find_columns(GOLDS))
    gold = format_gold(value, column, where=where)
    if not gold:
        raise UserError(f"{where}: a problem needs gold", value=_tell_lacking(cells, GOLDS), cure=_CURE)
    return Problem(
        id=_read_id(cells.first(IDS)[1], where=where) or name,
        statement=statement,
        gold=gold,
        subset=_read_word(cells, SUBSETS),
        **{name: _read_word(cells, (name,)) for name in ("source", "licence", "answers")},
    )


def _tell_lacking(cells: Cells, names: tuple[str, ...]) -> object:
    """Return what a row has in place of a cell: an empty one, or the names of its cells."""
    there = cells.find_columns(names)
    return f"no text in {' or '.join(there)}" if there else sorted(map(str, cells))


def _read_id(value: object, *, where: str) -> str:
    if isinstance(value, bool | float | Mapping | list):
        # Kaggle's 424e18 without quotes is a float, and the id is lost before it can be read.
        raise UserError(f"{where}: an id must be text or a whole number", value=repr(value), cure="quote it")
    return format_cell(value)


def _read_word(cells: Cells, columns: tuple[str, ...]) -> str:
    """Return the first of the columns that holds a word or a number, as text; "" where none does."""
    _, value = cells.first(columns)
    return "" if isinstance(value, Mapping | list) else format_cell(value)
