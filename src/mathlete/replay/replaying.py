"""A replay: policies tried on a pool, as replay.json, as a table and a plot, and in sentences that say what is safe."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from mathlete.competitions import Competition
from mathlete.finish_order import FinishOrder, describe_finish_order
from mathlete.metrics import Interval
from mathlete.replay.outcomes import Grid, Outcome, Submissions
from mathlete.replay.policies import describe_unweighed, simulate_policies
from mathlete.replay.ranking import NO_CLOCK, BestPolicy, find_best
from mathlete.replay.selection import CandidateChoice, Seasons, describe_shared_samples
from mathlete.replay.simulation import Bank
from mathlete.replay.verdicts import describe_safety, judge_policy, judge_vote
from mathlete.scoring import Pool
from mathlete.text import agree, counted

if TYPE_CHECKING:
    from rich.table import Table

_ENOUGH = 4
"""Recorded samples for each of n; with fewer, draws repeat each other and intervals come out too narrow."""


@dataclass(frozen=True, kw_only=True)
class Replay:
    """The content of replay.json."""

    simulations: int
    """Submissions for each policy."""
    seconds: float
    """Time that the replay took."""
    outcomes: list[Outcome]
    """Of each policy, in the order of the grid."""
    questions: int
    """Questions of a submission."""
    problems: int
    """Problems of the pool."""
    recorded_per_problem: int
    finish_order: FinishOrder | None
    """How often a right answer came before a wrong one of its problem."""
    words: list[str]
    """Sentences: bias, safe rules, warnings."""
    selection: CandidateChoice | None = None
    """Which candidate to hand in, where that was asked."""
    recording: str = ""
    """Name of the pool that was replayed; "" in a replay of an earlier version."""
    longest: int = 0
    """Tokens of its longest sample: a cap below it is one; 0 where no tokens were recorded."""
    timed: bool = True
    """Whether the samples' seconds were recorded."""
    others: list[list[Outcome]] = field(default_factory=list)
    """Outcomes of the same policies on each other model's recording."""

    def to_json(self) -> dict[str, Any]:
        """Return the content of replay.json."""
        return {
            "simulations": self.simulations,
            "seconds": self.seconds,
            "policies": self._list_policies(self.outcomes),
            "questions": self.questions,
            "problems": self.problems,
            "recorded_per_problem": self.recorded_per_problem,
            "finish_order": self.finish_order and self.finish_order.to_json(),
            "words": self.words,
            **({"recording": self.recording, "longest": self.longest, "timed": self.timed} if self.recording else {}),
            **({"selection": self.selection.to_json()} if self.selection else {}),
            **({"versus": [*map(self._list_policies, self.others)]} if self.others else {}),
        }

    def _list_policies(self, outcomes: Sequence[Outcome]) -> list[dict[str, object]]:
        return [outcome.to_json(questions=self.questions) for outcome in outcomes]

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Return the replay in the content of replay.json."""
        plain = ("simulations", "seconds", "questions", "problems", "recorded_per_problem", "words")
        bias = content["finish_order"]
        return cls(
            **{name: content[name] for name in plain},
            outcomes=[Outcome.from_json(row) for row in content["policies"]],
            finish_order=FinishOrder(**bias) if bias else None,
            selection=CandidateChoice.from_json(content["selection"]) if "selection" in content else None,
            recording=content.get("recording", ""),
            longest=content.get("longest", 0),
            timed=content.get("timed", True),
            others=[[*map(Outcome.from_json, rows)] for rows in content.get("versus", [])],
        )

    def find_best(self, rules: Competition) -> BestPolicy | None:
        """Return what to hand in of all models' policies (`mathlete.replay.ranking`); None where no notebook can have
        any of them."""
        return find_best([self.outcomes, *self.others], questions=self.questions, rules=rules)

    def to_table(self) -> "Table":
        """Return the policies for the terminal, a line each: first what decides, then what it rests on."""
        from mathlete.tables import FittingTable

        ordered = any(outcome.score.hardest_first for outcome in self.outcomes)
        table = FittingTable(
            f"{self.recording} · score of {counted(self.questions, 'question')} · "
            f"{self.simulations:,} {agree(self.simulations, 'submission', 'submissions')} a policy",
            columns=("policy", "score", "change [95%]", "s", "verdict"),
            extra=(
                *("new set", "P(overrun)", "arrivals", "saved", "wall s", "generated s"),
                *("subset", "same set", "all runs", *(("hardest first",) if ordered else ())),
            ),
            left=("policy", "verdict"),
        )
        for outcome in self.outcomes:
            name = policy_name(outcome, longest=self.longest)
            table.add_row(name, *_cells(outcome, timed=self.timed, ordered=ordered))
        return table

    def to_votes_table(self) -> "Table | None":
        """Return a line a vote, its change against the majority of all n samples; None where majority alone voted."""
        from mathlete.tables import FittingTable

        tried = _votes_alone(self.outcomes, self.longest)
        if not tried:
            return None
        sizes = sorted({n for outcomes in tried.values() for n in outcomes})
        title = f"votes against majority, change of {self.questions} [95%, paired over problems]"
        table = FittingTable(
            title, columns=("", *(f"n = {n}" for n in sizes[:2])), extra=[f"n = {n}" for n in sizes[2:]]
        )
        for vote, outcomes in tried.items():
            table.add_row(vote, *(_format_change(outcomes[n].change) if n in outcomes else "–" for n in sizes))
        return table

    def name_policies(self, pool: Pool) -> list[str]:
        """Return the policies' names, in the order of the outcomes."""
        return [policy_name(outcome, longest=pool.longest) for outcome in self.outcomes]


