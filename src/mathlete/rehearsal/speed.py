"""How fast a rehearsal's clock may run, by what the engine draws here: no model is blamed for this machine."""

import math
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from mathlete.errors import UserError
from mathlete.kernel import EngineProcess, KernelConfig
from mathlete.problems import Problem
from mathlete.sampling import SamplingConfig
from mathlete.temporary import TemporaryFolder

FASTEST = 100.0
"""Seconds of a rehearsal's clock in a real one: five hours in three minutes."""
_WITH_VLLM = 20.0
"""The same where vLLM is the engine: it boots for a minute of real time, which no clock makes faster."""
_SMALL = 64 * 2**20
"""Bytes of weights below which a model is fast enough for either on any machine."""
_SHORT = 32
"""Tokens of each sample with which the engine's speed is measured."""
_PATIENCE_S = 60.0
"""Seconds in which half of a question's samples must end, so that its length is known and not assumed."""
_LOAD_S = 600.0
_BUSY = 1.5
"""Seconds that a second of CPU takes, from which on a machine is busy with other work."""
_SPARE = 2.0
"""A question may take so many times as long as the one that was tried."""
_VLLM_SLOWEST, _VLLM_FASTEST = 0.4, 2.7
"""How many times as many tokens a second as the embedded engine vLLM's CPU build drew (bench/RESULTS.md)."""


@dataclass(frozen=True, kw_only=True)
class ClockSpeed:
    """The speed of a rehearsal's clock."""

    factor: float
    """1 to 100: what every limit is divided by."""
    why: str
    """What it was chosen by, with seconds, in words."""


def choose_speed(model: Path, config: KernelConfig, problems: Sequence[Problem], *, asked: int) -> ClockSpeed:
    """Return the fastest speed at which this machine draws a question's samples in half of its floor.

    vLLM's CPU build runs in the notebook's container alone, so the embedded engine is tried in its place. No model is
    refused that vLLM may draw in time where it is the faster one, and the clock has time for it where it is the slower.

    Args:
        model: the model's folder.
        config: how the notebook answers.
        problems: the questions; the first is tried.
        asked: questions of all runs together.

    Raises:
        UserError: it does not draw them in real time either.
    """
    clock, by_vllm = config.clock, config.engine == "vllm"
    fastest = _WITH_VLLM if by_vllm else FASTEST
    size = sum(file.stat().st_size for file in model.glob("*.safetensors"))
    if size < _SMALL:
        boots = ", and vLLM boots for a minute of real time" if by_vllm else ""
        why = f"÷{fastest:g}: weights of {size / 2**20:.0f} MiB are drawn in time anywhere{boots}"
        return ClockSpeed(factor=fastest, why=why)
    hours = f"so a run may take its {clock.wall_s / 3600:g} hours; --stand-in pocket proves the wiring in minutes"
    try:
        tried = _try_engine(model, config, problems[0])
    except RuntimeError as error:
        if by_vllm:
            told = f"how fast vLLM draws here is not known, the embedded engine draws nothing ({error})"
            return ClockSpeed(factor=1.0, why=f"÷1: {told}, {hours}")
        # The rehearsal itself shows why, in the notebook's own environment.
        return ClockSpeed(factor=FASTEST, why=f"÷{FASTEST:g}: the engine draws nothing here ({error})")
    if tried.tokens_per_s is None:
        # A machine that is busy for a minute: how fast it is at other times is not known.
        why = f"÷1: no sample of {_SHORT} tokens ended here within {_PATIENCE_S:.0f} s, {hours}"
        return ClockSpeed(factor=1.0, why=why)
    if tried.question_s > (most_s := clock.question_max_s * (_VLLM_FASTEST if by_vllm else 1.0)):
        # It would take the hours of the real clock, to end with every question out of time.
        slowed = contention()
        faster = f", which draws {_VLLM_FASTEST:g} times as much at most"
        by = f" of the embedded engine, in vLLM's place{faster}" if by_vllm else ""
        drawn = f"{tried.tokens_per_s:.0f} tokens/s{by}"
        busy = f", where other work has a second of CPU take {slowed:.1f} s" if slowed >= _BUSY else ""
        idle = "rehearse when the machine is idle, or " if busy else ""
        raise UserError(
            "this machine must draw half of a question's samples in the longest time that a question may have",
            value=f"{tried.question_s:.0f} s of {most_s:.0f} s, {drawn}{busy}",
            cure=f"{idle}prove the wiring with --stand-in pocket; --speed 1 rehearses all the same",
        )
    # Two digits: a machine's speed is not known to more.
    spare = 1 / _VLLM_SLOWEST if by_vllm else _SPARE
    factor = min(fastest, max(1.0, float(f"{clock.question_min_s / (spare * tried.question_s):.2g}")))
    return ClockSpeed(factor=factor, why=_describe(tried, factor, config, asked=asked))


