"""An interval as JSON: [value, lower end, upper end]."""

from collections.abc import Sequence

from mathlete.metrics import Interval


def interval_to_json(interval: Interval) -> list[float]:
    """Return [value, lower end, upper end]."""
    return [interval.value, interval.lo, interval.hi]


def interval_from_json(points: Sequence[float]) -> Interval:
    """Read [value, lower end, upper end].

    >>> interval_from_json([0.1, -0.2, 0.4])
    Interval(value=0.1, lo=-0.2, hi=0.4)
    """
    value, low, high = points
    return Interval(value=value, lo=low, hi=high)
