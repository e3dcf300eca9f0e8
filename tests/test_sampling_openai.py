"""The openai engine against real servers on loopback: `transformers serve`, and `vllm serve` where there is one."""

import asyncio
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mathlete.errors import UserError
from mathlete.models import find_model, load_prompt_format
from mathlete.problems import Problem, read_problems, write_problems
from mathlete.sampling.samples import Sample, SamplingConfig
from mathlete.sampling.served.fleet import Fleet, Server
from mathlete.sampling.served.openai_engine import OpenAISampler, ServerSettings
from mathlete.shipped import data_folder
from mathlete.solve.clock import RealClock
from mathlete.solve.policy import Policy
from mathlete.solve.solver import solve
from tests.conftest import POCKET_VAL, CommandLine
from tests.draws import draw_samples

MODEL = str(data_folder() / "pocket" / "model")
CONFIG = SamplingConfig(max_tokens=200)
PROBLEMS = [p for p in read_problems(POCKET_VAL) if p.subset.startswith("easy")][:6]

NO_CLIENT: Any = None


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


CODE = "import sys; sys.argv[0] = 'transformers'; from transformers.cli.transformers import main; main()"
SERVE = {
    "transformers": ["-c", CODE, "serve", MODEL, "--device", "cpu"],
    # What `vllm serve` runs; that command itself refuses to start in the package of the CPU build.
    "vllm": [
        *("-m", "vllm.entrypoints.openai.api_server", "--model", MODEL, "--host", "127.0.0.1"),
        *(
            "--dtype",
            "float32",
            "--enforce-eager",
            "--no-enable-chunked-prefill",
            "--kv-cache-memory-bytes",
            "268435456",
        ),
    ],
}


class RealServer:
    """`transformers serve` or `vllm serve` in a process of its own."""

    def __init__(self, kind: str) -> None:
        pytest.importorskip("httpx2")
        pytest.importorskip("fastapi")
        if importlib.util.find_spec(kind) is None:
            pytest.skip(f"{kind} is not installed")
        self.kind, self.port = kind, free_port()
        command = [sys.executable, *SERVE[kind], "--port", str(self.port)]
        variables = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def wait(self) -> "RealServer":
        for _ in range(600):
            assert self.process.poll() is None
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.2)
            else:
                return self
        raise AssertionError("the server did not start")

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module", params=["transformers", "vllm"])
def server(request: pytest.FixtureRequest) -> Iterator[RealServer]:
    real = RealServer(request.param)
    try:
        yield real.wait()
    finally:
        real.kill()


def sampler(*urls: str, **more: Any) -> OpenAISampler:
    return OpenAISampler(
        ServerSettings(urls=urls, **more), model=MODEL, prompts=load_prompt_format(find_model("pocket"))
    )


@pytest.mark.slow
def test_a_real_server_gives_samples_with_all_that_a_replay_needs(server: RealServer) -> None:
    with closing(sampler(server.url, at_once=1)) as engine:
        first, again = draw_samples(engine, PROBLEMS[0], 4, CONFIG), draw_samples(engine, PROBLEMS[0], 4, CONFIG)
        greedy = draw_samples(engine, PROBLEMS[0], 2, SamplingConfig(temperature=0, max_tokens=200))
        cut = draw_samples(engine, PROBLEMS[0], 1, SamplingConfig(max_tokens=5))
    assert sorted(first) == [0, 1, 2, 3]
    assert {i: (s.text, s.tokens, s.finish) for i, s in first.items()} == {
        i: (s.text, s.tokens, s.finish) for i, s in again.items()
    }
    assert all(s.seed == 2**52 + i and s.seconds > 0 and s.tokens > 5 for i, s in first.items())
    assert any(s.finish == "boxed" and s.text.endswith("}") for s in first.values())
    assert greedy[0].text == greedy[1].text
    assert (cut[0].finish, cut[0].tokens) == ("length", 5)


@pytest.mark.slow
def test_greedy_on_a_server_is_greedy_in_the_embedded_engine(server: RealServer) -> None:
    from mathlete.sampling.embedded.transformers_engine import open_transformers

    config = SamplingConfig(temperature=0, max_tokens=200)
    with closing(sampler(server.url)) as engine:
        served = [draw_samples(engine, problem, 1, config)[0] for problem in PROBLEMS[:3]]
    with closing(open_transformers(find_model("pocket"), precision="dense")) as embedded:
        mine = [next(embedded.stream(problem, seeds={0: 0}, config=config)) for problem in PROBLEMS[:3]]
    assert [s.text for s in served] == [s.text for s in mine]


