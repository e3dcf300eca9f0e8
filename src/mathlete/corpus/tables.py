"""Tables in any columns: JSON lines, JSON, CSV, parquet and Arrow; one file, a folder, a pattern, or packed."""

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import BinaryIO, cast

from mathlete.corpus.cells import SOLUTIONS, STATEMENTS, TableRow, find_gold, format_gold
from mathlete.errors import OnBad, UserError, stop
from mathlete.jsonl import RECODE, parse_json_lines
from mathlete.problems import Problem
from mathlete.text import parse_json, quote

FORMATS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow")
_PACKED = (".gz", ".bz2", ".zst")
"""What a file of text may be packed as; pyarrow unpacks it."""
_DELIMITERS = ",;\t"
_SAVED, _SAVED_SPLITS = "state.json", "dataset_dict.json"
"""What `save_to_disk` of datasets leaves in a folder: of one table, of several splits."""
_ANY = frozenset("*?[")


def format_of(name: str) -> str:
    """Return the ending that says what a file holds, in lower case and without that of its packing; "" for none.

    >>> [format_of(name) for name in ("a.jsonl", "B.CSV", "c.jsonl.gz", "d.parquet.gz", "e.txt")]
    ['.jsonl', '.csv', '.jsonl', '', '']
    """
    path = Path(name.lower())
    packed = path.suffix in _PACKED
    ending = path.with_suffix("").suffix if packed else path.suffix
    return ending if ending in FORMATS and not (packed and ending in (".parquet", ".arrow")) else ""


def is_table(name: str) -> bool:
    """Return whether a name is that of a file in one of the formats, of a folder with such files, or a pattern."""
    if format_of(name):
        return True
    folder = Path(name)
    if any(sign in name for sign in _ANY):
        return bool(list_tables(name))
    return folder.is_dir() and (_is_saved(folder) or bool(list_tables(name)))


def _is_saved(folder: Path) -> bool:
    return (folder / _SAVED).is_file() or (folder / _SAVED_SPLITS).is_file()


def list_tables(name: str) -> tuple[Path, ...]:
    """Return the files that a name stands for: itself, those of a pattern, or the training files of a folder.

    Which files of a folder are its training split, and not its test or validation split, is decided as `datasets` does
    it for a folder: by the words in their names.
    """
    path = Path(name)
    if path.is_file() or (path.is_dir() and _is_saved(path)):
        return (path,)
    if any(sign in name for sign in _ANY):
        # pathlib's glob takes no absolute pattern.
        root = Path(path.anchor or ".")
        matches = root.glob(str(path.relative_to(path.anchor)))
        return tuple(sorted(one for one in matches if one.is_file() and format_of(one.name)))
    if not path.is_dir() or not any(format_of(one.name) for one in path.rglob("*")):
        return ()
    # Imported here: most names are those of a file.
    from datasets.data_files import get_data_patterns, resolve_pattern

    splits = get_data_patterns(str(path.resolve()))
    patterns = splits.get("train") or next(iter(splits.values()))
    files: set[Path] = set()
    for pattern in patterns:
        # Of a split's patterns one alone need match; the others are an error to it.
        with suppress(FileNotFoundError):
            files |= {Path(one) for one in resolve_pattern(pattern, str(path.resolve()))}
    return tuple(sorted(path / one.relative_to(path.resolve()) for one in files if format_of(one.name)))


def read_rows(path: Path, *, on_bad: OnBad = stop) -> Iterator[tuple[str, TableRow]]:
    """Yield (`file:line` or `file[row]`, row) of a table. All cells of a CSV are text, so that ids stay strings.

    Raises:
        UserError: no such file or another format; with `stop`, a broken file or a row that is not an object.
    """
    files = list_tables(str(path))
    known = all(file.is_dir() or format_of(file.name) for file in files) if files else format_of(path.name)
    if not known:
        raise UserError("the table must be JSON lines, JSON, CSV or parquet", value=str(path), cure="convert it")
    if not files:
        raise UserError("the file must exist", value=str(path), cure="check the path")
    for file in files:
        reader = _read_saved if file.is_dir() else _READERS[format_of(file.name)]
        for where, row in reader(file, on_bad=on_bad):
            if isinstance(row, dict):
                yield where, row
            else:
                on_bad(UserError(f"{where}: a row must be an object", value=type(row).__name__, cure="mend the row"))


@contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    """Open a file to read its bytes, unpacked."""
    packing = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}.get(path.suffix.lower())
    if packing is None:
        with path.open("rb") as file:
            yield file
        return
    import pyarrow

    with pyarrow.input_stream(str(path), compression=packing) as stream:
        yield cast(BinaryIO, io.BufferedReader(stream))


def _read_json_lines(path: Path, *, on_bad: OnBad) -> Iterator[tuple[str, object]]:
    with _open(path) as lines:
        yield from parse_json_lines(_whole_lines(lines, path, on_bad), path, on_bad=on_bad)


def _whole_lines(lines: BinaryIO, path: Path, on_bad: OnBad) -> Iterator[bytes]:
    """Yield the lines up to where the packing breaks off, which is a bad row."""
    try:
        yield from lines
    except OSError as error:
        on_bad(_explain_packing(path, error))


def _explain_packing(path: Path, error: OSError) -> UserError:
    """Return the error of a packed file that breaks off; any other is raised again."""
    if path.suffix.lower() not in _PACKED:
        raise error
    return UserError(f"{path}: must be a whole {path.suffix} file ({error})", cure="fetch it again")


