"""The push: wheels, model and notebook to Kaggle in that order, each checked, none sent twice; its run watched."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mathlete.competitions import competition
from mathlete.errors import UserError
from mathlete.kernel.server import JOURNAL
from mathlete.runs import read_json, write_json
from mathlete.submission.build import Build
from mathlete.submission.kaggle_client import Kaggle, Saved, instance_of
from mathlete.submission.metadata import INSTANCE_FILE, Names
from mathlete.submission.scorer import SUBMISSION, score_file

UPLOADS, OUTPUT = "uploads.json", "output"
Say = Callable[[str], None]


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
        for name in ("poll_s", "upload_max_s", "run_max_s"):
            if getattr(self, name) <= 0:
                flag = name.replace("_", "-")
                raise UserError(f"--waiting.{flag} must be above 0", value=getattr(self, name), cure="use the default")

    def until(self, done: Callable[[], bool], *, limit_s: float, rule: str) -> None:
        """Returns once it is done.

        Raises:
            UserError: it is not within the limit.
        """
        ends = time.monotonic() + limit_s
        while not done():
            if time.monotonic() >= ends:
                raise UserError(rule, value=f"not within {limit_s:g} s", cure="run the same command again later")
            time.sleep(self.poll_s)


def next_model_version(names: Names, *, weights: str, folder: Path) -> int:
    """The version that weights of this hash have or will have: theirs, or the one after the last uploaded from here."""
    found = _uploads(folder).get(instance_of(names))
    if found is None:
        return 1
    return int(found["version"]) + int(found["hash"] != weights)


def plan(build: Build, *, folder: Path) -> list[str]:
    """What a push would do, a line each; asks nobody."""
    hashes, names, done = build.hashes(), build.names, _uploads(folder)
    wheels = "unchanged, not sent" if _is_there(done, names.wheels_id, hashes["wheels"]) else f"from {build.wheels}"
    model = "unchanged, not sent" if _is_there(done, instance_of(names), hashes["weights"]) else f"from {build.model}"
    return [
        f"data set  {names.wheels_id}: {wheels}",
        f"model     {names.model_source}: {model}",
        f"notebook  {names.kernel_id}: from {build.kaggle}, run by Kaggle at once, output fetched and checked",
    ]


def push(build: Build, kaggle: Kaggle, *, folder: Path, waiting: Waiting, say: Say) -> Saved:
    """Uploads what changed, pushes the notebook, waits for its run and checks its output.

    Raises:
        UserError: Kaggle refused or dropped something, or the notebook's run is no good.
    """
    hashes, names = build.hashes(), build.names
    _send_wheels(build, kaggle, digest=hashes["wheels"], folder=folder, waiting=waiting, say=say)
    _send_model(build, kaggle, digest=hashes["weights"], folder=folder, waiting=waiting, say=say)
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
    instance, version = instance_of(names), names.model_version
    if not _is_there(_uploads(folder), instance, digest):
        if not _must_be_next(build, kaggle, folder=folder):
            # The intention first: a push killed after the upload finds its version on Kaggle and goes on.
            _note(folder, instance, hash=digest, version=version, done=False)
            licence = str(read_json(build.kaggle / INSTANCE_FILE)["licenseName"])
            kaggle.upload_model(names, build.model, notes=digest[:12], licence=licence)
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
    found, newest = _uploads(folder).get(instance_of(names)), kaggle.model_version(names)
    if found is not None and found["hash"] == hashes["weights"] and found["version"] == names.model_version <= newest:
        return True
    if names.model_version != newest + 1:
        raise UserError(
            "the notebook must mount the model's version that this push uploads",
            value=f"version {names.model_version}, the next one on Kaggle is {newest + 1}",
            cure=f"build with --names.model-version {newest + 1}, rehearse, push again",
        )
    return False


def check_output(folder: Path, build: Build) -> str:
    """In words what the notebook's own run on Kaggle came to; its questions are the three placeholders.

    Raises:
        UserError: no submission file, an unfit one, or one without a single answer of the model.
    """
    again = f"read the log in {folder}, mend the cause, build and rehearse again"
    file, journal = folder / SUBMISSION, folder / JOURNAL
    for needed in (file, journal):
        if not needed.is_file():
            raise UserError(f"the notebook must write {needed.name}", value=f"none in {folder}", cure=again)
    lines: list[dict[str, Any]] = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    rules = competition(build.config.competition)
    if problem := score_file(file, ids=[str(line["id"]) for line in lines], rules=rules):
        raise UserError(f"{file.name} must be exactly id and answer, int64 in range", value=problem, cure=again)
    fallbacks = sum(line["fallback"] for line in lines)
    if fallbacks == len(lines):
        whys = "; ".join(dict.fromkeys(str(line["why"]) for line in lines))
        rule = "the model must answer on Kaggle: a file of fallbacks is valid and scores nothing"
        raise UserError(rule, value=whys[:300], cure=again)
    return f"Kaggle's run: {len(lines)} questions, {fallbacks} fallbacks, output in {folder}"


def _uploads(folder: Path) -> dict[str, Any]:
    return dict(read_json(folder / UPLOADS)) if (folder / UPLOADS).is_file() else {}


def _is_there(uploads: dict[str, Any], name: str, digest: str) -> bool:
    found = uploads.get(name)
    return found is not None and found["hash"] == digest and found["done"]


def _note(folder: Path, name: str, **facts: object) -> None:
    write_json(folder / UPLOADS, {**_uploads(folder), name: facts})
