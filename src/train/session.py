"""Machines that are taken away with their disk, as Kaggle's and Colab's are: the run stops before, and a copy is kept.

A run goes on in the next session from the copy that is the furthest.

>>> clock = SessionClock(minutes=0.0)
>>> clock.is_over()
True
>>> clock.require_time("merge", Path("runs/math"))
Traceback (most recent call last):
train.session.SessionOver: the session's time is over before merge: runs/math goes on with the same command
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mathlete.errors import UserError, require
from train.kept import RunCopy, choose_copy

_LOOK_S = 30.0
"""How often the copy is brought up to date. A checkpoint's files are written for seconds; a step takes as long."""


class SessionOver(Exception):
    """Ends a run whose session is over; says how far it is."""


@dataclass(frozen=True, kw_only=True)
class SessionSettings:
    """A machine that is taken away after some time, and its disk with it."""

    minutes: float | None = None
    """Minutes after which the run stops by itself, a training with a checkpoint of its last step; none: never."""
    grace_min: float = 10.0
    """Minutes more for a step that goes on without checkpoints, such as an export; then it is stopped as by SIGTERM."""
    keep: Path | None = None
    """Folder for a copy of the run that is kept up to date as it goes on, on a disk that stays."""
    leave_out: tuple[str, ...] = ()
    """Folders of the run that are not copied, such as merged: the next session makes them again where it needs them."""
    resume: tuple[Path, ...] = ()
    """Folders with copies that earlier sessions kept, or without. Where the run is not here yet, it goes on from the
    copy that is the furthest."""

    def check(self) -> None:
        """Raise UserError where a value is out of its range."""
        require(
            ("session.minutes", self.minutes, self.minutes is None or self.minutes >= 0, "at least 0"),
            ("session.grace-min", self.grace_min, self.grace_min >= 0, "at least 0"),
            cure="leave it out",
        )
        if odd := [name for name in self.leave_out if Path(name).name != name or name in ("data", "adapter", "..")]:
            rule = "--session.leave-out takes folders of the run that can be made again: merged, effect, export-FORMAT"
            raise UserError(rule, value=", ".join(odd), cure="leave those out")

    @contextmanager
    def open(self, run: Path, *, say: Callable[[str], None]) -> Iterator[None]:
        """Take the run from an earlier session's copy, and keep one of it for as long as the context is entered.

        Raises:
            UserError: the copy's folder holds something else, or lies in the run.
        """
        taken = None
        if self.resume and not _has_begun(run):
            taken = choose_copy(self.resume)
            if taken is None:
                say(f"no copy of an earlier session in {', '.join(map(str, self.resume))}: the run begins")
            else:
                say(f"going on from {taken.folder}: {taken.describe()}")
                taken.take_into(run)
        if self.keep is None:
            yield
            return
        copy = RunCopy(self.keep)
        copy.require_place(run, begun=_has_begun(run))
        with _keep_up(copy, run, leave_out=self.leave_out, say=say):
            yield


@contextmanager
def _keep_up(copy: RunCopy, run: Path, *, leave_out: tuple[str, ...], say: Callable[[str], None]) -> Iterator[None]:
    """Bring the copy up to date now and then, and once more in the end, however that comes."""
    ended = threading.Event()

    def look() -> None:
        told = ""
        while not ended.wait(_LOOK_S):
            try:
                copy.update(run, leave_out=leave_out)
            except OSError as error:
                # The next look may do better; the last one is not caught.
                if str(error) != told:
                    say(f"the copy of {run} is behind: {error}")
                told = str(error)

    watcher = threading.Thread(target=look, name="mathlete-copy", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        copy.update(run, leave_out=leave_out)
        if copy.has_list:
            say(f"copy kept: {copy.folder}")


def _has_begun(run: Path) -> bool:
    return run.is_dir() and any(path.name != ".lock" for path in run.iterdir())


@dataclass(frozen=True, kw_only=True)
class SessionClock:
    """When this process's session is over."""

    minutes: float | None = None
    """None: never."""
    grace_min: float = 10.0
    began: float = field(default_factory=time.monotonic)

    def is_over(self) -> bool:
        """Return whether the time is over."""
        return self.minutes is not None and time.monotonic() - self.began >= 60 * self.minutes

    def require_time(self, step: str, run: Path) -> None:
        """Raise SessionOver where no step may begin any more."""
        if self.is_over():
            raise SessionOver(f"the session's time is over before {step}: {run} goes on with the same command")

    @contextmanager
    def stopping_late(self, *, say: Callable[[str], None]) -> Iterator[None]:
        """Stop what is still at work when the time and the minutes of grace are over, as SIGTERM does."""
        if self.minutes is None:
            yield
            return

        def stop() -> None:
            say("the session's time and its minutes of grace are over")
            os.kill(os.getpid(), signal.SIGTERM)

        left = 60 * (self.minutes + self.grace_min) - (time.monotonic() - self.began)
        timer = threading.Timer(max(left, 0.0), stop)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
