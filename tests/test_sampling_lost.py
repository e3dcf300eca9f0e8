"""The vllm and ray engines where what draws their samples goes wrong: an answer, or a lost try, never a traceback."""

import asyncio
import os
import re
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mathlete.errors import UserError
from mathlete.lost import LostTry
from mathlete.models import find_model, load_prompt_format
from mathlete.problems import Problem
from mathlete.sampling.samples import Sample, SamplingConfig
from mathlete.sampling.served import ray_engine, vllm_engine
from mathlete.sampling.served.ray_engine import RaySampler, RaySettings
from mathlete.sampling.served.vllm_engine import VllmSampler
from mathlete.sampling.served.vllm_settings import VllmSettings
from mathlete.solve.clock import RealClock
from mathlete.solve.policy import Policy
from mathlete.solve.solver import solve

PROBLEM = Problem(id="p", statement="What is 3 + 4?", gold="7")
CONFIG = SamplingConfig(max_tokens=40)
PROMPTS = load_prompt_format(find_model("pocket"))
SAID = "3 + 4 is 7.\n</think>\n\n\\boxed{7}"
TOKENS = PROMPTS.ids(SAID)
Script = Callable[[], AsyncGenerator[Any, None]]


class Broken(Exception):
    """What vLLM raises where one request goes wrong."""


class Dead(Exception):
    """What vLLM raises once its process has ended."""


def reply(tokens: list[int], logprob: Any = -0.5, reason: str | None = None, **more: Any) -> Any:
    """A part of a completion, as vLLM gives it."""
    scores = [{token: SimpleNamespace(logprob=logprob)} for token in tokens]
    said = SimpleNamespace(**{"token_ids": tokens, "logprobs": scores, "finish_reason": reason, **more})
    return SimpleNamespace(outputs=[said])


def script(*replies: Any) -> Script:
    async def generate() -> AsyncGenerator[Any, None]:
        for one in replies:
            if isinstance(one, Exception):
                raise one
            if isinstance(one, float):
                await asyncio.sleep(one)
            else:
                yield one

    return generate


GOOD = script(*(reply([token]) for token in TOKENS), reply([], reason="stop"))
LOST: dict[str, tuple[Script, str]] = {
    **{
        reason: (script(reply(TOKENS[:3]), reply([], reason=reason)), f"another reason than eos or length: {reason}")
        for reason in ("abort", "error", "repetition", "stop", "length")
    },
    "no end": (script(reply(TOKENS[:3])), "another reason than eos or length: None"),
    "nothing": (script(), "another reason than eos or length: None"),
    "NaN": (script(reply(TOKENS, float("nan"))), "must be a number, and was nan"),
    "-Infinity": (script(reply(TOKENS, float("-inf"))), "must be a number, and was -inf"),
    "a logprob in words": (script(reply(TOKENS, "-0.5")), "must be a number, and was -0.5"),
    "no logprobs": (script(reply(TOKENS, logprobs=None)), "tokens came with 0 log-probabilities"),
    "a logprob too few": (script(reply(TOKENS[:2], logprobs=[{}])), "2 tokens came with 1 log-probabilities"),
    "another token's logprob": (script(reply([7], logprobs=[{8: None}])), "token 7 came without its log-probability"),
    "two completions": (script(SimpleNamespace(outputs=[None, None])), "one completion was asked for, and 2 came"),
    "silence": (script(60.0), "no token came for 0.3 s"),
    "silence midway": (script(reply(TOKENS[:3]), 60.0), "no token came for 0.3 s"),
    "a broken request": (script(reply(TOKENS[:3]), Broken("CUDA out of memory")), "Broken: CUDA out of memory"),
}


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[VllmSampler, list[LostTry]]]]:
    """Opens an engine whose vLLM goes by a script: for its first requests, and then for all others."""
    samplers: list[VllmSampler] = []

    def start(*first: Script, then: Script = GOOD) -> tuple[VllmSampler, list[LostTry]]:
        scripts, lost = [*first], list[LostTry]()

        def generate(prompt: Any, params: Any, name: str) -> AsyncGenerator[Any, None]:
            return (scripts.pop(0) if scripts else then)()

        limits = SimpleNamespace(model_config=SimpleNamespace(max_model_len=1000))
        engine = SimpleNamespace(generate=generate, vllm_config=limits, shutdown=lambda: None)

        async def start_vllm(*_: Any, **__: Any) -> Any:
            return engine

        errors = vllm_engine._EngineErrors(recoverable=(Broken,), final=(Dead,))
        monkeypatch.setattr(vllm_engine, "_start_vllm", start_vllm)
        monkeypatch.setattr(vllm_engine, "_engine_errors", lambda: errors)
        monkeypatch.setattr(vllm_engine, "_sampling_params", lambda *_, **__: None)
        settings = VllmSettings(patience_s=0.3)
        samplers.append(VllmSampler(settings, source=find_model("pocket"), prompts=PROMPTS, on_lost=lost.append))
        return samplers[-1], lost

    yield start
    for sampler in samplers:
        sampler.close()


def draw(sampler: Any, n: int = 1) -> list[Sample]:
    return [*sampler.stream(PROBLEM, seeds={index: 100 + index for index in range(n)}, config=CONFIG)]


