"""Values to any number of digits, and the proof that a constant is zero.

Constants are compared by a numeric filter first. Where it cannot tell them apart, a separation bound proves equality:
an algebraic number that is smaller than the bound is zero (Burnikel, Funke, Mehlhorn, Schirra, Schmitt, "A separation
bound for real algebraic expressions", ESA 2001, theorem 1; the argument holds for every conjugate, so also for complex
numbers). Trigonometric functions of rational multiples of pi count as sums of roots of unity. With pi, e or
logarithms in it no bound is known; there two values count as equal when they agree to TRANSCENDENTAL_BITS (Richardson's
uniformity conjecture, "The uniformity conjecture", CCA 2000).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from mathlete.answers.exact import rational, whole
from mathlete.answers.tree import Node, TooBig, TooHard, Undefined, number, symbols, walk

FILTER_BITS = 180
"""Precision of the first look: 54 digits."""
TRANSCENDENTAL_BITS = 1000
MAX_BITS = {False: 6_000, True: 400_000}
"""Highest precision a proof may need: in this process, and in a worker that is killed when it takes too long."""
_MAX_MAGNITUDE = 1 << 40
_MAX_TRIG_MAGNITUDE = 20_000
_local = threading.local()


def context(bits: int) -> Any:
    """This thread's mpmath context at that precision (mpmath's own is shared by all threads)."""
    if not hasattr(_local, "context"):
        from mpmath.ctx_mp import MPContext

        _local.context = MPContext()
    _local.context.prec = bits
    return _local.context


@dataclass(slots=True)
class Evaluation:
    """One evaluation of a tree: precision, values of the variables, and whether square roots of negatives exist."""

    bits: int
    env: Mapping[str, Fraction] = field(default_factory=dict)
    imaginary: bool = True
    ctx: Any = None

    def __post_init__(self) -> None:
        self.ctx = context(self.bits)

    def value(self, node: Node) -> Any:
        """The value as mpf or mpc.

        Raises:
            Undefined: there is no value, or no real one where only real ones count.
            TooBig: it cannot be written down.
            TooHard: an operation that only a computer algebra system can do.
        """
        if not self.env or node.op in ("num", "floor", "ceil", "mod", "gcd", "lcm"):
            exact = _rational_or_none(node, self.env)
            if exact is not None:
                return self.ctx.mpf(exact.numerator) / exact.denominator
        method = getattr(self, f"_{node.op.partition(':')[0]}", None)
        if method is None:
            raise TooHard(f"{node.op} has no value here")
        return self._checked(method(node))

    def _checked(self, value: Any) -> Any:
        if hasattr(value, "imag") and value.imag:
            if not self.imaginary:
                raise Undefined("no real value")
            return value
        real = getattr(value, "real", value)
        if not self.ctx.isfinite(real):
            raise Undefined("not finite")
        return real

    def _args(self, node: Node) -> list[Any]:
        return [self.value(arg) for arg in node.args]

    def _sym(self, node: Node) -> Any:
        if str(node.value) not in self.env:
            raise TooHard(f"the variable {node.value} has no value")
        exact = self.env[str(node.value)]
        return self.ctx.mpf(exact.numerator) / exact.denominator

    def _const(self, node: Node) -> Any:
        values = {"pi": +self.ctx.pi, "e": +self.ctx.e, "i": self.ctx.mpc(0, 1)}
        if node.value not in values:
            raise Undefined("infinity is no number")
        return values[node.value]

    def _add(self, node: Node) -> Any:
        return self.ctx.fsum(self._args(node))

    def _neg(self, node: Node) -> Any:
        return -self.value(node.args[0])

    def _mul(self, node: Node) -> Any:
        return self.ctx.fprod(self._args(node))

    def _div(self, node: Node) -> Any:
        top, bottom = self._args(node)
        if not bottom:
            raise Undefined("a division by zero")
        return top / bottom

    def _deg(self, node: Node) -> Any:
        return self.value(node.args[0])

    def _pow(self, node: Node) -> Any:
        base = self.value(node.args[0])
        exponent = _rational_or_none(node.args[1], self.env)
        if exponent is None:
            return self._general_power(base, self.value(node.args[1]))
        if not base:
            if exponent < 0:
                raise Undefined("zero to a negative power")
            return self.ctx.mpf(exponent == 0)
        if abs(exponent) * max(1, abs(self.ctx.mag(base))) > _MAX_MAGNITUDE:
            raise TooBig("a power beyond 2^(2^40)")
        if exponent.denominator == 1:
            return base**exponent.numerator
        return self._nth_root(base, exponent.denominator) ** exponent.numerator

    def _general_power(self, base: Any, exponent: Any) -> Any:
        if not base:
            raise Undefined("zero to a power that is no rational number")
        self._guard(exponent * self.ctx.log(base))
        return self.ctx.power(base, exponent)

    def _guard(self, exponent: Any) -> None:
        if self.ctx.mag(exponent) > 40:
            raise TooBig("an exponential beyond e^(2^40)")

    def _nth_root(self, base: Any, degree: int) -> Any:
        """Real for odd degrees of real numbers, as in school: the cube root of -8 is -2."""
        negative = not self.ctx.im(base) and self.ctx.re(base) < 0
        if negative and degree % 2:
            return -self._nth_root(-base, degree)
        if degree > 10_000:
            return self.ctx.power(base, self.ctx.mpf(1) / degree)
        return self.ctx.sqrt(base) if degree == 2 else self.ctx.root(base, degree)

    def _root(self, node: Node) -> Any:
        degree = whole(_rational_or_none(node.args[1], self.env))
        if degree is None or degree == 0:
            raise Undefined("a root of no whole degree")
        base = self.value(node.args[0])
        if degree < 0 and not base:
            raise Undefined("a division by zero")
        found = self._nth_root(base, abs(degree)) if base else base
        return found if degree > 0 else 1 / found

    def _log(self, node: Node) -> Any:
        value, base = self._args(node)
        if not value or not base or base == 1:
            raise Undefined("a logarithm without a value")
        return self.ctx.log(value) / self.ctx.log(base)

    def _fn(self, node: Node) -> Any:
        name = node.op[3:]
        if name in _INVERSES:
            return self._inverse(name, self.value(node.args[0]))
        angle = self._angle(node.args[0])
        if angle and self.ctx.mag(angle) > _MAX_TRIG_MAGNITUDE:
            raise TooBig("a function of too large a number")
        if name in ("tan", "sec", "cot", "csc"):
            zero = self.ctx.cos(angle) if name in ("tan", "sec") else self.ctx.sin(angle)
            if self.ctx.mag(zero) < -self.bits // 2:
                raise Undefined(f"{name} has no value there")
        if name in ("sinh", "cosh", "tanh"):
            self._guard(angle)
        return getattr(self.ctx, name)(angle)

    def _inverse(self, name: str, value: Any) -> Any:
        method = {"arcsin": "asin", "arccos": "acos", "arctan": "atan", "arccot": "acot", "arcsec": "asec",
                  "arccsc": "acsc", "arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh"}[name]  # fmt: skip
        return getattr(self.ctx, method)(value)

    def _angle(self, node: Node) -> Any:
        """A trigonometric argument in radians: degrees count as degrees only here."""
        if node.op == "deg":
            return self.value(node.args[0]) * self.ctx.pi / 180
        if node.op in ("add", "neg", "mul", "div") and any(n.op == "deg" for n in walk(node)):
            parts = [self._angle(arg) for arg in node.args]
            if node.op in ("add", "mul"):
                return self.ctx.fsum(parts) if node.op == "add" else self.ctx.fprod(parts)
            return -parts[0] if node.op == "neg" else parts[0] / parts[1]
        return self.value(node)

    def _abs(self, node: Node) -> Any:
        return abs(self.value(node.args[0]))

    def _floor(self, node: Node) -> Any:
        value = self.value(node.args[0])
        near = self.ctx.nint(value)
        if self.ctx.mag(value - near) < -self.bits // 2 or value == near:
            return near
        return self.ctx.floor(value) if node.op == "floor" else self.ctx.ceil(value)

    _ceil = _floor

    def _factorial(self, node: Node) -> Any:
        value = self.value(node.args[0])
        if not self.ctx.im(value) and value < 0 and value == self.ctx.nint(value):
            raise Undefined("a factorial of a negative number")
        if self.ctx.mag(value) > 34:
            raise TooBig("a factorial of too large a number")
        return self.ctx.gamma(value + 1)

    def _binom(self, node: Node) -> Any:
        n, k = self._args(node)
        if max(self.ctx.mag(n), self.ctx.mag(k)) > 34:
            raise TooBig("a binomial coefficient of too large numbers")
        return self.ctx.binomial(n, k)

    def _min(self, node: Node) -> Any:
        values = self._args(node)
        if any(self.ctx.im(value) for value in values):
            raise Undefined(f"{node.op} of complex numbers")
        return (min if node.op == "min" else max)(values)

    _max = _min

    def _mod(self, node: Node) -> Any:
        value, modulus = self._args(node)
        return value - modulus * self.ctx.floor(value / modulus)

    def _sum(self, node: Node) -> Any:
        variable, low_node, high_node, body = node.args
        low, high = (whole(_rational_or_none(limit, self.env)) for limit in (low_node, high_node))
        if low is None or high is None or high - low > 500:
            raise TooHard("a sum or product that is not short")
        terms = []
        for index in range(low, high + 1):
            inner = Evaluation(self.bits, {**self.env, str(variable.value): Fraction(index)}, self.imaginary)
            terms.append(inner.value(body))
        return self.ctx.fsum(terms) if node.op == "sum" else self.ctx.fprod(terms)

    _prod = _sum

    def _apply(self, node: Node) -> Any:
        """An unknown function: the same made-up number for the same argument."""
        from random import Random

        name, *args = node.args
        values = [self.ctx.nstr(self.value(arg), 30) for arg in args]
        return self.ctx.mpf(Random(f"{name.value}{values}").randrange(10**40)) / 10**39  # noqa: S311


_INVERSES = frozenset("arcsin arccos arctan arccot arcsec arccsc arcsinh arccosh arctanh".split())


def _rational_or_none(node: Node, env: Mapping[str, Fraction]) -> Fraction | None:
    try:
        return rational(node, env)
    except TooBig:
        return None


def constant_value(node: Node, bits: int = FILTER_BITS) -> Any:
    """The value of a tree without variables (see `Evaluation.value`)."""
    if symbols(node) or any(n.op == "apply" for n in walk(node)):
        raise TooHard("it holds variables")
    return Evaluation(bits).value(node)


def is_zero(node: Node, *, patient: bool) -> bool:
    """Whether a constant is zero, proven as the module says.

    Raises:
        TooHard: the proof would need more digits than allowed.
    """
    bits = FILTER_BITS
    for _ in range(2):
        rough, fine = constant_value(node, bits), constant_value(node, 2 * bits)
        if _is_certainly_nonzero(rough, fine):
            return False
        bits *= 2
    needed = separation_bits(node) + 64
    if needed > MAX_BITS[patient]:
        raise TooHard(f"it agrees to {bits} bits; a proof needs {needed}")
    while bits < needed:
        bits = min(2 * bits, int(needed))
        value = constant_value(node, bits)
        ctx = context(bits)
        if value and ctx.mag(value) > -bits * 3 // 4 + _size(node):
            return False
    return True


def _is_certainly_nonzero(rough: Any, fine: Any) -> bool:
    error = abs(rough - fine)
    return bool(abs(fine) > 2**20 * error) if fine else False


def _size(node: Node) -> int:
    """Bits by which rounding errors inside the tree may be magnified."""
    return 64 + sum(_bits(n.value) for n in walk(node) if n.op == "num")


def _bits(value: object) -> int:
    assert isinstance(value, Fraction)
    return value.numerator.bit_length() + value.denominator.bit_length()


def separation_bits(node: Node) -> float:
    """b such that the constant is zero if it is smaller than 2^-b.

    Raises:
        TooHard: an operation without a bound.
    """
    bound = _Bound()
    u, low = bound.of(node)
    cyclotomic = _totient(4 * bound.turns) if bound.turns > 1 else 1
    degree = math.prod(bound.roots.values()) * cyclotomic
    needed = (degree - 1) * max(u, 0.0) + max(low, 0.0)
    return max(needed, TRANSCENDENTAL_BITS) if bound.transcendental else needed


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

    def of(self, node: Node) -> tuple[float, float]:
        exact = _rational_or_none(node, {})
        if exact is not None:
            return math.log2(max(1, abs(exact.numerator))), math.log2(exact.denominator)
        method = getattr(self, f"_{node.op.partition(':')[0]}", None)
        return self._atom(node) if method is None else method(node)  # type: ignore[no-any-return]

    def _atom(self, node: Node) -> tuple[float, float]:
        """A number that is not known to be algebraic: its own size, and the conjecture instead of the proof."""
        self.transcendental = True
        for arg in node.args:
            self.of(arg)
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
        degree = whole(_rational_or_none(node.args[1], {}))
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
        exponent = _rational_or_none(node.args[1], {})
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
        degrees = _rational_or_none(angle.args[0], {})
        return None if degrees is None else degrees / 360
    return _coefficient_of_pi(angle, Fraction(1, 2))


def _coefficient_of_pi(node: Node, unit: Fraction) -> Fraction | None:
    from mathlete.answers.tree import replace

    pi = Node("const", value="pi")
    at_zero, at_one, at_two, at_five = (_rational_or_none(replace(node, pi, number(k)), {}) for k in (0, 1, 2, 5))
    if at_zero != 0 or at_one is None or at_two != 2 * at_one or at_five != 5 * at_one:
        return None
    return at_one * unit
