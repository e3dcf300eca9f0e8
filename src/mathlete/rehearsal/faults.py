"""A fault: something that goes wrong on Kaggle, put for real into a rehearsal."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mathlete.competitions import Competition
from mathlete.problems import Problem
from mathlete.rehearsal.draft import Draft, RehearsalSettings
from mathlete.rehearsal.injections import Inject, has_struck
from mathlete.rehearsal.runner import rehearse
from mathlete.rehearsal.verdict import Outcome, Rehearsed
from mathlete.submission import Build

Needs = Literal["", "server"]
"""What a fault needs to strike: nothing · an inference server, which asks a `predict` and has a test.csv of its own."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that goes wrong."""

    name: str
    says: str
    """What happens, for people."""
    inject: Inject
    expect: Outcome
    needs: Needs = ""
    refused_by: tuple[str, ...] = ()
    """Versions of kaggle_evaluation with which it ends refused instead, whatever the notebook does."""

    def suits(self, rules: Competition) -> bool:
        """Return whether it can strike in a competition."""
        return not self.needs or rules.gateway.api == "inference-server"

    def expect_with(self, version: str | None) -> Outcome:
        """Return how it must end with a version of kaggle_evaluation; None: without any, as with an iterator."""
        return "refused" if version in self.refused_by else self.expect

    @property
    def ends(self) -> str:
        """How it must end, in words."""
        return f"{self.expect}; refused with {', '.join(self.refused_by)}" if self.refused_by else self.expect

    def put_into(self, draft: Draft) -> None:
        """Change the draft; what was changed will leave a mark of the fault's name when it strikes."""
        draft.fault = self.name
        self.inject(draft)


@dataclass(frozen=True, kw_only=True)
class FaultResult:
    """How the notebook took a fault."""

    rehearsed: Rehearsed
    struck: bool
    """Whether the fault left its mark: a fault that strikes nothing has tested nothing."""


def rehearse_fault(
    fault: Fault,
    build: Build,
    problems: Sequence[Problem],
    settings: RehearsalSettings,
    *,
    folder: Path,
    on_aside: Callable[[Path], None] | None = None,
) -> FaultResult:
    """Rehearse the build with a fault in it.

    Args:
        fault: what goes wrong.
        build: what to rehearse.
        problems: the questions; every id is made to look like a number, as AIMO-3's 424e18 does.
        settings: how to rehearse.
        folder: where, as in `rehearse`.
        on_aside: as in `rehearse`.
    """
    numbered = [replace(problem, id=f"{index:03d}e{index}") for index, problem in enumerate(problems, start=1)]
    rehearsed = rehearse(build, numbered, settings, folder=folder, fault=fault.put_into, on_aside=on_aside)
    return FaultResult(rehearsed=rehearsed, struck=has_struck(fault.name, rehearsed.ended.folder))
