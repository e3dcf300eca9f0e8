"""The run of a version on Kaggle: waited for until it ends, and told from the run of the version before it.

For a while after a save Kaggle may still show the session before, COMPLETE with its old output (kaggle-cli 1177). So an
end counts only with the build's own hash in the output; where the notebook carries no hash, once it has lasted.
"""

import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from mathlete.delivery.asking import Asking
from mathlete.delivery.kaggle_client import Kaggle, Session
from mathlete.errors import UserError
from mathlete.kernel import JOURNAL
from mathlete.submission import Build, Names

OUTPUT = "output"
"""The folder, in the build's, of what the notebook wrote on Kaggle."""
_RUNNING = ("QUEUED", "RUNNING", "NEW_SCRIPT", "CANCEL_REQUESTED")
ENDED = ("COMPLETE", "ERROR", "CANCEL_ACKNOWLEDGED")
"""States of a session that is over."""
_BUILD = re.compile(r'"build"\s*:\s*"([0-9a-f]{12,64})"')


def hashes_in_output(folder: Path) -> set[str]:
    """Return the builds' hashes that stand in the journal of a notebook's output."""
    file = folder / JOURNAL
    return set(_BUILD.findall(file.read_text(encoding="utf-8", errors="replace"))) if file.is_file() else set()


def wait_for_run(build: Build, kaggle: Kaggle, *, version: int, folder: Path, asking: Asking, repeated: bool) -> Path:
    """Wait until a version's run is over; return the folder with its output.

    Args:
        build: what was saved as that version.
        kaggle: the account.
        version: the notebook's.
        folder: the build's.
        asking: how Kaggle is asked.
        repeated: whether an earlier version was saved of the same build, whose output has the same hash.

    Raises:
        UserError: it ended with an error, its output is not this build's, or it did not end within the limit.
    """
    run = _Run(
        kaggle=kaggle,
        names=build.names,
        version=version,
        asking=asking,
        folder=folder / f"{OUTPUT}.part",
        hash="" if repeated else build.stamp,
    )
    rule = f"the run of version {version} on Kaggle must end"
    session = asking.until(run.look, limit_s=asking.waiting.run_max_s, rule=rule)
    if session.state != "COMPLETE":
        where = f" or in {run.folder}" if run.folder.is_dir() else ""
        cure = f"read its log on Kaggle{where}, mend the cause, build and rehearse again; the same once more: --again"
        raise UserError(
            "the notebook must run through on Kaggle", value=f"{session.state} {session.failure}".strip(), cure=cure
        )
    if run.hash and run.hash not in hashes_in_output(run.folder) | run.hashes_in_log():
        rule = f"the output of version {version} must carry the hash of its build, {run.hash}"
        raise UserError(
            rule, value=f"no hash in {run.folder}", cure="look at the version on Kaggle, or push with --again"
        )
    shutil.rmtree(folder / OUTPUT, ignore_errors=True)
    return run.folder.rename(folder / OUTPUT)


@dataclass(kw_only=True)
class _Run:
    """One version's run, and what was seen of it."""

    kaggle: Kaggle
    names: Names
    version: int
    asking: Asking
    folder: Path
    """Where its output goes."""
    hash: str
    """The build's, where an output with it can be of no other session; else empty."""
    said: str = ""
    ended: float | None = None
    """When an end was first seen that may be the session's before; None where none is."""

    def look(self) -> Session | None:
        """Return the session where it has ended; None while it runs, or while the one before it is shown."""
        session = self.kaggle.session(self.names, version=self.version)
        if session.state not in ENDED:
            if session.state not in _RUNNING:
                self._say(f"Kaggle says {session.state}, a state that is not known here; waiting goes on")
            self.ended = None
            return None
        fetch_output(self.kaggle, self.names, version=self.version, folder=self.folder, asking=self.asking)
        carried = hashes_in_output(self.folder) | self.hashes_in_log()
        if self.hash and self.hash in carried:
            return session
        if self.hash and carried:
            other = ", ".join(sorted(carried))
            self._say(f"Kaggle still shows the session before, {session.state}, of build {other}; waiting goes on")
            return None
        # No hash tells whose end this is: the session before would give way to the new one.
        now = time.monotonic()
        self.ended = now if self.ended is None else self.ended
        return session if now - self.ended >= self.asking.waiting.settle_s else None

    def hashes_in_log(self) -> set[str]:
        """Return the build's hash where the notebook's log has it: a log that quotes others says nothing of those."""
        file = self.folder / f"{self.names.kernel}.log"
        text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
        return {self.hash} if self.hash and self.hash in text else set()

    def _say(self, text: str) -> None:
        if text != self.said:
            self.asking.say(text)
            self.said = text


def fetch_output(kaggle: Kaggle, names: Names, *, version: int, folder: Path, asking: Asking) -> None:
    """Fill a folder with what a version's run wrote, and its log; what was in the folder is gone.

    Raises:
        UserError: Kaggle's refusal, no answer within the limit, or a file that would leave the folder.
    """

    def fetch() -> None:
        # From the listing on each time: the addresses in it hold for some minutes only.
        output = kaggle.output(names, version=version)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name, url in output.files.items():
            file = folder / name
            if not file.resolve().is_relative_to(folder.resolve()):
                raise UserError("a file of the output must stay in its folder", value=name, cure="look at it on Kaggle")
            file.parent.mkdir(parents=True, exist_ok=True)
            kaggle.download(url, file)
        if output.log:
            (folder / f"{names.kernel}.log").write_text(output.log, encoding="utf-8", errors="replace")

    asking.once(fetch, rule="the notebook's output must be fetched")
