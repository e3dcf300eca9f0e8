"""--help in lines that fit the terminal; of a command with many flags those that people need, others by --help-all."""

import io
import re
import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import redirect_stdout, suppress
from typing import TextIO

from mathlete.command.folding import find_width, fold

_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_FLAG = re.compile(r"^│ (-h|--[\w.-]+)")


_PLAIN = str.maketrans("╭╮╰╯─│", "    - ")
"""For a terminal whose letters have no lines."""


class _Captured(io.TextIOWrapper):
    """What is printed, coloured as it would be."""

    def __init__(self, instead_of: TextIO) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)
        self._is_terminal = instead_of.isatty()

    def isatty(self) -> bool:
        """Return whether the text will be read on a terminal."""
        return self._is_terminal

    @property
    def text(self) -> str:
        """What was printed."""
        assert isinstance(self.buffer, io.BytesIO)
        return self.buffer.getvalue().decode()


def print_help(write: Callable[[], object], flags: Collection[str] | None) -> None:
    """Print the help of a parser, of its flags these only, and say how many others there are.

    Args:
        write: prints all of it, and ends with SystemExit.
        flags: names as `--model`; None: all.
    """
    with redirect_stdout(_Captured(sys.stdout)) as printed, suppress(SystemExit):
        write()
    lines, left_out = printed.text.splitlines(), 0
    if flags is not None:
        lines, left_out = shorten(lines, flags)
    if (width := find_width(sys.stdout)) is not None:
        # The parser's boxes fit the terminal, what stands around them may not: it has colours, and no long word.
        lines = [line if len(_COLOUR.sub("", line)) <= width else fold(_COLOUR.sub("", line), width) for line in lines]
    text = "\n".join(lines)
    print(text if "utf" in (sys.stdout.encoding or "").lower() else text.translate(_PLAIN))
    if left_out:
        print(f"{left_out} more flags: --help-all")


def shorten(lines: Sequence[str], flags: Collection[str]) -> tuple[list[str], int]:
    """Return (the lines without the entries of other flags, how many entries were left out).

    >>> box = ["usage", "╭─ options ─╮", "│ --n INT   │", "│     Any.  │", "│ --seed    │", "╰───────────╯"]
    >>> shorten(box, {"--n"})
    (['usage', '╭─ options ─╮', '│ --n INT   │', '│     Any.  │', '╰───────────╯'], 1)
    >>> shorten(box[1:], {"--run"})
    ([], 2)
    """
    shown: list[str] = []
    box: list[str] = []
    kept, any_kept, left_out = True, False, 0
    for line in lines:
        plain = _COLOUR.sub("", line)
        if plain.startswith("╭"):
            box, kept, any_kept = [line], True, False
        elif plain.startswith("╰"):
            shown += [*box, line] if any_kept else []
            box = []
        elif not box:
            shown.append(line)
        else:
            if entry := _FLAG.match(plain):
                kept = entry[1] in {"-h", *flags}
                any_kept |= kept
                left_out += not kept
            if kept:
                box.append(line)
    return shown, left_out
