"""A Sampler whose samples may have their Python run: the model writes, a sandbox runs, the model goes on.

As soon as a ```python block closes, the sample leaves the engine; the block's program runs in the sample's own
interpreter, what it printed is put behind it in an ```output block, and the engine goes on from there. This is the
format of ToRA (Gou et al. 2024, arXiv:2309.17452, section 2), DeepSeekMath and NuminaMath-TIR. Many samples do so at
once, so the engine's batch stays full while programs run.

A sample is one like any other: its text holds the programs and their outputs, `tokens` counts what the model drew over
all turns and is capped as ever, `seconds` adds the programs' to the engine's. A sample in which no program was run is
the one that the engine alone would have drawn from the same prompt; each later turn has a seed made of the sample's.
"""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue

from mathlete.errors import require
from mathlete.problems import Problem
from mathlete.prompts import END_THINK, THINK, PromptFormat
from mathlete.sampling import Continuing, Sample, SamplingConfig, last_program
from mathlete.tir.protection import ProgramLimits
from mathlete.tir.python import Python, Pythons, Ran

INSTRUCTION = (
    "You may write Python in ```python blocks, with numpy and sympy. Each is run as soon as it is closed, and what it "
    "prints follows in an ```output block; variables are kept from one to the next."
)
_SPENT = "[not run: there are no runs left; give the final answer now]"


@dataclass(frozen=True, kw_only=True)
class ToolSettings:
    """Python that the model writes and has run in the middle of a sample (`mathlete.tir`)."""

    turns: int = 0
    """Programs that a sample may have run; 0: none. NVIDIA's AIMO-2 winner allowed 6, Numina's AIMO-1 winner 4."""
    timeout_s: float = 6.0
    """Wall of one program, seconds. Numina 5, AIMO-3's field 6, NVIDIA 2."""
    memory_mib: int = 1024
    """Memory of a sample's programs, MiB."""
    output_chars: int = 2000
    """Characters of a program's output that the model reads, half from its start, half from its end. NVIDIA 200."""
    at_once: int | None = None
    """Programs running at the same time; default: one a core, so that the wall measures the program."""
    instruction: str = INSTRUCTION
    """Added to the model's own; "" for a model that was trained to use Python."""

    def check(self) -> None:
        """Raises UserError where a value is out of its range."""
        require(
            ("turns", self.turns, self.turns >= 0, "0 or more"),
            ("timeout-s", self.timeout_s, self.timeout_s > 0, "above 0"),
            ("memory-mib", self.memory_mib, self.memory_mib >= 64, "at least 64"),
            ("output-chars", self.output_chars, self.output_chars >= 2, "at least 2"),
            ("at-once", self.at_once, self.at_once is None or self.at_once >= 1, "at least 1"),
            prefix="--tools.",
            cure="leave it out",
        )

    @property
    def limits(self) -> ProgramLimits:
        """Of a sample's interpreter."""
        return ProgramLimits(
            timeout_s=self.timeout_s,
            memory_mib=self.memory_mib,
            output_chars=self.output_chars,
            cpu_s=round((self.turns + 1) * (self.timeout_s + 4)) + 10,
        )

    def instruct(self, prompts: PromptFormat) -> PromptFormat:
        """The prompt format with the instruction about Python added."""
        parts = [part for part in (prompts.instruction, self.instruction) if part]
        return replace(prompts, instruction=" ".join(parts)) if self.turns else prompts


@dataclass(eq=False)
class _Course:
    """One sample under way; its interpreter is used by one pool thread at a time."""

    index: int
    seed: int
    said: str = ""
    turns: list[Sample] = field(default_factory=list)
    runs: int = 0
    tool_seconds: float = 0.0
    python: Python | None = None
    over: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def tokens(self) -> int:
        return sum(turn.tokens for turn in self.turns)

    def end(self) -> None:
        """Lets the interpreter go, now or as soon as it is there."""
        with self.lock:
            self.over = True
            if self.python is not None:
                self.python.close()

    def sample(self, *, cut: bool) -> Sample:
        """All turns as one; `cut` where there are no tokens left to go on from a program."""
        last = self.turns[-1]
        return replace(
            last,
            seed=self.seed,
            text=self.said,
            tokens=self.tokens,
            finish="length" if cut else last.finish,
            seconds=round(sum(turn.seconds for turn in self.turns) + self.tool_seconds, 6),
            logprob_mean=_mean([(turn.tokens, turn.logprob_mean) for turn in self.turns]),
            logprob_tail=_tail(self.turns),
        )


@dataclass(frozen=True, kw_only=True)
class _Done:
    """A program has been run, or none was left."""

    index: int
    output: str
    seconds: float


