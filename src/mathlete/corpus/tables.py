"""Tables of problems in any columns, as JSON lines, JSON, CSV or parquet."""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mathlete.errors import OnBad, UserError, stop
from mathlete.jsonl import read_json_lines
from mathlete.problems import Problem
from mathlete.text import parse_json

TableRow = Mapping[str, Any]
"""A row of a table: its cells by column."""
FORMATS = (".jsonl", ".json", ".csv", ".parquet")
STATEMENTS = ("statement", "problem", "Problem", "question", "query", "instruction", "prompt")
GOLDS = ("gold", "answer", "Answer", "expected_answer", "final_answer")
SOLUTIONS = ("solution", "Solution", "output", "response", "answer")


def is_table(name: str) -> bool:
    """Return whether a name is that of a file in one of the formats."""
    return Path(name).suffix in FORMATS


def read_rows(path: Path, *, on_bad: OnBad = stop) -> Iterator[tuple[str, TableRow]]:
    """Yield (`file:line` or `file[row]`, row) of a table. All cells of a CSV are text, so that ids stay strings.

    Raises:
        UserError: no such file or another format; with `stop`, a broken file or a row that is not an object.
    """
    if path.suffix not in FORMATS:
        raise UserError("the table must be JSON lines, JSON, CSV or parquet", value=str(path), cure="convert it")
    if not path.is_file():
        raise UserError("the file must exist", value=str(path), cure="check the path")
    for where, row in _READERS[path.suffix](path, on_bad=on_bad):
        if isinstance(row, dict):
            yield where, row
        else:
            on_bad(UserError(f"{where}: a row must be an object", value=type(row).__name__, cure="mend the row"))


def _read_json(path: Path, *, on_bad: OnBad) -> Iterator[tuple[str, object]]:
    try:
        rows = parse_json(path.read_bytes())
    except ValueError as error:
        cure = "mend the file; if each line is a row of its own, rename it to .jsonl"
        on_bad(UserError(f"{path}: must be JSON ({error})", cure=cure))
        return
    if not isinstance(rows, list):
        on_bad(UserError(f"{path}: must be a list of objects", value=type(rows).__name__, cure="put them in a list"))
        return
    for number, row in enumerate(rows):
        yield f"{path}[{number}]", row


def _read_csv(path: Path, *, on_bad: OnBad) -> Iterator[tuple[str, object]]:
    csv.field_size_limit(2**30)  # a reasoning trace may be longer than the 128 KiB that csv allows a cell
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            reader = csv.DictReader(file, strict=True)
            for row in reader:
                where = f"{path}:{reader.line_num}"
                if None in row or None in row.values():
                    on_bad(UserError(f"{where}: must have as many cells as the header", cure="mend the row"))
                else:
                    yield where, row
        except (csv.Error, UnicodeDecodeError) as error:
            on_bad(UserError(f"{path}: must be CSV in UTF-8 ({error})", cure="mend the file"))


def _read_parquet(path: Path, *, on_bad: OnBad) -> Iterator[tuple[str, object]]:
    import pyarrow.parquet
    from pyarrow import ArrowInvalid

    number = 0
    try:
        # With pre_buffer, pyarrow keeps all bytes read until the file is closed: 3 KB per row of traces.
        for batch in pyarrow.parquet.ParquetFile(path, pre_buffer=False).iter_batches(1024):
            for row in batch.to_pylist():
                yield f"{path}[{number}]", row
                number += 1
    # UnicodeDecodeError: arrow does not look whether its text is UTF-8.
    except (ArrowInvalid, OSError, UnicodeDecodeError) as error:
        after = f", after row {number - 1}" if number else ""
        on_bad(UserError(f"{path}: must be a whole parquet file ({error}){after}", cure="fetch it again"))


_READERS = {".jsonl": read_json_lines, ".json": _read_json, ".csv": _read_csv, ".parquet": _read_parquet}


def read_statements(path: Path) -> Iterator[Problem]:
    """Yield the problems of a table in any columns; the gold is "" without an answer or a box in the solution.

    Raises:
        UserError: a row without a statement; the message names the row and its columns.
    """
    from mathlete.answers import extract

    for number, (where, row) in enumerate(read_rows(path)):
        statement = next((row[name] for name in STATEMENTS if isinstance(row.get(name), str)), "")
        if not statement.strip():
            raise UserError(
                f"{where}: a row needs its statement in one of {', '.join(STATEMENTS)}",
                value=sorted(map(str, row)),
                cure="rename the column",
            )
        solution = next((row[name] for name in SOLUTIONS if isinstance(row.get(name), str)), "")
        _, value = find_gold(row, solution=solution)
        gold = format_cell(value) or extract(solution).string or ""
        yield Problem(id=str(row.get("id") or row.get("ID") or number), statement=statement, gold=gold)


def find_gold(row: TableRow, columns: Sequence[str] = GOLDS, *, solution: str = "") -> tuple[str, object]:
    """Return (column, value) of a row's gold answer; ("", None) where it has none.

    The gold stands in the first of the columns that has a value. A cell that repeats the whole `solution`, as `answer`
    of an alpaca row may, is no gold. Of a list of one, its member counts.

    >>> find_gold({"gold": None, "answer": ["7"]}, solution="4+3=7"), find_gold({"answer": "4+3=7"}, solution="4+3=7")
    (('answer', '7'), ('', None))
    """
    present = [name for name in columns if name in row]
    column = next((name for name in present if row[name] is not None), present[0] if present else "")
    value = unwrap_single(row[column]) if column else None
    repeats = isinstance(value, str) and bool(solution) and value.strip() == solution.strip()
    return ("", None) if repeats else (column, value)


def unwrap_single(value: object) -> object:
    """Return the only member of a list: some sets keep one text in a list with room for several."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def format_cell(value: object) -> str:
    """Return a cell as text: a whole float loses its point, None and NaN are empty."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()
