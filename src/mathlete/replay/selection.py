"""Selection: which of several candidates to hand in, what a leaderboard's luck makes of it, and how soon it is known.

A competition shows the score of every submission on its public questions, and counts another on its private ones, of
the one that was selected. A *season* is simulated thousands of times: every candidate is submitted K times on one
public set, the submission with the highest public score is selected, and scored as the competition scores its private
set.

How many submissions tell two candidates apart: on one set of questions the mean difference of m submissions of each is
normal about the candidates' difference on that set, with variance `within` / m; the sets' own differences have variance
`between`. So its sign is right with probability Φ(Δ / √(between + within / m)), and no number of submissions takes the
questions' own choice away. On new questions for every submission it is Φ(Δ √m / √(between + within)).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Self

from mathlete.metrics import INFORMATIVE, Interval, bootstrap, judge_change
from mathlete.replay.outcomes import Submissions
from mathlete.replay.questions import draw_question_sets
from mathlete.replay.simulation import Bank, Simulated, Wall, simulate
from mathlete.text import agree, counted

if TYPE_CHECKING:
    from rich.table import Table

    from mathlete.replay.simulation import Array

CERTAIN = 0.9
"""Probability of the right sign from which it counts as known."""
_FEWEST = 2
"""Submissions of each candidate that are simulated at least: one alone shows no spread."""


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """A candidate's submissions in all seasons."""

    name: str
    public: "Array"
    """(submissions, seasons): right answers on the season's public questions."""
    private: "Array"
    """(submissions, seasons): what the competition would score on its private ones."""
    expected: "Array"
    """(problems,): share of a problem's questions that were right."""


