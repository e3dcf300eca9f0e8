"""Sets of real numbers: intervals, unions, differences and solutions of linear inequalities in one form.

The finite endpoints cut the line into points and gaps; a set is the list of those it holds. So `2x > 6`, `3 < x` and
`(3, oo)` come out alike, and so do [0, 1/2] with [1/2, 1] and [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cmp_to_key

from mathlete.answers.bounds import is_zero
from mathlete.answers.breaks import has_breaks
from mathlete.answers.effort import STEPS, spend, steps_spent
from mathlete.answers.exact import MOST_BITS, bits_of
from mathlete.answers.numeric import FILTER_BITS, constant_value, context
from mathlete.answers.tree import (
    Node,
    TooHard,
    Undefined,
    constant,
    number,
    replace,
    subtract,
    symbol,
    symbols,
    walk,
)

INFINITY = constant("oo")
MINUS_INFINITY = Node("neg", (INFINITY,))
_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "!=": "!=", "=": "="}
_MAX_ENDPOINTS = 60
_PROBES: tuple[int | Fraction, ...] = (0, 1, 2, 5, -1, -7, Fraction(3, 7), Fraction(-17, 5), Fraction(5, 4))


@dataclass(frozen=True, slots=True)
class Segment:
    """One interval between two constants, or a point where both are the same."""

    low: Node
    high: Node
    brackets: str
    """The brackets of the two ends, such as "[)"; "][" stands for all numbers but the one point."""


def is_infinite(node: Node) -> bool:
    """Return whether the tree is plus or minus infinity."""
    return node.op in ("const", "neg") and node in (INFINITY, MINUS_INFINITY)


def compare_constants(a: Node, b: Node) -> int:
    """Return -1, 0 or 1 as a is smaller than, equal to or greater than b.

    Raises:
        TooHard: an end that is no real constant.
    """
    if a == b:
        return 0
    for end, sign in ((MINUS_INFINITY, -1), (INFINITY, 1)):
        if a == end:
            return sign
        if b == end:
            return -sign
    if a.op == b.op == "num" and (order := _compare_rationals(a.fraction, b.fraction)):
        return order
    difference = subtract(a, b)
    value = constant_value(difference)
    if context(64).im(value):
        raise TooHard("the ends of an interval are real numbers")
    return 0 if is_zero(difference, patient=False) else 1 if value > 0 else -1


def _compare_rationals(a: Fraction, b: Fraction) -> int:
    """Return -1 or 1 as a is smaller or greater than b, for the steps of evaluating; 0 where that is needed."""
    if a == b or max(map(bits_of, (a, b))) > MOST_BITS or STEPS - steps_spent() < _STEPS_OF_ORDER:
        return 0
    spend(_STEPS_OF_ORDER)
    return -1 if a < b else 1


_STEPS_OF_ORDER = 9
"""A difference is evaluated three times: for its sign, and by `is_zero`; each time it takes three steps."""


def to_segments(node: Node) -> list[Segment]:
    """Return the set as segments in order, none of which touch.

    Raises:
        TooHard: a condition that is not linear in one variable.
    """
    # x > 1 and y > 2 are no set of numbers, although each alone would be one.
    if len({name for n in walk(node) if n.op == "rel" for name in symbols(n)}) > 1:
        raise TooHard("an inequality between several variables")
    leaves: dict[Node, Segment] = {}
    _collect_leaves(node, leaves)
    written = {end for leaf in leaves.values() for end in (leaf.low, leaf.high) if not is_infinite(end)}
    if len(written) > _MAX_ENDPOINTS:
        raise TooHard(f"more than {_MAX_ENDPOINTS} endpoints")
    # Two spellings of one number are one endpoint: the zero test decides, not the trees.
    ends = _drop_equal_ends(sorted(written, key=cmp_to_key(compare_constants)))
    # Between two endpoints nothing changes, so one look into each gap and at each endpoint decides the whole set.
    places = {end: _cell_of(end, ends) for end in written}
    cells = [_contains(node, cell, places, leaves) for cell in range(2 * len(ends) + 1)]
    return _join_cells(cells, ends)


def _drop_equal_ends(ordered: list[Node]) -> list[Node]:
    return [end for index, end in enumerate(ordered) if index == 0 or compare_constants(ordered[index - 1], end)]


def _collect_leaves(node: Node, leaves: dict[Node, Segment]) -> None:
    if node.op in ("union", "inter", "minus", "set", "list"):
        for arg in node.args:
            _collect_leaves(arg, leaves)
    else:
        leaves[node] = _leaf_segment(node)


def _leaf_segment(node: Node) -> Segment:
    if node.op == "field" and node.value == "reals":
        return Segment(MINUS_INFINITY, INFINITY, "()")
    if node.op in ("interval", "tuple") and len(node.args) == 2:
        return Segment(*node.args, brackets=str(node.value or "()"))
    if node.op == "named":
        return _leaf_segment(node.args[0])
    if node.op in ("rel", "eq"):
        return solve_linear(node)
    if symbols(node) or is_infinite(node) or node.op in ("text", "letter", "field", "tuple", "matrix"):
        raise TooHard(f"{node.op} is no set of numbers")
    return Segment(node, node, "[]")


def solve_linear(node: Node) -> Segment:
    """Return the solutions of a linear equation or inequality in one variable.

    Raises:
        TooHard: it is not linear, or has several variables.
    """
    names = symbols(node)
    if len(names) != 1:
        raise TooHard("not one variable")
    name = symbol(names.pop())
    difference = subtract(node.args[0], node.args[1])
    if has_breaks(difference):
        raise TooHard("an inequality that is not linear")  # |x - 10| > 3 has another form beyond 10
    # Linear is what takes the values of a line at nine points. Negative ones are among them, or |x| would pass, and
    # fractions, or floors, sin(pi x) and (-1)^(2x) would.
    values = {k: replace(difference, name, number(k)) for k in _PROBES}
    slope = subtract(values[1], values[0])
    for k, value in values.items():
        expected = Node("add", (values[0], Node("mul", (number(k), slope))))
        try:
            if not is_zero(subtract(value, expected), patient=False):
                raise TooHard("an inequality that is not linear")
        except Undefined as error:
            raise TooHard("an inequality that is not linear") from error
    if is_zero(slope, patient=False):
        raise TooHard("an inequality without its variable")
    end = Node("div", (Node("neg", (values[0],)), slope))
    sign, steepness = str(node.value or "="), constant_value(slope)
    if context(FILTER_BITS).im(steepness) or context(FILTER_BITS).im(constant_value(end)):
        raise TooHard("an inequality of complex numbers")
    return _half_line(_FLIPPED[sign] if steepness < 0 else sign, end)


def _half_line(sign: str, end: Node) -> Segment:
    if sign in ("=", "!="):
        return Segment(end, end, "[]" if sign == "=" else "][")
    closed = sign.endswith("=")
    if sign.startswith("<"):
        return Segment(MINUS_INFINITY, end, "(]" if closed else "()")
    return Segment(end, INFINITY, "[)" if closed else "()")


def _contains(node: Node, cell: int, places: dict[Node, int], leaves: dict[Node, Segment]) -> bool:
    """Return whether a cell is in the set; cell 2k+1 is the k-th endpoint, cell 2k the gap before it.

    `places` has the cell of each end as written.
    """
    if node.op in ("union", "set", "list"):
        return any(_contains(arg, cell, places, leaves) for arg in node.args)
    if node.op == "inter":
        return all(_contains(arg, cell, places, leaves) for arg in node.args)
    if node.op == "minus":
        return _contains(node.args[0], cell, places, leaves) and not _contains(node.args[1], cell, places, leaves)
    # An infinite end lies outside all cells, so that no cell touches it and its bracket does not matter.
    leaf = leaves[node]
    low = -1 if leaf.low == MINUS_INFINITY else places[leaf.low]
    high = 2 * len(places) + 1 if leaf.high == INFINITY else places[leaf.high]
    # x != 3 is all cells but that of its point.
    if leaf.brackets == "][":
        return cell != low
    return low < cell < high or (cell == low and leaf.brackets[0] == "[") or (cell == high and leaf.brackets[1] == "]")


def _cell_of(end: Node, ends: list[Node]) -> int:
    return next(2 * index + 1 for index, known in enumerate(ends) if compare_constants(known, end) == 0)


def _join_cells(cells: list[bool], ends: list[Node]) -> list[Segment]:
    """Return the runs of cells that the set contains as segments."""
    segments: list[Segment] = []
    start: int | None = None
    for cell, contained in enumerate([*cells, False]):
        if contained and start is None:
            start = cell
        elif not contained and start is not None:
            segments.append(_cells_to_segment(start, cell - 1, ends))
            start = None
    return segments


def _cells_to_segment(first: int, last: int, ends: list[Node]) -> Segment:
    low = ends[(first - 1) // 2] if first > 0 else MINUS_INFINITY
    high = ends[last // 2] if last < 2 * len(ends) else INFINITY
    return Segment(low, high, ("[" if first % 2 else "(") + ("]" if last % 2 else ")"))
