"""A completion as an OpenAI-compatible server streams it, over either endpoint."""

from statistics import fmean
from typing import Any

from mathlete.prompts import END_THINK
from mathlete.sampling.box import box_end
from mathlete.sampling.fence import code_end
from mathlete.sampling.samples import Finish, Sample

_TAIL_TOKENS = 2048


class Reply:
    """What a server has sent of one completion."""

    def __init__(self, *, until_code: bool = False, answering: bool = False) -> None:
        """Knows what ends it: see `Continuing.begin`."""
        self._until_code, self._before = until_code, END_THINK if answering else ""
        self._thought: list[str] = []
        self._text: list[str] = []
        self._logprobs: list[float] = []
        self._chunks = 0
        self._usage: int | None = None
        self._reason: str | None = None

    def add(self, chunk: Any) -> None:
        """Takes a chunk of the stream."""
        if chunk.usage is not None:
            self._usage = chunk.usage.completion_tokens
        for choice in chunk.choices or []:
            self._reason = choice.finish_reason or self._reason
            # The chat endpoint has deltas, and servers with a reasoning parser send the reasoning apart.
            delta = getattr(choice, "delta", choice)
            thought = getattr(delta, "reasoning_content", None) or getattr(delta, "reasoning", None)
            said = getattr(delta, "content", None) or getattr(delta, "text", None)
            self._thought += [thought] if thought else []
            self._text += [said] if said else []
            self._chunks += bool(thought or said)
            self._logprobs += _logprobs(choice.logprobs)

    @property
    def text(self) -> str:
        """The completion so far."""
        said = "".join(self._text)
        if not self._thought:
            return said
        return f"{''.join(self._thought)}\n{END_THINK}\n\n{said}" if said else "".join(self._thought)

    @property
    def ended(self) -> bool:
        """Whether the server said why it ended, or all is there; else the connection was cut."""
        return self._reason is not None or self.complete

    @property
    def complete(self) -> bool:
        """Whether nothing more need be drawn: the answer is there, with the log-probabilities that tell its tokens, or
        the program, which must be run before the model makes up its output."""
        latest = "".join(self._text[-1:] or self._thought[-1:])
        if "`" in latest and self._code_end is not None:
            return True
        return bool(self._logprobs) and "}" in latest and self._box_end is not None

    @property
    def _box_end(self) -> int | None:
        end = box_end(self._before + self.text)
        return None if end is None else end - len(self._before)

    @property
    def _code_end(self) -> int | None:
        return code_end(self.text) if self._until_code else None

    def sample(self, *, problem_id: str, index: int, seed: int, seconds: float) -> Sample:
        """The finished sample.

        A server that sends neither usage nor log-probabilities leaves the number of chunks as that of the tokens.
        """
        text, boxed, code = self.text, self._box_end, self._code_end
        # Whichever closes first: a box before the program ends the sample.
        end = min((place for place in (boxed, code) if place is not None), default=None)
        finish: Finish = "length" if self._reason == "length" and end is None else "stop"
        finish = "boxed" if end is not None and end == boxed else finish
        scores = self._logprobs
        return Sample(
            problem_id=problem_id,
            index=index,
            seed=seed,
            text=text if end is None else text[:end],
            tokens=self._usage or len(scores) or self._chunks,
            finish=finish,
            seconds=round(seconds, 6),
            logprob_mean=round(fmean(scores), 6) if scores else None,
            logprob_tail=round(fmean(scores[-_TAIL_TOKENS:]), 6) if scores else None,
        )


def _logprobs(given: Any) -> list[float]:
    """The tokens' log-probabilities in a chunk of either endpoint."""
    if given is None:
        return []
    if entries := getattr(given, "content", None):
        return [entry.logprob for entry in entries]
    return [value for value in getattr(given, "token_logprobs", None) or [] if value is not None]
