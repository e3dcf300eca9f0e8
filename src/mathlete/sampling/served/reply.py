"""A completion as an OpenAI-compatible server streams it, over either endpoint."""

from typing import Any

from mathlete.prompts import END_THINK
from mathlete.sampling import Sample, find_ending


class Reply:
    """One completion, as far as a server has sent it."""

    def __init__(self, *, until_code: bool = False, answering: bool = False) -> None:
        """Take what ends it: see `find_ending`."""
        self._until_code, self._answering = until_code, answering
        self._thought: list[str] = []
        self._text: list[str] = []
        self._logprobs: list[float] = []
        self._chunks = 0
        self._usage: int | None = None
        self._reason: str | None = None

    def add(self, chunk: Any) -> None:
        """Add a chunk of the stream."""
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
            self._logprobs += _read_logprobs(choice.logprobs)

    @property
    def text(self) -> str:
        """The completion so far."""
        said = "".join(self._text)
        if not self._thought:
            return said
        return f"{''.join(self._thought)}\n{END_THINK}\n\n{said}" if said else "".join(self._thought)

    @property
    def ended(self) -> bool:
        """Whether the server said why it ended, or all is there; otherwise the connection was cut."""
        return self._reason is not None or self.complete

    @property
    def complete(self) -> bool:
        """Whether nothing more need be drawn.

        That is: the answer is there, with the log-probabilities that count its tokens; or the program is, which must
        be run before the model makes up its output.
        """
        latest = "".join(self._text[-1:] or self._thought[-1:])
        # Most chunks close nothing; only then is the whole text put together and searched.
        if "`" not in latest and "}" not in latest:
            return False
        ending = find_ending(self.text, answering=self._answering, until_code=self._until_code)
        return ending is not None and (ending.finish == "stop" or bool(self._logprobs))

    def sample(self, *, problem_id: str, index: int, seed: int, seconds: float) -> Sample:
        """Return the finished sample.

        A server that sends neither usage nor log-probabilities leaves the number of chunks as that of the tokens.
        """
        text = self.text
        ending = find_ending(text, answering=self._answering, until_code=self._until_code)
        return Sample.of_tokens(
            problem_id=problem_id,
            index=index,
            seed=seed,
            text=ending.text if ending else text,
            tokens=self._usage or len(self._logprobs) or self._chunks,
            finish=ending.finish if ending else "length" if self._reason == "length" else "stop",
            seconds=seconds,
            logprobs=self._logprobs,
        )


def _read_logprobs(field: Any) -> list[float]:
    """Return the tokens' log-probabilities in a chunk of either endpoint."""
    if field is None:
        return []
    if entries := getattr(field, "content", None):
        return [entry.logprob for entry in entries]
    return [value for value in getattr(field, "token_logprobs", None) or [] if value is not None]
