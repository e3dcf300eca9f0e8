"""Values to any number of digits: as mpmath has them, with the school's conventions for roots and degrees."""

import threading
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from itertools import product

import mpmath  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.answers.effort import start_count, steps_spent
from mathlete.answers.forms import read
from mathlete.answers.identity import sample
from mathlete.answers.numeric import TreeEvaluation, constant_value, context
from mathlete.answers.tree import Node, TooBig, TooHard, Undefined, number, symbols
from tests.conftest import dear
from tests.surds import surd

pytestmark = pytest.mark.usefixtures("unlimited_steps")
mp = mpmath.MPContext()
mp.prec = 1000
PI = mp.pi
VALUES = [
    (r"\sqrt{2}+\sqrt[3]{5}", mp.sqrt(2) + mp.root(5, 3)), (r"\frac{\pi^2}{6}", PI**2 / 6), ("e^{-1}", mp.exp(-1)),
    (r"\ln 10", mp.ln(10)), (r"\log_2 3", mp.ln(3) / mp.ln(2)), (r"\sin 1", mp.sin(1)), (r"\tan 2", mp.tan(2)),
    (r"\arctan 2", mp.atan(2)), (r"\arccos(-1/2)", 2 * PI / 3), (r"\sin 40^\circ", mp.sin(2 * PI / 9)),
    (r"\cos(30^\circ + 10^\circ)", mp.cos(2 * PI / 9)), (r"90^\circ", mp.mpf(90)), (r"\cosh 1", mp.cosh(1)),
    (r"\sqrt[3]{-2}", -mp.root(2, 3)), (r"(-2)^{1/3}", -mp.root(2, 3)), (r"(-2)^{2/3}", mp.root(4, 3)),
    (r"\sqrt{-2}", mp.mpc(0, mp.sqrt(2))), ("e^{i}", mp.mpc(mp.cos(1), mp.sin(1))), (r"2^{\sqrt2}", 2 ** mp.sqrt(2)),
    (r"|3+4i|", mp.mpf(5)), (r"(\sqrt2)!", mp.gamma(1 + mp.sqrt(2))), (r"\sqrt[-2]{2}", 1 / mp.sqrt(2)),
    (r"\max(\sqrt2, \sqrt3)", mp.sqrt(3)), (r"\lfloor 10\pi \rfloor", mp.mpf(31)), (r"\lceil 10\pi \rceil", mp.mpf(32)),
    (r"\lfloor \sqrt2 \cdot \sqrt2 \rfloor", mp.mpf(2)), (r"\lceil \sqrt2 \cdot \sqrt2 \rceil", mp.mpf(2)),
    (r"\pi \bmod 3", PI - 3), (r"\sum_{k=1}^{3} \sqrt{k}", 1 + mp.sqrt(2) + mp.sqrt(3)),
    (r"\prod_{k=1}^{3} \sqrt{k}", mp.sqrt(6)), (r"\binom{\sqrt2}{2}", 1 - mp.sqrt(2) / 2),
]  # fmt: skip


@pytest.mark.parametrize(("written", "value"), VALUES)
def test_a_value_is_right_to_the_precision_that_was_set(written: str, value: mpmath.mpf | mpmath.mpc) -> None:
    for bits in (180, 700):
        assert abs(constant_value(read(written), bits) - value) <= abs(value) * mp.ldexp(1, 12 - bits)


@pytest.mark.parametrize(
    "written", ["1/(\\sqrt2-\\sqrt2)", r"\infty", r"\tan\frac{\pi}{2}", r"\cot\pi", r"\sec 90^\circ", r"\ln 0",
                r"0^{\sqrt2}", r"0^{-1/2}", r"\sqrt[-2]{0}", r"(-\sqrt4)!", r"\sqrt[1/2]{3}", r"\min(i, 1)"],
)  # fmt: skip
def test_what_has_no_value_is_undefined(written: str) -> None:
    with pytest.raises(Undefined):
        constant_value(read(written))


@pytest.mark.parametrize(
    "written", [r"9^{9^{9^9}}", r"e^{e^{40}}", r"(10^{20})!", r"\cosh(10^{20})", r"\binom{10^{20}}{\sqrt2}",
                r"\sqrt2^{10^{20}}", r"\sin(2^{2^{20}})"],
)  # fmt: skip
def test_what_cannot_be_written_down_is_too_big(written: str) -> None:
    with pytest.raises(TooBig):
        constant_value(read(written))


