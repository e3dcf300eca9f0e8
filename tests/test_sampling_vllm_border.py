"""vLLM in process where it goes wrong: an answer, a lost try with its words, or one sentence; never a traceback.

The records and errors are vLLM's own where it is installed, else those of `tests/vllm_like.py`; what comes of a request
goes by a script.
"""

import asyncio
import importlib
import json
import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mathlete.errors import UserError
from mathlete.lost import EngineGone, LostTry
from mathlete.models import find_model, load_prompt_format
from mathlete.problems import Problem
from mathlete.sampling.samples import Sample, SamplingConfig
from mathlete.sampling.served.vllm_engine import VllmSampler
from mathlete.sampling.served.vllm_settings import VllmSettings
from mathlete.solve.clock import RealClock
from mathlete.solve.policy import Policy
from mathlete.solve.solver import solve
from tests import vllm_like
from tests.conftest import POCKET_VAL, CommandLine, sample
from tests.vllm_like import HERE, AsyncLLM, Request, stand_in, vllm_name, wrap_error

PROBLEM = Problem(id="p", statement="What is 3 + 4?", gold="7")
CONFIG = SamplingConfig(max_tokens=40)
PROMPTS = load_prompt_format(find_model("pocket"))
SAID = "3 + 4 is 7.\n</think>\n\n\\boxed{7}"
TOKENS = PROMPTS.ids(SAID)
BEGUN = TOKENS[:3]
PATIENCE_S = 0.3
LONG = 60.0


def reply(tokens: Any, logprob: Any = -0.5, *, finish: Any = None, **more: Any) -> Any:
    """A part of a completion, as vLLM gives it."""
    known = tokens if isinstance(tokens, list) else []
    scores = [{token: vllm_name("Logprob")(logprob=logprob, rank=1)} for token in known]
    said = {"index": 0, "text": "", "token_ids": tokens, "cumulative_logprob": None, "logprobs": scores}
    output = vllm_name("CompletionOutput")(**{**said, "finish_reason": finish, **more})
    return whole([output], finished=finish is not None)


def whole(outputs: Any, *, finished: bool = False) -> Any:
    ids = PROMPTS.prompt_ids(PROBLEM.statement)
    return vllm_name("RequestOutput")(
        request_id="mathlete-0",
        prompt=None,
        prompt_token_ids=ids,
        prompt_logprobs=None,
        outputs=outputs,
        finished=finished,
    )


def endless() -> Callable[[], AsyncGenerator[Any, None]]:
    """Replies without a token, for ever."""

    async def generate() -> AsyncGenerator[Any, None]:
        while True:
            await asyncio.sleep(0.01)
            yield reply([])

    return generate


def closing_by(error: BaseException | float) -> Callable[[], AsyncGenerator[Any, None]]:
    """All tokens, and more to come; to abort it takes for ever, or ends in an error."""

    async def generate() -> AsyncGenerator[Any, None]:
        try:
            for token in TOKENS:
                yield reply([token])
            await asyncio.sleep(LONG)
        finally:
            if isinstance(error, BaseException):
                raise error
            await asyncio.sleep(error)

    return generate


async def stubborn() -> AsyncGenerator[Any, None]:
    """All tokens, from a generator that does not let itself be closed."""
    try:
        for token in TOKENS:
            yield reply([token])
    except GeneratorExit:
        yield reply([])


