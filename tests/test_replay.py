"""The replay against the solve loop itself, against counting by hand, and through the command line."""

import json
import random
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.competitions import competition
from mathlete.errors import UserError
from mathlete.problems import Problem, write_problems
from mathlete.replay import Grid, Submissions, Wall, replay_pool
from mathlete.replay.outcomes import Outcome
from mathlete.replay.sampler import ReplaySampler
from mathlete.replay.simulation import draw_samples, replay_draws, simulate
from mathlete.sampling.harvest import Finish, Harvest
from mathlete.sampling.record import SampleLog
from mathlete.sampling.samples import Sample, SamplingConfig
from mathlete.scoring import Pool
from mathlete.solve.budget import Budget, BudgetSettings
from mathlete.solve.clock import VirtualClock
from mathlete.solve.policy import Policy
from mathlete.solve.solver import Solution, solve
from tests.conftest import CommandLine, dear

AIMO_3 = competition("aimo-3")

STOPS = ["none", "exact", "beta95+exact", "esc4", "votes3", "aimo2", "hopeless3of4"]


def record_samples(
    problems: int, *, n: int, seed: int = 0, wrong_pace: float = 1.0, harvested: bool = False
) -> tuple[list[Problem], list[Sample]]:
    """Problems of growing difficulty whose wrong samples take `wrong_pace` times as long.

    Where they are `harvested`, those without an answer were cut, and most of them made to answer.
    """
    source = random.Random(seed)
    asked = [Problem(id=f"p{i}", statement="?", gold="7") for i in range(problems)]
    samples = []
    for number, problem in enumerate(asked):
        for index in range(n):
            answer = source.choices(["7", "8", "9", None], [problems - number, number / 2, 1, 1])[0]
            text = f"</think>\\boxed{{{answer}}}" if answer else "and so on"
            tokens = round(source.lognormvariate(5, 0.7) * (1 if answer == "7" else wrong_pace)) + 1
            samples.append(
                Sample(
                    problem_id=problem.id, index=index, seed=source.randrange(10**9), text=text, answer=answer,
                    tokens=tokens, finish="stop", seconds=tokens / 10,
                    logprob_mean=source.choice([-0.1, -0.5, -2.0, None]),
                )
            )  # fmt: skip
            if harvested and answer is None:
                samples[-1] = replace(samples[-1], finish="length", harvest=force(source.choice(["7", "8", "6", None])))
    return asked, samples


def force(answer: str | None) -> Harvest:
    """What a sample was made to say."""
    closed: Finish = "boxed" if answer else "length"
    text = f"\n</think>\n\n\\boxed{{{answer}{'}' * bool(answer)}"
    return Harvest(text=text, answer=answer, tokens=2, finish=closed, seconds=0.25 + ord(text[-2]) / 64)


def pool(problems: int, **shape: Any) -> Pool:
    asked, samples = record_samples(problems, **shape)
    return Pool.of(asked, {p.id: [s for s in samples if s.problem_id == p.id] for p in asked})


def solve_draw(pooled: Pool, number: int, drawn: Any, policy: Policy, clock: VirtualClock, **more: Any) -> Solution:
    """Return the solve loop on one draw; a sample's place in the draw is its index."""
    item = pooled.problems[number]
    samples = [replace(item.samples[position], index=index) for index, position in enumerate(drawn[: policy.n])]
    slots = more.pop("slots", None)
    sampler = ReplaySampler(samples, advance_to=clock.advance_to, now=clock.now, slots=slots)
    return solve(item.problem, sampler=sampler, clock=clock, policy=policy, **more)


