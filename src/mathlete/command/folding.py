"""Text for a terminal, in lines that fit it: broken between words, for a terminal breaks them anywhere."""

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

_WORD = re.compile(r"(?:`[^`\n]*`|[^\s`])+|`+\S*")
"""A word; what stands in backticks is one, for it may be a command to copy."""
_HEAD = re.compile(r" *(?:\S+(?: \S+)? {2,}(?=\S))?")
"""What stands before a line's words: spaces, and a name set off by two or more."""
_CALL = re.compile(r"python -m (train|eval|submit)\b")


def say(text: str, *, file: TextIO | None = None) -> None:
    """Print a text, on a terminal folded to its width; to stdout where no file is given."""
    out = sys.stdout if file is None else file
    width = find_width(out)
    print(text if width is None else "\n".join(fold(line, width) for line in text.split("\n")), file=out)


def find_width(out: TextIO) -> int | None:
    """Return the columns of the terminal that a stream writes to; None where it is none."""
    try:
        if not out.isatty():
            return None
        asked = os.environ.get("COLUMNS", "")
        return int(asked) if asked.isdecimal() and int(asked) else os.get_terminal_size(out.fileno()).columns or None
    except (OSError, ValueError):
        return None


def fold(line: str, width: int) -> str:
    """Return a line in as many as it takes, those behind the first set in.

    >>> print(fold("  name   what it is for, in some words", 30))
      name   what it is for, in
             some words
    """
    breaks, inset = find_breaks(line, width)
    ends = [*breaks, len(line)]
    parts = [line[start:end].rstrip() for start, end in zip([0, *breaks], ends, strict=True)]
    return f"\n{' ' * inset}".join(parts)


def find_breaks(line: str, width: int, *, cells: Callable[[str], int] = len) -> tuple[list[int], int]:
    """Return (where new lines begin, by how many columns they are set in). A longer word stays whole.

    Args:
        line: without a line break.
        width: columns that a line may take.
        cells: how many columns a text takes.
    """
    head = _HEAD.match(line)
    inset = cells(head[0]) if head else 0
    inset = inset if 3 * inset < width else 0
    breaks: list[int] = []
    used, last = 0, 0
    for start, word in _list_words(line, width - inset, cells):
        gap = cells(line[last:start])
        if used and used + gap + cells(word) > width and (breaks or start > inset):
            breaks.append(start)
            used = inset + cells(word)
        else:
            used += gap + cells(word)
        last = start + len(word)
    return breaks, inset


def _list_words(line: str, width: int, cells: Callable[[str], int]) -> list[tuple[int, str]]:
    """Return each word and where it begins; what stands in backticks and has no room in a line is many words."""
    words: list[tuple[int, str]] = []
    for match in _WORD.finditer(line):
        if cells(match[0]) <= width:
            words.append((match.start(), match[0]))
        else:
            words += [(match.start() + part.start(), part[0]) for part in re.finditer(r"\S+", match[0])]
    return words


_called_by_script = False


@contextmanager
def called_as(prog: str) -> Iterator[None]:
    """Take how the user calls this project: `mathlete …`, or `python -m …`."""
    global _called_by_script
    before, _called_by_script = _called_by_script, prog.split(" ", 1)[0] == "mathlete"
    try:
        yield
    finally:
        _called_by_script = before


def name_commands(text: str) -> str:
    """Return a text whose commands are called as the user called this one.

    `python -m train` would start a train.py of the user's own, where the folder has one.
    """
    return _CALL.sub(r"mathlete \1", text) if _called_by_script else text
