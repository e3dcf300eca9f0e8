"""Sets of real numbers: the points of a region are those that its conditions allow, in one form however written."""

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.answers.canonical import canonicalize
from mathlete.answers.exact import exact_value
from mathlete.answers.forms import read
from mathlete.answers.regions import (
    INFINITY,
    MINUS_INFINITY,
    Segment,
    compare_constants,
    is_infinite,
    solve_linear,
    to_segments,
)
from mathlete.answers.tree import Node, TooHard, number, symbol
from tests.conftest import dear

X = symbol("x")
pytestmark = pytest.mark.usefixtures("unlimited_steps")
ALIKE = [
    ["2x>6", "3<x", r"(3,\infty)", "x-3>0", "-x<-3", r"\{x : x > 3\}", r"x \in (3, \infty)", r"x>3 \text{ or } x>4"],
    [r"[0,1/2]\cup[1/2,1]", "[0,1]", r"0\le x\le 1", r"x \ge 0 \text{ and } x\le 1", r"[0,1)\cup\{1\}"],
    [r"x\ne 3", r"(-\infty,3)\cup(3,\infty)", r"\mathbb{R}\setminus\{3\}", r"x<3 \text{ or } x>3", r"2x\ne 6"],
    [r"(0,2)\cap(1,3)", "1<x<2", "(1,2)", "]1,2[", r"x>1, x<2"],
    [r"x<1 \text{ and } x>2", r"(1,2)\cap(3,4)", r"\emptyset"],
    [r"[2,2]", "2", r"\{2\}", r"x\le 2 \text{ and } x \ge 2", "2x=4"],
    [r"-\infty<x<\infty", r"\mathbb{R}", r"x<1 \text{ or } x>0", r"(-\infty,\infty)"],
    [r"[0,\sqrt2]\cup[\sqrt[4]{4},2]", "[0,2]"],
]
"""Each line is one set."""


@pytest.mark.parametrize("spellings", ALIKE, ids=[line[0] for line in ALIKE])
def test_one_set_has_one_form(spellings: list[str]) -> None:
    assert {canonicalize(read(written)) for written in spellings} == {canonicalize(read(spellings[0]))}


def test_different_sets_have_different_forms() -> None:
    assert len({canonicalize(read(line[0])) for line in ALIKE}) == len(ALIKE)


@pytest.mark.parametrize(
    "written", ["|x|<2", "x^2<4", "x<y", r"\frac1x<2", r"x>1 \text{ or } y>2", r"\sqrt{x}<2", "x-x<1", "0<x<y",
                r"\sin x>0"],
)  # fmt: skip
def test_what_is_not_linear_in_one_variable_is_too_hard(written: str) -> None:
    with pytest.raises(TooHard):
        to_segments(read(written))


def test_an_inequality_of_complex_numbers_is_too_hard() -> None:
    for written in ("ix<1", "[0,i]"):
        with pytest.raises(TooHard):
            to_segments(read(written))


def test_too_many_endpoints_are_too_hard() -> None:
    with pytest.raises(TooHard, match="endpoints"):
        to_segments(read(r"\cup".join(f"[{n},{n}.5]" for n in range(40))))


CONSTANTS = [
    r"-\infty", "-3", r"-\sqrt2", r"-\frac{1}{3}", "0", "0.333", "1/3", r"\sqrt2-1", r"\sin 1", "1.41", r"\sqrt2",
    r"\sqrt2+10^{-40}", r"\frac{99}{70}", "e", r"\pi", r"\frac{355}{113}", r"10^{30}", r"\infty",
]  # fmt: skip
"""In ascending order."""


def test_constants_are_in_total_order() -> None:
    nodes = [read(written) for written in CONSTANTS]
    for i, a in enumerate(nodes):
        for j, b in enumerate(nodes):
            assert compare_constants(a, b) == (i > j) - (i < j), (CONSTANTS[i], CONSTANTS[j])
    assert compare_constants(read(r"\sqrt{3+2\sqrt2}"), read(r"1+\sqrt2")) == 0


