"""The push: wheels, model and notebook to Kaggle in that order, each checked, none sent twice; its run watched."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from mathlete.delivery.kaggle_client import Kaggle, Saved
from mathlete.errors import UserError, require
from mathlete.rehearsal import check_output
from mathlete.runs import read_json, sha256_json, sha256_tree, write_json
from mathlete.submission import Build, Names

UPLOADS, OUTPUT = "uploads.json", "output"
Say = Callable[[str], None]
Seen = TypeVar("Seen")


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """How long Kaggle is waited for."""

    poll_s: float = 30.0
    """Between two looks."""
    upload_max_s: float = 3600.0
    """Until uploads can be mounted."""
    run_max_s: float = 12 * 3600.0
    """Until the notebook's own run is over; Kaggle's longest session."""

    def check(self) -> None:
        """Raises UserError where a value is out of its range."""
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


def next_model_version(names: Names, *, weights: str, folder: Path) -> int:
    """The version that weights of this hash have or will have: theirs, or the one after the last uploaded from here."""
    found = _uploads(folder).get(names.model_instance)
    if found is None:
        return 1
    return int(found["version"]) + int(found["hash"] != weights)


def complete_names(names: Names, *, model: Path, folder: Path) -> tuple[Names, str]:
    """Fill in what the names leave open: the account, from the credentials, and the version of the model's weights.

    Args:
        names: as given.
        model: the export.
        folder: the build's, with the record of uploads.

    Returns:
        The names, and where the account was read; "" where it was given.
    """
    reason = ""
    if not names.has_owner:
        owner, reason = owner_of_credentials()
        names = replace(names, owner=owner)
    if names.model_version == 0:
        weights = sha256_json(sha256_tree(model))
        names = replace(names, model_version=next_model_version(names, weights=weights, folder=folder))
    return names, reason


def owner_of_credentials() -> tuple[str, str]:
    """Return (Kaggle account, where it stands); a placeholder where there are no credentials. Reads no key."""
    if name := os.environ.get("KAGGLE_USERNAME"):
        return name, "KAGGLE_USERNAME"
    folders = [os.environ.get("KAGGLE_CONFIG_DIR"), Path.home() / ".kaggle", Path.home() / ".config" / "kaggle"]
    for folder in folders:
        file = Path(folder) / "kaggle.json" if folder else None
        if file is not None and file.is_file():
            owner = json.loads(file.read_text(encoding="utf-8")).get("username")
            if owner:
                return str(owner), str(file)
    return Names().owner, "no Kaggle credentials here; set it with --names.owner"


def plan_push(build: Build, *, folder: Path) -> list[str]:
    """What a push would do, a line each; asks nobody."""
    hashes, names, done = build.hashes(), build.names, _uploads(folder)
    wheels = "unchanged, not sent" if _is_there(done, names.wheels_id, hashes.wheels) else f"from {build.wheels}"
    model = "unchanged, not sent" if _is_there(done, names.model_instance, hashes.weights) else f"from {build.model}"
    return [
        f"data set  {names.wheels_id}: {wheels}",
        f"model     {names.model_source}: {model}",
        f"notebook  {names.kernel_id}: from {build.kaggle}, run by Kaggle at once, output fetched and checked",
    ]


def push_build(build: Build, kaggle: Kaggle, *, folder: Path, waiting: Waiting, say: Say) -> Saved:
    """Uploads what changed, pushes the notebook, waits for its run and checks its output.

    Raises:
        UserError: Kaggle refused or dropped something, or the notebook's run is no good.
    """
    hashes, names = build.hashes(), build.names
    _send_wheels(build, kaggle, digest=hashes.wheels, folder=folder, waiting=waiting, say=say)
    _send_model(build, kaggle, digest=hashes.weights, folder=folder, waiting=waiting, say=say)
    saved = kaggle.save_kernel(build.kaggle)
    say(f"version {saved.version}: {saved.url}")
    rule = "the notebook's run on Kaggle must end"
    waiting.until(lambda: not kaggle.kernel_runs(names), limit_s=waiting.run_max_s, rule=rule)
    output = folder / OUTPUT
    kaggle.fetch_output(names, output)
    say(check_output(output, build))
    return saved


def _send_wheels(build: Build, kaggle: Kaggle, *, digest: str, folder: Path, waiting: Waiting, say: Say) -> None:
    names = build.names
    if not _is_there(_uploads(folder), names.wheels_id, digest):
        # The model's version is looked at before anything is sent.
        _must_be_next(build, kaggle, folder=folder)
        kaggle.upload_wheels(names, build.wheels, notes=digest[:12])
        _note(folder, names.wheels_id, hash=digest, done=True)
        say(f"uploaded {names.wheels_id}")
    rule = f"the data set {names.wheels_id} must become ready"
    waiting.until(lambda: kaggle.wheels_ready(names), limit_s=waiting.upload_max_s, rule=rule)


def _send_model(build: Build, kaggle: Kaggle, *, digest: str, folder: Path, waiting: Waiting, say: Say) -> None:
    names = build.names
    instance, version = names.model_instance, names.model_version
    if not _is_there(_uploads(folder), instance, digest):
        if not _must_be_next(build, kaggle, folder=folder):
            # The intention first: a push killed after the upload finds its version on Kaggle and goes on.
            _note(folder, instance, hash=digest, version=version, done=False)
            kaggle.upload_model(names, build.model, notes=digest[:12], licence=build.licence)
        _note(folder, instance, hash=digest, version=version, done=True)
        say(f"uploaded {names.model_source}")
    rule = f"version {version} of {instance} must appear"
    waiting.until(lambda: kaggle.model_version(names) >= version, limit_s=waiting.upload_max_s, rule=rule)


def _must_be_next(build: Build, kaggle: Kaggle, *, folder: Path) -> bool:
    """True where a push that was killed has already uploaded these weights as this version.

    Raises:
        UserError: the version that the notebook mounts is not the one this upload would become.
    """
    names, hashes = build.names, build.hashes()
    found, newest = _uploads(folder).get(names.model_instance), kaggle.model_version(names)
    if found is not None and found["hash"] == hashes.weights and found["version"] == names.model_version <= newest:
        return True
    if names.model_version != newest + 1:
        raise UserError(
            "the notebook must mount the model's version that this push uploads",
            value=f"version {names.model_version}, the next one on Kaggle is {newest + 1}",
            cure=f"build with --names.model-version {newest + 1}, rehearse, push again",
        )
    return False


def _uploads(folder: Path) -> dict[str, Any]:
    return dict(read_json(folder / UPLOADS)) if (folder / UPLOADS).is_file() else {}


def _is_there(uploads: dict[str, Any], name: str, digest: str) -> bool:
    found = uploads.get(name)
    return found is not None and found["hash"] == digest and found["done"]


def _note(folder: Path, name: str, **facts: object) -> None:
    write_json(folder / UPLOADS, {**_uploads(folder), name: facts})
