"""Columns that `--columns` names: how a cell is read, and what is said of a column that holds something else."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from mathlete.errors import UserError, nearest, split_pairs
from mathlete.logs.cells import ListTexts, find_cell, is_chat, is_empty, says_nothing
from mathlete.logs.entries import (
    LIMITS,
    Entry,
    Facts,
    LogRow,
    as_count,
    as_gold,
    as_logprob,
    as_number,
    as_seed,
    as_text,
    dig,
    list_golds,
    sampling_of,
)
from mathlete.logs.finishes import as_finish
from mathlete.logs.reasoned import opens_thoughts
from mathlete.text import counted


def _as_answer(value: object) -> str | None:
    """Return a cell as an answer; None where a program wrote there that it has none."""
    text = as_text(value)
    return None if text is None or says_nothing(text) else text


def _as_setting(name: str, value: object) -> float | None:
    return sampling_of({name: value}).get(name)


def _as_tokens(value: object) -> int | None:
    """Return a cell as a number of tokens, which a list of their ids has for its length."""
    ids = isinstance(value, list) and all(type(one) is int for one in value)
    return len(value) if isinstance(value, list) and ids else as_count(value)


COLUMNS: dict[str, Callable[[object], object]] = {
    "problem_id": as_text,
    "statement": as_text,
    "gold": as_gold,
    "subset": as_text,
    "text": lambda value: value if isinstance(value, str) else None,
    "answer": _as_answer,
    "tokens": _as_tokens,
    "seconds": as_number,
    "finish": as_finish,
    "logprob_mean": as_logprob,
    "seed": as_seed,
    "index": as_count,
}
"""{what a sample has and `--columns` may name: how its cell is read}."""
OF_RUN: dict[str, Callable[[object], str | float | None]] = {
    "model": as_text,
    **{name: partial(_as_setting, name) for name in LIMITS},
}
"""{what all rows of a file have in common and `--columns` may name: how its cell is read}."""
_READERS = {**COLUMNS, **OF_RUN}
_HOLDS = {
    **dict.fromkeys(("tokens", "seed", "index"), "whole numbers of 0 or more"),
    "seconds": "numbers of 0 or more",
    "logprob_mean": "log-probabilities, which are at most 0",
    "finish": "words for why a sample ended, such as stop or length",
    "temperature": "temperatures, which are from 0 to 5",
    "top_p": "shares above 0 and at most 1",
    "max_tokens": "whole numbers of 1 or more",
}
"""{a name: what its column must hold, where that is no text}."""
_TEXTS = ("text", "answer")
_NUMBERS = ("tokens", "seconds", "finish", "logprob_mean", "seed", "index")
_OF_ONE = ("tokens", "logprob_mean")
"""What is measured in each sample: one number of several is their total, and none of theirs."""
_OF_SAMPLE = _TEXTS + _NUMBERS
"""What differs between the samples of a problem, and so may be a list of as many."""


def parse_columns(words: Sequence[str]) -> dict[str, str]:
    """Return {name: column} of words like problem_id=doc.id.

    >>> parse_columns(["problem_id=doc.id", "text=resps.0.0"])
    {'problem_id': 'doc.id', 'text': 'resps.0.0'}

    Raises:
        UserError: another form, or a name that is not one of COLUMNS and OF_RUN or stands twice.
    """
    pairs = split_pairs(words, rule="--columns must be NAME=COLUMN", cure="write it as in --columns gold=answer")
    for name in pairs:
        if name not in _READERS:
            raise UserError("--columns must name what a sample has", value=name, cure=nearest(name, [*_READERS]))
    return pairs


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
        if key.isdigit() and isinstance(cell := dig(row, before), list) and len(cell) > 1 and not is_chat(cell):
            return before
    return None


def _leave_out(row: LogRow, column: str) -> LogRow:
    if column in row:
        return {name: cell for name, cell in row.items() if name != column}
    head, _, rest = column.partition(".")
    within = row.get(head)
    return {**row, head: _leave_out(within, rest)} if rest and isinstance(within, Mapping) else row


class NamedColumns:
    """The columns that are named for one file, and what its cells turned out to hold."""

    def __init__(self, path: Path, columns: Mapping[str, str], *, only_texts: bool = False) -> None:
        self.path, self.columns = path, columns
        self._texts = ListTexts(path=path, columns=columns, texts=_TEXTS, numbers=_NUMBERS, only_texts=only_texts)
        self._known: dict[str, None] = {}
        self._cures: dict[str, str] = {}
        self._numbers: dict[tuple[object, ...], Entry] = {}
        self._present: set[str] = set()
        self._read: Counter[str] = Counter()
        self._unread: Counter[str] = Counter()
        self._first: dict[str, str] = {}
        self._passed: Counter[tuple[str, str]] = Counter()
        self._totals: Counter[str] = Counter()

    def survey(self, row: LogRow, where: str) -> None:
        """Take in a row before any is read: all of them together show whether texts are lists."""
        self._texts.add(row, where)

    def check(self) -> None:
        """Raise UserError where the surveyed rows do not show it."""
        self._texts.check()

    def complete(self, entries: Sequence[Entry], row: LogRow, *, own: bool) -> list[Entry]:
        """Return a row's entries with what its cells say.

        Args:
            entries: what the layout reads in the row.
            row: the row.
            own: whether its layout tells the samples apart: then a cell that is a list has a member for each of them.
                In a table it makes a sample of each member.

        Raises:
            UserError: lists of several lengths, or of another one than the row has samples; one number of a problem's
                samples for two of them.
        """
        if not self.columns or not entries:
            return [*entries]
        complete, named = self._complete(entries, row, own=own)
        for entry in complete if named else ():
            self._require_one(entry)
        return complete

    def leave_out(self, row: LogRow) -> LogRow:
        """Return a row without the cells of named columns: what is named for one thing is nothing else."""
        for column in self.columns.values():
            row = _leave_out(row, column)
        return row

    def find_facts(self, row: LogRow, facts: Facts) -> Facts:
        """Return what a row says of its run, by the columns that are named for that before others."""
        of_run = {name: column for name, column in self.columns.items() if name in OF_RUN}
        if not of_run:
            return facts
        told = {name: OF_RUN[name](find_cell(row, column)) for name, column in of_run.items()}
        settings = {name: value for name, value in told.items() if isinstance(value, float)}
        return replace(
            facts,
            model=as_text(told.get("model", facts.model)),
            sampling={**facts.sampling, **settings},
            guessed=tuple(name for name in facts.guessed if name not in settings),
        )

    def _complete(self, entries: Sequence[Entry], row: LogRow, *, own: bool) -> tuple[list[Entry], bool]:
        """Return the entries, and whether their numbers are those of a named column."""
        self._known.update(dict.fromkeys(map(str, row)))
        cells = {name: self._texts.read(name, find_cell(row, column)) for name, column in self.columns.items()}
        self._present.update(name for name in cells if cells[name] is not None or self.columns[name] in row)
        # A layout that tells the samples apart has them all; a table has one of what could be several.
        if not own:
            parts = [(column, _find_list(row, column)) for name, column in self.columns.items() if name in _OF_SAMPLE]
            self._passed.update((column, part) for column, part in parts if part is not None)
        lists = {name: cell for name, cell in cells.items() if isinstance(cell, list) and name in _OF_SAMPLE}
        if lists.keys() == {"tokens"} and len(entries) == 1 and len(lists["tokens"]) != 1:
            # Beside one text they are its ids.
            cells["tokens"] = len(lists.pop("tokens"))
        count = len(next(iter(lists.values()))) if lists else len(entries)
        for name in [name for name in _OF_ONE if name in cells and name not in lists and count > 1]:
            self._totals[name] += not is_empty(name, cells.pop(name))
        if not lists:
            return [self._with_cells(entry, cells) for entry in entries], "index" in cells
        lengths = {name: len(cell) for name, cell in lists.items()} | ({"samples": len(entries)} if own else {})
        if len({*lengths.values()}) > 1:
            raise UserError(
                f"{entries[0].where}: lists of samples must be of one length",
                value=lengths,
                cure="mend the row, or name another column",
            )
        # Another cell that is no list is true of all samples of its row.
        members = [{**cells, **{name: cell[number] for name, cell in lists.items()}} for number in range(count)]
        of = entries if own else [entries[0]] * count
        complete = [self._with_cells(entry, one) for entry, one in zip(of, members, strict=True)]
        if not own and "index" not in lists:
            complete = [replace(entry, index=number) for number, entry in enumerate(complete)]
        return complete, "index" in lists

    def describe(self) -> list[str]:
        """Return sentences on the cells that say nothing; empty ones beside others need none.

        Raises:
            UserError: no row has a column, or all that it holds is something else.
        """
        path, sentences = self.path, self._texts.describe()
        sentences += [
            f"{path}: {column} reads one member of {part}, a list of several, and leaves out the others of "
            f"{counted(number, 'row')}; write a row for each member, or name a column whose cells are lists"
            for (column, part), number in self._passed.items()
        ]
        for name, column in self.columns.items():
            holds = _HOLDS.get(name, "texts")
            if name not in self._present:
                cure = nearest(column, [*self._known])
                raise UserError(f"{path} must have the named columns", value=column, cure=cure)
            if total := self._totals[name]:
                words = f"{path}: {column}, named for {name}, is one number for several samples in {total} of the rows"
                sentences.append(f"{words}, and no sample's own: it counts as missing; name a column that has one each")
            if self._read[name]:
                if unread := self._unread[name]:
                    words = f"{path}: cells of {column} that hold no {name}, and count as missing: {unread}"
                    sentences.append(f"{words}, first {self._first[name]}")
            elif self._unread[name]:
                rule = f"{path}: the column {column}, named for {name}, must hold {holds}"
                raise UserError(rule, value=self._first[name], cure=f"{self._cures[name]}, or leave {name} out")
            elif not total:
                sentences.append(f"{path}: the column {column}, named for {name}, is empty")
        return sentences

    def _with_cells(self, entry: Entry, cells: Mapping[str, object]) -> Entry:
        given: dict[str, Any] = {}
        for name, cell in cells.items():
            given[name] = _READERS[name](cell)
            if given[name] is not None:
                self._read[name] += 1
            elif not is_empty(name, cell):
                self._unread[name] += 1
                self._first.setdefault(name, f"{cell!r:.40} in {entry.where}")
                self._cures.setdefault(name, self._find_cure(name, cell))
        if "subset" in given:
            given["subset"] = given["subset"] or ""
        if given.get("logprob_mean") and self.columns["logprob_mean"].endswith("cumulative_logprob"):
            # vLLM's own name for the sum over all tokens.
            tokens = given.get("tokens") or entry.tokens
            given["logprob_mean"] = given["logprob_mean"] / tokens if tokens else None
        if opens_thoughts(given.get("statement")):
            given["thinking"] = True
        several = len(list_golds(cells["gold"])) > 1 if "gold" in cells else entry.other_golds
        return replace(entry, other_golds=several, **{name: given[name] for name in given if name not in OF_RUN})

    def _find_cure(self, name: str, cell: object) -> str:
        """Return how to name what stands within a cell that is an object, else another column."""
        within = cell.items() if isinstance(cell, Mapping) else ()
        key = next((key for key, value in within if _READERS[name](value) is not None), None)
        return "name another column" if key is None else f"name what stands in it, {name}={self.columns[name]}.{key}"

    def _require_one(self, entry: Entry) -> None:
        """Raise UserError where another sample of its problem has its number."""
        if entry.index is None:
            return
        first = self._numbers.setdefault((entry.problem_id or entry.statement, entry.index), entry)
        if not first.agrees_with(entry):
            raise UserError(
                f"{entry.where}: the column {self.columns['index']}, named for index, must number a problem's samples",
                value=f"{entry.index} for this one and for that of {first.where}, which says something else",
                cure="put the rows of each run into a file of their own, or leave index out: each row is then a sample",
            )
