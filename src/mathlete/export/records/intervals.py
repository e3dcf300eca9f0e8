"""A change as JSON: [value, lower end, upper end, p], without the p where there is none."""

from collections.abc import Sequence

from mathlete.metrics import PairedChange


def change_to_json(change: PairedChange) -> list[float]:
    """Return [value, lower end, upper end, p], without the p where there is none."""
    return [change.value, change.lo, change.hi, *([] if change.p is None else [change.p])]


def change_from_json(points: Sequence[float]) -> PairedChange:
    """Read [value, lower end, upper end, p]; files of an earlier version have no p.

    >>> change_from_json([0.1, -0.2, 0.4])
    PairedChange(value=0.1, lo=-0.2, hi=0.4, p=None)
    """
    value, low, high, *rest = points
    return PairedChange(value=value, lo=low, hi=high, p=rest[0] if rest else None)
