"""Answers in canonical form, their comparison, and their classes for a vote."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Literal

from mathlete.answers.canonical import canonical
from mathlete.answers.effort import begin
from mathlete.answers.equality import key, same
from mathlete.answers.forms import read
from mathlete.answers.tree import Node, TooBig, TooHard, Undefined, Unreadable

Outcome = Literal["equal", "different", "unknown"]
LIMIT_S = 1.0
"""Wall time that a worker may spend on one pair, seconds."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether two answers are the same, and why."""

    outcome: Outcome
    reason: str


@dataclass(frozen=True)
class Answer:
    """An answer in canonical form."""

    string: str
    """As written."""
    node: Node | None
    """The canonical tree; None where the string cannot be read."""
    problem: str | None = None
    """Why there is no tree."""
    hard: bool = False
    """Whether a worker may find a tree where there is none."""

    @property
    def value(self) -> Fraction | None:
        """The exact rational value, if it is one."""
        return self.node.value if self.node and self.node.op == "num" else None  # type: ignore[return-value]

    @cached_property
    def key(self) -> Hashable:
        """A hashable form: equal answers have equal keys, and different ones nearly never (`compare` decides)."""
        if self.node is not None:
            begin()
            try:
                return key(self.node)
            except (TooHard, TooBig, Undefined, RecursionError):
                return ("tree", self.node)
        return ("string", " ".join(self.string.split()))


@lru_cache(maxsize=8192)
def parse(string: str) -> Answer:
    """The canonical form of an answer as written; one that cannot be read keeps its string and the reason."""
    begin()
    try:
        return _parsed(string)
    except RecursionError:
        return Answer(string, None, "nested too deeply", hard=True)
    except (Unreadable, TooHard, TooBig, Undefined) as error:
        return Answer(string, None, str(error), hard=isinstance(error, TooHard))
    except Exception as error:
        # The boundary to model text: no string may stop a run of hours. The tests read past it.
        return Answer(string, None, f"a fault of the reader, {type(error).__name__}: {error}")


def _parsed(string: str) -> Answer:
    return Answer(string, canonical(read(string)))


_SAME = Verdict("equal", "the same integer")
_OTHER = Verdict("different", "different integers")
_WRITTEN_ALIKE = Verdict("equal", "written alike")
_NONE = Verdict("unknown", "no answer")


def compare(*, answer: str | None, gold: str | None, limit_s: float = LIMIT_S) -> Verdict:
    r"""Whether an answer equals the gold.

    Args:
        answer: as extracted from a model's text.
        gold: as the data set has it.
        limit_s: wall time for what only a worker can decide, seconds.

    >>> compare(answer=r"\frac{1}{2}", gold="0.5").outcome
    'equal'
    """
    if not answer or not gold:
        return _NONE
    if answer.isdecimal() and gold.isdecimal() and answer.isascii() and gold.isascii():
        return _SAME if answer.lstrip("0") == gold.lstrip("0") else _OTHER
    if answer == gold:
        return _WRITTEN_ALIKE if answer.strip() else _NONE
    try:
        return decide(answer, gold)
    except (TooHard, TooBig, RecursionError) as error:
        from mathlete.answers.isolation import decide_in_worker

        return decide_in_worker(answer, gold, limit_s=limit_s, reason=str(error))
    except Exception as error:
        # The boundary to model text, as in `parse`.
        return Verdict("unknown", f"a fault of the checker, {type(error).__name__}: {error}")


def decide(answer: str, gold: str, *, patient: bool = False) -> Verdict:
    """The verdict by canonical forms and exact or high-precision values.

    Raises:
        TooHard: only a worker, or nobody, can tell.
        TooBig: a value that cannot be written down.
        RecursionError: nested too deeply for this process.
    """
    nodes = []
    for string in (answer, gold):
        found = parse(string)
        if found.hard and not patient:
            raise TooHard(str(found.problem))
        if found.node is None:
            return Verdict("unknown", f"cannot read {_short(string)}: {found.problem}")
        nodes.append(found.node)
    begin()
    try:
        equal = same(nodes[0], nodes[1], patient=patient)
    except Undefined as error:
        return Verdict("unknown", str(error))
    return Verdict("equal" if equal else "different", f"as {nodes[0].op} and {nodes[1].op}")


def _short(string: str) -> str:
    return repr(string if len(string) <= 60 else string[:57] + "...")
