"""Traces in which a tool ran programs: what the model wrote, what the tool wrote, in the form in which it is served."""

import re
from collections.abc import Iterator

_CALL = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.S)
"""OpenMathReasoning's marks around a program."""
_OUTPUT = re.compile(r"\n?```output\n.*?(?:\n```(?:\n|\Z)|\Z)", re.S)
_FOREIGN = re.compile(r"<tool_response>|<\|?python_output")
"""Marks of other tools' outputs, which are not served here."""


def served_form(text: str) -> str:
    r"""The text with its programs in the blocks that are run when a model is served.

    >>> served_form("<tool_call>\nprint(4)\n</tool_call>\n```output\n4\n```\n")
    '```python\nprint(4)\n```\n```output\n4\n```\n'
    """
    return _CALL.sub(r"```python\n\1\n```", text)


def holds_output(text: str) -> bool:
    """Whether a tool wrote a part of the text."""
    return bool(_OUTPUT.search(text) or _FOREIGN.search(text))


def holds_foreign_output(text: str) -> bool:
    """Whether a tool wrote a part of the text in a form that is not served."""
    return bool(_FOREIGN.search(text))


def written_by(text: str) -> Iterator[tuple[str, bool]]:
    r"""Yields the parts of a text and whether the model wrote them; joined they are the text.

    >>> list(written_by("a\n```output\n4\n```\nb"))
    [('a', True), ('\n```output\n4\n```\n', False), ('b', True)]
    """
    at = 0
    for found in _OUTPUT.finditer(text):
        if found.start() > at:
            yield text[at : found.start()], True
        yield found[0], False
        at = found.end()
    if at < len(text):
        yield text[at:], True
