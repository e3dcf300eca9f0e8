"""How many rows a large model should decode together on a CPU, from the seconds that its steps take.

A GPU reads the weights once for all rows, so that more rows are nearly free. On a CPU each further row soon costs its
own arithmetic: 96 rows of a 0.5B model made steps of ten seconds, and no sample was done in a quarter of an hour.
"""

_FIRST_ROWS = 8
"""Rows to begin with: fewer are slower a row on every CPU that was measured (bench/sampling.py)."""
_STEPS = 3
"""Steps of a size after which the next size may be tried: the first of a size also allocates."""


class Pace:
    """The seconds of a step by its number of rows, and the number of rows that follows from them.

    >>> pace = Pace()
    >>> pace.most_rows(96)
    8
    >>> for rows, seconds in ((8, 1.7), (16, 1.8), (32, 1.9), (64, 3.5)):
    ...     for _ in range(3):
    ...         pace.add(rows, seconds)
    >>> pace.most_rows(96), pace.most_rows(2000)
    (32, 128)
    >>> for _ in range(3):
    ...     pace.add(1, 0.1)  # the last row of a batch
    >>> pace.most_rows(96)
    32
    """

    def __init__(self) -> None:
        self._least: dict[int, float] = {}
        self._steps: dict[int, int] = {}

    def add(self, rows: int, seconds: float) -> None:
        """Take note of one step. The least of each size counts: what comes on top is the machine's other work."""
        self._least[rows] = min(seconds, self._least.get(rows, seconds))
        self._steps[rows] = self._steps.get(rows, 0) + 1

    def most_rows(self, samples: int) -> int:
        """Return how many rows may be decoded together, for samples waiting and running.

        Samples of equal length in batches of R rows are done after s(R), 2 s(R), … (samples / R) s(R) a token, so that
        the mean one waits s(R) (samples / R + 1) / 2. The size with the least is taken; while that is the largest
        that was tried, twice as many are.
        """
        # Smaller sizes come where a batch runs out: they say nothing of what a full one should be.
        measured = [rows for rows, steps in self._steps.items() if rows >= _FIRST_ROWS and steps >= _STEPS]
        if not measured:
            return _FIRST_ROWS
        best = min(measured, key=lambda rows: (self._least[rows] * (samples / rows + 1), rows))
        return 2 * best if best == max(measured) else best
