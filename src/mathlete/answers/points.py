"""The points at which formulas are compared: drawn once and for all, for each name."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from random import Random

POINTS = 8
NATURAL = frozenset("nmkpqNMKjl")
"""Names that stand for natural numbers; r, R and h stand for lengths, other names for any real number."""
LENGTHS = frozenset("rRhlLdV")


@lru_cache(maxsize=4096)
def draw_point(name: str, index: int) -> Fraction:
    """Return the value of a variable at a point: always the same for the same name."""
    random = Random(f"{name}/{index}")
    if name[0] in NATURAL and len(name) == 1:
        return Fraction(random.randrange(3 + 5 * index, 8 + 5 * index))
    size = Fraction(random.randrange(10**7, 4 * 10**9), 10**9)
    # The first half of the points is positive, so that roots and logarithms have values somewhere.
    negative = index >= POINTS // 2 and name[0] not in LENGTHS and random.random() < 0.7
    return -size if negative else size
