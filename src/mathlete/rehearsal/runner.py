"""The rehearsal: the very notebook, in Kaggle's two containers rebuilt here, against the gateway's measured behaviour.

It ends with a strict scorer on the file the gateway wrote, and with a gate: a notebook that never answers cannot pass.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatch
from itertools import count
from pathlib import Path
from threading import Event, Thread

from mathlete.errors import UserError
from mathlete.kernel import JournalLine, read_journal
from mathlete.locks import hold
from mathlete.problems import Problem
from mathlete.rehearsal.containers import NOTEBOOK_LOG, Stage, run_stage
from mathlete.rehearsal.draft import (
    DRAFTED,
    Draft,
    RehearsalSettings,
    gateway_command,
    gateway_mounts,
    has_gateway,
    make_draft,
)
from mathlete.rehearsal.speed import contention
from mathlete.rehearsal.verdict import Rehearsed, judge
from mathlete.submission import Build

_SLOWER = 1.3
"""How many times as high contention must have become for a failure on a faster clock to be tried again."""
_STAGE = "stage"
_WATCH_EVERY_S = 0.5
Watch = Callable[[list[JournalLine]], None]


def rehearse(
    build: Build,
    problems: Sequence[Problem],
    settings: RehearsalSettings,
    *,
    folder: Path,
    fault: Callable[[Draft], None] | None = None,
    watch: Watch | None = None,
    measure: Callable[[], float] | None = None,
    on_aside: Callable[[Path], None] | None = None,
) -> Rehearsed:
    """Rehearse once, and again where it failed while the machine got busier; what it made stays in the folder.

    Args:
        build: what to rehearse.
        problems: the questions, with their golds.
        settings: how.
        folder: an earlier rehearsal in it is set aside, or deleted; nothing else ever is.
        fault: changes the draft before it is staged.
        watch: called twice a second, as long as the notebook runs, with the questions answered so far.
        measure: returns the machine's contention; default: `contention`.
        on_aside: called with the place to which an earlier rehearsal was moved; None: it is deleted.
    """
    measure = measure or contention
    with hold(folder):
        if on_aside is not None and (aside := _set_aside(folder, notebook=build.notebook.name)) is not None:
            on_aside(aside)
        before = measure()
        rehearsed = _rehearse(build, problems, settings, folder=folder, fault=fault, watch=watch, slowed=before)
        if rehearsed.refusal is None or fault is not None or settings.speed <= 1:
            return rehearsed
        if (after := measure()) < _SLOWER * before:
            return rehearsed
        # The clock ran too fast for the machine: the refusal may be the machine's fault, not the notebook's.
        slower = replace(settings, speed=settings.speed_at(before) * before / after)
        return _rehearse(build, problems, slower, folder=folder, fault=fault, watch=watch, slowed=after)


def _rehearse(
    build: Build,
    problems: Sequence[Problem],
    settings: RehearsalSettings,
    *,
    folder: Path,
    fault: Callable[[Draft], None] | None,
    watch: Watch | None,
    slowed: float,
) -> Rehearsed:
    _delete_earlier(folder, notebook=build.notebook.name)
    speed = settings.speed_at(slowed)
    draft = make_draft(build, problems, settings, speed=speed, folder=folder)
    if fault is not None:
        fault(draft)
    notebook = folder / build.notebook.name
    notebook.write_text(draft.text, encoding="utf-8")
    asks = has_gateway(build, settings)
    stage = Stage(
        notebook=notebook,
        mounts=draft.inputs,
        rerun=settings.rerun,
        gateway=gateway_command(build, settings, draft, deadline_s=build.config.clock.deadline_s / speed)
        if asks
        else (),
        gateway_mounts=gateway_mounts(build, settings, draft),
        limit_s=draft.limit_s,
        python=settings.python,
        probe=draft.probe,
        disks=draft.disks,
    )
    began = time.monotonic()
    with _watch_log(notebook_log(folder), watch):
        ended = run_stage(stage, folder / _STAGE)
    rehearsed = judge(build, problems, settings, ended, seconds=time.monotonic() - began, contention=slowed)
    return replace(rehearsed, changes=draft.changes)


def notebook_log(folder: Path) -> Path:
    """Return where a rehearsal in this folder writes what the notebook prints."""
    return folder / _STAGE / NOTEBOOK_LOG


def _set_aside(folder: Path, *, notebook: str) -> Path | None:
    """Move what an earlier rehearsal left to FOLDER.1 or the next free number; return where it is, None for nothing."""
    made = _list_made(folder, notebook=notebook)
    if not any(path.name == _STAGE for path in made):
        return None  # nothing had been started yet
    aside = next(place for n in count(1) if not (place := folder.with_name(f"{folder.name}.{n}")).exists())
    aside.mkdir()
    for path in made:
        path.rename(aside / path.name)
    return aside


def _delete_earlier(folder: Path, *, notebook: str) -> None:
    for path in _list_made(folder, notebook=notebook):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _list_made(folder: Path, *, notebook: str) -> list[Path]:
    """Return what an earlier rehearsal left.

    Raises:
        UserError: there is something else in the folder.
    """
    there = [path for path in folder.iterdir() if not path.name.startswith(".")]
    made = (notebook, _STAGE, *DRAFTED)
    if strange := [path.name for path in there if not any(fnmatch(path.name, name) for name in made)]:
        raise UserError(
            f"a rehearsal's folder must hold nothing else: {folder}",
            value=", ".join(sorted(strange)[:5]),
            cure="move it out of the folder",
        )
    return there


@contextmanager
def _watch_log(log: Path, watch: Watch | None) -> Iterator[None]:
    """Read along in the notebook's log, where every answer leaves a line of JSON, for as long as it is entered."""
    if watch is None:
        yield
        return
    ended = Event()

    def follow() -> None:
        while not ended.wait(_WATCH_EVERY_S):
            if lines := read_journal(log):
                watch(lines)

    follower = Thread(target=follow, daemon=True)
    follower.start()
    try:
        yield
    finally:
        ended.set()
        follower.join()
