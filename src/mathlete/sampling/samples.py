"""The contract between engines and the solve loop: requests go in, finished samples come out as they finish."""

import math
import re
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import ClassVar, Protocol, Self

from mathlete.errors import UserError, require
from mathlete.problems import Problem
from mathlete.sampling.harvest import CURE, FINISHES, MOST, Finish, Harvest

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
    "in_thoughts": (bool,),
    "harvest": (dict, type(None)),
}
_NUMBERS = [name for name, types in _TYPES.items() if int in types]
_COUNTS = ("index", "tokens", "seconds")
_TOO_LARGE = 2**63
_OPTIONAL = ("answer", "logprob_mean", "logprob_tail", "in_thoughts", "harvest")
_SELDOM = ("in_thoughts", "harvest")
"""Fields that stand in a row only where they say something."""
_LATER = ("min_p", "top_k", "repetition_penalty", "stop")
"""Settings that a run made before them does not name."""

_ESCAPES = re.compile(r" *(?:\\[nrt] *)+")
"""A text of nothing but escapes that a shell left as they are: no LaTeX, whose words go on behind the letter."""


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How one sample is drawn. Defaults: R1's own advice (README of deepseek-ai/DeepSeek-R1)."""

    temperature: float = 0.6
    """0 is greedy."""
    top_p: float = 0.95
    """Nucleus mass, (0, 1]."""
    min_p: float = 0.0
    """Tokens less likely than so many times the likeliest one are not drawn, 0 to 1; 0 is none (arXiv:2407.01082)."""
    top_k: int = 0
    """Only so many of the likeliest tokens are drawn; 0 is all."""
    repetition_penalty: float = 1.0
    """What the logit of a token that prompt or completion has already is divided by, or multiplied where it is negative
    (Keskar et al. 2019, arXiv:1909.05858, section 4.1)."""
    stop: tuple[str, ...] = ()
    """Texts that end a completion wherever they come in it, also in the reasoning; they are cut off.
    One that begins with a hyphen stands first, behind =: --sampling.stop=--- END."""
    max_tokens: int = 256
    """Cap on a completion, tokens. R1 needs up to 32768; the pocket model 160."""

    timeout_s: float | None = None
    """Cap on the wall of all samples of a problem, seconds from the call; what is still being drawn then is dropped."""

    enough: int | None = None
    """Samples of a problem to start first; a busy engine starts the others later. Default: the fewest after which the
    stopping rule may stop."""

    def check(self) -> None:
        """Raise UserError where a value is out of its range."""
        typed = [text for text in self.stop if _ESCAPES.fullmatch(text)]
        shell = "write " + " ".join(f"$'{text}'" for text in typed) + ", which bash and zsh read as the characters"
        require(
            ("temperature", self.temperature, 0 <= self.temperature <= 5, "0 to 5"),
            ("top-p", self.top_p, 0 < self.top_p <= 1, "above 0, at most 1"),
            ("min-p", self.min_p, 0 <= self.min_p <= 1, "0 to 1", "leave it out"),
            ("top-k", self.top_k, self.top_k >= 0, "0 or more", "leave it out"),
            (
                "repetition-penalty",
                self.repetition_penalty,
                0 < self.repetition_penalty < math.inf,
                "above 0",
                "leave it out",
            ),
            ("stop", self.stop, all(self.stop), "texts of at least one character", "leave it out"),
            ("stop", " ".join(typed), not typed, "the characters meant, not a backslash and a letter", shell),
            ("max-tokens", self.max_tokens, self.max_tokens >= 1, "at least 1"),
            ("timeout-s", self.timeout_s, self.timeout_s is None or self.timeout_s > 0, "above 0"),
            ("enough", self.enough, self.enough is None or self.enough >= 1, "at least 1"),
            prefix="--sampling.",
            cure="use R1's 0.6, 0.95, 256",
        )

    def to_json(self) -> dict[str, object]:
        """Return the settings as a JSON object, which `from_json` reads.

        Words that came later stand in it only where they say something: runs and notebooks are known by a hash of it.
        """
        plain, own = asdict(SamplingConfig()), {**asdict(self), "stop": [*self.stop]}
        return {name: value for name, value in own.items() if name not in _LATER or getattr(self, name) != plain[name]}

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Return the settings in a JSON object.

        Raises:
            TypeError: no object, an unknown key, or stop strings that are none.
        """
        if not isinstance(value, Mapping):
            raise TypeError(f"sampling must be an object, and is {value!r}")
        stop = value.get("stop", ())
        if isinstance(stop, str) or not all(isinstance(text, str) for text in stop):
            raise TypeError(f"stop must be a list of texts, and is {stop!r}")
        return cls(**{**value, **({"stop": tuple(stop)} if stop else {})})


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One generated trace, with what it takes to replay a run under another policy without the model."""

    MOST: ClassVar[int] = MOST
    """Largest index, tokens and seconds."""
    TAIL_TOKENS: ClassVar[int] = 2048
    """Length of the end whose mean log-probability is recorded (Fu et al. 2025, arXiv:2508.15260, section 3.1)."""

    problem_id: str
    index: int
    """0 … n-1 within the problem."""
    seed: int
    text: str
    """The completion, without the prompt and without eos; a boxed one ends with the box's closing brace."""
    answer: str | None = None
    """The answer read out of the text; None means no answer, never a made-up one."""
    tokens: int
    """Tokens drawn, eos among them."""
    finish: Finish
    seconds: float
    """From the sample's start to its end on the engine's clock."""
    logprob_mean: float | None = None
    """Mean natural-log probability of its tokens under the distribution before temperature and top-p."""
    logprob_tail: float | None = None
    """The same over its last TAIL_TOKENS tokens."""
    in_thoughts: bool = False
    """Whether its text stands in thoughts that the prompt opened and nothing ended, which the text cannot show."""
    harvest: Harvest | None = None
    """What it answered when it was made to, after it was cut; None where it was not."""

    @classmethod
    def of_tokens(
        cls,
        *,
        problem_id: str,
        index: int,
        seed: int,
        text: str,
        tokens: int,
        finish: Finish,
        seconds: float,
        logprobs: Sequence[float],
    ) -> "Sample":
        """Return a finished sample; `logprobs` has one value a token, or none where the engine knows none."""
        return cls(
            problem_id=problem_id,
            index=index,
            seed=seed,
            text=text,
            tokens=tokens,
            finish=finish,
            # Six decimals: what lies beyond is noise of the clock and of the sum, and would fill the file.
            seconds=round(seconds, 6),
            logprob_mean=_mean(logprobs),
            logprob_tail=_mean(logprobs[-cls.TAIL_TOKENS :]),
        )

    @classmethod
    def without_room(cls, *, problem_id: str, index: int, seed: int) -> "Sample":
        """Return a sample for which the model's context has no room."""
        return cls(problem_id=problem_id, index=index, seed=seed, text="", tokens=0, finish="length", seconds=0.0)

    @property
    def lacks_room(self) -> bool:
        """Whether the model's context has no room for it, so that nothing was asked of the engine."""
        return self.finish == "length" and not self.tokens

    @property
    def was_cut(self) -> bool:
        """Whether the model would have gone on."""
        return self.finish in ("length", "cancelled", "clock")

    @property
    def needs_harvest(self) -> bool:
        """Whether it was cut before it had an answer, and has not been made to give one."""
        return self.was_cut and self.answer is None and self.harvest is None

    @property
    def is_harvested(self) -> bool:
        """Whether its only answer is one that it was made to give."""
        return self.answer is None and self.harvest is not None and self.harvest.answer is not None

    def with_harvest(self, tail: "Sample", *, answer: str | None) -> "Sample":
        """Return it with what it was made to say, and the answer in that."""
        said = Harvest(text=tail.text, answer=answer, tokens=tail.tokens, finish=tail.finish, seconds=tail.seconds)
        return replace(self, harvest=said)

    def read_as_finished(self) -> "Sample":
        """Return it as if its forced answer were its own; one without any as it is."""
        if self.harvest is None or not self.is_harvested:
            return self
        text = self.text + self.harvest.text
        return replace(self, text=text, answer=self.harvest.answer, in_thoughts=False, harvest=None)

    def to_json(self) -> dict[str, object]:
        """Return the sample as a JSON object, which `from_json` reads; the last two fields only where they say much."""
        row = {name: value for name, value in vars(self).items() if name not in _SELDOM or value}
        return {**row, "harvest": asdict(self.harvest)} if self.harvest else row

    @classmethod
    def from_json(cls, row: object, *, where: str) -> "Sample":
        """Return the sample in a parsed JSON row.

        Raises:
            UserError: the row is not a sample; `where` (file:line) is named.
        """
        if not isinstance(row, dict):
            raise UserError(f"{where}: a sample must be a JSON object", value=type(row).__name__, cure=CURE)
        # Samples are read by the hundred thousand, and nearly all have the fields and types of one before.
        shape = (*row, *map(type, row.values()))
        if shape in _SEEN:
            sample = object.__new__(cls)
            vars(sample).update(_ABSENT | row)
            if sample._is_in_range():
                return sample
        if missing := [name for name in _TYPES if name not in row and name not in _OPTIONAL]:
            raise UserError(f"{where}: a sample needs {', '.join(missing)}", value=sorted(row), cure=CURE)
        # A field of a later version may change what the sample means: it is refused, not skipped.
        if unknown := sorted(row.keys() - _TYPES.keys()):
            raise UserError(f"{where}: a sample has only the fields {', '.join(_TYPES)}", value=unknown, cure=CURE)
        for name, value in row.items():
            # The type itself and not a kind of it: a bool is an int in Python, and none of these fields.
            if type(value) not in _TYPES[name]:
                raise UserError(f"{where}: the field {name} has the wrong type", value=repr(value), cure=CURE)
        if row["finish"] not in FINISHES:
            raise UserError(f"{where}: finish must be one of {', '.join(FINISHES)}", value=row["finish"], cure=CURE)
        # Python's JSON has words for what is no number; no other reader has, and nothing can be computed with them.
        if odd := {name: row[name] for name in _NUMBERS if (value := row.get(name)) and not abs(value) < _TOO_LARGE}:
            if any(name not in _OPTIONAL for name in odd):
                raise UserError(f"{where}: a sample's numbers must be finite", value=odd, cure=CURE)
            row = {**row, **dict.fromkeys(odd)}
        if odd := {name: row[name] for name in _COUNTS if not 0 <= row[name] <= cls.MOST}:
            raise UserError(f"{where}: {', '.join(_COUNTS)} must be from 0 to {cls.MOST}", value=odd, cure=CURE)
        harvest = row.get("harvest")
        if harvest is None and len(_SEEN) < _MOST_SHAPES:
            _SEEN.add(shape)
        return cls(**row) if harvest is None else cls(**{**row, "harvest": Harvest.from_json(harvest, where=where)})

    def _is_in_range(self) -> bool:
        """Return whether its values, whose types are right, are those that a sample may have."""
        return (
            self.finish in FINISHES
            and abs(self.seed) < _TOO_LARGE
            and 0 <= self.index <= MOST
            and 0 <= self.tokens <= MOST
            and 0 <= self.seconds <= MOST
            and (self.logprob_mean is None or abs(self.logprob_mean) < _TOO_LARGE)
            and (self.logprob_tail is None or abs(self.logprob_tail) < _TOO_LARGE)
        )


