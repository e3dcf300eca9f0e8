"""Exact values: fractions, roots and logarithms that come out, and what has no value or too long a one."""

import math
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.answers.exact import MAX_BITS, as_integer, exact_value, power_modulo, rational_root
from mathlete.answers.forms import read
from mathlete.answers.tree import Node, TooBig, Undefined, number

pytestmark = pytest.mark.usefixtures("unlimited_steps")
VALUES = [
    ("2^{-3}", Fraction(1, 8)), ("4^{3/2}", Fraction(8)), (r"\left(\frac{8}{27}\right)^{-2/3}", Fraction(9, 4)),
    (r"\sqrt[3]{-8}", Fraction(-2)), (r"\sqrt{\frac{9}{4}}", Fraction(3, 2)), (r"\sqrt[5]{0}", Fraction(0)),
    (r"\log_4 8", Fraction(3, 2)), (r"\log_{1/2} 8", Fraction(-3)), (r"\log_7 1", Fraction(0)),
    ("5!", Fraction(120)), ("0!", Fraction(1)), (r"\binom{10}{3}", Fraction(120)), (r"\binom{3}{5}", Fraction(0)),
    (r"\lfloor -7/2 \rfloor", Fraction(-4)), (r"\lceil -7/2 \rceil", Fraction(-3)), (r"|{-3}|", Fraction(3)),
    (r"-7 \bmod 3", Fraction(2)), (r"7/2 \bmod 3", Fraction(1, 2)), (r"\gcd(12, 18)", Fraction(6)),
    (r"\min(1/2, 1/3)", Fraction(1, 3)), (r"\max(1/2, 1/3)", Fraction(1, 2)), ("(-1)^{10^{9}+1}", Fraction(-1)),
    (r"\sum_{k=1}^{100} k", Fraction(5050)), (r"\prod_{k=1}^{5} \frac{k}{k+1}", Fraction(1, 6)),
    (r"\sum_{k=5}^{1} k", Fraction(0)), (r"\prod_{k=5}^{1} k", Fraction(1)), ("1^{10^{9}}", Fraction(1)),
    (r"2024^{10^9} \bmod 1000", Fraction(pow(2024, 10**9, 1000))),
]  # fmt: skip


@pytest.mark.parametrize(("written", "value"), VALUES)
def test_a_rational_value_is_exact(written: str, value: Fraction) -> None:
    assert exact_value(read(written)) == value


@pytest.mark.parametrize("written", [r"\sqrt{2}", r"\sqrt{-4}", r"\log_2 3", r"2^{1/2}", r"\pi", "i", "x", r"\sin 0"])
def test_what_is_not_rational_or_not_known_to_be_has_no_exact_value(written: str) -> None:
    assert exact_value(read(written)) is None


@pytest.mark.parametrize(
    "written", ["1/0", "0^0", "0^{-1}", r"\log_1 2", r"\log_2 0", r"\log_2 (-4)", "(-1)!", r"(1/2)!", r"5 \bmod 0",
                r"\gcd(1/2, 3)", r"\binom{1/2}{2}", r"\binom{-1}{2}"],
)  # fmt: skip
def test_what_has_no_value_is_undefined(written: str) -> None:
    with pytest.raises(Undefined):
        exact_value(read(written))


@pytest.mark.parametrize(
    "written", ["9^{9^9}", "2^{200001}", "10001!", r"\binom{10001}{5000}", r"\sum_{k=1}^{5000} k",
                r"\prod_{k=1}^{2000} k^{100}", r"2^{150000} \cdot 3^{100000}"],
)  # fmt: skip
def test_what_is_too_long_to_write_down_is_refused(written: str) -> None:
    with pytest.raises(TooBig):
        exact_value(read(written))


