"""Servers that share one queue of samples: slots, patience, lost servers and their return, second tries."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from statistics import median
from typing import TYPE_CHECKING

from mathlete.errors import UserError

if TYPE_CHECKING:
    from httpx2 import AsyncClient

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 30.0
_HEDGE_AFTER, _HEDGE_LEAST_S = 4.0, 5.0
"""A sample gets a second try once it takes so many times the median, and at least so many seconds."""
_PROMISES = 5
"""How often the patience a server may ask for before it is asked again, as where it counts the requests of a minute."""
_LOOKS = 8
"""How often, within the patience, things that come without a notice are looked at."""


@dataclass(eq=False)
class Server:
    """The state of one server."""

    url: str
    client: "AsyncClient"
    model: str
    slots: int
    owner: str = ""
    """Who it says that it is, as in "vllm" and "llamacpp"; "" where it does not."""
    takes_text_only: bool = False
    """Whether it refused a prompt of token ids, and took the same as text."""
    refused: set[str] = field(default_factory=set)
    """Settings that it does not take in a chat, and without which it is asked."""
    running: int = 0
    heard: float = 0.0
    """Moment of `time.monotonic` when it last sent a part of a completion."""
    dead_until: float = 0.0
    """Moment before which nothing is sent to it."""
    promised: float = 0.0
    """Moment at which it has said that it wants to be asked again."""
    failures: int = 0
    """Failures since its last success."""
    trouble: str = ""
    """The latest failure, in words."""

    def record_failure(self, trouble: str, *, patience_s: float, wait_s: float | None = None) -> None:
        """Send it nothing for a while: twice as long with each failure, or as long as it asks for.

        Of requests that were under way together, and all fail, the first counts.
        """
        now, self.trouble = time.monotonic(), trouble
        if self.alive:
            first = min(_FIRST_WAIT_S, patience_s / _LOOKS)
            self.dead_until = now + min(_LONGEST_WAIT_S, first * 2 ** min(self.failures, 16))
            self.failures += 1
        if wait_s is not None:
            self.promised = now + wait_s
            self.dead_until = max(self.dead_until, self.promised)

    @property
    def alive(self) -> bool:
        """Whether anything may be sent to it."""
        return time.monotonic() >= self.dead_until


@dataclass(eq=False)
class Fleet:
    """All servers. Used in one event loop only."""

    servers: Sequence[Server]
    patience_s: float
    """Seconds without a token of any server after which samples give up."""
    waiting: int = 0
    """Samples that no server has a slot for."""
    seconds: list[float] = field(default_factory=list)
    """Seconds of the latest samples."""
    finished: int = 0
    """Samples that came whole."""
    _owed: int = 0
    """Samples under way."""
    _freed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set, and replaced, when a slot is free again. A Condition cancelled in `wait_for` may lose its lock."""
    _heard: float = 0.0
    """Moment when any server last sent a part of a completion, or first owed one."""

    @property
    def silence_s(self) -> float:
        """Seconds without a token after which a request is lost: half the patience, so that it is made once more."""
        return self.patience_s / 2

    @property
    def look_s(self) -> float:
        """Seconds between two looks at what comes without a notice."""
        return min(0.2, self.patience_s / _LOOKS)

    @contextmanager
    def owe(self) -> Iterator[None]:
        """Count a sample as owed. Patience is for servers that owe something, not for a pause between problems."""
        if not self._owed:
            self._heard = time.monotonic()
        self._owed += 1
        try:
            yield
        finally:
            self._owed -= 1

    @asynccontextmanager
    async def slot(self, *, but: Collection[Server] = ()) -> AsyncIterator[Server]:
        """Wait for a free slot of the least busy living server, and hold it; none of `but` where others live."""
        server = await self._acquire(but)
        try:
            yield server
        finally:
            server.running -= 1
            freed, self._freed = self._freed, asyncio.Event()
            freed.set()

    async def _acquire(self, but: Collection[Server]) -> Server:
        self.waiting += 1
        try:
            while (server := self._free(but)) is None:
                # Servers come back to life without a notice, so look again from time to time.
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.look_s):
                        await self._freed.wait()
        finally:
            self.waiting -= 1
        server.running += 1
        return server

    def _free(self, but: Collection[Server]) -> Server | None:
        alive = [server for server in self.servers if server.alive]
        others = [server for server in alive if server not in but] or alive
        free = [server for server in others if server.running < server.slots]
        return min(free, key=lambda server: server.running / server.slots, default=None)

    def check_patience(self) -> None:
        """Raise UserError where no server has sent any part of a completion for longer than the patience.

        It begins anew where a server is to be asked again, as long as that is not too far away.
        """
        latest = self._heard + _PROMISES * self.patience_s
        since = max([self._heard, *(server.promised for server in self.servers if server.promised <= latest)])
        if time.monotonic() - since > self.patience_s:
            raise UserError(
                f"one of the servers must answer within {self.patience_s:g} s",
                value="; ".join(f"{server.url}: {server.trouble or 'not a word'}" for server in self.servers),
                cure="mend or start a server, or give it more time with --servers.patience-s; the run goes on where "
                "it stopped",
            )

    def hear(self, server: Server) -> None:
        """Note that a part of a completion came."""
        server.heard = self._heard = time.monotonic()

    def record_success(self, server: Server, seconds: float) -> None:
        """Count a finished sample."""
        server.failures, server.trouble = 0, ""
        self.hear(server)
        self.seconds = [*self.seconds[-199:], seconds]
        self.finished += 1

    def hedge_after_s(self, *, but: Server) -> float | None:
        """Return the seconds after which a sample on `but` is also tried elsewhere; None where it must not be now."""
        # Only where slots are idle: a second try must take nothing from samples that have not begun.
        idle = any(server.alive and server is not but and server.running < server.slots for server in self.servers)
        if self.waiting or not idle or len(self.seconds) < 4:
            return None
        return max(_HEDGE_LEAST_S, _HEDGE_AFTER * median(self.seconds))


def read_wait(header: str | None) -> float | None:
    """Return the seconds of a Retry-After header, which may also be a date; None where it says nothing sensible.

    >>> read_wait("2.5"), read_wait("soon"), read_wait("-1"), read_wait("nan")
    (2.5, None, None, None)
    """
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None
