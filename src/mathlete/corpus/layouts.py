"""Files of traced problems in the layouts that are about: each is recognised by its columns and read as one thing."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mathlete.corpus.tables import FORMATS, STATEMENTS, cell_text, read_rows
from mathlete.errors import OnBad, UserError, stop
from mathlete.problems import Problem, problem_from
from mathlete.prompts import INSTRUCTION
from mathlete.traces import Completion, Trace, TracedProblem, has_marks, read_completion, trace_of

Row = Mapping[str, Any]
LAYOUTS = {
    "mathlete": ("id, statement, gold, trace, answer", ({"statement", "trace"}, {"statement", "gold", "answer"})),
    "messages": ("messages: a list of {role, content}", ({"messages"},)),
    "sharegpt": ("conversations: a list of {from, value}", ({"conversations"},)),
    "alpaca": ("instruction, input, output", ({"instruction", "output"},)),
    "prompt/completion": ("prompt, completion", ({"prompt", "completion"},)),
}
"""Name -> (its columns in words, sets of columns of which one must be there whole)."""
_TRACES = ("trace", "generation", "generated_solution", "solution", "Solution", "response", "output")
_GOLDS = ("gold", "answer", "Answer", "expected_answer", "final_answer")
_IDS = ("id", "ID", "uuid", "problem_id", "unique_id")
_CURE = 'write one {"id": "…", "statement": "…", "gold": "…", "trace": "…", "answer": "…"} a line'
_ASKED = re.compile(
    r"\s*(?:please\s+)?(?:reason|think)\s+step\s+by\s+step,?\s+and\s+put\s+your\s+(?:final\s+)?answer\s+"
    r"(?:with)?in\s+\\boxed\{\}\.?\s*",
    re.I,
)


def is_file(name: str) -> bool:
    """Whether a source's name is that of a file."""
    return Path(name).suffix in FORMATS


def read_traced(path: Path, *, on_bad: OnBad = stop) -> Iterator[TracedProblem]:
    """Yields the traced problems of a file, one a row; a problem may have several traces, a row each.

    Raises:
        UserError: columns of no known layout; with `stop`, a row that lacks something; file and row are named.
    """
    layout = ""
    for number, (where, row) in enumerate(read_rows(path, on_bad=on_bad)):
        layout = layout or _recognised(row, where=where)
        try:
            yield _READERS[layout](row, where, f"{path.stem}-{number}", path.name)
        except UserError as error:
            on_bad(error)


def _recognised(row: Row, *, where: str) -> str:
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


def _own_row(row: Row, where: str, _: str, file: str) -> TracedProblem:
    rest = {name: value for name, value in row.items() if value is not None}
    own = {name: rest.pop(name, None) for name in ("trace", "answer")}
    problem = problem_from(rest, where=where)
    for name, value in own.items():
        if not isinstance(value, str) or not value.strip():
            raise UserError(f"{where}: a traced problem needs its {name} as text", value=repr(value), cure=_CURE)
    text, answer = str(own["trace"]), str(own["answer"])
    # Without the marks around it, where it came with them.
    found = read_completion(text) if has_marks(text) else Completion(thought=text, ending="")
    trace = Trace(
        problem_id=problem.id,
        text=found.thought,
        answer=answer,
        generator=file,
        ending=found.ending,
        flaw=found.flaw,
    )
    return TracedProblem(problem=problem, trace=trace, where=where)


def _messages(row: Row, where: str, name: str, file: str) -> TracedProblem:
    return _conversation(row, _turns(row.get("messages"), "role", "content", where=where), where, name, file)


def _sharegpt(row: Row, where: str, name: str, file: str) -> TracedProblem:
    return _conversation(row, _turns(row.get("conversations"), "from", "value", where=where), where, name, file)


def _alpaca(row: Row, where: str, name: str, file: str) -> TracedProblem:
    more = row.get("input")
    statement = _string(row.get("instruction"), "instruction", where=where)
    asked = f"{statement}\n{more}" if isinstance(more, str) and more.strip() else statement
    return _pair(row, asked, _string(row.get("output"), "output", where=where), where, name, file)


