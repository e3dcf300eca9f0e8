"""Matrices: products, sums, powers, determinants."""

from __future__ import annotations

from fractions import Fraction

from mathlete.answers.effort import spend
from mathlete.answers.exact import rational, whole
from mathlete.answers.tree import Node, TooBig, TooHard, number

_MAX_SIZE = 60
_MAX_POWER = 64
Rows = tuple[tuple[Node, ...], ...]


def matrix_value(node: Node) -> Node:
    """The matrix that sums, products and powers of matrices come to.

    Raises:
        TooHard: shapes that do not fit, or an operation that is not known.
    """
    rows = _rows(node)
    if rows is None:
        raise TooHard("no matrix")
    return Node("matrix", tuple(Node("row", row) for row in rows))


def _rows(node: Node) -> Rows | None:
    """The rows of a matrix; None for a scalar."""
    if node.op == "matrix":
        return tuple(row.args for row in node.args)
    if not any(_is_matrix(arg) for arg in node.args):
        return None
    if node.op == "neg":
        return _scaled(number(-1), _needed(node.args[0]))
    if node.op == "add":
        return _added([_needed(arg) for arg in node.args])
    if node.op == "mul":
        return _multiplied([(arg, _rows(arg)) for arg in node.args])
    if node.op == "pow":
        return _powered(_needed(node.args[0]), whole(rational(node.args[1])))
    if node.op == "div" and not _is_matrix(node.args[1]):
        return _scaled(Node("div", (number(1), node.args[1])), _needed(node.args[0]))
    raise TooHard(f"{node.op} of matrices")


def _is_matrix(node: Node) -> bool:
    return node.op == "matrix" or (node.op in ("add", "neg", "mul", "pow", "div") and any(map(_is_matrix, node.args)))


def _needed(node: Node) -> Rows:
    rows = _rows(node)
    if rows is None:
        raise TooHard("a matrix with a number")
    return rows


def _scaled(scalar: Node, rows: Rows) -> Rows:
    return tuple(tuple(Node("mul", (scalar, cell)) for cell in row) for row in rows)


def _added(matrices: list[Rows]) -> Rows:
    if len({(len(m), len(m[0])) for m in matrices}) != 1:
        raise TooHard("matrices of different shapes")
    return tuple(tuple(Node("add", cells) for cells in zip(*rows, strict=True)) for rows in zip(*matrices, strict=True))


def _multiplied(factors: list[tuple[Node, Rows | None]]) -> Rows:
    scalars = [node for node, rows in factors if rows is None]
    product: Rows | None = None
    for _, rows in factors:
        if rows is not None:
            product = rows if product is None else _product(product, rows)
    assert product is not None
    return _scaled(Node("mul", tuple(scalars)), product) if scalars else product


def _product(a: Rows, b: Rows) -> Rows:
    if len(a[0]) != len(b) or len(a) * len(b) * len(b[0]) > _MAX_SIZE**2:
        raise TooHard("matrices that cannot be multiplied")
    columns = list(zip(*b, strict=True))
    return tuple(
        tuple(Node("add", tuple(Node("mul", pair) for pair in zip(row, column, strict=True))) for column in columns)
        for row in a
    )


def _powered(rows: Rows, exponent: int | None) -> Rows:
    if exponent is None or not 1 <= exponent <= _MAX_POWER:
        raise TooHard("a power of a matrix")
    result = rows
    for _ in range(exponent - 1):
        folded = tuple(tuple(_folded(cell) for cell in row) for row in result)
        result = _product(folded, rows)
    return result


def _folded(cell: Node) -> Node:
    value = rational(cell)
    return cell if value is None else number(value)


def determinant(matrix: Node) -> Node:
    """The determinant of a matrix node: by elimination for rational entries, written out for up to three rows.

    Raises:
        TooHard: it is not square, or large with entries that are no rational numbers.
    """
    rows = [list(row.args) for row in matrix.args]
    if len(rows) != len(rows[0]):
        raise TooHard("a determinant of a matrix that is not square")
    if len(rows) > _MAX_SIZE:
        raise TooBig(f"a determinant of more than {_MAX_SIZE} rows")
    values = [[rational(cell) for cell in row] for row in rows]
    if all(value is not None for row in values for value in row):
        return number(_eliminated(values))  # type: ignore[arg-type]
    if len(rows) > 3:
        raise TooHard("a large determinant with entries that are no rational numbers")
    return _expanded(rows)


def _eliminated(rows: list[list[Fraction]]) -> Fraction:
    """Gaussian elimination."""
    result = Fraction(1)
    for at in range(len(rows)):
        pivot = next((r for r in range(at, len(rows)) if rows[r][at]), None)
        if pivot is None:
            return Fraction(0)
        if pivot != at:
            rows[at], rows[pivot], result = rows[pivot], rows[at], -result
        result *= rows[at][at]
        for r in range(at + 1, len(rows)):
            spend(len(rows) // 4 + 1)
            factor = rows[r][at] / rows[at][at]
            rows[r] = [x - factor * y for x, y in zip(rows[r], rows[at], strict=True)]
    return result


def _expanded(rows: list[list[Node]]) -> Node:
    if len(rows) == 1:
        return rows[0][0]
    terms = []
    for at, cell in enumerate(rows[0]):
        minor = _expanded([row[:at] + row[at + 1 :] for row in rows[1:]])
        term = Node("mul", (cell, minor))
        terms.append(Node("neg", (term,)) if at % 2 else term)
    return Node("add", tuple(terms))