@dear(25)
@given(
    stop=st.sampled_from(STOPS),
    vote=st.sampled_from(["majority", "logprob", "length"]),
    cap=st.sampled_from([60, 150, 10_000]),
    slots=st.sampled_from([None, 1, 3]),
    n=st.integers(1, 9),
    seed=st.integers(0, 99),
    harvest=st.sampled_from([0.0, 0.001, 0.5, 1.0]),
)
def test_a_row_of_the_replay_is_the_solve_loop_on_the_same_draw(
    stop: str, vote: Any, cap: int, slots: int | None, n: int, seed: int, harvest: float
) -> None:
    pooled = pool(3, n=12, seed=seed, harvested=True)
    drawn = draw_samples(pooled, n=9, rows=4, seed=seed)
    policy = Policy(n=n, stop=stop, vote=vote, sampling=SamplingConfig(max_tokens=cap), harvest=harvest)
    bank = replay_draws(pooled, drawn, policy=policy, stops=[stop], slots=slots)[stop]
    for problem in range(3):
        for row in range(4):
            wanted = solve_draw(pooled, problem, drawn[problem, row], policy, VirtualClock(), slots=slots)
            at = problem * 4 + row
            assert bank.stop[at] == len(wanted.samples)
            assert bank.won[at] == (wanted.answer == "7")
            assert bank.seconds[at] == pytest.approx(wanted.seconds)


@pytest.mark.parametrize("stop", ["none", "beta95+exact"])
@pytest.mark.parametrize("wall_s", [90.0, 300.0, 5000.0])
def test_a_submission_of_the_replay_is_the_solve_loop_under_the_same_budget(stop: str, wall_s: float) -> None:
    pooled = pool(6, n=12)
    drawn = draw_samples(pooled, n=8, rows=5, seed=3)
    policy = Policy(n=8, stop=stop, sampling=SamplingConfig(max_tokens=10_000))
    bank = replay_draws(pooled, drawn, policy=policy, stops=[stop])[stop]
    order, rows = np.array([[3, 0, 5, 1, 4, 2]]), np.array([[0, 1, 2, 3, 4, 0]])
    wall = Wall(wall_s=wall_s, floor_s=wall_s / 8, ceiling_s=wall_s / 3)
    got = simulate(bank, order, rows, wall=wall)
    clock = VirtualClock()
    budget = Budget(BudgetSettings(wall_s=wall_s, floor_s=wall_s / 8, ceiling_s=wall_s / 3, questions=6), clock=clock)
    for place in range(6):
        problem, row = order[0, place], rows[0, place]
        limit = budget.next_question_s()
        wanted = solve_draw(pooled, problem, drawn[problem, row], policy, clock, timeout_s=limit)
        assert got.arrivals[0, place] == len(wanted.samples)
        assert got.right[0, place] == (wanted.answer == "7")
        assert got.seconds[0, place] == pytest.approx(wanted.seconds)
    assert clock.now() <= wall_s + 1e-6
    assert not got.overrun[0]


def test_draws_are_without_replacement_and_even() -> None:
    pooled = pool(2, n=6)
    drawn = draw_samples(pooled, n=4, rows=6000, seed=0)
    assert all(len(set(row)) == 4 for row in drawn[0])
    shares = np.bincount(drawn[0].ravel(), minlength=6) / 24_000
    assert shares == pytest.approx([1 / 6] * 6, abs=0.01)


def try_walls(
    pooled: Pool, *, walls: tuple[Wall | None, ...] = (None,), questions: int = 10, **grid: Any
) -> list[Outcome]:
    asked: dict[str, Any] = {"n": (8,), "max_tokens": (100_000,), "stop": ("none",), "vote": ("majority",), **grid}
    submissions = Submissions(simulations=2000, questions=questions, rules=AIMO_3, slots=None, seed=0)
    return replay_pool(pooled, Grid(walls=walls, **asked), submissions).outcomes


def test_score_of_one_sample_is_the_mean_of_pass_at_1_and_intervals_nest() -> None:
    pooled = pool(20, n=32)
    (one,) = try_walls(pooled, n=(1,))
    share = np.mean([item.verdicts.count("equal") / 32 for item in pooled.problems])
    assert one.score.new_set.value == pytest.approx(10 * share, abs=0.15)
    assert one.score.subset.value == pytest.approx(10 * share, abs=0.15)
    widths = [interval.hi - interval.lo for interval in (one.score.new_set, one.score.subset, one.score.same_set)]
    assert widths == sorted(widths, reverse=True)
    assert one.score.all_runs.value == pytest.approx(one.score.new_set.value, abs=0.15)


def test_exact_stop_costs_nothing_and_saves_something() -> None:
    _, exact = try_walls(pool(12, n=32), stop=("none", "exact"))
    assert (exact.change.value, exact.change.lo, exact.change.hi) == (0, 0, 0)
    assert exact.is_safe(questions=10)
    assert 0 < exact.saved.arrivals < 1
    assert exact.saved.wall_s > exact.saved.generated_s > 0


