r"""The end of a completion's boxed answer: an engine may stop a sample there without losing anything."""

import re

from mathlete.reasoning import THINK, ReasoningMarks

_OPENING = re.compile(r"\\f?boxed\s*\{")
_BRACE, _STEPS = re.compile(r"[{}]|\\.", re.DOTALL), {"{": 1, "}": -1}
"""A brace; or a backslash with the character after it, of which it takes the meaning."""


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
    # No regular expression sees that braces nest; this one steps from each to the next, for a text may be long, and is
    # looked at with every brace that comes.
    depth = 1
    for match in _BRACE.finditer(text, start):
        depth += _STEPS.get(match[0], 0)
        if depth == 0:
            return match.end()
    return None
