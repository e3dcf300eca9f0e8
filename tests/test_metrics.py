import math
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.finish_order import describe_finish_order, finish_order
from mathlete.metrics import (
    Interval,
    bootstrap,
    calibration,
    calibration_error,
    curve_points,
    paired_difference,
    paired_p,
    pass_at_k,
    standard_error,
    wilson,
)
from mathlete.organiser import Grade
from mathlete.problems import Problem
from mathlete.sampling.samples import Sample
from mathlete.scoring import Graded, Results, grade
from mathlete.scoring.ballot import maj_at_k
from mathlete.scoring.comparison import describe_difference
from mathlete.scoring.results import describe_scores
from mathlete.scoring.scores import Counts, Scores
from mathlete.solve.solver import Solution
from mathlete.solve.voting import count_votes


@given(outcomes=st.lists(st.booleans(), min_size=1, max_size=8), data=st.data())
def test_pass_at_k_is_the_mean_over_all_subsets(outcomes: list[bool], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(outcomes)))
    subsets = list(combinations(outcomes, k))
    wanted = sum(any(subset) for subset in subsets) / len(subsets)
    assert pass_at_k(n=len(outcomes), right=sum(outcomes), k=k) == pytest.approx(wanted)


@given(labels=st.lists(st.sampled_from([0, 1, 2, None]), min_size=1, max_size=9))
def test_maj_at_all_samples_is_the_vote_itself(labels: list[int | None]) -> None:
    samples = [
        Sample(problem_id="p", index=i, seed=0, text="", answer=None if label is None else str(label), tokens=1,
               finish="stop", seconds=1)
        for i, label in enumerate(labels)
    ]  # fmt: skip
    votes = count_votes(samples)
    for right in (0, 1, 2):
        wanted = bool(votes) and votes[0].answer == str(right)
        assert maj_at_k(labels, right={right}, k=len(labels)) == wanted


@given(labels=st.lists(st.sampled_from([0, 1, None]), min_size=1, max_size=9))
def test_maj_at_1_is_pass_at_1(labels: list[int | None]) -> None:
    assert maj_at_k(labels, right={0}, k=1) == pytest.approx(labels.count(0) / len(labels))


@given(
    labels=st.lists(st.sampled_from([0, 1, 2, 3, None]), min_size=1, max_size=9),
    right=st.sets(st.integers(0, 3)),
    data=st.data(),
)
def test_maj_at_k_is_the_share_of_all_subsets_whose_vote_is_right(
    labels: list[int | None], right: set[int], data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, len(labels)))

    def is_won(subset: tuple[int | None, ...]) -> bool:
        voted = [label for label in subset if label is not None]
        return bool(voted) and max(voted, key=lambda label: (voted.count(label), -voted.index(label))) in right

    subsets = list(combinations(labels, k))
    assert maj_at_k(labels, right=right, k=k) == sum(map(is_won, subsets)) / len(subsets)


def test_maj_over_drawn_subsets_is_near_the_exact_value() -> None:
    """C(16, 8) = 12,870 subsets are more than are counted; the exact value is that of the slow enumeration."""
    labels: list[int | None] = [0] * 7 + [1] * 6 + [None] * 3
    exact = sum(labels_won(labels, subset) for subset in combinations(range(16), 8)) / math.comb(16, 8)
    assert maj_at_k(labels, right={0}, k=8) == pytest.approx(exact, abs=0.04)


def labels_won(labels: list[int | None], subset: tuple[int, ...]) -> bool:
    mine = [labels[index] for index in subset]
    return mine.count(0) > mine.count(1) or (
        mine.count(0) == mine.count(1) and 0 in mine and mine.index(0) < mine.index(1)
    )


@given(n=st.integers(1, 200), data=st.data())
def test_wilson_holds_the_share_and_stays_within_0_and_1(n: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, n))
    interval = wilson(right=right, n=n)
    assert 0 <= interval.lo <= interval.value == right / n <= interval.hi <= 1
    mirrored = wilson(right=n - right, n=n)
    assert mirrored.lo == pytest.approx(1 - interval.hi)


def test_wilson_covers_as_it_says() -> None:
    """Exact coverage at share 0.3 of 50, by the binomial's own weights."""
    covered = 0.0
    for right in range(51):
        interval = wilson(right=right, n=50)
        if interval.lo <= 0.3 <= interval.hi:
            covered += math.comb(50, right) * 0.3**right * 0.7 ** (50 - right)
    assert covered == pytest.approx(0.95, abs=0.02)


