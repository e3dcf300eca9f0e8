"""Paired comparison of two runs: counted by hand, and laws that hold for any two runs."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mathlete.errors import UserError
from mathlete.metrics import Interval, paired_p, problems_needed
from mathlete.problems import Problem
from mathlete.sampling.samples import Sample
from mathlete.scoring import Pool, compare_runs
from mathlete.scoring.comparison import ModelScores, TuningResult
from mathlete.scoring.pairing import Comparison, Paired
from tests.conftest import dear

GOLD = "7"


def pool(*answers: str) -> Pool:
    """Return a problem for each word; a letter for each sample: R is right, W and V are wrong, N is no answer."""
    spelled = {"R": GOLD, "W": "8", "V": "9", "N": None}
    problems = [Problem(id=f"p{number}", statement=f"{number}?", gold=GOLD) for number in range(len(answers))]
    samples = {
        problem.id: [
            Sample(problem_id=problem.id, index=index, seed=index, text="", answer=spelled[letter], tokens=1,
                   finish="stop", seconds=1.0)
            for index, letter in enumerate(word)
        ]
        for problem, word in zip(problems, answers, strict=True)
    }  # fmt: skip
    return Pool.of(problems, samples)


words = st.lists(st.text("RWVN", min_size=1, max_size=6), min_size=1, max_size=8)
pairs = st.integers(1, 8).flatmap(
    lambda count: st.tuples(*[st.lists(st.text("RWVN", min_size=1, max_size=6), min_size=count, max_size=count)] * 2)
)


@pytest.mark.parametrize(
    ("a", "b", "scores"),
    [
        # One sample of one problem gained.
        (["RW"], ["RR"], {"pass@1": (0.5, 1.0), "maj@2": (1.0, 1.0)}),
        # A tie goes to the first sample.
        (["RW", "WR"], ["WR", "RW"], {"pass@1": (0.5, 0.5), "maj@2": (0.5, 0.5)}),
        # No answer never votes.
        (["NNR"], ["NNN"], {"pass@1": (1 / 3, 0.0), "maj@3": (1.0, 0.0)}),
        # Two wrong answers that differ do not outvote together.
        (["RRWV"], ["RWWV"], {"pass@1": (0.5, 0.25), "maj@4": (1.0, 0.0)}),
        # The vote is over the fewest samples of any problem: here 1, of which the longer run has the mean.
        (["RW"], ["R"], {"pass@1": (0.5, 1.0), "maj@1": (0.5, 1.0)}),
    ],
)
def test_scores_are_those_counted_by_hand(a: list[str], b: list[str], scores: dict[str, tuple[float, float]]) -> None:
    result = compare_runs(pool(*a), pool(*b))
    assert [one.score for one in result.scores] == [*scores]
    for one in result.scores:
        assert [one.a, one.b] == pytest.approx([*scores[one.score]])


@pytest.mark.parametrize(
    ("gained", "p", "better"),
    [(0, 1.0, "neither"), (1, 1.0, "neither"), (5, 0.0625, "neither"), (6, 0.03125, "B"), (12, 2**-11, "B")],
)
def test_p_is_the_exact_sign_test_where_all_problems_that_differ_gain(gained: int, p: float, better: str) -> None:
    """k gains and no loss: McNemar's exact two-sided p is 2 / 2^k, at most 1."""
    score = compare_runs(pool(*["W"] * 12), pool(*["R"] * gained, *["W"] * (12 - gained))).scores[0]
    assert (score.p, score.better) == (p, better)


@dear(40)
@given(pair=pairs)
def test_swapping_the_runs_turns_every_sign(pair: tuple[list[str], list[str]]) -> None:
    a, b = (pool(*answers) for answers in pair)
    turned = {"A": "B", "B": "A", "neither": "neither"}
    for there, back in zip(compare_runs(a, b).scores, compare_runs(b, a).scores, strict=True):
        assert (back.a, back.b, back.p, back.better) == (there.b, there.a, there.p, turned[there.better])
        assert back.difference.value == pytest.approx(-there.difference.value)
        assert back.difference.lo == pytest.approx(-there.difference.hi)
        assert back.difference.hi == pytest.approx(-there.difference.lo)
        assert back.more_problems == there.more_problems


@given(answers=words)
def test_a_run_against_itself_differs_by_nothing(answers: list[str]) -> None:
    result = compare_runs(pool(*answers), pool(*answers))
    for score in result.scores:
        assert score.a == score.b
        assert score.difference == Interval(value=0.0, lo=0.0, hi=0.0)
        assert (score.p, score.better, score.more_problems) == (1.0, "neither", None)
        assert score.describe() == f"{score.score}: no difference at all"


