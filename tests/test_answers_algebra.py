"""What the worker decides with sympy, called here directly: coverage can't see its children, which are killed."""

import sys
from fractions import Fraction
from typing import Any

import pytest
import sympy

from mathlete.answers import worker
from mathlete.answers.algebra import decide_with_algebra, from_sympy, to_sympy
from mathlete.answers.canonical import canonicalize
from mathlete.answers.equality import are_equal
from mathlete.answers.forms import read
from mathlete.answers.isolation import Request
from mathlete.answers.tree import Node, TooHard, constant, number
from tests.conftest import sample

pytestmark = pytest.mark.usefixtures("unlimited_steps")

EQUAL = [
    # Integrals, and what may stand in their limits.
    (r"\int_0^1 x^2 dx", "1/3"), (r"\int_0^a x dx", r"\frac{a^2}{2}"), (r"\int_1^2 \ln x dx", r"2\ln 2-1"),
    (r"\int_0^1 e^x dx", "e-1"), (r"\int_0^\pi \sin x dx", "2"), (r"\int_0^x \sinh t dt", r"\cosh x-1"),
    (r"\int_0^1 \frac{1}{1+x^2} dx", r"\frac{\pi}{4}"), (r"\int_0^1 |x-\frac12| dx", r"\frac14"),
    (r"\int_{-8}^0 \sqrt[3]{x} dx", "-12"), (r"\int_{-8}^0 x^{1/3} dx", "-12"), (r"\int_0^{\sqrt2} x dx", "1"),
    (r"\int_0^{3!} x dx", "18"), (r"\int_0^{\binom{4}{2}} x dx", "18"), (r"\int_0^{\lfloor 5/2\rfloor} x dx", "2"),
    (r"\int_0^{\lceil 3/2\rceil} x dx", "2"), (r"\int_0^{\gcd(4,6)} x dx", "2"), (r"\int_0^{\min(2,3)} x dx", "2"),
    (r"\int_0^{\operatorname{lcm}(2,1)} x dx", "2"), (r"\int_0^{\max(1,2)} x dx", "2"), (r"\int_0^1 i dx", "i"),
    (r"\int_0^{5\bmod 3} x dx", "2"), (r"\{\int_0^1 x dx\}", r"\{1/2\}"),
    # Limits, sums and products without end.
    (r"\lim_{x\to 0}\frac{\sin x}{x}", "1"), (r"\lim_{x\to\infty}\frac{x}{x+1}", "1"),
    (r"\sum_{k=1}^\infty \frac{1}{k^2}", r"\frac{\pi^2}{6}"), (r"\sum_{k=1}^{20000} k", "200010000"),
    (r"\int_0^1 x dx", r"\sum_{k=1}^\infty \frac{1}{3^k}"), (r"\prod_{k=1}^n k", "n!"),
    # Inequalities: a point, an interval, several, none, every number.
    ("x^2<4", "-2<x<2"), ("x^2<2", r"(-\sqrt2,\sqrt2)"), (r"x^2\le 4", "[-2,2]"), ("1<x^2<4", r"(-2,-1)\cup(1,2)"),
    ("x^2>4", r"x<-2\text{ or }x>2"), ("x^3-x>0", r"(-1,0)\cup(1,\infty)"), (r"x^2(x-1)^2\le 0", r"\{0,1\}"),
    (r"x^2\ne 4", r"x\ne 2, x\ne -2"), ("x^2<0", r"\emptyset"), ("x^2+1>0", r"\mathbb{R}"), ("2^x<8", "x<3"),
    (r"\frac1x>1", "(0,1)"), (r"x(x-1)^2\ge 0, x<2", r"0\le x<2"),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "gold"), sample(*EQUAL, slow=[(gold, answer) for answer, gold in EQUAL]))
def test_equal_answers_are_proven_so_either_way_round(answer: str, gold: str) -> None:
    assert decide_with_algebra(answer, gold).outcome == "equal"


DIFFERENT = [
    (r"\int_0^1 x^2 dx", "1/2"), (r"\int_0^a x dx", "a^2"), (r"\lim_{x\to 0}\frac{\sin x}{x}", "2"),
    (r"\sum_{k=1}^\infty \frac1k", "1"), ("x^2<4", r"-2<x\le 2"), ("x^2>4", "x>2"), (r"\cos x>2", "x>2"),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "gold"), DIFFERENT)