def replay_pool(
    pool: Pool,
    grid: Grid,
    submissions: Submissions,
    *,
    began: float | None = None,
    select: int | None = None,
    versus: Sequence[Pool] = (),
    on_outcome: Callable[[], None] = lambda: None,
) -> Replay:
    """Try every policy of the grid on recorded samples.

    Args:
        pool: the recorded samples.
        grid: the policies.
        submissions: what is simulated.
        began: when the work began, seconds of `time.monotonic`, where reading the pool counts as well.
        select: submissions of each candidate of which one is selected; None: which one is not asked.
        versus: recordings of other models, on which the policies are candidates, too; all are cut to the problems that
            they share.
        on_outcome: called after each policy of each recording.

    Raises:
        UserError: a policy needs more samples than are recorded, or a value is out of its range.
    """
    began = time.monotonic() if began is None else began
    pool, *others = Pool.share([pool, *versus])
    seasons = Seasons(submissions, select=select, problems=len(pool.problems)) if select else None

    drawn: dict[str, tuple[int, int]] = {}

    def enter(name: str, of: Pool, outcome: Outcome, bank: Bank) -> None:
        if seasons:
            candidate = f"{name}{policy_name(outcome, longest=of.longest)}"
            seasons.enter(candidate, bank, outcome.wall)
            drawn[candidate] = outcome.n, of.fewest
        on_outcome()

    name = f"{pool.name} · " if others else ""
    tried = [simulate_policies(pool, grid, submissions, on_outcome=partial(enter, name, pool))]
    for other in others:
        # Where no cap was asked, each is replayed up to its own longest sample.
        uncut = grid.max_tokens == (max(1, pool.longest),)
        of_other = replace(grid, max_tokens=(max(1, other.longest),)) if uncut else grid
        tried.append(
            simulate_policies(other, of_other, submissions, on_outcome=partial(enter, f"{other.name} · ", other))
        )
    outcomes, best = tried[0], find_best(tried, questions=submissions.questions, rules=submissions.rules)
    every = [one for of in tried for one in of]
    at = next((number for number, one in enumerate(every) if best and one is best.outcome), None)
    selection = CandidateChoice.of(seasons, best=at, unfit=best.unfit if best else NO_CLOCK) if seasons else None
    return Replay(
        simulations=submissions.simulations,
        seconds=round(time.monotonic() - began, 3),
        outcomes=outcomes,
        questions=submissions.questions,
        problems=len(pool.problems),
        recorded_per_problem=pool.fewest,
        finish_order=pool.finish_order,
        words=[
            *_describe(outcomes, pool, submissions.questions),
            *(selection.describe(questions=submissions.questions) if selection else ()),
            *describe_shared_samples(drawn),
            *pool.describe_left_out(),
        ],
        selection=selection,
        recording=pool.name,
        longest=pool.longest,
        timed="seconds" not in pool.missing,
        others=tried[1:],
    )


