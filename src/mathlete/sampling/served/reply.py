"""A completion as an OpenAI-compatible server streams it, over either endpoint; nothing in it is taken on trust."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

from mathlete.lost import Lost, finite_logprob
from mathlete.reasoning import THINK, ReasoningMarks
from mathlete.sampling import Sample, find_ending
from mathlete.text import clean, parse_json, quote

_Finish = Literal["stop", "length"]
_FINISHES: Mapping[str, _Finish] = {
    "stop": "stop",
    "length": "length",
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
}
"""Reasons for an end, as servers name them; any other (`abort`, `content_filter`, …) ends no sample."""
_SPARE_TOKENS = 8
"""Tokens above the cap that are let pass: some servers count bos and eos, or what they guessed ahead."""
_TOKEN_CHARS = 1024
"""Characters of a token at most: the longest of known vocabularies are a few hundred spaces."""


class Reply:
    """One completion, as far as a server has sent it."""

    def __init__(
        self,
        *,
        max_tokens: int = 2**31,
        until_code: bool = False,
        answering: bool = False,
        in_box: bool = False,
        stops: Sequence[str] = (),
        marks: ReasoningMarks = THINK,
    ) -> None:
        """Take the cap on its tokens, and what else ends it: see `find_ending`."""
        self._max_tokens, self._stops, self._marks = max_tokens, stops, marks
        self._find_ending = partial(
            find_ending, answering=answering, in_box=in_box, until_code=until_code, stops=stops, marks=marks
        )
        self._thought: list[str] = []
        self._text: list[str] = []
        self._characters = 0
        self._logprobs: list[float] = []
        self._chunks = 0
        self._usage: int | None = None
        self._finish: _Finish | None = None
        self._speaks = False
        """Whether any choice had a place for text."""
        self.latest = ""
        """The latest event with a choice, for a message."""

    def add(self, data: str) -> bool:
        """Add an event of the stream; return whether it brought any of the completion.

        Raises:
            Lost: it is not an event of a completion, or says that there is none.
        """
        try:
            # A character may come in two halves, which are joined when the text is.
            chunk = parse_json(data, halves=True)
        except ValueError as error:
            raise Lost(f"an event must be JSON: {quote(data)}") from error
        try:
            return self._add(_as(dict, chunk), data)
        except _WrongType as wrong:
            raise Lost(f"an event must be a completion's, and has {wrong}: {quote(data)}") from wrong

    def _add(self, chunk: dict[str, Any], data: str) -> bool:
        if error := chunk.get("error"):
            raise Lost(f"the server says: {quote(str(error))}")
        usage = _as(dict, chunk.get("usage") or {}).get("completion_tokens")
        self._usage = self._usage if usage is None else _as(int, usage)
        choices = _as(list, chunk.get("choices") or [])
        if len(choices) > 1 or any(_as(dict, choice).get("index") for choice in choices):
            raise Lost(f"one completion was asked for, and several came: {quote(str(choices))}")
        self.latest = data if choices else self.latest
        said = [self._add_choice(choice) for choice in choices]
        most = self._max_tokens + _SPARE_TOKENS
        if max(self._usage or 0, len(self._logprobs), self._chunks) > most or self._characters > _TOKEN_CHARS * most:
            raise Lost(f"more came than the {self._max_tokens} tokens asked for: … {quote(self.text[-100:])}")
        return any(said)

    def _add_choice(self, choice: dict[str, Any]) -> bool:
        # The chat endpoint has deltas, and servers with a reasoning parser send the reasoning apart.
        delta = _as(dict, choice.get("delta") or choice)
        thought = _as(str, delta.get("reasoning_content") or delta.get("reasoning") or "")
        said = _as(str, delta.get("content") or delta.get("text") or "")
        logprobs = _read_logprobs(choice.get("logprobs"))
        reason = _as(str, choice.get("finish_reason") or "")
        self._speaks |= not {"delta", "text"}.isdisjoint(choice)
        # What comes after the end is not the model's.
        if self._finish is None:
            self._thought += [thought] if thought else []
            self._text += [said] if said else []
            self._characters += len(thought) + len(said)
            self._chunks += bool(thought or said)
            self._logprobs += logprobs
        if reason and reason not in _FINISHES:
            rule = f"a completion must end by stop or length, and ended by {quote(reason, most=60)}"
            raise Lost(rule, filtered=reason == "content_filter")
        self._finish = self._finish or _FINISHES.get(reason)
        return bool(thought or said or logprobs)

    @property
    def text(self) -> str:
        """The completion so far."""
        said, thought = clean("".join(self._text)), clean("".join(self._thought))
        if not thought:
            return said
        # Thoughts that a server sends apart are thoughts, also where they were cut: no box in them is an answer.
        return f"{thought}{self._marks.ending}{said}" if said else f"{self._marks.before}{thought}"

    @property
    def ended(self) -> bool:
        """Whether the server said why it ended, or all is there; otherwise the connection was cut."""
        return self._finish is not None or self.complete

    @property
    def complete(self) -> bool:
        """Whether nothing more need be drawn.

        That is: the answer is there, with the log-probabilities that count its tokens; or the program is, which must
        be run before the model makes up its output.
        """
        latest = "".join(self._text[-1:] or self._thought[-1:])
        # Most chunks close nothing; only then is the whole text put together and searched.
        if "`" not in latest and "}" not in latest and not any(stop[-1] in latest for stop in self._stops):
            return False
        ending = self._find_ending(self.text)
        return ending is not None and (ending.finish == "stop" or bool(self._logprobs))

    @property
    def is_misread(self) -> bool:
        """Whether what has ended cannot be a completion: it has no place for text, or no token fills its length."""
        return not self._speaks or (self.is_doubtful and self._finish == "length")

    @property
    def is_doubtful(self) -> bool:
        """Whether what has ended is empty, and no count of tokens says that this is all that the model said."""
        return not self.text and self._usage is None and not self._logprobs

    def sample(self, *, problem_id: str, index: int, seed: int, seconds: float) -> Sample:
        """Return the finished sample.

        A server that sends neither usage nor log-probabilities leaves the number of chunks as that of the tokens.
        """
        text = self.text
        ending = self._find_ending(text)
        return Sample.of_tokens(
            problem_id=problem_id,
            index=index,
            seed=seed,
            text=ending.text if ending else text,
            tokens=self._usage or len(self._logprobs) or self._chunks,
            finish=ending.finish if ending else self._finish or "stop",
            seconds=seconds,
            logprobs=self._logprobs,
        )


class _WrongType(Exception):
    """A value of an event has another type than the format gives it."""


def _as(kind: type[Any], value: object) -> Any:
    # A bool is an int in Python, and no number of tokens.
    if not isinstance(value, kind) or isinstance(value, bool):
        raise _WrongType(f"{type(value).__name__} instead of {kind.__name__}")
    if kind is int and not 0 <= value < 2**53:
        raise _WrongType("a number of tokens that none can be")
    return value


def _read_logprobs(field: object) -> list[float]:
    """Return the tokens' log-probabilities in a choice of either endpoint."""
    fields = _as(dict, field or {})
    entries = _as(list, fields.get("content") or [])
    values = [_as(dict, entry).get("logprob") for entry in entries] or _as(list, fields.get("token_logprobs") or [])
    return [finite_logprob(value) for value in values if value is not None]