@pytest.mark.parametrize("written", ["x+1", "f(2)", r"\int_0^1 x dx", r"\sum_{k=1}^{1000} \sqrt{k}"])
def test_what_needs_a_value_or_algebra_is_too_hard(written: str) -> None:
    with pytest.raises(TooHard):
        constant_value(read(written))


def test_square_roots_of_negatives_exist_only_where_complex_numbers_do() -> None:
    root, env = read(r"\sqrt{x}"), {"x": Fraction(-4)}
    assert TreeEvaluation(180, env).evaluate(root) == 2j
    with pytest.raises(Undefined, match="no real value"):
        TreeEvaluation(180, env, imaginary=False).evaluate(root)
    assert TreeEvaluation(180, env, imaginary=False).evaluate(read(r"\sqrt[3]{2x}")) == -2


def test_an_unknown_function_is_a_function() -> None:
    points = [{"x": Fraction(x)} for x in (1, 2)]
    values = [TreeEvaluation(180, env).evaluate(read("f(x)")) for env in points]
    assert values[0] != values[1]
    assert values[0] == TreeEvaluation(180).evaluate(read("f(3-2)"))
    assert values[0] != TreeEvaluation(180).evaluate(read("g(1)"))


def test_each_thread_has_a_precision_of_its_own() -> None:
    seen: list[int] = []
    context(500)
    thread = threading.Thread(target=lambda: seen.append(context(60).prec))
    thread.start()
    thread.join()
    assert seen == [60]
    assert context(500).prec == 500


surds = st.builds(surd, st.integers(1, 50), st.integers(1, 9), st.integers(2, 5)) | st.fractions(1, 50).map(number)
constants = st.recursive(
    surds,
    lambda inner: st.builds(lambda op, a, b: Node(op, (a, b)), st.sampled_from(["add", "mul", "div"]), inner, inner),
    max_leaves=6,
)


@dear(15)
@given(constants)
def test_more_bits_only_add_digits(node: Node) -> None:
    rough, fine = constant_value(node, 180), constant_value(node, 720)
    assert fine > 0
    assert abs(rough - fine) <= fine * mp.ldexp(1, 16 - 180)


@dear(15)
@given(st.fractions(-20, 20, max_denominator=9), st.fractions(-20, 20, max_denominator=9))
def test_formulas_at_a_point_agree_with_exact_arithmetic(x: Fraction, y: Fraction) -> None:
    env = {"x": x, "y": y}
    for written, exact in (
        ("x^3-2xy+y^2", x**3 - 2 * x * y + y**2),
        (r"\lfloor x \rfloor + \lceil y \rceil", Fraction(x.__floor__() + y.__ceil__())),
        ("|x|-y", abs(x) - y),
    ):
        value = TreeEvaluation(320, env).evaluate(read(written))
        assert abs(value - mp.mpf(exact.numerator) / exact.denominator) < mp.ldexp(1, -280)


def test_odd_roots_are_real_and_undo_their_powers() -> None:
    for value, degree in product((-7, -2, 3), (3, 5, 7)):
        root = constant_value(Node("root", (number(value), number(degree))))
        assert abs(root**degree - value) < mp.ldexp(1, -160)
        assert context(180).im(root) == 0


TREES = [r"\sqrt{2}+1", r"\pi^2", "x^2+3x", r"\frac{x}{y}-1", r"\sin 20^\circ", r"\sqrt{x}", "2^{0.5}-x"]


@given(order=st.lists(st.sampled_from(TREES), min_size=2, max_size=6))
def test_a_value_takes_as_many_steps_however_often_it_was_asked_for(order: list[str]) -> None:
    """So a comparison does not depend on those before it, and its precision is that of a first look."""
    seen: dict[str, set[tuple[int, int, str]]] = {}
    for text in order:
        node = read(text)
        start_count()
        ctx = context(60)
        value = sample(node) if symbols(node) else constant_value(node)
        seen.setdefault(text, set()).add((steps_spent(), ctx.prec, repr(value)))
    assert {text: len(ways) for text, ways in seen.items()} == dict.fromkeys(seen, 1)


def test_a_threads_values_are_its_own() -> None:
    """A number computes with the precision of its thread's context, which others must not change."""
    node = read(r"\sqrt{2}+1")
    mine = constant_value(node)
    with ThreadPoolExecutor(1) as other:
        theirs = other.submit(constant_value, node).result()
    assert type(mine) is not type(theirs)
    assert type(mine) is type(constant_value(node))


def test_a_remembered_function_takes_its_arguments_by_name() -> None:
    node = read(r"\sqrt{2}")
    assert constant_value(node, bits=2000) != constant_value(node)
