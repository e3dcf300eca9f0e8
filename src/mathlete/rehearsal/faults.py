"""A fault: something that goes wrong on Kaggle, put for real into a rehearsal."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mathlete.problems import Problem
from mathlete.rehearsal.draft import Layout, RehearsalSettings
from mathlete.rehearsal.injections import Inject
from mathlete.rehearsal.runner import rehearse
from mathlete.rehearsal.verdict import Outcome, Rehearsed
from mathlete.submission import Build


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that goes wrong."""

    name: str
    says: str
    """What happens, for people."""
    inject: Inject
    expect: Outcome


def rehearse_fault(
    fault: Fault, build: Build, problems: Sequence[Problem], *, layout: Layout, folder: Path
) -> Rehearsed:
    """Rehearse the build with a fault in it.

    Args:
        fault: what goes wrong.
        build: what to rehearse.
        problems: the questions; every id is made to look like a number, as AIMO-3's 424e18 does.
        layout: where inputs are mounted.
        folder: emptied first.
    """
    numbered = [replace(problem, id=f"{index:03d}e{index}") for index, problem in enumerate(problems, start=1)]
    return rehearse(build, numbered, RehearsalSettings(layout=layout), folder=folder, fault=fault.inject)