def test_finish_order_bias_is_told_and_makes_loose_rules_unsafe() -> None:
    late, early = pool(24, n=48, wrong_pace=4), pool(24, n=48, wrong_pace=0.25)
    first, last, none = [order for one in (late, early, pool(40, n=48)) if (order := one.finish_order)]
    assert first.lo > 0.5
    assert last.hi < 0.5
    assert none.lo < 0.5 < none.hi
    exact, loose = try_walls(early, stop=("exact", "votes2"), n=(12,))
    assert exact.is_safe(questions=10)
    assert loose.change.hi < 0
    assert not loose.is_safe(questions=10)


def test_overrun_loses_all_and_allowances_prevent_it() -> None:
    pooled = pool(10, n=16)
    (whole,) = try_walls(pooled)
    half = whole.submission_s / 2
    free, shared = try_walls(pooled, walls=(Wall(wall_s=half), Wall.parse(f"{half}", questions=10)))
    assert (free.p_overrun, free.score.new_set.value, free.score.all_runs.value) == (1, 0, 0)
    assert shared.p_overrun == 0
    assert shared.submission_p95_s <= half + 1e-6
    assert 0 < shared.score.new_set.value <= whole.score.new_set.value
    for policy in (free, shared):
        # Both are of the same sets of questions: a clock cuts more of sets that happen to be slow.
        difference = policy.score.new_set.value - whole.score.new_set.value
        assert policy.change.value == pytest.approx(difference, abs=0.1)
        assert policy.change.value < 0


def test_a_problem_that_no_submission_has_is_not_taken_for_lost() -> None:
    asked, samples = record_samples(60, n=8)
    right = [replace(sample, answer="7", text="</think>\\boxed{7}") for sample in samples]
    pooled = Pool.of(asked, {p.id: [sample for sample in right if sample.problem_id == p.id] for p in asked})
    submissions = Submissions(simulations=3, questions=10, rules=AIMO_3, slots=None, seed=0)
    grid = Grid(n=(8,), max_tokens=(100_000,), stop=("none",), vote=("majority",), walls=(Wall(wall_s=1e9),))
    (outcome,) = replay_pool(pooled, grid, submissions).outcomes
    assert outcome.score.new_set.value == 10
    assert outcome.change.value == outcome.informative == 0


SENSELESS = ("", "x", "18000:1", "18000:a:b", "-3", "0", "100:9:3", "100:50:60", "9:1:2:3:4", "9:free:2", "inf", "free",
             "1000:1:9:1000", "nan", "9000:1:inf", "9000:nan:9", "9000:1:9:nan", "9000:1:9:inf", "18000:0:0",
             "5:0:0:0", "5:00:00", "5:00:30", "5:00", "5:00:00:free")  # fmt: skip


@pytest.mark.parametrize("words", SENSELESS)
def test_a_budget_that_makes_no_sense_is_named(words: str) -> None:
    with pytest.raises(UserError, match=r"budget|must fit"):
        Wall.parse(words, questions=50)


@given(
    wall=st.floats(1, 1e6),
    floor=st.floats(0, 1),
    ceiling=st.floats(1, 5),
    reserve=st.floats(0, 0.5),
    questions=st.integers(1, 99),
    free=st.booleans(),
)
def test_the_words_of_a_clock_are_read_back_as_that_clock(
    wall: float, floor: float, ceiling: float, reserve: float, questions: int, free: bool
) -> None:
    """The floor is a share of what the reserve leaves each question, the ceiling a multiple of that."""
    share = wall * (1 - reserve) / questions
    words = f"{wall}:free" if free else f"{wall}:{share * floor}:{share * ceiling}:{wall * reserve}"
    clock = Wall.parse(words, questions=questions)
    assert clock is not None
    again = Wall.parse(clock.words, questions=questions)
    assert again is not None
    kept = ({name: value for name, value in asdict(one).items() if value is not None} for one in (again, clock))
    assert next(kept) == pytest.approx(next(kept), rel=1e-9)
    budget = None if free else BudgetSettings.parse(clock.words, questions=questions)
    assert budget is None or (budget.wall_s, budget.reserve_s) == pytest.approx((clock.wall_s, clock.reserve_s))


