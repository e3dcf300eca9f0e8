"""Separation bounds: no algebraic number lies between zero and its bound, and zero is proven, not guessed."""

import math
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mathlete.answers.bounds import MAX_BITS, TRANSCENDENTAL_BITS, _Bound, _Separation, _totient, is_zero, turns_of
from mathlete.answers.forms import read
from mathlete.answers.numeric import constant_value, context
from mathlete.answers.tree import Node, TooHard, Undefined, number, subtract
from tests.conftest import dear
from tests.surds import surd

pytestmark = pytest.mark.usefixtures("unlimited_steps")
LOG_3 = math.log2(3)
ZEROS = [
    r"\sqrt{3+2\sqrt2}-1-\sqrt2", r"\sqrt2+\sqrt3-\sqrt{5+2\sqrt6}", r"\sqrt[3]{2+\sqrt5}+\sqrt[3]{2-\sqrt5}-1",
    r"\sqrt[3]{7+5\sqrt2}-1-\sqrt2", r"\frac{1}{\sqrt2+1}-\sqrt2+1", r"2^{1/2}\cdot 8^{1/2}-4", r"|\sqrt2-2|-2+\sqrt2",
    r"\cos\frac{\pi}{7}\cos\frac{2\pi}{7}\cos\frac{3\pi}{7}-\frac18", r"\sin 18^\circ-\frac{\sqrt5-1}{4}",
    r"\tan\frac{\pi}{8}-\sqrt2+1", r"e^{\ln 2}-2", r"\log_2 3\cdot\log_3 2-1",
    r"4\arctan\frac15-\arctan\frac1{239}-\pi/4",
    r"\frac{1}{i}+i", r"(1+i)^8-16", r"e^{i\pi}+1", r"\sin 1^2+\cos 1^2-1+\sin^2 1-\sin 1^2+\cos^2 1-\cos 1^2",
]  # fmt: skip
NEARLY = [
    (r"\sqrt{10^{40}+1}-10^{20}", 1), (r"\sqrt{10^{200}+1}-10^{100}", 1),
    (r"\sqrt{2}-\frac{1414213562373095048801688724209698}{10^{33}}", 1),
    (r"\sqrt{1000001}+\sqrt{1000025}+\sqrt{1000031}+\sqrt{1000084}+\sqrt{1000087}+\sqrt{1000134}+\sqrt{1000158}"
     r"+\sqrt{1000182}+\sqrt{1000198}-\sqrt{1000002}-\sqrt{1000018}-\sqrt{1000042}-\sqrt{1000066}-\sqrt{1000113}"
     r"-\sqrt{1000116}-\sqrt{1000169}-\sqrt{1000175}-\sqrt{1000199}", -1),
    (r"e^{\pi\sqrt{163}}-640320^3-744", -1), (r"\sin 10^{-30}-10^{-30}", -1), (r"\frac{355}{113}-\pi", 1),
]  # fmt: skip
"""Numbers that are small and not zero, with their signs; the third is Graham's (The Open Problems Project, 33)."""


@pytest.mark.parametrize("written", ZEROS)
def test_zero_is_proven(written: str) -> None:
    assert is_zero(read(written), patient=False)


@pytest.mark.parametrize(("written", "sign"), NEARLY)
def test_nearly_zero_is_not_zero(written: str, sign: int) -> None:
    node = read(written)
    assert not is_zero(node, patient=False)
    assert context(180).sign(constant_value(node, 1500)) == sign


def test_a_proof_that_needs_more_digits_than_allowed_is_too_hard() -> None:
    zero = read("+".join(rf"\sqrt[{n}]{{{n * 11**n}}}-11\sqrt[{n}]{{{n}}}" for n in (5, 7, 11, 13)))
    with pytest.raises(TooHard, match="a proof needs more"):
        is_zero(zero, patient=False)
    assert _Separation(zero).gap > MAX_BITS[False]


def test_no_constant_without_a_value_is_zero() -> None:
    with pytest.raises(Undefined):
        is_zero(read(r"\frac{1}{\sqrt2-\sqrt2}"), patient=False)


def combine(op: str, a: Node, b: Node) -> Node:
    return subtract(a, b) if op == "sub" else Node(op, (a, b))


def root_of(node: Node, degree: int) -> Node:
    return Node("root", (node, number(degree)))


leaves = st.builds(surd, st.integers(1, 12), st.integers(1, 3), st.integers(2, 3)) | st.integers(-9, 9).map(number)
constants = st.recursive(
    leaves,
    lambda inner: (
        st.builds(combine, st.sampled_from(["add", "sub", "mul", "div"]), inner, inner)
        | st.builds(root_of, inner, st.integers(2, 3))
    ),
    max_leaves=4,
)


