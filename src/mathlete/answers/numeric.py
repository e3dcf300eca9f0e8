"""Values of trees to any number of digits, by mpmath."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache, wraps
from random import Random
from typing import TYPE_CHECKING, ParamSpec, TypeAlias, TypeVar

from mathlete.answers.effort import spend, steps_spent
from mathlete.answers.exact import Env, as_integer, exact_value
from mathlete.answers.tree import Node, TooBig, TooHard, Undefined, symbols, walk

if TYPE_CHECKING:
    from mpmath.ctx_mp import MPContext  # type: ignore[import-untyped]
    from mpmath.ctx_mp_python import mpc, mpf  # type: ignore[import-untyped]

    from mathlete.answers.programs import Pair, Raw

    Value: TypeAlias = mpf | mpc

Args = ParamSpec("Args")
Result = TypeVar("Result")

FILTER_BITS = 180
"""Precision of the first look: 54 digits."""
_REMEMBERED = 1024
"""Values that are kept: those of a problem's answers, and of its gold."""
_MAX_MAGNITUDE = 1 << 40
_MAX_TRIG_MAGNITUDE = 20_000
_local = threading.local()


def context(bits: int) -> MPContext:
    """Return this thread's mpmath context, set to that precision: the global `mpmath.mp` is shared by all threads."""
    if not hasattr(_local, "context"):
        from mpmath.ctx_mp import MPContext

        _local.context = MPContext()
    ctx = _local.context
    if ctx.prec != bits:  # to set it takes longer than to look
        ctx.prec = bits
    return ctx


def remember(function: Callable[Args, Result]) -> Callable[Args, Result]:
    """Return a function of trees with its latest results kept, in each thread for itself: its numbers are a context's.

    Their steps are counted and the precision is set as if they were computed each time, so that a comparison does not
    depend on those before it.
    """

    @lru_cache(maxsize=_REMEMBERED)
    def compute(ctx: MPContext, *args: object, **named: object) -> tuple[Result, int, int]:
        before = steps_spent()
        result = function(*args, **named)  # type: ignore[arg-type]
        return result, steps_spent() - before, ctx.prec

    @wraps(function)
    def look_up(*args: Args.args, **named: Args.kwargs) -> Result:
        ctx, before = context(FILTER_BITS), steps_spent()
        result, steps, ctx.prec = compute(ctx, *args, **named)  # type: ignore[arg-type]
        if steps_spent() == before:
            spend(steps)
        return result

    return look_up


