"""Problems with traces, any number of them, byte-identical for the same arguments on every machine and Python.

The split law. A problem's *numbers* are all the numbers in its statement, sorted: a multiset, whatever the wording, the
order and the family. SHA-256 of that multiset decides the side: one residue in ten is test. So no test problem shares
its numbers with any training problem, of its own family or another: 12 and 18 asked for their gcd in training are not
asked for their lcm, nor as 18 and 12, in test. (A hard test problem may hold a smaller one as a part: 29*4+17 modulo 9
is test although 29*4+17 alone, three other numbers, may be training. That is the skill, not the problem.)
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from random import Random
from typing import Literal

from mathlete.errors import UserError, nearest
from mathlete.pocket.easy import EASY
from mathlete.pocket.family import Family
from mathlete.pocket.hard import HARD
from mathlete.problems import Problem
from mathlete.traces import Trace, TracedProblem

Split = Literal["train", "test"]
FAMILIES = {family.subset: family for family in (*EASY, *HARD)}
"""Every family by its subset, e.g. `hard/power`."""
SOURCE, LICENCE = "mathlete/pocket", "Apache-2.0"
_TEST_SHARE = 10
_TRIES = 2000
"""Draws for one problem before a family counts as exhausted; one in ten falls on the test side."""


@dataclass(frozen=True, kw_only=True)
class PocketItem:
    """A generated problem with the trace that solves it."""

    problem: Problem
    trace: str
    """What stands between `<think>` and `</think>`: one step a line."""
    numbers: tuple[int, ...]
    """All numbers of the statement, sorted: what the split is decided by."""

    @cached_property
    def traced(self) -> TracedProblem:
        """The same as a training example of the pipeline. Unverified: only the answer checker may say otherwise."""
        text = Trace(problem_id=self.problem.id, text=self.trace, answer=self.problem.gold, generator=SOURCE)
        return TracedProblem(problem=self.problem, trace=text)


def split_of(numbers: Iterable[int]) -> Split:
    """The side of the split that problems with these numbers, in whatever order, are on.

    >>> split_of([12, 18]) == split_of([18, 12])
    True
    """
    return "test" if _digest("split", *sorted(numbers)) % _TEST_SHARE == 0 else "train"


def generate(*, families: Sequence[str], count: int, seed: int, split: Split, unique: bool = False) -> list[PocketItem]:
    """`count` items, the families taking turns; a shorter list is the beginning of a longer one.

    Args:
        families: names as in FAMILIES, or `easy` or `hard` for all of that level.
        count: problems in all.
        seed: any whole number; other seeds give other problems.
        split: the side of the split law they are on.
        unique: no two problems of a family have the same numbers.

    Raises:
        UserError: an unknown family, no family, or more unique problems than a family has.
    """
    chosen = chosen_families(families)
    taken: set[tuple[str, tuple[int, ...]]] = set()
    items = []
    for index in range(count):
        item = _item(chosen[index % len(chosen)], index=index, seed=seed, split=split, taken=taken)
        items.append(item)
        if unique:
            taken.add((item.problem.subset, item.numbers))
    return items


def chosen_families(names: Sequence[str]) -> list[Family]:
    """The families of these names, in the order of FAMILIES.

    Raises:
        UserError: an unknown name, or none.
    """
    for name in names:
        if name not in FAMILIES and name not in ("easy", "hard"):
            raise UserError(
                "a family must be a known one", value=repr(name), cure=nearest(name, ["easy", "hard", *FAMILIES])
            )
    if not names:
        raise UserError("the generator needs a family", value="none", cure="use easy or hard")
    return [family for family in FAMILIES.values() if family.subset in names or family.level in names]


def _item(
    family: Family, *, index: int, seed: int, split: Split, taken: set[tuple[str, tuple[int, ...]]]
) -> PocketItem:
    # Each item has its own stream, so that it does not depend on what was drawn before it.
    random = Random(_digest("item", family.subset, split, seed, index))
    for _ in range(_TRIES):
        parameters = family.draw(random)
        wording = family.wordings[random.randrange(len(family.wordings))]
        numbers = tuple(sorted(parameters.values()))
        if split_of(numbers) == split and (family.subset, numbers) not in taken:
            break
    else:
        raise UserError(
            f"{family.subset} has no more {split} problems with numbers of their own",
            value=f"{index} drawn",
            cure="ask for fewer, or without unique",
        )
    trace, answer = family.solution(parameters)
    problem = Problem(
        id=f"pocket-{family.level}-{family.name}-{split}-{seed}-{index}",
        statement=wording.format(**parameters),
        gold=str(answer),
        source=SOURCE,
        subset=family.subset,
        licence=LICENCE,
    )
    return PocketItem(problem=problem, trace=trace, numbers=numbers)


def _digest(*words: object) -> int:
    """A number from SHA-256 of the words."""
    return int.from_bytes(sha256("/".join(map(str, words)).encode()).digest(), "big")
