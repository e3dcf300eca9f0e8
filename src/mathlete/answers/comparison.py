"""Comparison of an answer with the gold: in this process where that is enough, in a worker where it is not."""

from __future__ import annotations

from mathlete.answers.isolation import decide_in_worker
from mathlete.answers.tree import TooBig, TooHard
from mathlete.answers.verdict import Verdict, decide
from mathlete.errors import UserError

LIMIT_S = 1.0
"""CPU time that a worker may spend on one pair, seconds."""
NOT_HERE = "not decided in this process"
_SAME_INTEGER = Verdict("equal", "the same integer")
_OTHER_INTEGER = Verdict("different", "different integers")
_WRITTEN_ALIKE = Verdict("equal", "written alike")
_NO_ANSWER = Verdict("unknown", "no answer")


def compare(*, answer: str | None, gold: str | None, limit_s: float = LIMIT_S, settings: str = "") -> Verdict:
    r"""Return whether an answer equals the gold.

    Args:
        answer: as extracted from a model's text.
        gold: as the data set has it.
        limit_s: CPU time for what only a worker can decide, seconds; with 0 it is not asked.
        settings: the suite's conventions where they are not the default, such as `log=10 percent=points`.

    >>> compare(answer=r"\frac{1}{2}", gold="0.5").outcome
    'equal'
    """
    if not answer or not gold:
        return _NO_ANSWER
    # Nearly every pair of a competition is two plain integers: they need no parser.
    if answer.isdecimal() and gold.isdecimal() and answer.isascii() and gold.isascii():
        return _SAME_INTEGER if answer.lstrip("0") == gold.lstrip("0") else _OTHER_INTEGER
    if answer == gold:
        return _WRITTEN_ALIKE if answer.strip() else _NO_ANSWER
    try:
        return decide(answer, gold, settings=settings)
    except (TooHard, TooBig, RecursionError) as error:
        if not limit_s:
            return Verdict("unknown", f"{NOT_HERE}: {error}")
        return decide_in_worker(answer, gold, limit_s=limit_s, reason=str(error), settings=settings)
    except UserError:
        raise
    except Exception as error:
        # The boundary to model text, as in `parse`.
        return Verdict("unknown", f"a fault of the checker, {type(error).__name__}: {error}")
