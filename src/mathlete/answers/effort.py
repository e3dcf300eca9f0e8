"""How much may be computed in this process for one answer or pair, counted in steps so that it is the same everywhere.

What needs more raises `OutOfSteps`, a `TooHard`, and goes to the worker, killed when its CPU time is over: here
nothing could stop it. So there is no loop without a cost, neither over the tokens of an answer nor over the digits of a
number.
"""

from __future__ import annotations

import threading

from mathlete.answers.tree import OutOfSteps

STEPS = 4_000
"""Operations on exact numbers or on numbers of up to 700 bits, or tokens read; some 20 ms of CPU time."""
_local = threading.local()
_limited = True


def lift_limit() -> None:
    """Stop limiting this process: it is the worker's child, which is killed when its time is over."""
    global _limited
    _limited = False


def start_count() -> None:
    """Start the count of one answer or pair in this thread."""
    _local.left = STEPS


def steps_spent() -> int:
    """Return the steps since the last start of the count in this thread."""
    return STEPS - getattr(_local, "left", STEPS)


def spend(steps: int = 1) -> None:
    """Count steps.

    Raises:
        OutOfSteps: none are left.
    """
    left: int = getattr(_local, "left", STEPS) - steps
    _local.left = left
    if left < 0 and _limited:
        raise OutOfSteps(f"it takes more than {STEPS} steps")
