r"""Where formulas change their form, and the points at which they are compared because of it.

`|x - 10|` is `10 - x` at all small numbers, `\max(x, 10)` is 10 there, and cases differ from each other only between
the ends of their conditions. Two formulas of which one may do so are compared far out, too, and at and between the
places where either changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import lru_cache
from itertools import combinations, pairwise
from math import floor
from random import Random
from typing import TYPE_CHECKING

from mathlete.answers.exact import exact_value
from mathlete.answers.numeric import FILTER_BITS, TreeEvaluation, context
from mathlete.answers.points import LENGTHS, NATURAL
from mathlete.answers.tree import Node, OutOfSteps, TooBig, TooHard, Undefined, number, subtract, symbols, walk

if TYPE_CHECKING:
    from mathlete.answers.numeric import Value

_BREAKING = frozenset({"abs", "floor", "ceil", "max", "min", "mod", "gcd", "lcm", "cases", "root"})
_SCALES = tuple(Fraction(10) ** k for k in (-1, 1, 1, 2, 2, 3, 3, 5))
_WHOLE_SCALES = (1, 2, 30, 50, 100, 200, 1000, 5000)
_MAX_BREAKS = 6
"""Places of a pair of formulas that are looked at."""
_FARTHEST = 10**9


def has_breaks(node: Node) -> bool:
    r"""Return whether a formula may have another form elsewhere: |x - 10|, \max(x, 10), cases, a root."""
    return any(_is_breaking(n) and symbols(n) for n in walk(node))


def _is_breaking(node: Node) -> bool:
    if node.op != "pow":
        return node.op in _BREAKING
    exponent = node.args[1]
    return exponent.op in ("num", "div") and (value := exact_value(exponent)) is not None and value.denominator > 1


def points_of(*nodes: Node) -> Iterator[tuple[Mapping[str, Fraction], bool]]:
    """Yield the points far out and where the formulas change, and whether a value may be missing at one side there.

    At the very place of a change only one of two spellings may have a value, as x/sqrt(x) and sqrt(x) at 0.
    """
    names = sorted({name for node in nodes for name in symbols(node)})
    for index in range(len(_SCALES)):
        yield {name: _draw_far_point(name, index) for name in names}, False
    for name in names:
        breaks = sorted({place for node in nodes for place in _find_breaks(node, name)}, key=abs)[:_MAX_BREAKS]
        others = {other: _draw_far_point(other, 0) for other in names if other != name}
        yield from (({**others, name: at}, is_break) for at, is_break in _look_around(sorted(breaks), name))


@lru_cache(maxsize=4096)
def _draw_far_point(name: str, index: int) -> Fraction:
    """Return the value of a variable at a point far out or close to zero: always the same for the same name."""
    random = Random(f"{name}/far/{index}")
    # Each name has the scales in an order of its own, so that x is far greater than y at some points and far smaller
    # at others.
    order = Random(name).sample(range(len(_SCALES)), len(_SCALES))
    if name[0] in NATURAL and len(name) == 1:
        return Fraction(_WHOLE_SCALES[order[index]] + (random.randrange(20) if order[index] > 1 else 0))
    size = _SCALES[order[index]] * Fraction(random.randrange(10**6, 9 * 10**6), 10**6)
    return -size if order[index] % 2 and name[0] not in LENGTHS else size


def _look_around(breaks: list[Fraction], name: str) -> Iterator[tuple[Fraction, bool]]:
    """Yield the places themselves, and a point in each gap between them and beyond the outer ones."""
    if not breaks:
        return
    if name[0] in NATURAL and len(name) == 1:
        whole = {floor(at) + step for at in breaks for step in (0, 1)}
        yield from ((Fraction(at), False) for at in sorted(whole) if at > 0)
        return
    yield from ((at, True) for at in breaks)
    ends = [breaks[0] - Fraction(7, 5), *breaks, breaks[-1] + Fraction(9, 5)]
    # Not the middle, where two formulas are often the same by symmetry.
    yield from ((low + (high - low) * Fraction(5, 13), False) for low, high in pairwise(ends))


def _find_breaks(node: Node, name: str) -> Iterator[Fraction]:
    for one in walk(node):
        if _is_breaking(one) and symbols(one) == {name}:
            for side in _sides_of(one):
                yield from _find_zeros(side, name)


def _sides_of(node: Node) -> list[Node]:
    """Return the trees that are zero where the operation changes its form."""
    args = node.args
    if node.op in ("max", "min"):
        return [subtract(a, b) for a, b in combinations(args[:4], 2)]
    if node.op in ("floor", "ceil"):
        return [subtract(args[0], number(k)) for k in (-1, 0, 1, 2)]
    if node.op in ("mod", "gcd", "lcm"):
        return [subtract(*args[:2])] if len(args) > 1 else []
    if node.op == "cases":
        links = [n for condition in args[1::2] for n in walk(condition) if n.op == "rel"]
        return [subtract(*link.args) for link in links if len(link.args) == 2]
    return [args[0]]


def _find_zeros(node: Node, name: str) -> list[Fraction]:
    """Return the zeros of a tree that is linear or quadratic in the variable; others are not looked for."""
    try:
        values = [TreeEvaluation(FILTER_BITS, {name: Fraction(k)}, imaginary=False).evaluate(node) for k in range(4)]
    except OutOfSteps:
        raise
    except (TooHard, TooBig, Undefined):
        return []
    ctx = context(FILTER_BITS)
    square = (values[2] - 2 * values[1] + values[0]) / 2
    slope = values[1] - values[0] - square
    tiny = ctx.ldexp(1 + abs(values[3]), -FILTER_BITS // 2)
    if abs(values[0] + 3 * slope + 9 * square - values[3]) > tiny:
        return []
    if abs(square) > tiny:
        discriminant = slope**2 - 4 * square * values[0]
        if discriminant < -tiny:
            return []
        root = ctx.sqrt(max(discriminant, ctx.zero))
        zeros = [(-slope - root) / (2 * square), (-slope + root) / (2 * square)]
    else:
        zeros = [-values[0] / slope] if abs(slope) > tiny else []
    return [_as_fraction(zero) for zero in zeros if abs(zero) < _FARTHEST]


def _as_fraction(value: Value) -> Fraction:
    """Return the short fraction that a value is, or one close to it."""
    scaled = Fraction(int(context(FILTER_BITS).nint(context(FILTER_BITS).ldexp(value, 100))), 1 << 100)
    short = scaled.limit_denominator(10**4)
    return short if abs(short - scaled) < Fraction(1, 10**20) else scaled