def usual_n(pool: Pool) -> tuple[int, ...]:
    """Return the n to try where none is named: a quarter of the recorded samples, or 4 where they are few."""
    return (max(pool.fewest // _ENOUGH, min(4, pool.fewest)),)


def policy_name(outcome: Outcome, *, longest: int) -> str:
    """Return a policy in a few words; the cap only where it is below the longest sample."""
    parts = [f"n={outcome.n}", outcome.stop]
    parts += [outcome.vote] if outcome.vote != "majority" else []
    parts += [f"harvest {outcome.harvest:g}"] if outcome.harvest else []
    parts += [f"≤{counted(outcome.max_tokens, 'token')}"] if outcome.max_tokens < longest else []
    if (wall := outcome.wall) is not None:
        shares = " free" if wall.floor_s is None else f" {wall.floor_s:g}–{wall.ceiling_s:g}"
        less = f" less {wall.reserve_s:g}" if wall.reserve_s else ""
        parts.append(f"{wall.wall_s:g} s{less}{shares}")
    return " · ".join(parts)


def _cells(outcome: Outcome, *, timed: bool, ordered: bool) -> list[str]:
    score, spent = outcome.score, outcome.spent
    saved = (outcome.saved.arrivals, outcome.saved.wall_s, outcome.saved.generated_s)
    times = (" ".join(f"{share:z.0%}" for share in saved), f"{spent.wall_s:.3g}", f"{spent.generated_s:.3g}")
    return [
        f"{score.new_set.value:.2f}",
        _format_change(outcome.change),
        f"{outcome.submission_s:,.0f}" if timed else "–",
        judge_policy(outcome),
        _format_span(score.new_set),
        f"{outcome.p_overrun:.3f}",
        f"{spent.arrivals:.1f}",
        *(times if timed else ("–",) * 3),
        _format_span(score.subset),
        f"{score.same_set.lo:.1f}–{score.same_set.hi:.1f}",
        f"{score.all_runs.value:.2f} {_format_span(score.all_runs)}",
        *([f"{score.hardest_first.value:.2f}" if score.hardest_first else ""] if ordered else []),
    ]


def _format_span(interval: Interval) -> str:
    """Return an interval of scores: whole numbers, but where it ends between two of them."""
    return "–".join(f"{round(end, 1):g}" for end in (interval.lo, interval.hi))


def _format_change(change: Interval) -> str:
    return f"{change.value:+.2f} [{change.lo:+.2f}, {change.hi:+.2f}]"


def _votes_alone(outcomes: Sequence[Outcome], longest: int) -> dict[str, dict[int, Outcome]]:
    """Return {vote: {n: outcome}} without majority, where nothing but the vote differs from the baseline."""
    tried: dict[str, dict[int, Outcome]] = {}
    for one in outcomes:
        plain = one.stop == "none" and one.wall is None and one.max_tokens >= longest and not one.harvest
        if one.vote != "majority" and plain:
            tried.setdefault(one.vote, {})[one.n] = one
    return tried


def _describe_vote(vote: str, tried: Mapping[int, Outcome]) -> str:
    """Say whether a vote beats the majority of the same samples, and with which n, in a sentence."""
    verdicts: dict[str, list[str]] = {}
    for n, outcome in sorted(tried.items()):
        verdicts.setdefault(judge_vote(outcome.change, problems=outcome.informative), []).append(str(n))
    return f"vote {vote}: " + "; ".join(f"{words} with n = {', '.join(sizes)}" for words, sizes in verdicts.items())


def _describe(outcomes: Sequence[Outcome], pool: Pool, questions: int) -> list[str]:
    """Return sentences: what the figures rest on and what follows from them."""
    # Under a cap or another vote, the change would be theirs as well as the rule's.
    uncapped = [one for one in outcomes if one.max_tokens >= pool.longest and one.vote == "majority"]
    sentences = [
        "new set: questions drawn with replacement, what another set of the kind would give; subset: drawn from these "
        f"{len(pool.problems)}; same set: these questions again. Saved: arrivals, wall, generated seconds.",
        "finish order: not known, for the samples' seconds were not recorded"
        if "seconds" in pool.missing
        else describe_finish_order(pool.finish_order),
        *describe_safety(outcomes, questions=questions),
        *(_describe_vote(vote, tried) for vote, tried in _votes_alone(outcomes, pool.longest).items()),
        *describe_unweighed(outcomes, pool),
        *_describe_harvest([one for one in uncapped if one.stop == "none" and one.wall is None], questions),
    ]
    if pool.fewest < _ENOUGH * (most := max(outcome.n for outcome in outcomes)):
        sentences.append(
            f"warning: {counted(pool.fewest, 'sample')} {agree(pool.fewest, 'is', 'are')} recorded, n = {most} needs "
            f"{_ENOUGH * most} ({_ENOUGH} n) for intervals that are not too narrow; run `python -m eval` with other "
            "--seed and replay all runs"
        )
    if questions > len(pool.problems):
        sentences.append(
            f"warning: only {counted(len(pool.problems), 'problem')} {agree(len(pool.problems), 'is', 'are')} recorded "
            f"for {questions} questions; each comes several times and the subset interval is the new set's"
        )
    if pool.stopped_early and pool.whole is None:
        sentences.append(
            "warning: the problems have different numbers of samples: the recording stopped early, or lost some, the "
            "log does not say which; where it stopped, what is replayed from the rest is biased towards quick answers"
        )
    elif pool.stopped_early:
        sentences.append(
            "warning: the problems have different numbers of samples: the recording stopped early, its missing samples "
            "are the late ones, and what is replayed from the rest is biased towards quick answers"
        )
    elif pool.is_uneven:
        sentences.append(
            "the problems have different numbers of samples: some were lost, and none to a rule or a clock"
        )
    return sentences


def _describe_harvest(outcomes: Sequence[Outcome], questions: int) -> list[str]:
    """Say of each weight of forced answers whether it beats the majority without them, in a sentence."""
    return [
        f"harvest {one.harvest:g}: {_format_change(one.change)} of {questions} with n = {one.n}, "
        f"{judge_vote(one.change, problems=one.informative)}"
        for one in outcomes
        if one.harvest
    ]
