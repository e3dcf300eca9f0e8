"""Cells: what stands at a column's path in a row, and which texts of a column are lists that a program wrote as text.

CSV has texts alone, so pandas writes a list as Python shows it, and others as JSON. `[1, 2]` may be a list, an interval
or a point, though: all cells of a column together decide which of them it has.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mathlete.errors import UserError
from mathlete.logs.entries import LogRow, dig
from mathlete.text import counted, read_list

_BROKEN = re.compile(r"\[\s*(?:['\"].*|[-+.\deE]+(?:\s+[-+.\deE]+)+\s*\])", re.DOTALL)
"""A list that is cut off, or that numpy wrote, which sets no commas."""
_NO_ANSWER = ("none", "nan", "null", "<na>")
"""How programs write that there is nothing, where a table has only texts."""
_FEW = 20
"""Of at least so many cells one may be a model's reply that is a list."""
_CURE = (
    "write the file as JSON lines, where a list is a list and a text a text: in pandas "
    'to_json(orient="records", lines=True)'
)


def find_cell(row: object, column: str) -> object:
    """Return what stands at a path in a row; beyond a list of objects, a list of what each of them has there.

    >>> find_cell({"outputs": [{"text": "a"}, {"text": "b"}]}, "outputs.text")
    ['a', 'b']
    """
    value = dig(row, column)
    if value is not None or "." not in column:
        return value
    keys = column.split(".")
    for at in range(1, len(keys)):
        members, rest = dig(row, ".".join(keys[:at])), ".".join(keys[at:])
        if not isinstance(members, list) or keys[at].isdigit() or is_chat(members):
            continue
        objects = [one for one in members if isinstance(one, Mapping)]
        if len(objects) == len(members) and (not objects or any(keys[at] in one for one in objects)):
            return [find_cell(one, rest) for one in objects]
    return None


def is_chat(members: Sequence[object]) -> bool:
    """Return whether a list is a conversation, of which one message is the sample."""
    return bool(members) and all(isinstance(one, Mapping) and ("role" in one or "from" in one) for one in members)


def says_nothing(text: str) -> bool:
    """Return whether an answer is how a program writes that there is none."""
    return text.strip().lower() in _NO_ANSWER


def is_empty(name: str, cell: object) -> bool:
    """Return whether a cell says that it has nothing, and not something else than its column is named for."""
    if isinstance(cell, str):
        return not cell.strip() or (name == "answer" and says_nothing(cell))
    return cell is None or cell == []


@dataclass
class _Column:
    """What is known of the texts of a column."""

    filled: int = 0
    lists: int = 0
    broken: int = 0
    matched: int = 0
    """Lists that are as long as another column's of their row."""
    certain: bool = False
    """Whether one of them has a text or nothing among its members, as no interval and no point has."""
    longest: int = 0
    first: str = ""
    """The first list, and where it stands."""

    @property
    def is_whole(self) -> bool:
        """Whether all cells are lists."""
        return 0 < self.lists == self.filled

    @property
    def is_mixed(self) -> bool:
        """Whether some cells are lists of several texts, and others are none."""
        return self.certain and self.longest > 1 and not self.is_whole

    @property
    def is_plain(self) -> bool:
        """Whether nearly all cells are none."""
        return self.lists * _FEW <= self.filled


@dataclass(kw_only=True)
class ListTexts:
    """Which named columns of a file have lists as texts."""

    path: Path
    columns: Mapping[str, str]
    texts: Collection[str]
    """Columns of samples that hold texts: others are numbers or words, which no list is."""
    numbers: Collection[str]
    """Columns of samples in which a list can be nothing else."""
    only_texts: bool
    """Whether all cells of the file are texts: elsewhere a writer who means a list writes one."""
    _known: dict[str, _Column] = field(default_factory=dict)
    _taken: Counter[str] = field(default_factory=Counter)

    def add(self, row: LogRow, where: str) -> None:
        """Take in a row."""
        sure: dict[str, int] = {}
        unsure: dict[str, int] = {}
        for name, column in self.columns.items():
            cell = find_cell(row, column)
            if not isinstance(cell, str) or is_empty(name, cell):
                continue
            known = self._known.setdefault(name, _Column())
            known.filled += 1
            if not cell.lstrip().startswith("["):
                continue
            if (members := read_list(cell)) is None:
                known.broken += _BROKEN.match(cell.strip()) is not None
                known.first = known.first or f"{cell.strip()!r:.60} in {where}"
                continue
            # Numbers alone in brackets may be an interval, or a point.
            certain = any(one is None or isinstance(one, str) for one in members)
            known.lists += 1
            known.certain = known.certain or certain
            known.longest = max(known.longest, len(members))
            known.first = known.first or f"{cell.strip()!r:.60} in {where}"
            if name in self.numbers or name in self.texts:
                (sure if certain or name in self.numbers else unsure)[name] = len(members)
        # Beside lists of the same row that are sure, one of their length is a list too.
        for name, length in unsure.items():
            self._known[name].matched += {*sure.values()} == {length}

    def check(self) -> None:
        """Raise UserError where nobody can say whether a column of texts has lists."""
        for name in self.texts:
            known = self._known.get(name, _Column())
            broken = known.broken and known.broken + known.lists == known.filled
            is_mixed = known.is_mixed and not known.is_plain
            if self.only_texts and (broken or is_mixed or (known.is_whole and not self._holds_lists(name))):
                raise UserError(
                    f"{self.path}: it must be plain whether {self.columns[name]}, named for {name}, has lists",
                    value=f"{counted(known.lists, 'list')} in {counted(known.filled, 'cell')}, first {known.first}",
                    cure=_CURE,
                )

    def read(self, name: str, cell: object) -> object:
        """Return a cell, as a list where its text is one, or as the one answer in it."""
        if not isinstance(cell, str) or not cell.lstrip().startswith("[") or (members := read_list(cell)) is None:
            return cell
        known, certain = self._known.get(name, _Column()), any(isinstance(one, str) for one in members)
        if name in self.numbers or name in self.texts:
            is_taken = name in self.numbers or self._holds_lists(name)
        else:
            # Several members are several gold answers where one of them is a text.
            is_taken = (certain or known.is_whole) if len(members) == 1 else (certain and name == "gold")
        # Beside bare answers a list of one text is its answer, and no list of samples.
        is_bare = name == "answer" and not is_taken and certain and known.longest == 1
        self._taken[name] += is_taken or is_bare
        return members[0] if is_bare else members if is_taken else cell

    def describe(self) -> list[str]:
        """Return a sentence on each column whose texts were taken for lists, and on those that might have been."""
        sentences = [
            f"{self.path}: texts of {self.columns[name]} that are lists, and were read as such: {number}"
            for name, number in self._taken.items()
            if number
        ]
        mixed = {name: known for name in self.texts if (known := self._known.get(name, _Column())).is_mixed}
        return sentences + [
            f"{self.path}: texts of {self.columns[name]} that are lists, and were read as texts, for others are none: "
            f"{known.lists} of {known.filled}, first {known.first}"
            for name, known in mixed.items()
        ]

    def _holds_lists(self, name: str) -> bool:
        known = self._known.get(name, _Column())
        return known.is_whole and (known.certain or known.matched == known.lists)
