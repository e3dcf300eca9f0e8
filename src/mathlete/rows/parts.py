"""Parts of the format step: a thousand problems each, made by one process or several, finished by a rename.

A part holds its rows, its drops and a small manifest. A killed run goes on after the parts that are whole.
"""

import hashlib
import json
import os
import shutil
import signal
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from mathlete.corpus.overlap import SuiteIndex, pair_line
from mathlete.corpus.settings import Filters
from mathlete.corpus.suites import Suite
from mathlete.problems import Problem
from mathlete.prompts import PromptFormat
from mathlete.rows.rows import Row, row_of
from mathlete.rows.settings import Rows
from mathlete.runs import read_json, write_atomically, write_json
from mathlete.traces import TracedProblem

if TYPE_CHECKING:
    from datasets import Dataset

SIZE = 1000
"""Problems of a part: a minute's work at the most, so little is lost by a kill."""
_ROWS, _FIGURES, _DROPPED, _OVERLAP = "rows", "part.json", "dropped.jsonl", "overlap.jsonl"


@dataclass(frozen=True, kw_only=True)
class Part:
    """A finished part."""

    folder: Path

    @cached_property
    def figures(self) -> dict[str, Any]:
        """{"traces", "drops", "overlap"}: how many went in, how many were left out for which reason, pairs by kind."""
        return read_json(self.folder / _FIGURES)

    @property
    def rows(self) -> "Dataset | None":
        """Its rows, memory-mapped; None where all were dropped: datasets saves a set without rows unreadably."""
        import datasets

        return datasets.load_from_disk(self.folder / _ROWS) if (self.folder / _ROWS).exists() else None

    @property
    def bytes(self) -> int:
        """What its rows take on the disk; 0: there are none."""
        return sum(file.stat().st_size for file in (self.folder / _ROWS).glob("*.arrow"))

    @property
    def dropped(self) -> Path:
        """What was left out, a line each; empty unless it was to be kept."""
        return self.folder / _DROPPED

    @property
    def overlap(self) -> Path:
        """The pairs of a problem and a suite's problem, a line each."""
        return self.folder / _OVERLAP


@dataclass(frozen=True, kw_only=True)
class Maker:
    """Makes parts: all that turns traces into rows."""

    prompts: PromptFormat
    rows: Rows
    filters: Filters
    suites: Sequence[Suite]
    keep_dropped: bool

    @cached_property
    def _index(self) -> SuiteIndex:
        return SuiteIndex([problem for suite in self.suites for problem in suite.problems])

    @cached_property
    def _suite_of(self) -> dict[Problem, str]:
        return {problem: suite.name for suite in reversed(self.suites) for problem in suite.problems}

    def write(self, folder: Path, some: Sequence[Sequence[TracedProblem]]) -> Part:
        """Writes the part of these problems' traces and returns it."""
        import datasets

        datasets.disable_progress_bars()
        # A worker of a killed run may still be at the same part: each process writes into a folder of its own.
        unfinished = folder.with_name(f"{folder.name}.unfinished-{os.getpid()}")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        overlap = self._overlap(unfinished / _OVERLAP, [traces[0].problem for traces in some])
        rows: list[dict[str, Any]] = []
        drops: list[tuple[str, TracedProblem]] = []
        for one in (one for traces in some for one in traces):
            made = overlap.get(one.problem) or self._row(one)
            if isinstance(made, str):
                drops.append((made, one))
            else:
                rows.append(_packed(made))
        if rows:
            _dataset(rows).save_to_disk(unfinished / _ROWS)
        lines = [dropped_line(reason, one) for reason, one in drops] if self.keep_dropped else []
        write_atomically(unfinished / _DROPPED, "".join(lines))
        figures = {"traces": len(rows) + len(drops), "drops": Counter(reason for reason, _ in drops)}
        write_json(unfinished / _FIGURES, figures)
        try:
            unfinished.rename(folder)
        except OSError:
            if not folder.exists():
                raise
            shutil.rmtree(unfinished)  # the other one was faster, and its part is the same
        return Part(folder=folder)

    def _row(self, one: TracedProblem) -> Row | str:
        return row_of(one, prompts=self.prompts, rows=self.rows, filters=self.filters)

    def _overlap(self, file: Path, problems: Sequence[Problem]) -> dict[Problem, str]:
        """{problem: "in SUITE"} for those that a suite has; writes the pairs."""
        found: dict[Problem, str] = {}
        lines = []
        for pair in self._index.pairs(problems) if self.suites else ():
            suite = self._suite_of[pair.suite]
            found.setdefault(pair.row, f"in {suite}")
            lines.append(json.dumps({"name": suite, **pair_line(pair)}, ensure_ascii=False) + "\n")
        write_atomically(file, "".join(lines))
        return found


