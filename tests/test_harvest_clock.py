"""Forced answers under a clock: what the deadline cuts is kept and closed, and no question takes more than it may."""

import json
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.kernel import KernelConfig, read_journal
from mathlete.kernel.answering import Answerer
from mathlete.kernel.config import NotebookClock, config_from
from mathlete.kernel.journal import JournalLine
from mathlete.problems import Problem
from mathlete.sampling import Sample, Sampler, SamplingConfig
from mathlete.sampling.embedded.transformers_engine import TransformersSampler
from mathlete.sampling.record import SampleLog, read_samples
from mathlete.scoring import EvalRun, Pool, Results, grade
from mathlete.scoring.harvested import HarvestScores
from mathlete.solve.budget import BudgetSettings
from mathlete.solve.clock import VirtualClock
from mathlete.solve.harvesting import Reserve
from mathlete.solve.many import solve_in_turn
from mathlete.solve.policy import Policy
from mathlete.solve.solver import Solution, solve
from mathlete.tir.tools import ToolSampler, ToolSettings
from submit.building import Solving
from tests.conftest import CommandLine, dear
from tests.loopback import BEGUN, HEAD, Loopback, Wire, choice, scored, streams
from tests.test_sampling_engine import bigram_model, problem, prompts
from tests.test_sampling_servers import loopback, opened

__all__ = ["loopback", "opened", "prompts"]  # fixtures

PROBLEM = Problem(id="p", statement="What is 3 + 4?", gold="7")
_CLOSED = "\n</think>\n\n\\boxed{"


class Timed(Sampler):
    """An engine on a virtual clock: each sample and each forced answer takes its seconds, side by side."""

    name = "timed"

    def __init__(self, clock: VirtualClock, seconds: Sequence[float], tails: Sequence[float]) -> None:
        self.clock, self.seconds, self.tails = clock, seconds, tails
        self.forced: list[int] = []
        self.drawn: list[int] = []

    def stream(self, problem: Problem, *, seeds: Mapping[int, int], config: SamplingConfig) -> Generator[Sample]:
        return self._draw(seeds, config, keep=False)

    def stream_all(self, problem: Problem, *, seeds: Mapping[int, int], config: SamplingConfig) -> Generator[Sample]:
        return self._draw(seeds, config, keep=True)

    def _draw(self, seeds: Mapping[int, int], config: SamplingConfig, *, keep: bool) -> Generator[Sample]:
        self.drawn += seeds
        began, limit_s = self.clock.now(), config.timeout_s
        limit_s = float("inf") if limit_s is None else limit_s
        for index in sorted(seeds, key=lambda each: self.seconds[each]):
            if (seconds := self.seconds[index]) > limit_s:
                break
            self.clock.advance_to(began + seconds)
            # Every third is cut at its cap without an answer.
            said = "hm" if index % 3 == 2 else f"so</think>\\boxed{{{7 + index % 2}}}"
            yield make(index, said, "length" if index % 3 == 2 else "boxed", seconds)
        else:
            return
        self.clock.advance_to(began + limit_s)
        for index in seeds if keep else ():
            if self.seconds[index] > limit_s:
                yield make(index, "and", "clock", limit_s)

    def force_answers(
        self, problem: Problem, *, cut: Sequence[Sample], max_tokens: int, timeout_s: float | None = None
    ) -> Generator[Sample]:
        began = self.clock.now()
        for one in sorted(cut, key=lambda each: self.tails[each.index]):
            seconds = self.tails[one.index]
            if timeout_s is not None and seconds > timeout_s:
                self.clock.advance_to(began + timeout_s)
                return
            self.clock.advance_to(began + seconds)
            self.forced.append(one.index)
            yield make(one.index, f"{_CLOSED}9}}", "boxed", seconds)

    def close(self) -> None:
        """Nothing to free."""


def make(index: int, text: str, finish: Any, seconds: float) -> Sample:
    return Sample(problem_id="p", index=index, seed=index, text=text, tokens=5, finish=finish, seconds=seconds)


SECONDS = st.lists(st.floats(0.1, 40), min_size=1, max_size=7)


