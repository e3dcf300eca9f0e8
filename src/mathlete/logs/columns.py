"""Columns that `--columns` names: how a cell is read, and what is said of a column that holds something else."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mathlete.errors import UserError, nearest, split_pairs
from mathlete.logs.entries import (
    Entry,
    LogRow,
    as_count,
    as_gold,
    as_logprob,
    as_number,
    as_seed,
    as_text,
    dig,
)
from mathlete.logs.finishes import as_finish
from mathlete.text import counted

_NO_ANSWER = ("none", "nan", "null", "<na>")
"""How programs write that there is nothing, where a table has only texts."""


def _as_answer(value: object) -> str | None:
    """Return a cell as an answer; None where a program wrote there that it has none."""
    text = as_text(value)
    return None if text is None or text.strip().lower() in _NO_ANSWER else text


COLUMNS: dict[str, Callable[[object], object]] = {
    "problem_id": as_text,
    "statement": as_text,
    "gold": as_gold,
    "subset": as_text,
    "text": lambda value: value if isinstance(value, str) else None,
    "answer": _as_answer,
    "tokens": as_count,
    "seconds": as_number,
    "finish": as_finish,
    "logprob_mean": as_logprob,
    "seed": as_seed,
    "index": as_count,
}
"""{what `--columns` may name: how its cell is read}."""
_HOLDS = {
    **dict.fromkeys(("tokens", "seed", "index"), "whole numbers of 0 or more"),
    "seconds": "numbers of 0 or more",
    "logprob_mean": "log-probabilities, which are at most 0",
    "finish": "words for why a sample ended, such as stop or length",
}
"""{a name: what its column must hold, where that is no text}."""
_OF_SAMPLE = ("text", "answer", "tokens", "seconds", "finish", "logprob_mean", "seed")
"""What differs between the samples of a problem, and so may be a list of as many."""


def parse_columns(words: Sequence[str]) -> dict[str, str]:
    """Return {name: column} of words like problem_id=doc.id.

    >>> parse_columns(["problem_id=doc.id", "text=resps.0.0"])
    {'problem_id': 'doc.id', 'text': 'resps.0.0'}

    Raises:
        UserError: another form, or a name that is not one of COLUMNS or stands twice.
    """
    pairs = split_pairs(words, rule="--columns must be NAME=COLUMN", cure="write it as in --columns gold=answer")
    for name in pairs:
        if name not in COLUMNS:
            raise UserError("--columns must name what a sample has", value=name, cure=nearest(name, [*COLUMNS]))
    return pairs


def _is_empty(name: str, cell: object) -> bool:
    """Return whether a cell says that it has nothing, and not something else than its column is named for."""
    if isinstance(cell, str):
        return not cell.strip() or (name == "answer" and cell.strip().lower() in _NO_ANSWER)
    return cell is None or cell == []


def _find_list(row: object, path: str) -> str | None:
    """Return the part of a path that ends at a list of which it goes on to read one member of several; None without.

    >>> _find_list({"outputs": [{"text": "a"}, {"text": "b"}]}, "outputs.0.text")
    'outputs'
    """
    keys = path.split(".")
    if (isinstance(row, Mapping) and path in row) or not any(key.isdigit() for key in keys):
        return None
    for at, key in enumerate(keys):
        before = ".".join(keys[:at])
        if key.isdigit() and isinstance(cell := dig(row, before), list) and len(cell) > 1 and not _is_chat(cell):
            return before
    return None


def _is_chat(members: Sequence[object]) -> bool:
    """Return whether a list is a conversation, of which one message is the sample."""
    return all(isinstance(one, Mapping) and ("role" in one or "from" in one) for one in members)


class NamedColumns:
    """The columns that are named for one file, and what its cells turned out to hold."""

    def __init__(self, columns: Mapping[str, str]) -> None:
        self._columns = columns
        self._known: list[str] = []
        self._present: set[str] = set()
        self._read: Counter[str] = Counter()
        self._unread: Counter[str] = Counter()
        self._first: dict[str, str] = {}
        self._passed: Counter[tuple[str, str]] = Counter()

    def complete(self, entries: Sequence[Entry], row: LogRow, *, own: bool) -> list[Entry]:
        """Return a row's entries with what its cells say.

        Args:
            entries: what the layout reads in the row.
            row: the row.
            own: whether its layout tells the samples apart: then a cell that is a list has a member for each of them.
                In a table it makes a sample of each member.

        Raises:
            UserError: lists of several lengths, or of another one than the row has samples.
        """
        if not self._columns or not entries:
            return [*entries]
        # A cure names the columns of the first row: a table has the same in all.
        self._known = self._known or [*map(str, row)]
        cells = {name: dig(row, column) for name, column in self._columns.items()}
        self._present.update(name for name in cells if cells[name] is not None or self._columns[name] in row)
        # A layout that tells the samples apart has them all; a table has one of what could be several.
        if not own:
            parts = [(column, _find_list(row, column)) for name, column in self._columns.items() if name in _OF_SAMPLE]
            self._passed.update((column, part) for column, part in parts if part is not None)
        lists = {name: cell for name, cell in cells.items() if isinstance(cell, list) and name in _OF_SAMPLE}
        if not lists:
            return [self._with_cells(entry, cells) for entry in entries]
        lengths = {name: len(cell) for name, cell in lists.items()} | ({"samples": len(entries)} if own else {})
        if len({*lengths.values()}) > 1:
            raise UserError(
                f"{entries[0].where}: lists of samples must be of one length",
                value=lengths,
                cure="mend the row, or name another column",
            )
        count = len(next(iter(lists.values())))
        # A cell that is no list is true of all samples of its row.
        members = [{**cells, **{name: cell[number] for name, cell in lists.items()}} for number in range(count)]
        if own:
            return [self._with_cells(entry, one) for entry, one in zip(entries, members, strict=True)]
        return [replace(self._with_cells(entries[0], one), index=number) for number, one in enumerate(members)]

    def describe(self, path: Path) -> list[str]:
        """Return sentences on the cells that say nothing; empty ones beside others need none.

        Raises:
            UserError: no row has a column, or all that it holds is something else.
        """
        sentences = [
            f"{path}: {column} reads one member of {part}, a list of several, and leaves out the others of "
            f"{counted(number, 'row')}; write a row for each member, or name a column whose cells are lists"
            for (column, part), number in self._passed.items()
        ]
        for name, column in self._columns.items():
            holds = _HOLDS.get(name, "texts")
            if name not in self._present:
                cure = nearest(column, self._known)
                raise UserError(f"{path} must have the named columns", value=column, cure=cure)
            if self._read[name]:
                if unread := self._unread[name]:
                    words = f"{path}: cells of {column} that hold no {name}, and count as missing: {unread}"
                    sentences.append(f"{words}, first {self._first[name]}")
            elif self._unread[name]:
                rule = f"{path}: the column {column}, named for {name}, must hold {holds}"
                raise UserError(rule, value=self._first[name], cure=f"name another column, or leave {name} out")
            else:
                sentences.append(f"{path}: the column {column}, named for {name}, is empty")
        return sentences

    def _with_cells(self, entry: Entry, cells: Mapping[str, object]) -> Entry:
        given: dict[str, Any] = {}
        for name, cell in cells.items():
            given[name] = COLUMNS[name](cell)
            if given[name] is not None:
                self._read[name] += 1
            elif not _is_empty(name, cell):
                self._unread[name] += 1
                self._first.setdefault(name, f"{cell!r:.40} in {entry.where}")
        if "subset" in given:
            given["subset"] = given["subset"] or ""
        return replace(entry, **given)
