"""A stand-in for AIMO-1's module: an `aimo.make_env()` whose loop runs in the notebook itself, without a gateway.

After the mocks that competitors published; the source of the real `aimo` module is not public. Its real file was a
CSV; a rehearsal writes parquet, so that one scorer judges all three competitions.
"""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mathlete.kernel import SUBMISSION
from mathlete.rehearsal.gateway.gateway import id_column, read_test

if TYPE_CHECKING:
    import pandas as pd

_ORDER = "You must call `predict()` successfully before you can continue with `iter_test()`"


class Environment:
    """Yields one question after another in random order, and writes the file after the last answer."""

    def __init__(self, test: Path, *, folder: Path) -> None:
        rows = read_test(test).to_pandas()
        self._rows = rows.sample(frac=1, random_state=random.SystemRandom().getrandbits(32))
        self._folder = folder
        self._answers: list[pd.DataFrame] = []

    def iter_test(self) -> "Iterator[tuple[pd.DataFrame, pd.DataFrame] | None]":
        """Yield (question, answer to fill in), frames of one row; None where the last one was not answered yet."""
        for number in range(len(self._rows)):
            while len(self._answers) < number:
                print(_ORDER)
                yield None
            row = self._rows.iloc[[number]].reset_index(drop=True)
            yield row, row[[id_column([*row.columns])]].set_axis(["id"], axis=1).assign(answer=0)

    def predict(self, submission: "pd.DataFrame") -> None:
        """Take a question's answer."""
        import pandas as pd

        self._answers.append(submission)
        if len(self._answers) == len(self._rows):
            pd.concat(self._answers, ignore_index=True).to_parquet(self._folder / SUBMISSION, index=False)


def make_env(folder: str) -> Environment:
    """Return the environment over a folder's test.csv; the submission file goes into the working folder."""
    return Environment(Path(folder, "test.csv"), folder=Path())
