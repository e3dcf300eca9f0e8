"""The traces in a hub set's row: one small reader for each way in which sets store them."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from mathlete.corpus.cells import TableRow
from mathlete.corpus.sources import Source, read_problem
from mathlete.errors import UserError
from mathlete.problems import Problem
from mathlete.reasoning import THINK
from mathlete.traces import Trace, TracedProblem, read_trace

R1 = "deepseek-r1"


def read_traces(entry: Source, row: TableRow, *, number: int, where: str) -> list[TracedProblem]:
    """Return the row's problem with each of its traces; a useless trace has a flaw.

    Raises:
        UserError: a row without a statement, an answer or its column of traces.
    """
    problem = read_problem(entry, row, number=number, where=where)
    column_type, reader = TRACE_KINDS[entry.trace_kind]
    if entry.trace not in row or not isinstance(row[entry.trace], column_type | None):
        value = type(row[entry.trace]).__name__ if entry.trace in row else sorted(row)
        raise UserError(f"{where}: a row needs its traces in {entry.trace!r}", value=value, cure="mend the row")
    traces = list(reader(entry, row, problem)) or [_make_missing(entry, problem)]
    if not entry.fits(row):
        traces = [replace(trace, flaw="unfit") for trace in traces]
    elif not problem.gold:
        traces = [replace(trace, flaw="no gold") for trace in traces]
    return [TracedProblem(problem=problem, trace=trace, where=where) for trace in traces]


def _make_missing(entry: Source, problem: Problem) -> Trace:
    return Trace(problem_id=problem.id, text="", answer="", generator=entry.hub, flaw="no trace")


def _read_solution(entry: Source, row: TableRow, problem: Problem) -> Iterator[Trace]:
    trace = read_trace(row[entry.trace] or "", problem=problem, generator=entry.hub)
    # What follows #### is the gold, which read_gold has read already, without the commas between thousands.
    yield replace(trace, answer=problem.gold, ending="") if entry.golds.gold == "after ####" else trace


def _read_completion(entry: Source, row: TableRow, problem: Problem) -> Iterator[Trace]:
    generator = str(row.get("generation_model") or entry.hub)
    yield read_trace(row[entry.trace] or "", problem=problem, generator=generator)


def _read_generations(entry: Source, row: TableRow, problem: Problem) -> Iterator[Trace]:
    for text in row[entry.trace] or ():
        yield read_trace(str(text or ""), problem=problem, generator=R1, thinks=True)


def _read_thinking(entry: Source, row: TableRow, problem: Problem) -> Iterator[Trace]:
    thought, ending = (str(row.get(column) or "").strip() for column in (entry.trace, entry.ending))
    if thought:
        yield read_trace(f"{thought}{THINK.ending}{ending}", problem=problem, generator=R1, thinks=True)


TRACE_KINDS: dict[str, tuple[type, Callable[[Source, TableRow, Problem], Iterator[Trace]]]] = {
    "solution": (str, _read_solution),
    "completion": (str, _read_completion),
    "generations": (list, _read_generations),
    "thinking": (str, _read_thinking),
}
"""{`trace_kind` of data/sources.toml: (type of the column `trace`, reader of the traces in a row)}."""
