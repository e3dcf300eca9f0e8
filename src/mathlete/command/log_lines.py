"""How far a piece of work is, in lines: for a file, a pipe or a notebook's log, where no bar can be drawn."""

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Event, Thread

from mathlete.errors import UserError

FIRST_LINE_SECONDS = 1.5
"""Until the first line, and between two at least: what is done before needs none."""
_USUAL_SECONDS, _FEW_STEPS = 30.0, 10
_every_seconds = _USUAL_SECONDS


def read_log_flag(argv: Sequence[str]) -> Sequence[str]:
    """Return the words without --log-every SECONDS, which all commands know; its value holds from here on.

    >>> read_log_flag(["math", "--log-every", "5", "--json"]), read_log_flag(["math", "--log-every=60"])
    (['math', '--json'], ['math'])

    Raises:
        UserError: the value is no number of seconds.
    """
    global _every_seconds
    words, value = [*argv], str(_USUAL_SECONDS)
    for at, word in enumerate(words):
        if word.startswith("--log-every="):
            value = words.pop(at).partition("=")[2]
            break
        if word == "--log-every":
            value = "".join(words[at + 1 : at + 2])
            del words[at : at + 2]
            break
    with suppress(ValueError):
        if 1 <= float(value) <= 86_400:
            _every_seconds = float(value)
            return words
    raise UserError("--log-every must be from 1 to 86400 seconds", value=repr(value), cure="use --log-every 30")


@dataclass(frozen=True, kw_only=True)
class Reached:
    """How far a piece of work is."""

    words: str = ""
    """What is being done, before a colon, and figures of it."""
    done: float = 0
    total: float | None = None

    @property
    def stage(self) -> tuple[str, float]:
        """What is told at once where it changes: what begins, and each of a few steps."""
        few = self.total is not None and self.total <= _FEW_STEPS
        begins = self.total is None or not self.done
        return (self.words.partition(":")[0] if begins else "", self.done if few else 0)


class LogLines:
    """Writes lines to stderr from a thread of its own, so that silent work is told of too."""

    def __init__(self, title: str, read: Callable[[], Reached]) -> None:
        """Take what stands before each line, and what says how far the work is."""
        self._title, self._read, self._over = title, read, Event()
        self._thread = Thread(target=self._write_now_and_then, daemon=True)
        self._began, self._start = time.monotonic(), 0.0

    def start(self) -> None:
        """Begin to write."""
        self._began = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """End it; a line that is due is not written any more."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _write_now_and_then(self) -> None:
        told, last, waits, moved = None, 0.0, FIRST_LINE_SECONDS, self._began
        while not self._over.wait(waits):
            now, reached = time.monotonic(), self._read()
            if told is None:
                self._start = reached.done
            if reached.done == self._start:
                moved = now  # what is loaded before the first step says nothing of how long the others take
            if told is None or reached.stage != told or now - last >= _every_seconds:
                self._write(
                    describe(
                        self._title, reached, seconds=now - self._began, start=self._start, before=moved - self._began
                    )
                )
                told, last = reached.stage, now
            waits = min(FIRST_LINE_SECONDS, _every_seconds)

    def _write(self, line: str) -> None:
        with suppress(OSError, ValueError):  # whose reader is gone learns nothing; the work goes on
            print(line, file=sys.stderr, flush=True)


def describe(title: str, reached: Reached, *, seconds: float, start: float = 0, before: float = 0) -> str:
    """Return the line of a piece of work that has gone on for so many seconds from `start` on, nothing done `before`.

    >>> describe("tune", Reached(words="loss 0.0174", done=12, total=30), seconds=24)
    'tune 12/30 · loss 0.0174 · 0:00:24 · ETA 0:00:36'
    >>> describe("effect", Reached(words="loading the model"), seconds=2)
    'effect · loading the model · 0:00:02'
    """
    done, total = reached.done, reached.total
    count = f" {done:,.0f}" if done and total is None else "" if total is None else f" {done:,.0f}/{total:,.0f}"
    parts = [f"{title}{count}", *([reached.words] if reached.words else []), in_clock_time(seconds)]
    if total is not None and start < done < total:
        parts.append(f"ETA {in_clock_time((seconds - before) * (total - done) / (done - start))}")
    return " · ".join(parts)


def in_clock_time(seconds: float) -> str:
    """Return hours, minutes and seconds.

    >>> in_clock_time(3661.4)
    '1:01:01'
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
