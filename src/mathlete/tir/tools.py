"""A Sampler whose samples may have their Python run: the model writes, a sandbox runs, the model goes on.

As soon as a ```python block closes, the sample leaves the engine; the block's program runs in the sample's own
interpreter, its output is appended in an ```output block, and the engine goes on from there. This is the format of ToRA
(Gou et al. 2024, arXiv:2309.17452, section 2), DeepSeekMath and NuminaMath-TIR. Many samples do so at once, so the
engine's batch stays full while programs run.

The result is a sample like any other: its text holds the programs and their outputs, `tokens` counts what the model
drew over all turns and is capped by the same setting, `seconds` adds the programs' time to the engine's. A sample in
which no program was run is the one that the engine alone would have drawn from the same prompt; each later turn has a
seed made of the sample's.
"""

import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue

from mathlete.errors import require
from mathlete.problems import Problem
from mathlete.prompts import PromptFormat
from mathlete.reasoning import remove_marks
from mathlete.sampling import Continuing, Sample, SamplingConfig, last_program
from mathlete.text import readable
from mathlete.tir.protection import ProgramLimits
from mathlete.tir.python import ProgramResult, Python, Pythons

INSTRUCTION = (
    "You may write Python in ```python blocks, with numpy and sympy. Each is run as soon as it is closed, and what it "
    "prints follows in an ```output block; variables are kept from one to the next."
)
_NOTE_CHARS = 100
"""Room for what the sandbox itself says in an output, such as how much it left out."""
_FENCE = re.compile("```")
_REFUSAL = "[not run: there are no runs left; give the final answer now]"


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
        """Raise UserError where a value is out of its range."""
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
        """Limits of a sample's interpreter."""
        return ProgramLimits(
            timeout_s=self.timeout_s,
            memory_mib=self.memory_mib,
            output_chars=self.output_chars,
            cpu_s=round((self.turns + 1) * (self.timeout_s + 4)) + 10,
        )

    def instruct(self, prompts: PromptFormat) -> PromptFormat:
        """Return the prompts with the instruction about Python added, or as they are without tools."""
        return prompts.with_further(self.instruction) if self.turns else prompts


@dataclass(eq=False)
class _Dialogue:
    """One sample under way, turn by turn; its interpreter is used by one pool thread at a time."""

    index: int
    seed: int
    said: str = ""
    """All turns and outputs so far."""
    turns: list[Sample] = field(default_factory=list)
    runs: int = 0
    """Programs that have been run or refused."""
    tool_seconds: float = 0.0
    python: Python | None = None
    closed: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def tokens(self) -> int:
        return sum(turn.tokens for turn in self.turns)

    def close(self) -> None:
        """Close the interpreter, now or as soon as it is there."""
        with self.lock:
            self.closed = True
            if self.python is not None:
                self.python.close()

    def to_sample(self, *, cut: bool) -> Sample:
        """Return all turns as one sample; `cut` where no tokens are left to go on from a program."""
        last = self.turns[-1]
        return replace(
            last,
            seed=self.seed,
            text=self.said,
            tokens=self.tokens,
            finish="length" if cut else last.finish,
            seconds=round(sum(turn.seconds for turn in self.turns) + self.tool_seconds, 6),
            logprob_mean=_mean([(turn.tokens, turn.logprob_mean) for turn in self.turns]),
            logprob_tail=_tail_mean(self.turns),
        )


@dataclass(frozen=True, kw_only=True)
class _Output:
    """What the model reads next: a program's output, or that it is not run."""

    index: int
    """Of the sample."""
    text: str
    seconds: float


_Cancel = Callable[[], Sequence[Sample] | None]
"""Cancels samples that are being drawn, and returns what they have said."""
Events = SimpleQueue[Sample | _Output | Exception]
"""A sample's turn from the engine, its program's output from the sandbox, or an error of either."""


