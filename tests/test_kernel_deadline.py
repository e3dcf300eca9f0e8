"""No call outlasts the gateway's deadline, nor the notebook its wall, however engines boot, die and hang.

Answerer, ladder and solve loop are the real ones; clock, threads and the engine's process are simulated.
"""

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.competitions import competition, competition_names
from mathlete.kernel import answering, ladder
from mathlete.kernel.answering import Answerer
from mathlete.kernel.config import KernelConfig, NotebookClock
from mathlete.kernel.engine import EngineError
from mathlete.kernel.ladder import Ladder
from mathlete.kernel.steps import EngineStep, plan_steps
from mathlete.problems import Problem
from mathlete.sampling import Sample, SamplingConfig
from mathlete.sampling.served import VllmSettings
from mathlete.solve import Policy
from tests.conftest import dear

NEVER, GPUS = 1e9, 4
RULES = [rules for name in competition_names() if (rules := competition(name)).deliverable == "notebook"]


@dataclass(frozen=True, kw_only=True)
class Life:
    """What one process of an engine does."""

    boot_s: float
    dies_s: float
    """From the end of its boot on; a question that it is in then ends."""
    draws_s: float
    """Seconds that a sample takes it."""
    hangs: bool
    """Whether nothing that is asked of it ever returns."""
    says: str
    fails: str = ""
    """Why its boot ends in vain."""


UNLOADED = Life(boot_s=NEVER, dies_s=0.0, draws_s=0.0, hangs=False, says="")


class World:
    """A clock that stands still unless somebody waits, and what waits on it."""

    def __init__(self, lives: list[Life], *, needs: float = 0.0, most: float = GPUS) -> None:
        self.time, self.lives, self.hangs, self.needs, self.most = 0.0, lives, False, needs, most

    def now(self) -> float:
        return self.time

    monotonic = now

    def wait(self, seconds: float) -> None:
        self.time += max(0.0, seconds)

    sleep = wait

    def next_life(self) -> Life:
        """The last life is that of all later processes."""
        return self.lives.pop(0) if len(self.lives) > 1 else self.lives[0]

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        world = self

        class Start:
            """A start in the background: what it did is known at once, but counts only when its time has come."""

            def __init__(self, engine: Any, *, timeout_s: float) -> None:
                began, self.error = world.time, None
                try:
                    engine.start(timeout_s=timeout_s)
                except EngineError as error:
                    self.error = error
                self.ends, world.time = world.time, began

            @property
            def ended(self) -> bool:
                return world.time >= self.ends

            def wait(self, *, timeout_s: float) -> None:
                if self.ends - world.time > timeout_s:
                    world.wait(timeout_s)
                    raise TimeoutError("it is loaded further")
                world.time = max(world.time, self.ends)
                if self.error is not None:
                    raise self.error

        class Event:
            """Set as soon as what sets it has run, unless that hangs."""

            def set(self) -> None:
                pass

            def wait(self, timeout_s: float) -> bool:
                hung, world.hangs = world.hangs, False
                world.wait(timeout_s if hung else 0.0)
                return not hung

        class Thread:
            def __init__(self, *, target: Callable[..., None], args: tuple[Any, ...], name: str, daemon: bool) -> None:
                self.target, self.args = target, args

            def start(self) -> None:
                self.target(*self.args)

        monkeypatch.setattr(answering, "BackgroundStart", Start)
        monkeypatch.setattr(answering, "threading", SimpleNamespace(Event=Event, Thread=Thread))
        monkeypatch.setattr(answering, "RealClock", lambda: world)
        monkeypatch.setattr(answering, "say", lambda text: None)
        monkeypatch.setattr(ladder, "time", world)


