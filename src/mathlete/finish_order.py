"""Whether right answers finish first: what early stops, caps and deadlines gain or lose by."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby

from mathlete.metrics import INFORMATIVE, Interval, bootstrap
from mathlete.text import agree, counted

Times = Sequence[tuple[float, bool | None]]
"""(Seconds, whether it is right; None: neither right nor wrong) of each sample of a problem."""


@dataclass(frozen=True, kw_only=True)
class FinishOrder(Interval):
    """How often a right answer came before a wrong one of its problem."""

    problems: int | None = None
    """Problems that have both, and so inform it; None in a file that was written before they were counted."""
    untold: int | None = None
    """Further problems that have both, and whose times do not say which was first; None: there are none."""

    def to_json(self) -> dict[str, float]:
        """Return the fields as JSON, without what is not known."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def is_recorded(self) -> bool:
        """Whether the times say in what order samples finished, in enough of the problems where it matters."""
        return not self.untold or (self.problems or 0) >= self.untold

    @property
    def is_known(self) -> bool:
        """Whether enough problems inform it to say anything."""
        return self.is_recorded and (self.problems is None or self.problems >= INFORMATIVE)


def finish_order(problems: Sequence[Times], *, seed: int = 0) -> FinishOrder | None:
    """Return the share of pairs (right, wrong) of a problem in which the right answer finished first; ties count half.

    0.5 is no bias. Above it, early stops, caps and deadlines gain; below it, they lose, and looser ones lose more. Give
    the samples of each problem, as they were drawn. Every problem that has right and wrong ones counts the same; the
    interval is the bootstrap's over those problems, without those whose times do not tell. None where no problem has
    both; 0 to 1 where none of those tells.

    >>> finish_order([[(1.0, True), (2.0, False), (3.0, True)], [(1.0, True)]]).value
    0.5
    >>> finish_order([[(2.0, True), (2.0, False)]])
    FinishOrder(value=0.5, lo=0.0, hi=1.0, problems=0, untold=1)
    """
    import numpy as np

    shares, untold = list[float](), 0
    for samples in problems:
        first = np.array([seconds for seconds, right in samples if right is True])[:, None]
        second = np.array([seconds for seconds, right in samples if right is False])[None, :]
        if not (first.size and second.size):
            continue
        if _has_shared_times(samples):
            untold += 1
        else:
            shares.append(float(((first < second) + 0.5 * (first == second)).mean()))
    if not (shares or untold):
        return None
    by = bootstrap(shares, seed=seed) if shares else Interval(value=0.5, lo=0.0, hi=1.0)
    return FinishOrder(**asdict(by), problems=len(shares), untold=untold or None)


def _has_shared_times(samples: Times) -> bool:
    """Return whether a problem's times say nothing of which answers were first.

    All its right and wrong ones may have one time. Those of a batch have the batch's and stand side by side, also those
    without an answer; the last batch may be smaller.
    """
    times = [seconds for seconds, _ in samples]
    groups = [len([*group]) for _, group in groupby(times)]
    shared = sum(size for size in groups if size > 1)
    is_batched = len(groups) == len({*times}) and 3 * shared >= 2 * len(times)
    return is_batched or len({seconds for seconds, right in samples if right is not None}) == 1


def describe_finish_order(bias: FinishOrder | None) -> str:
    """Return the finish-order bias in a sentence, with what it means for early stops.

    >>> describe_finish_order(FinishOrder(value=0.5, lo=0.4, hi=0.6, problems=60))[-13:]
    'no bias shown'
    >>> describe_finish_order(FinishOrder(value=0.0, lo=0.0, hi=0.0, problems=2))
    'finish order: too few to say: 2 problems have both right and wrong answers, and 10 are needed'
    """
    if bias is None:
        return "finish order: no problem has both right and wrong answers, so no bias can be measured"
    if not bias.is_recorded:
        return (
            f"finish order: not recorded: samples share their times, as those of a batch do, in "
            f"{counted(bias.untold or 0, 'problem')} of {(bias.untold or 0) + (bias.problems or 0)} with both right "
            "and wrong answers"
        )
    if not bias.is_known:
        return (
            f"finish order: too few to say: {counted(bias.problems or 0, 'problem')} "
            f"{agree(bias.problems or 0, 'has', 'have')} both right and wrong answers, and {INFORMATIVE} are needed"
        )
    sign = (
        "right answers finish first: early stops, caps and deadlines gain by it here, and lose where it is reversed"
        if bias.lo > 0.5
        else "wrong answers finish first: early stops, caps and deadlines lose by it"
        if bias.hi < 0.5
        else "no bias shown"
    )
    return (
        f"finish order: a right answer came before a wrong one of its problem in {bias.value:.3f} of the pairs "
        f"(95% {bias.lo:.3f}–{bias.hi:.3f}; 0.5 is no bias): {sign}"
    )
