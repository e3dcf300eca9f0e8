"""Verdicts: what a replay's changes show, in words; `mathlete.metrics.judge_change` alone says better or worse."""

from collections.abc import Sequence

from mathlete.metrics import INFORMATIVE, Interval, judge_change
from mathlete.replay.outcomes import SAFE_LOSS, Outcome
from mathlete.replay.ranking import group_stops, list_safe_stops
from mathlete.solve import Policy
from mathlete.text import agree, counted

_FEW = "too few to say"


def judge_policy(outcome: Outcome) -> str:
    """Say in a word or two what a policy's change shows, or that it overruns its clock."""
    if outcome.p_overrun >= 0.0005:
        return f"overruns: {outcome.p_overrun:.1%}"
    return {"better": "better", "worse": "worse", "few": _FEW, "even": "no difference"}[outcome.verdict]


def judge_vote(change: Interval, *, problems: int | None) -> str:
    """Say whether a vote beats majority, by its paired change and the number of problems that differ at all.

    >>> judge_vote(Interval(value=0.36, lo=0.18, hi=0.55), problems=80)
    'beats majority at 95%'
    >>> judge_vote(Interval(value=0.06, lo=-0.02, hi=0.15), problems=70)
    'does not beat majority at 95%'
    >>> judge_vote(Interval(value=0.2, lo=0.1, hi=0.3), problems=2)
    'too few to say: 2 problems differ'
    >>> judge_vote(Interval(value=0.0, lo=0.0, hi=0.0), problems=0)
    'votes as majority does'
    """
    if problems == 0:
        return "votes as majority does"
    if problems is not None and problems < INFORMATIVE:
        return f"{_FEW}: {counted(problems, 'problem')} {agree(problems, 'differs', 'differ')}"
    words = {"better": "beats majority at 95%", "worse": "loses to majority at 95%"}
    return words.get(judge_change(change, differing=problems), "does not beat majority at 95%")


def describe_safety(outcomes: Sequence[Outcome], *, questions: int) -> list[str]:
    """Return which stopping rules are safe, in sentences, by what each alone changes without a clock."""
    rules = group_stops(outcomes)
    rules.pop("none", None)
    if not rules:
        return []
    idle = [stop for stop, tried in rules.items() if not any(map(_can_stop, tried))]
    safe = [stop for stop in list_safe_stops(outcomes, questions=questions) if stop not in idle]
    # Of the others the worst n is named, by the end of the interval that made it unsafe.
    unsafe = [_describe_unsafe(stop, tried, questions) for stop, tried in rules.items() if stop not in (*safe, *idle)]
    limit = f"at most {100 * SAFE_LOSS:g}% of the questions lost at the low end"
    return [
        f"safe on this run ({limit}): {', '.join(stop for stop in rules if stop in safe) or 'no rule tried'}",
        *([f"never stops before the last sample, with so few: {', '.join(idle)}"] if idle else []),
        *([f"not shown safe: {', '.join(unsafe)}"] if unsafe else []),
    ]


def _can_stop(outcome: Outcome) -> bool:
    return Policy(stop=outcome.stop, n=outcome.n).fewest_samples < outcome.n


def _describe_unsafe(stop: str, tried: Sequence[Outcome], questions: int) -> str:
    changes = [(one.by_stop or one.change, one) for one in tried if not one.stops_safely(questions=questions)]
    worst, outcome = min(changes, key=lambda pair: pair[0].lo)
    number = outcome.informative if outcome.by_stop is None else outcome.by_stop.informative
    why = f"low end {worst.lo:+.2f}"
    if worst.lo >= -SAFE_LOSS * questions:
        why = f"{_FEW}: {counted(number or 0, 'problem')} {agree(number or 0, 'differs', 'differ')}"
    return f"{stop} ({worst.value:+.2f} of {questions}, {why})"
