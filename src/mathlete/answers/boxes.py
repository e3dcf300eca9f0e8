r"""Boxes in a text: `\boxed{7}`, `\boxed 7`, `\fbox{7}`, unclosed ones, and GLM's box tokens; read from the right."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

MAX_BOXES = 64
"""Boxes that are tried from the right before the search gives up."""
_MAX_CONTENT = 100_000
"""Characters after a box's brace in which its end is looked for."""
_MAX_UNCLOSED = 20_000
"""Characters of a box that is never closed which are looked at."""
_OPENERS = ("boxed", "fbox", "<|begin_of_box|>", "framebox")
_GLM_END = "<|end_of_box|>"
_BRACES = re.compile(r"\\[\\{}]|\{+|\}+")
_BARE = re.compile(r"[ \t]*([-+]?[\d.][\d.,]*\d|[-+]?\d|\\[a-zA-Z]+(?:\{[^{}\n]*\}|\d)*|[A-Za-z](?![A-Za-z]))")
_PLACEHOLDER = re.compile(
    r"(?:\\text\s*)?[{\[<(]*\s*(?:your |the |final |my )*(?:answer|result|number|solution|value|content)(?: here)?"
    r"\s*[}\])>]*\Z"
    r"|(?:\\(?:boxed|fbox)\s*\{?)+\Z"
    r"|[.…_?~\s{}]*\Z|\\(?:ldots|dots|cdots|cdot|square|quad|,|;)?\s*\Z",
    re.I,
)
_AFTER = re.compile(r"(?:\\[\]),;! ]|\$|\s)*(\\?%|percent(?:age)?\b|pct\b|per cent\b|\\pmod\s*\{?\d+\}?)")
_NESTED = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BETWEEN = re.compile(
    r"(?:[\s$,;&.]|\\[,;:! ()\[\]\\]|\\q?quad|\\(?:text|mbox|textbf|mathrm)\s*\{\s*(?:,|and|or|;|und|et)*\s*\}"
    r"|\band\b|\bor\b|\*\*|[a-zA-Z]_?\{?\d?\}?\s*=)*\Z"
)


@dataclass(frozen=True, slots=True)
class Box:
    """The content of a box, and where the box starts and ends in the text."""

    content: str
    start: int
    end: int


def last_box(text: str) -> Box | None:
    r"""Return the last box that holds an answer, or None.

    >>> last_box(r"first \boxed{9}, then \boxed{7}, at last \boxed{?}").content
    '7'
    """
    return _box_before(text, len(text))


def exact_box(text: str, last: Box, *, agrees: Callable[[str, str], bool]) -> Box:
    r"""Return the last box, or the one before it where the last only prints that one's exact value as a decimal.

    >>> text = r"\boxed{\sqrt2}, which is about \boxed{1.414}"
    >>> exact_box(text, last_box(text), agrees=lambda exact, decimal: True).content
    '\\sqrt2'
    """
    decimal = _DECIMAL.match(last.content) if len(last.content) <= _MAX_DECIMAL else None
    before = _box_before(text, last.start) if decimal else None
    if decimal is None or before is None or len(before.content) > _MAX_EXACT or _DECIMAL.match(before.content):
        return last
    return before if agrees(before.content, decimal[1]) else last


_DECIMAL = re.compile(
    r"\s*\$?\s*(?:[a-zA-Z]\s*(?=[\\≈=]))?(?:\\(?:approx|simeq|sim|doteq)|≈|~|=)?\s*([-−]?\d*\.\d+)"
    r"\s*(?:\\ldots|\\dots|\.\.\.|…)?\s*(?:\\(?:text|mathrm)\s*\{[^{}]*\}(?:\^\{?\d\}?)?)?\s*\$?\s*\Z"
)
_MAX_DECIMAL = 100
"""Longest box, characters, that is taken for a decimal with its unit."""
_MAX_EXACT = 200
"""Longest exact value, characters, that is compared with its decimal."""


