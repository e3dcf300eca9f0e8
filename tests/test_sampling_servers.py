"""The openai engine against a server on loopback that does whatever a server may do: an answer, or a lost try."""

import asyncio
import json
import re
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mathlete.errors import UserError
from mathlete.lost import LostTry
from mathlete.models import find_model, load_prompt_format
from mathlete.problems import Problem, write_problems
from mathlete.sampling.record import read_samples
from mathlete.sampling.samples import Sample, SamplingConfig
from mathlete.sampling.served.events import Events
from mathlete.sampling.served.openai_engine import OpenAISampler, ServerSettings
from mathlete.solve.clock import RealClock
from mathlete.solve.policy import Policy
from mathlete.solve.solver import solve
from tests.conftest import CommandLine, sample

pytest.importorskip("httpx2", reason="needs httpx2, the extra `openai`")
PROBLEM = Problem(id="p", statement="What is 3 + 4?", gold="7")
SAID = ("So", " 7", ".\n</think>\n\n", "\\boxed", "{7}")
TEXT = "".join(SAID)
CONFIG = SamplingConfig(max_tokens=40)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def event(value: Any) -> bytes:
    return b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n"


def choice(text: Any = "", reason: Any = None, logprobs: Any = None, **more: Any) -> bytes:
    """An event of the completions endpoint."""
    return event({"choices": [{"index": 0, "text": text, "finish_reason": reason, "logprobs": logprobs, **more}]})


def scored(text: str, logprob: Any = -0.5, reason: Any = None) -> bytes:
    return choice(text, reason, {"token_logprobs": [logprob]})


DONE = b"data: [DONE]\n\n"
USAGE = event({"choices": [], "usage": {"completion_tokens": 5}})
BEGUN = b"".join(map(scored, SAID[:2]))
GOOD = b"".join(map(scored, SAID)) + choice("", "stop") + USAGE + DONE


