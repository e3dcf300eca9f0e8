"""Reading one log: its content shows its layout, and columns may be named for what the layout does not say."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mathlete.corpus import read_rows
from mathlete.errors import UserError
from mathlete.logs.columns import NamedColumns
from mathlete.logs.entries import (
    Entry,
    Facts,
    Log,
    LogRow,
    Place,
    RowReader,
    describe_golds_left_out,
    describe_unread_ends,
    dig,
    find_statement,
)
from mathlete.logs.facts import find_facts
from mathlete.logs.harness import (
    harness_facts,
    harness_file_facts,
    is_harness,
    is_lighteval,
    lighteval_facts,
    lighteval_file_facts,
    read_harness,
    read_lighteval,
)
from mathlete.logs.inspect import inspect_facts, is_inspect_json, read_inspect, read_inspect_rows
from mathlete.logs.nemo import is_nemo, nemo_facts, read_nemo
from mathlete.logs.reasoned import shows_opening
from mathlete.logs.responses import is_response, read_response, response_facts
from mathlete.text import parse_json

_TEXTS = re.compile(r"\.[ct]sv(\.(gz|bz2|zst))?$", re.IGNORECASE)
"""How the names of tables end whose cells are all texts."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a tool writes its samples, a row each."""

    words: str
    recognise: Callable[[LogRow], bool]
    facts: Callable[[LogRow], Facts]
    """What a row says; all rows of a file must say the same."""
    read: RowReader
    file_facts: Callable[[Path], Facts] = lambda path: Facts()
    """What the file's name, or what stands beside it, says."""


LAYOUTS = {
    "openai": Layout(
        words="responses of OpenAI's API (choices, output), or a batch's output (custom_id, response)",
        recognise=is_response,
        facts=response_facts,
        read=read_response,
    ),
    "lm-eval": Layout(
        words="samples_TASK_DATE.jsonl of lm-evaluation-harness (doc_id, resps)",
        recognise=is_harness,
        facts=harness_facts,
        read=read_harness,
        file_facts=harness_file_facts,
    ),
    "lighteval": Layout(
        words="details of lighteval (doc, model_response)",
        recognise=is_lighteval,
        facts=lighteval_facts,
        read=read_lighteval,
        file_facts=lighteval_file_facts,
    ),
    "nemo-skills": Layout(
        words="generations of NeMo-Skills (generation, expected_answer)",
        recognise=is_nemo,
        facts=nemo_facts,
        read=read_nemo,
    ),
}
"""Logs that are tables. A log of Inspect is a zip or one JSON object, and a run of this project a folder."""


def read_log(path: Path, columns: Mapping[str, str]) -> Log:
    """Read the samples of one file.

    Raises:
        UserError: no such file, no known layout and no columns for it, a row that cannot be read, rows of several
            models or settings, or a named column that holds something else.
    """
    if not path.is_file():
        raise UserError("a log that is imported must be a file, or a run's folder", value=str(path), cure="check it")
    if _is_inspect(path):
        header, rows = read_inspect_rows(path)
        with _explain_layout(str(path), "inspect", "a log"):
            facts = inspect_facts(header)
        # Of an Inspect log the header speaks for all samples.
        inspect = Layout(words="", recognise=bool, facts=lambda row: facts, read=read_inspect)
        return _collect("inspect", inspect, rows, NamedColumns(path, columns))
    named = NamedColumns(path, columns, only_texts=bool(_TEXTS.search(path.name)))
    name, first = _find_layout(path, named)
    if name == "columns" and not columns.keys() & {"text", "answer"}:
        known = "; ".join([*(layout.words for layout in LAYOUTS.values()), "logs of Inspect"])
        raise UserError(
            f"{path} must be a log of a known layout",
            value=f"columns {', '.join(map(str, first))}",
            cure=f"name its columns, --columns problem_id=… text=… gold=…; known layouts: {known}",
        )
    return _collect(name, LAYOUTS.get(name, _TABLE), read_rows(path), named)


def _find_layout(path: Path, named: NamedColumns) -> tuple[str, LogRow]:
    """Return the layout of a file, and its first row, which may be a request that failed and so of no layout."""
    name, first = "", None
    for where, row in read_rows(path):
        first = row if first is None else first
        name = name or next((name for name, layout in LAYOUTS.items() if layout.recognise(row)), "")
        if name and not named.columns:
            break
        named.survey(row, where)
    if first is None:
        raise UserError("a log must hold at least one row", value=str(path), cure="check the path")
    named.check()
    return name or "columns", first


