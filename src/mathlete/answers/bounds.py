"""Separation bounds: how small a constant can be without being zero, and how large its parts are.

An algebraic number that is smaller than the bound is zero (Burnikel, Funke, Mehlhorn, Schirra, Schmitt, "A separation
bound for real algebraic expressions", ESA 2001, theorem 1; the argument holds for every conjugate, so also for complex
numbers). That is a proof as far as values at two precisions bound the rounding: they are no intervals. Trigonometric
functions of rational multiples of pi count as sums of roots of unity. With pi, e or logarithms in it no bound is known;
there two values count as equal when they agree to TRANSCENDENTAL_BITS (Richardson's uniformity conjecture, "The
uniformity conjecture", CCA 2000).
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

from mathlete.answers.exact import as_integer
from mathlete.answers.numeric import FILTER_BITS, constant_value, context, exact_value_or_none
from mathlete.answers.tree import Node, TooHard, constant, number, replace

if TYPE_CHECKING:
    from mathlete.answers.numeric import Value

TRANSCENDENTAL_BITS = 1000
MAX_BITS = {False: 6_000, True: 400_000}
"""Highest precision a proof may need: in this process, and in a worker that is killed when it takes too long."""


def is_zero(node: Node, *, patient: bool) -> bool:
    """Return whether a constant is zero: proven for algebraic numbers, by the conjecture for others.

    Raises:
        TooHard: the proof would need more digits than allowed.
    """
    bits, rough, bound = FILTER_BITS, constant_value(node), None
    while 2 * bits <= MAX_BITS[patient]:
        fine = constant_value(node, 2 * bits)
        # The difference of two precisions estimates the rounding error; a value far above it is not zero. Nearly all
        # constants end here, before the bound, which costs more, is computed.
        if fine and abs(fine) > 2**20 * abs(rough - fine):
            return False
        bound = bound or _Separation(node)
        # Towers that agree so far would need more digits than a worker may compute, so no more are tried.
        if bits > MAX_BITS[False] and bound.size > MAX_BITS[True]:
            break
        # Rounding magnifies the largest part, so fewer bits than `size` say nothing about a small value.
        if bits > bound.size and _is_below(rough, bound.gap) and _is_below(fine, bound.gap):
            return True
        bits, rough = 2 * bits, fine
    raise TooHard(f"it agrees to {bits} bits, and a proof needs more")


def _is_below(value: Value, gap: float) -> bool:
    return not value or context(FILTER_BITS).mag(value) < -gap


class _Separation:
    """`gap`: the constant is zero if it is below 2^-gap; `size`: bits of its largest part, which rounding magnifies."""

    def __init__(self, node: Node) -> None:
        bound = _Bound()
        top, bottom = bound.measure(node)
        # The degree of the field that holds the constant: each root multiplies it once, and the roots of unity of all
        # angles lie in one cyclotomic field (of 4n, because a sine needs i too).
        cyclotomic = _totient(4 * bound.turns) if bound.turns > 1 else 1
        degree = math.prod(bound.roots.values()) * cyclotomic
        algebraic = (degree - 1) * max(top, 0.0) + max(bottom, 0.0)
        self.gap = max(algebraic, TRANSCENDENTAL_BITS) if bound.transcendental else algebraic
        self.size = max(top, 0.0) + max(bottom, 0.0) + bound.hidden + 64


def _totient(n: int) -> int:
    result, p = n, 2
    while p * p <= n:
        if n % p == 0:
            result -= result // p
            while n % p == 0:
                n //= p
        p += 1
    return result - result // n if n > 1 else result


class _Bound:
    """The bounds u and l of the paper, and what decides the degree.

    A part of the constant is a fraction of two algebraic integers. `measure` returns log2 of a bound on the conjugates
    of its numerator (`top`, the paper's u) and of its denominator (`bottom`, the paper's l).
    """

    def __init__(self) -> None:
        self.roots: dict[Node, int] = {}
        """Degree of each distinct root: one that occurs twice extends the field once."""
        self.turns = 1
        """Common denominator of the angles in full turns."""
        self.transcendental = False
        self.hidden = 0.0
        """Bits of the parts inside functions, which the bounds of the whole do not show."""

    def measure(self, node: Node) -> tuple[float, float]:
        """Return log2 of the bounds on numerator and denominator of a part."""
        # A rational part is one fraction, however many operations it is written with.
        exact = exact_value_or_none(node, {})
        if exact is not None:
            return math.log2(max(1, abs(exact.numerator))), math.log2(exact.denominator)
        method = getattr(self, f"_{node.op.partition(':')[0]}", None)
        return self._atom(node) if method is None else method(node)

    def _atom(self, node: Node) -> tuple[float, float]:
        """Bound a number that is not known to be algebraic by its size, and rely on the conjecture, not the proof."""
        self.transcendental = True
        for arg in node.args:
            top, bottom = self.measure(arg)
            self.hidden += max(top, 0.0) + max(bottom, 0.0)
        value = constant_value(node)
        return max(1.0, float(context(FILTER_BITS).mag(value)) if value else 1.0), 1.0

    def _const(self, node: Node) -> tuple[float, float]:
        if node.value == "i":
            self.roots[node] = 2
            return 0.0, 0.0
        return self._atom(node)

    def _neg(self, node: Node) -> tuple[float, float]:
        return self.measure(node.args[0])

    _deg = _neg

    def _add(self, node: Node) -> tuple[float, float]:
        top, bottom = self.measure(node.args[0])
        for arg in node.args[1:]:
            top2, bottom2 = self.measure(arg)
            a, b = sorted((top + bottom2, bottom + top2))
            top, bottom = b + math.log2(1 + 2.0 ** max(a - b, -1000)), bottom + bottom2
        return top, bottom

    def _mul(self, node: Node) -> tuple[float, float]:
        bounds = [self.measure(arg) for arg in node.args]
        return sum(b[0] for b in bounds), sum(b[1] for b in bounds)

    def _div(self, node: Node) -> tuple[float, float]:
        (top, bottom), (top2, bottom2) = self.measure(node.args[0]), self.measure(node.args[1])
        return top + bottom2, bottom + top2

    def _root(self, node: Node) -> tuple[float, float]:
        degree = as_integer(exact_value_or_none(node.args[1], {}))
        if degree is None or degree < 2:
            return self._atom(node)
        return self._take_root(node, self.measure(node.args[0]), degree)

    def _take_root(self, node: Node, inner: tuple[float, float], degree: int) -> tuple[float, float]:
        self.roots[Node("root", (node.args[0], number(degree)))] = degree
        top, bottom = inner
        # (u / l)^(1/d) has to become a fraction of algebraic integers again: it is (u l^(d-1))^(1/d) / l, or
        # u / (l u^(d-1))^(1/d) where that is smaller.
        if top >= bottom:
            return (top + (degree - 1) * bottom) / degree, bottom
        return top, (bottom + (degree - 1) * top) / degree

    def _pow(self, node: Node) -> tuple[float, float]:
        exponent = exact_value_or_none(node.args[1], {})
        if exponent is None:
            return self._atom(node)
        top, bottom = self.measure(node.args[0])
        if exponent.denominator > 1:
            top, bottom = self._take_root(node, (top, bottom), exponent.denominator)
        if exponent < 0:
            top, bottom = bottom, top
        return top * abs(exponent.numerator), bottom * abs(exponent.numerator)

    def _abs(self, node: Node) -> tuple[float, float]:
        """Use that the absolute value of a real number is that number or its negative."""
        real = not context(FILTER_BITS).im(constant_value(node.args[0]))
        return self.measure(node.args[0]) if real else self._atom(node)

    def _fn(self, node: Node) -> tuple[float, float]:
        turns = turns_of(node.args[0])
        name = node.op[3:]
        if turns is None or name not in ("sin", "cos", "tan", "cot", "sec", "csc"):
            return self._atom(node)
        self.turns = math.lcm(self.turns, turns.denominator)
        return 1.0, 1.0


def turns_of(angle: Node) -> Fraction | None:
    """Return the angle as a rational number of full turns, or None: pi/3 is 1/6, 30 degrees is 1/12."""
    if angle.op == "deg":
        degrees = exact_value_or_none(angle.args[0], {})
        return None if degrees is None else degrees / 360
    coefficient = _coefficient_of_pi(angle)
    return None if coefficient is None else coefficient / 2


def _coefficient_of_pi(node: Node) -> Fraction | None:
    """Return q of q * pi, or None: the tree must be linear in pi, as its values with numbers in place of pi show."""
    pi = constant("pi")
    at_zero, at_one, at_two, at_five = (exact_value_or_none(replace(node, pi, number(k)), {}) for k in (0, 1, 2, 5))
    if at_zero != 0 or at_one is None or at_two != 2 * at_one or at_five != 5 * at_one:
        return None
    return at_one
