"""Policies replayed: each one's outcome from simulated submissions, with its intervals."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

from mathlete.competitions import Competition
from mathlete.errors import UserError, require
from mathlete.metrics import Interval, bootstrap
from mathlete.replay.outcomes import Change, Cost, Grid, Outcome, Score, Submissions
from mathlete.replay.questions import draw_submissions
from mathlete.replay.simulation import (
    Bank,
    Simulated,
    Wall,
    draw_samples,
    replay_draws,
    rows_per_problem,
    simulate,
)
from mathlete.scoring import Pool
from mathlete.solve import Policy
from mathlete.text import agree, counted

if TYPE_CHECKING:
    from mathlete.replay.simulation import Array

_VOTES_NEED = {"logprob": "logprobs", "tail": "logprob_tail", "length": "tokens", "strength": "text"}
"""{vote: what it weighs a sample by}."""
_CURES = {
    "seconds": "import the logs again with --columns seconds=… or --pace",
    "own seconds": "import the logs again with --columns seconds=… of each sample alone, or --pace where tokens differ",
    "tokens": "import the logs again with --columns tokens=…",
    "logprobs": "record from an engine that knows log-probabilities",
    "logprob_tail": "record from an engine that knows them: the mean of all tokens is not that of the last",
    "text": "replay a recording that has kept its texts",
}
_WORDS = {"text": "text was", "logprob_tail": "log-probabilities of the last tokens were"}
"""How what was not recorded is said, where that is not its own name."""

_NOTHING = Interval(value=0.0, lo=0.0, hi=0.0)


def simulate_policies(
    pool: Pool, grid: Grid, submissions: Submissions, *, on_outcome: Callable[[Outcome, Bank], None] = lambda *_: None
) -> list[Outcome]:
    """Return the outcome of every policy of the grid, in its order; `on_outcome` is called with each and its draws.

    Raises:
        UserError: a policy needs more samples than are recorded, or a value is out of its range.
    """
    most = max(grid.n)
    if min(grid.n) < 1 or most > pool.fewest:
        raise UserError(
            f"--n must be 1 to {pool.fewest}, which is what every problem has recorded",
            value=most if most > pool.fewest else min(grid.n),
            cure="replay a smaller n, or record more samples",
        )
    for cap in grid.max_tokens:
        require(("max-tokens", cap, cap >= 1, "at least 1"), cure="leave it out: no cap is tried then")
    for weight in grid.harvest:
        Policy(harvest=weight).check()
    check_recorded(pool, grid, submissions)
    # Draws are made once, for the largest n. A smaller n uses the first samples of each draw and every policy the same
    # draws, so that a difference between two policies is not one of their luck.
    rows = rows_per_problem(pool, n=most, wanted=submissions.simulations * submissions.questions)
    drawn = draw_samples(pool, n=most, rows=rows, seed=submissions.seed)
    outcomes = []
    for n, vote, harvest in product(grid.n, grid.vote, grid.harvest):
        policy = Policy(n=n, vote=vote, harvest=harvest)
        for outcome, bank in _outcomes_with_n(pool, drawn, policy, grid, submissions):
            outcomes.append(outcome)
            on_outcome(outcome, bank)
    return outcomes


def list_recorded_votes(pool: Pool) -> tuple[str, ...]:
    """Return the votes for which all was recorded that they weigh samples by."""
    return tuple(vote for vote in Policy.known_votes() if _VOTES_NEED.get(vote) not in pool.missing)


def check_recorded(pool: Pool, grid: Grid, submissions: Submissions) -> None:
    """Check that all was recorded that the policies need.

    Raises:
        UserError: a policy needs what was not.
    """
    if any(grid.harvest) and not pool.is_harvested:
        raise UserError(
            "a weight of forced answers can be replayed only where they were recorded",
            value=f"a recording without them, {pool.name}",
            cure="extend the run first: the `python -m eval` command that drew it, with --harvest 0.5 added",
        )
    uncut = max(1, pool.longest)
    uses = [
        *((f"the stopping rule {stop}", "seconds") for stop in grid.stop if stop != "none"),
        *((f"the stopping rule {stop}", "own seconds") for stop in grid.stop if stop != "none"),
        *(("a clock", "seconds") for wall in grid.walls if wall is not None),
        *((counted(slots, "slot"), "seconds") for slots in (submissions.slots,) if slots is not None),
        *((f"a cap of {counted(cap, 'token')}", "tokens") for cap in grid.max_tokens if cap != uncut),
        *((f"the vote {vote}", _VOTES_NEED[vote]) for vote in grid.vote if vote in _VOTES_NEED),
    ]
    lacking = pool.missing if pool.is_ordered else {*pool.missing, "own seconds"}
    for use, needed in uses:
        if needed in lacking:
            words = _WORDS.get(needed, f"{needed} were")
            raise UserError(
                f"{use} can be replayed only where every sample's {words} recorded",
                value=f"a recording without {words.rsplit(' ', 1)[0]}, {pool.name}",
                cure=f"leave it out, or {_CURES[needed]}",
            )


def describe_unweighed(outcomes: Sequence[Outcome], pool: Pool) -> list[str]:
    """Return sentences on votes that were tried where a few samples lack what these weigh them by."""
    votes = dict.fromkeys(one.vote for one in outcomes if one.vote in _VOTES_NEED)
    numbers = {vote: pool.count_without(_VOTES_NEED[vote]) for vote in votes}
    return [
        f"the vote {vote}: {counted(number, 'sample')} {agree(number, 'has', 'have')} no "
        f"{_WORDS.get(need := _VOTES_NEED[vote], need).removesuffix(' was').removesuffix(' were')} to be weighed by"
        for vote, number in numbers.items()
        if number
    ]


def _outcomes_with_n(
    pool: Pool, drawn: "Array", policy: Policy, grid: Grid, submissions: Submissions
) -> Iterator[tuple[Outcome, Bank]]:
    """Yield (outcome, draws) of one n and vote, for every cap, stop and wall."""

    def replay(policy: Policy, max_tokens: int) -> dict[str, Bank]:
        capped = replace(policy, sampling=replace(policy.sampling, max_tokens=max_tokens))
        stops = dict.fromkeys(("none", *grid.stop))
        return replay_draws(pool, drawn, policy=capped, stops=stops, slots=submissions.slots)

    def measure(bank: Bank, other: Bank) -> Change:
        return _measure(bank.by_problem - other.by_problem, questions=submissions.questions)

    # A cap at the longest recorded sample cuts none. The length vote is relative to the cap, so "uncapped" must still
    # name a number.
    longest = max(pool.longest, 1)
    uncapped = replay(policy, longest)
    # What every policy is compared with: the plain majority of all n. Under another vote it is a replay of its own.
    plain = replace(policy, vote="majority", harvest=0.0)
    plainly = uncapped if policy == plain else replay(plain, longest)
    baseline = plainly["none"]
    for max_tokens in grid.max_tokens:
        banks, beside = uncapped, plainly
        if max_tokens != longest:
            banks = replay(policy, max_tokens)
            beside = banks if policy == plain else replay(plain, max_tokens)
        for stop in grid.stop:
            capped = replace(policy, stop=stop, sampling=replace(policy.sampling, max_tokens=max_tokens))
            by_stop = measure(banks[stop], banks["none"])
            by_vote = None if policy == plain else measure(banks[stop], beside[stop])
            for wall in grid.walls:
                outcome = _outcome(capped, banks[stop], baseline, wall, submissions)
                yield replace(outcome, by_stop=by_stop, by_vote=by_vote), banks[stop]


def _outcome(policy: Policy, bank: Bank, baseline: Bank, wall: Wall | None, submissions: Submissions) -> Outcome:
    import numpy as np

    problems, questions, count = len(bank.stop) // bank.rows, submissions.questions, submissions.simulations
    drawn = draw_submissions(
        problems=problems,
        questions=questions,
        submissions=count,
        rows=bank.rows,
        runs=submissions.rules.runs,
        seed=submissions.seed + 1,
    )
    new, some = drawn.new, drawn.some
    first = simulate(bank, new, drawn.new_rows, wall=wall)
    later = [_run_again(bank, new, order, rows, wall) for order, rows in drawn.later]
    inside = simulate(bank, some, drawn.some_rows, wall=wall)
    # Where the clock allows each question its time, what comes first takes from what follows.
    is_shared = wall is not None and wall.floor_s is not None
    worst = simulate(bank, _hardest_first(bank, new), drawn.worst_rows, wall=wall) if is_shared else None
    expected = _expected_by_problem(bank, inside, some, wall)
    spent = _cost(inside.arrivals, inside.seconds, inside.generated)
    # Of the sets that the score is of: their questions differ in time, so that a clock cuts more than of one set.
    # Without a clock the baseline meets the very same draws, so that a clock that cuts nothing changes nothing.
    before = first if wall is None else simulate(baseline, new, drawn.new_rows, wall=None)
    changes = _expected_by_problem(bank, first, new, wall) - _expected_by_problem(baseline, before, new, wall)
    change = _measure(changes[~np.isnan(changes)], questions=questions)
    return Outcome(
        n=policy.n,
        max_tokens=policy.sampling.max_tokens,
        stop=policy.stop,
        vote=policy.vote,
        wall=wall,
        score=Score(
            new_set=_mean_and_90(first.scores),
            subset=_mean_and_90(inside.scores),
            # Less what the choice of questions alone makes of it: the rest varies with the samples only.
            same_set=_mean_and_90(inside.scores - expected[some].sum(1) + np.nanmean(expected) * questions),
            all_runs=_mean_and_90(_score_runs([first, *later], submissions.rules)),
            hardest_first=_mean_and_90(worst.scores) if worst else None,
        ),
        change=Interval(value=change.value, lo=change.lo, hi=change.hi),
        informative=change.informative,
        harvest=policy.harvest,
        p_overrun=float(first.overrun.mean()),
        spent=spent,
        saved=spent.compute_savings(_cost(baseline.stop, baseline.seconds, baseline.generated)),
        submission_s=float(first.seconds.sum(1).mean()),
        submission_p95_s=float(np.percentile(first.seconds.sum(1), 95)),
    )


def _hardest_first(bank: Bank, sets: "Array") -> "Array":
    """Return (submissions, questions): the same questions in the worst order: seldom solved first, and of those the
    slow."""
    import numpy as np

    seconds = bank.seconds.reshape(-1, bank.rows).mean(1)
    rank = np.empty(len(seconds), dtype=int)
    rank[np.lexsort((-seconds, bank.by_problem))] = np.arange(len(seconds))
    order: Array = np.take_along_axis(sets, rank[sets].argsort(1, kind="stable"), axis=1)
    return order


def _run_again(bank: Bank, sets: "Array", order: "Array", rows: "Array", wall: Wall | None) -> Simulated:
    """Return another run on the same questions: in another order, with other samples."""
    import numpy as np

    again = simulate(bank, np.take_along_axis(sets, order, axis=1), rows, wall=wall)
    # Right or wrong in the order of the first run, so that the runs can be scored question by question.
    right = np.empty_like(again.right)
    np.put_along_axis(right, order, again.right, axis=1)
    return replace(again, right=right)


def _score_runs(runs: Sequence[Simulated], rules: Competition) -> "Array":
    """Return (submissions,): the competition's score of all runs together, 0 where any overran."""
    import numpy as np

    times_right = sum(run.right.astype(int) for run in runs)
    points: Array = np.asarray(rules.list_points())[times_right]
    scores: Array = np.where(np.any([run.overrun for run in runs], axis=0), 0.0, points.sum(1))
    return scores


