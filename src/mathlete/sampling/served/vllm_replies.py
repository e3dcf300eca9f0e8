"""The border to vLLM while it draws: what comes of it is a reply in its form, a lost try, or the end of the engine."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mathlete.errors import UserError
from mathlete.lost import EngineGone, Lost, finite_logprob
from mathlete.text import quote

if TYPE_CHECKING:
    from vllm import RequestOutput
    from vllm.logprobs import LogprobsOnePosition


@dataclass(frozen=True, kw_only=True)
class VllmReply:
    """What one reply brings."""

    tokens: list[tuple[int, float | None]]
    """Each new token with its log-probability; None where none was asked for."""
    finish: str | None
    """Why vLLM ended the sample, where it did."""


class NoFurtherTry(Exception):
    """vLLM's own process has ended, or it refuses the request: the next try would end the same way."""

    def __init__(self, error: Exception, *, kind: type[UserError]) -> None:
        super().__init__(describe(error))
        self.kind = kind


def client_errors() -> tuple[type[Exception], ...]:
    """Return the errors by which vLLM says that what was asked is wrong."""
    from vllm import exceptions

    # vLLM 0.19 has the second alone, of which later versions made the first's kind.
    return (getattr(exceptions, "VLLMClientError", exceptions.VLLMValidationError),)


async def next_reply(
    replies: "AsyncGenerator[RequestOutput, None]", *, ends: float, patience_s: float, scored: bool = True
) -> VllmReply | None:
    """Return what comes next, None at the end.

    Args:
        replies: of one request.
        ends: moment on the loop's clock until which it is waited for.
        patience_s: how long that is, for a message.
        scored: whether log-probabilities were asked for.

    Raises:
        Lost: nothing came in time, something else than a reply, or an error of this request's.
        NoFurtherTry: no other try is worth it.
    """
    from vllm.v1.engine.exceptions import EngineDeadError

    try:
        async with asyncio.timeout_at(ends) as limit:
            reply = await anext(replies, None)
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise Lost("vLLM cancelled the request") from error
    except EngineDeadError as error:
        raise NoFurtherTry(error, kind=EngineGone) from error
    except client_errors() as error:
        raise NoFurtherTry(error, kind=UserError) from error
    except (Exception, SystemExit) as error:
        # The border to a library that computes in other processes, and passes on whatever happened there.
        late = isinstance(error, TimeoutError) and limit.expired()
        raise Lost(f"no token came for {patience_s:g} s" if late else describe(error)) from error
    return None if reply is None else _read(reply, scored=scored)


def describe(error: BaseException) -> str:
    """Return an error's kind and words; of one that only wraps another, the other's."""
    words = str(error) or str(error.__cause__ or "")
    return f"{type(error).__name__}: {quote(words)}" if words else type(error).__name__


def _read(reply: "RequestOutput", *, scored: bool) -> VllmReply:
    try:
        outputs = [*reply.outputs]
        if len(outputs) != 1:
            raise Lost(f"one completion was asked for, and {len(outputs)} came")
        tokens, finish = [_read_token(token) for token in outputs[0].token_ids], outputs[0].finish_reason
        if not scored:
            return VllmReply(tokens=[(token, None) for token in tokens], finish=finish)
        scores = [*(outputs[0].logprobs or ())]
        if len(tokens) != len(scores):
            raise Lost(f"{len(tokens)} tokens came with {len(scores)} log-probabilities")
        pairs = [(token, _read_score(token, score)) for token, score in zip(tokens, scores, strict=True)]
        return VllmReply(tokens=[*pairs], finish=finish)
    except (AttributeError, TypeError) as error:
        raise Lost(f"vLLM's reply must have its form: {describe(error)}, in {quote(repr(reply))}") from error


def _read_token(token: object) -> int:
    if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < 2**31:
        raise Lost(f"a token must be a number of the vocabulary, and was {quote(repr(token))}")
    return token


def _read_score(token: int, score: "LogprobsOnePosition") -> float:
    if token not in score:
        raise Lost(f"token {token} came without its log-probability")
    return finite_logprob(score[token].logprob)


async def abort(replies: "AsyncGenerator[RequestOutput, None]", *, limit_s: float) -> None:
    """End a request. What goes wrong with that concerns no sample: the next request will say it again."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(limit_s):
            await replies.aclose()
