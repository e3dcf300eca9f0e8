r"""Vectors as sums of unit vectors: `3\mathbf{i} - \mathbf{j} + 2\mathbf{k}` is (3, -1, 2)."""

from __future__ import annotations

from typing import TypeAlias

from mathlete.answers.tree import Node, number, symbol, walk

Coordinates: TypeAlias = dict[Node, Node]
_UNITS = tuple(symbol(f"vec {letter}") for letter in "ijk")


def make_vector(node: Node) -> Node:
    """Return a sum of multiples of unit vectors as a tuple, of two coordinates where none is along k; else the node."""
    if node.op == "named":
        return Node("named", (make_vector(node.args[0]),), node.value)
    coordinates = _coordinates_of(node)
    if not coordinates or coordinates.keys() == {_UNITS[0]}:
        return node
    size = 3 if _UNITS[2] in coordinates else 2
    return Node("tuple", tuple(coordinates.get(unit, number(0)) for unit in _UNITS[:size]))


def _coordinates_of(node: Node) -> Coordinates | None:
    """Return the coordinate along each unit vector; None for what is no multiple of them and no sum of such."""
    if node in _UNITS:
        return {node: number(1)}
    if node.op == "add":
        return _add(list(map(_coordinates_of, node.args)))
    if node.op not in ("neg", "mul", "div"):
        return None
    # One factor is the vector, and it stands above the line of a fraction.
    at = [at for at, arg in enumerate(node.args) if any(unit in walk(arg) for unit in _UNITS)]
    scaled = _coordinates_of(node.args[at[0]]) if len(at) == 1 and (node.op != "div" or at == [0]) else None
    if scaled is None:
        return None
    # The coordinates are multiplied by what the vector is.
    before, after = node.args[: at[0]], node.args[at[0] + 1 :]
    return {unit: Node(node.op, (*before, value, *after)) for unit, value in scaled.items()}


def _add(parts: list[Coordinates | None]) -> Coordinates | None:
    total: Coordinates = {}
    for part in parts:
        if part is None:
            return None
        for unit, value in part.items():
            total[unit] = Node("add", (total[unit], value)) if unit in total else value
    return total
