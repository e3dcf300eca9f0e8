"""Classes of equal answers, whatever order the answers arrive in."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from mathlete.answers.answer import Answer, compare, parse
from mathlete.answers.equality import is_long_decimal
from mathlete.answers.tree import walk

MAX_PAIRS = 500
"""Pairs of classes that are compared one by one; beyond, answers without a common key stay apart."""


def cluster(answers: Sequence[str]) -> list[list[int]]:
    """Positions of equal answers: classes in the order of their first member, members ascending.

    >>> cluster(["1/2", "3", "0.5", "50%"])
    [[0, 2, 3], [1]]
    """
    classes: dict[Hashable, list[int]] = {}
    for position, answer in enumerate(answers):
        classes.setdefault(parse(answer).key, []).append(position)
    groups = [part for group in classes.values() for part in _proven(answers, group)]
    joined = _Joined(len(groups))
    heads = [parse(answers[group[0]]) for group in groups]
    for a, b in _pairs(heads):
        if joined.find(a) == joined.find(b):
            continue
        if compare(answer=heads[a].string, gold=heads[b].string).outcome == "equal":
            joined.join(a, b)
    return joined.classes(groups)


def _proven(answers: Sequence[str], group: list[int]) -> list[list[int]]:
    """A class of equal keys, split where numbers agree in twenty digits and are not the same."""
    if len({parse(answers[position]).node for position in group}) == 1:
        return [group]
    parts: list[list[int]] = []
    for position in group:
        for part in parts:
            if compare(answer=answers[position], gold=answers[part[0]]).outcome == "equal":
                part.append(position)
                break
        else:
            parts.append([position])
    return parts


def _pairs(heads: list[Answer]) -> list[tuple[int, int]]:
    """Pairs whose keys cannot tell: long decimals with anything else, answers that have no key."""
    unsure = [at for at, head in enumerate(heads) if _is_unsure(head)]
    others = [(a, b) for a in unsure for b in range(len(heads)) if a != b and not (b in unsure and b < a)]
    return others[:MAX_PAIRS]


def _is_unsure(head: Answer) -> bool:
    if head.node is None:
        return False
    match head.key:
        case ("tree", _):
            return True
        case ("F", tuple(values)) if len(set(values)) == 1:
            return True  # a formula that is a number: x - x + 2
    return any(is_long_decimal(node) for node in walk(head.node))


class _Joined:
    """Union-find over the classes."""

    def __init__(self, count: int) -> None:
        self.parents = list(range(count))

    def find(self, at: int) -> int:
        while self.parents[at] != at:
            at = self.parents[at]
        return at

    def join(self, a: int, b: int) -> None:
        low, high = sorted((self.find(a), self.find(b)))
        self.parents[high] = low

    def classes(self, groups: list[list[int]]) -> list[list[int]]:
        found: dict[int, list[int]] = {}
        for at, group in enumerate(groups):
            found.setdefault(self.find(at), []).extend(group)
        return sorted(sorted(members) for members in found.values())