@pytest.mark.slow
def test_the_solve_loop_stops_early_and_cancels_the_rest(server: RealServer) -> None:
    with closing(sampler(server.url, at_once=1)) as engine:
        policy = Policy(n=12, stop="votes2", sampling=CONFIG)
        started = time.monotonic()
        solution = solve(PROBLEMS[1], sampler=engine, clock=RealClock(), policy=policy, timeout_s=300)
        first = time.monotonic() - started
        assert len(solution.samples) < 12
        # What was cancelled does not stand in the way of the next problem.
        draw_samples(engine, PROBLEMS[2], 1, CONFIG)
    assert solution.ended == "rule"
    assert first < 300


@pytest.mark.slow
def test_a_killed_server_s_work_moves_on_and_nothing_is_lost_or_counted_twice(server: RealServer) -> None:
    doomed = RealServer(server.kind)
    try:
        doomed.wait()
        with closing(sampler(server.url, doomed.url, at_once=2)) as engine:
            draw_samples(engine, PROBLEMS[0], 4, CONFIG)  # both have loaded the model
            arrived: list[Sample] = []
            killer = threading.Timer(0.3, doomed.kill)
            killer.start()
            for problem in PROBLEMS:
                arrived += engine.stream(problem, seeds={i: i for i in range(6)}, config=CONFIG)
            killer.join()
            assert doomed.process.poll() is not None
            # One more after the death, and one problem through the dead server's slot.
            arrived += engine.stream(
                Problem(id="last", statement=PROBLEMS[0].statement, gold="?"), seeds={0: 0, 1: 1}, config=CONFIG
            )
    finally:
        doomed.kill()
    keys = [(s.problem_id, s.index) for s in arrived]
    assert len(keys) == len(set(keys)) == 6 * len(PROBLEMS) + 2


def test_no_server_is_one_clear_error() -> None:
    pytest.importorskip("httpx2")
    with pytest.raises(UserError, match=r"one of the servers must answer, got http://127.0.0.1:\d+/v1: "):
        sampler(f"http://127.0.0.1:{free_port()}/v1")


def test_samples_cancelled_while_they_wait_leave_the_slots_to_others() -> None:
    fleet = Fleet(servers=[Server(url="u", client=NO_CLIENT, model="m", slots=1)], patience_s=60)

    async def hold(seconds: float) -> None:
        async with fleet.slot():
            await asyncio.sleep(seconds)

    async def cancel_often() -> list[object]:
        results: list[object] = []
        for turns in range(12):
            tasks = [asyncio.create_task(hold(9)) for _ in range(12)]
            # Just when those that wait look again.
            await asyncio.sleep(0.2)
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            results += await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.wait_for(hold(0), timeout=5)
        return results

    results = asyncio.run(cancel_often())
    assert {type(each) for each in results} == {asyncio.CancelledError}
    assert (fleet.waiting, fleet.servers[0].running) == (0, 0)


def test_settings_of_servers_are_checked() -> None:
    for settings, message in (
        (ServerSettings(), "--servers.urls must be at least one address"),
        (ServerSettings(urls=("http://x",), at_once=0), "--servers.at-once must be at least 1, got 0"),
        (ServerSettings(urls=("http://x",), patience_s=0), "--servers.patience-s must be above 0, got 0"),
    ):
        with pytest.raises(UserError, match=message):
            settings.check()


@pytest.mark.slow
def test_eval_runs_on_a_server_and_an_unreachable_one_is_exit_2(
    server: RealServer, workdir: Path, evaluate: CommandLine
) -> None:
    write_problems(workdir / "two.jsonl", PROBLEMS[:2])
    words = ["two.jsonl", "--model", "pocket", "--engine", "openai", "--n", "3", "--json", "--servers.urls"]
    assert "one of the servers must answer" in evaluate(*words, f"http://127.0.0.1:{free_port()}/v1").refusal
    result = evaluate(*words, server.url).result
    assert (result["samples"], result["problems"]) == (6, 2)
    assert result["right"] >= 1
