"""One sample from a fleet of servers, in as many tries as it takes: what is lost is noted, and asked for again."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mathlete.errors import UserError
from mathlete.lost import Lost, LostTry, OnLost, QuestionRefused
from mathlete.sampling import Sample, SamplingConfig
from mathlete.sampling.served.asked import ServerPrompt, find_refused, further_words, without_refused
from mathlete.sampling.served.events import Events
from mathlete.sampling.served.fleet import Fleet, Server, read_wait
from mathlete.sampling.served.reply import Reply
from mathlete.text import clean, parse_json, quote

if TYPE_CHECKING:
    from httpx2 import Response

_MOST_GARBLED = 3
"""Wrong replies to one request after which, once the patience is over too, nothing better is expected."""
_MOST_BETWEEN = 5
"""Losses of one sample, with others that came whole between them, after which it is taken for what is wrong."""
_MOST_FILTERED = 2
"""Replies that a server's filter withheld after which no other is expected."""
_GRACE_S = 1.0
"""Seconds that a server has to send the count of tokens after a completion's end."""
_BUSY = (408, 409, 425, 429)
"""Refusals that say: later. The others say that the request is wrong."""
_TOO_LONG = (400, 413, 422)
LIBRARY_ERRORS = (OSError, ValueError, OverflowError, ExceptionGroup)
"""What comes through the HTTP library from those beneath it, as where a redirect names port 99999."""
_SHOWN = 2000
"""Bytes of an error's body that are read."""


