"""Parts of the format step: a thousand problems each, finished by a rename.

A part holds its rows, its dropped traces and a small manifest. A killed run resumes after the finished parts.
"""

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from mathlete.corpus import Suite
from mathlete.overlap import SuiteIndex
from mathlete.problems import Problem
from mathlete.prompts import PromptFormat
from mathlete.rows.files import DroppedTrace
from mathlete.rows.parity import PARITY, describe_mismatch
from mathlete.rows.row import TokenRow
from mathlete.rows.settings import Filters, Rows
from mathlete.rows.token_rows import encode_row, make_row, messages_of
from mathlete.runs import read_json, write_atomically, write_json
from mathlete.traces import TracedProblem

if TYPE_CHECKING:
    from datasets import Dataset

PART_SIZE = 1000
"""Problems of a part: a minute's work at most, so that a kill loses little."""
_ArrowRow = dict[str, Any]
"""A `TokenRow` with arrays for lists."""
_ROWS, _FIGURES, _DROPPED, _OVERLAP = "rows", "part.json", "dropped.jsonl", "overlap.jsonl"


@dataclass(frozen=True, kw_only=True)
class PartFigures:
    """What became of a part's traces."""

    traces: int
    drops: dict[str, int]
    """{reason: traces that were left out}."""
    mismatch: str = ""
    """Of the first row that is not what is served: its problem, and the first difference."""

    @classmethod
    def from_json(cls, figures: Mapping[str, Any]) -> Self:
        """Return the figures of a part's manifest."""
        return cls(**figures)


@dataclass(frozen=True, kw_only=True)
class Part:
    """A finished part."""

    folder: Path

    @cached_property
    def figures(self) -> PartFigures:
        """Its figures, from its manifest."""
        return PartFigures.from_json(read_json(self.folder / _FIGURES))

    @property
    def rows(self) -> "Dataset | None":
        """Its rows, memory-mapped; None if all were dropped: datasets cannot read back a set without rows."""
        import datasets

        return datasets.load_from_disk(self.folder / _ROWS) if (self.folder / _ROWS).exists() else None

    @property
    def bytes(self) -> int:
        """Size of its rows on disk; 0 if there are none."""
        return sum(file.stat().st_size for file in (self.folder / _ROWS).glob("*.arrow"))

    @property
    def dropped(self) -> Path:
        """The file of its dropped traces, one per line; empty unless they are kept."""
        return self.folder / _DROPPED

    @property
    def overlap(self) -> Path:
        """The file of its pairs of a problem and a suite's problem, one per line."""
        return self.folder / _OVERLAP


