"""How many rows a large model should decode together on a CPU, by how many threads, from the seconds its steps take.

A GPU reads the weights once for all rows, so that more rows are nearly free. On a CPU each further row soon costs its
own arithmetic: 96 rows of a 0.5B model made steps of ten seconds, and no sample was done in a quarter of an hour.
"""

import math
from collections import deque

_FIRST_ROWS = 8
"""Rows to begin with: fewer are slower a row on every CPU that was measured (bench/sampling.py)."""
_STEPS = 8
"""Steps of a size after which the next size may be tried. The least of the latest so many counts, of every size: what
comes on top is the machine's other work, and the least of more steps would be less."""
_FIRST_SECONDS = 60.0
"""Seconds of steps for which the first rows stay among themselves, until one of them is done: others would delay it."""
_LONG_SECONDS = 300.0
"""Seconds that a sample may take for others' sake: a run that is killed loses those that are not done."""
_LONGER = 3.0
"""A sample may take so many times as long as among the first rows all the same: the long ones of a reasoning model."""
_FORGET = 256
"""Steps after which a larger size is tried again: the machine's other work may have been what made it slow."""


class Pace:
    """The seconds of a step by its number of rows, and the number of rows that follows from them.

    >>> pace = Pace()
    >>> pace.most_rows(96)
    8
    >>> for _ in range(8):
    ...     pace.add(8, 1.7)
    >>> pace.most_rows(96)  # until a sample is done, or a minute is over
    8
    >>> pace.finish(tokens=50)
    >>> pace.most_rows(96)
    16
    >>> for rows, seconds in ((16, 1.8), (31, 1.9), (59, 3.5)):
    ...     for _ in range(8):
    ...         pace.add(rows, seconds)
    >>> pace.most_rows(96), pace.most_rows(2000)
    (32, 128)
    >>> for _ in range(8):
    ...     pace.add(1, 0.1)  # the last row of a batch
    >>> pace.most_rows(96)
    32
    >>> pace.finish(tokens=250)  # 150 tokens a sample: 128 rows would take five seconds each, 13 minutes
    >>> pace.most_rows(2000)
    64
    """

    def __init__(self, *, shares: int = 1) -> None:
        """Choose for one of so many batches, which share the samples that wait."""
        self._shares = shares
        self._latest: dict[int, deque[float]] = {}
        self._last: dict[int, int] = {}
        self._count = 0
        self._seconds = 0.0
        self._samples, self._tokens = 0, 0

    def add(self, rows: int, seconds: float) -> None:
        """Take note of one step."""
        self._count += 1
        self._seconds += seconds
        # Rows leave one by one, and others join where a quarter is free. Fewer come where a batch runs out: they say
        # nothing of what a full one should be.
        size = _FIRST_ROWS
        while size < rows:
            size *= 2
        if rows > 0.7 * size:
            self._latest.setdefault(size, deque(maxlen=_STEPS)).append(seconds)
            self._last[size] = self._count

    def finish(self, tokens: int) -> None:
        """Take note that a sample is done, and how long it is."""
        self._samples += 1
        self._tokens += tokens

    def most_rows(self, waiting: int, running: int = 0) -> int:
        """Return how many rows may be decoded together, for samples waiting and those running in this batch.

        Samples of equal length in batches of R rows are done after s(R), 2 s(R), … (samples / R) s(R) a token, so that
        the mean one waits s(R) (samples / R + 1) / 2. The size with the least is taken; while that is the largest
        that was tried, twice as many are. But no size is taken or tried with which a sample would take too long.
        """
        known = {size: times for size, times in self._latest.items() if len(times) == _STEPS}
        if not known or not (self._samples or self._seconds > _FIRST_SECONDS):
            return _FIRST_ROWS
        # Not the least here: what a step takes beside the machine's other work is what a sample waits for.
        mean = {size: sum(times) / _STEPS for size, times in known.items()}
        longest = self._longest_step(mean.get(_FIRST_ROWS, 0.0))
        samples = running + waiting / self._shares
        allowed = [size for size in known if mean[size] <= longest] or [min(known)]
        best = min(allowed, key=lambda size: (min(known[size]) * (samples / size + 1), size))
        # A larger size that was slow long ago may have been so for the machine's other work.
        recent = [size for size in known if self._count - self._last[size] < _FORGET]
        is_largest = best == max(recent, default=best)
        return 2 * best if is_largest and 1.5 * mean[best] <= longest else best

    def _longest_step(self, first: float) -> float:
        """Return the seconds that a step may take, where one of the first rows alone takes so many."""
        if not self._samples:
            return math.inf
        return max(_LONG_SECONDS * self._samples / self._tokens, _LONGER * first)


class Threads:
    """How many threads make a step soonest. Others are tried for a few steps now and then: a machine's load changes.

    Where other processes hold a core, the threads of every matrix product wait for the one that is not running: two
    threads then take ten times as long as one.

    >>> threads = Threads(2)
    >>> taken = []
    >>> for _ in range(40):  # a busy machine: two threads are slower than one
    ...     taken.append(threads.count)
    ...     threads.add(8, 3.0 if threads.count == 2 else 1.0)
    >>> taken[0], taken[6], taken.count(2)
    (2, 1, 13)
    >>> for _ in range(1000):  # the other work is done
    ...     threads.add(8, 0.6 if threads.count == 2 else 1.0)
    >>> threads.count
    2
    """

    _TRIAL, _SOONEST, _LATEST = 3, 3, 256

    def __init__(self, most: int) -> None:
        """Begin with all of them."""
        self.count = most
        """Threads of the next step."""
        self._most, self._usual = most, most
        self._wait, self._since = self._SOONEST, 0
        self._recent: deque[float] = deque(maxlen=self._TRIAL)
        self._trial: list[float] = []
        self._rows = 1
        self._downwards = True

    def add(self, rows: int, seconds: float) -> None:
        """Take note of a step, made by `count` threads, and choose those of the next one."""
        if not 0.8 <= rows / self._rows <= 1.25:
            # Steps of much other sizes do not compare.
            self._rows, self._trial, self.count = rows, [], self._usual
            self._recent.clear()
        elif self.count != self._usual:
            self._trial.append(seconds)
            if len(self._trial) == self._TRIAL:
                self._judge()
        else:
            self._recent.append(seconds)
            self._since += 1
            if self._since >= self._wait and len(self._recent) == self._TRIAL:
                self.count = self._next_trial()

    def _next_trial(self) -> int:
        fewer, more = max(1, self._usual // 2), min(self._most, self._usual * 2)
        self._downwards = not self._downwards
        first, second = (more, fewer) if self._downwards else (fewer, more)
        return first if first != self._usual else second

    def _judge(self) -> None:
        # The middle one of three each: the first step with other threads also starts them.
        tried, usual = (sorted(times)[self._TRIAL // 2] for times in (self._trial, self._recent))
        if tried < 0.9 * usual:
            self._usual, self._wait = self.count, self._SOONEST
        else:
            self._wait = min(2 * self._wait, self._LATEST)
        self.count, self._since, self._trial = self._usual, 0, []
        self._recent.clear()
