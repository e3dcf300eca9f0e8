"""What a person sees of a command: its text, and how far it is. One console for both, so that neither breaks the other.

On a terminal a bar; in a file or a pipe a line after two seconds, at each new stage, and every 30 seconds.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mathlete.command.log_lines import LogLines, Reached

if TYPE_CHECKING:
    from rich.progress import Progress

    from mathlete.command.screen import Screen

_WIDE = 300
"""Columns of a table in a file or a pipe, where there is no width to keep to."""


def console(*, json: bool) -> "Screen":
    """Return where a person reads: stdout, or stderr where stdout is kept for the line of JSON.

    On a terminal text is broken between words, never in one: a path or a long word stays in one piece. What stands in
    square brackets is text too: a user's path may have some.
    """
    from mathlete.command.screen import Screen

    out = Screen(stderr=json, highlight=False, markup=False, emoji=False)
    if not _draws(out):
        out.soft_wrap, out.width = True, _WIDE
    return out


def _draws(screen: "Screen") -> bool:
    """Return whether it shows what is drawn in one place: FORCE_COLOR, as a notebook has it, makes no terminal."""
    return screen.is_terminal and screen.file.isatty()


def _choose_screen() -> "Screen":
    """Return where a bar is drawn: where text goes if both are the terminal, else stderr."""
    return console(json=not (sys.stdout.isatty() and sys.stderr.isatty()))


@contextmanager
def progress(title: str) -> "Iterator[Progress]":
    """Show a bar with count, elapsed time, ETA and words below it; lines on stderr where is no terminal."""
    from mathlete.command.screen import LoggedProgress, StackedProgress, list_columns

    screen = _choose_screen()
    if not _draws(screen):
        with LoggedProgress(title) as lines:
            yield lines
        return
    # What is printed beside the bar goes where it should go: rich would send it to the bar's terminal.
    beside = sys.stdout.isatty()
    bar = StackedProgress(*list_columns(title), console=screen, redirect_stdout=beside, speed_estimate_period=600)
    with screen.showing_bar(), bar:
        yield bar
        bar.fill()


@contextmanager
def busy(words: str) -> Iterator[None]:
    """Show a spinner and the time passed, for work of unknown length; lines on stderr where is no terminal."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    screen = _choose_screen()
    if not _draws(screen):
        lines = LogLines(words, Reached)
        lines.start()
        try:
            yield
        finally:
            lines.stop()
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    spinner = Progress(*columns, console=screen, transient=True, redirect_stdout=sys.stdout.isatty())
    with screen.showing_bar(), spinner:
        spinner.add_task(words, total=None)
        yield