def test_bootstrap_agrees_with_the_standard_error() -> None:
    values = [float(i % 3 == 0) for i in range(300)]
    interval = bootstrap(values)
    assert (interval.hi - interval.lo) / 2 == pytest.approx(1.96 * standard_error(values), rel=0.05)


def test_pairing_narrows_the_interval() -> None:
    base = [i / 99 for i in range(100)]
    tuned = [min(1.0, value + 0.1) for value in base]
    paired, alone = paired_difference(base, tuned), bootstrap(tuned)
    assert paired.lo > 0.05
    assert paired.hi - paired.lo < (alone.hi - alone.lo) / 5


@pytest.mark.parametrize("call", [
    lambda: pass_at_k(n=4, right=5, k=1),
    lambda: pass_at_k(n=4, right=2, k=5),
    lambda: wilson(right=0, n=0),
    lambda: maj_at_k([0], right={0}, k=2),
    lambda: bootstrap([]),
    lambda: paired_difference([1.0], []),
])  # fmt: skip
def test_impossible_counts_are_refused(call: object) -> None:
    assert callable(call)
    with pytest.raises(ValueError, match="needs"):
        call()


def test_one_problem_has_no_standard_error() -> None:
    assert math.isnan(standard_error([1.0]))


def test_curve_ends_at_n() -> None:
    assert [curve_points(n) for n in (1, 2, 8, 9)] == [[1], [1, 2], [1, 2, 4, 8], [1, 2, 4, 8, 9]]


def make_graded(gold: str, *answers: str | None, subset: str = "") -> Graded:
    problem = Problem(id=f"{gold}{answers}{subset}", statement="?", gold=gold, subset=subset)
    samples = [
        Sample(problem_id=problem.id, index=i, seed=i, text="t", answer=answer, tokens=10, finish="stop", seconds=1)
        for i, answer in enumerate(answers)
    ]
    votes = count_votes(samples)
    solution = Solution(
        problem_id=problem.id, answer=votes[0].answer if votes else None, votes=votes, samples=samples, seconds=2.0
    )
    return grade([problem], [solution])[0]


def test_grading_tells_right_wrong_and_none() -> None:
    item = make_graded("7", "7", "8", None, "7.0")
    wanted: tuple[Grade, ...] = ("equal", "different", "none", "equal")
    assert (item.verdicts, item.verdict, item.right) == (wanted, "equal", 2)
    assert (item.labels, item.right_labels) == ([0, 1, None, 0], {0})
    assert item.pass_at(1) == 0.5


def test_scores_by_hand() -> None:
    scores = Scores.of([make_graded("7", "7", "7"), make_graded("7", "8", None)])
    assert (scores.pass_at_1, scores.maj_at_k.value, scores.k) == (0.5, 0.5, 2)
    assert scores.counts == Counts(samples=4, right=2, unknown=0, unanswered=1, capped=0, tokens=40)
    assert scores.pass_at_1_se is None


@pytest.mark.parametrize(("solved", "failed", "half"), [(20, 0, 0), (20, 9, 0), (20, 5, 4), (9, 0, 30)])
def test_too_few_problems_have_no_standard_error(solved: int, failed: int, half: int) -> None:
    few = (
        solved * [make_graded("7", "7", "7")]
        + failed * [make_graded("7", "8", "8")]
        + half * [make_graded("7", "7", "8")]
    )
    assert Scores.of(few).pass_at_1_se is None
    assert "pass@1 has no standard error: too few to say" in Results.of(few, None).describe()
    more = [
        *few,
        make_graded("7", "7", "8"),
        *(10 - failed - half) * [make_graded("7", "8", "8")],
        make_graded("7", "7", "7"),
    ]
    error = Scores.of(more).pass_at_1_se
    assert error == pytest.approx(standard_error([item.pass_at(1) for item in more]))
    assert "too few" not in Results.of(more, None).describe()


@pytest.mark.parametrize("informative", [1, 2, 9, 10])
def test_a_finish_order_of_few_problems_claims_nothing(informative: int) -> None:
    bias = finish_order([[(1.0, False), (2.0, True)]] * informative + [[(1.0, True)]] * 50)
    assert bias
    assert (bias.problems, bias.value) == (informative, 0.0)
    told = describe_finish_order(bias)
    assert ("wrong answers finish first" in told) == (informative == 10)
    assert ("too few to say" in told) == (informative < 10)