@dataclass(frozen=True, kw_only=True)
class _Tried:
    load_s: float
    tokens_per_s: float | None
    """Of all samples of a question together; None where none ended."""
    question_s: float
    """In which half of its samples end."""
    ended: bool
    """Whether they did; else the longest samples are assumed."""


def _describe(tried: _Tried, factor: float, config: KernelConfig, *, asked: int) -> str:
    n, most = config.policy.n, config.policy.sampling.max_tokens
    who = "the embedded engine, tried in vLLM's place," if config.engine == "vllm" else "the engine"
    length = f"half of {n} samples" if tried.ended else f"{n} samples of {most} tokens"
    whole_s = asked * tried.question_s + tried.load_s
    parts = [
        f"÷{factor:g}: {who} draws {tried.tokens_per_s:.0f} tokens/s here, {length} in {tried.question_s:.0f} s",
        f"a question has {config.clock.question_min_s / factor:.0f} s or more",
        f"all {asked} take about {whole_s:.0f} s",
    ]
    if config.clock.question_min_s < tried.question_s:
        slow = "this machine is too slow for real time, and the rehearsal begins all the same"
        parts.append(f"{slow}, for {whole_s / 3600:.1f} hours: --stand-in pocket proves the wiring in minutes")
    return " · ".join(parts)


def _try_engine(model: Path, config: KernelConfig, problem: Problem) -> _Tried:
    """Draw short samples, which give the speed, then the question's own.

    Raises:
        RuntimeError: the engine does not come up, or says why it draws nothing.
    """
    n, sampling = config.policy.n, config.policy.sampling
    with TemporaryFolder("speed") as folder:
        engine = EngineProcess(model, log=folder / "engine.log", precision=config.precision, prompt=config.prompt)
        try:
            began = time.monotonic()
            engine.start(timeout_s=_LOAD_S)
            load_s = time.monotonic() - began
            short = replace(sampling, max_tokens=min(_SHORT, sampling.max_tokens))
            tokens, seconds = _draw(engine, problem, short, n=n, until=n)
            if not tokens:
                return _Tried(load_s=load_s, tokens_per_s=None, question_s=math.inf, ended=False)
            tokens_per_s = tokens / seconds
            began = time.monotonic()
            tokens, seconds = _draw(engine, problem, sampling, n=n, until=(n + 1) // 2)
        finally:
            engine.close()
    # Where no sample was dropped, half of them came.
    ended = tokens > 0 and time.monotonic() - began < _PATIENCE_S
    question_s = seconds if ended else n * sampling.max_tokens / tokens_per_s
    return _Tried(load_s=load_s, tokens_per_s=tokens_per_s, question_s=question_s, ended=ended)


def _draw(
    engine: EngineProcess, problem: Problem, sampling: SamplingConfig, *, n: int, until: int
) -> tuple[int, float]:
    """Return the tokens of the first samples, so many or those that come within our patience, and the seconds taken."""
    began, tokens = time.monotonic(), 0
    config = replace(sampling, timeout_s=_PATIENCE_S, enough=n)
    with closing(engine.stream(problem, seeds={index: index for index in range(n)}, config=config)) as stream:
        for sample in islice(stream, until):
            tokens += sample.tokens
    return tokens, time.monotonic() - began


def contention(work_s: float = 0.2) -> float:
    """Return wall seconds per CPU second of this process (at least 1); it slows the clock on a loaded machine.

    >>> contention(0.01) >= 1
    True
    """
    began, used = time.perf_counter(), time.process_time()
    while time.process_time() - used < work_s:
        pass
    return max(1.0, (time.perf_counter() - began) / work_s)