class Process:
    """An engine's process, of which each start is another of the world's lives."""

    name, opens_thoughts = "simulated", False

    def __init__(self, world: World, vllm: VllmSettings) -> None:
        self.world, self.vllm, self.fruitless, self.trouble, self.ends = world, vllm, 0, "", -1.0

    @property
    def alive(self) -> bool:
        return self.world.time < self.ends

    def start(self, *, timeout_s: float) -> None:
        if self.alive:
            return
        self.life, self.fruitless, self.served = self.world.next_life(), 0, False
        self.world.wait(min(self.life.boot_s, timeout_s))
        if self.life.boot_s > timeout_s:
            raise EngineError(f"the model was not loaded within {timeout_s:.0f} s")
        if cause := self.life.fails or self.refuse():
            raise EngineError(cause)
        crowded = GPUS * self.vllm.gpu_memory_utilization > self.world.most
        self.ends = self.world.time + (1.0 if crowded else self.life.dies_s)

    def refuse(self) -> str:
        """Say what vLLM says of weights that take more of its GPUs than it has."""
        shared = self.vllm.choose_parallel(gpus=GPUS, heads=None)
        if shared * self.vllm.gpu_memory_utilization >= self.world.needs:
            return ""
        return "no memory for the cache" if shared >= self.world.needs else "GPU memory"

    def stream(
        self, problem: Problem, *, seeds: Mapping[int, int], config: SamplingConfig
    ) -> Generator[Sample, None, None]:
        assert config.timeout_s is not None
        ends = self.world.time + config.timeout_s
        if self.life.hangs:
            self.world.hangs = True
            raise EngineError("what it would say, were it to say anything")
        for index, seed in seeds.items():
            moment = self.world.time + self.life.draws_s
            self.world.time = max(self.world.time, min(moment, ends, self.ends))
            if not self.alive:
                self.fruitless += 1
                raise EngineError("EngineDeadError")
            if moment > ends:
                return
            self.served = self.served or bool(self.life.says)
            said = {"text": self.life.says, "tokens": 3, "finish": "stop", "seconds": self.life.draws_s}
            yield Sample.from_json({"problem_id": problem.id, "index": index, "seed": seed, **said}, where="here")
        self.fruitless = 0 if self.life.says else self.fruitless + 1

    stream_all = stream

    def close(self) -> None:
        self.ends = -1.0

    def cause_of_death(self) -> str:
        return "the engine's process ended with code -9"


def answer_all(
    config: KernelConfig,
    lives: list[Life],
    *,
    gaps: list[float],
    folder: Path,
    given: list[int] | None = None,
    **memory: float,
) -> list[tuple[float, float]]:
    """Return (when it began, how long it took) of each call; add to `given` what was answered.

    The weights take so many GPUs' memory as `needs` says, and who takes more than `most` dies of the first question.
    """
    world, calls = World(lives, **memory), []
    with pytest.MonkeyPatch.context() as patch:
        world.patch(patch)

        def make(step: EngineStep) -> Any:
            # An embedded engine that cannot load the model would answer nothing.
            return Process(world if step.engine == "vllm" or config.embedded else World([UNLOADED]), step.vllm)

        engine = Ladder(plan_steps(config, gpus=GPUS, model={}), make)
        answerer = Answerer(config, engine=engine, started=time.time(), journal=folder / "missing" / "journal")
        answerer.begin()
        for number, gap in enumerate(gaps):
            world.wait(gap)
            began = world.time
            told = answerer.answer(problem_id=str(number), statement="1+1")
            assert told in config.competition.notebook.answers
            if given is not None:
                given.append(told)
            calls.append((began, world.time - began))
    return calls


SECONDS = st.floats(0, 3000) | st.just(NEVER)
LIVES = st.lists(
    st.builds(
        Life,
        boot_s=SECONDS,
        dies_s=SECONDS,
        draws_s=SECONDS,
        hangs=st.sampled_from([False, False, True]),
        says=st.sampled_from(["</think>\\boxed{2}", ""]),
    ),
    min_size=1,
    max_size=6,
)


