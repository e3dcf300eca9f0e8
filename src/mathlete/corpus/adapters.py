"""The traces in a hub set's row: one small reader for each way in which sets hold them."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from mathlete.corpus.sources import Row, Source, problem_of
from mathlete.errors import UserError
from mathlete.problems import Problem
from mathlete.traces import Trace, TracedProblem, trace_of

R1 = "deepseek-r1"


def traced_of(src: Source, row: Row, *, number: int, where: str) -> list[TracedProblem]:
    """The row's problem with each of its traces; a trace of no use has a flaw.

    Raises:
        UserError: a row without a statement, an answer or its column of traces.
    """
    problem = problem_of(src, row, number=number, where=where)
    wanted, traces = TRACE_KINDS[src.trace_kind]
    if src.trace not in row or not isinstance(row[src.trace], wanted | None):
        value = type(row[src.trace]).__name__ if src.trace in row else sorted(row)
        raise UserError(f"{where}: a row needs its traces in {src.trace!r}", value=value, cure="mend the row")
    found = list(traces(src, row, problem)) or [_nothing(src, problem)]
    if not src.fits(row):
        found = [replace(trace, flaw="unfit") for trace in found]
    elif not problem.gold:
        found = [replace(trace, flaw="no gold") for trace in found]
    return [TracedProblem(problem=problem, trace=trace, where=where) for trace in found]


def _nothing(src: Source, problem: Problem) -> Trace:
    return Trace(problem_id=problem.id, text="", answer="", generator=src.hub, flaw="no trace")


def _solution(src: Source, row: Row, problem: Problem) -> Iterator[Trace]:
    found = trace_of(row[src.trace] or "", problem=problem, generator=src.hub)
    # What follows #### is the gold itself: read there once, without the commas of its thousands.
    yield replace(found, answer=problem.gold, ending="") if src.gold == "after ####" else found


def _completion(src: Source, row: Row, problem: Problem) -> Iterator[Trace]:
    generator = str(row.get("generation_model") or src.hub)
    yield trace_of(row[src.trace] or "", problem=problem, generator=generator)


def _generations(src: Source, row: Row, problem: Problem) -> Iterator[Trace]:
    for text in row[src.trace] or ():
        yield trace_of(str(text or ""), problem=problem, generator=R1, thinks=True)


def _thinking(src: Source, row: Row, problem: Problem) -> Iterator[Trace]:
    thought, ending = (str(row.get(column) or "").strip() for column in (src.trace, src.ending))
    if thought:
        yield trace_of(f"{thought}\n</think>\n{ending}", problem=problem, generator=R1, thinks=True)


TRACE_KINDS: dict[str, tuple[type, Callable[[Source, Row, Problem], Iterator[Trace]]]] = {
    "solution": (str, _solution),
    "completion": (str, _completion),
    "generations": (list, _generations),
    "thinking": (str, _thinking),
}
"""{`trace_kind` of data/sources.toml: (what the column `trace` holds, the traces in a row)}."""