@pytest.mark.parametrize("name", [*LOST])
def test_what_vllm_loses_is_drawn_again_and_ends_the_run_where_it_never_comes(name: str, scripted: Any) -> None:
    behave, reason = LOST[name]
    sampler, lost = scripted(behave)
    (drawn,) = draw(sampler)
    assert (drawn.text, drawn.finish, drawn.tokens) == (SAID, "boxed", len(TOKENS))
    assert [(one.problem_id, one.seed, one.where) for one in lost] == [("p", 100, "vllm")]
    assert reason in lost[0].reason
    assert lost[0].text in ("", PROMPTS.tokenizer.decode(TOKENS[:3]))
    never, lost = scripted(then=behave)
    with pytest.raises(UserError) as caught:
        draw(never, 2)
    assert f"vLLM must give a whole sample in 3 tries, got for problem p: {reason}"[:60] in str(caught.value)
    assert reason in str(caught.value)
    assert len(lost) >= 3


@pytest.mark.parametrize("name", ["abort", "NaN", "silence midway"])
def test_a_clock_ends_a_problem_whatever_vllm_does(name: str, scripted: Any) -> None:
    sampler, _ = scripted(GOOD, then=LOST[name][0])
    policy = Policy(n=2, sampling=CONFIG)
    began = time.monotonic()
    try:
        solution = solve(PROBLEM, sampler=sampler, clock=RealClock(), policy=policy, timeout_s=0.2)
        assert solution.ended == "time"
        assert len(solution.samples) <= 1
    except UserError as error:
        # Three tries may be over before the time is.
        assert "in 3 tries" in str(error)  # noqa: PT017
    assert time.monotonic() - began < 5


def test_more_tokens_than_asked_for_are_cut(scripted: Any) -> None:
    sampler, lost = scripted(then=script(reply([*PROMPTS.ids("a") * 100])))
    assert [(one.tokens, one.finish) for one in draw(sampler)] == [(40, "length")]
    assert lost == []


def test_a_dead_vllm_ends_the_run_at_once(scripted: Any) -> None:
    sampler, lost = scripted(then=script(Dead("see above")))
    with pytest.raises(UserError, match=r"got for problem p: Dead: see above"):
        draw(sampler)
    assert lost == []


# ---- workers of a real cluster ----


class FaultyWorker:
    """A worker that goes wrong for its first calls, which it counts on disk: it may be another process by then."""

    folder = Path(os.environ.get("FAULTY_WORKER", "/nonexistent"))

    def __init__(self, *_: Any) -> None:
        self._faults = (self.folder / "faults").read_text().split()

    def ready(self) -> bool:
        if "unready" in self._faults:
            raise UserError("the model must load", value="half a file", cure="fetch it again")
        return True

    def draw(self, problem: Problem, index: int, seed: int, *_: Any) -> Sample:
        with (self.folder / "calls").open("a") as calls:
            calls.write("x")
        number = (self.folder / "calls").stat().st_size
        fault = self._faults[number - 1] if number <= len(self._faults) else self._faults[-1]
        if fault == "raise":
            raise RuntimeError("CUDA out of memory\nat a place")
        if fault == "refuse":
            raise UserError("the prompt must leave room", value="9 tokens", cure="take a longer context")
        if fault == "die":
            os._exit(1)
        if fault == "hang":
            time.sleep(600)
        return Sample.of_tokens(
            problem_id=problem.id, index=index, seed=seed, text=SAID, tokens=9, finish="boxed", seconds=1.0, logprobs=[]
        )


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    pytest.importorskip("ray", reason="needs ray, the extra `ray`")
    monkeypatch.setenv("FAULTY_WORKER", str(tmp_path))
    monkeypatch.setattr(ray_engine, "_SamplingWorker", FaultyWorker)
    opened: list[RaySampler] = []

    def start(*faults: str, patience_s: float = 60.0) -> tuple[RaySampler, list[LostTry]]:
        (tmp_path / "faults").write_text(" ".join(faults))
        lost: list[LostTry] = []
        settings = RaySettings(workers=1, cpus=0.5, at_once=1, patience_s=patience_s)
        opened.append(RaySampler(settings, source=find_model("pocket"), on_lost=lost.append))
        return opened[-1], lost

    yield start
    for sampler in opened:
        sampler.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("faults", "reasons"),
    [
        (["good"], []),
        (["raise", "good"], ["RuntimeError.*CUDA out of memory"]),
        (["die", "good"], ["ActorDiedError|ActorUnavailableError|WorkerCrashedError|RayActorError"]),
        (["die", "raise", "good"], ["Error", "CUDA out of memory"]),
    ],
)
def test_what_a_worker_loses_is_drawn_again(cluster: Any, faults: list[str], reasons: list[str]) -> None:
    sampler, lost = cluster(*faults)
    assert [one.text for one in draw(sampler)] == [SAID]
    assert len(lost) == len(reasons)
    assert all(re.search(reason, one.reason) for reason, one in zip(reasons, lost, strict=True)), lost


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("raise", r"a worker must give a whole sample in 3 tries, got for problem p: .*CUDA out of memory"),
        ("refuse", r"the prompt must leave room, got 9 tokens"),
        ("hang", r"one of the workers must answer within 20 s, got 1 silent"),
    ],
)
def test_what_a_worker_never_gives_ends_the_run_in_a_sentence(cluster: Any, fault: str, message: str) -> None:
    sampler, _ = cluster(fault, patience_s=20)
    with pytest.raises(UserError, match=message):
        draw(sampler)


@pytest.mark.slow
def test_a_worker_that_cannot_load_the_model_says_so(cluster: Any) -> None:
    with pytest.raises(UserError, match="the model must load, got half a file"):
        cluster("unready")