@dear(60)
@given(
    seconds=SECONDS,
    tails=st.lists(st.floats(0.01, 30), min_size=7, max_size=7),
    allowed=st.floats(0.5, 60),
    known=st.none() | st.floats(0.1, 20),
    stop=st.sampled_from(["none", "exact", "votes2"]),
)
def test_no_question_takes_more_than_it_may(
    seconds: list[float], tails: list[float], allowed: float, known: float | None, stop: str
) -> None:
    reserve, policy = Reserve(), Policy(n=len(seconds), stop=stop, harvest=0.5)
    if known is not None:
        reserve.learn(known)
    kept = reserve.seconds(allowed)
    clock = VirtualClock()
    engine = Timed(clock, seconds, tails)
    got = solve(PROBLEM, sampler=engine, clock=clock, policy=policy, timeout_s=allowed, thinking=True, reserve=reserve)
    assert got.seconds <= allowed + 1e-9
    assert clock.now() <= allowed + 1e-9
    # What ends before the reserve begins is there as it would be without forced answers.
    in_time = Timed(clock := VirtualClock(), seconds, tails)
    plain = solve(
        PROBLEM, sampler=in_time, clock=clock, policy=replace(policy, harvest=0.0), timeout_s=allowed - kept,
        thinking=True,
    )  # fmt: skip
    assert got.ended == plain.ended
    assert [replace(one, harvest=None) for one in got.samples] == plain.samples
    # Only what was cut was asked, whether by its cap or by the clock; of what came every answer has its weight.
    cut = {one.index for one in plain.samples if one.was_cut} | {one.index for one in got.unfinished}
    assert {*engine.forced} <= cut
    assert all(one.answer is None and one.finish == "clock" for one in got.unfinished)
    assert {one.index for one in got.voting if one.harvest} == {*engine.forced}
    assert sum(len(vote.harvested) for vote in got.votes) == len(engine.forced)
    if got.ended == "rule":
        assert got.votes == plain.votes
    assert not in_time.forced


def test_the_reserve_is_what_forced_answers_took_and_never_most_of_the_time() -> None:
    reserve = Reserve()
    assert reserve.seconds(100.0) == 10.0
    for seconds in (1.0, 4.0, 2.0):
        reserve.learn(seconds)
    assert reserve.seconds(100.0) == 6.0
    assert reserve.seconds(8.0) == 2.0
    for _ in range(8):
        reserve.learn(1.0)
    assert reserve.seconds(100.0) == 1.5


def test_a_problem_without_any_sample_may_have_an_answer() -> None:
    clock, policy = VirtualClock(), Policy(n=2, harvest=0.5)
    engine = Timed(clock, (90.0, 90.0), (0.1, 0.1))
    solution = solve(PROBLEM, sampler=engine, clock=clock, policy=policy, timeout_s=10, thinking=True)
    assert (solution.samples, solution.answer, solution.ended) == ([], "9", "time")
    (item,) = grade([replace(PROBLEM, gold="9")], [solution])
    results = Results.of([item], None)
    assert (item.verdict, item.vote_share, item.pass_at(1)) == ("equal", 0.0, 0.0)
    assert (results.scores.maj_at_k.value, results.scores.counts.samples) == (1.0, 0)
    (vote,) = results.per_problem[0].votes
    assert (vote.count, vote.harvested, vote.verdict) == (0, 2, "equal")
    told = HarvestScores.of([item], policy)
    assert (told.samples, told.unfinished, told.right, told.without, told.gain.value) == (2, 2, 2, 0.0, 1.0)


class Killed(Exception):
    """The kill of these tests."""


def run_in_turn(folder: Path, engine: Timed, *, dies_at: int | None = None) -> list[Solution]:
    """Solve the problem in a budget; die once so many forced answers are recorded."""
    left = dies_at

    def on_harvest(sample: Sample) -> None:
        nonlocal left
        if left == 0:
            raise Killed
        left = None if left is None else left - 1

    budget = BudgetSettings(wall_s=20, floor_s=1, ceiling_s=20, questions=1)
    with SampleLog(folder / "samples.jsonl") as samples:
        return solve_in_turn(
            [PROBLEM],
            sampler=engine,
            clock=engine.clock,
            policy=Policy(n=4, harvest=0.5),
            samples=samples,
            spent=folder / "spent.jsonl",
            budget=budget,
            on_sample=lambda sample: None,
            on_harvest=on_harvest,
            thinking=True,
        )


