"""Servers that share one queue of samples: slots, lost servers and their return, second tries of slow samples."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from mathlete.errors import UserError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 30.0
_HEDGE_AFTER, _HEDGE_LEAST_S = 4.0, 5.0
"""A sample gets a second try once it takes so many times the median, and at least so many seconds."""


@dataclass(eq=False)
class Server:
    """The state of one server."""

    url: str
    client: "AsyncOpenAI"
    model: str
    slots: int
    takes_text_only: bool = False
    """Whether it refused a prompt of token ids."""
    running: int = 0
    dead_until: float = 0.0
    """Moment of `time.monotonic` before which nothing is sent to it."""
    failures: int = 0
    """Failures since its last success."""

    def record_failure(self) -> None:
        """Send it nothing for a while, twice as long with each failure."""
        wait = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2**self.failures)
        self.failures += 1
        self.dead_until = time.monotonic() + wait

    @property
    def alive(self) -> bool:
        """Whether anything may be sent to it."""
        return time.monotonic() >= self.dead_until


@dataclass(eq=False)
class Fleet:
    """All servers. Used in one event loop only."""

    servers: Sequence[Server]
    patience_s: float
    """Seconds without any success after which a sample gives up."""
    waiting: int = 0
    """Samples that no server has a slot for."""
    seconds: list[float] = field(default_factory=list)
    """Seconds of the latest samples."""
    _freed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set, and replaced, when a slot is free again. A Condition cancelled in `wait_for` may lose its lock."""
    _last_success: float = field(default_factory=time.monotonic)

    @asynccontextmanager
    async def slot(self, *, but: Server | None = None) -> AsyncIterator[Server]:
        """Wait for a free slot of the least busy living server, and hold it; not of `but` where others live."""
        server = await self._acquire(but)
        try:
            yield server
        finally:
            server.running -= 1
            freed, self._freed = self._freed, asyncio.Event()
            freed.set()

    async def _acquire(self, but: Server | None) -> Server:
        self.waiting += 1
        try:
            while (server := self._free(but)) is None:
                self._check_patience()
                # Servers come back to life without a notice, so look again from time to time.
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await self._freed.wait()
        finally:
            self.waiting -= 1
        server.running += 1
        return server

    def _free(self, but: Server | None) -> Server | None:
        alive = [server for server in self.servers if server.alive]
        others = [server for server in alive if server is not but] or alive
        free = [server for server in others if server.running < server.slots]
        return min(free, key=lambda server: server.running / server.slots, default=None)

    def _check_patience(self) -> None:
        if any(server.failures == 0 for server in self.servers):
            return
        if time.monotonic() - self._last_success > self.patience_s:
            raise UserError(
                f"one of the servers must answer within {self.patience_s:g} s",
                value=", ".join(server.url for server in self.servers),
                cure="start a server, or check --servers.urls; the run goes on where it stopped",
            )

    def record_success(self, server: Server, seconds: float) -> None:
        """Count a finished sample."""
        server.failures, self._last_success = 0, time.monotonic()
        self.seconds = [*self.seconds[-199:], seconds]

    def hedge_after_s(self, *, but: Server) -> float | None:
        """Return the seconds after which a sample on `but` is also tried elsewhere; None where it must not be now."""
        # Only where slots are idle: a second try must take nothing from samples that have not begun.
        idle = any(server.alive and server is not but and server.running < server.slots for server in self.servers)
        if self.waiting or not idle or len(self.seconds) < 4:
            return None
        return max(_HEDGE_LEAST_S, _HEDGE_AFTER * median(self.seconds))