def test_a_reserve_is_no_time_for_questions() -> None:
    pooled = pool(10, n=16)
    (whole,) = try_walls(pooled)
    half = whole.submission_s / 2
    kept, shorter = (
        Wall(wall_s=wall, floor_s=0, ceiling_s=half, reserve_s=reserve)
        for wall, reserve in ((half * 1.5, half / 2), (half, 0))
    )
    (one, other) = try_walls(pooled, walls=(kept, shorter))
    assert one.score == other.score
    assert one.submission_p95_s <= half + 1e-6


@pytest.fixture
def run_folder(workdir: Path) -> Path:
    return write_run(workdir / "a")


def write_run(folder: Path, **shape: Any) -> Path:
    folder.mkdir()
    asked, samples = record_samples(12, **{"n": 16, **shape})
    write_problems(folder / "problems.jsonl", asked)
    with SampleLog(folder / "samples.jsonl") as log:
        for sample in samples:
            log.append(sample)
    return folder


@pytest.mark.usefixtures("in_full")
def test_replay_command_writes_table_json_and_plot(run_folder: Path, evaluate: CommandLine) -> None:
    words = ("replay", "a", "--n", 4, 8, "--max-tokens", 100, 5000, "--stop", "none", "exact", "--budget", "none", 600,
             "--simulations", 300, "--json")  # fmt: skip
    shown = evaluate(*words)
    result = shown.result
    assert len(result["policies"]) == 16
    assert result["simulations"] == 300
    wanted = {"n", "max_tokens", "stop", "vote", "budget_s", "score", "lo", "hi", "p_overrun", "samples_per_problem",
              "penalised"}  # fmt: skip
    assert all(wanted <= set(policy) for policy in result["policies"])
    assert {policy["budget_s"] for policy in result["policies"]} == {None, 600.0}
    assert all(policy["lo"] <= policy["score"] <= policy["hi"] for policy in result["policies"])
    assert "warning: 16 samples are recorded, n = 8 needs 32" in shown.stderr
    assert "finish order" in shown.stderr
    assert "…" not in shown.stderr
    assert "safe on this run" in shown.stderr
    assert (Path(result["run"]) / "replay.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((Path(result["run"]) / "replay.json").read_text())["policies"] == result["policies"]
    done = evaluate(*words)
    assert done.code == 0
    assert "nothing changed, skipped" in done.stderr


def test_runs_of_other_seeds_are_pooled(run_folder: Path, evaluate: CommandLine) -> None:
    write_run(run_folder.parent / "b", seed=1)
    words = ("--stop", "none", "--simulations", 50, "--json")
    assert evaluate("replay", "a", "b", *words).result["recorded_per_problem"] == 32
    assert "runs are pooled only with different samples" in evaluate("replay", "a", "a", *words).refusal


def test_a_problem_of_which_a_clock_cut_every_sample_is_refused_with_a_cure_that_works(run_folder: Path) -> None:
    samples = Path("a/samples.jsonl")
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    late = lines[0]["problem_id"]
    forced = {"text": "\\boxed{7}", "answer": "7", "tokens": 3, "finish": "boxed", "seconds": 0.1}
    cut = {"finish": "clock", "answer": None, "harvest": forced}
    rows = [{**row, **cut} if row["problem_id"] == late else row for row in lines]
    samples.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for finished, rule, cure in (
        (False, "must have recorded samples", "finish the run first"),
        (True, "must have a sample that no clock cut", "without --budget, with another --run"),
    ):
        if finished:
            (run_folder / "manifest.json").write_text("{}")
        with pytest.raises(UserError, match=f"{rule}, got none of {late} in") as caught:
            Pool.read([run_folder])
        assert cure in caught.value.cure
    # Another run of the model may have drawn it.
    more = write_run(Path("more"), seed=1)
    assert len(Pool.read([run_folder, more]).problems) == 12


def test_samples_recorded_without_answers_are_read(run_folder: Path, evaluate: CommandLine) -> None:
    words = ("replay", "a", "--stop", "none", "--simulations", 50, "--json")
    first = evaluate(*words, "--run", "one").result
    rows = [json.loads(line) for line in (run_folder / "samples.jsonl").read_text().splitlines()]
    for row in rows:
        del row["answer"]
    (run_folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert evaluate(*words, "--out", "two").result["policies"] == first["policies"]


def test_a_half_written_line_is_named_and_dropped_with_repair(run_folder: Path, evaluate: CommandLine) -> None:
    with (run_folder / "samples.jsonl").open("a") as file:
        file.write('{"problem_id": "p0", "ind')
    assert "samples.jsonl:193: must be one line of JSON" in evaluate("replay", "a", "--simulations", 50).refusal
    done = evaluate("replay", "a", "--simulations", 50, "--repair")
    assert done.code == 0
    assert "dropped a half-written last line of samples.jsonl (25 bytes)" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none"], "a run that is replayed must be a folder"),
        ([], "a replay is of one run or more, got none"),
        (["empty"], "has problems.jsonl and samples.jsonl, got empty without problems.jsonl and samples.jsonl"),
        (["a", "--n", "17"], "--n must be 1 to 16, which is what every problem has recorded, got 17"),
        (["a", "--n", "0"], "--n must be 1 to 16, which is what every problem has recorded, got 0"),
        (["a", "--stop", "beta"], "a stopping rule must be a known one"),
        (["a", "--max-tokens", "0"], "--max-tokens must be at least 1, got 0"),
        (["a", "--budget", "soon"], "a budget must be none or SECONDS"),
        (["a", "--simulations", "0"], "--simulations must be from 1 to 1000000 for so many questions, got 0"),
        (["a", "--questions", "0"], "--questions must be from 1 to 50000000, got 0"),
        (["a", "--slots", "0"], "--slots must be at least 1"),
    ],
)
def test_bad_replay_input_is_exit_2(run_folder: Path, words: list[str], message: str, evaluate: CommandLine) -> None:
    Path("empty").mkdir()
    assert message in evaluate("replay", *words).refusal