class _Refused(Exception):
    """The server says that the request is wrong."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status, self.words = status, words


@dataclass(eq=False)
class _Try:
    """One request for the sample."""

    server: Server | None = None
    """None while it waits for a slot."""
    began: float = 0.0
    heard: float = 0.0
    """Moment when its slot was got, or a part of the completion last came."""
    silent: bool = False
    """Whether it was ended because nothing came."""
    reply: Reply | None = None

    @property
    def text(self) -> str:
        return self.reply.text if self.reply else ""


@dataclass(eq=False)
class Job:
    """One sample, in as many tries as it takes."""

    fleet: Fleet
    prompt: ServerPrompt
    index: int
    seed: int
    config: SamplingConfig
    on_lost: OnLost
    latest: Server | None = None
    """The server of the latest try."""
    first_lost: float | None = None
    garbled: int = 0
    """Tries that brought a wrong reply."""
    doubted: bool = False
    """Whether an empty completion was asked for again: what comes empty twice is what the model says."""
    filtered: int = 0
    """Tries whose reply a filter of the server's withheld."""
    between: int = 0
    """Tries lost by the server's own mistake, with other samples that came whole since the one before."""
    seen: int = -1
    """Samples that had come whole when the latest of these was lost."""
    refusals: dict[Server, str] = field(default_factory=dict)
    """Servers that say that the request is wrong, in their words."""
    all_too_long: bool = True
    """Whether they say it of this prompt: not of the name, the key or the address."""

    begun: "list[_Try]" = field(default_factory=list)
    """The tries that have not come to an end."""

    def cut(self) -> Sample | None:
        """Return what the try that came furthest has said so far, cut by the clock; None where none has said a word."""
        best = max(self.begun, key=lambda one: len(one.text), default=None)
        if best is None or best.reply is None or not best.text:
            return None
        seconds = time.monotonic() - best.began
        whole = best.reply.sample(problem_id=self.prompt.problem_id, index=self.index, seed=self.seed, seconds=seconds)
        return whole if best.reply.ended else replace(whole, finish="clock")

    async def run(self) -> Sample:
        """Return the sample of the first try that succeeds.

        Raises:
            UserError: all servers refuse the request, none sends anything, or nothing right ever comes.
        """
        tries: dict[asyncio.Task[Sample | None], _Try] = {}
        self._begin(tries)
        with self.fleet.owe():
            try:
                while True:
                    # Silence comes without a notice, so look again from time to time.
                    await asyncio.wait(tries, timeout=self.fleet.look_s, return_when=asyncio.FIRST_COMPLETED)
                    for task in [task for task in tries if task.done()]:
                        self.begun.remove(tries.pop(task))
                        if (sample := task.result()) is not None:
                            return sample
                    self._end_silent(tries)
                    self.fleet.check_patience()
                    # All lost, or one that takes too long: a second try, never a third beside it.
                    if not tries or (len(tries) == 1 and self._is_late(*tries.values())):
                        self._begin(tries)
            finally:
                for task in tries:
                    task.cancel()

    def _begin(self, tries: "dict[asyncio.Task[Sample | None], _Try]") -> None:
        one = _Try()
        self.begun.append(one)
        tries[asyncio.create_task(self._try(one))] = one

    def _is_late(self, one: _Try) -> bool:
        limit = None if one.server is None else self.fleet.hedge_after_s(but=one.server)
        return limit is not None and time.monotonic() - one.began > limit

    def _end_silent(self, tries: "dict[asyncio.Task[Sample | None], _Try]") -> None:
        """End the tries whose server sends nothing; one that serves others first may still come to this one."""
        now = time.monotonic()
        for task, one in tries.items():
            if one.server is not None and now - max(one.heard, one.server.heard) > self.fleet.silence_s:
                one.silent = True
                task.cancel()

    async def _try(self, one: _Try) -> Sample | None:
        """Return the sample, or None where the try was lost.

        Raises:
            UserError: no further try is worth it.
        """
        avoided = {*self.refusals, *([self.latest] if self.latest else [])}
        async with self.fleet.slot(but=avoided) as server:
            self.latest = one.server = server
            one.began = one.heard = time.monotonic()
            try:
                sample = await self._ask(server, one)
            except _Refused as refused:
                return self._note_refusal(server, refused)
            except Lost as lost:
                self._note_lost(server, lost, one)
                return None
            except asyncio.CancelledError:
                if not one.silent:
                    raise
                after = f" after {len(one.text)} characters" if one.text else ""
                words = f"nothing came for {self.fleet.silence_s:g} s{after}"
                self._note_lost(server, Lost(words, garbled=bool(one.text)), one)
                return None
            self.fleet.record_success(server, time.monotonic() - one.began)
            return sample

    def _note_lost(self, server: Server, lost: Lost, one: _Try) -> None:
        server.record_failure(lost.reason, patience_s=self.fleet.patience_s, wait_s=lost.wait_s)
        self._tell_lost(server, lost.reason, text=one.text)
        now = time.monotonic()
        self.first_lost = self.first_lost or now
        self.garbled += lost.garbled
        self.filtered += lost.filtered
        if (lost.garbled or lost.broken) and self.fleet.finished > self.seen:
            self.between, self.seen = self.between + 1, self.fleet.finished
        # While others come, it is not the server that is down.
        wrong = self.garbled >= _MOST_GARBLED or self.between >= _MOST_BETWEEN
        if self.filtered >= _MOST_FILTERED or (wrong and now - self.first_lost > self.fleet.patience_s):
            raise QuestionRefused(
                f"a sample must come whole from {server.url}",
                value=f"wrong replies for problem {self.prompt.problem_id}, the last: {lost.reason}",
                cure="mend the server; the run goes on where it stopped",
            )

    def _tell_lost(self, server: Server, reason: str, *, text: str = "") -> None:
        problem_id, index, seed = self.prompt.problem_id, self.index, self.seed
        self.on_lost(LostTry(problem_id=problem_id, index=index, seed=seed, where=server.url, reason=reason, text=text))

    def _note_refusal(self, server: Server, refused: _Refused) -> Sample | None:
        if self.prompt.goes_on and refused.status in _TOO_LONG:
            # The prompt was taken, so what is refused is its length.
            return Sample.without_room(problem_id=self.prompt.problem_id, index=self.index, seed=self.seed)
        self.refusals[server] = refused.words
        self.all_too_long &= refused.status in _TOO_LONG
        if refused.status not in _TOO_LONG:
            # Not this prompt is wrong, but the name, the key or the address.
            server.record_failure(refused.words, patience_s=self.fleet.patience_s)
        if len(self.refusals) == len(self.fleet.servers):
            kind = QuestionRefused if self.all_too_long else UserError
            raise kind(
                f"{server.url} must take the request for problem {self.prompt.problem_id}",
                value=refused.words,
                cure="check the model's name (--servers.model), its context length and the key (OPENAI_API_KEY)",
            )
        return None

    async def _ask(self, server: Server, one: _Try) -> Sample:
        """Draw the sample on this server; raise Lost or _Refused."""
        import httpx2

        began = time.perf_counter()
        one.reply = reply = Reply(
            max_tokens=self.config.max_tokens,
            until_code=self.prompt.until_code,
            answering=self.prompt.answering,
            in_box=self.prompt.in_box,
            stops=self.config.stop,
            marks=self.prompt.marks,
        )
        try:
            await self._read(server, one, reply)
        except (Lost, httpx2.HTTPError, httpx2.InvalidURL, *LIBRARY_ERRORS) as error:
            # A completion that has ended is whole, whatever follows it.
            if not reply.ended:
                words = describe_error(error)
                raise error if isinstance(error, Lost) else Lost(words, garbled=bool(one.text)) from error
        if reply.is_misread or (reply.is_doubtful and not self.doubted):
            self.doubted = True
            raise Lost(f"an empty completion must come with its text and a count of tokens: {quote(reply.latest)}")
        return reply.sample(
            problem_id=self.prompt.problem_id,
            index=self.index,
            seed=self.seed,
            seconds=time.perf_counter() - began,
        )

    async def _read(self, server: Server, one: _Try, reply: Reply) -> None:
        async with self._response(server) as response, aclosing(read_bytes(response)) as chunks:
            events = Events(chunks)
            try:
                async with asyncio.timeout(None) as grace:
                    await self._read_events(events, server, one, reply, grace)
            except TimeoutError:
                # A connection raises these too; the grace begins only once the completion has ended.
                if not reply.ended:
                    raise
            if not reply.ended:
                text = reply.text
                came = (
                    f"it broke off after … {quote(text[-100:])}"
                    if text
                    else f"what came was {events.quote_beginning()}"
                )
                raise Lost(f"a completion must end with a reason: {came}")

    async def _read_events(
        self, events: Events, server: Server, one: _Try, reply: Reply, grace: asyncio.Timeout
    ) -> None:
        async with aclosing(aiter(events)) as reading:
            async for data in reading:
                if data == "[DONE]":
                    return
                if reply.add(data):
                    one.heard = time.monotonic()
                    self.fleet.hear(server)
                if reply.complete:
                    return
                # The count of tokens may follow the end; a server that keeps the connection open is not waited for.
                if reply.ended and grace.when() is None:
                    grace.reschedule(asyncio.get_running_loop().time() + _GRACE_S)

    @asynccontextmanager
    async def _response(self, server: Server) -> "AsyncIterator[Response]":
        """Send the request, as token ids where the server takes them; the response has begun well."""
        body: dict[str, Any] = {
            "model": server.model,
            "temperature": self.config.temperature,
            "top_p": self.config.top_p,
            "max_tokens": self.config.max_tokens,
            # llama.cpp keeps 32 bits of a seed.
            "seed": self.seed % 2**31,
            "stream": True,
            "stream_options": {"include_usage": True},
            **further_words(self.config, server.owner),
        }
        if self.prompt.messages is not None:
            body |= {"messages": self.prompt.messages, "logprobs": True}
            if self.prompt.template_args:
                body |= {"chat_template_kwargs": {**self.prompt.template_args}}
            async with AsyncExitStack() as stack:
                yield await self._open_chat(server, body, stack)
            return
        body |= {"logprobs": 1}
        if self.prompt.marks_are_special:
            body |= {"skip_special_tokens": False}
        if not server.takes_text_only:
            async with _post(server, "completions", {**body, "prompt": self.prompt.ids}, but=(400, 422)) as response:
                if response.status_code == 200:
                    yield response
                    return
        # Sent again as text; a request that is wrong for another reason is refused again.
        async with _post(server, "completions", {**body, "prompt": self.prompt.text}) as response:
            server.takes_text_only = True
            yield response

    async def _open_chat(self, server: Server, body: Mapping[str, object], stack: AsyncExitStack) -> "Response":
        """Send a chat request, and again without each setting that the server refuses and that can be spared."""
        while True:
            asked = without_refused(body, server.refused)
            try:
                return await stack.enter_async_context(_post(server, "chat/completions", asked))
            except _Refused as refused:
                if (name := find_refused(refused.words, asked)) is None:
                    raise
                server.refused.add(name)
                self._tell_lost(server, f"{refused.words}: asked again without {name}")


