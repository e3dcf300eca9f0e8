"""Matrices: sums, products and powers against fractions, determinants against their laws, shapes that do not fit."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import permutations
from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.answers.canonical import canonicalize
from mathlete.answers.equality import are_equal
from mathlete.answers.exact import exact_value
from mathlete.answers.forms import read
from mathlete.answers.literals import add_fraction, is_proper, read_in_base, read_literal
from mathlete.answers.matrices import determinant, matrix_value
from mathlete.answers.tree import Node, TooBig, TooHard, Unreadable, number
from mathlete.answers.verdict import decide
from tests.conftest import dear

pytestmark = pytest.mark.usefixtures("unlimited_steps")

Rows = Sequence[Sequence[Fraction]]
ENTRIES = st.fractions(-5, 5, max_denominator=4)


def square(size: int) -> st.SearchStrategy[Rows]:
    return st.lists(st.lists(ENTRIES, min_size=size, max_size=size), min_size=size, max_size=size)


def matrix(rows: Rows) -> Node:
    return Node("matrix", tuple(Node("row", tuple(map(number, row))) for row in rows))


def entries(node: Node) -> list[list[Fraction | None]]:
    return [[exact_value(cell) for cell in row.args] for row in node.args]


def product(a: Rows, b: Rows) -> list[list[Fraction]]:
    return [[sum((x * y for x, y in zip(row, column, strict=True)), Fraction()) for column in zip(*b, strict=True)]
            for row in a]  # fmt: skip


PAIRS = st.integers(1, 3).flatmap(lambda size: st.tuples(square(size), square(size)))


@dear(15)
@given(PAIRS)
def test_sums_and_products_are_those_of_fractions(pair: tuple[Rows, Rows]) -> None:
    a, b = pair
    added = [[x + y for x, y in zip(*rows, strict=True)] for rows in zip(a, b, strict=True)]
    assert entries(matrix_value(Node("add", (matrix(a), matrix(b))))) == added
    assert entries(matrix_value(Node("mul", (matrix(a), matrix(b))))) == product(a, b)
    halved = Node("div", (Node("neg", (matrix(a),)), number(2)))
    assert entries(matrix_value(halved)) == [[-x / 2 for x in row] for row in a]
    assert entries(matrix_value(Node("mul", (number(3), matrix(a))))) == [[3 * x for x in row] for row in a]


@dear(15)
@given(square(2), st.integers(1, 6))
def test_a_power_is_a_repeated_product(rows: Rows, exponent: int) -> None:
    expected: Rows = rows
    for _ in range(exponent - 1):
        expected = product(expected, rows)
    assert entries(matrix_value(Node("pow", (matrix(rows), number(exponent))))) == [list(row) for row in expected]


def leibniz(rows: Rows) -> Fraction:
    """Return the determinant as the sum over all permutations."""
    size = len(rows)
    total = Fraction()
    for order in permutations(range(size)):
        inversions = sum(order[i] > order[j] for i in range(size) for j in range(i + 1, size))
        total += (-1) ** inversions * prod((rows[at][order[at]] for at in range(size)), start=Fraction(1))
    return total


@dear(15)
@given(st.integers(1, 4).flatmap(square))
def test_a_determinant_is_the_sum_over_permutations(rows: Rows) -> None:
    assert exact_value(determinant(matrix(rows))) == leibniz(rows)


def test_a_determinant_with_letters_is_written_out() -> None:
    tree = canonicalize(read(r"\det\begin{pmatrix}a&b&c\\p&q&r\\x&y&z\end{pmatrix}"))
    assert are_equal(tree, canonicalize(read("a(qz-ry)-b(pz-rx)+c(py-qx)")))


A, B = r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}0&1\\1&0\end{pmatrix}"


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        (rf"{A}+{B}", r"\begin{pmatrix}1&3\\4&4\end{pmatrix}"),
        (rf"{A}{B}", r"\begin{pmatrix}2&1\\4&3\end{pmatrix}"),
        (rf"{A}^2", r"\begin{pmatrix}7&10\\15&22\end{pmatrix}"),
        (rf"\frac12{A}", r"\begin{pmatrix}1/2&1\\3/2&2\end{pmatrix}"),
        (rf"-{A}", r"\begin{pmatrix}-1&-2\\-3&-4\end{pmatrix}"),
        (rf"\det{A}", "-2"),
    ],
)
def test_written_matrices_are_carried_out(answer: str, gold: str) -> None:
    assert decide(answer, gold).outcome == "equal"
    assert decide(answer, B).outcome != "equal"


ROW = matrix([[Fraction(1), Fraction(2)]])
ONE = matrix([[Fraction(1)]])


@pytest.mark.parametrize(
    ("node", "why"),
    [
        (number(1), "no matrix"),
        (Node("add", (ROW, ONE)), "matrices of different shapes"),
        (Node("add", (ROW, number(1))), "a matrix with a number"),
        (Node("mul", (ROW, ROW)), "matrices that cannot be multiplied"),
        (Node("pow", (ONE, number(-1))), "a power of a matrix"),
        (Node("pow", (ONE, number(65))), "a power of a matrix"),
        (Node("pow", (ONE, Node("sym", value="n"))), "a power of a matrix"),
        (Node("div", (number(1), ONE)), "div of matrices"),
    ],
)
def test_what_has_no_meaning_or_is_not_computed_is_named(node: Node, why: str) -> None:
    with pytest.raises(TooHard, match=why):
        matrix_value(node)


def test_determinants_beyond_reach_are_named() -> None:
    with pytest.raises(TooHard, match="not square"):
        determinant(ROW)
    with pytest.raises(TooBig, match="more than 60 rows"):
        determinant(matrix([[Fraction()] * 61] * 61))
    letters = Node("matrix", tuple(Node("row", (Node("sym", value="x"),) * 4) for _ in range(4)))
    with pytest.raises(TooHard, match="no rational numbers"):
        determinant(letters)


@pytest.mark.parametrize(
    ("written", "why"),
    [("1" * 4001, "more than 4000 digits"), ("1e123456", "more than 4000 digits"), ("1e4001", "beyond 4000")],
)
def test_a_number_too_long_to_be_read_is_refused(written: str, why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        read_literal(written)


def test_numbers_as_they_are_written() -> None:
    assert (read_literal("0.250").fraction, read_literal("0.250").digits) == (Fraction(1, 4), 3)
    assert read_literal("1.5e3").fraction == 1500
    assert read_literal("7.").fraction == 7
    assert read_in_base("1010", "2") == read_in_base("20", "five") == number(10)
    assert add_fraction(number(2), 1, 2) == number(Fraction(5, 2))
    assert is_proper(number(1), number(2))
    assert not is_proper(number(2), number(2))
    for digits, base in (("12", "1"), ("12", "x"), ("29", "8")):
        with pytest.raises(Unreadable, match=r"no base|no number in base"):
            read_in_base(digits, base)
    with pytest.raises(Unreadable, match="denominator of zero"):
        add_fraction(number(2), 1, 0)