class ToolSampler:
    """A Sampler over an engine that can continue a partial completion. It owns the engine: closing it closes both."""

    def __init__(self, engine: Continuing, settings: ToolSettings) -> None:
        """Start the sandbox.

        Raises:
            UserError: a setting is out of its range, or the sandbox does not start.
        """
        settings.check()
        self.name, self._engine, self._settings = engine.name, engine, settings
        self._pythons = Pythons(settings.limits)
        self._pool = ThreadPoolExecutor(settings.at_once or os.cpu_count() or 1, thread_name_prefix="mathlete-tir")

    @property
    def layers(self) -> list[str]:
        """Names of `mathlete.tir.protection.LAYERS` that stand between a program and this machine."""
        return self._pythons.layers

    def stream(
        self, problem: Problem, *, seeds: Mapping[int, int], config: SamplingConfig
    ) -> Generator[Sample, None, None]:
        """Yield one sample for each {index: seed}, in the order they finish. Closing the iterator cancels the rest.

        Raises:
            UserError: the engine's, or no interpreter can be started.
        """
        return self._draw(problem, seeds, config, keep=False)

    def stream_all(
        self, problem: Problem, *, seeds: Mapping[int, int], config: SamplingConfig
    ) -> Generator[Sample, None, None]:
        """See `Sampler.stream_all`: a program that is being run is cut, too."""
        return self._draw(problem, seeds, config, keep=True)

    def _draw(
        self, problem: Problem, seeds: Mapping[int, int], config: SamplingConfig, *, keep: bool
    ) -> Generator[Sample, None, None]:
        config.check()
        events: Events = SimpleQueue()
        dialogues = {index: _Dialogue(index=index, seed=seed) for index, seed in seeds.items()}
        ends = None if config.timeout_s is None else time.monotonic() + config.timeout_s
        cancels: list[_Cancel] = []
        try:
            # The first turn of all samples is one request, so that the engine reads the prompt once. Later turns come
            # one by one: each has its own text before it.
            cancels.append(self._begin_turn(problem, dialogues, config, events))
            while dialogues:
                event = _take_event(events, ends)
                if event is None:
                    if keep:
                        yield from _cut(dialogues, cancels)
                    return
                dialogue = dialogues[event.index]
                if isinstance(event, _Output):
                    dialogue.tool_seconds += event.seconds
                    dialogue.said += _output_block(event.text, most=self._settings.output_chars)
                    cancels.append(self._begin_turn(problem, {event.index: dialogue}, config, events))
                elif (sample := self._end_turn(dialogue, event, config, events)) is not None:
                    del dialogues[event.index]
                    dialogue.close()
                    yield sample
        finally:
            for cancel in cancels:
                cancel()
            for dialogue in dialogues.values():
                dialogue.close()

    def force_answers(
        self, problem: Problem, *, cut: Sequence[Sample], max_tokens: int, timeout_s: float | None = None
    ) -> Generator[Sample, None, None]:
        """See `Sampler.force_answers`: nothing is run any more."""
        return self._engine.force_answers(problem, cut=cut, max_tokens=max_tokens, timeout_s=timeout_s)

    def _begin_turn(
        self, problem: Problem, dialogues: Mapping[int, _Dialogue], config: SamplingConfig, events: Events
    ) -> _Cancel:
        """Have the engine draw the next turn of samples that have said the same so far; return what cancels it."""
        first = next(iter(dialogues.values()))
        return self._engine.begin(
            problem,
            seeds={index: _turn_seed(one.seed, len(one.turns)) for index, one in dialogues.items()},
            config=replace(
                config,
                max_tokens=config.max_tokens - first.tokens,
                # `enough` lets an engine put a sample off. One that has begun holds an interpreter, and is to end.
                enough=None if first.turns else config.enough,
            ),
            results=events,  # type: ignore[arg-type]  # a queue of more kinds takes these too
            said=first.said,
            # After one refusal the model may write Python as text to its end.
            until_code=first.runs <= self._settings.turns,
        )

    def _end_turn(self, dialogue: _Dialogue, turn: Sample, config: SamplingConfig, events: Events) -> Sample | None:
        """Return the sample if this turn is its last; else see to it that an output follows, and return None."""
        dialogue.turns.append(turn)
        dialogue.said += turn.text
        program = last_program(turn.text) if turn.finish == "stop" and dialogue.runs <= self._settings.turns else None
        if program is None or dialogue.tokens >= config.max_tokens:
            return dialogue.to_sample(cut=program is not None)
        dialogue.runs += 1
        if dialogue.runs > self._settings.turns:
            events.put(_Output(index=dialogue.index, text=_REFUSAL, seconds=0.0))
        else:
            self._pool.submit(self._run, dialogue, program, events)
        return None

    def _run(self, dialogue: _Dialogue, program: str, events: Events) -> None:
        try:
            result = self._run_in_interpreter(dialogue, program)
        except Exception as error:
            # Passed to the stream, which raises it in its caller's thread.
            events.put(error)
            return
        if result is not None:
            events.put(_Output(index=dialogue.index, text=result.output, seconds=result.seconds))

    def _run_in_interpreter(self, dialogue: _Dialogue, program: str) -> ProgramResult | None:
        """Run the program in the sample's interpreter, a new one where it has none; None once the sample is closed."""
        alive = dialogue.python is not None and dialogue.python.alive
        python = dialogue.python if dialogue.python is not None and alive else self._pythons.open()
        with dialogue.lock:
            dialogue.python = python
            # `close` may have come while the interpreter started, when there was none to close.
            if dialogue.closed:
                python.close()
                return None
        return python.run(program)

    def close(self) -> None:
        """Close the engine and end all interpreters."""
        self._engine.close()
        self._pythons.close()
        self._pool.shutdown(wait=False, cancel_futures=True)


