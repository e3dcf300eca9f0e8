"""Reading one log: its content shows its layout, and columns may be named for what the layout does not say."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from mathlete.corpus import read_rows
from mathlete.errors import UserError, nearest, split_pairs
from mathlete.logs.entries import (
    STATEMENTS,
    Entry,
    Facts,
    Log,
    LogRow,
    Place,
    RowReader,
    as_count,
    as_finish,
    as_gold,
    as_number,
    as_text,
    dig,
)
from mathlete.logs.harness import (
    harness_facts,
    is_harness,
    is_lighteval,
    lighteval_facts,
    read_harness,
    read_lighteval,
)
from mathlete.logs.inspect import inspect_facts, is_inspect_json, read_inspect, read_inspect_rows
from mathlete.logs.nemo import is_nemo, nemo_facts, read_nemo
from mathlete.logs.responses import is_response, read_response, response_facts
from mathlete.text import parse_json


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a tool writes its samples, a row each."""

    words: str
    recognise: Callable[[LogRow], bool]
    facts: Callable[[LogRow, Path], Facts]
    read: RowReader


LAYOUTS = {
    "openai": Layout(
        words="responses of OpenAI's API (choices), or a batch's output (custom_id, response)",
        recognise=is_response,
        facts=lambda row, path: response_facts(row),
        read=read_response,
    ),
    "lm-eval": Layout(
        words="samples_TASK_DATE.jsonl of lm-evaluation-harness (doc_id, resps)",
        recognise=is_harness,
        facts=harness_facts,
        read=read_harness,
    ),
    "lighteval": Layout(
        words="details of lighteval (doc, model_response)",
        recognise=is_lighteval,
        facts=lighteval_facts,
        read=read_lighteval,
    ),
    "nemo-skills": Layout(
        words="generations of NeMo-Skills (generation, expected_answer)",
        recognise=is_nemo,
        facts=nemo_facts,
        read=read_nemo,
    ),
}
"""Logs that are tables. A log of Inspect is a zip or one JSON object, and a run of this project a folder."""
COLUMNS: dict[str, Callable[[Any], object]] = {
    "problem_id": as_text,
    "statement": as_text,
    "gold": as_gold,
    "subset": as_text,
    "text": lambda value: value if isinstance(value, str) else None,
    "answer": as_text,
    "tokens": as_count,
    "seconds": as_number,
    "finish": as_finish,
    "logprob_mean": lambda value: value if isinstance(value, float) else None,
    "seed": as_count,
    "index": as_count,
}
"""{what `--columns` may name: how its cell is read}."""
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


def read_log(path: Path, columns: Mapping[str, str]) -> Log:
    """Read the samples of one file.

    Raises:
        UserError: no such file, no known layout and no columns for it, or a row that cannot be read.
    """
    if not path.is_file():
        raise UserError("a log that is imported must be a file, or a run's folder", value=str(path), cure="check it")
    if path.suffix in (".eval", ".json") and (path.suffix == ".eval" or is_inspect_json(_read_json(path))):
        header, rows = read_inspect_rows(path)
        with _explain_layout(str(path), "inspect", "a log"):
            facts = inspect_facts(header)
        return _collect(path, "inspect", facts, rows, read_inspect, columns)
    rows = iter(read_rows(path))
    first = next(rows, None)
    if first is None:
        raise UserError("a log must hold at least one row", value=str(path), cure="check the path")
    name = next((name for name, layout in LAYOUTS.items() if layout.recognise(first[1])), "columns")
    if name == "columns":
        _check_columns(first[1], columns, path)
        return _collect(path, name, Facts(), chain([first], rows), _read_columns, columns)
    layout = LAYOUTS[name]
    every = chain([first], rows)
    with _explain_layout(first[0], name, "a row"):
        facts = layout.facts(first[1], path)
    return _collect(path, name, facts, every, layout.read, columns)


def _read_json(path: Path) -> object:
    try:
        return parse_json(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path} must be JSON ({error})", cure="copy the file again") from error


def _check_columns(row: LogRow, columns: Mapping[str, str], path: Path) -> None:
    if not columns.keys() & {"text", "answer"}:
        known = "; ".join([*(layout.words for layout in LAYOUTS.values()), "logs of Inspect"])
        raise UserError(
            f"{path} must be a log of a known layout",
            value=f"columns {', '.join(map(str, row))}",
            cure=f"name its columns, --columns problem_id=… text=… gold=…; known layouts: {known}",
        )
    if lacking := [column for column in columns.values() if column not in row and dig(row, column) is None]:
        raise UserError(f"{path} must have the named columns", value=lacking[0], cure=nearest(lacking[0], [*row]))


def _read_columns(row: LogRow, place: Place) -> Iterator[Entry]:
    """Yield a row of a table whose columns are all named; a statement may stand where it usually does."""
    statement = next((text for name in STATEMENTS if isinstance(text := row.get(name), str) and text.strip()), None)
    yield Entry(where=place.where, statement=statement)


def _collect(
    path: Path,
    layout: str,
    facts: Facts,
    rows: Iterator[tuple[str, LogRow]],
    read: RowReader,
    columns: Mapping[str, str],
) -> Log:
    entries: list[Entry] = []
    failed: list[str] = []
    kept: object = None
    for where, row in rows:
        # The harness writes every row once for each of its filters; the samples are the same ones.
        if layout == "lm-eval":
            kept = row.get("filter") if kept is None else kept
            if row.get("filter") != kept:
                continue
        samples = _read_row(row, read, Place(path=path, where=where, facts=facts), layout)
        entries += [one for entry in samples for one in _with_columns(entry, row, columns, where=where)]
        failed += [] if samples else [where]
    return Log(path=path, layout=layout, facts=facts, entries=entries, failed=failed)


def _read_row(row: LogRow, read: RowReader, place: Place, layout: str) -> list[Entry]:
    """Return the samples in a row; one that is not as its layout's tool writes it is a mistake of the file."""
    with _explain_layout(place.where, layout, "a row"):
        return [*read(row, place)]


@contextmanager
def _explain_layout(where: str, layout: str, what: str) -> Iterator[None]:
    try:
        yield
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise UserError(
            f"{where}: {what} must be as {layout} writes it",
            value=f"{type(error).__name__}: {error}",
            cure="mend or delete the row, or write it as a table and name its columns, --columns problem_id=… text=…",
        ) from error


def _with_columns(entry: Entry, row: LogRow, columns: Mapping[str, str], *, where: str) -> list[Entry]:
    """Return the entry with what the named columns say; where a cell is a list, it is a sample for each member."""
    cells = {name: dig(row, column) for name, column in columns.items()}
    lists = {name: cell for name, cell in cells.items() if isinstance(cell, list) and name in _OF_SAMPLE}
    if not lists:
        return [_with_cells(entry, cells)]
    lengths = {name: len(cell) for name, cell in lists.items()}
    if len({*lengths.values()}) > 1:
        raise UserError(f"{where}: lists of samples must be of one length", value=lengths, cure="mend the row")
    count = len(next(iter(lists.values())))
    members = [{**cells, **{name: cell[number] for name, cell in lists.items()}} for number in range(count)]
    return [replace(_with_cells(entry, one), index=number) for number, one in enumerate(members)]


def _with_cells(entry: Entry, cells: Mapping[str, object]) -> Entry:
    given: dict[str, Any] = {name: COLUMNS[name](cell) for name, cell in cells.items()}
    if "subset" in given:
        given["subset"] = given["subset"] or ""
    return replace(entry, **given) if given else entry
