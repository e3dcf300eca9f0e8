"""What results.json says of the samples' classes and grades, so that the same checker compares nothing twice."""

import hashlib
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from mathlete import answers
from mathlete.errors import UserError
from mathlete.organiser import Grade
from mathlete.problems import Problem
from mathlete.sampling import Sample
from mathlete.scoring.results import ProblemResult, Results

_CODE = ("answers/*.py", "competitions/*.py", "reasoning.py", "tables.py", "text.py")
CHECKER = "checker"
"""Key of a run's figures in its manifest: the checker that graded it, as `checker_sha256` knows it."""


@cache
def checker_sha256() -> str:
    """Return the SHA-256 of the checker's code and of the versions of what it computes with.

    Checkers with the same one come to the same verdicts, but for pairs that a worker has no time for.
    """
    # Where gmpy2 is there, mpmath and sympy compute with it.
    versions = [platform.python_version(), *map(version, ("sympy", "mpmath")), find_spec("gmpy2") is not None]
    digest = hashlib.sha256(repr(versions).encode())
    for path in find_code():
        digest.update(f"\0{path.parent.name}/{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def find_code() -> list[Path]:
    """Return the files of the checker's code: its own, and those of the project that it reads answers with."""
    package = Path(answers.__file__).parents[1]
    return sorted(path for pattern in _CODE for path in package.glob(pattern))


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
    many samples. None where they do not, where forced answers voted as well, or where one could not be judged: that
    may have been for lack of time.
    """
    if known is None or known.gold != problem.gold or any(one.harvest or one.finish == "clock" for one in samples):
        return None
    counts = Counter(one.answer for one in samples)
    none = counts.pop(None, 0)
    if any(vote.verdict == "unknown" for vote in known.votes):
        return None
    if len(known.votes) != len(counts) or {vote.answer: vote.count for vote in known.votes} != counts:
        return None
    grades: dict[str | None, Grade] = {vote.answer: vote.verdict for vote in known.votes}
    return {**grades, None: "none"} if none else grades
