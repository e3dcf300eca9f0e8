"""Formulas with variables: the same where they take the same values at points that were drawn once and for all.

Two different polynomials or rational functions agree at a random point with negligible probability (Schwartz, "Fast
probabilistic algorithms for verification of polynomial identities", JACM 1980). Formulas count as real functions unless
i stands in them: outside its domain a formula has the value None, so that the square root of 1/n is 1 over the square
root of n, and the square root of x^2 is not x. Being equal at fixed points is a relation: symmetric and transitive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, TypeAlias

from mathlete.answers.breaks import has_breaks, points_of
from mathlete.answers.numeric import TreeEvaluation, context, make_value, remember
from mathlete.answers.points import POINTS, draw_point
from mathlete.answers.tree import Node, OutOfSteps, TooBig, TooHard, Undefined, constant, symbols, walk

if TYPE_CHECKING:
    from mathlete.answers.numeric import Value
    from mathlete.answers.programs import Program

    Pair: TypeAlias = tuple[Value, Value] | None
    """A formula's value at one point, rough and fine; None where it has none."""

BITS = 320
"""Precision of a value: 96 digits. Each is computed a second time at twice that, which shows its error."""


@dataclass(frozen=True, slots=True)
class Samples:
    """A formula's values at the points."""

    pairs: tuple[Pair, ...]

    @property
    def all_undefined(self) -> bool:
        """Whether the formula has no value at any point."""
        return all(pair is None for pair in self.pairs)


def sample_whole(node: Node) -> Samples:
    """Return the values at small whole numbers, where formulas by cases change; all variables have the same value."""
    names, imaginary = symbols(node), constant("i") in walk(node)
    return Samples(tuple(_evaluate(node, dict.fromkeys(names, Fraction(k)), imaginary) for k in range(-5, 6)))


@remember
def sample(node: Node) -> Samples:
    """Return the formula's values at the points.

    Raises:
        TooHard: an operation that only a computer algebra system can do.
    """
    from mathlete.answers.programs import compile_constant, compile_formula

    names, imaginary = symbols(node), constant("i") in walk(node)
    program = compile_formula(node) if names else compile_constant(node)
    pairs = (program and _run_at(program, index) for index in range(POINTS))
    return Samples(tuple(pair or _evaluate_at(node, names, index, imaginary) for index, pair in enumerate(pairs)))


def sample_both(a: Node, b: Node) -> tuple[Samples, Samples]:
    """Return the values of two formulas at the same points: far out, too, and where either changes its form.

    Raises:
        TooHard: an operation that only a computer algebra system can do.
    """
    first, second = sample(a), sample(b)
    if not (has_breaks(a) or has_breaks(b)):
        return first, second
    has_cases = any(n.op == "cases" for n in (*walk(a), *walk(b)))
    imaginary = [constant("i") in walk(node) for node in (a, b)]
    more: list[tuple[Pair, Pair]] = []
    for env, may_miss in points_of(a, b):
        try:
            pair = _evaluate(a, env, imaginary[0]), _evaluate(b, env, imaginary[1])
        except OutOfSteps:
            raise
        except (TooHard, TooBig):
            continue  # a factorial far out, for one, is more than anybody compares
        # Cases say where they hold; of other spellings one may miss the place itself, as x/sqrt(x) does 0.
        if has_cases or not may_miss or None not in pair:
            more.append(pair)
    return Samples((*first.pairs, *(p for p, _ in more))), Samples((*second.pairs, *(q for _, q in more)))


def _run_at(program: Program, index: int) -> Pair:
    values = program.run(BITS, 2 * BITS, point=index)
    return (make_value(values[0], 2 * BITS), make_value(values[1], 2 * BITS)) if values else None


def _evaluate_at(node: Node, names: set[str], index: int, imaginary: bool) -> Pair:
    return _evaluate(node, {name: draw_point(name, index) for name in names}, imaginary)


def _evaluate(node: Node, env: Mapping[str, Fraction], imaginary: bool) -> Pair:
    try:
        return TreeEvaluation(BITS, env, imaginary).evaluate(node), TreeEvaluation(2 * BITS, env, imaginary).evaluate(
            node
        )
    except Undefined:
        return None


def agree(a: Samples, b: Samples) -> bool:
    """Return whether two formulas have the same values at the same points.

    Raises:
        TooHard: the points show nothing: no value anywhere, or values too large to show a difference.
    """
    if a.all_undefined or b.all_undefined:
        raise TooHard("it has no value at any of the points")
    if not all(_agree_at(p, q) for p, q in zip(a.pairs, b.pairs, strict=True)):
        return False
    # A difference of 1 is lost in values of more than BITS bits, so agreement of huge values proves nothing.
    if all(pair is None or context(BITS).mag(pair[1]) > BITS // 2 for pair in a.pairs):
        raise TooHard("its values are too large to show a difference")
    return True


def _agree_at(p: Pair, q: Pair) -> bool:
    if p is None or q is None:
        return p is q
    ctx = context(2 * BITS)
    difference = abs(p[1] - q[1])
    # What the rough values are off is far more than the error of the fine ones, so 2^20 times it is a safe margin.
    error = abs(p[0] - p[1]) + abs(q[0] - q[1])
    return bool(difference <= 2**20 * error + ctx.ldexp(abs(p[1]) + abs(q[1]), -2 * BITS + 40))


def are_proportional(a: Samples, b: Samples, *, positive: bool = False) -> bool:
    """Return whether one formula is a constant multiple of the other: the same equation.

    With `positive` the factor must be positive: the same inequality.
    """
    context(2 * BITS)  # the precision of the divisions below
    pairs = list(zip(a.pairs, b.pairs, strict=True))
    pivot = next(((p, q) for p, q in pairs if p is not None and q is not None and p[1] and q[1]), None)
    if pivot is None:
        raise TooHard("it has no value at any of the points")
    # The factor is known from one point; all others must agree with it.
    ratio = pivot[0][1] / pivot[1][1]
    if positive and (context(2 * BITS).im(ratio) or ratio < 0):
        return False
    scale = tuple(p / q for p, q in zip(*pivot, strict=True))
    return all(_agree_at(p, q and (q[0] * scale[0], q[1] * scale[1])) for p, q in pairs)
