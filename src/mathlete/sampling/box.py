r"""Where a completion's boxed answer closes: the place at which an engine may stop a sample without losing anything."""

import re

from mathlete.prompts import END_THINK

_OPENING = re.compile(r"\\f?boxed\s*\{")


def box_end(text: str) -> int | None:
    r"""The index just after the first boxed answer that closes after `</think>`; None while there is none.

    Escaped braces do not count, as in `\boxed{\{1, 2\}}`. A box inside the reasoning is a draft and does not count.

    >>> text = r"so \boxed{3}? no.</think> It is \boxed{\frac{1}{2}}. Done"
    >>> text[: box_end(text)]
    'so \\boxed{3}? no.</think> It is \\boxed{\\frac{1}{2}}'
    >>> box_end(r"<think>\boxed{3}") is None
    True
    """
    thought = text.find(END_THINK)
    opening = _OPENING.search(text, thought + len(END_THINK)) if thought >= 0 else None
    return _closing(text, opening.end()) if opening else None


def _closing(text: str, start: int) -> int | None:
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
