"""The console and the bars that `mathlete.command.bars` hands out; rich is loaded only where it shows."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from mathlete.command.folding import find_breaks, name_commands
from mathlete.command.log_lines import LogLines, Reached

_with_bar: "list[Screen]" = []
"""Consoles that show a bar: rich moves a bar out of the way of its own console's text only."""


class Screen(Console):
    """A console that breaks no word, writes above the bar that is shown, and raises where nobody reads any more."""

    def print(self, *objects: object, **how: Any) -> None:
        """Print as rich does; text on a terminal is broken between words, and a longer word stays whole.

        In plain text of ours commands are called as the user called this one.
        """
        objects = tuple(name_commands(one) if isinstance(one, str) else one for one in objects)
        words = objects and all(isinstance(one, str | Text) for one in objects)
        if words and not self.soft_wrap and not how.get("soft_wrap"):
            markup, style = how.pop("markup", None), how.pop("style", None) or ""
            texts = [
                one if isinstance(one, Text) else self.render_str(str(one), markup=markup, style=style)
                for one in objects
            ]
            objects, how = (break_between_words(Text(" ").join(texts), self.width),), {"soft_wrap": True, **how}
        how.setdefault("crop", False)
        if self.is_terminal and _with_bar and self not in _with_bar and not self.quiet:
            Console.print(_with_bar[-1], *objects, **how)
        else:
            super().print(*objects, **how)

    @contextmanager
    def showing_bar(self) -> Iterator[None]:
        """Have what is printed meanwhile stand above this console's bar."""
        _with_bar.append(self)
        try:
            yield
        finally:
            _with_bar.remove(self)

    def on_broken_pipe(self) -> None:
        """Raise the error: rich would end the process without a word."""
        raise BrokenPipeError


def break_between_words(text: Text, width: int) -> Text:
    """Return the text in lines of at most so many columns, but for words that are longer.

    >>> break_between_words(Text("see runs/a/very/long/path now"), 8).plain
    'see\\nruns/a/very/long/path\\nnow'
    """
    lines: list[Text] = []
    for line in text.split("\n", allow_blank=True):
        breaks, inset = find_breaks(line.plain, width, cells=cell_len)
        first, *others = line.divide(breaks)
        lines += [first, *(Text(" " * inset) + other for other in others)]
    for line in lines:
        line.rstrip()
    return Text("\n").join(lines)


def list_columns(title: str) -> tuple[ProgressColumn, ...]:
    """Return a bar's columns: title, bar, count, time so far and time left."""
    return (
        TextColumn(f"[bold]{title}[/]"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )


class StackedProgress(Progress):
    """A bar with its words in a line below it, where they have the whole width."""

    def fill(self) -> None:
        """Show the work as done: a rule that stops early has left the rest undrawn."""
        for task in self.tasks:
            count = task.completed or task.total or 1
            self.update(task.id, total=count, completed=count)

    def get_renderables(self) -> Iterator[RenderableType]:
        """Yield the bar, then the words of what it counts."""
        yield from super().get_renderables()
        for task in self.tasks:
            if task.description:
                yield Padding(Text(task.description, overflow="ignore"), (0, 0, 0, 2))


class LoggedProgress(Progress):
    """A bar that nothing draws: what it would show is written in lines."""

    def __init__(self, title: str) -> None:
        """Take what stands before each line."""
        super().__init__(disable=True)
        self._lines = LogLines(title, self._read)

    def start(self) -> None:
        """Begin to write lines."""
        self._lines.start()

    def stop(self) -> None:
        """Write no more."""
        self._lines.stop()

    def _read(self) -> Reached:
        tasks: list[Task] = self.tasks
        if not tasks:
            return Reached()
        return Reached(words=tasks[-1].description, done=tasks[-1].completed, total=tasks[-1].total)
