"""Traces in which a tool ran programs: which parts the model wrote, which the tool, and how they look when served."""

import re
from collections.abc import Iterator

_CALL = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.S)
"""OpenMathReasoning's marks around a program."""
_OUTPUT = re.compile(r"\n?```output\n.*?(?:\n```(?:\n|\Z)|\Z)", re.S)
_FOREIGN = re.compile(r"<tool_response>|<\|?python_output")
"""Marks around the output of other tools, which is not served here."""


def to_served_form(text: str) -> str:
    r"""Return the text with its programs in the blocks that are run when a model is served.

    >>> to_served_form("<tool_call>\nprint(4)\n</tool_call>\n```output\n4\n```\n")
    '```python\nprint(4)\n```\n```output\n4\n```\n'
    """
    return _CALL.sub(r"```python\n\1\n```", text)


def holds_output(text: str) -> bool:
    """Return whether a tool wrote a part of the text."""
    return bool(_OUTPUT.search(text) or _FOREIGN.search(text))


def holds_foreign_output(text: str) -> bool:
    """Return whether a tool wrote a part of the text in a form that is not served."""
    return bool(_FOREIGN.search(text))


def split_by_writer(text: str) -> Iterator[tuple[str, bool]]:
    r"""Yield the parts of a text, each with whether the model wrote it; joined they are the text.

    >>> list(split_by_writer("a\n```output\n4\n```\nb"))
    [('a', True), ('\n```output\n4\n```\n', False), ('b', True)]
    """
    at = 0
    for output in _OUTPUT.finditer(text):
        if output.start() > at:
            yield text[at : output.start()], True
        yield output[0], False
        at = output.end()
    if at < len(text):
        yield text[at:], True