small = st.fractions(-6, 6, max_denominator=4)
SIGNS: dict[str, Callable[[Fraction, Fraction], bool]] = {
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
    "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b,
    "!=": lambda a, b: a != b,
}
BRACKETS = ["()", "(]", "[)", "[]"]


def line(slope: Fraction, offset: Fraction) -> Node:
    return Node("add", (Node("mul", (number(slope), X)), number(offset)))


def inequality(slope: Fraction, offset: Fraction, sign: str, right: Fraction) -> Node:
    return Node("rel", (line(slope, offset), number(right)), sign)


def interval(ends: tuple[Fraction, Fraction], brackets: str) -> Node:
    low, high = sorted(ends)
    return Node("interval", (number(low), number(high)), brackets)


conditions = (
    st.builds(inequality, small.filter(bool), small, st.sampled_from(sorted(SIGNS)), small)
    | st.builds(interval, st.tuples(small, small).filter(lambda ends: ends[0] != ends[1]), st.sampled_from(BRACKETS))
    | small.map(number)
)
regions = st.recursive(
    conditions,
    lambda inner: st.builds(
        lambda op, a, b: Node(op, (a, b)), st.sampled_from(["union", "inter", "minus"]), inner, inner
    ),
    max_leaves=5,
)


def allows(node: Node, x: Fraction) -> bool:
    """Return whether a point satisfies the condition, by the arithmetic of fractions."""
    if node.op in ("union", "inter", "minus"):
        a, b = (allows(arg, x) for arg in node.args)
        return {"union": a or b, "inter": a and b, "minus": a and not b}[node.op]
    if node.op == "rel":
        left, right = (exact_value(arg, {"x": x}) for arg in node.args)
        assert left is not None
        assert right is not None
        return SIGNS[str(node.value)](left, right)
    if node.op == "interval":
        return holds(Segment(node.args[0], node.args[1], str(node.value)), x)
    return exact_value(node) == x


def holds(segment: Segment, x: Fraction) -> bool:
    """Return whether a segment holds a point."""
    low, high = (None if is_infinite(end) else exact_value(end) for end in (segment.low, segment.high))
    above = low is None or x > low or (x == low and segment.brackets[0] == "[")
    return above and (high is None or x < high or (x == high and segment.brackets[1] == "]"))


def ends_of(node: Node) -> set[Fraction]:
    if node.op == "rel":
        end = exact_value(solve_linear(node).low if node.value in (">", ">=", "!=") else solve_linear(node).high)
        return {end or Fraction(0)}
    return {node.fraction} if node.op == "num" else {end for arg in node.args for end in ends_of(arg)}


@dear(15)
@given(regions, st.lists(small, max_size=5))
def test_a_region_holds_just_the_points_that_its_conditions_allow(node: Node, samples: list[Fraction]) -> None:
    segments = to_segments(node)
    near = {end + step for end in ends_of(node) for step in (Fraction(-1, 10**6), Fraction(0), Fraction(1, 10**6))}
    for x in [*samples, *near, Fraction(-1000), Fraction(1000)]:
        assert any(holds(segment, x) for segment in segments) == allows(node, x), x


@dear(15)
@given(regions)
def test_segments_are_in_order_and_none_touch(node: Node) -> None:
    segments = to_segments(node)
    for segment in segments:
        assert compare_constants(segment.low, segment.high) < (1 if segment.brackets == "[]" else 0)
    for before, after in pairwise(segments):
        order = compare_constants(before.high, after.low)
        assert order < 0 or (order == 0 and before.brackets[1] + after.brackets[0] == ")(")
    assert all(segment.low != INFINITY and segment.high != MINUS_INFINITY for segment in segments)


@dear(15)
@given(small.filter(bool), small, st.sampled_from(["<", ">", "<=", ">="]), small, small)
def test_a_linear_inequality_is_a_half_line(
    slope: Fraction, offset: Fraction, sign: str, right: Fraction, x: Fraction
) -> None:
    segment = solve_linear(inequality(slope, offset, sign, right))
    assert holds(segment, x) == SIGNS[sign](slope * x + offset, right)
    assert is_infinite(segment.low) != is_infinite(segment.high)
