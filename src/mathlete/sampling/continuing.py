"""Engines that can continue a partial completion: tool use and forced answers are built on them."""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Protocol, runtime_checkable

from mathlete.problems import Problem
from mathlete.prompts import PromptFormat
from mathlete.sampling.samples import Sample, Sampler, SamplingConfig

Cancel = Callable[[], Sequence[Sample] | None]
"""Cancels samples that are being drawn, and returns what they have said."""


@runtime_checkable
class Continuing(Sampler, Protocol):
    """An engine that can continue a partial completion, as tool use needs; its `stream` is built on `begin`.

    `stream` raises what `begin` raises, and the error with which the engine ends.
    """

    prompts: PromptFormat

    def stream(
        self, problem: Problem, *, seeds: Mapping[int, int], config: SamplingConfig
    ) -> Generator[Sample, None, None]:
        """See `Sampler.stream`."""
        return self._stream(problem, seeds, config, keep=False)

    def stream_all(
        self, problem: Problem, *, seeds: Mapping[int, int], config: SamplingConfig
    ) -> Generator[Sample, None, None]:
        """See `Sampler.stream_all`."""
        return self._stream(problem, seeds, config, keep=True)

    def _stream(
        self, problem: Problem, seeds: Mapping[int, int], config: SamplingConfig, *, keep: bool
    ) -> Generator[Sample, None, None]:
        results: SimpleQueue[Sample | Exception] = SimpleQueue()
        left, cancel = {*seeds}, self.begin(problem, seeds=seeds, config=config, results=results)
        try:
            for sample in take_samples(results, count=len(seeds), timeout_s=config.timeout_s):
                left.remove(sample.index)
                yield sample
            unfinished = cancel() if keep and left else None
            # What has ended since the time was over is whole.
            for sample in (*take_samples(results, count=results.qsize(), timeout_s=0.0), *(unfinished or ())):
                if keep and sample.index in left and sample.tokens:
                    left.remove(sample.index)
                    yield sample
        finally:
            cancel()

    def force_answers(
        self, problem: Problem, *, cut: Sequence[Sample], max_tokens: int, timeout_s: float | None = None
    ) -> Generator[Sample, None, None]:
        """See `Sampler.force_answers`."""
        results: SimpleQueue[Sample | Exception] = SimpleQueue()
        config = SamplingConfig(temperature=0.0, top_p=1.0, max_tokens=max_tokens)
        closings = {one.index: self.prompts.closing(one.text) for one in cut}
        cancels: list[Callable[[], object]] = []
        try:
            # All of them before the first is awaited, so that they are drawn together.
            for one in cut:
                said, seeds = one.text + closings[one.index], {one.index: one.seed}
                cancels.append(self.begin(problem, seeds=seeds, config=config, results=results, said=said))
            for tail in take_samples(results, count=len(cut), timeout_s=timeout_s):
                yield replace(tail, text=closings[tail.index] + tail.text)
        finally:
            for cancel in cancels:
                cancel()

    def begin(
        self,
        problem: Problem,
        *,
        seeds: Mapping[int, int],
        config: SamplingConfig,
        results: "SimpleQueue[Sample | Exception]",
        said: str = "",
        until_code: bool = False,
    ) -> Cancel:
        """Start one sample for each {index: seed}; each goes to `results`. Return a function that cancels the rest.

        It returns what those have said until then, with finish `clock`; an engine that cannot tell returns nothing.

        Args:
            problem: its statement is the prompt.
            seeds: {index: seed} of the samples.
            config: how they are drawn; its `timeout_s` is the caller's to keep.
            results: the queue for the samples; also takes the error that ends the engine.
            said: text between the prompt and the samples' own text. Where it leaves no room in the model's context,
                each sample ends at once, with finish `length` and no token. Where it ends with a box that it begins, a
                sample ends with that box.
            until_code: whether a sample also ends where its first Python block closes, with finish `stop`.

        Raises:
            UserError: the problem cannot be asked.
        """
        ...


def take_samples(
    results: "SimpleQueue[Sample | Exception]", *, count: int, timeout_s: float | None
) -> Generator[Sample, None, None]:
    """Yield `count` samples as they come, fewer where the time is over.

    Raises:
        Exception: the one that came in place of a sample.
    """
    ends = None if timeout_s is None else time.monotonic() + timeout_s
    for _ in range(count):
        try:
            result = results.get(timeout=None if ends is None else max(0.0, ends - time.monotonic()))
        except Empty:
            return
        if isinstance(result, Exception):
            raise result
        yield result