def test_the_bound_on_the_length_is_met_exactly() -> None:
    assert exact_value(Node("mul", (number(2 ** (MAX_BITS - 2)), number(1)))) == 2 ** (MAX_BITS - 2)
    with pytest.raises(TooBig):
        exact_value(Node("add", (number(2**MAX_BITS - 1), number(1))))


def test_variables_take_their_values() -> None:
    formula = read("n^2+n+41")
    assert [exact_value(formula, {"n": Fraction(n)}) for n in (0, 1, 40)] == [41, 43, 41**2]
    assert exact_value(formula, {"m": Fraction(1)}) is None
    assert exact_value(read(r"\sum_{k=1}^{3} k n"), {"n": Fraction(2), "k": Fraction(100)}) == 12


Case = tuple[Node, Fraction | None]
"""A tree, and its value by Python's own fractions; None where it has none."""
UNARY: dict[str, Callable[[Fraction], Fraction]] = {
    "neg": lambda a: -a,
    "abs": abs,
    "floor": lambda a: Fraction(math.floor(a)),
    "ceil": lambda a: Fraction(math.ceil(a)),
}
BINARY: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
    "add": lambda a, b: a + b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "mod": lambda a, b: a % b,
    "min": min,
    "max": max,
}
fractions = st.fractions(min_value=-50, max_value=50, max_denominator=20)


def apply_unary(op: str, a: Case) -> Case:
    return Node(op, (a[0],)), None if a[1] is None else UNARY[op](a[1])


def apply_binary(op: str, a: Case, b: Case) -> Case:
    node = Node(op, (a[0], b[0]))
    if a[1] is None or b[1] is None or (op in ("div", "mod") and b[1] == 0):
        return node, None
    return node, BINARY[op](a[1], b[1])


cases: st.SearchStrategy[Case] = st.recursive(
    fractions.map(lambda value: (number(value), value)),
    lambda inner: (
        st.builds(apply_unary, st.sampled_from(sorted(UNARY)), inner)
        | st.builds(apply_binary, st.sampled_from(sorted(BINARY)), inner, inner)
    ),
    max_leaves=8,
)


@given(cases)
def test_arithmetic_agrees_with_pythons_fractions(case: Case) -> None:
    node, value = case
    if value is None:
        with pytest.raises(Undefined):
            exact_value(node)
    else:
        assert exact_value(node) == value


@given(fractions, st.integers(min_value=1, max_value=12))
def test_the_root_of_a_power_is_its_base(base: Fraction, degree: int) -> None:
    root = rational_root(base**degree, degree)
    assert root == (abs(base) if degree % 2 == 0 else base)
    assert rational_root(base**degree, -degree) == (1 / root if root else None)


@given(st.integers(min_value=2, max_value=10**12), st.integers(min_value=2, max_value=9))
def test_the_neighbour_of_a_power_has_no_rational_root(base: int, degree: int) -> None:
    assert rational_root(Fraction(base**degree + 1), degree) is None
    assert rational_root(Fraction(base**degree - 1), degree) is None
    assert rational_root(Fraction(-(base**2)), 2) is None


@given(st.integers(2, 30), st.integers(-8, 8), st.integers(1, 8))
def test_the_logarithm_of_a_power_is_its_exponent(base: int, top: int, bottom: int) -> None:
    value = Node("log", (number(Fraction(base) ** top), number(Fraction(base) ** bottom)))
    assert exact_value(value) == Fraction(top, bottom)


@given(st.integers(-100, 100), st.integers(0, 10**30), st.integers(1, 10**6))
def test_a_power_is_reduced_without_being_written_down(base: int, exponent: int, modulus: int) -> None:
    power = Node("pow", (number(base), number(exponent)))
    assert power_modulo(Node("mod", (power, number(modulus)))) == pow(base, exponent, modulus)
    assert power_modulo(Node("mod", (number(base), number(modulus)))) is None


def test_only_whole_values_are_integers() -> None:
    assert [as_integer(value) for value in (Fraction(4, 2), Fraction(1, 2), None)] == [2, None, None]