@dataclass(eq=False)
class Wire:
    """One connection, after a request has been read from it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    request: dict[str, Any]
    port: int

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def hang(self) -> None:
        """Say no more, until the client leaves."""
        await self.reader.read()

    async def drip(self, data: bytes, *, each: int = 1, pause_s: float = 0.02) -> None:
        for at in range(0, len(data), each):
            await self.send(data[at : at + each])
            await asyncio.sleep(pause_s)

    async def die(self) -> None:
        """End the connection as a killed process does."""
        transport: Any = self.writer.transport
        transport.abort()


Behaviour = Callable[[Wire], Awaitable[None]]


def says(*parts: bytes) -> Behaviour:
    """A server that sends these bytes and closes the connection."""

    async def behave(wire: Wire) -> None:
        for part in parts:
            await wire.send(part)

    return behave


def streams(*parts: bytes) -> Behaviour:
    return says(HEAD, *parts)


def answers(status: str, body: str | bytes = "", *headers: str) -> Behaviour:
    """A server that answers with a status and a body."""
    data = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(data)}", "Connection: close", "", ""]
    return says("\r\n".join(lines).encode() + data)


good = streams(GOOD)
LISTED = answers("200 OK", '{"data": [{"id": "m"}]}')


async def _hang(wire: Wire) -> None:
    await wire.hang()


async def _hang_after_head(wire: Wire) -> None:
    await wire.send(HEAD)
    await wire.hang()


async def _hang_midway(wire: Wire) -> None:
    await wire.send(HEAD + BEGUN)
    await wire.hang()


async def _hang_after_the_end(wire: Wire) -> None:
    await wire.send(HEAD + b"".join(map(choice, SAID[:3])) + choice("It is 7.", "stop"))
    await wire.hang()


async def _die(wire: Wire) -> None:
    await wire.die()


async def _die_midway(wire: Wire) -> None:
    await wire.send(HEAD + BEGUN)
    await wire.die()


async def _die_after_the_end(wire: Wire) -> None:
    await wire.send(HEAD + b"".join(map(choice, SAID[:3])) + choice("It is 7.", "stop"))
    await wire.die()


async def _drip(wire: Wire) -> None:
    await wire.send(HEAD)
    await wire.drip(GOOD, each=80)


async def _drip_nothing(wire: Wire) -> None:
    await wire.send(HEAD)
    await wire.drip(b": still here\n\n" * 1000, each=14)


async def _drip_one_event(wire: Wire) -> None:
    await wire.send(HEAD)
    await wire.drip(b"data: " + b"x" * 10_000)


async def _drip_empty_events(wire: Wire) -> None:
    await wire.send(HEAD)
    empty = event({"choices": []})
    await wire.drip(empty * 1000, each=len(empty))


async def _talk_for_ever(wire: Wire) -> None:
    await wire.send(HEAD)
    while True:
        await wire.send(scored(" and") * 50)


async def _babble(wire: Wire) -> None:
    await wire.send(HEAD + b"data: ")
    while True:
        await wire.send(b"x" * 500_000)


async def _redirect_to_itself(wire: Wire) -> None:
    await answers("307 Temporary Redirect", "", f"Location: http://127.0.0.1:{wire.port}/loop")(wire)


def chunked(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)


CHUNKED_HEAD = HEAD.replace(b"Connection: close", b"Transfer-Encoding: chunked")
HTML = "<!doctype html><html><body>Welcome to the portal</body></html>"
WRONG = "an event must be a completion's"
LOST: dict[str, tuple[Behaviour, str]] = {
    # bad JSON, bad UTF-8, events of another kind
    "half an event": (streams(BEGUN, b'data: {"choices": [{"te'), "an event must be JSON"),
    "an event that is no JSON": (streams(BEGUN, event(b"{nonsense}"), GOOD), "an event must be JSON: {nonsense}"),
    "a number too long": (streams(event(b"9" * 5000)), "an event must be JSON: 999"),
    "JSON nested too deep": (streams(event(b"[" * 100_000)), r"an event must be JSON: \[\["),
    "bytes that are no UTF-8": (
        streams(BEGUN, event(b'{"choices": [{"text": "\xff\xfe"}]}')),
        "an event must be UTF-8",
    ),
    "a surrogate as bytes": (streams(event(b'{"choices": [{"text": "\xed\xa0\x80"}]}')), "an event must be UTF-8"),
    "an event that is a list": (streams(event([1, 2])), f"{WRONG}, and has list instead of dict: .1, 2."),
    "an event that is null": (streams(event(None)), f"{WRONG}, and has NoneType"),
    "an event that is a word": (streams(event("hello")), f"{WRONG}, and has str"),
    "events without data": (streams(b"event: ping\n\n" * 3), "must end with a reason: what came was event: ping"),
    "an empty event": (streams(b"data:\n\ndata: \n\n"), "must end with a reason"),
    "an error in the stream": (
        streams(BEGUN, event({"error": {"message": "CUDA out of memory"}})),
        "CUDA out of memory",
    ),
    "an error that is a word": (streams(event({"error": "overloaded"})), "the server says: overloaded"),
    # wrong types
    "choices that are a dict": (streams(event({"choices": {"text": "7"}})), f"{WRONG}, and has dict instead of list"),
    "choices that are words": (streams(event({"choices": ["7"]})), f"{WRONG}, and has str instead of dict"),
    "text that is a number": (streams(choice(7)), f"{WRONG}, and has int instead of str"),
    "text that is a list": (streams(choice(["7"])), f"{WRONG}, and has list instead of str"),
    "a reason that is a number": (streams(BEGUN, choice("", 3)), f"{WRONG}, and has int instead of str"),
    "a reason that is true": (streams(BEGUN, choice("", True)), f"{WRONG}, and has bool instead of str"),
    "usage that is a list": (
        streams(BEGUN, event({"choices": [], "usage": [5]})),
        f"{WRONG}, and has list instead of dict",
    ),
    "a count in words": (streams(event({"usage": {"completion_tokens": "5"}})), f"{WRONG}, and has str instead of int"),
    "a count below nothing": (
        streams(event({"usage": {"completion_tokens": -5}})),
        f"{WRONG}, and has int instead of int",
    ),
    "a count that is true": (streams(event({"usage": {"completion_tokens": True}})), f"{WRONG}, and has bool"),
    "logprobs that are a list": (streams(choice("7", logprobs=[-0.5])), f"{WRONG}, and has list instead of dict"),
    "logprobs of another shape": (streams(choice("7", logprobs={"content": [-0.5]})), f"{WRONG}, and has float"),
    # numbers that are none
    "a logprob of NaN": (streams(scored("7", float("nan"))), "log-probability must be a number, and was nan"),
    "a logprob of -Infinity": (streams(scored("7", float("-inf"))), "must be a number, and was -inf"),
    "a logprob of 1e999": (
        streams(event(b'{"choices": [{"text": "7", "logprobs": {"token_logprobs": [1e999]}}]}')),
        "was inf",
    ),
    "a logprob in words": (streams(scored("7", "-0.5")), "must be a number, and was -0.5"),
    "a logprob that is true": (streams(scored("7", True)), "must be a number, and was True"),
    # ends that are none
    "no reason": (streams(BEGUN, DONE), "must end with a reason: it broke off after … So 7"),
    "an unknown reason": (streams(BEGUN, choice("", "bored")), "must end by stop or length, and ended by bored"),
    "abort": (streams(BEGUN, choice("", "abort")), "and ended by abort"),
    "content_filter": (streams(BEGUN, choice("", "content_filter")), "and ended by content_filter"),
    "nothing at all": (says(), "RemoteProtocolError"),
    "an empty stream": (streams(), "what came was nothing"),
    "only [DONE]": (streams(DONE), "must end with a reason"),
    "a cut stream": (streams(BEGUN), "it broke off after … So 7"),
    "a cut chunk": (says(CHUNKED_HEAD, chunked(BEGUN)), "RemoteProtocolError"),
    "a chunk of no length": (says(CHUNKED_HEAD, b"zz\r\n"), "RemoteProtocolError"),
    "a length that is not reached": (
        says(HEAD.replace(b"Connection", b"Content-Length: 99999\r\nConnection"), BEGUN),
        "RemoteProtocolError",
    ),
    # more than was asked for
    "two choices in an event": (streams(event({"choices": [{"text": "7"}, {"text": "8"}]})), "several came"),
    "a second choice": (streams(BEGUN, event({"choices": [{"index": 1, "text": "8"}]})), "several came"),
    "more tokens than asked for": (streams(scored(" and") * 60, choice("", "stop")), "more came than the 40 tokens"),
    "a count above the cap": (streams(BEGUN, event({"usage": {"completion_tokens": 4000}})), "more came than the 40"),
    "a token as long as a book": (streams(choice("x" * 100_000)), "more came than the 40 tokens"),
    "tokens without end": (_talk_for_ever, "more came than the 40 tokens"),
    "a line without end": (_babble, "a line of more than 4000000 bytes|nothing came for"),
    # other answers
    "a page": (answers("200 OK", HTML, "Content-Type: text/html"), "what came was <!doctype html><html>"),
    "a whole reply in JSON": (answers("200 OK", '{"choices": [{"text": "7"}]}'), r"what came was \{.choices"),
    "no content": (says(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"), "204 No Content"),
    "408": (answers("408 Request Timeout", "too slow"), "408 Request Timeout: too slow"),
    "429": (
        answers("429 Too Many Requests", '{"error": {"message": "slow down"}}'),
        "429 Too Many Requests: slow down",
    ),
    "429 with a time": (answers("429 Too Many Requests", "later", "Retry-After: 0.05"), "to be asked again in 0.05 s"),
    "429 with nonsense": (answers("429 Too Many Requests", "later", "Retry-After: when you like"), "429 Too Many"),
    "429 with a date that is over": (
        answers("429 Too Many Requests", "x", "Retry-After: Thu, 01 Jan 1970 00:00:00 GMT"),
        "429",
    ),
    "500": (answers("500 Internal Server Error", HTML), "500 Internal Server Error: <!doctype html>"),
    "500 in bytes": (answers("500 Oops", b"\xff\xfe\x00"), "500 Oops: \ufffd"),
    "502": (answers("502 Bad Gateway", HTML, "Content-Type: text/html"), "502 Bad Gateway"),
    "503 with a time": (
        answers("503 Service Unavailable", "loading", "Retry-After: 0.05"),
        "503 Service Unavailable: loading",
    ),
    "503 with a length that is not reached": (
        says(b"HTTP/1.1 503 No\r\nContent-Length: 99\r\n\r\nlo"),
        "RemoteProtocolError",
    ),
    "a redirect to nowhere": (answers("302 Found"), "302 Found"),
    "a redirect to itself": (_redirect_to_itself, "TooManyRedirects"),
    "a redirect to a file": (answers("307 Go", "", "Location: file:///etc/passwd"), "UnsupportedProtocol"),
    "a redirect to nonsense": (answers("307 Go", "", "Location: http://[x/"), "Error"),
    "no HTTP": (says(b"SSH-2.0-OpenSSH_9.6\r\n"), "RemoteProtocolError"),
    "bytes": (says(bytes(range(256)) * 20), "RemoteProtocolError"),
    "headers without end": (says(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000), "RemoteProtocolError"),
    "gzip that is none": (
        says(HEAD.replace(b"Connection", b"Content-Encoding: gzip\r\nConnection"), GOOD),
        "DecodingError",
    ),
    # silence and death
    "silence": (_hang, "nothing came for"),
    "silence after the head": (_hang_after_head, "nothing came for"),
    "silence midway": (_hang_midway, "nothing came for .* after 4 characters"),
    "signs of life without a token": (_drip_nothing, "nothing came for"),
    "an event drop by drop": (_drip_one_event, "nothing came for"),
    "empty events": (_drip_empty_events, "nothing came for"),
    "death": (_die, "ReadError|RemoteProtocolError"),
    "death midway": (_die_midway, "ReadError|RemoteProtocolError|it broke off after … So 7"),
}
"""{what a server does: (how, what is said of it)}: all of these are lost, and tried again."""
SOME = ("half an event", "a logprob of -Infinity", "429 with a time", "a page", "silence midway", "death midway")
ROWS = sample(*SOME, slow=[name for name in LOST if name not in SOME])
FINE: dict[str, Behaviour] = {
    "a server that does as it should": good,
    "a drip": _drip,
    "silence after the end": _hang_after_the_end,
    "death after the end": _die_after_the_end,
    "carriage returns": streams(GOOD.replace(b"\n", b"\r\n")),
    "carriage returns alone": streams(GOOD.replace(b"\n", b"\r")),
    "comments and other fields": streams(b": hello\nid: 7\nretry: 5\nevent: x\n", GOOD.replace(b"\n\n", b"\n: x\n\n")),
    "data without a space": streams(GOOD.replace(b"data: ", b"data:")),
    "no empty line at the end": streams(b"".join(map(scored, SAID[:3])), choice("It is 7.", "stop").rstrip()),
    "no choices with the usage": streams(b"".join(map(scored, SAID[:3])), event({"usage": {"completion_tokens": 5}}),
                                         choice("It is 7.", "stop")),
    "a reason of another name": streams(b"".join(map(scored, SAID[:3])), choice("It is 7.", "eos_token"), DONE),
    "nonsense after the end": streams(b"".join(map(choice, SAID[:3])), choice("It is 7.", "stop"), event(b"{{{")),
    "a first token without a logprob": streams(scored(SAID[0], None), *map(scored, SAID[1:])),
}  # fmt: skip


@dataclass(eq=False)
class Loopback:
    """A real server in a thread, which behaves as it is told: for the first requests, and then for all others."""

    first: list[Behaviour] = field(default_factory=list)
    then: Behaviour = good
    listing: Behaviour = LISTED
    port: int = 0
    requests: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        started = threading.Event()

        async def serve() -> None:
            self._server = await asyncio.start_server(self._handle, "127.0.0.1", 0, limit=2**20)
            self.port = self._server.sockets[0].getsockname()[1]
            started.set()

        self._loop.create_task(serve())
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        started.wait()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.CancelledError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = re.search(r"(?i)content-length: (\d+)", head)
            body = await reader.readexactly(int(length[1])) if length else b"{}"
            wire = Wire(reader, writer, json.loads(body), self.port)
            if "/loop" in head.split("\r\n")[0]:
                await _redirect_to_itself(wire)
            elif "/models" in head.split("\r\n")[0]:
                await self.listing(wire)
            else:
                self.requests.append(wire.request)
                await (self.first.pop(0) if self.first else self.then)(wire)
        with suppress(OSError):
            writer.close()

    def close(self) -> None:
        async def end() -> None:
            self._server.close()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def loopback() -> Iterator[Callable[..., Loopback]]:
    servers: list[Loopback] = []

    def start(*first: Behaviour, **how: Any) -> Loopback:
        servers.append(Loopback(first=[*first], **how))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@dataclass
class Opened:
    """An engine on servers, and what it lost."""

    engine: OpenAISampler
    lost: list[LostTry]

    def draw(self, n: int = 1, config: SamplingConfig = CONFIG) -> list[Sample]:
        return sorted(
            self.engine.stream(PROBLEM, seeds={i: 100 + i for i in range(n)}, config=config),
            key=lambda sample: sample.index,
        )


@pytest.fixture
def opened() -> Iterator[Callable[..., Opened]]:
    prompts = load_prompt_format(find_model("pocket"))
    engines: list[OpenAISampler] = []

    def start(*servers: Loopback, **how: Any) -> Opened:
        lost: list[LostTry] = []
        settings = ServerSettings(urls=tuple(server.url for server in servers), **how)
        engines.append(OpenAISampler(settings, model="m", prompts=prompts, on_lost=lost.append))
        return Opened(engines[-1], lost)

    yield start
    for engine in engines:
        engine.close()


def test_the_table_is_as_long_as_it_must_be() -> None:
    assert len(LOST) >= 50
    assert set(SOME) <= set(LOST)


@pytest.mark.parametrize("name", ROWS)
def test_a_lost_sample_is_drawn_again(
    name: str, loopback: Callable[..., Loopback], opened: Callable[..., Opened]
) -> None:
    behave, words = LOST[name]
    server = loopback(behave)
    engine = opened(server, patience_s=0.6 if "nothing came" in words else 5)
    (drawn,) = engine.draw()
    assert (drawn.text, drawn.finish, drawn.tokens) == (TEXT, "boxed", 5)
    (one,) = engine.lost
    assert re.search(words, one.reason), one.reason
    assert (one.problem_id, one.index, one.seed, one.where) == ("p", 0, 100, server.url)
    assert [request["seed"] for request in server.requests] == [100, 100]


@pytest.mark.parametrize("name", ROWS)
def test_what_never_comes_right_ends_the_run_with_what_came(
    name: str, loopback: Callable[..., Loopback], opened: Callable[..., Opened]
) -> None:
    behave, words = LOST[name]
    # What is no silence must not be taken for it on a busy machine.
    patience_s = 0.4 if "nothing came" in words else 1.5
    engine = opened(loopback(then=behave), patience_s=patience_s)
    began = time.monotonic()
    with pytest.raises(UserError) as caught:
        engine.draw(2)
    # Patience, waits between tries, and a machine that is busy with other things.
    assert time.monotonic() - began < 3 * patience_s + 5
    assert re.search(f"must (answer within {patience_s} s|come whole from).*, got .*({words})", str(caught.value)), (
        caught.value
    )
    assert len(str(caught.value).splitlines()) == 2
    assert len(engine.lost) >= 1


@pytest.mark.parametrize("name", ROWS)
def test_a_clock_ends_a_problem_whatever_the_server_does(
    name: str, loopback: Callable[..., Loopback], opened: Callable[..., Opened]
) -> None:
    behave, _ = LOST[name]
    engine = opened(loopback(then=behave), patience_s=30)
    began = time.monotonic()
    solution = solve(
        PROBLEM, sampler=engine.engine, clock=RealClock(), policy=Policy(n=2, sampling=CONFIG), timeout_s=0.3
    )
    assert time.monotonic() - began < 0.3 + 5
    assert (solution.answer, solution.samples, solution.ended) == (None, [], "time")


@pytest.mark.parametrize(
    "name",
    sample("a drip", "silence after the end", slow=[n for n in FINE if n not in ("a drip", "silence after the end")]),
)
def test_oddities_that_harm_nothing_are_let_pass(
    name: str, loopback: Callable[..., Loopback], opened: Callable[..., Opened]
) -> None:
    engine = opened(loopback(then=FINE[name]), patience_s=30)
    (drawn,) = engine.draw()
    assert drawn.text in (TEXT, "So 7.\n</think>\n\nIt is 7.")
    assert drawn.tokens in (3, 4, 5)
    assert engine.lost == []


REFUSED = {
    "400": (
        answers("400 Bad Request", '{"error": {"message": "context length exceeded"}}'),
        "400 Bad Request: context length",
    ),
    "401": (answers("401 Unauthorized", '{"detail": "no key"}'), "401 Unauthorized: no key"),
    "404": (answers("404 Not Found", HTML, "Content-Type: text/html"), "404 Not Found: <!doctype html><html>"),
    "413": (answers("413 Too Large", "x" * 10_000), r"413 Too Large: x{300} … \(1700 more characters\)"),
    "418": (answers("418 I'm a teapot", b"\xff\x00"), "418 I'm a teapot: \ufffd\ufffd"),
}
"""What a server says of a request that is wrong: waiting would not mend it."""


@pytest.mark.parametrize("name", sample("401", slow=[name for name in REFUSED if name != "401"]))
def test_a_refusal_ends_the_run_at_once(
    name: str, loopback: Callable[..., Loopback], opened: Callable[..., Opened]
) -> None:
    behave, words = REFUSED[name]
    began = time.monotonic()
    engine = opened(loopback(then=behave), patience_s=60)
    with pytest.raises(UserError, match=f"must take the request for problem p, got {words}"):
        engine.draw()
    # A second server takes what the first refuses.
    assert time.monotonic() - began < 10
    both = opened(loopback(then=behave), loopback(), patience_s=60)
    assert [one.text for one in both.draw(4)] == [TEXT] * 4


LISTINGS: dict[str, tuple[Behaviour, str]] = {
    "one model": (answers("200 OK", '{"data": [{"id": "other"}]}'), "other"),
    "two models": (answers("200 OK", '{"data": [{"id": "a"}, {"id": "b"}]}'), "m"),
    "no JSON": (answers("200 OK", HTML), "m"),
    "null": (answers("200 OK", "null"), "m"),
    "data of null": (answers("200 OK", '{"data": null}'), "m"),
    "ids that are numbers": (answers("200 OK", '{"data": [{"id": 7}, "x", null]}'), "m"),
    "bytes": (answers("200 OK", b"\xff\xfe"), "m"),
    "500": (answers("500 No", "x"), "m"),
    "404": (answers("404 No", "x"), "m"),
}


@pytest.mark.parametrize(
    "name", sample("no JSON", "data of null", slow=[n for n in LISTINGS if n not in ("no JSON", "data of null")])
)
def test_a_server_may_list_its_models_in_any_way(
    name: str, loopback: Callable[..., Loopback], opened: Callable[..., Opened]
) -> None:
    listing, model = LISTINGS[name]
    server = loopback(listing=listing)
    assert opened(server, patience_s=5).draw()[0].text == TEXT
    assert server.requests[0]["model"] == model


@pytest.mark.parametrize(
    ("behave", "words"),
    [
        (_hang, "nothing within 0.3 s"),
        (_die, "ReadError|RemoteProtocolError"),
        (answers("401 No", '{"error": "a key!"}'), "401 a key!"),
        (says(bytes(range(256))), "RemoteProtocolError"),
        (_redirect_to_itself, "TooManyRedirects"),
    ],
)
def test_servers_of_which_none_answers_are_one_clear_error(
    behave: Behaviour, words: str, loopback: Callable[..., Loopback], opened: Callable[..., Opened]
) -> None:
    with pytest.raises(UserError, match=rf"one of the servers must answer, got http://127.0.0.1:\d+/v1: ({words})"):
        opened(loopback(listing=behave), patience_s=0.3 if behave is _hang else 5)


def test_a_pause_between_problems_is_no_silence(
    loopback: Callable[..., Loopback], opened: Callable[..., Opened]
) -> None:
    engine = opened(loopback(good, answers("503 No", "restarting")), patience_s=0.4)
    engine.draw()
    time.sleep(0.6)
    assert engine.draw()[0].text == TEXT


def test_a_busy_server_is_asked_later_and_no_reply_of_it_is_wrong(
    loopback: Callable[..., Loopback], opened: Callable[..., Opened]
) -> None:
    # One sample is put off for longer than the patience, while others come.
    busy = answers("429 Slow Down", "later")
    engine = opened(loopback(busy, busy, busy, busy, good, busy, busy, good), patience_s=0.5)
    assert [one.text for one in engine.draw(6)] == [TEXT] * 6
    assert len(engine.lost) == 6


def test_halves_of_a_character_are_joined_and_others_replaced(
    loopback: Callable[..., Loopback], opened: Callable[..., Opened]
) -> None:
    odd = streams(choice("\ud83d"), choice("\ude00 \x00 \ud800"), choice("!", "stop"), DONE)
    assert opened(loopback(odd)).draw()[0].text == "😀 \x00 \ufffd!"


def test_a_server_that_takes_only_text_gets_text(
    loopback: Callable[..., Loopback], opened: Callable[..., Opened]
) -> None:
    server = loopback(answers("422 No", "a string, please"))
    engine = opened(server)
    assert [one.text for one in engine.draw() + engine.draw()] == [TEXT] * 2
    assert [type(request["prompt"]) for request in server.requests] == [list, str, str]


def test_a_prompt_that_is_refused_in_both_forms_changes_nothing_for_the_next(
    loopback: Callable[..., Loopback], opened: Callable[..., Opened]
) -> None:
    server = loopback(REFUSED["400"][0], REFUSED["400"][0])
    engine = opened(server)
    with pytest.raises(UserError, match="context length exceeded"):
        engine.draw()
    engine.draw()
    assert [type(request["prompt"]) for request in server.requests] == [list, str, list]


def test_events_come_in_any_pieces() -> None:
    async def read(pieces: list[bytes]) -> list[str]:
        async def chunks() -> Any:
            for piece in pieces:
                yield piece

        return [data async for data in Events(chunks())]

    for text in (GOOD, GOOD.replace(b"\n", b"\r\n"), GOOD.replace(b"\n", b"\r")):
        whole = asyncio.run(read([text]))
        assert len(whole) == 8
        for size in (1, 2, 3, 7, 50):
            assert asyncio.run(read([text[at : at + size] for at in range(0, len(text), size)])) == whole


def words_of(server: Loopback, *more: object) -> list[object]:
    fixed = ["two.jsonl", "--model", "pocket", "--engine", "openai", "--n", 2, "--sampling.max-tokens", 40]
    return [*fixed, "--run", "run", "--servers.urls", server.url, *more, "--json"]


@pytest.fixture
def two(workdir: Path) -> Path:
    problems = [Problem(id=name, statement=f"What is 3 + 4? ({name})", gold="7") for name in ("a", "b")]
    write_problems(workdir / "two.jsonl", problems)
    return workdir / "run"


def test_a_run_says_what_it_lost_and_a_stopped_one_draws_it_again(
    two: Path, loopback: Callable[..., Loopback], evaluate: CommandLine
) -> None:
    nonsense, busy = streams(BEGUN, event(b"{nonsense}")), answers("503 Busy", "later")
    server = loopback(good, then=nonsense)
    refusal = evaluate(*words_of(server, "--servers.patience-s", 0.4)).refusal
    assert re.search("must (answer|come whole).*an event must be JSON: {nonsense}", refusal)
    assert "Traceback" not in refusal
    assert len(read_samples(two / "samples.jsonl")) == 1
    before = len((two / "lost.jsonl").read_text().splitlines())
    assert before >= 3

    server.first, server.then = [busy], good
    done = evaluate(*words_of(server))
    assert (done.result["samples"], done.result["right"]) == (4, 4)
    assert f"{before} tries were lost before" in done.stderr
    results = json.loads((two / "results.json").read_text())
    assert (results["lost_tries"], results["lost_samples"]) == (before + 1, 0)
    assert "all of them were made again" in done.stderr
    assert "lost_tries" in (two / "report.html").read_text()
    lost = [json.loads(line) for line in (two / "lost.jsonl").read_text().splitlines()]
    assert lost[-1]["reason"] == "503 Busy: later"
    assert {one["text"] for one in lost[:-1]} == {"So 7"}


def test_samples_that_a_clock_leaves_lost_are_told_and_stay_so(
    two: Path, loopback: Callable[..., Loopback], evaluate: CommandLine
) -> None:
    server = loopback(then=answers("503 Busy", "later"))
    for _ in range(2):
        done = evaluate(*words_of(server, "--time-budget", 0.6, "--servers.patience-s", 60))
        assert (done.result["samples"], done.result["fallbacks"]) == (0, 2)
        assert re.search("[234] samples stay lost: the time of their problems was over", done.stderr)
        # As after a kill just before the end.
        for name in ("manifest.json", "results.json"):
            (two / name).unlink()
        server.then = good
