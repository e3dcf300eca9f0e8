from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.errors import UserError
from mathlete.problems import Problem
from mathlete.replay.sampler import ReplaySampler
from mathlete.sampling.samples import Sample, SamplingConfig
from mathlete.solve.clock import RealClock, VirtualClock
from mathlete.solve.policy import Policy
from mathlete.solve.selection import judge_statement
from mathlete.solve.solver import Solution, solve
from mathlete.solve.voting import count_votes

PROBLEM = Problem(id="p", statement="1+1", gold="2")


def sample(index: int, answer: str | None, *, seconds: float = 1.0) -> Sample:
    text = f"</think>\\boxed{{{answer}}}" if answer is not None else "and so on"
    return Sample(problem_id="p", index=index, seed=0, text=text, tokens=9, finish="stop", seconds=seconds)


def solve_samples(samples: list[Sample], **policy: str) -> Solution:
    settings = Policy(n=len(samples), stop="exact" if policy.get("stop") == "exact" else "none")
    return solve(PROBLEM, sampler=ReplaySampler(samples), clock=RealClock(), policy=settings)


answers = st.lists(st.sampled_from(["2", "3", "4", None]), min_size=1, max_size=12)


@given(answers=answers, data=st.data())
def test_arrival_order_changes_nothing(answers: list[str | None], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(answers))))
    first = solve_samples([sample(i, answer, seconds=i) for i, answer in enumerate(answers)])
    other = solve_samples([sample(i, answer, seconds=order[i]) for i, answer in enumerate(answers)])
    assert (first.answer, first.votes) == (other.answer, other.votes)
    assert [s.index for s in other.samples] == list(range(len(answers)))


@given(answers=answers, data=st.data())
def test_exact_stop_never_changes_the_answer(answers: list[str | None], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(answers))))
    samples = [sample(i, answer, seconds=order[i]) for i, answer in enumerate(answers)]
    assert solve_samples(samples, stop="exact").answer == solve_samples(samples).answer


@given(answers=answers)
def test_votes_are_the_answers_counted(answers: list[str | None]) -> None:
    votes = solve_samples([sample(i, answer) for i, answer in enumerate(answers)]).votes
    assert sum(vote.count for vote in votes) == sum(answer is not None for answer in answers)
    assert all(answers[index] == vote.answer for vote in votes for index in vote.indexes)
    assert [vote.count for vote in votes] == sorted((vote.count for vote in votes), reverse=True)


def test_exact_stop_leaves_what_cannot_matter() -> None:
    solution = solve_samples([sample(i, "2" if i < 3 else "3", seconds=i) for i in range(5)], stop="exact")
    assert (solution.answer, len(solution.samples)) == ("2", 3)


def test_tie_goes_to_the_class_begun_first() -> None:
    assert (
        solve_samples([sample(0, None), sample(1, "3"), sample(2, "2"), sample(3, "2"), sample(4, "3")]).answer == "3"
    )


def test_no_answer_is_no_vote_and_no_invented_answer() -> None:
    solution = solve_samples([sample(0, None), sample(1, None)])
    assert (solution.answer, solution.votes) == (None, [])
    assert [s.answer for s in solution.samples] == [None, None]


def test_equal_answers_in_other_words_stand_together() -> None:
    solution = solve_samples([sample(0, "3"), sample(1, "\\frac{1}{2}"), sample(2, "0.5")])
    assert (solution.answer, solution.votes[0].indexes) == ("\\frac{1}{2}", (1, 2))


def test_recorded_samples_are_not_drawn_again() -> None:
    samples = [sample(i, "2") for i in range(4)]
    new: list[int] = []
    known = [replace(one, answer="2") for one in samples[:3]]
    solution = solve(
        PROBLEM,
        sampler=ReplaySampler(samples[3:]),
        clock=RealClock(),
        policy=Policy(n=4),
        recorded=known,
        on_sample=lambda one: new.append(one.index),
    )
    assert (new, len(solution.samples)) == ([3], 4)


def test_solution_tells_the_clock_s_seconds() -> None:
    class Ticking:
        seconds = 0.0

        def now(self) -> float:
            self.seconds += 2.5
            return self.seconds

    solution = solve(PROBLEM, sampler=ReplaySampler([sample(0, "2")]), clock=Ticking(), policy=Policy(n=1))
    assert solution.seconds == 2.5


