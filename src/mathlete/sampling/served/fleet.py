"""Servers that share one queue of samples: slots, death and return, and who gets a second try."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from mathlete.errors import UserError

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 30.0
_HEDGE_AFTER, _HEDGE_LEAST_S = 4.0, 5.0
"""A sample is begun a second time once it takes so many times the median, and at least so many seconds."""


@dataclass(eq=False)
class Server:
    """One server as the fleet sees it."""

    url: str
    client: Any
    model: str
    slots: int
    takes_text_only: bool = False
    """Whether it has refused a prompt of token ids."""
    running: int = 0
    dead_until: float = 0.0
    failures: int = 0
    """Since its last success."""

    def failed(self) -> None:
        """Leaves it alone for a while, twice as long each time."""
        wait = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2**self.failures)
        self.failures += 1
        self.dead_until = time.monotonic() + wait

    @property
    def alive(self) -> bool:
        """Whether it may be tried."""
        return time.monotonic() >= self.dead_until


@dataclass(eq=False)
class Fleet:
    """All servers. Lives in one event loop."""

    servers: Sequence[Server]
    patience_s: float
    """Without any success for so long, a sample gives up."""
    waiting: int = 0
    """Samples that no server has a slot for."""
    seconds: list[float] = field(default_factory=list)
    """What the latest samples took."""
    _freed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set, and replaced, when a slot is free again. A Condition cancelled in `wait_for` may lose its lock."""
    _last_success: float = field(default_factory=time.monotonic)

    @asynccontextmanager
    async def slot(self, *, but: Server | None = None) -> AsyncIterator[Server]:
        """A free slot of the least busy living server, waiting for one; not of `but` where others live."""
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

    def succeeded(self, server: Server, seconds: float) -> None:
        """Counts a finished sample."""
        server.failures, self._last_success = 0, time.monotonic()
        self.seconds = [*self.seconds[-199:], seconds]

    def hedge_after_s(self, *, but: Server) -> float | None:
        """Seconds after which a sample that runs on `but` is begun on another server too; None: not now."""
        idle = any(server.alive and server is not but and server.running < server.slots for server in self.servers)
        if self.waiting or not idle or len(self.seconds) < 4:
            return None
        return max(_HEDGE_LEAST_S, _HEDGE_AFTER * median(self.seconds))