def test_other_answers_are_told_apart(answer: str, gold: str) -> None:
    verdict = decide_with_algebra(answer, gold)
    assert (verdict.outcome, verdict.reason) == ("different", "by computer algebra")


UNDECIDED = [
    (r"\int_0^1 f(x) dx", "1", "the function f"),
    (r"\int_0^1 e^{x^2} dx", "2", "the function erfi"),
    (r"\sum_{k=1}^\infty \frac{1}{k^3}", "1.2020569", "the function zeta"),
    (r"\int_0^\pi \sin(30^\circ) dx", "1", "degrees in a formula"),
    ("x^2<y", "y>x", "cannot be solved"),
    ("|x|>1", r"x<-1\cup x>1", "an inequality between several variables"),
    ("x^2+1>0", "0<1", "an inequality between several variables"),
    ("x^5-x-1>0", "x>1.1673", "ComplexRootOf"),
]


@pytest.mark.parametrize(("answer", "gold", "why"), UNDECIDED)
def test_what_algebra_cannot_do_is_unknown_with_its_reason(answer: str, gold: str, why: str) -> None:
    verdict = decide_with_algebra(answer, gold)
    assert verdict.outcome == "unknown"
    assert why in " ".join(verdict.reason.split())


@pytest.mark.parametrize(
    "written",
    ["1/3", r"\pi", "e", "i", r"\infty", r"-\infty", "x", "x+y^2", r"3x\sqrt2", "|x-1|", r"\ln x", "e^{2x}",
     r"\arctan x", r"\sec(x+1)", r"\sinh x"],
)  # fmt: skip
def test_a_tree_comes_back_from_sympy(written: str) -> None:
    tree = canonicalize(read(written))
    back = canonicalize(from_sympy(to_sympy(tree)))
    # Infinity is a symbol here, no number that could be compared.
    assert back == tree if "infty" in written else are_equal(back, tree, patient=True)


def test_what_one_side_does_not_know_is_refused_by_name() -> None:
    with pytest.raises(TooHard, match="the function zeta"):
        from_sympy(sympy.zeta(3))
    with pytest.raises(TooHard, match="matrix is not done by algebra"):
        to_sympy(Node("matrix", (number(1),)))


@pytest.mark.parametrize(
    ("difference", "zero"),
    [
        ("sin(x)**2 + cos(x)**2 - 1", True),
        ("(x + 1)**2 - x**2 - 2*x", False),
        ("sqrt(2)*sqrt(3) - sqrt(6)", True),
        ("sin(1)**2 + cos(1)**2 - 1", True),
        ("sqrt(2) - 14142135623730951/10**16", False),
        ("sin(y)**2 + cos(y)**2 + 2", False),
        ("x - y", None),
    ],
)
def test_a_difference_is_zero_another_number_or_undecided(difference: str, zero: bool | None) -> None:
    from mathlete.answers.algebra import _is_zero

    expression: Any = sympy.sympify(difference, {name: sympy.Symbol(name, real=True) for name in "xy"})
    if zero is None:
        with pytest.raises(TooHard, match="undecided by simplification"):
            _is_zero(expression)
    else:
        assert _is_zero(expression) is zero


@pytest.fixture
def unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker's child limits itself; this process must stay as it is."""
    for name in ("_limit_memory", "lift_limit"):
        monkeypatch.setattr(worker, name, lambda *_: None)
    monkeypatch.setattr(sys, "setrecursionlimit", lambda _: None)


def test_the_child_gives_a_verdict_whatever_sympy_raises(monkeypatch: pytest.MonkeyPatch, unlimited: None) -> None:
    request = Request(answer=r"\int_0^1 x dx", gold="1/2", limit_s=1, memory_mib=100)
    assert worker._decide(request).outcome == "equal"

    def fail(answer: str, gold: str, settings: str) -> Any:
        raise ZeroDivisionError("x" * 999)

    monkeypatch.setattr(worker, "decide_with_algebra", fail)
    verdict = worker._decide(request)
    assert (verdict.outcome, verdict.reason) == ("unknown", f"ZeroDivisionError: {'x' * 200}")


def test_numbers_and_constants_become_sympys() -> None:
    assert to_sympy(number(Fraction(2, 3))) == sympy.Rational(2, 3)
    assert [to_sympy(constant(name)) for name in ("pi", "e", "i", "oo")] == [sympy.pi, sympy.E, sympy.I, sympy.oo]