@pytest.mark.parametrize("dies_at", [0, 1, 2])
def test_a_run_killed_among_its_forced_answers_draws_nothing_again(tmp_path: Path, dies_at: int) -> None:
    seconds, tails = (1.0, 2.0, 3.0, 90.0), (0.1, 0.1, 0.2, 0.3)
    (whole, again) = (tmp_path / name for name in ("whole", "again"))
    for folder in (whole, again):
        folder.mkdir()
    (first,) = run_in_turn(whole, Timed(VirtualClock(), seconds, tails))
    assert [one.index for one in first.unfinished] == [3]
    assert [(vote.answer, vote.harvested) for vote in first.votes] == [("7", ()), ("8", ()), ("9", (2, 3))]
    if dies_at < 2:
        with pytest.raises(Killed):
            run_in_turn(again, Timed(VirtualClock(), seconds, tails), dies_at=dies_at)
    engine = Timed(VirtualClock(), seconds, tails)
    (second,) = run_in_turn(again, engine)
    assert second.votes == first.votes
    assert engine.drawn == ([0, 1, 2, 3] if dies_at == 2 else [])
    # It is over now: nothing is drawn or asked any more.
    (third,) = run_in_turn(again, idle := Timed(VirtualClock(), seconds, tails))
    assert (third.votes, idle.drawn, idle.forced) == (first.votes, [], [])


def test_the_embedded_engine_tells_what_it_was_saying(prompts: Any) -> None:
    either = {"Ċ": {"a": 0.5, "b": 0.5}, "a": {"<eos>": 1.0}, "b": {"b": 1.0}, "{": {"7": 1.0}, "7": {"}$": 1.0}}
    config = SamplingConfig(temperature=1, max_tokens=10**9, timeout_s=1.0)
    with closing(TransformersSampler(bigram_model(prompts, either, context=20_000), prompts=prompts)) as engine:
        drawn = [*engine.stream_all(problem(0), seeds={index: index for index in range(12)}, config=config)]
        late = [one for one in drawn if one.finish == "clock"]
        assert sorted(one.index for one in drawn) == [*range(12)]
        assert 0 < len(late) < 12
        assert all({*one.text} == {"b"} and one.tokens == len(one.text) for one in late)
        tails = [*engine.force_answers(problem(0), cut=[replace(one, text="b") for one in late], max_tokens=9)]
        assert {(one.text, one.finish, one.tokens) for one in tails} == {(f"{_CLOSED}7}}", "boxed", 2)}


async def _begin_and_hang(wire: Wire) -> None:
    await wire.send(HEAD + BEGUN)
    await wire.hang()


def test_servers_tell_what_they_were_saying_and_go_on_from_it(
    loopback: Callable[..., Loopback], opened: Callable[..., Any]
) -> None:
    server = loopback(_begin_and_hang, _begin_and_hang)
    engine = opened(server).engine
    late = [*engine.stream_all(PROBLEM, seeds={0: 1, 1: 2}, config=SamplingConfig(max_tokens=40, timeout_s=1.0))]
    begun = engine.prompts.tokenizer
    assert sorted((one.index, one.finish, one.tokens) for one in late) == [(0, "clock", 2), (1, "clock", 2)]
    filled = scored("7", -0.1) + scored("}", -0.2) + scored(" and", -0.3) + choice("", "stop")
    other = loopback(then=streams(filled))
    engine = opened(other).engine
    tails = [*engine.force_answers(PROBLEM, cut=late, max_tokens=9)]
    assert {(one.index, one.finish) for one in tails} == {(0, "boxed"), (1, "boxed")}
    assert all(one.text.endswith("\\boxed{7}") for one in tails)
    asked = other.requests[0]
    assert (asked["temperature"], asked["max_tokens"]) == (0.0, 9)
    assert begun.decode(asked["prompt"]).endswith(f"{late[0].text}{tails[0].text.removesuffix('7}')}")


