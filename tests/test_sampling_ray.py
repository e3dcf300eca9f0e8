"""The ray engine on a real cluster of this machine: two workers, one killed in the middle."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mathlete.errors import UserError
from mathlete.models import find_model
from mathlete.problems import read_problems, write_problems
from mathlete.sampling.samples import Sample, SamplingConfig
from mathlete.sampling.served.ray_engine import RaySampler, RaySettings
from mathlete.solve.clock import RealClock
from mathlete.solve.policy import Policy
from mathlete.solve.solver import solve
from tests.conftest import POCKET_VAL, CommandLine
from tests.draws import draw_samples

CONFIG = SamplingConfig(max_tokens=160)
PROBLEMS = read_problems(POCKET_VAL)[:12]


@pytest.fixture(scope="module")
def engine() -> Iterator[RaySampler]:
    pytest.importorskip("ray")
    settings = RaySettings(workers=2, cpus=0.5, at_once=4, patience_s=120)
    with closing(RaySampler(settings, source=find_model("pocket"))) as sampler:
        yield sampler


@pytest.mark.slow
def test_workers_draw_what_the_embedded_engine_draws(engine: RaySampler) -> None:
    from mathlete.sampling.embedded.transformers_engine import open_transformers

    with closing(open_transformers(find_model("pocket"))) as embedded:
        mine = {index: sample.text for index, sample in draw_samples(embedded, PROBLEMS[0], 6, CONFIG).items()}
    assert {index: sample.text for index, sample in draw_samples(engine, PROBLEMS[0], 6, CONFIG).items()} == mine


@pytest.mark.slow
def test_a_killed_worker_loses_nothing_and_nothing_counts_twice(engine: RaySampler) -> None:
    before = {problem.id: draw_samples(engine, problem, 8, CONFIG) for problem in PROBLEMS[:3]}
    internals: Any = engine
    arrived: list[Sample] = []
    for number, problem in enumerate(PROBLEMS[:6]):
        stream = engine.stream(problem, seeds={i: 2**52 + i for i in range(8)}, config=CONFIG)
        arrived.append(next(stream))
        if number == 2:
            internals._ray.kill(internals._workers[0], no_restart=False)
        arrived += stream
    keys = [(sample.problem_id, sample.index) for sample in arrived]
    assert len(keys) == len(set(keys)) == 48
    again = {(sample.problem_id, sample.index): sample.text for sample in arrived}
    for name, samples in before.items():
        assert all(again[name, index] == sample.text for index, sample in samples.items())


@pytest.mark.slow
def test_an_early_stop_leaves_the_workers_to_the_next_problem(engine: RaySampler) -> None:
    policy = Policy(n=16, stop="votes1", sampling=CONFIG)
    solution = solve(PROBLEMS[3], sampler=engine, clock=RealClock(), policy=policy, timeout_s=60)
    started = time.monotonic()
    assert len(draw_samples(engine, PROBLEMS[4], 2, CONFIG)) == 2
    assert len(solution.samples) < 16
    assert time.monotonic() - started < 60


def count_drawing(worker: Any) -> int:
    return len(worker._drawing)


@pytest.mark.slow
def test_at_a_deadline_the_workers_tell_what_they_were_saying_and_answer(engine: RaySampler) -> None:
    from mathlete.sampling.embedded.transformers_engine import open_transformers

    seeds = {index: index for index in range(400)}
    config = replace(CONFIG, timeout_s=2.0)
    late = [one for one in engine.stream_all(PROBLEMS[5], seeds=seeds, config=config) if one.finish == "clock"]
    assert 1 <= len(late) <= 8  # all that two workers draw at once
    assert all(one.text and one.answer is None for one in late)
    # Their workers are free at once: what was stopped goes on nowhere.
    internals: Any = engine
    while any(internals._ray.get([one.__ray_call__.remote(count_drawing) for one in internals._workers])):
        time.sleep(0.1)
    forced = {one.index: one.text for one in engine.force_answers(PROBLEMS[5], cut=late, max_tokens=16)}
    with closing(open_transformers(find_model("pocket"))) as embedded:
        whole = embedded.stream(PROBLEMS[5], seeds={one.index: one.seed for one in late}, config=CONFIG)
        texts = {one.index: one.text for one in whole}
        assert all(texts[one.index].startswith(one.text) for one in late)
        tails = embedded.force_answers(PROBLEMS[5], cut=late, max_tokens=16)
        assert forced == {one.index: one.text for one in tails}
    # All of it on the clock of a question.
    began = time.monotonic()
    policy = Policy(n=400, stop="none", sampling=CONFIG, harvest=0.5)
    solution = solve(PROBLEMS[5], sampler=engine, clock=RealClock(), policy=policy, timeout_s=6, thinking=True)
    assert solution.ended == "time"
    assert solution.unfinished
    assert {one.index for one in solution.unfinished} <= {one.index for one in solution.voting if one.harvest}
    assert solution.seconds <= 6.5
    assert time.monotonic() - began < 30


def test_settings_of_workers_are_checked() -> None:
    for settings, message in (
        (RaySettings(workers=0), "--ray.workers must be at least 1, got 0"),
        (RaySettings(at_once=0), "--ray.at-once must be at least 1, got 0"),
    ):
        with pytest.raises(UserError, match=message):
            settings.check()


@pytest.mark.slow
def test_eval_runs_on_ray(engine: RaySampler, tmp_path: Path, evaluate: CommandLine) -> None:
    write_problems(tmp_path / "two.jsonl", PROBLEMS[:2])
    # The cluster of the other tests is joined by its address.
    internals: Any = engine
    address = internals._ray.get_runtime_context().gcs_address
    words = ["two.jsonl", "--model", "pocket", "--engine", "ray", "--ray.address", address, "--ray.cpus", "0.2", "--n"]
    assert evaluate.process(*words, 3, "--json", folder=tmp_path).result["samples"] == 6


@pytest.mark.slow
def test_a_closed_engine_ends_every_stream(engine: RaySampler) -> None:
    """Else the solver's threads would keep a stopped process for ever. The last test: it ends the cluster."""
    stream = engine.stream(PROBLEMS[0], seeds={i: i for i in range(64)}, config=CONFIG)
    next(stream)
    closes = threading.Thread(target=engine.close)
    closes.start()
    with pytest.raises(RuntimeError, match="it was closed"):
        list(stream)
    closes.join()
    with pytest.raises(RuntimeError, match="it was closed"):
        next(engine.stream(PROBLEMS[0], seeds={0: 0}, config=CONFIG))