_SEEN: set[tuple[object, ...]] = set()
"""(fields …, types …) of rows without a forced answer that are samples, but for the range of their values."""
_MOST_SHAPES = 100
_ABSENT = {name: None for name in _TYPES} | {"in_thoughts": False}
"""What the fields are that a row need not have, in the order of all fields."""


def _mean(logprobs: Sequence[float]) -> float | None:
    """Return the mean of log-probabilities; None where there are none, or one is no number."""
    mean = fmean(logprobs) if logprobs else math.nan
    return round(mean, 6) if math.isfinite(mean) else None


class Sampler(Protocol):
    """An engine. Thread-safe: several problems may stream at once and share the engine's batch."""

    name: str

    def stream(
        self, problem: Problem, *, seeds: Mapping[int, int], config: SamplingConfig
    ) -> Generator[Sample, None, None]:
        """Yield one sample for each {index: seed}, in the order they finish. Closing the iterator cancels the rest.

        A run that goes on after a kill asks for the indexes it still lacks, whatever gaps they leave. The same seed
        gives the same sample, as far as each engine says.

        Raises:
            UserError: the problem cannot be asked, e.g. its prompt is longer than the model's context.
        """
        ...

    def stream_all(
        self, problem: Problem, *, seeds: Mapping[int, int], config: SamplingConfig
    ) -> Generator[Sample, None, None]:
        """Yield what `stream` yields and, once `config.timeout_s` is over, what each other sample has said until then.

        Those end with finish `clock`; those that have said nothing yet, and an engine that cannot tell, leave it there.
        """
        return self.stream(problem, seeds=seeds, config=config)

    def force_answers(
        self, problem: Problem, *, cut: Sequence[Sample], max_tokens: int, timeout_s: float | None = None
    ) -> Generator[Sample, None, None]:
        r"""Yield what each sample says once its text is closed and a box begun for it, in the order they finish.

        Closing the iterator cancels the rest. The most likely tokens are drawn, with no penalty: what an unfinished
        text makes most likely is wanted. The texts themselves differ, by the samples' seeds.

        Args:
            problem: the samples' problem.
            cut: the samples, each of which was cut.
            max_tokens: cap on what is drawn behind `\boxed{`.
            timeout_s: cap on the wall of all of them; what is still being drawn then is dropped.

        Yields:
            For each sample one of its index, whose text is all that follows the sample's own. It ended as `boxed` where
            the box was closed.

        Raises:
            UserError: the engine cannot go on from what a sample has said.
        """
        raise UserError(
            "--harvest needs an engine that can go on from what a sample has said",
            value=f"the engine {self.name}",
            cure="use --engine transformers, or leave --harvest out",
        )

    def close(self) -> None:
        """Free the model."""
        ...
