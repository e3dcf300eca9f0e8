"""The table of hops, from the 4-bit base to what serves, with what each cost: in the terminal and on the page."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mathlete.export.records import Hop
from mathlete.metrics import format_change, to_points

if TYPE_CHECKING:
    from rich.table import Table

HEAD = ("", "engine", "KL", "top-1", "unchanged", "right", "change [95%]", "MiB", "s")
"""KL in nats a token, greedy answers unchanged and right, and the change of those in points."""


def survival_table(hops: Sequence[Hop], *, tokens: int) -> "Table":
    """Return a table with a line for each hop."""
    from mathlete.tables import FittingTable

    title = f"against the trained model: KL in nats over {tokens:,} held-out tokens"
    extra = ("engine", "MiB", "s", "top-1")
    columns = [name for name in HEAD if name not in extra]
    table = FittingTable(title, columns=columns, extra=extra, left=("", "engine"))
    for hop in hops:
        cells = dict(zip(HEAD, hop_cells(hop), strict=True))
        table.add_row(*(cells[name] for name in (*columns, *extra)))
    return table


def hop_cells(hop: Hop) -> list[str]:
    """Return a hop's figures as text.

    >>> hop = Hop.from_json({
    ...     "hop": "int8", "engine": "transformers", "kl": 1e-5, "top1": 0.999, "problems": 200, "answered": 180,
    ...     "unchanged": 1.0, "right": 150, "change": [0.0, -0.01, 0.01], "bytes": 2**20, "seconds": 3.2})
    >>> hop_cells(hop)
    ['int8', 'transformers', '1.0e-05', '99.90%', '100.0% of 180', '150 of 200', '+0.0 [-1.0, +1.0]', '1.0', '3.2']
    """
    return [
        hop.name,
        hop.engine,
        "" if hop.kl is None else f"{hop.kl:.1e}",
        "" if hop.top1 is None else f"{hop.top1:.2%}",
        "none answered" if hop.unchanged is None else f"{hop.unchanged:.1%} of {hop.answered}",
        f"{hop.right} of {hop.problems}",
        format_change(to_points(hop.change), problems=hop.problems),
        f"{hop.bytes / 2**20:.1f}",
        f"{hop.seconds:.1f}",
    ]
