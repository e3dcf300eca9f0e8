"""A real server on loopback that behaves as it is told, and the ways in which servers behave."""

import asyncio
import json
import re
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

SAID = ("So", " 7", ".\n</think>\n\n", "\\boxed", "{7}")
TEXT = "".join(SAID)
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
UNKNOWN = answers("404 Not Found", "no such page")


async def hang(wire: Wire) -> None:
    await wire.hang()


async def hang_after_head(wire: Wire) -> None:
    await wire.send(HEAD)
    await wire.hang()


async def hang_midway(wire: Wire) -> None:
    await wire.send(HEAD + BEGUN)
    await wire.hang()


async def hang_after_the_end(wire: Wire) -> None:
    await wire.send(HEAD + b"".join(map(choice, SAID[:3])) + choice("It is 7.", "stop"))
    await wire.hang()


async def die(wire: Wire) -> None:
    await wire.die()


async def die_midway(wire: Wire) -> None:
    await wire.send(HEAD + BEGUN)
    await wire.die()


async def die_after_the_end(wire: Wire) -> None:
    await wire.send(HEAD + b"".join(map(choice, SAID[:3])) + choice("It is 7.", "stop"))
    await wire.die()


async def drip(wire: Wire) -> None:
    await wire.send(HEAD)
    await wire.drip(GOOD, each=80)


async def drip_nothing(wire: Wire) -> None:
    await wire.send(HEAD)
    await wire.drip(b": still here\n\n" * 1000, each=14)


async def drip_one_event(wire: Wire) -> None:
    await wire.send(HEAD)
    await wire.drip(b"data: " + b"x" * 10_000)


async def drip_empty_events(wire: Wire) -> None:
    await wire.send(HEAD)
    empty = event({"choices": []})
    await wire.drip(empty * 1000, each=len(empty))


async def talk_for_ever(wire: Wire) -> None:
    await wire.send(HEAD)
    while True:
        await wire.send(scored(" and") * 50)


async def babble(wire: Wire) -> None:
    await wire.send(HEAD + b"data: ")
    while True:
        await wire.send(b"x" * 500_000)


async def redirect_to_itself(wire: Wire) -> None:
    await answers("307 Temporary Redirect", "", f"Location: http://127.0.0.1:{wire.port}/loop")(wire)


def chunked(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)


CHUNKED_HEAD = HEAD.replace(b"Connection: close", b"Transfer-Encoding: chunked")
HTML = "<!doctype html><html><body>Welcome to the portal</body></html>"
WRONG = "an event must be a completion's"


@dataclass(eq=False)
class Loopback:
    """A real server in a thread, which behaves as it is told: for the first requests, and then for all others."""

    first: list[Behaviour] = field(default_factory=list)
    then: Behaviour = good
    listing: Behaviour = LISTED
    rendering: Behaviour = UNKNOWN
    """What it says to /apply-template and /tokenize, which most servers do not know."""
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
                await redirect_to_itself(wire)
            elif "/models" in head.split("\r\n")[0]:
                await self.listing(wire)
            elif re.match(r"POST /(apply-template|tokenize) ", head):
                await self.rendering(wire)
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