def _packed(row: Row) -> dict[str, Any]:
    """The row with its lists as arrays: four bytes a token, where a Python integer takes over thirty."""
    import numpy as np

    return {name: np.asarray(value, np.int32) if isinstance(value, list) else value for name, value in row.items()}


def _dataset(rows: Sequence[dict[str, Any]]) -> "Dataset":
    """The rows as Arrow holds them, arrays end to end: `Dataset.from_list` would look at each."""
    import numpy as np
    import pyarrow as pa
    from datasets import Dataset

    columns: dict[str, Any] = {}
    for name, kind in Row.__annotations__.items():
        values = [row[name] for row in rows]
        if kind == list[int]:
            ends = np.cumsum([0, *map(len, values)], dtype=np.int32)
            columns[name] = pa.ListArray.from_arrays(ends, np.concatenate(values))
        else:
            columns[name] = pa.array(values)
    table = pa.table(columns)
    # Of what it holds: left to itself, datasets pickles all of the table, which fails in a worker of Ray's.
    digest = hashlib.sha256()
    for buffer in (one for column in table.columns for chunk in column.chunks for one in chunk.buffers() if one):
        digest.update(buffer)
    return Dataset(table, fingerprint=digest.hexdigest()[:16])


def dropped_line(reason: str, one: TracedProblem) -> str:
    """A line of `dropped.jsonl`: the reason, then what `--source FILE` reads."""
    trace = {"trace": one.trace.text, "answer": one.trace.answer}
    return json.dumps({"reason": reason, "where": one.where, **asdict(one.problem), **trace}, ensure_ascii=False) + "\n"


_maker: Maker
"""The maker of a worker process."""


def _set_maker(maker: Maker) -> None:
    global _maker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that hands out the parts
    Thread(target=_end_with_parent, daemon=True).start()
    _maker = maker


def _end_with_parent() -> None:
    # Workers hold each other's pipes open, so none of them would notice that the parent was killed.
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _write(folder: Path, some: Sequence[Sequence[TracedProblem]]) -> Part:
    return _maker.write(folder, some)


def make_parts(
    folder: Path,
    traced: Iterable[Sequence[TracedProblem]],
    *,
    maker: Maker,
    num_proc: int,
    size: int,
    ray: str | None = None,
) -> Iterator[Part]:
    """Yields the parts in order, made now or by a run that was killed; at most two for each process are in memory.

    With `ray`, the address of a cluster, its workers make them (`mathlete.rows.ray_parts`).
    """
    if ray is not None:
        from mathlete.rows.ray_parts import parts_on_ray

        yield from parts_on_ray(folder, traced, maker=maker, workers=num_proc, address=ray, size=size)
        return
    with _workers(maker, num_proc) as pool:
        waiting: deque[Part | Future[Part]] = deque()
        for number, some in enumerate(_batched(traced, size)):
            part = folder / f"{number:05d}"
            if part.exists():
                waiting.append(Part(folder=part))
            elif pool is None:
                waiting.append(maker.write(part, some))
            else:
                waiting.append(pool.submit(_write, part, some))
            while len(waiting) > 2 * num_proc or (waiting and pool is None):
                yield _done(waiting.popleft())
        while waiting:
            yield _done(waiting.popleft())


@contextmanager
def _workers(maker: Maker, num_proc: int) -> Iterator[ProcessPoolExecutor | None]:
    """The processes that make parts; None for this one alone. An error ends them after the parts they are at."""
    if num_proc == 1:
        yield None
        return
    context = get_context("spawn")  # threads of the tokenizer and of Arrow do not survive a fork
    pool = ProcessPoolExecutor(num_proc, mp_context=context, initializer=_set_maker, initargs=(maker,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _done(part: Part | Future[Part]) -> Part:
    return part.result() if isinstance(part, Future) else part


def _batched(traced: Iterable[Sequence[TracedProblem]], size: int) -> Iterator[list[Sequence[TracedProblem]]]:
    stream = iter(traced)
    while some := list(islice(stream, size)):
        yield some
