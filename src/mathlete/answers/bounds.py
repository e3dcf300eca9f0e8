"""Separation bounds: how small a constant can be without being zero, and how large its parts are.

An algebraic number that is smaller than the bound is zero (Burnikel, Funke, Mehlhorn, Schirra, Schmitt, "A separation
bound for real algebraic expressions", ESA 2001, theorem 1; the argument holds for every conjugate, so also for complex
numbers). Trigonometric functions of rational multiples of pi count as sums of roots of unity. With pi, e or
logarithms in it no bound is known; there two values count as equal when they agree to TRANSCENDENTAL_BITS (Richardson's
uniformity conjecture, "The uniformity conjecture", CCA 2000).
"""

from __future__ import annotations

import math
from fractions import Fraction

from mathlete.answers.exact import whole
from mathlete.answers.numeric import FILTER_BITS, constant_value, context, rational_or_none
from mathlete.answers.tree import Node, TooHard, number, replace

TRANSCENDENTAL_BITS = 1000
MAX_BITS = {False: 6_000, True: 400_000}
"""Highest precision a proof may need: in this process, and in a worker that is killed when it takes too long."""


def is_zero(node: Node, *, patient: bool) -> bool:
    """Whether a constant is zero, proven as the module says.

    Raises:
        TooHard: the proof would need more digits than allowed.
    """
    bits, rough, bound = FILTER_BITS, constant_value(node), None
    while 2 * bits <= MAX_BITS[patient]:
        fine = constant_value(node, 2 * bits)
        if fine and abs(fine) > 2**20 * abs(rough - fine):
            return False
        bound = bound or _Separation(node)
        if bits > bound.size and _is_below(rough, bound.gap) and _is_below(fine, bound.gap):
            return True
        bits, rough = 2 * bits, fine
    raise TooHard(f"it agrees to {bits} bits, and a proof needs more")


def _is_below(value: object, gap: float) -> bool:
    return not value or context(FILTER_BITS).mag(value) < -gap


class _Separation:
    """`gap`: the constant is zero if it is below 2^-gap; `size`: bits of its largest part, which rounding magnifies."""

    def __init__(self, node: Node) -> None:
        bound = _Bound()
        u, low = bound.of(node)
        cyclotomic = _totient(4 * bound.turns) if bound.turns > 1 else 1
        degree = math.prod(bound.roots.values()) * cyclotomic
        algebraic = (degree - 1) * max(u, 0.0) + max(low, 0.0)
        self.gap = max(algebraic, TRANSCENDENTAL_BITS) if bound.transcendental else algebraic
        self.size = max(u, 0.0) + max(low, 0.0) + bound.hidden + 64


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
    """log2 of the bounds u and l on the conjugates of numerator and denominator, and the degree of the roots."""

    def __init__(self) -> None:
        self.roots: dict[Node, int] = {}
        self.turns = 1
        self.transcendental = False
        self.hidden = 0.0
        """Bits of the parts inside functions, which the bounds of the whole do not show."""

    def of(self, node: Node) -> tuple[float, float]:
        exact = rational_or_none(node, {})
        if exact is not None:
            return math.log2(max(1, abs(exact.numerator))), math.log2(exact.denominator)
        method = getattr(self, f"_{node.op.partition(':')[0]}", None)
        return self._atom(node) if method is None else method(node)

    def _atom(self, node: Node) -> tuple[float, float]:
        """A number that is not known to be algebraic: its own size, and the conjecture instead of the proof."""
        self.transcendental = True
        for arg in node.args:
            u, low = self.of(arg)
            self.hidden += max(u, 0.0) + max(low, 0.0)
        value = constant_value(node)
        return max(1.0, float(context(FILTER_BITS).mag(value)) if value else 1.0), 1.0

    def _const(self, node: Node) -> tuple[float, float]:
        if node.value == "i":
            self.roots[node] = 2
            return 0.0, 0.0
        return self._atom(node)

    def _neg(self, node: Node) -> tuple[float, float]:
        return self.of(node.args[0])

    _deg = _neg

    def _add(self, node: Node) -> tuple[float, float]:
        u, low = self.of(node.args[0])
        for arg in node.args[1:]:
            u2, low2 = self.of(arg)
            a, b = sorted((u + low2, low + u2))
            u, low = b + math.log2(1 + 2.0 ** max(a - b, -1000)), low + low2
        return u, low

    def _mul(self, node: Node) -> tuple[float, float]:
        bounds = [self.of(arg) for arg in node.args]
        return sum(b[0] for b in bounds), sum(b[1] for b in bounds)

    def _div(self, node: Node) -> tuple[float, float]:
        (u, low), (u2, low2) = self.of(node.args[0]), self.of(node.args[1])
        return u + low2, low + u2

    def _root(self, node: Node) -> tuple[float, float]:
        degree = whole(rational_or_none(node.args[1], {}))
        if degree is None or degree < 2:
            return self._atom(node)
        return self._rooted(node, self.of(node.args[0]), degree)

    def _rooted(self, node: Node, inner: tuple[float, float], degree: int) -> tuple[float, float]:
        self.roots[Node("root", (node.args[0], number(degree)))] = degree
        u, low = inner
        if u >= low:
            return (u + (degree - 1) * low) / degree, low
        return u, (low + (degree - 1) * u) / degree

    def _pow(self, node: Node) -> tuple[float, float]:
        exponent = rational_or_none(node.args[1], {})
        if exponent is None:
            return self._atom(node)
        u, low = self.of(node.args[0])
        if exponent.denominator > 1:
            u, low = self._rooted(node, (u, low), exponent.denominator)
        if exponent < 0:
            u, low = low, u
        return u * abs(exponent.numerator), low * abs(exponent.numerator)

    def _abs(self, node: Node) -> tuple[float, float]:
        """The absolute value of a real number is that number or its negative."""
        real = not context(FILTER_BITS).im(constant_value(node.args[0]))
        return self.of(node.args[0]) if real else self._atom(node)

    def _fn(self, node: Node) -> tuple[float, float]:
        turns = turns_of(node.args[0])
        name = node.op[3:]
        if turns is None or name not in ("sin", "cos", "tan", "cot", "sec", "csc"):
            return self._atom(node)
        self.turns = math.lcm(self.turns, turns.denominator)
        return 1.0, 1.0


def turns_of(angle: Node) -> Fraction | None:
    """The angle as a rational number of full turns, or None: pi/3 is 1/6, 30 degrees is 1/12."""
    if angle.op == "deg":
        degrees = rational_or_none(angle.args[0], {})
        return None if degrees is None else degrees / 360
    return _coefficient_of_pi(angle, Fraction(1, 2))


def _coefficient_of_pi(node: Node, unit: Fraction) -> Fraction | None:
    pi = Node("const", value="pi")
    at_zero, at_one, at_two, at_five = (rational_or_none(replace(node, pi, number(k)), {}) for k in (0, 1, 2, 5))
    if at_zero != 0 or at_one is None or at_two != 2 * at_one or at_five != 5 * at_one:
        return None
    return at_one * unit
