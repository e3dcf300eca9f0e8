r"""Vectors as sums of unit vectors: `3\mathbf{i} - \mathbf{j} + 2\mathbf{k}` is (3, -1, 2)."""

from __future__ import annotations

from mathlete.answers.tree import Node, number, symbol, walk

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


def _coordinates_of(node: Node) -> dict[Node, Node] | None:
    """Return the coordinate along each unit vector; None for what is no multiple of them and no sum of such."""
    if node in _UNITS:
        return {node: number(1)}
    if node.op in ("add", "neg"):
        total: dict[Node, Node] = {}
        for part in map(_coordinates_of, node.args):
            if part is None:
                return None
            for unit, value in part.items():
                value = Node("neg", (value,)) if node.op == "neg" else value
                total[unit] = Node("add", (total[unit], value)) if unit in total else value
        return total
    if node.op not in ("mul", "div"):
        return None
    at = [at for at, arg in enumerate(node.args) if any(unit in walk(arg) for unit in _UNITS)]
    scaled = _coordinates_of(node.args[at[0]]) if len(at) == 1 and (node.op == "mul" or at == [0]) else None
    return scaled and {
        unit: Node(node.op, (*node.args[: at[0]], value, *node.args[at[0] + 1 :])) for unit, value in scaled.items()
    }