class Seasons:
    """The questions of all seasons, the same for every candidate."""

    def __init__(self, submissions: Submissions, *, select: int, problems: int) -> None:
        import numpy as np

        random = np.random.default_rng([submissions.seed, select])
        self.submissions, self.select = submissions, select
        self.entrants: list[Entrant] = []
        self._problems = problems
        self._public, self._private = (
            draw_question_sets(
                problems=problems,
                questions=submissions.questions,
                submissions=submissions.simulations,
                replacing=True,
                random=random,
            )
            for _ in range(2)
        )

    def enter(self, name: str, bank: Bank, wall: Wall | None) -> None:
        """Simulate a candidate's submissions, each with samples of its own."""
        import numpy as np

        random = np.random.default_rng([self.submissions.seed, self.select, len(self.entrants)])
        rules = self.submissions.rules

        def run(sets: "Array") -> Simulated:
            rows: Array = random.integers(0, bank.rows, (len(sets), sets.shape[1]))
            return simulate(bank, sets, rows, wall=wall)

        def count(sets: "Array") -> "Array":
            # All runs in the same order of questions: under a clock that is what a fixed order would be.
            runs = [run(sets) for _ in range(rules.runs)]
            points = np.asarray(rules.list_points())[sum(one.right.astype(int) for one in runs)]
            return np.where(np.any([one.overrun for one in runs], axis=0), 0.0, points.sum(1))

        public = [run(self._public) for _ in range(max(self.select, _FEWEST))]
        self.entrants.append(
            Entrant(
                name=name,
                public=np.stack([one.scores for one in public]),
                private=np.stack([count(self._private) for _ in range(self.select)]),
                expected=bank.by_problem if wall is None else self._share_right(public),
            )
        )

    def _share_right(self, public: Sequence[Simulated]) -> "Array":
        """Return (problems,): share of a problem's questions that were right, under a clock that they all share."""
        import numpy as np

        asked = np.bincount(self._public.ravel(), minlength=self._problems) * len(public)
        right = sum((one.right & ~one.overrun[:, None]).astype(float) for one in public)
        won: Array = np.bincount(self._public.ravel(), np.asarray(right).ravel(), minlength=self._problems)
        shares: Array = won / np.maximum(asked, 1)
        return shares


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What a candidate would score, and show."""

    name: str
    score: float
    """Of one submission where it counts: all runs on the private questions."""
    public: float
    """Of one submission on the public questions."""
    expected_maximum: float
    """The highest public score of its K submissions, on average."""
    selected: float
    """Share of seasons in which one of its submissions has the highest public score of all."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """How many submissions of each it takes to know which of two candidates is better."""

    better: str
    worse: str
    difference: Interval
    """Of their public scores, a submission; 95% interval over problems."""
    same_questions: int | None
    """Submissions of each on one set of questions; None where none are enough."""
    at_best: float
    """Probability of the right sign on one set of questions after any number of submissions."""
    new_questions: int | None
    """Submissions of each where every one has new questions; None where there is no difference."""
    informative: int | None = None
    """Problems on which they differ; None in a file of a version that did not count them."""

    def describe(self, *, questions: int) -> str:
        """Return when it is known, in a sentence.

        >>> by = Interval(value=1.25, lo=-0.5, hi=3.0)
        >>> known = Known(better="b", worse="a", difference=by, same_questions=None, at_best=0.8, new_questions=12)
        >>> known.describe(questions=50)
        'b > a by 1.25 of 50 a submission [95% over problems: -0.50, +3.00], so not shown on this recording; if it is \
true, no number of submissions on one set of questions makes it known at 90% (at best 80%), on new questions each time \
after 12 of each'
        """
        by = self.difference
        if self.new_questions is None:
            return f"{self.better} and {self.worse}: no difference"
        verdict = judge_change(by, differing=self.informative)
        few = (
            f" ({counted(self.informative or 0, 'problem')} {agree(self.informative or 0, 'differs', 'differ')}, "
            f"{INFORMATIVE} are needed)"
        )
        shown = f", so not shown on this recording{few if verdict == 'few' else ''}; if it is true"
        shown = "" if verdict == "better" else shown
        same = (
            f"no number of submissions on one set of questions makes it known at {CERTAIN:.0%} "
            f"(at best {self.at_best:.0%})"
            if self.same_questions is None
            else f"it is known at {CERTAIN:.0%} after {_count(self.same_questions)} "
            f"{agree(self.same_questions, 'submission', 'submissions')} of each on one set of questions"
        )
        new = f", on new questions each time after {_count(self.new_questions)} of each"
        return (
            f"{self.better} > {self.worse} by {by.value:.2f} of {questions} a submission "
            f"[95% over problems: {by.lo:+.2f}, {by.hi:+.2f}]{shown or ':'}{', ' if shown else ' '}{same}{new}"
        )


@dataclass(frozen=True, kw_only=True)
class CandidateChoice:
    """Which candidate to hand in."""

    select: int
    """Submissions of each candidate."""
    candidates: list[Candidate]
    by_replay: float
    """Score of the candidate that is best on average: it is chosen without a look at the leaderboard."""
    by_public: float
    """Score of the submission that has the highest public score."""
    hindsight: float
    """Score of the submission that turns out best: nobody can know it."""
    known: list[Known]
    """Every other candidate against the first one."""
    chosen: str = ""
    """The candidate to hand in (`mathlete.replay.ranking`); "": the one with the highest score."""
    unfit: str = ""
    """Why it may not be handed in all the same, and what to try; "": it may."""

    @property
    def regret(self) -> float:
        """What choosing by the public score costs; never below 0, which is the simulation's noise."""
        return max(0.0, self.by_replay - self.by_public)

    @classmethod
    def of(cls, seasons: Seasons, *, best: int | None = None, unfit: str = "") -> Self:
        """Choose among the candidates that were entered, of which the one at `best` is best.

        `unfit` is why it may not be handed in, as none of them may; "": it may.
        """
        import numpy as np

        entrants, select, questions = seasons.entrants, seasons.select, seasons.submissions.questions
        public = np.concatenate([one.public[:select] for one in entrants])
        private = np.concatenate([one.private for one in entrants])
        # Equal public scores are told apart by lot: scores are whole numbers, and this is less than one.
        lots = np.random.default_rng(seasons.submissions.seed).random(public.shape) / 2
        chosen = (public + lots).argmax(0)
        shares = np.bincount(chosen // select, minlength=len(entrants)) / len(chosen)
        candidates = [
            Candidate(
                name=one.name,
                score=float(one.private.mean()),
                public=float(one.public.mean()),
                expected_maximum=float(one.public[:select].max(0).mean()),
                selected=float(share),
            )
            for one, share in zip(entrants, shares, strict=True)
        ]
        return cls(
            select=select,
            candidates=candidates,
            by_replay=max(one.score for one in candidates),
            by_public=float(private[chosen, np.arange(len(chosen))].mean()),
            hindsight=float(private.max(0).mean()),
            known=[find_known(entrants[0], other, questions=questions) for other in entrants[1:]],
            chosen="" if best is None else entrants[best].name,
            unfit=unfit,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the selection in replay.json."""
        return {**asdict(self), "regret": self.regret}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Return the selection in its JSON."""
        known = [Known(**{**one, "difference": Interval(**one["difference"])}) for one in row["known"]]
        plain = {name: row[name] for name in ("select", "by_replay", "by_public", "hindsight")}
        candidates = [Candidate(**one) for one in row["candidates"]]
        return cls(
            **plain, candidates=candidates, known=known, chosen=row.get("chosen", ""), unfit=row.get("unfit", "")
        )

    def to_table(self) -> "Table":
        """Return the candidates for the terminal, a line each."""
        from mathlete.tables import FittingTable

        table = FittingTable(
            f"which to select, {counted(self.select, 'submission')} of each",
            columns=("candidate", "score", "public", f"highest public of {self.select}", "selected by it"),
            left=("candidate",),
        )
        for one in self.candidates:
            figures = [f"{value:.2f}" for value in (one.score, one.public, one.expected_maximum)]
            table.add_row(one.name, *figures, f"{one.selected:.0%}")
        return table

    def describe(self, *, questions: int) -> list[str]:
        """Return sentences: what to select, what the leaderboard's choice costs, when a difference is known."""
        top = max(self.candidates, key=lambda one: one.score)
        best = next((one for one in self.candidates if one.name == self.chosen), top)
        gain = f" ({top.name} has {top.score:.2f}, a gain that is not shown)" if top.score - best.score > 0.005 else ""
        shown = max(self.candidates, key=lambda one: one.expected_maximum)
        return [
            f"select {best.name}: {best.score:.2f} of {questions} expected where it counts{gain}; the submission "
            f"with the highest public score has {self.by_public:.2f} there, a regret of {self.regret:z.2f}"
            f"{' if that gain is real' if gain else ''}; the one that turns out best, which nobody can know, "
            f"{self.hindsight:.2f}{', though ' * bool(self.unfit)}{self.unfit}",
            f"the highest public score of {counted(self.select, 'submission')} of {shown.name} is "
            f"{shown.expected_maximum:.2f} on average, where one has {shown.public:.2f}: the rest is luck",
            *(one.describe(questions=questions) for one in self.known),
        ]


def describe_shared_samples(drawn: Mapping[str, tuple[int, int]]) -> list[str]:
    """Return a warning on candidates whose submissions differ less than new ones would; none where there are none.

    Of N recorded samples n are drawn without replacement, so a problem's right samples vary by 1 - n / N of what n new
    ones would (Cochran 1977, Sampling Techniques, section 2.6): from half of them on, their spread is 71% or less.

    Args:
        drawn: {candidate: (samples that a submission draws of a problem, samples that are recorded of it)}.

    >>> describe_shared_samples({"n=2": (2, 8), "n=8": (8, 8)})
    ['warning: submissions of n=8 (8 of 8, about 0% of the spread) draw more than half of the recorded samples, so \
they are alike: new samples would spread more, and luck and highest public scores are understated']
    """
    shares = [
        f"{name} ({n} of {recorded}, about {math.sqrt(1 - n / recorded):.0%} of the spread)"
        for name, (n, recorded) in drawn.items()
        if 2 * n > recorded
    ]
    return [
        f"warning: submissions of {', '.join(shares)} draw more than half of the recorded samples, so they are "
        "alike: new samples would spread more, and luck and highest public scores are understated"
    ] * bool(shares)


def _count(submissions: int) -> str:
    """Return a number of submissions; nobody makes as many as a thousand."""
    return str(submissions) if submissions <= 1000 else "more than 1,000"


def find_known(a: Entrant, b: Entrant, *, questions: int) -> Known:
    """Return how many submissions of each tell two candidates apart."""
    worse, better = (a, b) if b.expected.mean() >= a.expected.mean() else (b, a)
    apart = better.expected - worse.expected
    by = bootstrap(apart.tolist())
    mean, differences = by.value * questions, better.public - worse.public
    count = len(differences)
    within = float(differences.var(axis=0, ddof=1).mean())
    between = max(0.0, float(differences.mean(axis=0).var(ddof=1)) - within / count)
    z = NormalDist().inv_cdf(CERTAIN)
    needed = (mean / z) ** 2 - between
    return Known(
        better=better.name,
        worse=worse.name,
        difference=Interval(value=mean, lo=by.lo * questions, hi=by.hi * questions),
        same_questions=max(1, math.ceil(within / needed)) if needed > 0 else None,
        at_best=NormalDist().cdf(mean / math.sqrt(between)) if between > 0 else 1.0 if mean > 0 else 0.5,
        new_questions=max(1, math.ceil(z**2 * (between + within) / mean**2)) if mean > 1e-9 else None,
        informative=int((abs(apart) > 1e-9).sum()),
    )