class ToolSampler:
    """A Sampler over an engine that can go on from text. It owns the engine: closing it closes both."""

    def __init__(self, engine: Continuing, settings: ToolSettings) -> None:
        """Starts the sandbox.

        Raises:
            UserError: a setting is out of its range, or the sandbox does not start.
        """
        settings.check()
        self.name, self._engine, self._settings = engine.name, engine, settings
        self._pythons = Pythons(settings.limits)
        self._pool = ThreadPoolExecutor(settings.at_once or os.cpu_count() or 1, thread_name_prefix="mathlete-tir")

    @property
    def layers(self) -> list[str]:
        """What keeps a program from this machine: names of `mathlete.tir.protection.LAYERS`."""
        return self._pythons.layers

    def stream(
        self, problem: Problem, *, seeds: Mapping[int, int], config: SamplingConfig
    ) -> Generator[Sample, None, None]:
        """Yields one sample for each {index: seed}, in the order they finish. Closing the iterator cancels the rest.

        Raises:
            UserError: the engine's, or no interpreter can be started.
        """
        config.check()
        events: SimpleQueue[Sample | _Done | Exception] = SimpleQueue()
        courses = {index: _Course(index=index, seed=seed) for index, seed in seeds.items()}
        ends = None if config.timeout_s is None else time.monotonic() + config.timeout_s
        cancels: list[Callable[[], object]] = []
        try:
            cancels.append(self._begin(problem, courses, config, events))
            while courses:
                event = _next(events, ends)
                if event is None:
                    return
                course = courses[event.index]
                if isinstance(event, _Done):
                    course.tool_seconds += event.seconds
                    course.said += _output_block(event.output)
                    cancels.append(self._begin(problem, {event.index: course}, config, events))
                elif (sample := self._turned(course, event, config, events)) is not None:
                    del courses[event.index]
                    course.end()
                    yield sample
        finally:
            for cancel in cancels:
                cancel()
            for course in courses.values():
                course.end()

    def _begin(
        self,
        problem: Problem,
        courses: Mapping[int, _Course],
        config: SamplingConfig,
        events: "SimpleQueue[Sample | _Done | Exception]",
    ) -> Callable[[], object]:
        """Has the engine draw the next turn; all courses stand at the same place."""
        course = next(iter(courses.values()))
        return self._engine.begin(
            problem,
            seeds={index: _turn_seed(one.seed, len(one.turns)) for index, one in courses.items()},
            # A sample that has begun is to end.
            config=replace(
                config,
                max_tokens=config.max_tokens - course.tokens,
                enough=None if course.turns else config.enough,
            ),
            results=events,  # type: ignore[arg-type]  # a queue of more kinds takes these too
            said=course.said,
            # After the one refusal the model is left to itself.
            until_code=course.runs <= self._settings.turns,
        )

    def _turned(
        self, course: _Course, turn: Sample, config: SamplingConfig, events: "SimpleQueue[Sample | _Done | Exception]"
    ) -> Sample | None:
        """The sample, if this turn was its last; else its program is on its way."""
        course.turns.append(turn)
        course.said += turn.text
        program = last_program(turn.text) if turn.finish == "stop" and course.runs <= self._settings.turns else None
        if program is None or course.tokens >= config.max_tokens:
            return course.sample(cut=program is not None)
        course.runs += 1
        if course.runs > self._settings.turns:
            events.put(_Done(index=course.index, output=_SPENT, seconds=0.0))
        else:
            self._pool.submit(self._run, course, program, events)
        return None

    def _run(self, course: _Course, program: str, events: "SimpleQueue[Sample | _Done | Exception]") -> None:
        try:
            ran = self._run_in(course, program)
        except Exception as error:
            # Carried to the stream, which raises it in its caller's thread.
            events.put(error)
            return
        if ran is not None:
            events.put(_Done(index=course.index, output=ran.output, seconds=ran.seconds))

    def _run_in(self, course: _Course, program: str) -> Ran | None:
        """What the program gave in the course's interpreter, a new one where it has none; None once it is over."""
        python = course.python if course.python is not None and course.python.alive else self._pythons.open()
        with course.lock:
            course.python = python
            if course.over:
                python.close()
                return None
        return python.run(program)

    def close(self) -> None:
        """Closes the engine and ends all interpreters."""
        self._engine.close()
        self._pythons.close()
        self._pool.shutdown(wait=False, cancel_futures=True)


def _next(events: "SimpleQueue[Sample | _Done | Exception]", ends: float | None) -> Sample | _Done | None:
    try:
        event = events.get(timeout=None if ends is None else max(0.0, ends - time.monotonic()))
    except Empty:
        return None
    if isinstance(event, Exception):
        raise event
    return event


def _turn_seed(seed: int, turn: int) -> int:
    """The sample's own for its first turn: 53 bits, as `mathlete.solve.solver.sample_seed`."""
    return int.from_bytes(hashlib.sha256(f"{seed}/turn {turn}".encode()).digest()[:8]) >> 11 if turn else seed


def _output_block(output: str) -> str:
    """What the model reads after its program. A printed end of the reasoning is none."""
    shown = output.replace(END_THINK, "").replace(THINK, "").strip("\n")
    return f"\n```output\n{shown}\n```\n"


def _mean(weighed: list[tuple[int, float | None]]) -> float | None:
    known = [(tokens, value) for tokens, value in weighed if value is not None and tokens]
    total = sum(tokens for tokens, _ in known)
    return round(sum(tokens * value for tokens, value in known) / total, 6) if total else None


def _tail(turns: list[Sample]) -> float | None:
    """The mean log-probability of the last 2048 tokens drawn; of a turn that they cut, its own tail stands for them."""
    parts: list[tuple[int, float | None]] = []
    left = Sample.TAIL_TOKENS
    for turn in reversed(turns):
        parts.append((min(left, turn.tokens), turn.logprob_tail))
        left -= parts[-1][0]
    return _mean(parts)
