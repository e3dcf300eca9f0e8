"""Problems with traces: any number, byte-identical for the same arguments on every machine and Python version.

The split law. A problem's *numbers* are all the numbers in its statement, sorted: a multiset, whatever the wording, the
order and the family. SHA-256 of that multiset decides the side: one residue in ten is test. So no test problem shares
its numbers with any training problem, of its own family or another: if training asks for gcd(12, 18), test asks neither
for lcm(12, 18) nor for gcd(18, 12). (A hard test problem may contain a smaller training problem: 29*4+17 modulo 9 may
be test while 29*4+17, which has three other numbers, is training. That is the skill, not the problem.)
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
from mathlete.prompts import completion_text
from mathlete.traces import Trace, TracedProblem

Split = Literal["train", "test"]
FAMILIES = {family.subset: family for family in (*EASY, *HARD)}
"""All families by their subset, such as `hard/power`."""
SOURCE, LICENCE = "mathlete/pocket", "Apache-2.0"
_TEST_SHARE = 10
_TRIES = 2000
"""Draws for one problem before its family counts as exhausted; one draw in ten falls on the test side."""


@dataclass(frozen=True, kw_only=True)
class PocketItem:
    """A generated problem with the trace that solves it."""

    problem: Problem
    trace: str
    """The reasoning between `<think>` and `</think>`, one step per line."""
    numbers: tuple[int, ...]
    """All numbers of the statement, sorted; they decide the split."""

    @cached_property
    def traced(self) -> TracedProblem:
        """The item as a training example. It is unverified: only the answer checker verifies."""
        trace = Trace(problem_id=self.problem.id, text=self.trace, answer=self.problem.gold, generator=SOURCE)
        return TracedProblem(problem=self.problem, trace=trace)

    @property
    def completion(self) -> str:
        """The text that a model must write after the prompt, without eos."""
        return completion_text(trace=self.trace, answer=self.problem.gold)


def find_split(numbers: Iterable[int]) -> Split:
    """Return the side of the split for problems with these numbers, in any order.

    >>> find_split([12, 18]) == find_split([18, 12])
    True
    """
    return "test" if _hash_words("split", *sorted(numbers)) % _TEST_SHARE == 0 else "train"


def generate_items(
    *, families: Sequence[str], count: int, seed: int, split: Split, unique: bool = False
) -> list[PocketItem]:
    """Generate `count` items, the families taking turns; a shorter list is the beginning of a longer one.

    Args:
        families: names as in FAMILIES, or `easy` or `hard` for all of that level.
        count: problems in all.
        seed: any whole number; other seeds give other problems.
        split: side of the split law.
        unique: whether no two problems of a family have the same numbers.

    Raises:
        UserError: an unknown family, no family, or more unique problems than a family has.
    """
    chosen = select_families(families)
    taken: set[tuple[str, tuple[int, ...]]] = set()
    items = []
    for index in range(count):
        item = _generate_item(chosen[index % len(chosen)], index=index, seed=seed, split=split, taken=taken)
        items.append(item)
        if unique:
            taken.add((item.problem.subset, item.numbers))
    return items


def select_families(names: Sequence[str]) -> list[Family]:
    """Return the families of these names, in the order of FAMILIES.

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


def _generate_item(
    family: Family, *, index: int, seed: int, split: Split, taken: set[tuple[str, tuple[int, ...]]]
) -> PocketItem:
    # Each item has its own random stream, so that it does not depend on earlier items: a shorter list is a prefix.
    random = Random(_hash_words("item", family.subset, split, seed, index))
    for _ in range(_TRIES):
        parameters = family.draw(random)
        wording = family.wordings[random.randrange(len(family.wordings))]
        numbers = tuple(sorted(parameters.values()))
        if find_split(numbers) == split and (family.subset, numbers) not in taken:
            break
    else:
        raise UserError(
            f"{family.subset} has no more {split} problems with numbers of their own",
            value=f"{index} drawn",
            cure="ask for fewer, or without unique",
        )
    trace, answer = family.write_solution(parameters)
    problem = Problem(
        id=f"pocket-{family.level}-{family.name}-{split}-{seed}-{index}",
        statement=wording.format(**parameters),
        gold=str(answer),
        source=SOURCE,
        subset=family.subset,
        licence=LICENCE,
    )
    return PocketItem(problem=problem, trace=trace, numbers=numbers)


def _hash_words(*words: object) -> int:
    """Return the SHA-256 of the words as a number."""
    return int.from_bytes(sha256("/".join(map(str, words)).encode()).digest(), "big")
