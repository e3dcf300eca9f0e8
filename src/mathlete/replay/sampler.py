"""A Sampler over recorded samples, so that the solve loop itself can be replayed without a model."""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import replace

from mathlete.errors import UserError
from mathlete.problems import Problem
from mathlete.replay.schedule import find_starts
from mathlete.sampling import Sample, Sampler, SamplingConfig


class ReplaySampler(Sampler):
    """A Sampler that yields recorded samples again, the quickest first."""

    name = "replay"

    def __init__(
        self,
        samples: Iterable[Sample],
        *,
        advance_to: Callable[[float], None] = lambda moment: None,
        now: Callable[[], float] = lambda: 0.0,
        slots: int | None = None,
    ) -> None:
        """Hold the samples for `stream`.

        Args:
            samples: the recording, of one problem or several.
            advance_to: moves a virtual clock on, to replay the samples' time as well.
            now: tells that clock's time.
            slots: samples of a problem running at once; None is all of them.
        """
        self._advance_to, self._now, self._slots = advance_to, now, slots
        self._samples = {(sample.problem_id, sample.index): sample for sample in samples}

    def stream(
        self, problem: Problem, *, seeds: Mapping[int, int], config: SamplingConfig
    ) -> Generator[Sample, None, None]:
        """Yield the recorded samples of these indexes as they end; seeds and temperature are the recording's.

        A sample longer than `config.max_tokens` is cut: it takes its share of the seconds and has no text, since the
        recording does not say which text its first tokens are.

        Raises:
            UserError: an index was not recorded.
        """
        config.check()
        for index in seeds:
            if (problem.id, index) not in self._samples:
                raise UserError(
                    f"the recording must hold every sample that is replayed, problem {problem.id} lacks it",
                    value=f"index {index}",
                    cure="replay with a smaller n, or record more samples",
                )
        drawn = [replace(self._samples[problem.id, index], harvest=None) for index in seeds]
        chosen = [cap_sample(one, config.max_tokens) for one in drawn]
        begun = self._now()
        for ends, sample in self._by_end(chosen):
            if config.timeout_s is not None and ends > config.timeout_s:
                self._advance_to(begun + config.timeout_s)
                return
            self._advance_to(begun + ends)
            yield sample

    def force_answers(
        self, problem: Problem, *, cut: Sequence[Sample], max_tokens: int, timeout_s: float | None = None
    ) -> Generator[Sample, None, None]:
        """Yield the recorded forced answers of these samples as they end; those that have none say nothing."""
        begun = self._now()
        recorded = [(one, self._samples[problem.id, one.index]) for one in cut]
        # One that a smaller cap cut has said something else until then.
        asked = [
            (own.harvest.seconds, one, own.harvest) for one, own in recorded if own.harvest and own.tokens == one.tokens
        ]
        for seconds, one, said in sorted(asked, key=lambda each: (each[0], each[1].index)):
            if timeout_s is not None and seconds > timeout_s:
                self._advance_to(begun + timeout_s)
                return
            self._advance_to(begun + seconds)
            yield replace(one, text=said.text, tokens=said.tokens, seconds=seconds, finish=said.finish)

    def _by_end(self, samples: list[Sample]) -> list[tuple[float, Sample]]:
        import numpy as np

        samples = sorted(samples, key=lambda sample: sample.index)
        starts = find_starts(np.array([[sample.seconds for sample in samples]]), slots=self._slots)[0].tolist()
        ends = [(start + sample.seconds, sample) for start, sample in zip(starts, samples, strict=True)]
        return sorted(ends, key=lambda end: (end[0], end[1].index))

    def close(self) -> None:
        """Free nothing: there is no engine."""


def cap_sample(sample: Sample, max_tokens: int) -> Sample:
    """Return the sample under a smaller cap: without text or answer, and with its share of the seconds."""
    if sample.tokens <= max_tokens:
        return sample
    seconds = sample.seconds * max_tokens / sample.tokens
    # What it answered when it was cut at its own cap says nothing of an earlier cut.
    return replace(sample, text="", answer=None, tokens=max_tokens, finish="length", seconds=seconds, harvest=None)