@dear(30)
@given(
    rules=st.sampled_from(RULES),
    lives=LIVES,
    deadline_s=st.none() | st.floats(20, 4000),
    question_s=st.none() | st.tuples(st.floats(1, 3000), st.floats(1, 3000)),
    gaps=st.lists(st.floats(0, 600), min_size=2, max_size=5),
    left=st.sampled_from([1.0, 1.0, 0.2]),
    embedded=st.booleans(),
)
def test_no_call_outlasts_its_deadline_whatever_engines_do(
    rules: Any,
    lives: list[Life],
    deadline_s: float | None,
    question_s: tuple[float, float] | None,
    gaps: list[float],
    left: float,
    embedded: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    floor_s, ceiling_s = sorted(question_s) if question_s else (None, None)
    given_ = {"deadline_s": deadline_s, "question_min_s": floor_s, "question_max_s": ceiling_s}
    clock = NotebookClock(**{name: value for name, value in given_.items() if value is not None})
    config = KernelConfig(competition=rules, engine="vllm", embedded=embedded, policy=Policy(n=3), clock=clock)
    config = replace(config, clock=replace(config.clock, wall_s=left * config.clock.wall_s))
    calls = answer_all(config, [*lives], gaps=gaps, folder=tmp_path_factory.getbasetemp())
    clock = config.clock
    for _, took in calls[1:]:
        assert took <= 0.95 * clock.deadline_s
    for began, took in calls:
        # Of the reserve no more than the grace in which answers are read.
        assert took <= max(1e-3, clock.wall_s - clock.reserve_s + 5.0 - began)


def test_a_question_of_aimo_2_is_over_in_time_though_its_engine_dies_and_boots_slowly(tmp_path: Path) -> None:
    # It dies 400 s into the second question, and again 150 s after its restart.
    lives = [
        Life(boot_s=boot_s, dies_s=dies_s, draws_s=450.0, hangs=False, says="</think>\\boxed{2}")
        for boot_s, dies_s in [(10.0, 850.0), (700.0, 150.0), (700.0, 10.0)]
    ]
    config = KernelConfig(competition=competition("aimo-2"), engine="vllm", policy=Policy(n=1))
    _, (_, took) = answer_all(config, lives, gaps=[0, 0], folder=tmp_path)
    assert 400 + 700 + 150 < took < 0.95 * 1800


@dear(30)
@given(
    dies=st.lists(st.floats(30, 900), min_size=1, max_size=8),
    failed=st.integers(0, 3),
    gaps=st.lists(st.floats(0, 600), min_size=2, max_size=12),
)
def test_no_question_is_lost_while_vllm_can_answer_where_nothing_else_can(
    dies: list[float], failed: int, gaps: list[float], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """It boots in ten seconds and answers in five, but for the first boots, and dies between questions and in them."""
    life: dict[str, Any] = {"draws_s": 5.0, "hangs": False, "says": "</think>\\boxed{2}"}
    lives = [Life(boot_s=10.0, dies_s=dies_s, **life) for dies_s in dies]
    first = [Life(boot_s=NEVER, dies_s=0.0, **life)] * failed
    config = KernelConfig(engine="vllm", embedded=False, policy=Policy(n=1))
    given_: list[int] = []
    answer_all(config, [*first, *lives], gaps=gaps, folder=tmp_path_factory.getbasetemp(), given=given_)
    assert given_[failed > 2 :] == [2] * (len(gaps) - (failed > 2))


@dear(30)
@given(
    needs=st.floats(0.0, 3.5),
    failed=st.integers(0, 3),
    cause=st.sampled_from(["GPU memory", "NCCL", "no memory for the cache", "a port that is taken"]),
    dies_s=st.floats(30, 900),
    gaps=st.lists(st.floats(0, 600), min_size=3, max_size=8),
)
def test_what_failed_the_first_boots_costs_no_later_question_though_smaller_settings_never_load_the_model(
    needs: float, failed: int, cause: str, dies_s: float, gaps: list[float], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The build's own settings load it as soon as the cause has passed: 0.9 of each of four GPUs."""
    life = Life(boot_s=10.0, dies_s=dies_s, draws_s=5.0, hangs=False, says="</think>\\boxed{2}")
    lives = [*[replace(life, fails=cause)] * failed, life]
    config = KernelConfig(engine="vllm", embedded=False, policy=Policy(n=1))
    given_: list[int] = []
    answer_all(config, lives, gaps=gaps, folder=tmp_path_factory.getbasetemp(), given=given_, needs=needs)
    assert given_[1:] == [2] * (len(gaps) - 1)


@pytest.mark.parametrize("failed", [0, 1, 2, 3])
def test_settings_that_boot_and_die_before_a_sample_are_not_kept_to(failed: int, tmp_path: Path) -> None:
    """As with 0.9 of four GPUs, where another process takes some when samples are drawn; 0.8 of them serve."""
    life = Life(boot_s=10.0, dies_s=900.0, draws_s=5.0, hangs=False, says="</think>\\boxed{2}")
    lives = [*[replace(life, fails="a port that is taken")] * failed, life]
    config = KernelConfig(engine="vllm", embedded=False, policy=Policy(n=1))
    given_: list[int] = []
    answer_all(config, lives, gaps=[0.0] * 6, folder=tmp_path, given=given_, most=3.3)
    assert given_[3:] == [2, 2, 2]