@dataclass(frozen=True, kw_only=True)
class PartMaker:
    """Turns traces into rows, a part at a time."""

    prompts: PromptFormat
    rows: Rows
    filters: Filters
    suites: Sequence[Suite]
    keep_dropped: bool

    @cached_property
    def _index(self) -> SuiteIndex:
        return SuiteIndex([problem for suite in self.suites for problem in suite.problems])

    @cached_property
    def _suite_names(self) -> dict[Problem, str]:
        return {problem: suite.name for suite in reversed(self.suites) for problem in suite.problems}

    def make(self, folder: Path, batch: Sequence[Sequence[TracedProblem]]) -> Part:
        """Write the part of these problems' traces into `folder` and return it."""
        import datasets

        datasets.disable_progress_bars()
        # A worker of a killed run may still be at the same part: each process writes into a folder of its own.
        unfinished = folder.with_name(f"{folder.name}.unfinished-{os.getpid()}")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        overlap = self._write_overlap(unfinished / _OVERLAP, _list_questions(batch))
        rows: list[_ArrowRow] = []
        dropped: list[tuple[str, TracedProblem]] = []
        for traced in (traced for traces in batch for traced in traces):
            row = overlap.get(traced.problem) or self._make_row(traced)
            if isinstance(row, str):
                dropped.append((row, traced))
            else:
                rows.append(_with_arrays(row))
        if rows:
            _to_dataset(rows).save_to_disk(unfinished / _ROWS)
        lines = (self._dropped_line(reason, traced) for reason, traced in dropped if self.keep_dropped)
        write_atomically(unfinished / _DROPPED, "".join(lines))
        first = next((traced for reason, traced in dropped if reason.startswith(PARITY)), None)
        figures = PartFigures(
            traces=len(rows) + len(dropped),
            drops=dict(Counter(reason for reason, _ in dropped)),
            mismatch=f"{first.problem.id}: {self._explain(first)}" if first else "",
        )
        write_json(unfinished / _FIGURES, asdict(figures))
        try:
            unfinished.rename(folder)
        except OSError:
            if not folder.exists():
                raise
            shutil.rmtree(unfinished)  # another process was faster, and its part is the same
        return Part(folder=folder)

    def _make_row(self, traced: TracedProblem) -> TokenRow | str:
        return make_row(traced, prompts=self.prompts, rows=self.rows, filters=self.filters)

    def _explain(self, traced: TracedProblem) -> str:
        """Return the first difference of a row that is not what is served: it is made once more."""
        row, completion = encode_row(traced, prompts=self.prompts, rows=self.rows, filters=self.filters)
        if isinstance(row, str):
            return ""
        return describe_mismatch(row, completion=completion, prompts=self.prompts, messages=messages_of(traced))

    def _dropped_line(self, reason: str, traced: TracedProblem) -> str:
        line = DroppedTrace(
            reason=reason,
            where=traced.where,
            **traced.problem.to_json(),
            trace=traced.trace.text,
            answer=traced.trace.answer,
            difference=self._explain(traced) if reason.startswith(PARITY) else None,
        )
        return json.dumps(line.to_json(), ensure_ascii=False) + "\n"

    def _write_overlap(self, file: Path, questions: Mapping[Problem, Problem]) -> dict[Problem, str]:
        """Write the pairs with suites; return {problem: "in SUITE"} of the problems that a suite has.

        `questions` are those of a problem's row, each with that problem.
        """
        reasons: dict[Problem, str] = {}
        lines = []
        for pair in self._index.pairs([*questions]) if self.suites else ():
            suite = self._suite_names[pair.suite]
            reasons.setdefault(questions[pair.row], f"in {suite}")
            lines.append(json.dumps(replace(pair, suite_name=suite).to_json(), ensure_ascii=False) + "\n")
        write_atomically(file, "".join(lines))
        return reasons


def _list_questions(batch: Sequence[Sequence[TracedProblem]]) -> dict[Problem, Problem]:
    """Return {question: its problem}: each problem itself, and what is asked later in the same chat."""
    questions = {traces[0].problem: traces[0].problem for traces in batch}
    for traces in batch:
        asked = (turn.text for traced in traces for turn in traced.turns if turn.role == "user" and turn.text.strip())
        for text in dict.fromkeys(asked):
            questions.setdefault(replace(traces[0].problem, statement=text), traces[0].problem)
    return questions


def split_into_parts(traced: Iterable[Sequence[TracedProblem]], size: int) -> Iterator[list[Sequence[TracedProblem]]]:
    """Yield the problems of one part after the other."""
    stream = iter(traced)
    while batch := list(islice(stream, size)):
        yield batch


def _with_arrays(row: TokenRow) -> _ArrowRow:
    """Return the row with arrays for lists: four bytes per token, where a Python integer takes over thirty."""
    import numpy as np

    return {name: np.asarray(value, np.int32) if isinstance(value, list) else value for name, value in row.items()}


def _to_dataset(rows: Sequence[_ArrowRow]) -> "Dataset":
    """Return the rows as Arrow stores them, arrays end to end: `Dataset.from_list` would inspect every token."""
    import numpy as np
    import pyarrow as pa
    from datasets import Dataset

    columns: dict[str, Any] = {}
    for name, kind in TokenRow.__annotations__.items():
        values = [row[name] for row in rows]
        if kind == list[int]:
            ends = np.cumsum([0, *map(len, values)], dtype=np.int32)
            columns[name] = pa.ListArray.from_arrays(ends, np.concatenate(values))
        else:
            columns[name] = pa.array(values)
    table = pa.table(columns)
    # Without a fingerprint, datasets makes one by pickling the table, which fails in a worker of Ray. This one is a
    # hash of the bytes, so that equal rows have equal files in any process.
    digest = hashlib.sha256()
    for buffer in (one for column in table.columns for chunk in column.chunks for one in chunk.buffers() if one):
        digest.update(buffer)
    return Dataset(table, fingerprint=digest.hexdigest()[:16])
