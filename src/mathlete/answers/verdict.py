"""The verdict on two answers by canonical forms and values, without a computer algebra system."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mathlete.answers.answer import parse
from mathlete.answers.effort import start_count
from mathlete.answers.equality import are_equal
from mathlete.answers.tree import TooHard, Undefined

Outcome = Literal["equal", "different", "unknown"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether two answers are equal, and why."""

    outcome: Outcome
    reason: str


def decide(answer: str, gold: str, *, patient: bool = False, settings: str = "") -> Verdict:
    """Return the verdict by canonical forms and exact or high-precision values.

    Args:
        answer: as extracted from a model's text.
        gold: as the data set has it.
        patient: whether long proofs may run: only in a worker, which can be killed.
        settings: the suite's conventions.

    Raises:
        TooHard: only a worker, or nobody, can decide.
        TooBig: a value that cannot be written down.
        RecursionError: nested too deeply for this process.
    """
    nodes = []
    both = [parse(string, settings) for string in (answer, gold)]
    if both[0].spelling is not None and both[0].spelling == both[1].spelling:
        return Verdict("equal", "written alike")
    for string, parsed in zip((answer, gold), both, strict=True):
        if parsed.hard and not patient:
            raise TooHard(str(parsed.problem))
        if parsed.node is None:
            return Verdict("unknown", f"cannot read {_shorten(string)}: {parsed.problem}")
        nodes.append(parsed.node)
    start_count()
    try:
        equal = are_equal(nodes[0], nodes[1], patient=patient)
    except Undefined as error:
        return Verdict("unknown", str(error))
    return Verdict("equal" if equal else "different", f"as {nodes[0].op} and {nodes[1].op}")


def _shorten(string: str) -> str:
    return repr(string if len(string) <= 60 else string[:57] + "...")
