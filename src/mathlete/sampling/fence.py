"""The end of a block of Python in a completion: an engine stops a sample there, so that its program can be run."""

import re

_BLOCK = re.compile(r"^[ \t]*```[ \t]*(?:python3?|py)[ \t]*\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE | re.IGNORECASE)


def code_end(text: str) -> int | None:
    r"""Return the index just after the first closed Python block; None while there is none.

    Both fences stand at the beginning of a line (spaces before them do not matter).

    >>> text = "First\n```python\nprint('```')\n```\nand so"
    >>> text[: code_end(text)]
    "First\n```python\nprint('```')\n```"
    >>> code_end("```python\nprint(1)") is None
    True
    """
    block = _BLOCK.search(text)
    return block.end() if block else None


def last_program(text: str) -> str | None:
    r"""Return the program in a Python block with which the text ends; None where it ends otherwise.

    >>> last_program("So:\n```python\nprint(1)\n```")
    'print(1)\n'
    >>> last_program("```python\nprint(1)\n```\nThat is it.") is None
    True
    """
    block = _BLOCK.search(text)
    return block[1] if block and block.end() == len(text) else None
