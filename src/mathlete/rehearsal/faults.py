"""A fault: something that goes wrong on Kaggle, put for real into a rehearsal."""

import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mathlete.kernel import JOURNAL, KernelConfig
from mathlete.problems import Problem
from mathlete.rehearsal.containers import NOTEBOOK_LOG
from mathlete.rehearsal.draft import Draft, RehearsalSettings
from mathlete.rehearsal.injections import Inject, has_struck
from mathlete.rehearsal.runner import rehearse
from mathlete.rehearsal.verdict import Outcome, Rehearsed
from mathlete.rehearsal.vllm_injections import write_stand_in_wheels
from mathlete.submission import Build
from mathlete.temporary import TemporaryFolder

Needs = Literal["", "server", "vllm"]
"""What a fault needs to strike: nothing · an inference server, which asks a `predict` and has a test.csv of its own · a
build whose engine is vLLM."""


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
    journalled: tuple[str, ...] = ()
    """Patterns of what the run's journal must say of it."""
    real: bool = False
    """Whether it strikes vLLM itself: then a rehearsal needs the CPU build's wheels, else it brings a stand-in's."""

    def suits(self, config: KernelConfig) -> bool:
        """Return whether it can strike a notebook with such settings."""
        match self.needs:
            case "server":
                return config.competition.notebook.gateway.api == "inference-server"
            case "vllm":
                return config.engine == "vllm" and (config.embedded or not self.ends_embedded)
        return True

    @property
    def ends_embedded(self) -> bool:
        """Whether the journal must say that the embedded engine's turn came."""
        return any('"embedded"' in pattern for pattern in self.journalled)

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
    unsaid: tuple[str, ...] = ()
    """Patterns that the journal should match, and does not."""


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
    with ExitStack() as stack:
        if fault.needs == "vllm" and not fault.real:
            wheels = stack.enter_context(TemporaryFolder("wheels"))
            write_stand_in_wheels(wheels)
            settings = replace(settings, vllm=wheels)
        rehearsed = rehearse(build, numbered, settings, folder=folder, fault=fault.put_into, on_aside=on_aside)
    stage = rehearsed.ended.folder
    said = read_text_of(stage / "notebook" / JOURNAL) + read_text_of(stage / NOTEBOOK_LOG)
    unsaid = tuple(pattern for pattern in fault.journalled if not re.search(pattern, said))
    return FaultResult(rehearsed=rehearsed, struck=has_struck(fault.name, stage), unsaid=unsaid)


def read_text_of(file: Path) -> str:
    """Return what is in a file; nothing where there is none."""
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
