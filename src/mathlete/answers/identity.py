"""Formulas with variables: the same where they take the same values at points that were drawn once and for all.

Two different polynomials or rational functions agree at a random point with negligible probability (Schwartz, "Fast
probabilistic algorithms for verification of polynomial identities", JACM 1980). Formulas count as real functions unless
i stands in them: outside its domain a formula has the value None, so that the square root of 1/n is 1 over the square
root of n, and the square root of x^2 is not x. Being equal at fixed points is a relation: symmetric and transitive.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from random import Random
from typing import Any

from mathlete.answers.numeric import Evaluation, context
from mathlete.answers.tree import Node, TooHard, Undefined, constant, symbols, walk

POINTS = 8
BITS = 320
"""Precision of a value: 96 digits. Each is computed a second time at twice that, which shows its error."""
_NATURAL = frozenset("nmkpqNMKjl")
"""Names that stand for natural numbers; r, R and h stand for lengths, other names for any real number."""
_LENGTHS = frozenset("rRhlLdV")


@dataclass(frozen=True, slots=True)
class Values:
    """A formula's values at the points, rough and fine; None where it has none."""

    pairs: tuple[tuple[Any, Any] | None, ...]

    @property
    def exist(self) -> bool:
        """Whether there is a value at any point."""
        return any(pair is not None for pair in self.pairs)


def point(name: str, index: int) -> Fraction:
    """The value of a variable at a point: always the same for the same name."""
    random = Random(f"{name}/{index}")
    if name[0] in _NATURAL and len(name) == 1:
        return Fraction(random.randrange(3 + 5 * index, 8 + 5 * index))
    size = Fraction(random.randrange(10**7, 4 * 10**9), 10**9)
    negative = index >= POINTS // 2 and name[0] not in _LENGTHS and random.random() < 0.7
    return -size if negative else size


def values(node: Node) -> Values:
    """The formula's values at the points.

    Raises:
        TooHard: an operation that only a computer algebra system can do.
    """
    names = symbols(node)
    imaginary = constant("i") in walk(node)
    return Values(tuple(_at_point(node, names, index, imaginary) for index in range(POINTS)))


def _at_point(node: Node, names: set[str], index: int, imaginary: bool) -> tuple[Any, Any] | None:
    env = {name: point(name, index) for name in names}
    try:
        return Evaluation(BITS, env, imaginary).value(node), Evaluation(2 * BITS, env, imaginary).value(node)
    except Undefined:
        return None


def same(a: Values, b: Values) -> bool:
    """Whether two formulas have the same values at the same points."""
    if not a.exist or not b.exist:
        raise TooHard("it has no value at any of the points")
    if not all(_agree(p, q) for p, q in zip(a.pairs, b.pairs, strict=True)):
        return False
    if all(pair is None or context(BITS).mag(pair[1]) > BITS // 2 for pair in a.pairs):
        raise TooHard("its values are too large to show a difference")
    return True


def _agree(p: tuple[Any, Any] | None, q: tuple[Any, Any] | None) -> bool:
    if p is None or q is None:
        return p is q
    ctx = context(2 * BITS)
    difference = abs(p[1] - q[1])
    error = abs(p[0] - p[1]) + abs(q[0] - q[1])
    return bool(difference <= 2**20 * error + ctx.ldexp(abs(p[1]) + abs(q[1]), -2 * BITS + 40))


def proportional(a: Values, b: Values, *, positive: bool = False) -> bool:
    """Whether one formula is a constant multiple of the other: the same equation; positive: the same inequality."""
    context(2 * BITS)
    pairs = list(zip(a.pairs, b.pairs, strict=True))
    pivot = next(((p, q) for p, q in pairs if p is not None and q is not None and p[1] and q[1]), None)
    if pivot is None:
        raise TooHard("it has no value at any of the points")
    ratio = pivot[0][1] / pivot[1][1]
    if positive and (context(2 * BITS).im(ratio) or ratio < 0):
        return False
    scale = tuple(p / q for p, q in zip(*pivot, strict=True))
    return all(_agree(p, q and (q[0] * scale[0], q[1] * scale[1])) for p, q in pairs)
