"""Files of traced problems in the common layouts, each recognised by its columns."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from mathlete.corpus.tables import STATEMENTS, TableRow, find_gold, format_cell, read_rows, unwrap_single
from mathlete.errors import OnBad, UserError, stop
from mathlete.problems import Problem, parse_problem, read_problems
from mathlete.prompts import INSTRUCTION
from mathlete.reasoning import has_marks
from mathlete.text import parse_json
from mathlete.traces import Completion, Trace, TracedProblem, read_completion, read_trace

SAMPLES, PROBLEMS = "samples.jsonl", "problems.jsonl"
"""The files of an evaluation run that are read."""
LAYOUTS = {
    "mathlete": ("id, statement, gold, trace, answer", ({"statement", "trace"}, {"statement", "gold", "answer"})),
    "messages": ("messages: a list of {role, content}", ({"messages"},)),
    "sharegpt": ("conversations: a list of {from, value}", ({"conversations"},)),
    "alpaca": ("instruction, input, output", ({"instruction", "output"},)),
    "prompt/completion": ("prompt, completion", ({"prompt", "completion"},)),
    "run": (f"{SAMPLES} of an evaluation run, beside its {PROBLEMS}", ({"problem_id", "seed", "text", "finish"},)),
}
"""{name: (its columns in words, sets of columns of which a row must have one)}."""
_FINISHED = ("stop", "boxed")
"""How a sample ended that came to its end."""
_TRACES = ("trace", "generation", "generated_solution", "solution", "Solution", "response", "output")
_IDS = ("id", "ID", "uuid", "problem_id", "unique_id")
_CURE = 'write one {"id": "…", "statement": "…", "gold": "…", "trace": "…", "answer": "…"} a line'
_INSTRUCTION = re.compile(
    r"\s*(?:please\s+)?(?:reason|think)\s+step\s+by\s+step,?\s+and\s+put\s+your\s+(?:final\s+)?answer\s+"
    r"(?:with)?in\s+\\boxed\{\}\.?\s*",
    re.I,
)


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where a row stands."""

    where: str
    """`file:line` or `file[row]`, for messages."""
    name: str
    """The problem's id, if its row has none."""
    path: Path
    """The file."""

    @property
    def file(self) -> str:
        """The file's name."""
        return self.path.name


def read_traced(path: Path, *, on_bad: OnBad = stop) -> Iterator[TracedProblem]:
    """Yield the traced problems of a file, one per row; a problem may have several traces in several rows.

    Raises:
        UserError: columns of no known layout; with `stop`, an incomplete row. The message names file and row.
    """
    layout = ""
    for number, (where, row) in enumerate(read_rows(path, on_bad=on_bad)):
        layout = layout or _recognise(row, where=where)
        try:
            yield _READERS[layout](row, _Place(where=where, name=f"{path.stem}-{number}", path=path))
        except UserError as error:
            on_bad(error)


def _recognise(row: TableRow, *, where: str) -> str:
    for layout, (_, choices) in LAYOUTS.items():
        if any(columns <= row.keys() for columns in choices):
            return layout
    if any(name in row for name in STATEMENTS) and any(name in row for name in _TRACES):
        return "solutions"
    known = "; ".join(words for words, _ in LAYOUTS.values())
    raise UserError(
        f"{where}: a file of traced problems must have the columns of a known layout",
        value=f"columns {', '.join(map(str, row))}",
        cure=f"use one of: {known}; or a statement (problem, question) and its {', '.join(_TRACES[:4])}",
    )


def _read_own(row: TableRow, place: _Place) -> TracedProblem:
    rest = {name: value for name, value in row.items() if value is not None}
    own = {name: rest.pop(name, None) for name in ("trace", "answer")}
    problem = parse_problem(rest, where=place.where)
    for name, value in own.items():
        if not isinstance(value, str) or not value.strip():
            raise UserError(f"{place.where}: a traced problem needs its {name} as text", value=repr(value), cure=_CURE)
    text, answer = str(own["trace"]), str(own["answer"])
    # A trace may come with the marks around it; without them it is reasoning only, without an ending.
    parts = read_completion(text) if has_marks(text) else Completion(thought=text, ending="")
    trace = Trace(
        problem_id=problem.id,
        text=parts.thought,
        answer=answer,
        generator=place.file,
        ending=parts.ending,
        flaw=parts.flaw,
    )
    return TracedProblem(problem=problem, trace=trace, where=place.where)


def _read_messages(row: TableRow, place: _Place) -> TracedProblem:
    return _read_conversation(row, _read_turns(row.get("messages"), "role", "content", where=place.where), place)


def _read_sharegpt(row: TableRow, place: _Place) -> TracedProblem:
    return _read_conversation(row, _read_turns(row.get("conversations"), "from", "value", where=place.where), place)


def _read_alpaca(row: TableRow, place: _Place) -> TracedProblem:
    more = row.get("input")
    statement = _require_text(row.get("instruction"), "instruction", where=place.where)
    question = f"{statement}\n{more}" if isinstance(more, str) and more.strip() else statement
    return _read_pair(row, question, _require_text(row.get("output"), "output", where=place.where), place)


def _read_prompt(row: TableRow, place: _Place) -> TracedProblem:
    sides = [row.get("prompt"), row.get("completion")]
    if isinstance(sides[0], str) and isinstance(sides[1], str) and not sides[0].startswith("[{"):
        return _read_pair(row, sides[0], sides[1], place)
    turns = [turn for side in sides for turn in _read_turns(side, "role", "content", where=place.where)]
    return _read_conversation(row, turns, place)


