"""Answers in canonical form, their comparison, and their classes for a vote."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Literal

from mathlete.answers.exact import rational
from mathlete.answers.forms import read
from mathlete.answers.tree import Node, TooBig, Undefined, Unreadable

Outcome = Literal["equal", "different", "unknown"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether two answers are the same, and why."""

    outcome: Outcome
    reason: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer in canonical form."""

    string: str
    key: Hashable
    """Equal keys mean equal answers."""
    value: Fraction | None
    """The exact rational value, if it is one."""


@lru_cache(maxsize=4096)
def parse(string: str) -> Answer:
    """The canonical form of an answer as written."""
    try:
        node = read(string)
        key = _key(node)
    except (Unreadable, TooBig, Undefined, RecursionError):
        return Answer(string, ("text", " ".join(string.split())), None)
    return Answer(string, key, key[1] if key[0] == "Q" else None)


def _key(node: Node) -> tuple[object, ...]:
    if node.op == "named":
        return _key(node.args[0])
    value = rational(node)
    if value is not None:
        return ("Q", value)
    keys = [_key(arg) for arg in node.args]
    return (node.op, node.value, frozenset(keys) if node.op in ("set", "list", "add", "mul") else tuple(keys))


_SAME, _OTHER = Verdict("equal", "the same integer"), Verdict("different", "different integers")


def compare(*, answer: str | None, gold: str | None) -> Verdict:
    """Whether an answer equals the gold."""
    if answer is None or gold is None or not answer.strip():
        return Verdict("unknown", "no answer")
    if answer.isdecimal() and gold.isdecimal() and answer.isascii() and gold.isascii():
        return _SAME if answer.lstrip("0") == gold.lstrip("0") else _OTHER
    same = parse(answer).key == parse(gold).key
    return Verdict("equal" if same else "different", "canonical forms")


def cluster(answers: Sequence[str]) -> list[list[int]]:
    """Positions of equal answers, classes in the order of their first member."""
    classes: dict[Hashable, list[int]] = {}
    for position, answer in enumerate(answers):
        classes.setdefault(parse(answer).key, []).append(position)
    return list(classes.values())
