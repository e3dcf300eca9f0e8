"""A completion as an OpenAI-compatible server streams it, over either endpoint."""

from statistics import fmean
from typing import Any

from mathlete.prompts import END_THINK
from mathlete.sampling.box import box_end
from mathlete.sampling.samples import Finish, Sample

_TAIL_TOKENS = 2048


class Reply:
    """What a server has sent of one completion."""

    def __init__(self) -> None:
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
        """Whether the server said why it ended, or the answer is there; else the connection was cut."""
        return self._reason is not None or self.boxed

    @property
    def boxed(self) -> bool:
        """Whether the answer is there, and the tokens drawn for it are known by their log-probabilities."""
        return bool(self._logprobs) and "}" in "".join(self._text[-1:]) and box_end(self.text) is not None

    def sample(self, *, problem_id: str, index: int, seed: int, seconds: float) -> Sample:
        """The finished sample.

        A server that sends neither usage nor log-probabilities leaves the number of chunks as that of the tokens.
        """
        text = self.text
        end = box_end(text)
        finish: Finish = "boxed" if end is not None else "length" if self._reason == "length" else "stop"
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