@pytest.mark.parametrize(
    ("times", "is_told"),
    [
        ([1.0] * 8, False),
        # Requests of four, and the last of two.
        ([2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 3.0, 3.0], False),
        ([1.0, 2.0, 1.0, 3.0, 2.0, 1.0, 4.0, 2.0], True),
        ([1.0, 1.0, 2.0, 3.0], True),
        # Of two, the last alone; whole seconds, where some are the same by chance.
        ([1.0, 1.0, 2.0, 2.0, 3.0], False),
        ([4.0, 1.0, 2.0, 2.0, 7.0, 9.0, 9.0, 5.0], True),
    ],
)
@pytest.mark.parametrize("answered", [True, False])
def test_times_that_samples_share_tell_no_finish_order(times: list[float], is_told: bool, answered: bool) -> None:
    """A sample without an answer has the time of its batch, too."""
    problem: list[tuple[float, bool | None]] = [(seconds, bool(index % 2)) for index, seconds in enumerate(times)]
    if not answered:
        problem[0] = (times[0], None)
    bias = finish_order([problem] * 12)
    assert bias
    assert (bias.problems, bias.untold) == ((12, None) if is_told else (0, 12))
    assert (bias.is_recorded, "not recorded" in describe_finish_order(bias)) == (is_told, not is_told)
    # A few problems that tell do not speak for most; a few that do not are left out.
    other: list[tuple[float, bool | None]] = [(1.0, False), (2.0, True)]
    some = [finish_order([problem] * (12 - number) + [other] * number) for number in (5, 11)]
    assert [one and one.is_recorded for one in some] == [is_told, True]
    # One that does not silences no few that do: those are too few, and recorded.
    one = finish_order([problem] + [other] * 6)
    assert one
    assert (one.is_recorded, one.is_known) == (True, False)
    assert some[1]
    assert some[1].value == 0 or is_told


def test_results_split_by_group_and_subset() -> None:
    items = [
        make_graded("1", "1", subset="hard/gcd"),
        make_graded("1", "2", subset="hard/pow"),
        make_graded("1", "1", subset="easy/sum"),
    ]
    results = Results.of(items, None)
    assert {name: part.pass_at_1 for name, part in results.groups.items()} == {"easy": 1.0, "hard": 0.5}
    assert sorted(results.subsets) == ["easy/sum", "hard/gcd", "hard/pow"]
    assert (results.scores.fallbacks, results.ended) == (0, {"all": 3})
    assert Results.of([make_graded("1", "1")], None).groups == {}


def test_a_problem_without_answer_or_samples_is_a_fallback_and_counts_as_not_right() -> None:
    scores = Scores.of([make_graded("1", "1"), make_graded("2", None), make_graded("3")])
    assert scores.fallbacks == 2
    assert scores.maj_at_k.value == pytest.approx(1 / 3)
    assert scores.pass_at_1 == pytest.approx(1 / 3)


@given(votes=st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=30))
def test_calibration_bins_hold_every_problem_once(votes: list[tuple[float, bool]]) -> None:
    bins = calibration(votes)
    assert sum(part.problems for part in bins) == len(votes)
    assert sum(part.problems * part.right for part in bins) == pytest.approx(sum(right for _, right in votes))
    assert all(part.lo - 1e-9 <= part.share <= part.hi + 1e-9 for part in bins)
    assert 0 <= calibration_error(votes) <= 1


@given(differences=st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0]), min_size=1, max_size=14))
def test_paired_p_does_not_care_which_run_is_called_b(differences: list[float]) -> None:
    p = paired_p(differences)
    assert 0 < p <= 1
    assert paired_p([-value for value in differences]) == p


def test_random_signs_come_near_the_exact_binomial() -> None:
    """15 against 5 of 20 that differ: McNemar's exact two-sided p is 0.0414."""
    assert paired_p([1.0] * 15 + [-1.0] * 5) == pytest.approx(0.0414, abs=0.006)


def test_words_are_honest() -> None:
    counts = Counts(samples=20, right=3, unknown=2, unanswered=0, capped=0, tokens=0)
    scores = replace(Scores.of([make_graded("1", "1")]), counts=counts, problems=10)
    assert "read the interval" in describe_scores(scores, cap="", stopped=0)
    assert "2 could not be judged (counted as not right)" in describe_scores(scores, cap="", stopped=0)


def test_worse_is_called_worse() -> None:
    assert describe_difference(Interval(value=-0.1, lo=-0.2, hi=-0.05)).endswith(": worse")