def test_compare_tells_which_run_is_better_or_what_it_would_take(run_folder: Path, evaluate: CommandLine) -> None:
    _, samples = record_samples(12, n=16)
    worse = [replace(s, answer="8" if s.answer == "7" and s.index % 2 else s.answer) for s in samples]
    write_run(Path("again"), seed=6)
    write_run(Path("worse"))
    (Path("worse") / "samples.jsonl").unlink()
    with SampleLog(Path("worse") / "samples.jsonl") as log:
        for sample in worse:
            log.append(sample)
    pairs = (("a", "worse"), ("worse", "a"), ("a", "again"), ("a", "a"))
    scores = {pair: evaluate("compare", *pair, "--json").result["scores"][0] for pair in pairs}
    assert scores["a", "worse"]["better"] == "A"
    assert scores["worse", "a"]["better"] == "B"
    assert scores["worse", "a"]["difference"]["lo"] > 0
    assert scores["a", "again"]["better"] == "neither"
    assert scores["a", "again"]["more_problems"] > 0
    assert (scores["a", "a"]["p"], scores["a", "a"]["more_problems"]) == (1, None)
    lines = (run_folder / "samples.jsonl").read_text().splitlines(keepends=True)
    (run_folder / "samples.jsonl").write_text("".join(lines[:-3]))
    done = evaluate("compare", "a", "worse")
    assert done.code == 0
    assert "a run stopped early" in done.stdout


def test_compare_refuses_what_does_not_pair(run_folder: Path, evaluate: CommandLine) -> None:
    for name, change in (("other", {"id": "x"}), ("changed", {"statement": "!"})):
        folder = write_run(Path(name))
        asked, samples = record_samples(12, n=16)
        write_problems(folder / "problems.jsonl", [replace(asked[0], **change)])
        (folder / "samples.jsonl").unlink()
        with SampleLog(folder / "samples.jsonl") as log:
            log.append(replace(samples[0], problem_id=change.get("id", "p0")))
    message = evaluate("compare", "a", "other").refusal
    assert "two runs compare only on problems they share, got none of 12 and 1" in message
    assert "equal ids must be equal problems, got p0" in evaluate("compare", "a", "changed").refusal
