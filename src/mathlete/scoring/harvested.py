"""Forced answers of a run: how many there are, how many are right, and what their votes changed."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Self

from mathlete.metrics import INFORMATIVE, Interval, bootstrap, judge_change
from mathlete.scoring.grading import Graded, judge
from mathlete.solve import Policy
from mathlete.text import agree, counted


@dataclass(frozen=True, kw_only=True)
class HarvestScores:
    """Answers that samples were made to give after they were cut. They count in the vote alone, never in pass@1."""

    weight: float
    """Of their votes, beside the 1 of an answer that a sample gave by itself."""
    samples: int
    """Samples that were made to answer."""
    unfinished: int
    """Those of them that their problem's deadline had cut, which count as no samples otherwise."""
    answered: int
    """Those that did."""
    right: int
    """Forced answers equal to the gold."""
    tokens: int
    """Drawn for them."""
    seconds: float
    """Of all of them, side by side as they were; from request to end."""
    without: float
    """Share of the problems whose vote is right without them."""
    gain: Interval
    """What they add to that share; 95% interval, paired over problems."""
    changed: int
    """Problems whose vote is right with them and wrong without, or the other way round."""

    @classmethod
    def of(cls, graded: Sequence[Graded], policy: Policy) -> Self:
        """Count the forced answers of these problems, and vote with and without them."""
        voting = [(item.problem, one) for item in graded for one in item.solution.voting]
        forced = [(problem, one.harvest) for problem, one in voting if one.harvest]
        grades = [judge(one.answer, gold=problem.gold, settings=problem.answers) for problem, one in forced]
        pairs = [(_is_right(item, policy, without=True), _is_right(item, policy, without=False)) for item in graded]
        differences = [float(after) - before for before, after in pairs]
        return cls(
            weight=policy.harvest,
            samples=len(forced),
            unfinished=sum(one.harvest is not None and one.finish == "clock" for _, one in voting),
            answered=sum(one.answer is not None for _, one in forced),
            right=grades.count("equal"),
            tokens=sum(one.tokens for _, one in forced),
            seconds=round(sum(one.seconds for _, one in forced), 3),
            without=sum(before for before, _ in pairs) / len(pairs),
            gain=bootstrap(differences),
            changed=sum(map(bool, differences)),
        )

    def describe(self) -> str:
        """Return what they gave, in a sentence."""
        gain, few = self.gain, self.changed < INFORMATIVE
        late = f" ({self.unfinished} by the clock)" if self.unfinished else ""
        shown = judge_change(gain, differing=self.changed)
        judged = shown if shown in ("better", "worse") else "no difference at 95%"
        closed = f"{counted(self.samples, 'cut sample')}{late} {agree(self.samples, 'was', 'were')} closed"
        return (
            f"forced answers: {closed}, {self.answered} filled the box, "
            f"{self.right} right; with weight {self.weight:g} they change the vote of "
            f"{counted(self.changed, 'problem')}: "
            f"{100 * gain.value:+.1f} points [{100 * gain.lo:+.1f}, {100 * gain.hi:+.1f}] on "
            f"{100 * self.without:.1f}%, {'too few to say' if few else judged}"
        )

    def to_json(self) -> dict[str, object]:
        """Return the counts as results.json has them."""
        return asdict(self)


def _is_right(item: Graded, policy: Policy, *, without: bool) -> bool:
    problem, solution = item.problem, item.solution
    samples = solution.samples if without else solution.voting
    settled = without or solution.ended == "rule"
    votes = policy.count_votes(samples, settings=problem.answers, settled=settled)
    return bool(votes) and judge(votes[0].answer, gold=problem.gold, settings=problem.answers) == "equal"
