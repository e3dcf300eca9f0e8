"""Turns of a conversation, whatever its keys and speakers are called: recognised by their structure."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mathlete.corpus.cells import Cells
from mathlete.errors import UserError
from mathlete.reasoning import remove_marks
from mathlete.renderings import read_rendered, strip_turn_end
from mathlete.text import parse_json
from mathlete.traces import Role, Turn, read_completion

REASONINGS = (
    "reasoning_content",
    "reasoning",
    "thinking",
    "thought",
    "thoughts",
    "cot",
    "complex_cot",
    "chain_of_thought",
    "rationale",
    "deepseek_reasoning",
    "deepseek_thinking_trajectory",
    "thinking_trajectory",
    "thinking_trajectories",
    "gemini_thinking_trajectory",
)
"""Names of fields that hold the reasoning before an answer."""
CONVERSATIONS = ("messages", "conversations", "conversation", "dialogue", "dialog", "turns")
_SPEAKERS = ("role", "from", "speaker", "author")
_SAYINGS = ("content", "value", "text", "message")
_CALLS = ("tool_calls", "function_call")
"""Keys of a turn that calls tools, beside its text or in the place of one."""
_LOSS = ("weight", "train")
"""Keys of a turn that say whether it is learnt: OpenAI's 0 or 1, axolotl's false or true."""
_ROLES: dict[str, Role] = {
    **dict.fromkeys(("user", "human", "prompter", "instruction", "question"), "user"),
    **dict.fromkeys(
        ("assistant", "gpt", "chatgpt", "gpt4", "model", "bot", "ai", "bard", "bing", "answer"), "assistant"
    ),
    **dict.fromkeys(("function_call",), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "function", "ipython", "observation", "function_response", "tool_response"), "tool"),
}
"""{what files call a speaker: its role in a chat template}."""


def is_conversation(value: object) -> bool:
    """Return whether a cell is a list of turns: objects that each say who speaks, and what.

    >>> is_conversation([{"from": "Human", "value": "2+2?"}]), is_conversation([{"name": "a", "value": 3}])
    (True, False)
    """
    turns = _load(value)
    return isinstance(turns, list) and bool(turns) and all(isinstance(turn, Mapping) and _keys(turn) for turn in turns)


def find_conversation(row: Cells, *, usual_only: bool) -> str:
    """Return the column that holds a conversation: one of the usual names, else one that has the structure; or ""."""
    if usual := row.find_columns(CONVERSATIONS):
        return usual[0]
    return "" if usual_only else next((name for name in row if is_conversation(row.row[name])), "")


def read_turns(row: Cells, column: str, *, where: str, ignore: frozenset[str] = frozenset()) -> list[Turn]:
    """Return the turns in a cell; in a CSV the cell is JSON text. Which keys of a turn are read is noted in the row.

    Raises:
        UserError: no list of turns, a speaker of no known role, or a turn that is no text.
    """
    value = _load(row[column])
    if not isinstance(value, list) or not all(isinstance(turn, Mapping) for turn in value):
        raise UserError(
            f"{where}: a conversation must be a list of turns, as {{role, content}} or {{from, value}}",
            value=f"{column} {value!r}"[:80],
            cure="mend it",
        )
    known = row.turn_keys.setdefault(column, set())
    known |= {key for key in ignore if f"{column}[].{key}" not in ignore}
    known |= {key.removeprefix(f"{column}[].") for key in ignore}
    return [_read_turn({k: v for k, v in turn.items() if k not in ignore}, known, column, where) for turn in value]


def _load(value: object) -> object:
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return parse_json(value)
        except ValueError:
            return value
    return value


def _keys(turn: Mapping[str, object]) -> tuple[str, str] | None:
    """Return (key of the speaker, key of what is said); None for an object that is no turn."""
    speaker = next((key for key in _SPEAKERS if str(turn.get(key)).casefold() in _ROLES), None)
    saying = next((key for key in _SAYINGS if isinstance(turn.get(key), str | list)), None)
    return (speaker, saying) if speaker and saying else None


def _read_turn(turn: Mapping[str, object], known: set[str], column: str, where: str) -> Turn:
    if calls := next((key for key in _CALLS if turn.get(key)), None):
        raise UserError(
            f"{where}: what a turn calls must stand in its text: {calls} is read by no template here",
            value=f"{turn[calls]!r}"[:160],
            cure="write each call as the model's own template writes it, leave the row out, or --ignore it",
        )
    keys = _keys(turn)
    reasoning = next((key for key in REASONINGS if isinstance(turn.get(key), str) and turn[key]), None)
    if keys is None and reasoning is not None:  # a turn may be nothing but reasoning, with None for what it says
        keys = next(((key, "") for key in _SPEAKERS if str(turn.get(key)).casefold() in _ROLES), None)
    if keys is None:
        raise UserError(
            f"{where}: a conversation must be a list of turns, as {{role, content}} or {{from, value}}",
            value=f"{dict(turn)!r} in {column}"[:160],
            cure=f"write a speaker of these: {', '.join(_ROLES)}; and what is said as text",
        )
    speaker, saying = keys
    known |= {*keys, *([reasoning] if reasoning else [])}
    said = turn.get(saying) or ""
    text, thought = (said, "") if isinstance(said, str) else _read_parts(said, where)
    made = make_turn(_ROLES[str(turn[speaker]).casefold()], text, str(turn[reasoning]) if reasoning else thought)
    return replace(made, trained=_has_loss(turn, known, where))


def _has_loss(turn: Mapping[str, object], known: set[str], where: str) -> bool:
    """Return whether a turn is learnt, as it says itself.

    Raises:
        UserError: a share, which no loss here has.
    """
    said = {key: turn[key] for key in _LOSS if turn.get(key) is not None}
    known.update(said)
    for key, value in said.items():
        if value not in (0, 1):
            raise UserError(f"{where}: {key} of a turn must be 0 or 1", value=repr(value)[:80], cure="mend the row")
    return all(said.values())


def _read_parts(parts: object, where: str) -> tuple[str, str]:
    """Return (what is said, what is thought) of a content that is a list of parts.

    Raises:
        UserError: a part that is neither text nor reasoning, such as a picture.
    """
    said: list[str] = []
    thought: list[str] = []
    for part in parts if isinstance(parts, list) else [parts]:
        fields = part if isinstance(part, Mapping) else {"text": part}
        thinking = next((fields[key] for key in REASONINGS if isinstance(fields.get(key), str)), None)
        if isinstance(thinking, str):
            thought.append(thinking)
        elif isinstance(text := fields.get("text"), str):
            (thought if fields.get("type") in REASONINGS else said).append(text)
        else:
            raise UserError(f"{where}: a turn's parts must be text", value=f"{part!r}"[:80], cure="leave the row out")
    return "\n".join(said), "\n".join(thought)


def make_turn(role: Role, text: str, thought: str = "") -> Turn:
    """Return a turn; where the reasoning stands in a field of its own, it may have marks around it, and what follows.

    A text with its own reasoning in it keeps that.
    """
    if role != "assistant":
        return Turn(role=role, text=text)
    text = strip_turn_end(text)
    parts = read_completion(text)
    if not thought.strip() or parts.flaw or parts.ending != text:
        return Turn(role=role, text=text)
    own = read_completion(strip_turn_end(thought))
    split = own.ending != strip_turn_end(thought)
    return Turn(role=role, text=text or (own.ending if split else ""), thought=own.thought)


def unwrap_turns(turns: Sequence[Turn]) -> list[Turn]:
    """Return the turns with those in place of a prompt that was rendered; what the template began of a reply is joined.

    A text with more in it than a prompt, such as a reply between two marks, stays as it is: its marks are found later.
    """
    if not turns or turns[0].role != "user" or (prompt := _read_prompt(turns[0].text)) is None:
        return [*turns]
    rest = [*turns[1:]]
    if prompt[-1].role == "assistant":
        begun = prompt.pop().text
        if rest and rest[0].role == "assistant":
            rest[0] = _join(begun, rest[0])
    return [*prompt, *rest]


def _read_prompt(text: str) -> list[Turn] | None:
    """Return the turns of a rendered prompt, which ends where the model goes on; None for any other text."""
    turns = read_rendered(text)
    if not turns or not all(role in _ROLES for role, _ in turns):
        return None
    *before, (role, said) = turns
    if _ROLES[role] == "user" or (_ROLES[role] == "assistant" and _only_opens(said)):
        return [*(make_turn(_ROLES[one], text) for one, text in before), Turn(role=_ROLES[role], text=said)]
    return None


def _join(begun: str, reply: Turn) -> Turn:
    """Return a reply behind what the template has begun of it, which the reply may repeat."""
    repeats = reply.text.lstrip().startswith(begun.strip())
    if repeats or reply.thought:
        return reply
    return replace(make_turn("assistant", begun + reply.text), trained=reply.trained)


def _only_opens(text: str) -> bool:
    """Return whether a text is nothing but what a template begins of the model's turn: a mark of reasoning, or less."""
    return not remove_marks(text).strip()


def read_rendered_turns(text: str) -> list[Turn] | None:
    """Return the turns of a rendered conversation; None for a text that is none, or has speakers of no known role."""
    turns = read_rendered(text)
    known = turns is not None and all(role in _ROLES for role, _ in turns)
    return [make_turn(_ROLES[role], said) for role, said in turns] if turns and known else None
