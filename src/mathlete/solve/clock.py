"""Clocks: one protocol for the real clock and the replay's virtual one, and streams that end at a deadline."""

import threading
import time
from collections.abc import Generator
from queue import Empty, SimpleQueue
from typing import Protocol

from mathlete.sampling import Sample


class Clock(Protocol):
    """Tells the time in seconds since some fixed moment."""

    def now(self) -> float:
        """Return seconds, which never go backwards."""
        ...


class RealClock:
    """The machine's monotonic clock."""

    def now(self) -> float:
        """Return the seconds since the machine's start."""
        return time.monotonic()


class VirtualClock:
    """A clock that stands still until it is moved: the replay sampler moves it from arrival to arrival."""

    def __init__(self) -> None:
        self._now = 0.0

    def now(self) -> float:
        """Return the seconds since it was made."""
        return self._now

    def advance_to(self, moment: float) -> None:
        """Move it forward; a moment that has passed changes nothing."""
        self._now = max(self._now, moment)


def until(
    stream: Generator[Sample, None, None], *, clock: Clock, deadline: float | None
) -> Generator[Sample, None, None]:
    """Yield the stream's samples that arrive before the deadline, and end there whatever the engine does.

    A thread reads the stream, one sample at a time, so that an engine that hangs or ignores its own time limit cannot
    hold the caller. Closing this generator closes the stream, which cancels what is still being drawn; where the engine
    hangs, its thread does so as soon as the engine lets go.
    """
    if deadline is None:
        try:
            yield from stream
        finally:
            stream.close()
        return
    reader = _Reader(stream)
    try:
        while (left := deadline - clock.now()) > 0:
            sample = reader.next(timeout_s=left)
            if sample is None or clock.now() > deadline:
                return
            yield sample
    finally:
        reader.close()


class _Reader:
    """Reads a generator in a thread, on demand."""

    def __init__(self, stream: Generator[Sample, None, None]) -> None:
        self._requests: SimpleQueue[bool] = SimpleQueue()
        """True for the next sample, False to close the stream."""
        self._results: SimpleQueue[Sample | BaseException | None] = SimpleQueue()
        # A daemon: a hung engine must not keep the process alive.
        self._thread = threading.Thread(target=self._read, args=(stream,), name="mathlete-stream", daemon=True)
        self._thread.start()
        self._pending = False

    def next(self, *, timeout_s: float) -> Sample | None:
        """Return the next sample, or None at the stream's end or after the time limit."""
        self._requests.put(True)
        self._pending = True
        try:
            result = self._results.get(timeout=min(timeout_s, threading.TIMEOUT_MAX))
        except Empty:
            return None
        self._pending = False
        if isinstance(result, BaseException):
            raise result
        return result

    def close(self) -> None:
        """Have the thread close the stream, and wait for that unless the thread is waiting for the engine."""
        self._requests.put(False)
        if not self._pending:
            self._thread.join()

    def _read(self, stream: Generator[Sample, None, None]) -> None:
        try:
            while self._requests.get():
                self._results.put(next(stream, None))
            stream.close()
        except BaseException as error:
            # Passed to the caller, who raises it in its own thread.
            self._results.put(error)