def test_seeds_differ_by_problem_index_and_seed_and_stay_exact_in_json() -> None:
    policies = [Policy(seed=seed) for seed in range(3)]
    seeds = {policy.sample_seed(problem_id=p, index=i) for policy in policies for p in "ab1" for i in range(30)}
    assert len(seeds) == 270
    assert max(seeds) < 2**53


def test_a_policy_is_the_same_after_json_and_recorded_ones_of_before_are_read() -> None:
    policy = Policy(n=16, seed=3, sampling=SamplingConfig(max_tokens=99)).with_words("beta95+exact/tail/select4")
    value = policy.to_json()
    assert list(value) == ["n", "seed", "sampling", "stop", "vote", "select", "fallback_weight"]
    assert Policy.from_json(value) == policy
    assert Policy.from_json({"n": 2}) == Policy(n=2)
    with pytest.raises(ValueError, match="fallback_weight must be 1"):
        Policy.from_json({**value, "fallback_weight": 0.5})
    with pytest.raises(TypeError, match="prejudice"):
        Policy.from_json({**value, "prejudice": 1})


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (Policy(n=0), r"--n must be at least 1, got 0"),
        (Policy(sampling=SamplingConfig(temperature=-1)), r"temperature must be 0 to 5, got -1"),
        (Policy(sampling=SamplingConfig(top_p=0)), r"top-p must be above 0, at most 1, got 0"),
        (Policy(sampling=SamplingConfig(max_tokens=0)), r"max-tokens must be at least 1, got 0"),
    ],
)
def test_wrong_policy_is_named(policy: Policy, message: str) -> None:
    with pytest.raises(UserError, match=message):
        policy.check()


def test_votes_of_nothing() -> None:
    assert count_votes([]) == []


def solve_with_judgements(*numbers: str | None, n: int = 3, **more: Any) -> Solution:
    """Return the answers 2, 2, 3, and judgements that name these numbers."""
    samples = [sample(i, answer) for i, answer in enumerate(("2", "2", "3"))]
    samples += [replace(sample(i, number), problem_id="p/select") for i, number in enumerate(numbers)]
    clock = VirtualClock()
    sampler = ReplaySampler(samples, advance_to=clock.advance_to, now=clock.now)
    policy = Policy(n=n, select=len(numbers))
    return solve(PROBLEM, sampler=sampler, clock=clock, policy=policy, **more)


@pytest.mark.parametrize(
    ("numbers", "answer"),
    [
        (["2"], "3"),
        (["1"], "2"),
        (["2", "1"], "2"),
        (["2", "1", "2"], "3"),
        ([None, "2", None], "3"),
        (["3", "0", "1.5"], "2"),
        ([None], "2"),
        ([], "2"),
    ],
)
def test_judgements_choose_among_the_answers_and_the_vote_stands_without_any(
    numbers: list[str | None], answer: str
) -> None:
    assert solve_with_judgements(*numbers).answer == answer


def test_judgements_obey_the_clock_and_are_not_asked_where_answers_agree() -> None:
    late = solve_with_judgements("2", timeout_s=1.5)
    assert (late.answer, late.seconds) == ("2", 1.5)
    assert late.selection is not None
    assert late.selection.judgements == {}
    assert solve_with_judgements("2", n=2).selection is None


def test_a_judge_is_shown_every_candidate() -> None:
    asked = judge_statement(PROBLEM, ["a</think>So \\boxed{2}", "x" * 9000 + "</think>\\boxed{3}"])
    assert asked.startswith("1+1")
    assert "Solution 1:\na\nSo \\boxed{2}" in asked
    assert asked.endswith("x\n\\boxed{3}")
    assert len(asked) < 2600


@pytest.mark.parametrize(
    ("finish", "thinking", "answer"), [("length", True, None), ("length", False, "35"), ("stop", True, "35")]
)
def test_a_cut_sample_does_not_vote_with_a_box_in_thoughts_that_its_prompt_opened(
    finish: Any, thinking: bool, answer: str | None
) -> None:
    cut = Sample(
        problem_id=PROBLEM.id, index=0, seed=0, text=r"\boxed{35}? No wait", tokens=9, finish=finish, seconds=1.0
    )
    solution = solve(PROBLEM, sampler=ReplaySampler([cut]), clock=RealClock(), policy=Policy(n=1), thinking=thinking)
    assert solution.answer == answer