def _read_json(path: Path, *, on_bad: OnBad) -> Iterator[tuple[str, object]]:
    with _open(path) as file:
        data = b"".join(_whole_lines(file, path, on_bad))
    try:
        rows = parse_json(data)
    except ValueError as error:
        if _is_object(data.lstrip().partition(b"\n")[0]):
            # One object a line is what many sets call .json.
            yield from parse_json_lines(data.splitlines(), path, on_bad=on_bad)
            return
        on_bad(UserError(f"{path}: must be JSON ({error})", cure="mend the file"))
        return
    if isinstance(rows, dict):
        tables = [name for name, value in rows.items() if _holds_rows(value)]
        if len(tables) > 1:
            cure = "put the rows that you mean into a file of their own"
            on_bad(UserError(f"{path}: must have one list of rows", value=", ".join(tables), cure=cure))
            return
        rows = rows[tables[0]] if tables else rows
    if not isinstance(rows, list):
        cure = 'put them in a list; pandas writes one with to_json(orient="records")'
        on_bad(UserError(f"{path}: must be a list of objects", value=type(rows).__name__, cure=cure))
        return
    for number, row in enumerate(rows):
        yield f"{path}[{number}]", row


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(parse_json(line), dict)
    except ValueError:
        return False


def _holds_rows(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _read_csv(path: Path, *, on_bad: OnBad) -> Iterator[tuple[str, object]]:
    csv.field_size_limit(2**30)  # a reasoning trace may be longer than the 128 KiB that csv allows a cell
    try:
        with _open(path) as file:
            lines = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
            head = next(lines, "")
            delimiter = max(_DELIMITERS, key=lambda sign: len(next(csv.reader([head], delimiter=sign), [])))
            reader = csv.DictReader(chain([head], lines), strict=True, delimiter=delimiter)
            names = list(reader.fieldnames or ())
            if repeated := sorted({name for name in names if names.count(name) > 1}):
                cure = "give each column a name of its own"
                value = ", ".join(map(repr, repeated))
                on_bad(UserError(f"{path}:1: each column must have a name of its own", value=value, cure=cure))
                return
            for row in reader:
                where = f"{path}:{_first_line(row, last=reader.line_num)}"
                if None in row or None in row.values():
                    cells = sum(len(value) if isinstance(value, list) else value is not None for value in row.values())
                    rule = f"{where}: must have as many cells as the header, {len(names)} between {delimiter!r}"
                    on_bad(UserError(rule, value=cells, cure="mend the row, or write the file with commas"))
                else:
                    yield where, row
    except UnicodeDecodeError as error:
        on_bad(UserError(f"{path}: must be CSV in UTF-8 ({error})", cure=RECODE))
    except csv.Error as error:
        on_bad(UserError(f"{path}: must be CSV in UTF-8 ({error})", cure="mend the file"))
    except OSError as error:
        on_bad(_explain_packing(path, error))


def _first_line(row: TableRow, *, last: int) -> int:
    """Return the line on which a row of a CSV begins, by the one on which it ends: its cells may hold line breaks."""
    cells = [cell for value in row.values() for cell in (value if isinstance(value, list) else [value])]
    return last - sum(str(cell).count("\n") for cell in cells)


def _read_parquet(path: Path, *, on_bad: OnBad) -> Iterator[tuple[str, object]]:
    import pyarrow.parquet

    def rows() -> Iterator[object]:
        # With pre_buffer, pyarrow keeps all bytes read until the file is closed: 3 KB per row of traces.
        for batch in pyarrow.parquet.ParquetFile(path, pre_buffer=False).iter_batches(1024):
            yield from batch.to_pylist()

    yield from _number(rows(), path, on_bad, rule="must be a whole parquet file")


def _read_arrow(path: Path, *, on_bad: OnBad) -> Iterator[tuple[str, object]]:
    import datasets

    def rows() -> Iterator[object]:
        yield from datasets.Dataset.from_file(str(path))

    yield from _number(rows(), path, on_bad, rule="must be a whole Arrow file")


def _read_saved(path: Path, *, on_bad: OnBad) -> Iterator[tuple[str, object]]:
    """Read what `save_to_disk` left; of several splits the one called train."""
    import datasets

    try:
        rows = datasets.load_from_disk(str(path))
    except (OSError, ValueError) as error:
        on_bad(UserError(f"{path}: must be what save_to_disk writes ({quote(str(error))})", cure="save it again"))
        return
    if isinstance(rows, datasets.DatasetDict):
        if "train" not in rows and len(rows) > 1:
            cure = f"name one of them: {path / next(iter(rows))}"
            raise UserError(f"{path}: a set of several splits must have one called train", value=[*rows], cure=cure)
        rows = rows["train"] if "train" in rows else next(iter(rows.values()))
    yield from _number(iter(rows), path, on_bad, rule="must be what save_to_disk writes")


def _number(rows: Iterator[object], path: Path, on_bad: OnBad, *, rule: str) -> Iterator[tuple[str, object]]:
    """Yield the rows that Arrow reads, each with its place; where it reads no further, that is a bad row."""
    from pyarrow import ArrowInvalid

    number = 0
    try:
        for row in rows:
            yield f"{path}[{number}]", row
            number += 1
    # UnicodeDecodeError: Arrow does not look whether its text is UTF-8.
    except (ArrowInvalid, OSError, UnicodeDecodeError) as error:
        after = f", after row {number - 1}" if number else ""
        on_bad(UserError(f"{path}: {rule} ({error}){after}", cure="fetch it again"))


_READERS = {
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
    ".arrow": _read_arrow,
}


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
        column, value = find_gold(row, solution=solution)
        gold = format_gold(value, column, where=where) or extract(solution).string or ""
        yield Problem(id=str(row.get("id") or row.get("ID") or number), statement=statement, gold=gold)