def join_boxes(text: str) -> Box | None:
    r"""Return the last boxes that stand side by side, with their contents joined by commas; or None.

    >>> join_boxes(r"first \boxed{9}. So \boxed{1} and \boxed{2}").content
    '1, 2'
    """
    last = box = last_box(text)
    if last is None or box is None:
        return None
    contents = [last.content]
    while len(contents) < MAX_BOXES and (before := _box_before(text, box.start)):
        gap = text[before.end : box.start]
        # Only "and", "or", commas and labels may stand between: a sentence there starts another answer.
        if len(gap) > 60 or not _BETWEEN.match(gap):
            break
        contents.insert(0, before.content)
        box = before
    return Box(", ".join(contents), box.start, last.end)


def _box_before(text: str, end: int) -> Box | None:
    for _ in range(MAX_BOXES):
        start, opener = -1, ""
        for one in _OPENERS:
            # Only behind what the others have is looked: the last box is most often near the end.
            at = text.rfind(one, start + 1, end)
            start, opener = (at, one) if at >= 0 else (start, opener)
        if start < 0:
            return None
        box = _read_box(text, start, opener)
        # Blanks side by side are one: the expression would try thousands of them in all ways.
        if box is not None and not _PLACEHOLDER.match(" ".join(box.content.split())):
            return box
        end = start
    return None


def _read_box(text: str, start: int, opener: str) -> Box | None:
    at = start + len(opener)
    if opener.startswith("<"):
        # A text that was cut off has no end token; then the answer ends with its paragraph.
        content = text[at:].partition(_GLM_END)[0].partition("\n\n")[0]
        return Box(content.strip(), start, at + len(content) + len(_GLM_END))
    if start and text[start - 1] == "\\":
        start -= 1
    head = text[at : at + 8]
    brace = at + len(head) - len(head.lstrip())
    if text[brace : brace + 1] != "{":
        bare = _BARE.match(text, at) if text[start] == "\\" else None
        return Box(bare[1], start, bare.end()) if bare else None
    close = _find_closing_brace(text, brace)
    content = text[brace + 1 : close] if close >= 0 else text[brace + 1 :].partition("\n")[0]
    end = close + 1 if close >= 0 else brace + 1 + len(content)
    return Box(
        _add_percent_or_modulus(text, _unwrap(content if close >= 0 else _trim_unclosed(content)), end), start, end
    )


def _find_closing_brace(text: str, brace: int) -> int:
    depth = 0
    for match in _BRACES.finditer(text, brace, brace + _MAX_CONTENT):
        braces = match[0]
        if braces[0] == "{":
            depth += len(braces)
        elif braces[0] == "}":
            if len(braces) >= depth:
                return match.start() + depth - 1
            depth -= len(braces)
    return -1


def _trim_unclosed(content: str) -> str:
    r"""Return an unclosed box without what closes the formula or the sentence around it."""
    # Stripped step by step: one expression over all of it would try each of a million blanks as the end's beginning.
    content = content[:_MAX_UNCLOSED]
    while True:
        trimmed = content.rstrip().rstrip(".$*").removesuffix("\\]").removesuffix("\\)")
        if trimmed == content:
            return content
        content = trimmed


def _unwrap(content: str) -> str:
    r"""Return the content without boxes around it: `\boxed{\boxed{7}}` holds 7."""
    content = content.strip()
    while (nested := _NESTED.match(content)) and content.endswith("}"):
        if _find_closing_brace(content, nested.end() - 1) != len(content) - 1:
            break
        content = content[nested.end() : -1].strip()
    return content


def _add_percent_or_modulus(text: str, content: str, end: int) -> str:
    r"""Return the content with the percent sign or modulus after its box: `$\boxed{28}$ percent` is 28 percent."""
    after = _AFTER.match(text[end : end + 40])
    if not after or not content or not content[-1].isdigit() or "%" in content:
        return content
    return f"{content} {after[1]}" if after[1].startswith("\\p") else rf"{content}\%"
