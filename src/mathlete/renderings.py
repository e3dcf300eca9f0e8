r"""Conversations that a chat template has rendered already, read back into turns.

A rendered prompt in a file would be rendered a second time: its marks would stand within the user's turn, and train a
prompt that is never served. The renderings are those of the families whose templates are in use; the marks of R1,
ChatML, Llama 3, Gemma, Phi and Mistral, and the headings in plain text of Alpaca, Guanaco and Vicuna.

>>> read_rendered("<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n4<|im_end|>\n")
[('user', '2+2?'), ('assistant', '4')]
>>> read_rendered("What is 2+2?") is None
True
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_BEGINS = re.compile(r"\s*(?:<｜begin▁of▁sentence｜>|<\|begin_of_text\|>|<\|startoftext\|>|<bos>|<s>)")


@dataclass(frozen=True, kw_only=True)
class _Rendering:
    """How one family of templates writes turns."""

    header: re.Pattern[str]
    """What begins a turn; its group, or the mark itself, says whose it is."""
    end: re.Pattern[str]
    """What ends a turn."""
    system_first: bool = False
    """Whether a system text may stand before the first header, behind the mark of the beginning."""
    opening: re.Pattern[str] | None = None
    """What else may stand there, and says nothing."""


_RENDERINGS = (
    _Rendering(header=re.compile(r"<\|im_start\|>\s*(\w+)\n?"), end=re.compile(r"<\|im_end\|>")),
    _Rendering(
        header=re.compile(r"<\|start_header_id\|>(\w+)<\|end_header_id\|>\s{0,2}"),
        end=re.compile(r"<\|(?:eot|eom)_id\|>"),
    ),
    _Rendering(
        header=re.compile(r"<｜(User|Assistant)｜>"), end=re.compile(r"<｜end▁of▁sentence｜>"), system_first=True
    ),
    _Rendering(header=re.compile(r"<start_of_turn>(\w+)\n?"), end=re.compile(r"<end_of_turn>")),
    _Rendering(
        header=re.compile(r"<\|(user|assistant|system)\|>\n?"), end=re.compile(r"<\|end\|>|</s>|<\|endoftext\|>")
    ),
    _Rendering(header=re.compile(r"(\[/?INST\])\s?"), end=re.compile(r"</s>\s*(?:<s>)?")),
    _Rendering(
        # Guanaco's file has no line break before a heading.
        header=re.compile(r"(?:^### (?=Instruction|Input|Response|User)|### (?=Human|Assistant))(\w+):[ \n]*", re.M),
        end=re.compile(r"</s>|<\|end_?of_?text\|>|<\|im_end\|>|<\|eot_id\|>|<｜end▁of▁sentence｜>"),
        opening=re.compile(r"Below is an instruction that describes a task.*|A chat between .*", re.S),
    ),
    _Rendering(
        header=re.compile(r"(?:^|(?<=[.\n] )|(?<=</s>))(USER|ASSISTANT): ?", re.M),
        end=re.compile(r"</s>"),
        opening=re.compile(r"A chat between .*", re.S),
    ),
)
_ROLES = {
    "[inst]": "user",
    "[/inst]": "assistant",
    "instruction": "user",
    "input": "user",
    "human": "user",
    "response": "assistant",
    "model": "assistant",
}
_SYSTEM = re.compile(r"\s*<<SYS>>\n?(.*?)\n?<</SYS>>\s*", re.S)
_MARKS = re.compile(
    r"<\|(?:im_start|im_end|start_header_id|end_header_id|eot_id|eom_id|begin_of_text|end_of_text|endoftext|user|assistant"
    r"|system|end)\|>|<｜(?:User|Assistant|begin▁of▁sentence|end▁of▁sentence)｜>|<(?:start|end)_of_turn>|\[/?INST\]"
)
_ENDS = (
    "<｜end▁of▁sentence｜>",
    *(f"<|{name}|>" for name in ("im_end", "eot_id", "eom_id", "end", "endoftext", "end_of_text")),
    "<end_of_turn>",
    "</s>",
)


def holds_chat_marks(text: str) -> bool:
    """Return whether a text holds a mark with which a template of some family begins or ends turns."""
    return ("<" in text or "[" in text) and _MARKS.search(text) is not None


def read_rendered(text: str) -> list[tuple[str, str]] | None:
    r"""Return (role, text) of each turn of a rendered conversation; None for a text that is none.

    The last turn of a prompt is the model's, with what the template has begun of it: "", or "<think>\n". A text with
    something before its first turn is no rendering but a text with marks in it, and a turn of the model is never first.

    >>> read_rendered("<｜begin▁of▁sentence｜>Be brief.<｜User｜>2+2?<｜Assistant｜><think>\n")
    [('system', 'Be brief.'), ('user', '2+2?'), ('assistant', '<think>\n')]
    >>> read_rendered("2+2?<｜Assistant｜>5<｜User｜>Sure?") is None
    True
    """
    for rendering in _RENDERINGS:
        headers = [*rendering.header.finditer(text)]
        if headers and (turns := _split(text, rendering, headers)):
            return turns
    return None


def _split(text: str, rendering: _Rendering, headers: Sequence[re.Match[str]]) -> list[tuple[str, str]]:
    """Return the turns; none where the text before the first header belongs to no rendering."""
    begin = _BEGINS.match(text)
    before = text[begin.end() if begin else 0 : headers[0].start()].strip()
    before = "" if rendering.opening and rendering.opening.fullmatch(before) else before
    turns: list[tuple[str, str]] = []
    # Without the mark of the beginning, what stands there is a text into which a turn was put.
    if before and not (rendering.system_first and begin):
        return []
    if before:
        turns.append(("system", before))
    ends = [*(header.start() for header in headers[1:]), len(text)]
    for header, end in zip(headers, ends, strict=True):
        role = _ROLES.get(header[1].lower(), header[1].lower())
        said = _without_end(text[header.end() : end], rendering)
        # Llama 2 writes its system text within the first question.
        if role == "user" and (system := _SYSTEM.match(said)):
            turns.append(("system", system[1]))
            said = said[system.end() :]
        if turns and turns[-1][0] == role == "user":  # Alpaca's instruction and its input
            turns[-1] = (role, f"{turns[-1][1]}\n{said.strip()}")
        else:
            turns.append((role, said.strip() if role != "assistant" else said))
    return turns if turns[0][0] in ("system", "user", "developer") and _has_user(turns) else []


def _without_end(said: str, rendering: _Rendering) -> str:
    """Return what a turn says: up to the mark that ends it, where only blanks follow."""
    ends = [*rendering.end.finditer(said)]
    return said[: ends[-1].start()] if ends and not said[ends[-1].end() :].strip() else said


def strip_turn_end(text: str) -> str:
    """Return what a model says without the mark with which a template ends its turn.

    >>> strip_turn_end("It is 4.<|im_end|>")
    'It is 4.'
    """
    text = text.strip()
    end = next((mark for mark in _ENDS if text.endswith(mark)), "")
    return text.removesuffix(end).rstrip()


def _has_user(turns: Sequence[tuple[str, str]]) -> bool:
    return any(role == "user" for role, _ in turns)