def find_unfinished(path: Path) -> str | None:
    """Return in a sentence that a log is no more than a part of its run; None where it is whole, or cannot say so.

    Raises:
        UserError: a log of Inspect that is damaged.
    """
    if not _is_inspect(path):
        return None
    # A log whose run was killed has no header with a status yet.
    status = dig(read_inspect_rows(path)[0], "status") or "started"
    return None if status == "success" else f"{path} was begun and never finished: its status is {status!r:.40}"


def _is_inspect(path: Path) -> bool:
    return path.suffix == ".eval" or (path.suffix == ".json" and is_inspect_json(_read_json(path)))


def _read_json(path: Path) -> object:
    try:
        return parse_json(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path} must be JSON ({error})", cure="copy the file again") from error


def _read_table(row: LogRow, place: Place) -> Iterator[Entry]:
    """Yield a row of a table whose columns are all named; a statement may stand where it usually does."""
    yield Entry(where=place.where, statement=find_statement(row), thinking=shows_opening(row))


_TABLE = Layout(
    words="a table",
    recognise=bool,
    facts=find_facts,
    read=_read_table,
)


class _Agreed:
    """What the rows of a file say of their model and settings: one run's."""

    def __init__(self, facts: Facts, where: str) -> None:
        self.facts = Facts(task=facts.task, left_out=facts.left_out)
        self._told: dict[str, str] = {}
        self._several: dict[str, str] = {}
        self._doubted: tuple[str, ...] = ()
        self.add(facts, where)
        self._doubted = facts.doubted

    def add(self, facts: Facts, where: str) -> None:
        """Take what a row says.

        A setting that is guessed counts as not known where rows differ in it: one that changes from sample to sample is
        no other run's.

        Raises:
            UserError: an earlier row says otherwise.
        """
        sampling = {name: value for name, value in facts.sampling.items() if name not in self._doubted}
        known, said = {"model": self.facts.model, **self.facts.sampling}, {"model": facts.model, **sampling}
        new = [name for name, value in said.items() if value is not None and known.get(name) != value]
        for name in new:
            if name in self._told:
                both = f"{known[name]} in {self._told[name]} and {said[name]} in {where}"
                if name in (*self.facts.guessed, *facts.guessed):
                    self._several[name] = both
                    self._doubted += (name,)
                    continue
                raise UserError(
                    f"the rows of a file must be of one run, with the same {name}",
                    value=both,
                    cure="put the rows of each run into a file of their own and import them one by one; "
                    "`python -m eval compare` puts the runs side by side",
                )
            self._told[name] = where
        if new or not self.facts.task:
            self.facts = Facts(
                model=self.facts.model or facts.model,
                task=self.facts.task or facts.task,
                sampling={
                    name: value
                    for name, value in {**self.facts.sampling, **sampling}.items()
                    if name not in self._several
                },
                doubted=tuple(self._several),
                guessed=tuple(sorted({*self.facts.guessed, *facts.guessed})),
                left_out=self.facts.left_out,
            )

    def describe(self, path: Path) -> list[str]:
        """Return a sentence on each setting that is not known because rows differ in it."""
        return [
            f"{path}: rows differ in {name}, which is not known then: {both}" for name, both in self._several.items()
        ]


def _collect(name: str, layout: Layout, rows: Iterable[tuple[str, LogRow]], named: NamedColumns) -> Log:
    entries: list[Entry] = []
    failed: list[str] = []
    shared: list[str] = []
    path = named.path
    agreed = _Agreed(layout.file_facts(path), str(path))
    kept: object = None
    for where, row in rows:
        # The harness writes every row once for each of its filters; the samples are the same ones.
        if name == "lm-eval":
            kept = row.get("filter") if kept is None else kept
            if row.get("filter") != kept:
                continue
        with _explain_layout(where, name, "a row"):
            beside = named.leave_out(row) if layout is _TABLE else row
            agreed.add(named.find_facts(row, layout.facts(beside)), where)
            samples = [*layout.read(row, Place(path=path, where=where, facts=agreed.facts))]
        samples = named.complete(samples, row, own=layout is not _TABLE)
        entries += samples
        times = {one.seconds for one in samples}
        shared += [where] if len(samples) > 1 and len(times) == 1 and None not in times else []
        failed += [] if samples else [where]
    words = agreed.describe(path)
    if shared:
        words.append(
            f"{path}: seconds that all samples of a row share, and so are those of the longest: {len(shared)}, "
            f"first {shared[0]}"
        )
    if entries:
        words += [*named.describe(), *describe_unread_ends(path, entries), *describe_golds_left_out(path, entries)]
    return Log(path=path, layout=name, facts=agreed.facts, entries=entries, failed=failed, words=words)


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
