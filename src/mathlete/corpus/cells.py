"""The cells of a row: which of them a reader has read, what is a gold answer, and what is no text at all."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from mathlete.errors import UserError
from mathlete.text import read_list

TableRow = Mapping[str, Any]
"""A row of a table: its cells by column."""
STATEMENTS = ("statement", "problem", "Problem", "question", "query", "instruction", "prompt")
GOLDS = ("gold", "answer", "Answer", "expected_answer", "final_answer", "ground_truth")
IDS = ("id", "uuid", "problem_id", "unique_id")
SUBSETS = ("subset", "level", "subject", "type")
SOLUTIONS = ("solution", "Solution", "output", "response", "answer")
_LONG = 60
"""Characters from which a cell with blanks is long text: a sentence, and no label."""
_LARGEST_FLOAT = 2**53
"""Up to here a float holds every whole number; above, its last digits are nobody's (IEEE 754)."""
WORKED = re.compile(r"\n|\\boxed|####")
"""Marks of a text that works towards its answer: lines, a box, GSM8K's mark."""


class Cells(TableRow):
    """A row that remembers which of its cells were read; looking whether a column is there reads nothing.

    >>> row = Cells({"problem": "2+2?", "solution": "4", "note": "easy"})
    >>> row["problem"], "note" in row, row.get("solution")
    ('2+2?', True, '4')
    >>> sorted(row.read)
    ['problem', 'solution']
    """

    def __init__(self, row: TableRow, read: set[str] | None = None) -> None:
        """Take the row, and the names that count as read already."""
        self.row, self.read = row, set(read or ())
        self.turn_keys: dict[str, set[str]] = {}
        """Of columns that hold conversations: the keys of a turn that are read."""

    def __getitem__(self, column: str) -> object:
        """Return a cell, which is read now."""
        value = self.row[column]
        self.read.add(column)
        return value

    def __contains__(self, column: object) -> bool:
        """Return whether the row has the column."""
        return column in self.row

    def __iter__(self) -> Iterator[str]:
        """Yield the columns."""
        return iter(self.row)

    def __len__(self) -> int:
        """Return the number of columns."""
        return len(self.row)

    def first(self, columns: Sequence[str]) -> tuple[str, object]:
        """Return (column, value) of the first of the columns that holds something; ("", None) where none does.

        A column is found however it is written: `Problem`, `PROBLEM`, `problem `.
        """
        column = next((name for name in self.find_columns(columns) if self.row[name] not in (None, "", [])), "")
        return column, self[column] if column else None

    def find_columns(self, columns: Sequence[str]) -> list[str]:
        """Return those of the columns that the row has, in their order, as the row spells them."""
        own = {str(name).strip().casefold(): name for name in reversed([*self.row])}
        return [*dict.fromkeys(own[name.casefold()] for name in columns if name.casefold() in own)]


def texts_in(value: object) -> Iterator[str]:
    """Yield every text within a cell, whatever lists and objects it stands in."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from texts_in(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from texts_in(one)


def is_long(text: str) -> bool:
    """Return whether a text says something, and is no label, number or address.

    >>> is_long("olympiads"), is_long("First I add the two crates, then I look at the sum once more.")
    (False, True)
    """
    return len(text) >= _LONG and (not text.isascii() or any(map(str.isspace, text.strip())))


def tidy(row: TableRow, *, where: str) -> TableRow:
    r"""Return the row with line breaks as `\n` in all its texts.

    Raises:
        UserError: a NUL in a text, which no tokenizer was trained on.
    """
    changed = {name: _tidy(value, name, where) for name, value in row.items() if _has_controls(value)}
    return {**row, **changed} if changed else row


def _has_controls(value: object) -> bool:
    return any("\r" in text or "\0" in text for text in texts_in(value))


def _tidy(value: object, name: str, where: str) -> object:
    if isinstance(value, str):
        if "\0" in value:
            at = value.index("\0")
            raise UserError(
                f"{where}: {name} must have no NUL in it",
                value=repr(value[max(0, at - 20) : at + 20]),
                cure="take it out of the text",
            )
        return value.replace("\r\n", "\n")
    if isinstance(value, Mapping):
        return {key: _tidy(one, name, where) for key, one in value.items()}
    return [_tidy(one, name, where) for one in value] if isinstance(value, list) else value


def find_gold(row: TableRow, columns: Sequence[str] = GOLDS, *, solution: str = "") -> tuple[str, object]:
    """Return (column, value) of a row's gold answer; ("", None) where it has none.

    The gold stands in the first of the columns that has a value. A cell that repeats the whole `solution`, as `answer`
    of an alpaca row may, is no gold; nor is a worked one where a later column has the answer. Of a list of one, its
    member counts.

    >>> find_gold({"gold": None, "answer": ["7"]}, solution="4+3=7"), find_gold({"answer": "4+3=7"}, solution="4+3=7")
    (('answer', '7'), ('', None))
    >>> find_gold({"answer": "4+3=7", "final_answer": "7"}, solution="4+3=7")
    ('final_answer', '7')
    """
    cells = row.row if isinstance(row, Cells) else row
    present = [name for name in columns if name in cells]
    filled = [name for name in present if cells[name] is not None]
    for place, name in enumerate(filled):
        value = unwrap_single(row[name])  # of a row that remembers what was read, only the cell that is looked at
        # As `answer` of an alpaca row repeats its output.
        if isinstance(value, str) and solution.strip() and value.strip() == solution.strip():
            continue
        if isinstance(value, str) and place + 1 < len(filled) and WORKED.search(value.strip()):
            continue
        return name, value
    return ("", None) if filled or not present else (present[0], None)


def unwrap_single(value: object) -> object:
    """Return the only member of a list: some sets keep one text in a list with room for several.

    So does a table of texts, as CSV is, in the text of such a list.

    >>> unwrap_single(["7"]), unwrap_single("['7']"), unwrap_single("[7]")
    ('7', '7', '[7]')
    """
    if isinstance(value, str) and (members := read_list(value)) and isinstance(members[0], str):
        return members[0] if len(members) == 1 else value
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def unwrap_texts(value: object) -> object:
    """Return the list of a cell that is the text of a list of texts, as in a CSV; any other cell as it is.

    >>> unwrap_texts("['a', 'b']"), unwrap_texts("[1, 2]")
    (['a', 'b'], '[1, 2]')
    """
    members = read_list(value) if isinstance(value, str) else None
    return members if members and all(isinstance(one, str) for one in members) else value


def format_cell(value: object) -> str:
    """Return a cell as text: a whole float loses its point, None and NaN are empty."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()


def format_gold(value: object, column: str, *, where: str) -> str:
    """Return a gold answer as text.

    Raises:
        UserError: it is neither text nor a number, or a number of which the digits are lost.
    """
    if value is None or (isinstance(value, str | int | Decimal) and not isinstance(value, bool)):
        return format_cell(value)
    if not isinstance(value, float):
        raise UserError(
            f"{where}: {column} must be text or a number",
            value=f"{type(value).__name__} {value!r}"[:80],
            cure="write the answer as text",
        )
    if math.isinf(value) or abs(value) > _LARGEST_FLOAT:
        raise UserError(
            f"{where}: {column} must be a number whose digits are all there: a float has none of its own above 2^53",
            value=repr(value),
            cure="write the answer as text, in quotes",
        )
    return format_cell(value)
