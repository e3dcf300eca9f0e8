"""Clocks: one protocol for the real clock and, in the replay, for a virtual one."""

import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time in seconds since some fixed moment."""

    def now(self) -> float:
        """Seconds; never goes backwards."""
        ...


class RealClock:
    """The machine's monotonic clock."""

    def now(self) -> float:
        """Seconds since the machine's start."""
        return time.monotonic()
