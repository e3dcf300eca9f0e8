"""Which candidate to select: counted by hand where that can be done, and laws of luck and regret elsewhere."""

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from mathlete.competitions import Competition, ScorerRules, competition
from mathlete.errors import UserError
from mathlete.metrics import Interval
from mathlete.problems import Problem
from mathlete.replay import Grid, Replay, Submissions, Wall, replay_pool
from mathlete.replay.policies import _hardest_first
from mathlete.replay.selection import Entrant, Known, find_known
from mathlete.replay.simulation import Bank
from mathlete.sampling import Sample
from mathlete.scoring import Pool
from tests.conftest import CommandLine


def pool(name: str, shares: list[float], *, n: int = 32, seed: int = 0, seconds: float = 1.0) -> Pool:
    """Problems of which a share of the samples is right; the wrong answers of a problem are the same."""
    source = random.Random(seed)
    problems = [Problem(id=f"p{number}", statement=f"{number}?", gold="7") for number in range(len(shares))]
    samples = {
        problem.id: [
            Sample(problem_id=problem.id, index=index, seed=source.randrange(2**40), text="", tokens=9, finish="stop",
                   answer="7" if index < round(share * n) else "8", seconds=seconds * (1 + number) + index / 100)
            for index in range(n)
        ]
        for number, (problem, share) in enumerate(zip(problems, shares, strict=True))
    }  # fmt: skip
    return Pool.of(problems, samples, name=name)


AIMO_3 = competition("aimo-3")


def replayed(
    first: Pool,
    *others: Pool,
    select: int | None = 3,
    questions: int = 20,
    rules: Competition = AIMO_3,
    simulations: int = 4000,
    **grid: Any,
) -> Replay:
    asked: dict[str, Any] = {
        "n": (1,), "max_tokens": (9,), "stop": ("none",), "vote": ("majority",), "walls": (None,), **grid
    }  # fmt: skip
    submissions = Submissions(simulations=simulations, questions=questions, rules=rules, slots=None, seed=0)
    return replay_pool(first, Grid(**asked), submissions, select=select, versus=others)


def entrant(name: str, public: Any, expected: Any) -> Entrant:
    return Entrant(name=name, public=np.array(public), private=np.array(public), expected=np.array(expected))


def test_equal_questions_leave_only_the_luck_of_samples() -> None:
    """Every question is right in 4 of 10 runs of A and in 5 of 10 of B: two binomials, whose difference is known."""
    random = np.random.default_rng(0)
    a, b = (entrant(name, random.binomial(50, p, (8, 20_000)), [p] * 50) for name, p in (("a", 0.4), ("b", 0.5)))
    known = find_known(a, b, questions=50)
    assert (known.better, known.worse) == ("b", "a")
    assert known.difference.value == pytest.approx(5)
    variance, z = 50 * (0.24 + 0.25), NormalDist().inv_cdf(0.9)
    assert known.new_questions == math.ceil(z**2 * variance / 25) == 2
    assert known.same_questions in (2, 3)
    assert known.at_best > 0.99
    # Counted: the mean of two of each is right nine times in ten, that of one is not.
    shares = [(random.binomial(50, 0.5, (m, 10**5)).mean(0) > random.binomial(50, 0.4, (m, 10**5)).mean(0)).mean()
              for m in (1, 2)]  # fmt: skip
    assert shares[0] < 0.9
    assert shares[1] == pytest.approx(0.92, abs=0.02)
    assert find_known(b, a, questions=50).better == "b"


def test_questions_that_decide_leave_a_difference_unknown() -> None:
    """A solves one half of all questions, B a little more than the other half: no sample is ever different."""
    random = np.random.default_rng(0)
    b_only = random.binomial(50, 0.53, 20_000)
    a, b = (entrant(name, [right, right], share) for name, right, share in (
        ("a", 50 - b_only, [1.0] * 47 + [0.0] * 53), ("b", b_only, [0.0] * 47 + [1.0] * 53)))  # fmt: skip
    known = find_known(a, b, questions=50)
    assert known.difference.value == pytest.approx(3)
    assert known.same_questions is None
    # The set's own difference is 2 X - 50 of a binomial X: its sign is B's as often as this says.
    assert known.at_best == pytest.approx(float((b_only > 25).mean() + (b_only == 25).mean() / 2), abs=0.02)
    assert "no number of submissions on one set of questions makes it known at 90% (at best 66%)" in known.describe(
        questions=50
    )
    assert known.new_questions
    assert known.new_questions > 5


def test_no_difference_is_said() -> None:
    same = entrant("a", [[3, 4], [4, 3]], [0.5, 0.5])
    known = find_known(same, entrant("b", [[4, 3], [3, 4]], [0.5, 0.5]), questions=2)
    assert (known.new_questions, known.same_questions) == (None, None)
    assert known.describe(questions=2) == "b and a: no difference"


