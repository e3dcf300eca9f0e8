"""What kind of answer a canonical tree is: a number, a formula, a set, words, an equation, an inequality.

Canonical forms and equality both ask it, so it stands below both.
"""

from __future__ import annotations

from typing import Literal

from mathlete.answers.regions import is_infinite
from mathlete.answers.tree import Node, symbols, walk

TreeKind = Literal["words", "order", "eq", "set", "collection", "symbol", "number", "formula"]
COLLECTIONS = frozenset({"set", "tuple", "point", "interval", "union", "matrix", "row", "ratio"})
"""Operations of canonical nodes that hold other answers."""
WORDS = frozenset({"text", "letter"})
RELATIONS = frozenset({"eq", "rel", "chain"})


def kind_of(node: Node) -> TreeKind:
    """Return the kind of a canonical tree; only answers of one kind, or a number and a formula, can be equal."""
    if node.op in WORDS:
        return "words"
    if node.op in ("rel", "chain"):
        return "order"
    if node.op == "eq":
        return "eq"
    if node.op == "set":
        return "set"
    if node.op in COLLECTIONS:
        return "collection"
    if is_infinite(node) or node.op in ("field", "minus"):
        return "symbol"
    return "number" if is_constant(node) else "formula"


def is_constant(node: Node) -> bool:
    """Return whether the tree is a number, real or complex."""
    if node.op in COLLECTIONS | WORDS | RELATIONS:
        return False
    ops = {n.op for n in walk(node)}
    return ops.isdisjoint(("apply", "field")) and ("sym" not in ops or not symbols(node))