GOOD: Request = [*(reply([token]) for token in TOKENS), reply([], finish="stop")]
REASON = "vLLM ended a sample for another reason than eos or length: "
FORM = "vLLM's reply must have its form: "
LOST: dict[str, tuple[Request, str]] = {
    **{
        reason: ([reply(BEGUN), reply([], finish=reason)], REASON + reason)
        for reason in ("abort", "error", "repetition")
    },
    "stop without eos": ([reply(BEGUN), reply([], finish="stop", stop_reason="x")], REASON + "stop"),
    "length before the cap": ([reply(BEGUN), reply([], finish="length")], REASON + "length"),
    "an unknown reason": ([reply(BEGUN), reply([], finish="bored")], REASON + "bored"),
    "a reason that is a number": ([reply(BEGUN), reply([], finish=7)], REASON + "7"),
    "no end": ([reply(BEGUN)], REASON + "None"),
    "nothing": ([], REASON + "None"),
    "no reply": ([reply(BEGUN), None], REASON + "None"),
    "replies without tokens": ([reply([]), reply([])], REASON + "None"),
    "replies without tokens for ever": (endless(), "no token came for 0.3 s"),
    "NaN": ([reply(TOKENS, float("nan"))], "must be a number, and was nan"),
    "-Infinity": ([reply(TOKENS, float("-inf"))], "must be a number, and was -inf"),
    "Infinity": ([reply(TOKENS, float("inf"))], "must be a number, and was inf"),
    "a logprob of nothing": ([reply(TOKENS, None)], "must be a number, and was None"),
    "a logprob in words": ([reply(TOKENS, "-0.5")], "must be a number, and was -0.5"),
    "a logprob above 0": ([reply(TOKENS, 3.0)], "must be at most 0, and was 3.0"),
    "no logprobs": ([reply(TOKENS, logprobs=None)], "tokens came with 0 log-probabilities"),
    "a logprob too few": ([reply(TOKENS[:2], logprobs=[{}])], "2 tokens came with 1 log-probabilities"),
    "another token's logprob": ([reply([7], logprobs=[{8: None}])], "token 7 came without its log-probability"),
    "a place without logprobs": ([reply([7], logprobs=[None])], FORM + "TypeError"),
    "a logprob that is a float": ([reply([7], logprobs=[{7: -0.5}])], FORM + "AttributeError: 'float'"),
    "two completions": ([whole([reply([7]).outputs[0]] * 2)], "one completion was asked for, and 2 came"),
    "no completion": ([whole([])], "one completion was asked for, and 0 came"),
    "no list of completions": ([whole(None)], FORM + "TypeError"),
    "an error's record": ([whole([{"error": "full"}])], FORM + "AttributeError"),
    "a text in place of a reply": (["data: {}"], FORM + "AttributeError: 'str'"),
    "no list of tokens": ([reply(None)], FORM + "TypeError"),
    "a number in place of tokens": ([reply(7)], FORM + "TypeError"),
    **{
        f"the token {token!r}": ([reply([token])], f"a token must be a number of the vocabulary, and was {token!r}")
        for token in (None, "7", True, -1, 7.0, 2**40)
    },
    "silence": ([LONG], "no token came for 0.3 s"),
    "silence midway": ([reply(BEGUN), LONG], "no token came for 0.3 s"),
    "silence after all": ([reply(TOKENS[:-1]), reply([]), LONG], "no token came for 0.3 s"),
    "a drip that is too slow": ([reply(BEGUN), 0.6, *(reply([one]) for one in TOKENS[3:])], "no token came for 0.3 s"),
    "a broken request": (
        [reply(BEGUN), wrap_error(RuntimeError("CUDA out of memory"))],
        "EngineGenerateError: CUDA out",
    ),
    "a request that is broken at once": ([wrap_error(AssertionError())], "EngineGenerateError"),
    "an error of the server's kind": ([reply(BEGUN), vllm_like.GenerationError("later")], "GenerationError: later"),
    **{
        f"{type(error).__name__}{' midway' * bool(first)}": ([*first, error], f"{type(error).__name__}: {error}"[:40])
        for first in ([], [reply(BEGUN)])
        for error in (
            RuntimeError("CUDA error: an illegal memory access was encountered"),
            AssertionError("assert isinstance(out, RequestOutput)"),
            KeyError("mathlete-0"),
            TypeError("'NoneType' object is not iterable"),
            ConnectionResetError(104, "Connection reset by peer"),
            MemoryError("Cannot allocate memory"),
            TimeoutError("RPC call to sample_tokens timed out."),
            UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
            json.JSONDecodeError("Expecting value", "x", 0),
            SystemExit(1),
        )
    },
    "cancelled by vLLM": ([reply(BEGUN), asyncio.CancelledError()], "vLLM cancelled the request"),
}
"""{behaviour: (what a request brings, the words of its lost try)}."""
FINAL: dict[str, tuple[Callable[[], Exception], str, type[UserError]]] = {
    "the engine's death": (
        lambda: vllm_name("EngineDeadError")(),
        "EngineDeadError: EngineCore encountered",
        EngineGone,
    ),
    "a refusal": (lambda: vllm_name("VLLMValidationError")("The prompt is empty"), "The prompt is empty", UserError),
}
"""Errors after which no other try is worth it."""
FINE: dict[str, tuple[Request, str, int, str]] = {
    "all at once": ([reply(TOKENS, finish="stop")], SAID, len(TOKENS), "boxed"),
    "more after the end": ([reply([*TOKENS, *TOKENS])], SAID, len(TOKENS), "boxed"),
    "more than asked for": ([reply([*PROMPTS.ids("a") * 100])], "a" * 40, 40, "length"),
    "a text of half characters": ([reply(TOKENS, text="\ud800")], SAID, len(TOKENS), "boxed"),
    "a text of other characters": ([reply(TOKENS, text="\ufffd\0")], SAID, len(TOKENS), "boxed"),
    "no text": ([reply(TOKENS, text=None)], SAID, len(TOKENS), "boxed"),
    "a token beyond the vocabulary": ([reply([10**6, *TOKENS])], SAID, len(TOKENS) + 1, "boxed"),
    "a probability rounded up": ([reply(TOKENS, 0.01)], SAID, len(TOKENS), "boxed"),
    "a drip within the patience": ([reply([]), 0.05, *(one for t in TOKENS for one in (reply([t]), 0.01))], SAID,
                                   len(TOKENS), "boxed"),
    "an abort that never ends": (closing_by(LONG), SAID, len(TOKENS), "boxed"),
    "an abort that fails": (closing_by(RuntimeError("the socket is closed")), SAID, len(TOKENS), "boxed"),
    "a stubborn generator": (stubborn, SAID, len(TOKENS), "boxed"),
}  # fmt: skip
"""{behaviour: (what a request brings, the sample's text, tokens and finish)}."""


