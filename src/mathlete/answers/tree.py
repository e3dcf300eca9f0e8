"""The expression tree that the grammar builds and every later step reads."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


class Unreadable(Exception):
    """The text is not an expression of the grammar; the message says where it stopped."""


class Undefined(Exception):
    """The expression has no value: a division by zero, infinity minus infinity."""


class TooHard(Exception):
    """The case cannot be decided here; a worker with a computer algebra system may decide it."""


class OutOfSteps(TooHard):
    """The steps of this process are spent: nothing may be concluded from what was not tried."""


class TooBig(Exception):
    """The value exists but is too large to write down; the message says what is too large."""


class _Hashed:
    __slots__ = ("known_hash",)
    known_hash: int


@dataclass(frozen=True, slots=True)
class Node(_Hashed):
    """One operation with its operands.

    `op` is a word such as "add", "pow", "set" or "fn:sin"; leaves carry `value` (a Fraction for "num", a name for
    "sym", "const" and "text"). `digits` is the number of significant digits of a number that was written with a
    decimal point, and None for exact numbers.
    """

    op: str
    args: tuple[Node, ...] = ()
    value: Fraction | str | None = None
    digits: int | None = None

    def __hash__(self) -> int:
        # A tree is looked up many times, and its hash would be that of all its nodes each time.
        try:
            return self.known_hash
        except AttributeError:
            known = hash((self.op, self.args, self.value, self.digits))
            object.__setattr__(self, "known_hash", known)
            return known

    @property
    def fraction(self) -> Fraction:
        """The value of a "num" leaf."""
        assert isinstance(self.value, Fraction)
        return self.value


def number(value: int | Fraction) -> Node:
    """Return the leaf of an exact number."""
    return Node("num", value=Fraction(value))


def symbol(name: str) -> Node:
    """Return the leaf of a variable."""
    return Node("sym", value=name)


def constant(name: str) -> Node:
    """Return the leaf of pi, e, i or oo."""
    return Node("const", value=name)


def subtract(a: Node, b: Node) -> Node:
    """Return the tree of a - b."""
    return Node("add", (a, Node("neg", (b,))))


def walk(node: Node) -> list[Node]:
    """Return every node of the tree, root first."""
    nodes, stack = [], [node]
    while stack:
        top = stack.pop()
        nodes.append(top)
        stack.extend(top.args)
    return nodes


_BINDERS = {"sum": 0, "prod": 0, "integral": 1, "limit": 1}
"""Operations that bind a variable, and which operand that variable is."""


def symbols(node: Node) -> set[str]:
    """Return the names of the free variables in the tree."""
    names: set[str] = set()
    nodes = [node]
    while nodes:
        top = nodes.pop()
        if top.op == "sym":
            names.add(str(top.value))
        elif top.op in _BINDERS:
            return _free_symbols(node)
        nodes.extend(top.args)
    return names


def _free_symbols(node: Node) -> set[str]:
    """Return the names that no operation of the tree binds."""
    names: set[str] = set()
    stack: list[tuple[Node, frozenset[str]]] = [(node, frozenset())]
    while stack:
        top, bound = stack.pop()
        if top.op == "sym" and str(top.value) not in bound:
            names.add(str(top.value))
        if top.op in _BINDERS:
            bound = bound | {str(top.args[_BINDERS[top.op]].value)}
        stack.extend((arg, bound) for arg in top.args)
    return names


def replace(node: Node, old: Node, new: Node) -> Node:
    """Return the tree with every `old` replaced by `new`."""
    if node == old:
        return new
    if not node.args:
        return node
    return Node(node.op, tuple(replace(a, old, new) for a in node.args), node.value, node.digits)
