"""Matrices: products, sums, powers, determinants."""

from __future__ import annotations

from fractions import Fraction
from typing import TypeAlias

from mathlete.answers.effort import spend
from mathlete.answers.exact import as_integer, exact_value
from mathlete.answers.tree import Node, TooBig, TooHard, number

_MAX_SIZE = 60
_MAX_POWER = 64
_MAX_NODES = 20_000
Rows: TypeAlias = tuple[tuple[Node, ...], ...]


def matrix_value(node: Node) -> Node:
    """Return the matrix that sums, products and powers of matrices come to.

    Raises:
        TooHard: shapes that do not fit, or an operation that is not known.
    """
    rows = _rows_of(node)
    if rows is None:
        raise TooHard("no matrix")
    return Node("matrix", tuple(Node("row", row) for row in rows))


def _rows_of(node: Node) -> Rows | None:
    """Return the rows of a matrix; None for a scalar."""
    if node.op == "matrix":
        return tuple(row.args for row in node.args)
    if not any(_is_matrix(arg) for arg in node.args):
        return None
    # From here on a matrix takes part: a number where it needs a matrix too, as in A + 1, has no meaning.
    if node.op == "neg":
        return _scale(number(-1), _require_rows(node.args[0]))
    if node.op == "add":
        return _add([_require_rows(arg) for arg in node.args])
    if node.op == "mul":
        return _multiply_all([(arg, _rows_of(arg)) for arg in node.args])
    # Powers are repeated products; an inverse is not computed.
    if node.op == "pow":
        return _raise_to_power(_require_rows(node.args[0]), as_integer(exact_value(node.args[1])))
    if node.op == "div" and not _is_matrix(node.args[1]):
        return _scale(Node("div", (number(1), node.args[1])), _require_rows(node.args[0]))
    raise TooHard(f"{node.op} of matrices")


def _is_matrix(node: Node) -> bool:
    return node.op == "matrix" or (node.op in ("add", "neg", "mul", "pow", "div") and any(map(_is_matrix, node.args)))


def _require_rows(node: Node) -> Rows:
    rows = _rows_of(node)
    if rows is None:
        raise TooHard("a matrix with a number")
    return rows


def _scale(scalar: Node, rows: Rows) -> Rows:
    return tuple(tuple(Node("mul", (scalar, cell)) for cell in row) for row in rows)


def _add(matrices: list[Rows]) -> Rows:
    if len({(len(m), len(m[0])) for m in matrices}) != 1:
        raise TooHard("matrices of different shapes")
    return tuple(tuple(Node("add", cells) for cells in zip(*rows, strict=True)) for rows in zip(*matrices, strict=True))


def _multiply_all(factors: list[tuple[Node, Rows | None]]) -> Rows:
    # Scalars commute, so they wait until the matrices are multiplied in their order.
    scalars = [node for node, rows in factors if rows is None]
    product: Rows | None = None
    for _, rows in factors:
        if rows is not None:
            product = rows if product is None else _multiply(product, rows)
    assert product is not None
    return _scale(Node("mul", tuple(scalars)), product) if scalars else product


def _multiply(a: Rows, b: Rows) -> Rows:
    if len(a[0]) != len(b) or len(a) * len(b) * len(b[0]) > _MAX_SIZE**2:
        raise TooHard("matrices that cannot be multiplied")
    columns = list(zip(*b, strict=True))
    spend(len(a) * len(b) * len(b[0]) // 4)
    # The entries are trees that hold those of both factors: with letters in them each product is longer.
    sizes: dict[int, int] = {}
    if sum(_size(cell, sizes) for row in (*a, *b) for cell in row) * len(b) > _MAX_NODES:
        raise TooBig(f"matrices of more than {_MAX_NODES} terms")
    return tuple(
        tuple(Node("add", tuple(Node("mul", pair) for pair in zip(row, column, strict=True))) for column in columns)
        for row in a
    )


def _size(node: Node, sizes: dict[int, int]) -> int:
    """Return how many nodes the tree has, written out; parts that it shares are looked at once."""
    if id(node) not in sizes:
        sizes[id(node)] = 1 + sum(_size(arg, sizes) for arg in node.args)
    return sizes[id(node)]


def _raise_to_power(rows: Rows, exponent: int | None) -> Rows:
    if exponent is None or not 1 <= exponent <= _MAX_POWER:
        raise TooHard("a power of a matrix")
    power = rows
    for _ in range(exponent - 1):
        # The entries are trees: without folding, each product would double them.
        folded = tuple(tuple(_fold(cell) for cell in row) for row in power)
        power = _multiply(folded, rows)
    return power


def _fold(cell: Node) -> Node:
    value = exact_value(cell)
    return cell if value is None else number(value)


def determinant(matrix: Node) -> Node:
    """Return the determinant of a matrix node: by elimination for rational entries, written out for up to three rows.

    Raises:
        TooHard: the matrix is not square, or large with entries that are no rational numbers.
    """
    rows = [list(row.args) for row in matrix.args]
    if len(rows) != len(rows[0]):
        raise TooHard("a determinant of a matrix that is not square")
    if len(rows) > _MAX_SIZE:
        raise TooBig(f"a determinant of more than {_MAX_SIZE} rows")
    values = _exact_rows(rows)
    if values is not None:
        return number(_eliminate(values))
    if len(rows) > 3:
        raise TooHard("a large determinant with entries that are no rational numbers")
    return _expand(rows)


def _exact_rows(rows: list[list[Node]]) -> list[list[Fraction]] | None:
    """Return the entries as exact numbers; None where one is no rational number."""
    values = [[exact_value(cell) for cell in row] for row in rows]
    exact = [[value for value in row if value is not None] for row in values]
    return exact if [len(row) for row in exact] == [len(row) for row in values] else None


def _eliminate(rows: list[list[Fraction]]) -> Fraction:
    """Return the determinant by Gaussian elimination."""
    result = Fraction(1)
    for column in range(len(rows)):
        pivot = next((r for r in range(column, len(rows)) if rows[r][column]), None)
        if pivot is None:
            return Fraction(0)
        if pivot != column:
            rows[column], rows[pivot], result = rows[pivot], rows[column], -result
        result *= rows[column][column]
        for r in range(column + 1, len(rows)):
            # A row of n fractions counts as n steps, so that a large determinant goes to the worker.
            spend(len(rows))
            factor = rows[r][column] / rows[column][column]
            rows[r] = [x - factor * y for x, y in zip(rows[r], rows[column], strict=True)]
    return result


def _expand(rows: list[list[Node]]) -> Node:
    """Return the determinant by Laplace expansion along the first row."""
    if len(rows) == 1:
        return rows[0][0]
    terms = []
    for column, cell in enumerate(rows[0]):
        minor = _expand([row[:column] + row[column + 1 :] for row in rows[1:]])
        term = Node("mul", (cell, minor))
        terms.append(Node("neg", (term,)) if column % 2 else term)
    return Node("add", tuple(terms))
