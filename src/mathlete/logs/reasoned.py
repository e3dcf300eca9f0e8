"""Reasoning in other tools' logs: beside a text or in parts of its own, and the prompts that open it."""

from collections.abc import Iterator, Mapping

from mathlete.logs.entries import LogRow, dig, find_statement
from mathlete.reasoning import THINK, ends_in_opening


def join_parts(content: object, reasoning: object = None) -> str | None:
    r"""Return a message's text with its reasoning before it, which is a field beside it or parts of its content.

    >>> join_parts([{"type": "thinking", "thinking": [{"type": "text", "text": "2+2"}]}, {"type": "text", "text": "4"}])
    '2+2\n</think>\n\n4'
    """
    if not isinstance(content, list):
        return join_reasoning(reasoning, content)
    thought = [text for part in content for kind in ("reasoning", "thinking") for text in _texts(part, kind)]
    said = [text for part in content for text in _texts(part, "text")]
    return join_reasoning("\n".join(thought) or reasoning, "\n".join(said) if said else None)


def _texts(part: object, kind: str) -> Iterator[str]:
    """Yield the texts of a part of that kind, which hold it themselves or in parts of their own."""
    value = part.get(kind) if isinstance(part, Mapping) and part.get("type") in (kind, f"output_{kind}") else None
    if isinstance(value, str):
        yield value
    for within in value if isinstance(value, list) else ():
        yield from _texts(within, "text")


def join_reasoning(reasoning: object, text: object) -> str | None:
    r"""Return a completion as the model wrote it, of the reasoning and the answer that a server keeps apart.

    Reasoning without an answer behind it never ended.

    >>> join_reasoning("2+2=4", "It is 4."), join_reasoning("Maybe 4?", None)
    ('2+2=4\n</think>\n\nIt is 4.', '<think>\nMaybe 4?')
    """
    spoken = text if isinstance(text, str) else ""
    if isinstance(reasoning, str) and reasoning.strip():
        return (
            f"{reasoning.strip()}{THINK.ending}{spoken.strip()}"
            if spoken.strip()
            else f"{THINK.before}{reasoning.strip()}"
        )
    return text if isinstance(text, str) else None


def opens_thoughts(prompt: object) -> bool | None:
    """Return whether a prompt opens the thoughts; None where a server renders what is logged: turns, also as JSON
    text."""
    whole = isinstance(prompt, str) and prompt.strip() and not prompt.lstrip().startswith("[{")
    return ends_in_opening(str(prompt)) if whole else None


def shows_opening(row: LogRow) -> bool | None:
    r"""Return True where a row's prompt opens the thoughts; else None, as a chat's template may open them behind it.

    >>> shows_opening({"prompt": "1 + 1?<think>\n"}), shows_opening({"prompt": "1 + 1?"})
    (True, None)
    """
    prompts = (row.get("prompt"), dig(row, "request.prompt"), find_statement(row))
    return any(map(opens_thoughts, prompts)) or None
