"""`submit rehearse --fault`: the fault matrix against the build."""

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mathlete.command import progress
from mathlete.errors import UserError, nearest
from mathlete.problems import Problem
from mathlete.rehearsal import FAULTS, RehearsalSettings, choose_canaries, rehearse_fault
from mathlete.submission import Build
from submit.adapters import require_gates

if TYPE_CHECKING:
    from mathlete.tables import FittingTable

QUESTIONS = 6
"""Questions of a rehearsal with a fault."""


def list_faults(say: Callable[[object], None], *, version: str | None) -> dict[str, object]:
    """Print all faults, and how they must end: with a version of kaggle_evaluation, or with each."""
    say(draw_faults(version=version))
    return {"faults": len(FAULTS), "names": sorted(FAULTS)}


def draw_faults(*, version: str | None) -> "FittingTable":
    """Return a table of all faults."""
    from mathlete.tables import FittingTable

    names = ("fault", "must end", "what happens")
    table = FittingTable(columns=names, left=names)
    table.columns[0].no_wrap = True  # a name is one word
    for fault in FAULTS.values():
        table.add_row(fault.name, fault.expect_with(version) if version else fault.ends, fault.says)
    return table


def run_faults(
    name: str, *, folder: Path, problems: Sequence[Problem], settings: RehearsalSettings, say: Callable[[str], None]
) -> dict[str, object]:
    """Run one fault or all; return how many ended valid and refused.

    Args:
        name: of a fault, or "all".
        folder: the build's.
        problems: of which some are asked.
        settings: how to rehearse.
        say: prints a line.

    Raises:
        UserError: an unknown name, or a fault that did not strike, or ended otherwise than the matrix says.
    """
    if name != "all" and name not in FAULTS:
        raise UserError("--fault must be known", value=repr(name), cure=nearest(name, [*FAULTS, "list", "all"]))
    build = Build.load(folder)
    require_gates(build)
    rules = build.config.competition
    chosen = [fault for fault in FAULTS.values() if fault.suits(build.config) and name in (fault.name, "all")]
    if not chosen and FAULTS[name].ends_embedded and build.config.engine == "vllm":
        rule = "a fault that the embedded engine's turn follows needs weights that it can load"
        raise UserError(rule, value=f"--fault {name}", cure="choose another --fault")
    if not chosen and FAULTS[name].needs == "vllm":
        rule, cure = "a fault of vLLM needs a build whose engine it is", "build with --engine vllm"
        raise UserError(rule, value=f"a build of the {build.config.engine} engine", cure=cure)
    if not chosen:
        rule = "a fault of a server's predict or test.csv needs an inference server"
        raise UserError(rule, value=f"{rules.name} with an iterator", cure="choose another --fault")
    asked = choose_canaries(problems, count=QUESTIONS, rules=rules)
    version = settings.behaviour or rules.notebook.gateway.package
    counts, began = {"valid": 0, "refused": 0}, time.monotonic()
    lost, idle = list[str](), list[str]()

    width = max(len(fault.name) for fault in chosen)

    def keep(aside: Path) -> None:
        say(f"the earlier rehearsal is kept: {aside}")

    with progress("faults") as bar:
        task = bar.add_task("", total=len(chosen))
        for fault in chosen:
            bar.update(task, description=fault.name)
            place = folder / "faults" / fault.name
            result = rehearse_fault(fault, build, asked, settings, folder=place, on_aside=keep)
            run = result.rehearsed
            # What struck nothing has tested nothing, however it ended.
            if not result.struck:
                idle.append(fault.name)
            if not result.struck or result.unsaid or run.outcome != fault.expect_with(version):
                lost.append(fault.name)
            else:
                counts[run.outcome] += 1
                # Only what must be looked into stays.
                shutil.rmtree(place)
            why = run.why if result.struck else f"the fault did not strike; {run.why}"
            why = f"the journal does not say {result.unsaid[0]}; {why}" if result.struck and result.unsaid else why
            say(f"{fault.name:<{width}}  {run.outcome:<9}{run.seconds:5.1f} s  {why[:120]}")
            bar.advance(task)
    if idle:
        raise UserError(
            "a fault must strike and leave its mark, or it has tested nothing",
            value=", ".join(idle),
            cure=f"look into {folder / 'faults' / idle[0]}; disk and mounts are only changed with namespaces",
        )
    if lost:
        cure = f"look into {folder / 'faults' / lost[0]}; --fault list has the rows"
        raise UserError("a rehearsal with a fault must end as its row says", value=", ".join(lost), cure=cure)
    seconds = round(time.monotonic() - began, 1)
    return {"faults": len(chosen), **counts, "seconds": seconds}