def _prompt(row: Row, where: str, name: str, file: str) -> TracedProblem:
    sides = [row.get("prompt"), row.get("completion")]
    if isinstance(sides[0], str) and isinstance(sides[1], str) and not sides[0].startswith("[{"):
        return _pair(row, sides[0], sides[1], where, name, file)
    turns = [turn for side in sides for turn in _turns(side, "role", "content", where=where)]
    return _conversation(row, turns, where, name, file)


def _solutions(row: Row, where: str, name: str, file: str) -> TracedProblem:
    asked = next((column for column in STATEMENTS if row.get(column)), STATEMENTS[0])
    solved = next((column for column in _TRACES if row.get(column)), "")
    text = _string(_single(row[solved]), solved, where=where) if solved else ""
    return _pair(row, _string(row.get(asked), asked, where=where), text, where, name, file)


_READERS = {
    "mathlete": _own_row,
    "messages": _messages,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
    "prompt/completion": _prompt,
    "solutions": _solutions,
}
_ROLES = {"human": "user", "gpt": "assistant"}


def _turns(value: object, role: str, content: str, *, where: str) -> list[tuple[str, str]]:
    """(role, text) of each turn; a CSV's cell holds them as JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = None
    if not isinstance(value, list) or not all(
        isinstance(turn, dict) and isinstance(turn.get(content), str) for turn in value
    ):
        raise UserError(
            f"{where}: a conversation must be a list of {{{role}, {content}}}", value=repr(value)[:80], cure="mend it"
        )
    found = [(str(turn.get(role)), turn[content]) for turn in value]
    return [(_ROLES.get(name, name), text) for name, text in found]


def _conversation(row: Row, turns: list[tuple[str, str]], where: str, name: str, file: str) -> TracedProblem:
    # A system message tells a model how to behave; ours is served without one, as R1 advises.
    spoken = [turn for turn in turns if turn[0] != "system"]
    if [role for role, _ in spoken] != ["user", "assistant"]:
        raise UserError(
            f"{where}: a conversation must be one question and one answer",
            value=", ".join(role for role, _ in turns) or "no turn",
            cure="take the first two turns, or give each its own row",
        )
    return _pair(row, spoken[0][1], spoken[1][1], where, name, file)


def _pair(row: Row, asked: str, text: str, where: str, name: str, file: str) -> TracedProblem:
    statement = _ASKED.sub("\n", asked.replace(INSTRUCTION, "")).strip()
    if not statement:
        raise UserError(f"{where}: a row needs a statement", value=sorted(map(str, row)), cure="mend the row")
    problem = Problem(
        id=_id_of(row, where=where) or name,
        statement=statement,
        gold=_gold_of(row, text, where=where),
        source=file,
        subset=str(next((row[key] for key in ("subset", "level", "subject", "type") if row.get(key)), "")),
    )
    trace = trace_of(text, problem=problem, generator=file)
    return TracedProblem(
        problem=problem, trace=trace if problem.gold or trace.flaw else replace(trace, flaw="no gold"), where=where
    )


def _id_of(row: Row, *, where: str) -> str:
    value = next((row[key] for key in _IDS if row.get(key) is not None), "")
    if isinstance(value, float | bool | list | dict):
        # 424e18 without quotes is a float, and the id is lost before it can be read.
        raise UserError(f"{where}: an id must be text or a whole number", value=repr(value), cure="quote it")
    return str(value)


def _gold_of(row: Row, text: str, *, where: str) -> str:
    """The gold as text; "" where no column holds one. An alpaca row's `answer` may be the whole text: no gold."""
    column = next((name for name in _GOLDS if name in row), None)
    if column is None or (isinstance(row[column], str) and row[column] == text):
        return ""
    value = _single(row[column])
    if isinstance(value, bool | list | dict):
        raise UserError(f"{where}: {column} must be text or a number", value=repr(value)[:80], cure="mend the row")
    gold = "" if value is None else cell_text(value)
    if not gold:
        raise UserError(f"{where}: {column} must not be empty", value=repr(value), cure="mend or delete the row")
    return gold


def _single(value: object) -> object:
    """The only member of a list: some sets keep one answer in a list that has room for several."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _string(value: object, column: str, *, where: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{where}: {column} must be text", value=repr(value)[:80], cure="mend the row")
    return value
