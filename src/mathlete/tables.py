"""Tables for a person: they fit the terminal, cut no cell and break no word; what there is no room for is --wide's.

Rich cuts cells where a table is wider than its terminal, the score as soon as a remark. Here columns are left out
instead, those named last first, and the table says how many. A row with a word that no column has room for stands below
the table, a cell a line.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Self

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

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
        """Return the columns of the terminal that it takes with each row in one line."""
        return Measurement.get(console, console.options.update(max_width=_NATURAL), self).maximum

    def _without_last(self) -> Self:
        return self._copy([replace(column) for column in self.columns[:-1]])

    def _copy(self, columns: list[Column]) -> Self:
        copied = type(self)(columns=(), title=None)
        copied.__dict__ |= {**self.__dict__, "columns": columns}
        return copied

    def _set_aside(self, console: Console, options: ConsoleOptions) -> tuple[Self, list[list[str]]]:
        """Return the table without the rows whose words are longer than their column can be, and those rows."""
        shown, aside = self._copy([replace(column) for column in self.columns]), list[list[str]]()
        room = options.max_width - self._extra_width
        while shown.rows and sum(one.minimum for one in shown._measure_columns(console)) > room:
            cells = [[str(cell) for cell in column._cells] for column in shown.columns]
            at = max(range(len(shown.rows)), key=lambda row: max(_longest_word(column[row]) for column in cells))
            aside.append([column[at] for column in cells])
            kept = [replace(one, _cells=[*one._cells[:at], *one._cells[at + 1 :]]) for one in shown.columns]
            shown = shown._copy(kept)
            shown.rows = [*shown.rows[:at], *shown.rows[at + 1 :]]
        shown._keep_words_whole(shown._measure_columns(console), room)
        order = {str(cell): at for at, cell in enumerate(self.columns[0]._cells)}
        return shown, sorted(aside, key=lambda row: order[row[0]])

    def _measure_columns(self, console: Console) -> list[Measurement]:
        """Return the least and the most that each column takes; the least is its longest word, of figures all."""
        natural = console.options.update(max_width=_NATURAL)
        every = [self._measure_column(console, natural, column) for column in self.columns]
        return [
            Measurement(one.maximum, one.maximum) if column.no_wrap else one
            for one, column in zip(every, self.columns, strict=True)
        ]

    def _keep_words_whole(self, needed: Sequence[Measurement], room: int) -> None:
        """Give each column its least, and of what is left as much as it needs, where not all have what they need."""
        room -= sum(one.minimum for one in needed)
        if sum(one.span for one in needed) <= room:
            return
        by_need = sorted(range(len(needed)), key=lambda at: needed[at].span)
        for left, at in zip(range(len(needed), 0, -1), by_need, strict=True):
            more = min(needed[at].span, max(0, room) // left)
            room -= more
            self.columns[at].width = needed[at].minimum + more - sum(self.padding[1::2])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the lines of the columns that fit."""
        shown = self.fit(console, width=options.max_width)
        if left_out := len(self.columns) - len(shown.columns):
            note = f"{left_out} more column{'s' if left_out > 1 else ''} with --wide"
            shown.caption = f"{self.caption}\n{note}" if self.caption else note
        aside = list[list[str]]()
        if _wide:
            options = options.update(max_width=max(options.max_width, self.measure(console)))
        else:
            shown, aside = shown._set_aside(console, options)
        whole = bool(shown.rows) or not aside
        if whole:
            yield from Table.__rich_console__(shown, console, options)
        elif shown.title:
            yield Text(str(shown.title))
        for name, *cells in aside:
            yield Text(f" {name}")
            for column, cell in zip(self.columns[1:], cells, strict=False):
                yield Padding(Text(f"{column.header}  {cell}" if column.header else cell), (0, 0, 0, 3))
        if not whole and shown.caption:
            yield Text(str(shown.caption))


def _longest_word(cell: str) -> int:
    return max((cell_len(word) for word in cell.split()), default=0)
