"""Exact rational values: what needs no rounding is never rounded."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction

from mathlete.answers.effort import spend
from mathlete.answers.tree import Node, TooBig, Undefined

MAX_BITS = 200_000
"""Longest numerator or denominator that is computed; 2024^4046 has 44,439 bits."""
_STEP_BITS = 2_000
"""Bits that one step computes with."""
MOST_BITS = 500
"""Bits of a number whose operations are one step each, in short formulas."""
_MAX_DENOMINATOR = 10**10
MAX_FACTORIAL = 5_000
MAX_TERMS = 2_000
"""Terms of a written-out sum or product."""
Env = Mapping[str, Fraction]
"""Values of the variables."""


def exact_value(node: Node, env: Env = {}) -> Fraction | None:  # noqa: B006 (read only)
    """Return the exact value, or None where it is not rational or not a number.

    Raises:
        Undefined: a division by zero, or another operation without a value.
        TooBig: a value that would have more than MAX_BITS bits.
    """
    if node.op == "num":
        return node.fraction
    if node.op == "sym":
        return env.get(str(node.value))
    spend()
    if node.op in ("sum", "prod"):
        return _sum_or_product(node, env)
    # Before the operands are computed: 2024^(10^9) mod 1000 has a value, 2024^(10^9) is too long to write down.
    if node.op == "mod" and (residue := power_modulo(node, env)) is not None:
        return residue
    operation = OPERATIONS.get(node.op)
    if operation is None:
        return None
    values = []
    for arg in node.args:
        value = exact_value(arg, env)
        if value is None:
            return None
        values.append(value)
    return _check_size(operation(values))


def bits_of(value: Fraction) -> int:
    """Return the bits of the longer part of a fraction."""
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def _check_size(value: Fraction | None) -> Fraction | None:
    if value is None:
        return None
    size = max(value.numerator.bit_length(), value.denominator.bit_length())
    if size > MAX_BITS:
        raise TooBig(f"a number of more than {MAX_BITS} bits")
    # Long numbers take longer, and their fractions a greatest common divisor each, whose time is quadratic.
    if size > _STEP_BITS:
        blocks = size // _STEP_BITS
        spend(blocks + blocks * blocks // 4)
    return value


def find_fraction_near(top: int, bottom: int) -> Fraction | None:
    """Return the fraction with a denominator of up to ten digits within 1e-35 of top / bottom, if there is one."""
    # Such fractions are 1e-20 apart, so that one at most is so near, and then it is a convergent of the continued
    # fraction (Legendre), the last with such a denominator.
    rest, divisor = top, bottom
    before, p, below, q = 0, 1, 1, 0
    while divisor:
        quotient, remainder = divmod(rest, divisor)
        if below + quotient * q > _MAX_DENOMINATOR:
            break
        before, p, below, q = p, before + quotient * p, q, below + quotient * q
        rest, divisor = divisor, remainder
    return Fraction(p, q) if abs(p * bottom - top * q) * 10**35 < q * bottom else None


def as_integer(value: Fraction | None) -> int | None:
    """Return the value as an int if it is one, else None."""
    return value.numerator if value is not None and value.denominator == 1 else None


def _div(values: list[Fraction]) -> Fraction:
    if values[1] == 0:
        raise Undefined("a division by zero")
    return values[0] / values[1]


def _mul(values: list[Fraction]) -> Fraction:
    # The size is bounded before the multiplication, which no clock could interrupt.
    if sum(max(v.numerator.bit_length(), v.denominator.bit_length()) for v in values) > MAX_BITS:
        raise TooBig("a product of too many digits")
    return math.prod(values, start=Fraction(1))


def _pow(values: list[Fraction]) -> Fraction | None:
    base, exponent = values
    if exponent.denominator != 1:
        base_root = rational_root(base, exponent.denominator)
        return None if base_root is None else _pow([base_root, Fraction(exponent.numerator)])
    if base == 0 and exponent <= 0:
        raise Undefined("zero to the power of zero or less")
    if base in (0, 1, -1):
        # These powers stay small however large the exponent is, so the bound on the size below must not refuse them.
        return base ** (exponent.numerator % 2 if base == -1 else min(exponent.numerator, 1) if exponent >= 0 else 1)
    size = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(exponent.numerator) * size > MAX_BITS:
        raise TooBig("a power of too many digits")
    return base**exponent.numerator


def rational_root(value: Fraction, degree: int) -> Fraction | None:
    """Return the rational root of that degree, real for odd degrees; None if it is irrational or imaginary."""
    if degree < 0:
        inverse = rational_root(value, -degree)
        return None if not inverse else 1 / inverse
    if degree == 0 or degree > 10_000 or (value < 0 and degree % 2 == 0):
        return None
    top, bottom = _integer_root(abs(value.numerator), degree), _integer_root(value.denominator, degree)
    if top is None or bottom is None:
        return None
    return Fraction(top if value >= 0 else -top, bottom)


def _integer_root(value: int, degree: int) -> int | None:
    if degree == 2:
        root = math.isqrt(value)
    elif value.bit_length() < degree:
        root = min(value, 1)
    else:
        root = _floor_root(value, degree)
    return root if root**degree == value else None


def _floor_root(value: int, degree: int) -> int:
    """Return the floor of the root by Newton's iteration."""
    # A start above the root makes the iteration fall monotonically, so the first step that does not fall ends it.
    guess = 1 << -(-value.bit_length() // degree)
    while True:
        better = ((degree - 1) * guess + value // guess ** (degree - 1)) // degree
        if better >= guess:
            return guess
        guess = better


def _root(values: list[Fraction]) -> Fraction | None:
    return rational_root(values[0], values[1].numerator) if values[1].denominator == 1 else None


def _log(values: list[Fraction]) -> Fraction | None:
    """Return the logarithm of a rational power, as of log_2 8 and log_4 8; None if it is irrational."""
    value, base = values
    if value <= 0 or base <= 0 or base == 1:
        raise Undefined("a logarithm without a real value")
    if value == 1:
        return Fraction(0)
    # Floating point only guesses the ratio; the powers of integers prove it.
    ratio = Fraction(_ln(value) / _ln(base)).limit_denominator(64)
    if ratio == 0 or abs(ratio.numerator) > 10_000:
        return None
    return ratio if _pow([base, Fraction(ratio.numerator)]) == _pow([value, Fraction(ratio.denominator)]) else None


def _ln(value: Fraction) -> float:
    return math.log(value.numerator) - math.log(value.denominator)


def _require_natural(value: Fraction, *, factors_for_one: int) -> int:
    """Return a number that has a factorial, and spend the effort: a unit for so many factors."""
    n = as_integer(value)
    if n is None or n < 0:
        raise Undefined("a factorial of no natural number")
    if n > MAX_FACTORIAL:
        raise TooBig(f"a factorial beyond {MAX_FACTORIAL}")
    spend(n // factors_for_one)
    return n


def _factorial(values: list[Fraction]) -> Fraction:
    return Fraction(math.factorial(_require_natural(values[0], factors_for_one=20)))


def _double_factorial(values: list[Fraction]) -> Fraction:
    # Multiplied here, one by one, which is slower than math.factorial.
    return Fraction(math.prod(range(_require_natural(values[0], factors_for_one=5), 0, -2)))


def _binom(values: list[Fraction]) -> Fraction:
    n, k = as_integer(values[0]), as_integer(values[1])
    if n is None or k is None or n < 0:
        raise Undefined("a binomial coefficient of no natural numbers")
    if n > MAX_FACTORIAL and min(k, n - k) > 200:
        raise TooBig(f"a binomial coefficient beyond {MAX_FACTORIAL}")
    spend(max(0, min(k, n - k)) // 25)
    return Fraction(math.comb(n, k) if k >= 0 else 0)


def _on_integers(function: Callable[..., int]) -> Callable[[list[Fraction]], Fraction]:
    def operation(values: list[Fraction]) -> Fraction:
        if any(v.denominator != 1 for v in values):
            raise Undefined("gcd or lcm of fractions")
        return Fraction(function(*(v.numerator for v in values)))

    return operation


def _mod(values: list[Fraction]) -> Fraction:
    if values[1] == 0:
        raise Undefined("a remainder modulo zero")
    return values[0] % values[1]


OPERATIONS: dict[str, Callable[[list[Fraction]], Fraction | None]] = {
    "add": lambda v: sum(v, Fraction(0)),
    "neg": lambda v: -v[0],
    "mul": _mul,
    "div": _div,
    "pow": _pow,
    "root": _root,
    "log": _log,
    "deg": lambda v: v[0],
    "abs": lambda v: abs(v[0]),
    "floor": lambda v: Fraction(math.floor(v[0])),
    "ceil": lambda v: Fraction(math.ceil(v[0])),
    "factorial": _factorial,
    "factorial2": _double_factorial,
    "binom": _binom,
    "gcd": _on_integers(math.gcd),
    "lcm": _on_integers(math.lcm),
    "min": min,
    "max": max,
    "mod": _mod,
}


def power_modulo(node: Node, env: Env = {}) -> Fraction | None:  # noqa: B006 (read only)
    """Return `b^e mod m` without writing b^e down, or None where the tree is no such power."""
    if node.op != "mod" or node.args[0].op != "pow":
        return None
    base, exponent, modulus = (as_integer(exact_value(part, env)) for part in (*node.args[0].args, node.args[1]))
    if base is None or exponent is None or not modulus or exponent < 0:
        return None
    # One product of the modulus' size for each bit of the exponent.
    blocks = modulus.bit_length() // _STEP_BITS + 1
    spend(exponent.bit_length() * blocks * blocks // 4)
    return Fraction(pow(base, exponent, modulus))


def _sum_or_product(node: Node, env: Env) -> Fraction | None:
    variable, low_node, high_node, body = node.args
    low, high = as_integer(exact_value(low_node, env)), as_integer(exact_value(high_node, env))
    if low is None or high is None:
        return None
    if high - low >= MAX_TERMS:
        raise TooBig(f"a sum or product of more than {MAX_TERMS} terms")
    total = Fraction(node.op == "prod")
    for index in range(low, high + 1):
        # Each term costs, leaves too: a sum in a sum in a sum of 1 would else be a loop that nothing counts.
        spend()
        term = exact_value(body, {**env, str(variable.value): Fraction(index)})
        if term is None:
            return None
        # An intermediate sum that grows too long stops here, not after all terms.
        total = _check_size(total + term if node.op == "sum" else total * term) or Fraction(0)
    return total