def test_luck_lifts_the_highest_score_and_regret_is_what_it_costs() -> None:
    shares = [number / 29 for number in range(30)]
    selection = replayed(pool("a", shares), pool("b", [min(1, share + 0.1) for share in shares], seed=1)).selection
    assert selection
    a, b = selection.candidates
    assert (a.name, b.name) == ("a · n=1 · none", "b · n=1 · none")
    assert a.public == pytest.approx(20 * np.mean(shares), abs=0.2)
    assert all(one.expected_maximum > one.public + 1 for one in selection.candidates)
    assert a.selected + b.selected == pytest.approx(1)
    assert b.selected > 0.6
    assert selection.by_replay == b.score > a.score
    assert a.score < selection.by_public < selection.by_replay < selection.hindsight
    assert 0 < selection.regret < b.score - a.score
    (known,) = selection.known
    assert (known.better, known.worse) == ("b · n=1 · none", "a · n=1 · none")
    assert known.difference.lo > 0


def test_submissions_that_share_most_of_their_samples_are_said_to_be_alike() -> None:
    small: dict[str, Any] = {"select": 5, "simulations": 400}
    few, many = (replayed(pool("a", [0.3, 0.5, 0.7] * 4, n=n), n=(2, 5, 8), **small) for n in (8, 32))
    (words,) = [one for one in few.words if "are alike" in one]
    assert words.startswith(
        "warning: submissions of n=5 · none (5 of 8, about 61% of the spread), n=8 · none (8 of 8, about 0% of the "
        "spread) draw more than half of the recorded samples"
    )
    assert not any("are alike" in one for one in many.words)
    assert few.selection
    assert many.selection
    lifts = [[one.expected_maximum - one.public for one in of.candidates] for of in (few.selection, many.selection)]
    # Of n = 8 of 8 only the questions' luck is left; of n = 2 nearly all is there.
    assert lifts[0][2] < 0.75 * lifts[1][2]
    assert lifts[0][0] > 0.8 * lifts[1][0]


def test_samples_are_counted_in_each_candidate_s_own_recording() -> None:
    a, b = pool("a", [0.5] * 3), pool("b", [0.5] * 3, n=8, seed=1)
    assert any("submissions of b · n=8 · none (8 of 8" in one for one in replayed(a, b, n=(8,), simulations=20).words)
    assert not any("are alike" in one for one in replayed(b, select=None, n=(8,), simulations=20).words)


def test_one_submission_of_one_candidate_has_nothing_to_select() -> None:
    selection = replayed(pool("a", [0.5] * 30), select=1).selection
    assert selection
    (one,) = selection.candidates
    assert one.expected_maximum == pytest.approx(one.public, abs=0.1)
    assert (one.selected, selection.known) == (1.0, [])
    assert one.score == selection.by_replay == selection.by_public == selection.hindsight


def test_two_runs_of_a_problem_are_scored_as_the_competition_does() -> None:
    """AIMO-3 counts a problem half where one of two runs is right: the mean is that of one run, its spread is not."""
    outcome = replayed(pool("a", [0.5] * 30), select=None).outcomes[0]
    one, two = outcome.score.new_set, outcome.score.all_runs
    assert two.value == pytest.approx(one.value, abs=0.1)
    # The standard deviation of twenty coins, and of the mean of two twenties, times 1.645 on either side.
    assert one.hi - one.lo == pytest.approx(2 * 1.645 * math.sqrt(20 / 4), abs=1.1)
    assert two.hi - two.lo == pytest.approx(2 * 1.645 * math.sqrt(20 / 8), abs=0.6)


def test_a_wrong_answer_costs_what_the_scorer_takes_for_it() -> None:
    rules = replace(AIMO_3, scorer=ScorerRules(rule="integer", wrong=-1.0))
    score = replayed(pool("a", [0.75] * 30), select=None, rules=rules).outcomes[0].score
    assert score.new_set.value == pytest.approx(15, abs=0.2)
    assert score.all_runs.value == pytest.approx(15 - 5, abs=0.2)


def test_hardest_first_is_the_order_of_what_is_seldom_right_and_slow() -> None:
    rights = np.array([[[True]] * 4, [[False]] * 4, [[False]] * 4, [[True], [False], [False], [False]]]).reshape(-1, 1)
    times = np.array([[1.0]] * 4 + [[2.0]] * 4 + [[9.0]] * 4 + [[1.0]] * 4)
    bank = Bank(rows=4, times=times, starts=None, right=rights, stop=np.ones(16, dtype=int))
    assert _hardest_first(bank, np.array([[0, 1, 2, 3], [3, 0, 0, 2]])).tolist() == [[2, 1, 3, 0], [2, 3, 0, 0]]