@dataclass(slots=True)
class TreeEvaluation:
    """One evaluation of a tree: precision, values of the variables, and whether square roots of negatives exist."""

    bits: int
    env: Env = field(default_factory=dict)
    imaginary: bool = True
    ctx: MPContext = field(init=False)

    def __post_init__(self) -> None:
        self.ctx = context(self.bits)

    def evaluate(self, node: Node) -> Value:
        """Return the value as mpf or mpc.

        Raises:
            Undefined: there is no value, or no real one where only real ones count.
            TooBig: the value cannot be written down.
            TooHard: an operation that only a computer algebra system can do.
        """
        spend(1 + self.bits // 700)
        # At a point of a formula the exact value is skipped: its fractions would grow with every operation. Operations
        # with jumps need it all the same: rounding could put floor(3) at 2.
        if not self.env or node.op in ("num", "floor", "ceil", "mod", "gcd", "lcm"):
            exact = exact_value_or_none(node, self.env)
            if exact is not None:
                return self.ctx.mpf(exact.numerator) / exact.denominator
        # The methods below are named after the operations of the tree.
        method = getattr(self, f"_{node.op.partition(':')[0]}", None)
        if method is None:
            raise TooHard(f"{node.op} has no value here")
        try:
            return self._check_finite(method(node))
        except (ArithmeticError, ValueError) as error:
            # mpmath's way to say that a function has no value there.
            raise Undefined(f"{node.op}: {error}") from error

    def _check_finite(self, value: Value) -> Value:
        # mpmath keeps complex numbers whose imaginary part is zero: they are real, and only their real part goes on.
        if hasattr(value, "imag") and value.imag:
            if not self.imaginary:
                raise Undefined("no real value")
            return value
        real = getattr(value, "real", value)
        if not self.ctx.isfinite(real):
            raise Undefined("not finite")
        return real

    def _evaluate_args(self, node: Node) -> list[Value]:
        return [self.evaluate(arg) for arg in node.args]

    def _sym(self, node: Node) -> Value:
        if str(node.value) not in self.env:
            raise TooHard(f"the variable {node.value} has no value")
        exact = self.env[str(node.value)]
        return self.ctx.mpf(exact.numerator) / exact.denominator

    def _const(self, node: Node) -> Value:
        values = {"pi": +self.ctx.pi, "e": +self.ctx.e, "i": self.ctx.mpc(0, 1)}
        if node.value not in values:
            raise Undefined("infinity is no number")
        return values[str(node.value)]

    def _add(self, node: Node) -> Value:
        return self.ctx.fsum(self._evaluate_args(node))

    def _neg(self, node: Node) -> Value:
        return -self.evaluate(node.args[0])

    def _mul(self, node: Node) -> Value:
        return self.ctx.fprod(self._evaluate_args(node))

    def _div(self, node: Node) -> Value:
        top, bottom = self._evaluate_args(node)
        if not bottom:
            raise Undefined("a division by zero")
        return top / bottom

    def _deg(self, node: Node) -> Value:
        return self.evaluate(node.args[0])

    def _pow(self, node: Node) -> Value:
        base = self.evaluate(node.args[0])
        exponent = exact_value_or_none(node.args[1], self.env)
        if exponent is None:
            return self._general_power(base, self.evaluate(node.args[1]))
        if not base:
            if exponent <= 0:
                raise Undefined("zero to the power of zero or less")
            return self.ctx.zero
        if abs(exponent) * max(1, abs(self.ctx.mag(base))) > _MAX_MAGNITUDE:
            raise TooBig("a power beyond 2^(2^40)")
        if exponent.denominator == 1:
            return base**exponent.numerator
        return self._nth_root(base, exponent.denominator) ** exponent.numerator

    def _general_power(self, base: Value, exponent: Value) -> Value:
        if not base:
            raise Undefined("zero to a power that is no rational number")
        self._spend_on_series()
        self._check_exponent(exponent * self.ctx.log(base))
        return self.ctx.power(base, exponent)

    def _check_exponent(self, exponent: Value) -> None:
        if self.ctx.mag(exponent) > 40:
            raise TooBig("an exponential beyond e^(2^40)")

    def _nth_root(self, base: Value, degree: int) -> Value:
        """Return the root, real for odd degrees of real numbers, as in school: the cube root of -8 is -2."""
        negative = not self.ctx.im(base) and self.ctx.re(base) < 0
        if negative and degree % 2:
            return -self._nth_root(-base, degree)
        if degree > 10_000:
            return self.ctx.power(base, self.ctx.mpf(1) / degree)
        return self.ctx.sqrt(base) if degree == 2 else self.ctx.root(base, degree)

    def _root(self, node: Node) -> Value:
        degree = as_integer(exact_value_or_none(node.args[1], self.env))
        if degree is None or degree == 0:
            raise Undefined("a root of no whole degree")
        base = self.evaluate(node.args[0])
        if degree < 0 and not base:
            raise Undefined("a division by zero")
        root = self._nth_root(base, abs(degree)) if base else base
        return root if degree > 0 else 1 / root

    def _spend_on_series(self) -> None:
        """Count what a series takes at this precision: the time is quadratic in the digits."""
        spend((self.bits // 300) ** 2)

    def _log(self, node: Node) -> Value:
        self._spend_on_series()
        value, base = self._evaluate_args(node)
        if not value or not base or base == 1:
            raise Undefined("a logarithm without a value")
        return self.ctx.log(value) / self.ctx.log(base)

    def _fn(self, node: Node) -> Value:
        self._spend_on_series()
        name = node.op[3:]
        if name in _INVERSES:
            return self._inverse(name, self.evaluate(node.args[0]))
        angle = self._angle(node.args[0])
        if angle and self.ctx.mag(angle) > _MAX_TRIG_MAGNITUDE:
            raise TooBig("a function of too large a number")
        if name in ("tan", "sec", "cot", "csc"):
            # At a pole rounding leaves a huge number instead of an error: a denominator of half the bits is zero.
            zero = self.ctx.cos(angle) if name in ("tan", "sec") else self.ctx.sin(angle)
            if self.ctx.mag(zero) < -self.bits // 2:
                raise Undefined(f"{name} has no value there")
        if name in ("sinh", "cosh", "tanh"):
            self._check_exponent(angle)
        return getattr(self.ctx, name)(angle)

    def _inverse(self, name: str, value: Value) -> Value:
        return getattr(self.ctx, _INVERSES[name])(value)

    def _angle(self, node: Node) -> Value:
        """Return a trigonometric argument in radians: degrees count as degrees only here."""
        if node.op == "deg":
            return self.evaluate(node.args[0]) * self.ctx.pi / 180
        if node.op in ("add", "neg", "mul", "div") and any(n.op == "deg" for n in walk(node)):
            parts = [self._angle(arg) for arg in node.args]
            if node.op in ("add", "mul"):
                return self.ctx.fsum(parts) if node.op == "add" else self.ctx.fprod(parts)
            return -parts[0] if node.op == "neg" else parts[0] / parts[1]
        return self.evaluate(node)

    def _abs(self, node: Node) -> Value:
        return abs(self.evaluate(node.args[0]))

    def _floor(self, node: Node) -> Value:
        value = self.evaluate(node.args[0])
        near = self.ctx.nint(value)
        # A value that rounding moved off an integer would fall on its wrong side.
        if self.ctx.mag(value - near) < -self.bits // 2 or value == near:
            return near
        return self.ctx.floor(value) if node.op == "floor" else self.ctx.ceil(value)

    _ceil = _floor

    def _factorial(self, node: Node) -> Value:
        value = self.evaluate(node.args[0])
        if not self.ctx.im(value) and value < 0 and value == self.ctx.nint(value):
            raise Undefined("a factorial of a negative number")
        if self.ctx.mag(value) > 34:
            raise TooBig("a factorial of too large a number")
        spend(60 + (self.bits // 100) ** 2)
        return self.ctx.gamma(value + 1)

    def _binom(self, node: Node) -> Value:
        n, k = self._evaluate_args(node)
        if max(self.ctx.mag(n), self.ctx.mag(k)) > 34:
            raise TooBig("a binomial coefficient of too large numbers")
        spend(600)  # three gamma functions
        return self.ctx.binomial(n, k)

    def _min(self, node: Node) -> Value:
        values = self._evaluate_args(node)
        if any(self.ctx.im(value) for value in values):
            raise Undefined(f"{node.op} of complex numbers")
        return (min if node.op == "min" else max)(values)

    _max = _min

    def _mod(self, node: Node) -> Value:
        value, modulus = self._evaluate_args(node)
        return value - modulus * self.ctx.floor(value / modulus)

    def _sum(self, node: Node) -> Value:
        variable, low_node, high_node, body = node.args
        low, high = (as_integer(exact_value_or_none(limit, self.env)) for limit in (low_node, high_node))
        if low is None or high is None or high - low > 500:
            raise TooHard("a sum or product that is not short")
        terms = []
        for index in range(low, high + 1):
            spend()
            inner = TreeEvaluation(self.bits, {**self.env, str(variable.value): Fraction(index)}, self.imaginary)
            terms.append(inner.evaluate(body))
        return self.ctx.fsum(terms) if node.op == "sum" else self.ctx.fprod(terms)

    _prod = _sum

    def _cases(self, node: Node) -> Value:
        for value, condition in zip(node.args[::2], node.args[1::2], strict=True):
            if self._holds(condition):
                return self.evaluate(value)
        raise Undefined("none of the cases holds")

    def _holds(self, condition: Node) -> bool:
        if condition.op == "field":
            return True
        if condition.op == "inter":
            return all(self._holds(link) for link in condition.args)
        left, right = (self.evaluate(arg) for arg in condition.args)
        difference = left - right
        if self.ctx.im(difference):
            raise Undefined("an inequality of complex numbers")
        # What rounding left of zero is zero: x >= 0 holds at 0.
        if difference and self.ctx.mag(difference) < -self.bits // 2:
            difference = self.ctx.zero
        return bool(_HOLDS[str(condition.value)](difference))

    def _apply(self, node: Node) -> Value:
        """Return a made-up number for an unknown function, the same for the same argument at the same point."""
        name, *args = node.args
        values = [self.ctx.nstr(self.evaluate(arg), 30) for arg in args]
        # By the function's own draw each point has another function: f(2) < f(1) is then no multiple of f(1) < f(4).
        drawn = self.env.get(str(name.value), "")
        return self.ctx.mpf(Random(f"{name.value}{drawn}{values}").randrange(10**40)) / 10**39


_HOLDS: dict[str, Callable[[Value], bool]] = {
    "<": lambda d: d < 0,
    ">": lambda d: d > 0,
    "<=": lambda d: d <= 0,
    ">=": lambda d: d >= 0,
    "=": lambda d: d == 0,
    "!=": lambda d: d != 0,
}
_INVERSES = {"arcsin": "asin", "arccos": "acos", "arctan": "atan", "arccot": "acot", "arcsec": "asec",
             "arccsc": "acsc", "arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh"}  # fmt: skip


def exact_value_or_none(node: Node, env: Env) -> Fraction | None:
    """Return the exact value, or None where it is not rational or too big."""
    try:
        return exact_value(node, env)
    except TooBig:
        return None


def value_at_point(node: Node, point: int, *, bits: int) -> Value | None:
    """Return the value of a formula at a point that was drawn; None where `TreeEvaluation` must say it."""
    from mathlete.answers.programs import compile_formula

    program = compile_formula(node)
    values = program.run(bits, point=point) if program is not None else None
    return make_value(values[0], bits) if values else None


def make_value(raw: Raw | Pair, bits: int) -> Value:
    """Return a raw number as this thread's context has it."""
    ctx = context(bits)
    return ctx.make_mpf(raw) if len(raw) == 4 else ctx.make_mpc(raw)


@remember
def constant_value(node: Node, bits: int = FILTER_BITS) -> Value:
    """Return the value of a tree without variables (see `TreeEvaluation.evaluate`)."""
    from mathlete.answers.programs import compile_constant

    program = compile_constant(node)
    if program is not None and (values := program.run(bits)):
        return make_value(values[0], bits)
    if symbols(node) or any(n.op == "apply" for n in walk(node)):
        raise TooHard("it holds variables")
    return TreeEvaluation(bits).evaluate(node)