class Opened:
    """An engine that is open, its script, and what was lost."""

    def __init__(self) -> None:
        self.lost: list[LostTry] = []
        settings = VllmSettings(patience_s=PATIENCE_S)
        self.sampler = VllmSampler(settings, source=find_model("pocket"), prompts=PROMPTS, on_lost=self.lost.append)
        self.llm: Any = vars(self.sampler)["_engine"]

    def follow(self, *first: Request, then: Request = GOOD) -> None:
        self.llm.first, self.llm.then, self.llm.begun, self.llm.closed = [*first], then, 0, 0
        self.lost.clear()

    def draw(self, n: int = 1, **more: Any) -> list[Sample]:
        config = SamplingConfig(max_tokens=40, **more)
        return [*self.sampler.stream(PROBLEM, seeds={index: 100 + index for index in range(n)}, config=config)]


@pytest.fixture(scope="module")
def module_patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mathlete.sampling.served.vllm_engine._ABORT_S", 0.2)
        stand_in(patch)
        yield patch


@pytest.fixture(scope="module")
def opened(module_patch: pytest.MonkeyPatch) -> Iterator[Opened]:
    one = Opened()
    yield one
    one.sampler.close()


@pytest.mark.parametrize("name", LOST)
def test_what_vllm_loses_is_drawn_again_and_ends_the_run_where_it_never_comes(name: str, opened: Opened) -> None:
    behave, reason = LOST[name]
    opened.follow(behave)
    (drawn,) = opened.draw()
    assert (drawn.text, drawn.finish, drawn.tokens) == (SAID, "boxed", len(TOKENS))
    assert [(one.problem_id, one.seed, one.where) for one in opened.lost] == [("p", 100, "vllm")]
    assert reason in opened.lost[0].reason
    assert opened.lost[0].text in ("", *(PROMPTS.tokenizer.decode(TOKENS[:n]) for n in (3, len(TOKENS) - 1)))
    opened.lost[0].reason.encode()
    opened.follow(then=behave)
    with pytest.raises(UserError) as caught:
        opened.draw(2)
    assert f"vLLM must give a whole sample in 3 tries, got for problem p: {reason}"[:60] in str(caught.value)
    assert reason in str(caught.value)
    assert len(opened.lost) >= 3


