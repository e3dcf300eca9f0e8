"""Tables of problems in whatever columns and format they come: JSON lines, JSON, CSV or parquet."""

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mathlete.errors import OnBad, UserError, stop
from mathlete.jsonl import read_json_lines
from mathlete.problems import Problem

FORMATS = (".jsonl", ".json", ".csv", ".parquet")
STATEMENTS = ("statement", "problem", "Problem", "question", "query", "instruction", "prompt")
GOLDS = ("gold", "answer", "Answer", "expected_answer", "final_answer")
SOLUTIONS = ("solution", "Solution", "output", "response", "answer")


def read_rows(path: Path, *, on_bad: OnBad = stop) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (`file:line` or `file[row]`, row) of a table; every value of a CSV is text, so that ids stay strings.

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


def _json(path: Path, *, on_bad: OnBad) -> Iterator[tuple[str, Any]]:
    try:
        rows = json.loads(path.read_bytes())
    except ValueError as error:
        cure = "mend the file; if each line is a row of its own, rename it to .jsonl"
        on_bad(UserError(f"{path}: must be JSON ({error})", cure=cure))
        return
    if not isinstance(rows, list):
        on_bad(UserError(f"{path}: must be a list of objects", value=type(rows).__name__, cure="put them in a list"))
        return
    for number, row in enumerate(rows):
        yield f"{path}[{number}]", row


def _csv(path: Path, *, on_bad: OnBad) -> Iterator[tuple[str, Any]]:
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


def _parquet(path: Path, *, on_bad: OnBad) -> Iterator[tuple[str, Any]]:
    import pyarrow.parquet
    from pyarrow import ArrowInvalid

    number = 0
    try:
        # Buffering ahead keeps what was read for as long as the file is open: 3 KB a row of traces.
        for batch in pyarrow.parquet.ParquetFile(path, pre_buffer=False).iter_batches(1024):
            for row in batch.to_pylist():
                yield f"{path}[{number}]", row
                number += 1
    except (ArrowInvalid, OSError) as error:
        after = f", after row {number - 1}" if number else ""
        on_bad(UserError(f"{path}: must be a whole parquet file ({error}){after}", cure="fetch it again"))


_READERS = {".jsonl": read_json_lines, ".json": _json, ".csv": _csv, ".parquet": _parquet}


def read_statements(path: Path) -> Iterator[Problem]:
    """Yields the problems of a table in any columns; the gold is "" where neither an answer nor a solution's box is.

    Raises:
        UserError: a row without a statement; the row and its columns are named.
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
        own = next((row[name] for name in GOLDS if name in row and row[name] is not None), "")
        solution = next((row[name] for name in SOLUTIONS if isinstance(row.get(name), str)), "")
        gold = cell_text(own)
        if not gold or gold == solution.strip():
            gold = extract(solution).string or ""
        yield Problem(id=str(row.get("id") or row.get("ID") or number), statement=statement, gold=gold)


def cell_text(value: object) -> str:
    """A cell as text; a float that is whole loses its point, NaN is an empty cell."""
    if isinstance(value, float) and math.isnan(value):
        return ""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()