@dear(40)
@given(pair=pairs)
def test_p_the_interval_and_the_verdict_agree_with_each_other(pair: tuple[list[str], list[str]]) -> None:
    result = compare_runs(*(pool(*answers) for answers in pair))
    for score in result.scores:
        assert 0 < score.p <= 1
        assert score.difference.lo <= score.difference.value <= score.difference.hi
        assert score.difference.value == pytest.approx(score.b - score.a)
        assert (score.better == "neither") == (score.p >= 0.05)
        if score.better != "neither":
            assert (score.better == "B") == (score.difference.value > 0)
            assert score.more_problems == 0
    assert result == Comparison.from_json(json.loads(json.dumps(result.to_json())))


@given(differences=st.lists(st.sampled_from([-0.5, 0.25, 1.0]), min_size=15, max_size=40), seed=st.integers(0, 9))
@dear(20)
def test_random_signs_never_give_a_p_of_0(differences: list[float], seed: int) -> None:
    """More problems than all of whose signs are tried: the observed signs count as one of 20,001 draws."""
    assert 1 / 20_001 <= paired_p(differences, seed=seed) <= 1


@given(differences=st.lists(st.floats(-1, 1), min_size=2, max_size=12))
def test_a_difference_of_half_the_size_needs_four_times_the_problems(differences: list[float]) -> None:
    """Shrunk towards 0 with its spread kept: the problems needed grow with the square."""
    mean = sum(differences) / len(differences)
    needed = problems_needed(differences)
    assume(needed is not None and 10 <= needed <= 10**6)
    assert needed is not None
    shrunk = problems_needed([value - mean / 2 for value in differences])
    assert shrunk is not None
    assert 4 * (needed - 1) <= shrunk <= 4 * needed


def test_problems_of_one_run_only_are_left_out_and_counted() -> None:
    both = pool("R", "W", "R")
    fewer = Pool(name="", problems=both.problems[1:])
    result = compare_runs(both, fewer)
    assert (result.problems, result.left_out) == (2, 1)
    assert "1 problem that only one of the runs has is left out" in result.describe()


def test_an_early_stop_of_either_run_is_said() -> None:
    even, uneven = pool("RR", "RW"), pool("RR", "R")
    assert not compare_runs(even, even).stopped_early
    for pair in ((even, uneven), (uneven, even)):
        result = compare_runs(*pair)
        assert (result.stopped_early, result.k) == (True, 1)
        assert any("a run stopped early, or lost samples" in sentence for sentence in result.describe())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "other"}, "two runs compare only on problems they share"),
        ({"statement": "!"}, "equal ids must be equal"),
    ],
)
def test_runs_of_other_problems_are_refused(change: dict[str, str], message: str) -> None:
    one = pool("R")
    other = [replace(item, problem=replace(item.problem, **change)) for item in one.problems]
    with pytest.raises(UserError, match=message):
        compare_runs(one, Pool(name="", problems=other))


def test_a_sample_size_needs_ten_problems_that_differ() -> None:
    # One gain more than losses, among forty on which the runs agree.
    for gains, known in ((5, False), (6, True)):
        a = pool(*["R"] * 40, *["W"] * gains, *["R"] * (gains - 1))
        b = pool(*["R"] * 40, *["R"] * gains, *["W"] * (gains - 1))
        score = compare_runs(a, b).scores[0]
        assert (score.better, score.differing, score.more_problems is not None) == ("neither", 2 * gains - 1, known)
        assert ("too few to say" in score.describe()) != known


@pytest.mark.parametrize(
    ("score", "sentence"),
    [
        ({"better": "B", "p": 0.004}, "pass@1: B is better (+2.0 points for B, p 0.004)"),
        ({"better": "neither", "more_problems": None}, "pass@1: no difference at all"),
        (
            {"better": "neither", "more_problems": None, "differing": 3},
            "pass@1: no difference shown (+2.0 points); too few to say what it takes to show one: the runs differ on 3 "
            "problems, and 10 are needed",
        ),
    ],
)
def test_the_verdict_is_a_sentence(score: dict[str, Any], sentence: str) -> None:
    base: dict[str, Any] = {"score": "pass@1", "a": 0.5, "b": 0.52, "p": 0.2, "better": "neither", "more_problems": 0}
    assert Paired(difference=Interval(value=0.02, lo=-0.01, hi=0.05), **{**base, **score}).describe() == sentence


def test_a_tuning_result_comes_back_from_its_json(tmp_path: Path) -> None:
    side = ModelScores(
        pass_at_1=0.5, pass_at_1_se=None, maj_at_8=Interval(value=0.6, lo=0.4, hi=0.7), easy_pass_at_1=None,
        tokens_per_s=12.5, seconds=3.0, run="runs/base",
    )  # fmt: skip
    result = TuningResult(
        base=side, tuned=replace(side, easy_pass_at_1=0.9, run="runs/tuned"),
        difference=Interval(value=0.1, lo=0.0, hi=0.2), kl_merged=1e-5, kl_int8=None, seconds=9.0, train_run="runs/t",
    )  # fmt: skip
    assert TuningResult.from_json(json.loads(json.dumps(result.to_json()))) == result