def test_the_worst_order_costs_under_a_clock_with_allowances_and_is_not_asked_elsewhere() -> None:
    # The hardest problems are never solved and take all the time they get.
    recorded = pool("a", [1.0 - number / 29 for number in range(30)], seconds=2.0)
    wall = Wall(wall_s=300.0, floor_s=5.0, ceiling_s=60.0)
    plain, free, shared = replayed(recorded, select=None, walls=(None, Wall(wall_s=500.0), wall)).outcomes
    assert plain.score.hardest_first is None
    assert free.score.hardest_first is None
    assert shared.score.hardest_first
    assert shared.score.hardest_first.value < shared.score.new_set.value - 0.5


def write_run(folder: str, recorded: Pool) -> None:
    Path(folder).mkdir()
    for name, rows in (
        ("problems.jsonl", [vars(item.problem) for item in recorded.problems]),
        ("samples.jsonl", [sample.to_json() for item in recorded.problems for sample in item.samples]),
    ):
        Path(folder, name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_command_selects_among_policies_and_models(workdir: Path, evaluate: CommandLine) -> None:
    shares = [number / 29 for number in range(30)]
    write_run("a", pool("a", shares))
    write_run("b", pool("b", [*shares[:20], 1.0], seed=1))
    words = ("replay", "a", "--n", 2, "--simulations", 500, "--select", 4, "--json")
    alone = evaluate(*words, "--stop", "none", "votes1")
    assert [one["name"] for one in alone.result["selection"]["candidates"]] == ["n=2 · none", "n=2 · votes1"]
    assert "highest public of 4" in alone.stderr
    both = evaluate(*words, "--stop", "none", "--versus", "b")
    selection = both.result["selection"]
    assert [one["name"] for one in selection["candidates"]] == ["a · n=2 · none", "b · n=2 · none"]
    # Only the problems that both have are asked.
    assert both.result["problems"] == 21
    assert "9 problems that only some of the runs have are left out" in both.stderr
    assert "left out" not in alone.stderr
    assert selection["regret"] == pytest.approx(selection["by_replay"] - selection["by_public"])
    assert "a regret of" in both.stderr
    written = json.loads(Path(both.result["run"], "replay.json").read_text())
    assert Replay.from_json(written).to_json() == written
    # Without a selection a replay is the one that it was.
    plain = evaluate("replay", "a", "--n", 2, "--simulations", 500, "--stop", "none", "--json").result
    assert "selection" not in plain
    assert plain["run"] != both.result["run"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--select", 0), "--select must be 1 to 100, got 0"),
        (("--select", 2, "--simulations", 1), "--simulations must be at least 2 with --select, got 1"),
        (("--max-tokens", 0), "--max-tokens must be at least 1, got 0"),
        (("--versus", "a"), "--versus must be given with --select"),
        (("--select", 2, "--versus", "gone"), "a run that is replayed must be a folder, got gone"),
        (("--select", 2, "--versus", "other"), "two runs compare only on problems they share"),
    ],
)
def test_what_cannot_be_selected_is_refused(
    workdir: Path, words: tuple[object, ...], message: str, evaluate: CommandLine
) -> None:
    write_run("a", pool("a", [0.5] * 4))
    other = pool("other", [0.5])
    write_run("other", Pool.of([Problem(id="x", statement="?", gold="7")], {"x": other.problems[0].samples}))
    Path("other/samples.jsonl").write_text(Path("other/samples.jsonl").read_text().replace('"p0"', '"x"'))
    assert message in evaluate("replay", "a", "--n", 2, "--simulations", 20, *words).refusal


def test_another_problem_of_one_id_is_refused() -> None:
    a = pool("a", [0.5, 0.5])
    b = Pool.of([Problem(id="p0", statement="else?", gold="7")], {"p0": a.problems[0].samples}, name="b")
    with pytest.raises(UserError, match="equal ids must be equal problems, got p0"):
        replayed(a, b)


def test_what_is_known_comes_back_from_its_json() -> None:
    selection = replayed(pool("a", [0.5] * 9), pool("b", [0.6] * 9, seed=1)).selection
    assert selection
    assert type(selection).from_json(json.loads(json.dumps(selection.to_json()))) == selection
    assert isinstance(selection.known[0], Known)


def test_nobody_makes_a_thousand_submissions() -> None:
    by = Interval(value=0.01, lo=-0.1, hi=0.12)
    known = Known(better="b", worse="a", difference=by, same_questions=51_205, at_best=0.9, new_questions=1_001)
    assert known.describe(questions=50).count("after more than 1,000") == 2
