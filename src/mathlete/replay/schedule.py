"""When samples start that share an engine's slots: the replay's only model of an engine."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]


def find_starts(seconds_RN: "Array", *, slots: int | None) -> "Array":
    """Return (rows, samples): seconds at which each sample starts; the first free slot takes the next of the row.

    Args:
        seconds_RN: (rows, samples), how long each sample takes.
        slots: samples running at once; None runs all of them.

    >>> import numpy as np
    >>> find_starts(np.array([[3.0, 1.0, 1.0, 1.0]]), slots=2)
    array([[0., 0., 1., 2.]])
    """
    import numpy as np

    rows, n = seconds_RN.shape
    starts = np.zeros((rows, n))
    if slots is None or slots >= n:
        return starts
    free, row = np.zeros((rows, slots)), np.arange(rows)
    for sample in range(n):
        slot = free.argmin(1)
        starts[:, sample] = free[row, slot]
        free[row, slot] += seconds_RN[:, sample]
    return starts
