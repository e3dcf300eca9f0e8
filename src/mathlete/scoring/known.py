"""What results.json says of the samples' classes and grades, so that the same checker compares nothing twice."""

import hashlib
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path

from mathlete import answers
from mathlete.errors import UserError
from mathlete.organiser import Grade
from mathlete.problems import Problem
from mathlete.sampling import Sample
from mathlete.scoring.results import ProblemResult, Results

CHECKER = "checker"
"""Key of a run's figures in its manifest: the checker that graded it, as `checker_sha256` knows it."""


@cache
def checker_sha256() -> str:
    """Return the SHA-256 of the checker's code and of the versions of what it computes with.

    Checkers with the same one come to the same verdicts, but for pairs that a worker has no time for.
    """
    versions = [platform.python_version(), *(version(package) for package in ("sympy", "mpmath"))]
    digest = hashlib.sha256(repr(versions).encode())
    for file in sorted(Path(answers.__file__).parent.glob("*.py")):
        digest.update(f"\0{file.name}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def is_own_checker(manifest: Mapping[str, object]) -> bool:
    """Return whether this checker graded the run of a manifest; not so of a run without one, or an older one's."""
    figures = manifest.get("figures")
    return isinstance(figures, dict) and figures.get(CHECKER) == checker_sha256()


def read_known(folder: Path, manifest: Mapping[str, object]) -> dict[str, ProblemResult]:
    """Return what is known of a finished run's problems, by id; nothing where another checker graded them.

    Args:
        folder: the run's folder.
        manifest: its manifest, which vouches for its files; empty for an unfinished run.
    """
    if not is_own_checker(manifest):
        return {}
    try:
        return {row.id: row for row in Results.read(folder).per_problem}
    except UserError:  # who needs the results says so
        return {}


def find_grades(
    problem: Problem, samples: Sequence[Sample], known: ProblemResult | None
) -> dict[str | None, Grade] | None:
    """Return the grade of each answer of a problem's samples, as far as its results tell.

    They tell it where each class of the vote has one spelling: then there are as many classes as spellings, with as
    many samples. None where they do not, or where forced answers voted as well.
    """
    if known is None or known.gold != problem.gold or any(one.harvest or one.finish == "clock" for one in samples):
        return None
    counts = Counter(one.answer for one in samples)
    none = counts.pop(None, 0)
    if len(known.votes) != len(counts) or {vote.answer: vote.count for vote in known.votes} != counts:
        return None
    grades: dict[str | None, Grade] = {vote.answer: vote.verdict for vote in known.votes}
    return {**grades, None: "none"} if none else grades
