"""A question and its reply in columns of their own: which columns they are, and how they become turns."""

import re
from dataclasses import dataclass
from pathlib import Path

from mathlete.corpus.cells import STATEMENTS, WORKED, Cells, is_long, unwrap_texts
from mathlete.corpus.columns import Reading
from mathlete.corpus.turns import REASONINGS, is_conversation, make_turn, read_turns
from mathlete.errors import UserError
from mathlete.traces import Turn

REPLIES = (
    "trace",
    "completion",
    "generation",
    "generated_solution",
    "solution",
    "response",
    "output",
    "reply",
    "chosen",
)
_QUESTIONS = tuple(dict.fromkeys(name.casefold() for name in STATEMENTS))
_SYSTEMS = ("system", "system_prompt", "system_message")
"""Columns that hold the system turn of a conversation which has none in itself."""
_FURTHER = ("input", "context")
"""Columns that go on with an instruction: alpaca's and Dolly's."""
_SEVERAL_TRACES = ("trajectories", "traces")
"""Ends of names that say that each text of a list is a trace."""


@dataclass(frozen=True, kw_only=True)
class RowPlace:
    """Where a row stands, and how it is read."""

    where: str
    """`file:line` or `file[row]`, for messages."""
    name: str
    """The problem's id, if its row has none."""
    path: Path
    """The file, or the hub's id."""
    reading: Reading

    @property
    def file(self) -> str:
        """The file's name."""
        return self.path.name


def read_pairs(row: Cells, several: str, place: RowPlace) -> list[list[Turn]]:
    """Return the question of a row with each of its replies."""
    names = place.reading.names("statement", (*STATEMENTS, "input"))
    question, value = row.first(names)
    name = question or next(iter(row.find_columns(names)), STATEMENTS[0])
    asked: list[Turn]
    if not question and not row.find_columns(names):
        raise UserError(
            f"{place.where}: a row needs its question in a column that is known: {', '.join(_QUESTIONS)}",
            value=f"columns {', '.join(map(str, row))}",
            cure="say which it is with --columns statement=NAME",
        )
    if is_conversation(value):
        asked = read_turns(row, name, where=place.where, ignore=place.reading.ignore)
    else:
        text = require_text(value if question else row.get(name), name, where=place.where)
        more = row.first(_FURTHER)[1] if name.casefold() == "instruction" else None
        asked = [Turn(role="user", text=f"{text}\n{more}" if isinstance(more, str) and more.strip() else text)]
    asked = add_system(row, [*_read_history(row, place), *asked])
    column, reasoning = (several, "") if several and "trace" not in place.reading.columns else find_reply(row, place)
    return [[*asked, *reply] for reply in _read_replies(row, column, reasoning, place, several=several)]


def add_system(row: Cells, turns: list[Turn]) -> list[Turn]:
    """Return a conversation with the system turn that stands in a column beside it; one of its own stays."""
    if any(turn.role == "system" for turn in turns):
        return turns
    system = row.first(_SYSTEMS)[1]
    return [Turn(role="system", text=system), *turns] if isinstance(system, str) and system.strip() else turns


def _read_history(row: Cells, place: RowPlace) -> list[Turn]:
    """Return what was said before the question: pairs of a question and its reply, as LLaMA-Factory's alpaca has them.

    Raises:
        UserError: a history in another form.
    """
    history = row.get("history") or []
    turns: list[Turn] = []
    for pair in history if isinstance(history, list) else [history]:
        if not isinstance(pair, list | tuple) or [type(said) for said in pair] != [str, str]:
            cure = "write pairs of a question and its reply, or one conversation in messages"
            raise UserError(f"{place.where}: history must be pairs of texts", value=repr(pair)[:80], cure=cure)
        turns += [Turn(role="user", text=pair[0]), make_turn("assistant", pair[1])]
    return turns


def find_reply(row: Cells, place: RowPlace) -> tuple[str, str]:
    """Return (column of the reply, column of the reasoning before it); "" for what the row has not."""
    reading = place.reading
    if "trace" in reading.columns:
        trace, ending = reading.columns["trace"], reading.columns.get("ending", "")
        return (ending, trace) if ending else (trace, "")
    reasoning = next((name for name in row.find_columns(REASONINGS) if _says_something(row.row[name])), "")
    attempt = re.sub("thinking_trajector(?:y|ies)", "attempt", reasoning)
    replies = row.find_columns((attempt, *REPLIES) if attempt != reasoning else REPLIES)
    reply = next((name for name in replies if row.row[name] not in (None, "", [])), next(iter(replies), ""))
    answers = row.find_columns(("answer",))
    # The answer of a row without another reply is one where it says more than a value.
    if answers and (not reply or row.row[reply] in (None, "", [])) and _is_reply(row.row[answers[0]], place):
        reply = answers[0]
    return reply, reasoning


def _is_reply(value: object, place: RowPlace) -> bool:
    text = value if isinstance(value, str) else ""
    return bool(text) and (place.reading.task == "chat" or bool(WORKED.search(text.strip())) or is_long(text))


def _says_something(value: object) -> bool:
    """Return whether a cell is a thought, and not a label such as `on`."""
    texts = value if isinstance(value, list) else [value]
    return any(isinstance(text, str) and len(text.split()) > 1 for text in texts)


def _read_replies(row: Cells, column: str, reasoning: str, place: RowPlace, *, several: str) -> list[list[Turn]]:
    value = row[column] if column else ""
    if is_conversation(value):
        return [read_turns(row, column, where=place.where, ignore=place.reading.ignore)]
    # A chat's reply may well be such a text itself.
    value = unwrap_texts(value) if place.reading.task != "chat" or column == several else value
    texts = [require_text(one or "", column, where=place.where) for one in as_list(value)]
    if not reasoning:
        return [[make_turn("assistant", text)] for text in texts]
    thoughts = [require_text(one, reasoning, where=place.where) for one in as_list(unwrap_texts(row[reasoning]))]
    if len(thoughts) > len(texts) == 1 and not reasoning.casefold().endswith(_SEVERAL_TRACES):
        raise UserError(
            f"{place.where}: {reasoning} must be one text: of several nobody knows whether they are steps or traces",
            value=f"{len(thoughts)} texts",
            cure="join the steps to one text, or name the column generations where each is a trace",
        )
    if len(texts) not in (1, len(thoughts)):
        value = f"{len(thoughts)} in {reasoning}, {len(texts)} in {column}"
        raise UserError(f"{place.where}: each reasoning needs its reply", value=value, cure="mend the row")
    pairs = zip(thoughts, texts * (len(thoughts) // len(texts)), strict=True)
    return [[_answer_after(thought, text)] for thought, text in pairs]


def _answer_after(thought: str, text: str) -> Turn:
    # Reasoning without a reply in another column is all that there is: its end is the reply.
    return make_turn("assistant", text, thought) if text.strip() else make_turn("assistant", thought)


def as_list(value: object) -> list[object]:
    """Return the members of a cell that may be a list, or itself; an empty text for nothing."""
    return value if isinstance(value, list) and value else ["" if value in (None, []) else value]


def require_text(value: object, column: str, *, where: str) -> str:
    """Return a cell that must be text.

    Raises:
        UserError: it is none.
    """
    if not isinstance(value, str):
        raise UserError(f"{where}: {column} must be text", value=repr(value)[:80], cure="mend the row")
    return value
