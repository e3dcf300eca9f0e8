r"""The end of a completion's boxed answer: an engine may stop a sample there without losing anything."""

import re

from mathlete.reasoning import THINK, ReasoningMarks

_OPENING = re.compile(r"\\f?boxed\s*\{")


def opens_box(said: str) -> bool:
    r"""Return whether what a partial completion has said ends with a box that it begins.

    >>> opens_box(r"So it is \boxed{"), opens_box(r"So it is \boxed{7}")
    (True, False)
    """
    begun = re.search(rf"{_OPENING.pattern}\Z", said)
    return begun is not None


def box_end(text: str, *, marks: ReasoningMarks = THINK, answering: bool = False, in_box: bool = False) -> int | None:
    r"""Return the index just after the first boxed answer that closes after `</think>`; None while there is none.

    Escaped braces do not count, as in `\boxed{\{1, 2\}}`. A box inside the reasoning is a draft and does not count.

    Args:
        text: a completion.
        marks: those of the model's reasoning.
        answering: whether the reasoning ended before it.
        in_box: whether a box was begun before it: then that one ends it.

    >>> text = r"so \boxed{3}? no.</think> It is \boxed{\frac{1}{2}}. Done"
    >>> text[: box_end(text)]
    'so \\boxed{3}? no.</think> It is \\boxed{\\frac{1}{2}}'
    >>> box_end(r"<think>\boxed{3}") is None
    True
    >>> box_end(r"\frac{1}{2}}. Done", in_box=True)
    12
    """
    if in_box:
        return _closing_brace(text, 0)
    thought = 0 if answering else text.find(marks.closing)
    opening = _OPENING.search(text, thought if answering else thought + len(marks.closing)) if thought >= 0 else None
    return _closing_brace(text, opening.end()) if opening else None


def _closing_brace(text: str, start: int) -> int | None:
    # A loop and not a regular expression: braces nest, and a backslash takes the meaning of the character after it.
    depth, escaped = 1, False
    for position in range(start, len(text)):
        character = text[position]
        if escaped or character == "\\":
            escaped = not escaped
            continue
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return position + 1
    return None