def describe_error(error: BaseException) -> str:
    """Return an error's kind and words; of a group, those of its first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {quote(str(error))}"


@asynccontextmanager
async def _post(
    server: Server, path: str, body: Mapping[str, object], *, but: tuple[int, ...] = ()
) -> "AsyncIterator[Response]":
    """Send a request. A response that is neither 200 nor one of `but` raises Lost or _Refused."""
    async with server.client.stream("POST", f"{server.url.rstrip('/')}/{path}", json=body) as response:
        if response.status_code != 200 and response.status_code not in but:
            await _raise_refusal(response)
        yield response


async def _raise_refusal(response: "Response") -> None:
    status = response.status_code
    words = f"{status} {response.reason_phrase}: {quote(await read_message(response))}"
    if 400 <= status < 500 and status not in _BUSY:
        raise _Refused(status, words)
    wait_s = read_wait(response.headers.get("retry-after"))
    raise Lost(
        words if wait_s is None else f"{words} (to be asked again in {wait_s:g} s)",
        wait_s=wait_s,
        garbled=False,
        broken=status == 500,
    )


async def read_bytes(response: "Response") -> "AsyncGenerator[bytes, None]":
    """Yield the body as it comes, as a generator that can be closed."""
    async for chunk in response.aiter_bytes():
        yield chunk


async def read_body(response: "Response", *, most: int) -> bytes:
    """Return the body, and no more than the piece with which it has `most` bytes."""
    body = b""
    async with aclosing(read_bytes(response)) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) >= most:
                break
    return body


async def read_message(response: "Response") -> str:
    """Return what a response that is no completion says: its error's message, or how its body begins."""
    body = await read_body(response, most=_SHOWN)
    text = clean(body[:_SHOWN].decode(errors="replace"))
    try:
        said: Any = parse_json(text)
    except ValueError:
        return text
    for name in ("error", "message", "detail"):
        said = said.get(name, said) if isinstance(said, dict) else said
    return str(said)
