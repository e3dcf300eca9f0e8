"""Trace: a reasoning text with the answer it reaches."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mathlete.errors import UserError
from mathlete.problems import Problem, problem_from, read_json_lines


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One reasoning text for one problem."""

    problem_id: str
    text: str
    """What stands between `<think>` and `</think>`."""
    answer: str
    """What the trace ends on, to be boxed."""
    generator: str
    """Who wrote it: a model's or generator's name."""
    verified: bool = False
    """True only where the answer checker found `answer` equal to gold."""


@dataclass(frozen=True, kw_only=True)
class TracedProblem:
    """A problem with one trace: a training example before it becomes tokens."""

    problem: Problem
    trace: Trace


_CURE = 'write one {"id": "…", "statement": "…", "gold": "…", "trace": "…", "answer": "…"} a line'


def read_traced(path: Path) -> Iterator[TracedProblem]:
    """Yields the traced problems of a JSONL file: a problem's fields, `trace` and the `answer` that the trace reaches.

    A problem may have several traces, a line each.

    Raises:
        UserError: a line that is not a traced problem; file and line are named.
    """
    for where, row in read_json_lines(path):
        if not isinstance(row, dict):
            raise UserError(f"{where}: a traced problem must be a JSON object", value=type(row).__name__, cure=_CURE)
        own = {name: row.pop(name, None) for name in ("trace", "answer")}
        problem = problem_from(row, where=where)
        for name, value in own.items():
            if not isinstance(value, str) or not value.strip():
                raise UserError(f"{where}: a traced problem needs its {name} as text", value=repr(value), cure=_CURE)
        trace = Trace(problem_id=problem.id, text=own["trace"], answer=own["answer"], generator=path.name)
        yield TracedProblem(problem=problem, trace=trace)
