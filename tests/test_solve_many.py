"""Many problems at once or in turn: a killed run goes on to the same result, and no clock is overspent."""

import json
import threading
from collections.abc import Generator, Mapping
from pathlib import Path

import pytest

from mathlete.errors import UserError
from mathlete.problems import Problem
from mathlete.sampling.record import SampleLog, read_samples
from mathlete.sampling.samples import Sample, Sampler, SamplingConfig
from mathlete.solve.budget import BudgetSettings
from mathlete.solve.clock import RealClock, VirtualClock
from mathlete.solve.many import solve_all, solve_in_turn
from mathlete.solve.policy import Policy
from mathlete.solve.solver import Solution

PROBLEMS = [Problem(id=f"p{number}", statement="?", gold="7") for number in range(5)]


class Drawn(Exception):
    """The kill of these tests: raised by the engine after so many samples."""


class Engine(Sampler):
    """An engine on a virtual clock: sample i of any problem takes i + 1 seconds, one after another."""

    name = "scripted"

    def __init__(self, clock: VirtualClock | None = None, *, dies_after: int | None = None) -> None:
        self.drawn: list[tuple[str, int]] = []
        self.wanted: list[tuple[str, list[int]]] = []
        self._clock, self._left, self._lock = clock, dies_after, threading.Lock()

    def stream(self, problem: Problem, *, seeds: Mapping[int, int], config: SamplingConfig) -> Generator[Sample]:
        with self._lock:
            self.wanted.append((problem.id, sorted(seeds)))
        for index in sorted(seeds):
            with self._lock:
                if self._left == 0:
                    raise Drawn
                self._left = None if self._left is None else self._left - 1
                self.drawn.append((problem.id, index))
            if self._clock is not None:
                self._clock.advance_to(self._clock.now() + index + 1)
            # Two of three say 7.
            text = f"<think>\n</think>\n\\boxed{{{8 if index % 3 == 2 else 7}}}"
            yield Sample(
                problem_id=problem.id, index=index, seed=seeds[index], text=text, tokens=10, finish="stop",
                seconds=float(index + 1),
            )  # fmt: skip

    def close(self) -> None:
        """Nothing to free."""


def at_once(folder: Path, engine: Engine, policy: Policy, threads: int = 2) -> list[Solution]:
    with SampleLog(folder / "samples.jsonl") as samples:
        return solve_all(
            PROBLEMS,
            sampler=engine,
            clock=RealClock(),
            policy=policy,
            samples=samples,
            on_sample=lambda sample: None,
            at_once=threads,
        )


def in_turn(folder: Path, engine: Engine, policy: Policy, clock: VirtualClock, wall_s: float = 1000) -> list[Solution]:
    budget = BudgetSettings(wall_s=wall_s, floor_s=1, ceiling_s=wall_s, questions=len(PROBLEMS))
    with SampleLog(folder / "samples.jsonl") as samples:
        return solve_in_turn(
            PROBLEMS,
            sampler=engine,
            clock=clock,
            policy=policy,
            samples=samples,
            spent=folder / "spent.jsonl",
            budget=budget,
            on_sample=lambda sample: None,
        )


def results(solutions: list[Solution]) -> list[tuple[str, str | None, list[int]]]:
    return [(one.problem_id, one.answer, [sample.index for sample in one.samples]) for one in solutions]


@pytest.mark.parametrize("threads", [1, 3, 8])
def test_solutions_come_in_the_order_of_the_problems(tmp_path: Path, threads: int) -> None:
    solutions = at_once(tmp_path, Engine(), Policy(n=4), threads)
    assert results(solutions) == [(problem.id, "7", [0, 1, 2, 3]) for problem in PROBLEMS]
    assert len(read_samples(tmp_path / "samples.jsonl")) == 20


@pytest.mark.parametrize("kill_after", [0, 1, 7, 19])
def test_a_run_at_once_that_was_killed_draws_only_what_is_missing(tmp_path: Path, kill_after: int) -> None:
    whole = at_once(tmp_path, Engine(), Policy(n=4))
    (tmp_path / "again").mkdir()
    with pytest.raises(Drawn):
        at_once(tmp_path / "again", Engine(dies_after=kill_after), Policy(n=4), 1)
    known = {(one.problem_id, one.index) for one in read_samples(tmp_path / "again" / "samples.jsonl")}
    assert len(known) == kill_after
    engine = Engine()
    assert results(at_once(tmp_path / "again", engine, Policy(n=4))) == results(whole)
    assert known.isdisjoint(engine.drawn)
    assert len(known) + len(engine.drawn) == 20