@pytest.mark.parametrize("name", FINAL)
def test_what_no_other_try_can_mend_ends_the_run_at_once(name: str, opened: Opened) -> None:
    make, words, kind = FINAL[name]
    for before in ([], [reply(BEGUN)]):
        opened.follow(then=[*before, make()])
        with pytest.raises(UserError) as caught:
            opened.draw()
        assert type(caught.value) is kind
        assert words in str(caught.value)
        assert (opened.lost, opened.llm.begun) == ([], 1)


@pytest.mark.parametrize("name", FINE)
def test_what_is_odd_and_whole_is_taken(name: str, opened: Opened) -> None:
    behave, text, tokens, finish = FINE[name]
    opened.follow(then=behave)
    began = time.monotonic()
    assert [(one.text, one.tokens, one.finish) for one in opened.draw(2)] == [(text, tokens, finish)] * 2
    assert opened.lost == []
    assert time.monotonic() - began < 10


CLOCKED = {**{name: behave for name, (behave, _) in LOST.items()}, **{name: row[0] for name, row in FINE.items()}}


@pytest.mark.parametrize(
    "name", sample("abort", "NaN", "silence midway", "cancelled by vLLM", "an abort that never ends",
                   slow=[one for one in CLOCKED if one not in ("abort", "NaN", "silence midway", "cancelled by vLLM",
                                                               "an abort that never ends")])
)  # fmt: skip
def test_a_clock_ends_a_problem_whatever_vllm_does(name: str, opened: Opened) -> None:
    opened.follow(GOOD, then=CLOCKED[name])
    began = time.monotonic()
    try:
        policy = Policy(n=2, sampling=CONFIG)
        solution = solve(PROBLEM, sampler=opened.sampler, clock=RealClock(), policy=policy, timeout_s=0.2)
        assert solution.ended == "time" or name in FINE
    except UserError as error:
        # Three tries may be over before the time is.
        assert "in 3 tries" in str(error)  # noqa: PT017
    assert time.monotonic() - began < 5


def test_a_sample_that_nobody_waits_for_is_aborted(opened: Opened) -> None:
    opened.follow(GOOD, then=[reply(BEGUN), 0.1, LONG])
    stream = opened.sampler.stream(PROBLEM, seeds={0: 1, 1: 2, 2: 3}, config=CONFIG)
    next(stream)
    stream.close()
    ends = time.monotonic() + 10
    while opened.llm.closed < opened.llm.begun and time.monotonic() < ends:
        time.sleep(0.01)
    assert opened.llm.closed == opened.llm.begun
    assert opened.lost == []


def test_a_setting_that_vllm_does_not_take_is_one_sentence(opened: Opened) -> None:
    with pytest.raises(UserError, match=r"vLLM must take what --sampling.temperature, .*, got temperature must be in"):
        opened.draw(temperature=3)