def test_a_sample_with_tools_is_cut_with_all_that_it_said() -> None:
    from tests.test_sampling_tools import Recorded, block

    class Slow(Recorded):
        """One whose second turn does not come to an end."""

        def begin(
            self,
            problem: Problem,
            *,
            seeds: Mapping[int, int],
            config: SamplingConfig,
            results: "SimpleQueue[Sample | Exception]",
            said: str = "",
            until_code: bool = False,
        ) -> Callable[[], Any]:
            if not said:
                return super().begin(problem, seeds=seeds, config=config, results=results, until_code=until_code)
            return lambda: [make(index, "I see", "clock", 0.1) for index in seeds]

    text = block("print(42)")
    with closing(ToolSampler(Slow({0: text}), ToolSettings(turns=1, timeout_s=20))) as sampler:
        config = SamplingConfig(max_tokens=10_000, timeout_s=3.0)
        (late,) = sampler.stream_all(PROBLEM, seeds={0: 5}, config=config)
        assert (late.finish, late.seed, late.tokens) == ("clock", 5, len(text) + 5)
        assert late.text == f"{text}\n```output\n42\n```\nI see"


class Restartable(Timed):
    """The same in a notebook, on the real clock."""

    def start(self, *, timeout_s: float) -> None:
        pass


class _Real(VirtualClock):
    def now(self) -> float:
        return time.monotonic()

    def advance_to(self, moment: float) -> None:
        time.sleep(max(0.0, moment - time.monotonic()))


def test_the_notebook_counts_forced_answers_and_keeps_its_clock(tmp_path: Path) -> None:
    clock = NotebookClock(wall_s=60.0, reserve_s=1.0, question_min_s=0.0, question_max_s=1.5, load_max_s=5.0)
    config = KernelConfig(policy=Policy(n=3, harvest=0.5), clock=clock, problems=4)
    journal = tmp_path / "journal.jsonl"
    engine = Restartable(_Real(), (9.0, 9.0, 0.1), (0.05, 0.05, 0.05))
    answers = Answerer(config, engine=engine, started=time.time(), journal=journal)
    assert answers.answer(problem_id="a", statement="What is 3 + 4?") == 9
    (line,) = read_journal(journal)
    assert (line.forced, line.forced_answers, line.forced_s) == (3, 3, 0.05)
    assert (line.samples, line.answered, line.votes, line.sends) == (1, 0, (("9", 0),), (9,))
    assert not line.fallback
    assert line.lost == {"cut_at_cap": 1, "cut_by_clock": 2}
    assert line.seconds <= line.limit_s + 0.5


def test_settings_and_journal_say_nothing_where_there_are_none() -> None:
    plain, forced = KernelConfig(policy=Policy(n=3)), KernelConfig(policy=Policy(n=3, harvest=0.25, harvest_tokens=16))
    assert "harvest" not in json.dumps(plain.to_json())
    assert config_from(json.loads(json.dumps(forced.to_json()))) == forced
    line = JournalLine(id="a", fallback=False, why="")
    assert "forced" not in json.dumps(line.to_json())
    asked = replace(line, forced=3, forced_answers=2, forced_s=0.5)
    assert JournalLine.from_json(json.loads(json.dumps(asked.to_json()))) == asked
    assert Solving(n=3, harvest=0.25, harvest_tokens=16).to_policy().harvest_tokens == 16


def test_an_evaluation_on_a_clock_keeps_apart_what_the_clock_cut(workdir: Path, evaluate: CommandLine) -> None:
    words = ("pocket_val", "--model", "pocket", "--n", 4, "--limit", 3, "--sampling.max-tokens", 160)
    told = evaluate(*words, "--budget", "3:0.5:1", "--harvest", 0.5, "--run", "r", "--json").result
    recorded, run = read_samples(Path("r/samples.jsonl")), EvalRun.read(Path("r"))
    late = [one for one in recorded if one.finish == "clock"]
    assert told["samples"] == len(recorded) - len(late)
    assert told["harvest"]["unfinished"] == sum(one.harvest is not None for one in late)
    assert told["harvest"]["samples"] == sum(one.harvest is not None for one in recorded)
    assert sum(len(item.solution.unfinished) for item in run.graded) == len(late)
    assert not any(one.finish == "clock" for item in run.graded for one in item.solution.samples)
    # Going on, or reading it again, comes to the same votes.
    rows = {row.id: row for row in run.results.per_problem}
    for item in run.graded:
        assert [(vote.answer, vote.count) for vote in item.solution.votes] == [
            (vote.answer, vote.count) for vote in rows[item.problem.id].votes
        ]
    if all(item.solution.samples for item in run.graded):
        assert not any(one.finish == "clock" for item in Pool.read([Path("r")]).problems for one in item.samples)
