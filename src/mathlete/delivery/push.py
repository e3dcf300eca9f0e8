"""The push: wheels, model and notebook go to Kaggle in that order, none twice; then its run there is watched."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from mathlete.delivery.kaggle_client import Kaggle, Saved
from mathlete.delivery.uploads import Upload, Uploads
from mathlete.errors import UserError, require
from mathlete.rehearsal import check_output
from mathlete.submission import Build, Hashes

_OUTPUT = "output"
Say = Callable[[str], None]
Seen = TypeVar("Seen")


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """How long to wait for Kaggle."""

    poll_s: float = 30.0
    """Seconds between two requests for Kaggle's status."""
    upload_max_s: float = 3600.0
    """Seconds until uploads can be mounted."""
    run_max_s: float = 12 * 3600.0
    """Seconds until the notebook's own run is over; Kaggle's longest session."""

    def check(self) -> None:
        """Raise UserError where a value is out of its range."""
        require(
            ("poll-s", self.poll_s, self.poll_s > 0, "above 0"),
            ("upload-max-s", self.upload_max_s, self.upload_max_s > 0, "above 0"),
            ("run-max-s", self.run_max_s, self.run_max_s > 0, "above 0"),
            prefix="--waiting.",
            cure="use the default",
        )

    def until(self, look: Callable[[], Seen | None], *, limit_s: float, rule: str) -> Seen:
        """Look again and again until something is there, and return it; None and False mean not yet.

        Raises:
            UserError: it is not there within the limit.
        """
        ends = time.monotonic() + limit_s
        while True:
            seen = look()
            if seen is not None and seen is not False:
                return seen
            if time.monotonic() >= ends:
                raise UserError(rule, value=f"not within {limit_s:g} s", cure="run the same command again later")
            time.sleep(self.poll_s)


def plan_push(build: Build, *, folder: Path) -> list[str]:
    """Return what a push would do, a line each; nothing is sent, Kaggle is not asked."""
    hashes, names, uploads = build.hashes(), build.names, Uploads(folder)
    wheels = "unchanged, not sent" if uploads.has_sent(names.wheels_id, hashes.wheels) else f"from {build.wheels}"
    model = "unchanged, not sent" if uploads.has_sent(names.model_instance, hashes.weights) else f"from {build.model}"
    return [
        f"data set  {names.wheels_id}: {wheels}",
        f"model     {names.model_source}: {model}",
        f"notebook  {names.kernel_id}: from {build.kaggle}, run by Kaggle at once, output fetched and checked",
    ]


def push_build(build: Build, kaggle: Kaggle, *, folder: Path, waiting: Waiting, say: Say) -> Saved:
    """Upload what changed, push the notebook, wait for its run and check its output.

    Raises:
        UserError: Kaggle refused or dropped something, or the notebook's run is no good.
    """
    hashes, names = build.hashes(), build.names
    sender = _Sender(build=build, kaggle=kaggle, hashes=hashes, uploads=Uploads(folder), waiting=waiting, say=say)
    sender.send_wheels()
    sender.send_model()
    saved = kaggle.save_kernel(build.kaggle)
    say(f"version {saved.version}: {saved.url}")
    rule = "the notebook's run on Kaggle must end"
    waiting.until(lambda: not kaggle.kernel_runs(names), limit_s=waiting.run_max_s, rule=rule)
    output = folder / _OUTPUT
    kaggle.fetch_output(names, output)
    say(check_output(output, build))
    return saved


@dataclass(frozen=True, kw_only=True)
class _Sender:
    """Uploads what Kaggle does not have yet, and waits until it can be mounted."""

    build: Build
    kaggle: Kaggle
    hashes: Hashes
    uploads: Uploads
    waiting: Waiting
    say: Say

    def send_wheels(self) -> None:
        """Upload the data set of wheels where it changed."""
        names, digest = self.build.names, self.hashes.wheels
        if not self.uploads.has_sent(names.wheels_id, digest):
            # Wheels go first; a wrong version of the model must be refused before they do.
            self._is_already_there()
            self.kaggle.upload_wheels(names, self.build.wheels, notes=digest[:12])
            self.uploads.note(names.wheels_id, Upload(hash=digest, done=True))
            self.say(f"uploaded {names.wheels_id}")
        rule = f"the data set {names.wheels_id} must become ready"
        self.waiting.until(lambda: self.kaggle.wheels_ready(names), limit_s=self.waiting.upload_max_s, rule=rule)

    def send_model(self) -> None:
        """Upload the model where it changed."""
        names, digest = self.build.names, self.hashes.weights
        instance, version = names.model_instance, names.model_version
        if not self.uploads.has_sent(instance, digest):
            upload = Upload(hash=digest, version=version, done=False)
            if not self._is_already_there():
                # Noted before the upload: a push that is killed after it finds its version on Kaggle, and goes on.
                self.uploads.note(instance, upload)
                self.kaggle.upload_model(names, self.build.model, notes=digest[:12], licence=self.build.licence)
            self.uploads.note(instance, replace(upload, done=True))
            self.say(f"uploaded {names.model_source}")
        rule, limit_s = f"version {version} of {instance} must appear", self.waiting.upload_max_s
        self.waiting.until(lambda: self.kaggle.model_version(names) >= version, limit_s=limit_s, rule=rule)

    def _is_already_there(self) -> bool:
        """Return whether a killed push has already uploaded these weights as this version.

        Raises:
            UserError: the version that the notebook mounts is not the one that an upload would become.
        """
        names = self.build.names
        last, newest = self.uploads.last(names.model_instance), self.kaggle.model_version(names)
        wanted = names.model_version
        if last is not None and last.hash == self.hashes.weights and last.version == wanted <= newest:
            return True
        if wanted != newest + 1:
            raise UserError(
                "the notebook must mount the model's version that this push uploads",
                value=f"version {wanted}, the next one on Kaggle is {newest + 1}",
                cure=f"build with --names.model-version {newest + 1}, rehearse, push again",
            )
        return False