def test_the_command_keeps_what_was_lost_and_ends_in_a_sentence(
    module_patch: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch, workdir: Path, evaluate: CommandLine
) -> None:
    scripts: list[Request] = [LOST["NaN"][0], GOOD, GOOD]
    monkeypatch.setattr(vllm_like.AsyncLLM, "from_engine_args", lambda _: AsyncLLM(first=[*scripts], then=endless()))
    words = (POCKET_VAL, "--model", "pocket", "--engine", "vllm", "--vllm.patience-s", 0.2, "--limit", 1, "--n", 4)
    ended = evaluate(*words, "--run", "run")
    assert "vLLM must give a whole sample in 3 tries, got for problem " in ended.refusal
    assert ": no token came for 0.2 s" in ended.refusal
    assert "Traceback" not in ended.stderr + ended.stdout
    kept = [json.loads(line) for line in Path("run/samples.jsonl").read_text().splitlines()]
    assert [one["text"] for one in kept] == [SAID, SAID]
    lost = [json.loads(line)["reason"] for line in Path("run/lost.jsonl").read_text().splitlines()]
    assert "a token's log-probability must be a number, and was nan" in lost
    scripts[:] = []
    monkeypatch.setattr(vllm_like.AsyncLLM, "from_engine_args", lambda _: AsyncLLM(then=GOOD))
    assert evaluate(*words, "--run", "run", "--json").result["samples"] == 4


LOADING: dict[str, tuple[BaseException, str]] = {
    type(error).__name__: (error, f"got {type(error).__name__}{words and ': '}{words}")
    for error, words in (
        (ValueError("Unknown quantization method: exl3"), "Unknown quantization method: exl3"),
        (RuntimeError("Engine core initialization failed."), "Engine core initialization failed."),
        (AssertionError(), ""),
        (KeyError("model.layers.0.self_attn.qkv_proj"), "'model.layers.0.self_attn.qkv_proj'"),
        (NotImplementedError("no such kernel"), "no such kernel"),
        (TypeError("unsupported operand"), "unsupported operand"),
        (AttributeError("'Config' object has no attribute 'x'"), "'Config' object"),
        (OSError(28, "No space left on device"), "[Errno 28]"),
        (SystemExit(1), "1"),
        (asyncio.IncompleteReadError(b"", 4), "0 bytes read"),
    )
}


@pytest.mark.parametrize("name", sample("ValueError", slow=[one for one in LOADING if one != "ValueError"]))
def test_a_vllm_that_does_not_come_up_is_one_sentence(
    name: str, module_patch: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    error, words = LOADING[name]

    def fail(_: Any) -> Any:
        raise error

    monkeypatch.setattr(importlib.import_module("vllm.v1.engine.async_llm").AsyncLLM, "from_engine_args", fail)
    with pytest.raises(UserError) as caught:
        Opened()
    assert "vLLM must be able to load " in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.skipif(HERE, reason="vllm is installed")
@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import libcudart_of_vllm", "ModuleNotFoundError: No module named 'libcudart_of_vllm'"),
        ("raise ImportError('libcudart.so.13: cannot open shared object file')", "ImportError: libcudart.so.13"),
        ("raise RuntimeError('Failed to infer device type')", "RuntimeError: Failed to infer device type"),
        *(
            pytest.param(*row, marks=pytest.mark.slow)
            for row in (
                ("raise SystemExit(3)", "SystemExit: 3"),
                ("1 / 0", "ZeroDivisionError: division by zero"),
                ("x = (", "SyntaxError: "),
                ("raise ImportError", "ImportError"),
            )
        ),
    ],
)
def test_a_package_that_cannot_be_imported_is_one_sentence(
    source: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in vllm_like.NAMES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError) as caught:
        Opened()
    assert f"the vllm package must be fit for this machine, got {words}" in str(caught.value)


def test_a_shutdown_that_fails_loses_nothing(module_patch: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Opened()

    def fail(timeout: float | None = None) -> None:
        raise OSError(9, "Bad file descriptor")

    one.llm.shutdown = fail
    one.llm.then = GOOD
    assert len(one.draw()) == 1
    one.sampler.close()
    with pytest.raises(RuntimeError, match="it was closed"):
        one.draw()
