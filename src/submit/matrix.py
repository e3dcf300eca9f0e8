"""`submit rehearse --fault`: the fault matrix against the build."""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from mathlete.command import progress
from mathlete.errors import UserError, nearest
from mathlete.problems import Problem, read_problems
from mathlete.rehearsal.fault_matrix import FAULTS
from mathlete.rehearsal.faults import Fault
from mathlete.rehearsal.rehearsal import Layout, RehearsalSettings, Rehearsed, canary, rehearse
from mathlete.submission.build import Build, load_build

QUESTIONS = 6
"""Questions of a rehearsal with a fault."""


def run_fault(fault: Fault, build: Build, problems: Sequence[Problem], *, layout: Layout, folder: Path) -> Rehearsed:
    """Rehearses the build with a fault. Every id looks like a number, as AIMO-3's 424e18 does."""
    numbered = [replace(problem, id=f"{index:03d}e{index}") for index, problem in enumerate(problems, start=1)]
    return rehearse(build, numbered, RehearsalSettings(layout=layout), folder=folder, fault=fault.inject)


def list_faults(say: Callable[[str], None]) -> dict[str, object]:
    """Prints all faults."""
    for fault in FAULTS.values():
        say(f"{fault.name:<29}{fault.expect:<9}{fault.says}")
    return {"faults": len(FAULTS), "names": sorted(FAULTS)}


def run_faults(
    name: str, *, build_folder: Path, problems: Path, layout: Layout, say: Callable[[str], None]
) -> dict[str, object]:
    """Runs one fault or all; returns how many ended valid, refused and lost (neither, or not as foreseen).

    Raises:
        UserError: an unknown name.
    """
    if name != "all" and name not in FAULTS:
        raise UserError("--fault must be known", value=repr(name), cure=nearest(name, [*FAULTS, "list", "all"]))
    chosen = list(FAULTS.values()) if name == "all" else [FAULTS[name]]
    build, asked = load_build(build_folder), canary(read_problems(problems), count=QUESTIONS)
    counts, began, lost = {"valid": 0, "refused": 0}, time.monotonic(), []
    with progress("faults") as bar:
        task = bar.add_task("", total=len(chosen))
        for fault in chosen:
            bar.update(task, description=fault.name)
            folder = build_folder / "faults" / fault.name
            found = run_fault(fault, build, asked, layout=layout, folder=folder)
            outcome = "refused" if found.refusal else "valid"
            counts[outcome] += outcome == fault.expect
            if outcome != fault.expect:
                lost.append(fault.name)
            else:
                shutil.rmtree(folder)
            say(f"{fault.name:<29}{outcome:<9}{found.seconds:5.1f} s  {_why(found)}")
            bar.advance(task)
    seconds = round(time.monotonic() - began, 1)
    return {"faults": len(chosen), **counts, "lost": len(lost), "seconds": seconds, "lost_names": lost}


def _why(found: Rehearsed) -> str:
    if found.refusal:
        return f"{found.refusal.rule}: {found.refusal.value[:120]}"
    whys = [str(line["why"]) for line in found.journal if line["why"]]
    return "; ".join(dict.fromkeys(whys))[:120]
