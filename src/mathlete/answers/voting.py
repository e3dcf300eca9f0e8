"""Classes of equal answers, whatever order the answers arrive in."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from mathlete.answers.answer import Answer, parse
from mathlete.answers.comparison import NOT_HERE, compare
from mathlete.answers.effort import start_count, steps_spent
from mathlete.answers.equality import is_long_decimal
from mathlete.answers.tree import walk

MAX_PAIRS = 500
"""Pairs of classes that are compared one by one; beyond, answers without a common key stay apart."""
MAX_STEPS = 60_000
"""Steps for all these pairs together, some 0.2 s of CPU time; beyond, too."""
MAX_HARD_PAIRS = 60
"""Pairs that the worker is asked about."""
HARD_LIMIT_S = 0.5
"""CPU time of the worker for each, seconds."""


def cluster(answers: Sequence[str], settings: str = "") -> list[list[int]]:
    """Return the positions of equal answers: classes in the order of their first member, members ascending.

    >>> cluster(["1/2", "3", "0.5", "50%"])
    [[0, 2, 3], [1]]
    """
    # Keys make this linear in the number of answers; only classes whose keys cannot tell are compared in pairs.
    classes: dict[Hashable, list[int]] = {}
    for position, answer in enumerate(answers):
        classes.setdefault(parse(answer, settings).key, []).append(position)
    groups = [part for group in classes.values() for part in _split_by_verdict(answers, group, settings)]
    union = _UnionFind(len(groups))
    heads = [parse(answers[group[0]], settings) for group in groups]
    steps, hard = 0, 0
    for a, b in _undecided_pairs(heads):
        if union.find(a) == union.find(b) or steps > MAX_STEPS:
            continue
        # Here first: what all pairs take together is counted, and so is how often the worker is asked.
        start_count()
        verdict = compare(answer=heads[a].string, gold=heads[b].string, limit_s=0, settings=settings)
        steps += steps_spent()
        if verdict.reason.startswith(NOT_HERE) and hard < MAX_HARD_PAIRS:
            hard += 1
            verdict = compare(answer=heads[a].string, gold=heads[b].string, limit_s=HARD_LIMIT_S, settings=settings)
        if verdict.outcome == "equal":
            union.join(a, b)
    return union.merge(groups)


def label_classes(answers: Sequence[str | None], settings: str = "") -> list[int]:
    """Return the class of each answer, numbered by first appearance; -1 for None.

    >>> label_classes(["1/2", None, "3", "0.5"])
    [0, -1, 1, 0]
    """
    distinct = list(dict.fromkeys(answer for answer in answers if answer is not None))
    groups = sorted(sorted(group) for group in cluster(distinct, settings))
    label = {distinct[member]: number for number, group in enumerate(groups) for member in group}
    return [-1 if answer is None else label[answer] for answer in answers]


def _split_by_verdict(answers: Sequence[str], group: list[int], settings: str) -> list[list[int]]:
    """Return a class of equal keys, split where numbers agree in twenty digits and are not the same."""
    if len({parse(answers[position], settings).node for position in group}) == 1:
        return [group]
    parts: list[list[int]] = []
    for position in group:
        for part in parts:
            if compare(answer=answers[position], gold=answers[part[0]], settings=settings).outcome == "equal":
                part.append(position)
                break
        else:
            parts.append([position])
    return parts


def _undecided_pairs(heads: list[Answer]) -> list[tuple[int, int]]:
    """Return the pairs whose keys cannot tell: long decimals with anything else, answers that have no key."""
    unsure = [at for at, head in enumerate(heads) if _is_unsure(head)]
    pairs = [(a, b) for a in unsure for b in range(len(heads)) if a != b and not (b in unsure and b < a)]
    return pairs[:MAX_PAIRS]


def _is_unsure(head: Answer) -> bool:
    if head.node is None:
        return False
    match head.key:
        case ("tree", _):
            return True
        case ("F", tuple(values)) if len(set(values)) == 1:
            return True  # a formula that is a number: x - x + 2
    return any(is_long_decimal(node) for node in walk(head.node))


class _UnionFind:
    """Disjoint sets of classes."""

    def __init__(self, count: int) -> None:
        self.parents = list(range(count))

    def find(self, at: int) -> int:
        while self.parents[at] != at:
            at = self.parents[at]
        return at

    def join(self, a: int, b: int) -> None:
        # The smaller number stays the root, so that a class is named by its first member.
        low, high = sorted((self.find(a), self.find(b)))
        self.parents[high] = low

    def merge(self, groups: list[list[int]]) -> list[list[int]]:
        """Return the groups of each set as one."""
        merged: dict[int, list[int]] = {}
        for at, group in enumerate(groups):
            merged.setdefault(self.find(at), []).extend(group)
        return sorted(sorted(members) for members in merged.values())
