"""Ranking: which of the policies that were tried may be handed in, and which of these is best.

The highest of several scores is high by luck, too. So what is handed in has majority's vote or one that is shown to
beat it, and a stopping rule that is safe with every n that was tried, or that pays under its clock: its score, less
what the rule may lose at the low end of its own change, is above those of all safe rules on the same clock. Of these
the highest score is best, where a gain that is not shown counts for nothing, and of those that print alike the
quickest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from mathlete.competitions import Competition
from mathlete.replay.outcomes import Outcome, find_low_end

_ALIKE = 0.005
"""Difference in score that no table shows, and that the choice of the simulated questions may have made."""
_NO_STOP = "no stop that was tried is shown to be safe; try --stop none too"
NO_CLOCK = "no notebook has a clock without allowances; try --budget SECONDS or none too"
"""Why nothing may be handed in where only such clocks were tried."""
_FIT = {
    "vote": "majority's and those whose vote is shown to beat it",
    "stop": "those whose stop is safe, or pays under its clock",
}


@dataclass(frozen=True, kw_only=True)
class BestPolicy:
    """The best of the policies, and what it was best of."""

    outcome: Outcome
    model: int
    """Which of the models it is of: 0 is the first."""
    passed_over: tuple[str, ...]
    """What those that were passed over lack: `vote`, `stop`."""
    unfit: str = ""
    """Why nothing that was tried may be handed in, and what to try; "" where something may."""

    @property
    def is_fit(self) -> bool:
        """Whether it may be handed in."""
        return not self.unfit

    def describe_rule(self) -> str:
        """Return which policies it is the best of, as the end of a sentence; "" where all may be handed in."""
        if not self.is_fit:
            return f", though {self.unfit}"
        return ", of " * bool(self.passed_over) + " and ".join(_FIT[name] for name in self.passed_over)


def find_best(tried: Sequence[Sequence[Outcome]], *, questions: int, rules: Competition) -> BestPolicy | None:
    """Return the best policy of one or several models; None where no notebook can have any of them.

    Args:
        tried: the outcomes of each model's policies.
        questions: questions of a submission.
        rules: those of the competition, by which the clocks were replayed.
    """
    possible = [
        (model, one)
        for model, outcomes in enumerate(tried)
        for one in list_possible(outcomes, questions=questions, rules=rules)
    ]
    if not possible:
        return None
    # Safe is what every policy that was tried says of a rule, also one that no notebook can have.
    stops = [[id(one) for one in outcomes if is_stop_fit(one, outcomes, questions=questions)] for outcomes in tried]
    shown = [(model, one) for model, one in possible if one.is_shown]
    safe = [(model, one) for model, one in possible if id(one) in stops[model]]
    fit = [(model, one) for model, one in safe if one.is_shown]
    # What a vote is worth is less known than that an unsafe stop costs something.
    model, best = _find_quickest_of_best(fit or safe or shown or possible, tried)
    lacking = {"vote": len(shown) < len(possible), "stop": len(safe) < len(possible)}
    unfit = ""
    if not fit:
        with_safe = " with a safe stop" if shown else ""
        no_vote = f"no vote that was tried is shown to beat majority{with_safe}; try --vote majority too"
        unfit = no_vote if safe or not shown else _NO_STOP
    passed_over = tuple(name for name, does in lacking.items() if does)
    return BestPolicy(outcome=best, model=model, unfit=unfit, passed_over=passed_over)


def list_possible(outcomes: Sequence[Outcome], *, questions: int, rules: Competition) -> list[Outcome]:
    """Return those that a notebook can have, which has no clock without allowances.

    Clocks that `Wall.refuse` refuses are among them only where no other was tried: the rest can be handed on.
    """
    shared = [one for one in outcomes if one.wall is None or one.wall.floor_s is not None]
    fit = [one for one in shared if one.wall is None or one.wall.refuse(questions=questions, rules=rules) is None]
    return fit or shared


def group_stops(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """Return {stopping rule: its outcomes}, in the order in which the rules were tried."""
    rules: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        rules.setdefault(outcome.stop, []).append(outcome)
    return rules


def list_safe_stops(outcomes: Sequence[Outcome], *, questions: int) -> list[str]:
    """Return the stopping rules that are safe with every n that was tried: one n alone may have been lucky."""
    return [
        stop
        for stop, tried in group_stops(outcomes).items()
        if stop == "none" or all(one.stops_safely(questions=questions) for one in tried)
    ]


def is_stop_fit(outcome: Outcome, tried: Sequence[Outcome], *, questions: int) -> bool:
    """Return whether its stopping rule is safe, or pays under its clock, by those that were tried with it."""
    safe = list_safe_stops(tried, questions=questions)
    if outcome.stop in safe:
        return True
    beside = [one for one in tried if one.stop in safe and _setting(one) == _setting(outcome)]
    by = outcome.by_stop
    if outcome.wall is None or by is None or not beside:
        return False
    # The seconds that it saves are known as well as the recorded ones; what it does to answers is not.
    least = outcome.score.new_set.value - (by.value - find_low_end(by, informative=by.informative))
    return least > max(one.score.new_set.value for one in beside)


def _setting(outcome: Outcome) -> tuple[object, ...]:
    return (outcome.n, outcome.max_tokens, outcome.vote, outcome.harvest, outcome.wall)


def _find_quickest_of_best(
    candidates: Sequence[tuple[int, Outcome]], tried: Sequence[Sequence[Outcome]]
) -> tuple[int, Outcome]:
    """Return (model, policy) that is the quickest of those whose scores, without gains not shown, print as the highest.

    A score is that of one set of draws, and that of majority on the same draws is not seen here: each is taken to be
    majority's with its n, the same for all, and its own change.
    """
    majority = dict[tuple[int, int], list[float]]()
    for model, outcomes in enumerate(tried):
        for one in outcomes:
            majority.setdefault((model, one.n), []).append(one.score.new_set.value - one.change.value)

    def worth(model: int, one: Outcome) -> float:
        gain = one.change.value if one.verdict == "better" else min(0.0, one.change.value)
        return fmean(majority[model, one.n]) + gain

    least = max(worth(*pair) for pair in candidates) - _ALIKE
    return min((pair for pair in candidates if worth(*pair) >= least), key=lambda pair: pair[1].submission_s)
