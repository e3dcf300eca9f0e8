"""Hub data sets, or a mirror of them on disk, read into Problems and Traces through one column mapping."""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from mathlete.answers import extract
from mathlete.corpus.traces import Trace, TracedProblem, read_traced
from mathlete.errors import UserError, nearest
from mathlete.models import data_folder
from mathlete.problems import Problem, read_json_lines

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Source:
    """One entry of `data/sources.toml`."""

    name: str
    hub: str
    split: str
    statement: str
    answer: str
    gold: str
    licence: str
    config: str = ""
    revision: str | None = None
    id: str = ""
    subset: str = ""
    trace: str = ""
    trace_kind: str = ""

    def mirrored(self, mirror: Path) -> Path:
        """The file a mirror holds this split in: `<owner>/<name>/[<config>/]<split>.jsonl`."""
        return mirror.joinpath(*self.hub.split("/"), self.config, f"{self.split}.jsonl")


@cache
def sources() -> dict[str, Source]:
    """All sources by name."""
    table = tomllib.loads((data_folder() / "sources.toml").read_text(encoding="utf-8"))
    return {name: Source(name=name, **entry) for name, entry in table.items()}


def source(name: str) -> Source:
    """The source of that name.

    Raises:
        UserError: an unknown name, with the nearest known ones.
    """
    if name not in sources():
        raise UserError("the source must be a known one", value=repr(name), cure=nearest(name, [*sources()]))
    return sources()[name]


def rows_of(src: Source, *, mirror: Path | None) -> Iterator[tuple[str, Row]]:
    """Yields (where, row) in the hub's own columns, from the mirror or from the hub.

    Raises:
        UserError: the mirror lacks the file, the hub can't be reached, or a row is not an object.
    """
    if mirror is None:
        yield from _hub_rows(src)
        return
    file = src.mirrored(mirror)
    if not file.is_file():
        raise UserError(f"the mirror must hold {src.hub}", value=f"no {file}", cure="put the split there as JSON lines")
    for where, row in read_json_lines(file):
        if not isinstance(row, dict):
            raise UserError(f"{where}: a row must be a JSON object", value=type(row).__name__, cure="mend the line")
        yield where, row


def _hub_rows(src: Source) -> Iterable[tuple[str, Row]]:
    import datasets

    try:
        table = datasets.load_dataset(src.hub, src.config or None, split=src.split, revision=src.revision)
    except (OSError, ValueError) as error:  # offline is a ConnectionError, an OSError; unknown configs are ValueErrors
        raise UserError(
            f"{src.hub} can't be had from the hub ({type(error).__name__})",
            cure=f"go online, or give --mirror DIR with {src.mirrored(Path('DIR'))}",
        ) from error
    for number, row in enumerate(table):
        yield f"{src.hub}[{number}]", row


def gold_of(src: Source, row: Row, *, where: str) -> str:
    """The gold answer as text; a float that is whole loses its point (AMC stores 142.0).

    Raises:
        UserError: no answer in the row.
    """
    value = row.get(src.answer)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = "" if value is None else str(value).strip()
    if src.gold == "after ####":
        text = text.rpartition("####")[2].strip().replace(",", "") if "####" in text else ""
    if not text:
        raise UserError(f"{where}: a row needs an answer in {src.answer!r}", value=repr(value), cure="mend the row")
    return text


def problem_of(src: Source, row: Row, *, number: int, where: str) -> Problem:
    """The Problem in a row; ids are `<set>-<the row's own id, else its number>`, so that sets can be joined."""
    statement = row.get(src.statement)
    if not isinstance(statement, str) or not statement.strip():
        raise UserError(
            f"{where}: a row needs a statement in {src.statement!r}", value=sorted(row), cure="mend the row"
        )
    own = row.get(src.id) if src.id else None
    return Problem(
        id=f"{src.hub.rpartition('/')[2]}-{own if own not in (None, '') else number}",
        statement=statement.strip(),
        gold=gold_of(src, row, where=where),
        source=src.hub,
        subset=str(row.get(src.subset) or "") if src.subset else "",
        licence=src.licence,
    )


def load_problems(name: str, *, mirror: Path | None = None) -> list[Problem]:
    """All problems of a source, in its order."""
    src = source(name)
    found = enumerate(rows_of(src, mirror=mirror))
    return [problem_of(src, row, number=number, where=where) for number, (where, row) in found]


def load_traces(
    name: str, *, mirror: Path | None = None, limit: int | None = None, seed: int = 0
) -> list[TracedProblem]:
    """Up to `limit` traced problems of a source or a JSONL file, in its order; `seed` chooses the pocket generator's.

    Raises:
        UserError: a source that has no traces.
    """
    return list(iter_traces(name, mirror=mirror, limit=limit, seed=seed))


def iter_traces(
    name: str, *, mirror: Path | None = None, limit: int | None = None, seed: int = 0
) -> Iterator[TracedProblem]:
    """Yields what `load_traces` returns, read as it is asked for; a wrong name is an error of the call itself."""
    if name.startswith("pocket"):
        from mathlete.corpus.pocket import training_traces

        return iter(training_traces(name, count=limit, seed=seed))
    if name.endswith(".jsonl"):
        return islice(read_traced(Path(name)), limit)
    with_traces = sorted(["pocket", *(key for key, value in sources().items() if value.trace)])
    src = sources().get(name)
    if src is None:
        cure = f"{nearest(name, with_traces)}, or a file of traced problems ending in .jsonl"
        raise UserError("the source must be a known one", value=repr(name), cure=cure)
    if not src.trace:
        cure = f"use {' or '.join(with_traces)}"
        raise UserError("training needs a source with traces", value=repr(name), cure=cure)
    return islice(_traced(src, mirror=mirror), limit)


def _traced(src: Source, *, mirror: Path | None) -> Iterator[TracedProblem]:
    for number, (where, row) in enumerate(rows_of(src, mirror=mirror)):
        problem = problem_of(src, row, number=number, where=where)
        trace = (_solution_trace if src.trace_kind == "solution" else _generation_trace)(src, row, problem)
        if trace is not None:
            yield TracedProblem(problem=problem, trace=trace)


def _solution_trace(src: Source, row: Row, problem: Problem) -> Trace:
    # GSM8K's calculator marks <<48/2=24>> are for a tool, not for a reader.
    text = re.sub(r"<<[^<>]*>>", "", str(row[src.trace])).rpartition("####")[0].strip()
    return Trace(problem_id=problem.id, text=text, answer=problem.gold, generator=src.hub)


def _generation_trace(src: Source, row: Row, problem: Problem) -> Trace | None:
    for text in row[src.trace] or ():
        thought, closed, rest = str(text).rpartition("</think>")
        answer = extract(rest).string if closed else None
        if answer is not None:
            body = thought.partition("<think>")[2] if "<think>" in thought else thought
            return Trace(problem_id=problem.id, text=body.strip(), answer=answer, generator="deepseek-r1")
    return None
