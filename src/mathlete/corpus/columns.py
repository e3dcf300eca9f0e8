"""Which columns of a source are read: what the command line says of them, and what was read and what was not."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from mathlete.corpus.cells import Cells, TableRow, is_long, texts_in
from mathlete.errors import UserError, nearest, split_pairs

Task = Literal["math", "chat"]
COLUMNS = ("statement", "trace", "ending", "gold", "id", "subset")
"""What --columns can name: the question, the reasoning or the whole solution, what is said after the reasoning, the
right answer, the row's id, its level or subject."""
_ASKED = ("options", "choices", "candidates")
"""Columns that a question can't be answered without, however short they are."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How files and sets of any columns are read."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """{one of COLUMNS: the column that has it}; the others are recognised."""
    ignore: frozenset[str] = frozenset()
    """Columns that are left out as if they were not there."""
    task: Task = "math"

    def names(self, what: str, usual: Sequence[str]) -> Sequence[str]:
        """Return the columns in which something stands: the one that was named, else the usual ones."""
        return (self.columns[what],) if what in self.columns else usual

    def prepare(self, row: TableRow, *, where: str) -> Cells:
        """Return the row without the columns that are ignored.

        Raises:
            UserError: a column that was named is not there.
        """
        kept = {name: value for name, value in row.items() if name not in self.ignore} if self.ignore else row
        for what, column in self.columns.items():
            if column not in kept:
                raise UserError(
                    f"{where}: the column of --columns {what}={column} must be there",
                    value=f"columns {', '.join(map(str, kept))}",
                    cure=nearest(column, [*map(str, kept)]),
                )
        return Cells(kept)


def parse_columns(words: Sequence[str]) -> dict[str, str]:
    """Return {one of COLUMNS: column} of the words of --columns.

    >>> parse_columns(["statement=Problem", "gold=Final"])
    {'statement': 'Problem', 'gold': 'Final'}

    Raises:
        UserError: another form, or a name that is not one of COLUMNS or stands twice.
    """
    rule, cure = "--columns must say which column is what", "write --columns statement=NAME trace=NAME gold=NAME"
    pairs = split_pairs(words, rule=rule, cure=cure)
    for name, column in pairs.items():
        if name not in COLUMNS:
            raise UserError(rule, value=f"{name}={column}", cure=f"{cure}; {nearest(name, COLUMNS)}")
    return pairs


class ColumnUse:
    """What the rows of a source had, and what was read of it.

    >>> use = ColumnUse("mine.jsonl")
    >>> row = Cells({"problem": "2+2?", "note": "easy"})
    >>> _ = row["problem"]
    >>> use.note(row, where="mine.jsonl:1")
    >>> use.describe()
    'mine.jsonl: read problem; not read: note'
    """

    def __init__(self, source: str) -> None:
        self.source, self.rows = source, 0
        self._read: dict[str, None] = {}
        self._seen: dict[str, None] = {}
        self._long: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def note(self, row: Cells, *, where: str) -> None:
        """Count a row that was read."""
        self.rows += 1
        self._read.update(dict.fromkeys(name for name in row if name in row.read))
        said = ""
        for name, value in _list_unread(row):
            self._seen[name] = None
            long = [text for text in texts_in(value) if is_long(text) or name.casefold() in _ASKED]
            said = said or ("\n".join(_read_texts(row)) if long else "")
            # Many sets keep a text twice: the problem, and the conversation that begins with it.
            if any(text.strip() not in said for text in long):
                self._long[name] += 1
                self._first.setdefault(name, where)

    @property
    def read(self) -> list[str]:
        """Columns of which something was read."""
        return [*self._read]

    @property
    def unread(self) -> list[str]:
        """Columns of which nothing was read."""
        return [name for name in self._seen if name not in self._read]

    def describe(self) -> str:
        """Return in words what was read and what not; "" where there were no columns."""
        if not self._read:
            return ""
        others = f"; not read: {', '.join(self.unread)}" if self.unread else ""
        return f"{self.source}: read {', '.join(self.read)}{others}"

    def check(self) -> None:
        """Check that nothing was left unread that most rows say something in.

        Raises:
            UserError: a column, which may hold the reasoning, was not read.
        """
        lost = [name for name, count in self._long.items() if 2 * count > self.rows]
        if lost:
            rule = (
                f"{self._first[lost[0]]}: a column that says something in most rows must be read, or be left out on "
                "purpose"
            )
            value = ", ".join(f"{name!r} unread in {self._long[name]} of {self.rows} rows" for name in lost)
            unnamed = next((name for name in lost if name.casefold() not in _ASKED), "")
            other = f"say what it is, as in --columns trace={unnamed}" if unnamed else "write it into the question"
            raise UserError(
                rule,
                value=f"{value} (read: {', '.join(self.read)})",
                cure=f"leave it out with --ignore {' '.join(lost)}, or {other}",
            )


def _read_texts(row: Cells) -> Iterator[str]:
    for name in row.read:
        keys, value = row.turn_keys.get(name), row.row[name]
        if keys and isinstance(value, list):
            value = [turn[key] for turn in value if isinstance(turn, Mapping) for key in turn if key in keys]
        yield from texts_in(value)


def _list_unread(row: Cells) -> Iterator[tuple[str, object]]:
    """Yield (name, value) of what was not read, the keys of a conversation's turns among it."""
    for name, value in row.row.items():
        if name not in row.read:
            yield name, value
        elif keys := row.turn_keys.get(name):
            turns = [turn for turn in value if isinstance(turn, Mapping)] if isinstance(value, list) else []
            others = dict.fromkeys(key for turn in turns for key in turn if key not in keys)
            for key in others:
                yield f"{name}[].{key}", [turn.get(key) for turn in turns]