def _cost(arrivals: "Array", seconds: "Array", generated: "Array") -> Cost:
    return Cost(arrivals=float(arrivals.mean()), wall_s=float(seconds.mean()), generated_s=float(generated.mean()))


def _expected_by_problem(bank: Bank, simulated: Simulated, sets: "Array", wall: Wall | None) -> "Array":
    """Return (problems,): expected score of each problem; under a clock, its mean over the submissions that have it.

    NaN for a problem of a large suite that none of a few submissions has: nothing is known of it.
    """
    import numpy as np

    # Without a clock no question depends on another one, so all draws of a problem count, not only those simulated.
    if wall is None:
        return bank.by_problem
    size = len(bank.stop) // bank.rows
    times = np.bincount(sets.ravel(), minlength=size)
    kept = simulated.right & ~simulated.overrun[:, None]
    won = np.bincount(sets.ravel(), weights=kept.ravel(), minlength=size)
    with np.errstate(invalid="ignore"):
        shares: Array = won / times
    return shares


def _mean_and_90(scores: "Array") -> Interval:
    """Return the mean and 90% interval of submissions' scores."""
    import numpy as np

    lo, hi = np.percentile(scores, [5, 95])
    return Interval(value=float(scores.mean()), lo=float(lo), hi=float(hi))


def _measure(changes: "Array", *, questions: int) -> Change:
    """Return the change of so many questions by that of each problem."""
    differing, by = int((abs(changes) > 1e-9).sum()), bootstrap(changes.tolist()) if changes.any() else _NOTHING
    return Change(value=by.value * questions, lo=by.lo * questions, hi=by.hi * questions, informative=differing)