def _cut(dialogues: Mapping[int, _Dialogue], cancels: Sequence[_Cancel]) -> Generator[Sample, None, None]:
    """Yield what the samples under way have said so far, cut by the clock."""
    for turn in [turn for cancel in cancels for turn in cancel() or ()]:
        if (dialogue := dialogues.get(turn.index)) is not None:
            dialogue.turns.append(turn)
            dialogue.said += turn.text
    for dialogue in dialogues.values():
        if dialogue.turns:
            yield replace(dialogue.to_sample(cut=False), finish="clock")


def _take_event(events: Events, ends: float | None) -> Sample | _Output | None:
    try:
        event = events.get(timeout=None if ends is None else max(0.0, ends - time.monotonic()))
    except Empty:
        return None
    if isinstance(event, Exception):
        raise event
    return event


def _turn_seed(seed: int, turn: int) -> int:
    """Return the seed of a turn, 53 bits as the sample's own, which is that of the first turn."""
    return int.from_bytes(hashlib.sha256(f"{seed}/turn {turn}".encode()).digest()[:8]) >> 11 if turn else seed


def _output_block(output: str, *, most: int) -> str:
    # A program that prints `</think>` must not end the reasoning. The sandbox cuts output too, but what came out of it
    # is the program's word. A fence that it prints would end the block before its output does.
    shown = _FENCE.sub("` ``", remove_marks(readable(output, most=most + _NOTE_CHARS))).strip("\n")
    return f"\n```output\n{shown}\n```\n"


def _mean(weighed: list[tuple[int, float | None]]) -> float | None:
    known = [(tokens, value) for tokens, value in weighed if value is not None and tokens]
    total = sum(tokens for tokens, _ in known)
    return round(sum(tokens * value for tokens, value in known) / total, 6) if total else None


def _tail_mean(turns: list[Sample]) -> float | None:
    """Return the mean log-probability of the last TAIL_TOKENS tokens drawn.

    Of a turn that only partly belongs to them, the mean of its own tail is taken: single values are not kept.
    """
    parts: list[tuple[int, float | None]] = []
    left = Sample.TAIL_TOKENS
    for turn in reversed(turns):
        parts.append((min(left, turn.tokens), turn.logprob_tail))
        left -= parts[-1][0]
    return _mean(parts)
