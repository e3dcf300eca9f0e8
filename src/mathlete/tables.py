"""Tables for a person: they fit the terminal, cut no cell and break no word; what there is no room for is --wide's.

Rich cuts cells where a table is wider than its terminal, the score as soon as a remark. Here columns are left out
instead, those named last first, and the table says how many.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Self

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table

_NATURAL = 100_000
_wide = False


def show_wide(wide: bool) -> None:
    """Have tables keep all their columns, or fit their terminal: what --wide says, for all tables from here on."""
    global _wide
    _wide = wide


class FittingTable(Table):
    """A table that leaves out columns until it fits.

    >>> table = FittingTable("scores", columns=("", "score"), extra=("seconds", "samples"))
    >>> table.add_row("base", "67.8", "101", "4,800")
    >>> [column.header for column in table.fit(Console(width=24)).columns]
    ['', 'score', 'seconds']
    """

    def __init__(
        self,
        title: str | None = None,
        *,
        columns: Sequence[str],
        extra: Sequence[str] = (),
        left: Sequence[str] = ("",),
        caption: str | None = None,
    ) -> None:
        """Take the columns that are always shown, and the extra ones, whose cells come last in each row.

        Those of `left` hold words, which may be broken between two of them; the others hold figures.
        """
        super().__init__(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title=title, caption=caption, caption_justify="left")
        for name in (*columns, *extra):
            words = name in left
            self.add_column(name, justify="left" if words else "right", no_wrap=not words, overflow="fold")
        self._fewest = len(columns)

    def fit(self, console: Console, *, width: int | None = None) -> Self:
        """Return the table with as many columns as fit."""
        shown = self
        while not _wide and len(shown.columns) > self._fewest and shown.measure(console) > (width or console.width):
            shown = shown._without_last()
        return shown

    def measure(self, console: Console) -> int:
        """Return the columns of the terminal that it takes where nothing is broken."""
        return Measurement.get(console, console.options.update(max_width=_NATURAL), self).maximum

    def _without_last(self) -> Self:
        shorter = type(self)(columns=(), title=None)
        shorter.__dict__ |= {**self.__dict__, "columns": [replace(column) for column in self.columns[:-1]]}
        return shorter

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the lines of the columns that fit."""
        shown = self.fit(console, width=options.max_width)
        if left_out := len(self.columns) - len(shown.columns):
            note = f"{left_out} more column{'s' if left_out > 1 else ''} with --wide"
            shown.caption = f"{self.caption}\n{note}" if self.caption else note
        if _wide:
            options = options.update(max_width=max(options.max_width, self.measure(console)))
        yield from Table.__rich_console__(shown, console, options)