def test_problems_in_turn_share_the_clock(tmp_path: Path) -> None:
    clock = VirtualClock()
    solutions = in_turn(tmp_path, Engine(clock), Policy(n=4), clock)
    assert [one.seconds for one in solutions] == [10.0] * 5
    rows = [json.loads(line) for line in (tmp_path / "spent.jsonl").read_text().splitlines()]
    assert rows == [{"problem_id": problem.id, "seconds": 10.0} for problem in PROBLEMS]


@pytest.mark.parametrize("wall_s", [12.0, 30.0, 49.0])
def test_no_question_is_solved_after_the_wall(tmp_path: Path, wall_s: float) -> None:
    clock = VirtualClock()
    engine = Engine(clock)
    solutions = in_turn(tmp_path, engine, Policy(n=4), clock, wall_s)
    counted = [sample.seconds for one in solutions for sample in one.samples]
    assert sum(counted) <= wall_s
    assert solutions[0].samples
    assert len(solutions[-1].samples) < 4


def test_the_speed_learned_keeps_later_problems_from_beginning_what_cannot_end(tmp_path: Path) -> None:
    clock = VirtualClock()
    engine = Engine(clock)
    in_turn(tmp_path, engine, Policy(n=4), clock, 14.0)
    # Nothing is known of the first; the second has 3 s left, which is a sample or two at the speed of the first.
    assert engine.wanted[0] == ("p0", [0, 1, 2, 3])
    assert len(engine.wanted[1][1]) < 4


@pytest.mark.parametrize("kill_after", [1, 4, 9, 19])
def test_a_run_in_turn_that_was_killed_goes_on_with_the_time_it_has_left(tmp_path: Path, kill_after: int) -> None:
    clock = VirtualClock()
    with pytest.raises(Drawn):
        in_turn(tmp_path, Engine(clock, dies_after=kill_after), Policy(n=4), clock)
    over = (tmp_path / "spent.jsonl").read_text().splitlines() if (tmp_path / "spent.jsonl").exists() else []
    assert len(over) == kill_after // 4
    later = VirtualClock()
    later.advance_to(5000)
    engine = Engine(later)
    solutions = in_turn(tmp_path, engine, Policy(n=4), later)
    assert results(solutions) == [(problem.id, "7", [0, 1, 2, 3]) for problem in PROBLEMS]
    # Problems that were over keep what they took; the one that was killed starts with what it had.
    assert [one.seconds for one in solutions[: len(over)]] == [10.0] * len(over)
    assert engine.wanted[0] == (f"p{len(over)}", [*range(kill_after % 4, 4)])
    assert len(engine.drawn) == 20 - kill_after


def test_a_problem_that_is_over_is_never_drawn_again_though_samples_are_missing(tmp_path: Path) -> None:
    (tmp_path / "spent.jsonl").write_text('{"problem_id": "p0", "seconds": 3.5}\n')
    clock = VirtualClock()
    engine = Engine(clock)
    solutions = in_turn(tmp_path, engine, Policy(n=2), clock)
    assert (solutions[0].answer, solutions[0].samples, solutions[0].seconds) == (None, [], 3.5)
    assert "p0" not in {name for name, _ in engine.drawn}


def test_time_spent_before_the_kill_is_taken_from_the_wall(tmp_path: Path) -> None:
    lines = [{"problem_id": f"p{number}", "seconds": 9.0} for number in range(4)]
    (tmp_path / "spent.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    clock = VirtualClock()
    solutions = in_turn(tmp_path, Engine(clock), Policy(n=4), clock, 40.0)
    # 4 s are left for the fifth, in which samples of 1 and 2 s end.
    assert [sample.index for sample in solutions[4].samples] == [0, 1]


def test_a_half_line_of_spent_time_is_dropped_and_a_strange_one_refused(tmp_path: Path) -> None:
    file = tmp_path / "spent.jsonl"
    file.write_text('{"problem_id": "p0", "seconds": 3.5}\n{"problem_id": "p1", "sec')
    clock = VirtualClock()
    in_turn(tmp_path, Engine(clock), Policy(n=1), clock)
    assert [json.loads(line)["problem_id"] for line in file.read_text().splitlines()] == [p.id for p in PROBLEMS]
    file.write_text('{"problem_id": "p0"}\n')
    with pytest.raises(UserError, match=r"spent\.jsonl:1: must be problem_id and seconds"):
        in_turn(tmp_path, Engine(), Policy(n=1), VirtualClock())
