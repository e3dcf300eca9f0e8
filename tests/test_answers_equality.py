"""Equality of canonical trees: a relation on all kinds of answers, with a key under which equal answers meet."""

from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.answers import compare
from mathlete.answers.canonical import canonicalize
from mathlete.answers.equality import are_equal, is_long_decimal, key_of
from mathlete.answers.forms import read
from mathlete.answers.identity import sample
from mathlete.answers.kinds import TreeKind, kind_of
from mathlete.answers.points import POINTS, draw_point
from mathlete.answers.tree import Node, TooHard, number
from tests.conftest import dear

pytestmark = pytest.mark.usefixtures("unlimited_steps")


def tree(written: str) -> Node:
    return canonicalize(read(written))


ZERO = number(0)
KINDS: list[tuple[str, TreeKind]] = [
    ("Tuesday", "words"), ("B", "words"), ("3/4", "number"), (r"\sqrt2", "number"), ("3+4i", "number"),
    ("x^2+1", "formula"), ("f(2)", "formula"), ("1,2", "set"), (r"\emptyset", "set"), ("(1,2)", "collection"),
    ("[1,2]", "collection"), (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", "collection"), ("y=2x+1", "eq"),
    ("x^2<4", "order"), ("1<xy<2", "order"), (r"\infty", "symbol"), (r"\mathbb{Z}", "symbol"), ("2:3:4", "collection"),
]  # fmt: skip


@pytest.mark.parametrize(("written", "kind"), KINDS)
def test_every_answer_has_a_kind(written: str, kind: TreeKind) -> None:
    assert kind_of(tree(written)) == kind


def test_answers_of_different_kinds_differ() -> None:
    for (a, kind), (b, other) in product(KINDS, KINDS):
        if kind != other and {kind, other} != {"number", "formula"} and "order" not in (kind, other):
            assert not are_equal(tree(a), tree(b)), (a, b)


EQUAL = [
    ("0.3333333333", "1/3"), ("0.33333333333333", "0.3333333333"), ("1.4142135624", r"\sqrt2"), ("2", "x-x+2"),
    ("9.9999999999", r"\sqrt[3]{999.99999997}"), (r"\sqrt{3+2\sqrt2}", r"1+\sqrt2"), ("x^2-1", "(x-1)(x+1)"),
    (r"\frac{1}{\sqrt n}", r"\sqrt{\frac1n}"), (r"\sqrt{x^2}", "|x|"), ("e^{i x}", r"\cos x+i\sin x"),
    ("2x-y+1=0", "y=2x+1"), ("x^2+y^2=1", "2x^2+2y^2-2=0"), ("1<xy<2", "2>xy>1"), ("xy<1", "2xy-2<0"),
    (r"xy\ne 1", r"-xy\ne -1"), (r"\{1,\sqrt2\}", r"\frac{2}{\sqrt2},1"), (r"(1,\sqrt{8})", r"(1,2\sqrt2)"),
    ("tuesday", "Tuesday"), ("9.99999999996", "10.00000000004"), ("3.33333333", "10/3"), ("0.666666667", "2/3"),
    ("0.333333333", "0.33333333333"),
]  # fmt: skip
DIFFERENT = [
    ("0.3333333", "1/3"), ("1.0000000001", "1"), ("0.3333333333", "0.3333333"), ("1.4142135667", r"\sqrt2"),
    ("1.4142135624", r"-\sqrt2"), ("1.4142135624", r"\sqrt{-2}"), (r"\sqrt{x^2}", "x"), ("x+1", "y+1"), ("B", "C"),
    ("y=2x+1", "y=2x+2"), ("xy<1", "xy>1"), ("xy<1", r"xy\le 1"), ("xy<1", "-xy<-1"), (r"\{1,2\}", r"\{1,2,3\}"),
    (r"\{1,2\}", "(1,2)"), ("(1,2)", "(2,1)"), ("[1,2]", "[1,2)"), (r"\infty", r"-\infty"), ("2:3:4", "2:3:5"),
    (r"\mathbb{Z}", r"\mathbb{Q}"),
]  # fmt: skip


@pytest.mark.parametrize(("a", "b"), EQUAL)
def test_equal_answers_are_equal_in_both_orders(a: str, b: str) -> None:
    assert are_equal(tree(a), tree(b))
    assert are_equal(tree(b), tree(a))


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_different_answers_differ_in_both_orders(a: str, b: str) -> None:
    assert not are_equal(tree(a), tree(b))
    assert not are_equal(tree(b), tree(a))


@pytest.mark.parametrize(
    ("a", "b"), [("x^2<4", "(-2,2)"), ("x^2<4", "x^2<5"), (r"\int_0^1 x\,dx", "1/2"), ("(1,x^2<4)", "(1,x^2<5)"),
                 ("2^{2^{x+14}}", "2^{2^{x+14}}+1"), (r"\sqrt{-x^2-1}", r"\sqrt{-x^2-2}")],
)  # fmt: skip
def test_what_cannot_be_decided_here_is_too_hard(a: str, b: str) -> None:
    with pytest.raises(TooHard):
        are_equal(tree(a), tree(b))


def test_a_pair_that_differs_decides_however_hard_the_others_are() -> None:
    assert not are_equal(tree("(x^2<4,1)"), tree("(x^2<5,2)"))


@pytest.mark.parametrize(
    ("written", "is_long"),
    [("0.3333333333", True), ("0.333333333", False), ("0.5000000000", False), ("12345678.90", False), ("1/3", False),
     ("1234567890.5", True), ("10000000000.0", False), ("-1.41421356237", True), ("3.14", False)],
)  # fmt: skip
def test_a_long_decimal_is_a_print_out(written: str, is_long: bool) -> None:
    assert is_long_decimal(tree(written)) == is_long


def test_points_are_always_the_same_and_suit_their_names() -> None:
    for name in ("x", "n", "r", "alpha"):
        points = [draw_point(name, index) for index in range(POINTS)]
        assert points == [draw_point(name, index) for index in range(POINTS)]
        assert len(set(points)) == POINTS
        assert all(point.denominator == 1 for point in points) == (name == "n")
        assert (min(points) > 0) == (name in ("n", "r"))


def test_a_formula_has_no_value_outside_its_domain() -> None:
    pairs = sample(read(r"\sqrt{x}")).pairs
    assert [pair is None for pair in pairs] == [draw_point("x", index) < 0 for index in range(POINTS)]
    assert sample(read(r"\sqrt{-x^2}")).all_undefined


ATOMS = ["x", "y", "2", "3", r"\frac{1}{2}", r"\sqrt{2}", r"\pi", "0.5"]
formulas = st.recursive(
    st.sampled_from(ATOMS),
    lambda inner: st.builds("({}{}{})".format, inner, st.sampled_from(["+", "-", r"\cdot "]), inner),
    max_leaves=4,
)
rationals = st.fractions(-30, 30, max_denominator=12)


def spell(value: Fraction, way: int) -> str:
    top, bottom = value.numerator, value.denominator
    return [f"{top}/{bottom}", rf"\frac{{{7 * top}}}{{{7 * bottom}}}", rf"\sqrt[3]{{\frac{{{top**3}}}{{{bottom**3}}}}}",
            f"{value + 1}-1"][way]  # fmt: skip


lists = st.lists(rationals, min_size=1, max_size=3)
WRAPPERS = [r"\{%s\}", "(0,%s)", "[-99,%s]", "x=%s", "y=%s", "0:5:(%s)"]
answers = (
    formulas
    | st.builds(spell, rationals, st.integers(0, 3))
    | st.builds(lambda wrap, value: wrap % value, st.sampled_from(WRAPPERS), rationals.map(str))
    | st.builds(lambda wrap, values: wrap % ", ".join(map(str, values)), st.sampled_from([r"\{%s\}", "(%s)"]), lists)
)


@dear(15)
@given(st.lists(answers, min_size=3, max_size=3))
def test_equality_is_reflexive_symmetric_and_transitive(written: list[str]) -> None:
    trees = [tree(one) for one in written]
    equal = {(a, b) for a, b in product(range(len(trees)), repeat=2) if are_equal(trees[a], trees[b])}
    assert {(a, a) for a in range(len(trees))} <= equal
    assert {(b, a) for a, b in equal} == equal
    assert {(a, d) for a, b in equal for c, d in equal if b == c} <= equal


@dear(15)
@given(rationals, rationals, st.integers(0, 3), st.integers(0, 3), st.sampled_from(WRAPPERS))
def test_spellings_of_a_number_are_equal_in_every_place_and_have_one_key(
    a: Fraction, b: Fraction, way: int, other: int, wrap: str
) -> None:
    one, two, three = tree(wrap % spell(a, way)), tree(wrap % spell(a, other)), tree(wrap % spell(b, other))
    assert are_equal(one, two)
    assert key_of(one) == key_of(two)
    assert are_equal(one, three) == (a == b)
    assert (key_of(one) == key_of(three)) == (a == b)


@dear(15)
@given(formulas, formulas, formulas)
def test_rewritten_formulas_are_equal_and_have_one_key(a: str, b: str, c: str) -> None:
    one, two = tree(f"{a}\\cdot({b}+{c})"), tree(f"{c}\\cdot {a}+{b}\\cdot {a}")
    assert are_equal(one, two)
    assert not are_equal(one, tree(f"{c}\\cdot {a}+{b}\\cdot {a}+1"))
    if kind_of(one) == kind_of(two) and not are_equal(one, ZERO):  # which has no digits and so no key
        assert key_of(one) == key_of(two)


@dear(15)
@given(st.lists(rationals, min_size=1, max_size=5, unique=True), st.data())
def test_a_set_has_no_order(values: list[Fraction], data: st.DataObject) -> None:
    spellings = [spell(value, 2) for value in data.draw(st.permutations(values))]
    one, two = tree(", ".join(map(str, values))), tree(r"\{" + ",".join(spellings) + r"\}")
    assert are_equal(one, two)
    assert key_of(one) == key_of(two)
    assert not are_equal(one, tree(", ".join(map(str, [*values, 1000]))))


@pytest.mark.parametrize("name", ["x", "t", "n"])
def test_a_formula_is_no_other_that_has_the_same_values_only_near_zero(name: str) -> None:
    for place in (6, 10, 25, 100, 1000, 99_999):
        for bent, straight in (
            (f"|{name}-{place}|", f"{place}-{name}"),
            (rf"\max({name},{place})", f"{place}"),
            (rf"\min({name},{place})", name),
            (rf"\lfloor {name}/{place}\rfloor+{name}", rf"\lfloor {name}/{place + 1}\rfloor+{name}"),
            (rf"y=\sqrt{{({name}-{place})^2}}", f"y={place}-{name}"),
        ):
            assert compare(answer=bent, gold=straight, limit_s=0).outcome == "different", (bent, straight)
        other = rf"\max({name}-{place},{place}-{name})"
        assert compare(answer=f"|{name}-{place}|", gold=other, limit_s=0).outcome == "equal", other
