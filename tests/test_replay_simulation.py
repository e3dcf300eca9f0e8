"""Laws of the simulation: the recorded policy replayed is the recorded result, and what follows from the arrays."""

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.competitions import competition
from mathlete.errors import UserError
from mathlete.problems import Problem
from mathlete.replay import Grid, Submissions, Wall, replay_pool
from mathlete.replay.outcomes import Outcome
from mathlete.replay.questions import draw_question_sets, find_lowest
from mathlete.replay.simulation import Bank, draw_samples, replay_draws, simulate
from mathlete.sampling.samples import Sample, SamplingConfig
from mathlete.scoring import Pool, grade
from mathlete.scoring.scores import Scores
from mathlete.solve.policy import Policy
from mathlete.solve.solver import Solution
from mathlete.solve.voting import count_votes
from tests.conftest import dear

AIMO_3 = competition("aimo-3")

VOTES = ("majority", "logprob", "length")


def record(problems: int, *, n: int, seed: int) -> tuple[list[Problem], dict[str, list[Sample]]]:
    """Problems with n samples each, right ones growing rarer from problem to problem."""
    source = random.Random(seed)
    asked = [Problem(id=f"p{number}", statement="?", gold="7") for number in range(problems)]
    samples = {
        problem.id: [
            Sample(
                problem_id=problem.id, index=index, seed=source.randrange(10**9), text="",
                answer=source.choices(["7", "8", "9", None], [problems - number, number / 2, 1, 1])[0],
                tokens=(tokens := source.randint(1, 300)), finish="stop", seconds=tokens / 10,
                logprob_mean=source.choice([-0.1, -0.5, -2.0, None]),
            )
            for index in range(n)
        ]
        for number, problem in enumerate(asked)
    }  # fmt: skip
    return asked, samples


def replay(pool: Pool, drawn: Any, *, n: int, stop: str = "none", slots: int | None = None, **policy: Any) -> Bank:
    config = SamplingConfig(max_tokens=policy.pop("cap", 10_000))
    return replay_draws(pool, drawn, policy=Policy(n=n, sampling=config, **policy), stops=[stop], slots=slots)[stop]


def as_recorded(pool: Pool) -> Any:
    """Return (problems, 1, n): the one draw that takes the samples as they were recorded."""
    return np.tile(np.arange(pool.fewest), (len(pool.problems), 1, 1))


@dear(40)
@given(seed=st.integers(0, 999), vote=st.sampled_from(VOTES), n=st.integers(1, 9))
def test_the_recorded_policy_replayed_gives_the_recorded_result(seed: int, vote: Any, n: int) -> None:
    problems, samples = record(6, n=n, seed=seed)
    policy = Policy(n=n, vote=vote, sampling=SamplingConfig(max_tokens=10_000))
    solutions = []
    for problem in problems:
        votes = count_votes(samples[problem.id], weigh=policy.weigh)
        answer = votes[0].answer if votes else None
        slowest = max(sample.seconds for sample in samples[problem.id])
        solutions.append(
            Solution(
                problem_id=problem.id, answer=answer, votes=votes, samples=samples[problem.id], seconds=slowest
            )
        )  # fmt: skip
    graded = grade(problems, solutions)
    pool = Pool.of(problems, samples)
    bank = replay(pool, as_recorded(pool), n=n, vote=vote)
    assert bank.won.tolist() == [item.verdict == "equal" for item in graded]
    assert bank.by_problem.mean() == pytest.approx(Scores.of(graded).maj_at_k.value)
    assert bank.stop.tolist() == [n] * 6
    assert bank.seconds == pytest.approx([solution.seconds for solution in solutions])
    assert bank.generated == pytest.approx([sum(one.seconds for one in samples[p.id]) for p in problems])


@given(seed=st.integers(0, 999), n=st.integers(1, 6), slots=st.integers(1, 6))
def test_slots_change_the_wall_but_neither_the_vote_nor_the_work(seed: int, n: int, slots: int) -> None:
    pool = Pool.of(*record(4, n=8, seed=seed))
    drawn = draw_samples(pool, n=n, rows=3, seed=seed)
    free, queued, alone = (replay(pool, drawn, n=n, slots=count) for count in (None, slots, 1))
    assert (free.won == queued.won).all()
    assert queued.generated == pytest.approx(free.generated)
    assert (free.seconds <= queued.seconds + 1e-9).all()
    assert (queued.seconds <= alone.seconds + 1e-9).all()
    assert alone.seconds == pytest.approx(alone.generated)


