"""Recorded samples: an append-only JSONL file that survives a kill at any moment, and the engine that replays one."""

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import get_args

from mathlete.errors import UserError
from mathlete.jsonl import JsonLines, read_json_lines
from mathlete.problems import Problem
from mathlete.sampling.samples import Finish, Sample, SamplingConfig
from mathlete.sampling.schedule import started_at

_TYPES: dict[str, tuple[type, ...]] = {
    "problem_id": (str,),
    "index": (int,),
    "seed": (int,),
    "text": (str,),
    "answer": (str, type(None)),
    "tokens": (int,),
    "finish": (str,),
    "seconds": (int, float),
    "logprob_mean": (int, float, type(None)),
    "logprob_tail": (int, float, type(None)),
}
_OPTIONAL = ("answer", "logprob_mean", "logprob_tail")
_SYNC_S = 0.5
_CURE = "delete the line, or the whole run folder to draw all samples again"


def sample_from(row: object, *, where: str) -> Sample:
    """The Sample in a parsed JSON row.

    Raises:
        UserError: the row is not a Sample; `where` (file:line) is named.
    """
    if not isinstance(row, dict):
        raise UserError(f"{where}: a sample must be a JSON object", value=type(row).__name__, cure=_CURE)
    names = [item.name for item in fields(Sample)]
    if missing := [name for name in names if name not in row and name not in _OPTIONAL]:
        raise UserError(f"{where}: a sample needs {', '.join(missing)}", value=sorted(row), cure=_CURE)
    if unknown := sorted(set(row) - set(names)):
        raise UserError(f"{where}: a sample has only the fields {', '.join(names)}", value=unknown, cure=_CURE)
    for name, value in row.items():
        if not isinstance(value, _TYPES[name]) or isinstance(value, bool):
            raise UserError(f"{where}: the field {name} has the wrong type", value=repr(value), cure=_CURE)
    if row["finish"] not in get_args(Finish):
        raise UserError(
            f"{where}: finish must be one of {', '.join(get_args(Finish))}", value=row["finish"], cure=_CURE
        )
    return Sample(**row)


def read_samples(path: Path) -> list[Sample]:
    """The samples of a JSONL file, in file order.

    Raises:
        UserError: a line that is not a Sample, or a sample recorded twice.
    """
    samples: dict[tuple[str, int], Sample] = {}
    for where, row in read_json_lines(path):
        sample = sample_from(row, where=where)
        if (key := (sample.problem_id, sample.index)) in samples:
            raise UserError(f"{where}: a sample stands only once", value=f"{key[0]} #{key[1]}", cure=_CURE)
        samples[key] = sample
    return list(samples.values())


class SampleLog:
    """The samples of one run, on file: appended from many threads, and read again when the run goes on.

    Each line reaches the kernel at once and the disk within half a second. So a killed process loses nothing; a
    machine that loses its power loses at most what it drew in the last half second, and the same seeds draw it again.
    """

    def __init__(self, path: Path) -> None:
        self._lines = JsonLines(path, sync_s=_SYNC_S)
        self.dropped_bytes = self._lines.cut_half_line()
        """Length of a half-written last line, which was cut off."""
        path.touch()
        self.recorded = read_samples(path)
        """The samples that were there when the log was opened."""

    def append(self, sample: Sample) -> None:
        """Adds one line."""
        self._lines.append(asdict(sample))

    def __enter__(self) -> "SampleLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.sync()


class ReplaySampler:
    """A Sampler over recorded samples: gives them again, the quickest first, without a model."""

    name = "replay"

    def __init__(
        self,
        samples: Iterable[Sample],
        *,
        advance_to: Callable[[float], None] = lambda moment: None,
        now: Callable[[], float] = lambda: 0.0,
        slots: int | None = None,
    ) -> None:
        """Takes the samples and, to replay their time too, a virtual clock's two functions.

        `slots` is how many samples of a problem run at once; None is all of them.
        """
        self._advance_to, self._now, self._slots = advance_to, now, slots
        self._samples = {(sample.problem_id, sample.index): sample for sample in samples}

    def stream(
        self, problem: Problem, *, seeds: Mapping[int, int], config: SamplingConfig
    ) -> Generator[Sample, None, None]:
        """Yields the recorded samples of these indexes as they end; seeds and temperature are the recording's.

        A sample longer than `config.max_tokens` is cut: it takes its share of the seconds and has no text left, since
        what its first tokens said is not recorded.

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
        chosen = [capped(self._samples[problem.id, index], config.max_tokens) for index in seeds]
        begun = self._now()
        for ends, sample in self._by_end(chosen):
            if config.timeout_s is not None and ends > config.timeout_s:
                self._advance_to(begun + config.timeout_s)
                return
            self._advance_to(begun + ends)
            yield sample

    def _by_end(self, samples: list[Sample]) -> list[tuple[float, Sample]]:
        import numpy as np

        samples = sorted(samples, key=lambda sample: sample.index)
        starts = started_at(np.array([[sample.seconds for sample in samples]]), slots=self._slots)[0].tolist()
        ends = [(start + sample.seconds, sample) for start, sample in zip(starts, samples, strict=True)]
        return sorted(ends, key=lambda end: (end[0], end[1].index))

    def close(self) -> None:
        """Nothing to free."""


def capped(sample: Sample, max_tokens: int) -> Sample:
    """The sample as a smaller cap would have left it: without text or answer, and with its share of the seconds."""
    if sample.tokens <= max_tokens:
        return sample
    seconds = sample.seconds * max_tokens / sample.tokens
    return replace(sample, text="", answer=None, tokens=max_tokens, finish="length", seconds=seconds)