@dear(30)
@given(constants)
def test_a_nonzero_constant_lies_between_its_bounds(node: Node) -> None:
    try:
        value = constant_value(node, 4000)
    except Undefined:
        assume(False)
    assume(abs(value) > context(4000).ldexp(1, -3900))
    bound = _Bound()
    top, bottom = bound.measure(node)
    degree = math.prod(bound.roots.values())
    size = float(context(4000).log(abs(value), 2))
    # The theorem for the constant and, as numerator and denominator may change places, for one over it.
    assert (
        -(degree - 1) * max(top, 0) - max(bottom, 0) - 1e-6
        <= size
        <= (degree - 1) * max(bottom, 0) + max(top, 0) + 1e-6
    )
    assert -_Separation(node).gap - 1e-6 <= size


@pytest.mark.parametrize(
    ("written", "top", "bottom"),
    [("-8", 3, 0), ("3/4", LOG_3, 2), (r"\sqrt2", 0.5, 0), (r"\sqrt{1/2}", 0, 0.5), (r"\sqrt[3]{1/4}", 0, 2 / 3),
     (r"\sqrt{3/2}", (LOG_3 + 1) / 2, 1), (r"\sqrt{2/3}", 1, (LOG_3 + 1) / 2), (r"2^{-1/2}", 0, 0.5),
     (r"2^{5/3}", 5 / 3, 0), (r"\sqrt2\cdot\sqrt[4]{2}", 0.75, 0),
     (r"\frac{\sqrt2}{\sqrt[4]{2}}", 0.5, 0.25), (r"1+\sqrt4", LOG_3, 0), (r"\sqrt2+\sqrt2", 1.5, 0),
     (r"\frac12+\sqrt2", math.log2(1 + 2**1.5), 1), ("i", 0, 0), (r"\sin\frac{\pi}{7}", 1, 1), (r"|-\sqrt2|", 0.5, 0)],
)  # fmt: skip
def test_the_bounds_are_those_of_the_paper(written: str, top: float, bottom: float) -> None:
    assert _Bound().measure(read(written)) == pytest.approx((top, bottom), abs=1e-9)


def test_the_gap_grows_with_the_degree() -> None:
    assert _Separation(read(r"\sqrt2-1")).gap == pytest.approx(math.log2(1 + math.sqrt(2)))
    assert _Separation(read(r"\sqrt2+\sqrt2-1")).gap == pytest.approx(math.log2(1 + 2 * math.sqrt(2)))
    assert _Separation(read(r"\sqrt2+\sqrt3")).gap == pytest.approx(3 * math.log2(math.sqrt(2) + math.sqrt(3)))
    assert _Separation(read(r"\cos\frac{2\pi}{7}")).gap == (12 - 1) * 1 + 1


naturals = st.integers(1, 60)


@dear(30)
@given(naturals, naturals, st.integers(15, 40))
def test_an_identity_is_zero_and_a_digit_more_is_not(a: int, b: int, digits: int) -> None:
    square = Node("pow", (Node("add", (surd(a, 1, 2), surd(b, 1, 2))), number(2)))
    written_out = Node("add", (number(a + b), Node("mul", (number(2), surd(a * b, 1, 2)))))
    zero = subtract(square, written_out)
    assert is_zero(zero, patient=False)
    assert not is_zero(Node("add", (zero, number(Fraction(1, 10**digits)))), patient=False)


def test_with_pi_in_it_equal_means_to_a_thousand_bits() -> None:
    assert _Separation(read(r"\pi-\ln 2")).gap == TRANSCENDENTAL_BITS
    assert is_zero(read(r"\pi-\frac{3\pi}{3}"), patient=False)
    assert _Separation(read(r"\sqrt2-1")).gap < 10


@pytest.mark.parametrize(
    ("angle", "turns"),
    [(r"\pi/3", Fraction(1, 6)), (r"30^\circ", Fraction(1, 12)), (r"\frac{2\pi}{7}-\pi", Fraction(-5, 14)), ("0", 0),
     ("1", None), (r"\pi^2", None), (r"\pi+1", None), (r"\sqrt2\pi", None), (r"x^\circ", None)],
)  # fmt: skip
def test_an_angle_is_a_rational_part_of_a_turn_or_none(angle: str, turns: Fraction | None) -> None:
    assert turns_of(read(angle)) == turns


def test_the_totient_counts_the_coprime() -> None:
    for n in range(1, 120):
        assert _totient(n) == sum(math.gcd(k, n) == 1 for k in range(1, n + 1))
