"""The questions of simulated submissions, and which recorded draws answer them: the same for every policy."""

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from mathlete.replay.simulation import Array

_FEW = 4
"""Problems for each question from which it pays to find the first questions before they are put in order."""


@dataclass(frozen=True, kw_only=True)
class DrawnSubmissions:
    """Submissions as drawn; arrays are (submissions, questions). Nobody may change them: all policies share them."""

    new: "Array"
    """Positions of problems, drawn with replacement: another set of the same kind."""
    new_rows: "Array"
    """Which of the problems' draws answer them."""
    later: "list[tuple[Array, Array]]"
    """(order of the questions, draws) of each later run on the new set."""
    some: "Array"
    """Positions of problems, drawn without replacement; the new set where there are too few problems."""
    some_rows: "Array"
    worst_rows: "Array"
    """Draws for the new set in the worst order."""


@lru_cache(maxsize=1)  # each policy of a replay asks for the same ones, and they take seconds of thousands of problems
def draw_submissions(
    *, problems: int, questions: int, submissions: int, rows: int, runs: int, seed: int
) -> DrawnSubmissions:
    """Return submissions of these problems, each with so many draws.

    Args:
        problems: problems of the pool.
        questions: questions of a submission.
        submissions: how many there are.
        rows: draws of each problem.
        runs: runs that a competition scores, each on the same questions.
        seed: another seed draws other ones.
    """
    import numpy as np

    random, shape = np.random.default_rng(seed), (submissions, questions)

    def draw_rows() -> "Array":
        drawn: Array = random.integers(0, rows, shape)
        return drawn

    new = draw_question_sets(
        problems=problems, questions=questions, submissions=submissions, replacing=True, random=random
    )
    new_rows = draw_rows()
    later = [
        (random.permuted(np.broadcast_to(np.arange(questions), shape), axis=1), draw_rows()) for _ in range(runs - 1)
    ]
    some = (
        draw_question_sets(
            problems=problems, questions=questions, submissions=submissions, replacing=False, random=random
        )
        if questions <= problems
        else new
    )
    return DrawnSubmissions(
        new=new, new_rows=new_rows, later=later, some=some, some_rows=draw_rows(), worst_rows=draw_rows()
    )


def draw_question_sets(
    *, problems: int, questions: int, submissions: int, replacing: bool, random: "np.random.Generator"
) -> "Array":
    """Return (submissions, questions): positions of problems in random order, drawn with or without replacement."""
    import numpy as np

    if replacing:
        return random.integers(0, problems, (submissions, questions))
    # In parts of 1000 submissions, which keep the memory small.
    parts = np.array_split(np.empty(submissions), -(-submissions // 1000))
    return np.concatenate([find_lowest(random.random((len(part), problems)), questions) for part in parts])


def find_lowest(values: "Array", most: int) -> "Array":
    """Return (rows, most): positions of the lowest values of each row, ascending; the values are distinct.

    >>> import numpy as np
    >>> find_lowest(np.array([[0.5, 0.1, 0.4, 0.2, 0.9]]), 1)
    array([[1]])
    """
    import numpy as np

    if values.shape[1] < _FEW * most:
        return values.argsort(1)[:, :most]
    lowest = values.argpartition(most - 1, axis=1)[:, :most]
    order = np.take_along_axis(values, lowest, axis=1).argsort(1)
    return np.take_along_axis(lowest, order, axis=1)
