"""A stand-in for an iterator competition's module: a `make_env()` whose loop runs in the notebook, without a gateway.

After the mocks of AIMO-1's `aimo` that competitors published; the source of the real module is not public. Its real
file was a CSV; a rehearsal writes parquet, so that one scorer judges all competitions.
"""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mathlete.kernel import SUBMISSION
from mathlete.rehearsal.gateway.gateway import read_test

if TYPE_CHECKING:
    import pandas as pd

_ORDER = "You must call `predict()` successfully before you can continue with `iter_test()`"


class Environment:
    """Yields one question after another in random order, and writes the file after the last answer."""

    def __init__(self, test: Path, *, folder: Path, id_column: str, submission_columns: tuple[str, str]) -> None:
        """Read the questions.

        Args:
            test: the test.csv.
            folder: where the submission file goes.
            id_column: the column of test.csv that holds the ids.
            submission_columns: names of the submission's columns, the id's and the answer's.
        """
        self._id_column, self._names = id_column, submission_columns
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
            identity, answer = self._names
            yield row, row[[self._id_column]].set_axis([identity], axis=1).assign(**{answer: 0})

    def predict(self, submission: "pd.DataFrame") -> None:
        """Take a question's answer."""
        import pandas as pd

        self._answers.append(submission)
        if len(self._answers) == len(self._rows):
            pd.concat(self._answers, ignore_index=True).to_parquet(self._folder / SUBMISSION, index=False)


def make_env(folder: str, *, id_column: str, submission_columns: tuple[str, str]) -> Environment:
    """Return the environment over a folder's test.csv; the submission file goes into the working folder."""
    test = Path(folder, "test.csv")
    return Environment(test, folder=Path(), id_column=id_column, submission_columns=submission_columns)