@given(seed=st.integers(0, 999), stop=st.sampled_from(["exact", "votes2", "beta95+exact"]))
def test_a_stop_ends_no_later_and_exact_keeps_the_vote(seed: int, stop: str) -> None:
    pool = Pool.of(*record(5, n=10, seed=seed))
    drawn = draw_samples(pool, n=7, rows=4, seed=seed)
    whole, stopped = replay(pool, drawn, n=7), replay(pool, drawn, n=7, stop=stop)
    assert (stopped.stop <= whole.stop).all()
    assert (stopped.seconds <= whole.seconds + 1e-9).all()
    assert (stopped.generated <= whole.generated + 1e-9).all()
    if stop == "exact":
        assert (stopped.won == whole.won).all()


def test_a_cap_below_every_sample_leaves_no_answer() -> None:
    pool = Pool.of(*record(5, n=6, seed=1))
    bank = replay(pool, draw_samples(pool, n=4, rows=2, seed=0), n=4, cap=1)
    shortest = min(sample.tokens for item in pool.problems for sample in item.samples)
    assert shortest > 1
    assert not bank.won.any()


@given(seed=st.integers(0, 999), wall_s=st.floats(1, 200))
def test_allowances_keep_the_wall_and_a_wide_wall_changes_nothing(seed: int, wall_s: float) -> None:
    pool = Pool.of(*record(6, n=8, seed=seed))
    bank = replay(pool, draw_samples(pool, n=4, rows=5, seed=seed), n=4)
    source = np.random.default_rng(seed)
    asked = draw_question_sets(problems=6, questions=4, submissions=20, replacing=True, random=source)
    rows: Any = source.integers(0, 5, asked.shape)
    narrow = simulate(bank, asked, rows, wall=Wall(wall_s=wall_s, floor_s=wall_s / 8, ceiling_s=wall_s / 2))
    assert (narrow.seconds.sum(1) <= wall_s + 1e-6).all()
    assert not narrow.overrun.any()
    without = simulate(bank, asked, rows, wall=None)
    assert (narrow.arrivals <= without.arrivals).all()
    wide = simulate(bank, asked, rows, wall=Wall(wall_s=10_000, floor_s=100, ceiling_s=1000))
    assert (wide.scores == without.scores).all()
    assert wide.seconds == pytest.approx(without.seconds)
    free = simulate(bank, asked, rows, wall=Wall(wall_s=wall_s))
    assert (free.overrun == (without.seconds.sum(1) > wall_s)).all()
    assert (free.scores == np.where(free.overrun, 0, without.scores)).all()


def test_question_sets_without_replacement_hold_every_problem_once() -> None:
    sets = draw_question_sets(
        problems=7, questions=7, submissions=1500, replacing=False, random=np.random.default_rng(0)
    )
    assert sets.shape == (1500, 7)
    assert (np.sort(sets, axis=1) == np.arange(7)).all()
    assert np.bincount(sets[:, 0], minlength=7) / 1500 == pytest.approx([1 / 7] * 7, abs=0.04)


@given(seed=st.integers(0, 999), problems=st.integers(1, 40), data=st.data())
def test_the_lowest_values_are_those_of_a_whole_order(seed: int, problems: int, data: st.DataObject) -> None:
    most = data.draw(st.integers(1, problems))
    values = np.random.default_rng(seed).random((20, problems))
    assert (find_lowest(values, most) == values.argsort(1)[:, :most]).all()


@pytest.mark.parametrize("wall", [None, Wall(wall_s=1e9), Wall.parse("1000000", questions=5)])
def test_the_yardstick_against_itself_changes_and_saves_nothing(wall: Wall | None) -> None:
    """Nor does a clock that cuts nothing: both meet the same draws."""
    pool = Pool.of(*record(8, n=12, seed=3))
    grid = Grid(n=(4,), max_tokens=(pool.longest,), stop=("none",), vote=("majority",), walls=(wall,))
    result = replay_pool(pool, grid, Submissions(simulations=50, questions=5, rules=AIMO_3, slots=None, seed=0))
    (outcome,) = result.outcomes
    assert (outcome.change.value, outcome.change.lo, outcome.change.hi) == (0, 0, 0)
    assert outcome.saved.arrivals == 0
    assert outcome.is_safe(questions=5)
    assert outcome == Outcome.from_json(outcome.to_json(questions=5))


@pytest.mark.parametrize(
    ("stop", "vote"), [("none beta", "majority"), ("none", "majority weighted"), ("none tail", "tail")]
)
def test_an_unknown_stop_or_vote_is_refused_before_any_policy_is_replayed(stop: str, vote: str) -> None:
    grid = Grid(n=(4,), max_tokens=(9,), stop=tuple(stop.split()), vote=tuple(vote.split()), walls=(None,))
    with pytest.raises(UserError, match=r"must be a known one|begins with a stopping rule"):
        grid.check()