def _read_solutions(row: TableRow, place: _Place) -> TracedProblem:
    question = next((column for column in STATEMENTS if row.get(column)), STATEMENTS[0])
    solution = next((column for column in _TRACES if row.get(column)), "")
    text = _require_text(unwrap_single(row[solution]), solution, where=place.where) if solution else ""
    return _read_pair(row, _require_text(row.get(question), question, where=place.where), text, place)


def _read_sample(row: TableRow, place: _Place) -> TracedProblem:
    """Read a sample of an evaluation run: what a model wrote becomes a trace that it, or another, is trained on."""
    problem = _read_run_problems(place.path.parent / PROBLEMS).get(str(row.get("problem_id")))
    if problem is None:
        raise UserError(
            f"{place.where}: a sample's problem must stand in {PROBLEMS} beside it",
            value=repr(row.get("problem_id")),
            cure="give the run's own folder, as `python -m eval` wrote it",
        )
    # A model may end at once: an empty text is a sample without a trace, and no broken row.
    text = row.get("text")
    if not isinstance(text, str):
        raise UserError(f"{place.where}: a sample needs its text as text", value=repr(text)[:80], cure="mend the row")
    trace = read_trace(text, problem=problem, generator=place.file)
    # A sample that the cap or the vote ended has an answer only by chance: it would teach to stop in the middle.
    flaw = trace.flaw if row.get("finish") in _FINISHED or not text else "unclosed"
    return TracedProblem(problem=problem, trace=replace(trace, flaw=flaw), where=place.where)


@lru_cache(maxsize=4)
def _read_run_problems(path: Path) -> dict[str, Problem]:
    return {problem.id: problem for problem in read_problems(path)}


_READERS = {
    "mathlete": _read_own,
    "messages": _read_messages,
    "sharegpt": _read_sharegpt,
    "alpaca": _read_alpaca,
    "prompt/completion": _read_prompt,
    "solutions": _read_solutions,
    "run": _read_sample,
}
_ROLES = {"human": "user", "gpt": "assistant"}


def _read_turns(value: object, role: str, content: str, *, where: str) -> list[tuple[str, str]]:
    """Return (role, text) of each turn; in a CSV the cell is JSON text."""
    if isinstance(value, str):
        try:
            value = parse_json(value)
        except ValueError:
            value = None
    if not isinstance(value, list) or not all(
        isinstance(turn, dict) and isinstance(turn.get(content), str) for turn in value
    ):
        raise UserError(
            f"{where}: a conversation must be a list of {{{role}, {content}}}", value=repr(value)[:80], cure="mend it"
        )
    turns = [(str(turn.get(role)), turn[content]) for turn in value]
    return [(_ROLES.get(name, name), text) for name, text in turns]


def _read_conversation(row: TableRow, turns: list[tuple[str, str]], place: _Place) -> TracedProblem:
    # System messages are left out: the model is served without one, as R1's authors advise.
    spoken = [turn for turn in turns if turn[0] != "system"]
    if [role for role, _ in spoken] != ["user", "assistant"]:
        raise UserError(
            f"{place.where}: a conversation must be one question and one answer",
            value=", ".join(role for role, _ in turns) or "no turn",
            cure="take the first two turns, or give each its own row",
        )
    return _read_pair(row, spoken[0][1], spoken[1][1], place)


def _read_pair(row: TableRow, question: str, text: str, place: _Place) -> TracedProblem:
    # The prompt adds the model's own instruction; one that came with the question would stand there twice.
    statement = _INSTRUCTION.sub("\n", question.replace(INSTRUCTION, "")).strip()
    if not statement:
        raise UserError(f"{place.where}: a row needs a statement", value=sorted(map(str, row)), cure="mend the row")
    problem = Problem(
        id=_read_id(row, where=place.where) or place.name,
        statement=statement,
        gold=_read_gold(row, text, where=place.where),
        source=place.file,
        subset=str(next((row[key] for key in ("subset", "level", "subject", "type") if row.get(key)), "")),
    )
    trace = read_trace(text, problem=problem, generator=place.file)
    return TracedProblem(
        problem=problem,
        trace=trace if problem.gold or trace.flaw else replace(trace, flaw="no gold"),
        where=place.where,
    )


def _read_id(row: TableRow, *, where: str) -> str:
    value = next((row[key] for key in _IDS if row.get(key) is not None), "")
    if isinstance(value, float | bool | list | dict):
        # 424e18 without quotes is a float, and the id is lost before it can be read.
        raise UserError(f"{where}: an id must be text or a whole number", value=repr(value), cure="quote it")
    return str(value)


def _read_gold(row: TableRow, text: str, *, where: str) -> str:
    """Return the gold as text; "" where the row has none."""
    column, value = find_gold(row, solution=text)
    if not column:
        return ""
    if isinstance(value, bool | list | dict):
        raise UserError(f"{where}: {column} must be text or a number", value=repr(value)[:80], cure="mend the row")
    gold = format_cell(value)
    if not gold:
        raise UserError(f"{where}: {column} must not be empty", value=repr(value), cure="mend or delete the row")
    return gold


def _require_text(value: object, column: str, *, where: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{where}: {column} must be text", value=repr(value)[:80], cure="mend the row")
    return value
