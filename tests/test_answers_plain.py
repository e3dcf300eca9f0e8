"""Fast ways and the plain definitions beside them: the same tree, the same value to the last bit, the same steps."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.answers import parse
from mathlete.answers.effort import start_count, steps_spent
from mathlete.answers.exact import find_fraction_near
from mathlete.answers.forms import read
from mathlete.answers.numeric import TreeEvaluation
from mathlete.answers.plain import read_plain
from mathlete.answers.points import draw_point
from mathlete.answers.programs import Program, compile_constant, compile_formula
from mathlete.answers.regions import compare_constants
from mathlete.answers.tree import Node, TooBig, Undefined, Unreadable, constant, number, symbol, symbols

NUMBERS = st.sampled_from(["0", "1", "2", "7", "10", "007", "12", "600", "1234", "2024", "123456"])
ATOMS = NUMBERS | st.sampled_from([r"\pi", *"abcijknqrtuvwxyz", "e", "f", "m", "S", "xy", "at", "5am"])
EXPRESSIONS = st.recursive(
    ATOMS,
    lambda inner: (
        st.builds("{}{}{}".format, inner, st.sampled_from("+-"), inner)
        | st.builds("{}{}".format, inner, inner)
        | st.builds("{}^{}".format, inner, NUMBERS | st.sampled_from("nx"))
        | st.builds("{}^{{{}}}".format, inner, inner)
        | st.builds(r"\frac{{{}}}{{{}}}".format, inner, inner)
        | st.builds(r"\sqrt{{{}}}".format, inner)
        | st.builds("({})".format, inner)
        | st.builds("-{}".format, inner)
    ),
    max_leaves=6,
)
PIECES = st.lists(st.sampled_from([*"0123456789xni+-^{}()[], &:.", r"\frac{", r"\sqrt{", r"\pi", r"\cup", r"\\"]))
SIGNED = st.builds("{}{}".format, st.sampled_from(["", "-"]), NUMBERS)
INTERVALS = st.builds(
    "{}{}{}{}{}".format,
    st.sampled_from("(["),
    SIGNED | st.sampled_from([r"-\infty", r"\infty"]),
    st.sampled_from([",", ", "]),
    SIGNED | st.sampled_from([r"-\infty", r"\infty"]),
    st.sampled_from(")]"),
)
REGIONS = st.builds(str.join, st.sampled_from([r"\cup", r" \cup "]), st.lists(INTERVALS, min_size=1, max_size=3))
LISTS = st.builds(str.join, st.sampled_from([",", ", "]), st.lists(SIGNED, min_size=1, max_size=4))
ROWS = st.lists(st.builds(" & ".join, st.lists(SIGNED, min_size=1, max_size=2)), min_size=1, max_size=3)
MATRICES = st.builds(
    lambda kind, rows: rf"\begin{{{kind}}}" + r"\\ ".join(rows) + rf"\end{{{kind}}}",
    st.sampled_from(["pmatrix", "bmatrix", "vmatrix"]),
    ROWS,
)


def count(text: str) -> tuple[Node | str, int]:
    """Return what the whole grammar reads, and the steps that it takes."""
    start_count()
    try:
        return read(text), steps_spent()
    except (Unreadable, Undefined, TooBig) as error:
        return str(error), steps_spent()


@given(EXPRESSIONS | PIECES.map("".join) | REGIONS | LISTS | MATRICES)
def test_a_plain_answer_is_read_as_the_whole_grammar_reads_it(text: str) -> None:
    start_count()
    node = read_plain(text)
    steps = steps_spent()
    assert (node is None and steps == 0) or (node, steps) == count(text)


@pytest.mark.parametrize(
    "text",
    ["42", "-7", r"\frac{3\sqrt{5}+1}{2}", "x^2-3x+1", "2^{10}-1", "7+2i", r"(-\infty, 2]\cup[5, 7)", "1, 2, 3",
     "(1,2)", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", "7,2,6000", r"2\pi", r"(x+1)(x-1)"],
)  # fmt: skip
def test_a_plain_answer_is_read_in_one_pass(text: str) -> None:
    assert read_plain(text) is not None


@pytest.mark.parametrize(
    "text",
    ["", "x", "(a)", "(A) 3", "1,234", "2000-10-20", r"2\frac13", r"2\frac{1}{3}", "x2", "f(x)", "5am", "0x10",
     "3x10^2", "2^3^4", "x^{y}z", "xyt", "{4}2", "+-3", "5 m", "1 000", "(1,2", r"\begin{pmatrix}1&2\\3\end{pmatrix}",
     "1e3", "٣", "1" * 300],
)  # fmt: skip
def test_what_needs_a_rule_of_its_own_is_left_to_the_grammar(text: str) -> None:
    assert read_plain(text) is None


LEAVES = st.fractions(-50, 50, max_denominator=12).map(number) | st.sampled_from([constant("pi"), constant("e")])
TREES = st.recursive(
    LEAVES | st.sampled_from([symbol("x"), symbol("n"), constant("i")]),
    lambda inner: (
        st.builds(lambda op, args: Node(op, tuple(args)), st.sampled_from(["add", "mul"]), st.lists(inner, min_size=2))
        | st.builds(lambda a: Node("neg", (a,)), inner)
        | st.builds(lambda a, b: Node("div", (a, b)), inner, inner)
        | st.builds(lambda a, k: Node("pow", (a, number(k))), inner, st.integers(-3, 4))
        | st.builds(lambda a: Node("root", (a, number(2))), inner)
    ),
    max_leaves=6,
)


@given(TREES, st.sampled_from([180, 320, 640]), st.integers(0, 7))
def test_a_program_has_the_value_and_the_steps_of_an_evaluation(node: Node, bits: int, point: int) -> None:
    names = symbols(node)
    program = compile_formula(node) if names else compile_constant(node)
    start_count()
    values = program.run(bits, point=point) if program else None
    steps = steps_spent()
    if values is None:
        assert steps == 0
        return
    start_count()
    plain = TreeEvaluation(bits, {name: draw_point(name, point) for name in names}).evaluate(node)
    assert values == [plain._mpf_ if hasattr(plain, "_mpf_") else plain._mpc_]
    assert steps == steps_spent()


def test_simple_trees_have_programs_and_others_are_left_to_evaluation() -> None:
    assert all(runs(text) for text in (r"\frac{3\sqrt{5}+1}{2}", "7+2i", r"2i\cdot i", r"\pi-3"))
    assert not any(runs(text) for text in (r"\sqrt{-2}", r"\sin 1", "2^{2000}", "+".join("1" * 70), "1/0"))


def runs(text: str) -> Program | None:
    start_count()
    program = compile_constant(read(text))
    return program if program and program.run(180) else None


@given(st.fractions(max_denominator=10**12), st.integers(-(10**8), 10**8))
def test_a_fraction_is_near_where_the_nearest_one_is(value: Fraction, error: int) -> None:
    bottom = 1 << 160
    top = value.numerator * bottom // value.denominator + error * 10**5
    nearest = Fraction(top, bottom).limit_denominator(10**10)
    is_near = abs(nearest - Fraction(top, bottom)) < Fraction(1, 10**35)
    assert find_fraction_near(top, bottom) == (nearest if is_near else None)


@given(st.fractions(), st.fractions())
def test_two_numbers_are_ordered_in_the_steps_of_their_difference(a: Fraction, b: Fraction) -> None:
    one, two = number(a), number(b)
    start_count()
    assert compare_constants(one, two) == (a > b) - (a < b)
    if a != b:
        assert steps_spent() == 9
        start_count()
        # 0 + b is b to a comparison, and no number that is compared at once.
        assert compare_constants(one, Node("add", (two,))) == (a > b) - (a < b)
        assert steps_spent() == 12


def test_a_trees_hash_is_that_of_its_equals() -> None:
    assert hash(parse("x+1").node) == hash(Node("add", (symbol("x"), number(1)))) == hash(read("x+1"))
