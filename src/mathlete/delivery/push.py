"""The push: wheels, model and notebook go to Kaggle in that order, none twice; then its run there is watched.

What has counted is written down the moment that it has: uploads in `uploads.json`, the saved version in the ledger. The
next push of the same build goes on from there.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mathlete.delivery.asking import Asking
from mathlete.delivery.kaggle_client import Kaggle, NewestVersion, Session
from mathlete.delivery.ledger import Ledger, Saved
from mathlete.delivery.session import ENDED, wait_for_run
from mathlete.delivery.shown import KaggleRun, fit_clock
from mathlete.delivery.uploads import Uploads, send_once
from mathlete.errors import UserError
from mathlete.files import read_text
from mathlete.kaggle_image import VLLM_LOCK
from mathlete.rehearsal import check_output
from mathlete.runs import sha256_file, sha256_json
from mathlete.submission import Build, Hashes, Names


def plan_push(build: Build, *, folder: Path, again: bool = False) -> list[str]:
    """Return what a push would do, a line each; nothing is sent, Kaggle is not asked."""
    hashes, names, uploads = build.hashes(), build.names, Uploads(folder)
    saved = None if again else Ledger(folder).find_saved(hashes)
    if saved is not None:
        return [f"notebook  {names.kernel_id}: version {saved.version} of this build is saved, gone on with from there"]
    wheels = "unchanged, not sent" if uploads.has_sent(names.wheels_id, hashes.wheels) else f"from {build.wheels}"
    sent = uploads.has_sent(names.model_instance, hashes.weights)
    model = "unchanged, not sent" if sent else f"from {build.model}"
    if not names.uploads_model:
        model = "mounted as it is on Kaggle, not sent"
    return [
        f"data set  {names.wheels_id}: {wheels}",
        *([f"vLLM      {names.vllm_id}: {_plan_vllm(build, uploads)}"] if build.vllm else []),
        f"model     {names.model_source}: {model}",
        f"notebook  {names.kernel_id}: from {build.kaggle}, run by Kaggle at once, output fetched and checked",
    ]


def _plan_vllm(build: Build, uploads: Uploads) -> str:
    if uploads.has_sent(build.names.vllm_id, _hash_vllm(build)):
        return "unchanged, not sent"
    if build.vllm == "dataset":
        return f"data set from {build.vllm_wheels}"
    return f"notebook from {build.downloads}, which downloads the wheels on Kaggle"


def _hash_vllm(build: Build) -> str:
    """Return the hash of what brings vLLM's wheels."""
    folder = build.vllm_wheels or build.downloads
    names = ("*.whl", VLLM_LOCK) if build.vllm_wheels else ("*",)
    files = sorted(file for name in names for file in folder.glob(name))
    return sha256_json({file.name: sha256_file(file) for file in files})


def push_build(
    build: Build,
    kaggle: Kaggle,
    *,
    folder: Path,
    asking: Asking,
    again: bool = False,
    recordings: Sequence[Path] = (),
) -> Saved:
    """Upload what changed, save the notebook, wait for its run, check its output and say what fits the clock there.

    Args:
        build: what to push.
        kaggle: the account.
        folder: the build's, with the records of what was done.
        asking: how Kaggle is asked.
        again: save another version, though one of this very build is saved.
        recordings: as in `check_before_push`.

    Raises:
        UserError: Kaggle refused or dropped something, or the notebook's run is no good.
    """
    hashes, ledger = build.hashes(), Ledger(folder)
    require_account(build, kaggle)
    saved = None if again else ledger.find_saved(hashes)
    if saved is not None:
        asking.say(f"version {saved.version} of this very build is saved already; another one only with --again")
    else:
        say_what_is_left(build, kaggle, asking)
        sender = _Sender(build=build, kaggle=kaggle, hashes=hashes, uploads=Uploads(folder), asking=asking)
        sender.send_wheels()
        sender.send_vllm()
        sender.send_model()
        saved = _save(build, kaggle, hashes=hashes, ledger=ledger, asking=asking, again=again)
    say_where(saved, asking)
    if saved.version in ledger.versions(hashes):
        asking.say("its output was checked already")
        return saved
    repeated = any(event.version != saved.version for event in ledger.of(hashes.id, "saved"))
    output = wait_for_run(build, kaggle, version=saved.version, folder=folder, asking=asking, repeated=repeated)
    asking.say(check_output(output, build))
    clock = fit_clock(KaggleRun.read(output, build), build.config, recordings=recordings)
    for line in clock.describe():
        asking.say(line)
    ledger.append("push", hashes, version=saved.version, url=saved.url, run=clock.to_json())
    return saved


def require_account(build: Build, kaggle: Kaggle) -> None:
    """Check that the credentials are those of the account that the build names.

    Raises:
        UserError: they are another's.
    """
    if kaggle.account.lower() != build.names.owner.lower():
        raise UserError(
            "the credentials must be those of the account that the build names",
            value=f"{kaggle.account} in {kaggle.credentials}, the build is for {build.names.owner}",
            cure=f"use the credentials of {build.names.owner}, or build with --names.owner {kaggle.account}",
        )


def say_what_is_left(build: Build, kaggle: Kaggle, asking: Asking) -> None:
    """Say how much GPU quota and how many submissions are left, where Kaggle tells; a push can do without."""
    try:
        hours = kaggle.gpu_hours_left()
        left, today = kaggle.submissions_left(build.config.competition.slug)
    except UserError as error:
        asking.say(f"quota and submissions are not known: {error.value}")
        return
    quota = "" if hours is None else f"GPU quota of this week: {hours:.1f} h left · "
    asking.say(f"{quota}submissions: {today} today, {left} left")


def say_where(saved: Saved, asking: Asking) -> None:
    """Say where the version is.

    Raises:
        UserError: Kaggle left sources out of it.
    """
    asking.say(f"version {saved.version}: {saved.url}")
    if saved.unknown_tags:
        asking.say(
            f"Kaggle knows no tag {', '.join(saved.unknown_tags)}: the version has none of it, and runs all the same"
        )
    if saved.dropped:
        raise UserError(
            f"Kaggle must accept every source; it saved version {saved.version} without some",
            value=saved.dropped,
            cure="check owner, slug and version of each, build and push again; with --again the same build is pushed",
        )


def _save(build: Build, kaggle: Kaggle, *, hashes: Hashes, ledger: Ledger, asking: Asking, again: bool) -> Saved:
    """Save the notebook, and write the version down before anything else is asked."""
    rule = "Kaggle must accept the notebook"
    source = read_text(build.notebook)
    begun = None if again else ledger.find_begun(hashes)
    if begun is None:
        begun = asking.once(lambda: kaggle.head(build.names), rule=rule).version
        # Written before the act: a push that is killed within it finds its version on Kaggle.
        ledger.append("saving", hashes, version=begun)
    else:
        asking.say(f"{rule}: an earlier push of this build may have saved it, so Kaggle is looked at first")
    counted = _make_look(build, kaggle, source=source, before=begun)
    saved = asking.once(counted, rule=rule) or asking.act(lambda: kaggle.save_kernel(build.kaggle), counted, rule=rule)
    ledger.append("saved", hashes, version=saved.version, url=saved.url, dropped=saved.dropped or None)
    return saved


def _make_look(build: Build, kaggle: Kaggle, *, source: str, before: int) -> Callable[[], Saved | None]:
    """Return the look for a save whose answer was lost: a newer version with this very notebook in it."""
    url = f"https://www.kaggle.com/code/{build.names.kernel_id}"

    def look() -> Saved | None:
        head = kaggle.head(build.names)
        counted = head.version > before and _has_same_cells(head, source)
        return Saved(version=head.version, url=url) if counted else None

    return look


def _has_same_cells(head: NewestVersion, source: str) -> bool:
    """Return whether the saved notebook has the same cells: all else in it may be written in another way."""
    try:
        return _cells(head.source) == _cells(source)
    except (ValueError, KeyError, TypeError):
        return False


def _cells(source: str) -> list[str]:
    return ["".join(cell["source"]) for cell in json.loads(source)["cells"]]


@dataclass(frozen=True, kw_only=True)
class _Sender:
    """Uploads what Kaggle does not have yet, and waits until it can be mounted."""

    build: Build
    kaggle: Kaggle
    hashes: Hashes
    uploads: Uploads
    asking: Asking

    def send_wheels(self) -> None:
        """Upload the data set of wheels where it changed."""
        names, digest = self.build.names, self.hashes.wheels
        if not self.uploads.has_sent(names.wheels_id, digest):
            # Wheels go first; a wrong version of the model must be refused before they do.
            if names.uploads_model:
                self._require_next_model()
            else:
                self._require_mounted()
            self._send(
                names.wheels_id,
                digest,
                newest=lambda: self.kaggle.wheels_version(names),
                upload=lambda: self.kaggle.upload_wheels(names, self.build.wheels, notes=digest[:12]),
            )
        rule = f"the data set {names.wheels_id} must become ready"
        limit_s = self.asking.waiting.upload_max_s
        cure = self._describe_deleted(names.wheels_id)
        self.asking.until(lambda: self.kaggle.wheels_ready(names), limit_s=limit_s, rule=rule, cure=cure)

    def send_vllm(self) -> None:
        """Bring vLLM's wheels to where the notebook mounts them: by a notebook's run, or as a data set."""
        build, wheels = self.build, self.build.vllm_wheels
        if build.vllm is None:
            return
        names, digest = replace(build.names, kernel=build.names.vllm, wheels=build.names.vllm), _hash_vllm(build)
        limit_s = self.asking.waiting.upload_max_s
        if wheels is not None:
            if not self.uploads.has_sent(names.wheels_id, digest):
                self._send(
                    names.wheels_id,
                    digest,
                    newest=lambda: self.kaggle.wheels_version(names),
                    upload=lambda: self.kaggle.upload_wheels(names, wheels, notes=digest[:12]),
                )
            rule = f"the data set {names.wheels_id} must become ready"
            self.asking.until(lambda: self.kaggle.wheels_ready(names), limit_s=limit_s, rule=rule)
            return
        if not self.uploads.has_sent(names.kernel_id, digest):
            self._send(
                names.kernel_id,
                digest,
                newest=lambda: self.kaggle.head(names).version,
                upload=lambda: say_where(self.kaggle.save_kernel(build.downloads), self.asking),
            )
        last = self.uploads.last(names.kernel_id)
        assert last is not None  # noted by `_send`
        self._wait_for_downloads(names, version=last.version or 0)

    def _wait_for_downloads(self, names: Names, *, version: int) -> None:
        """Wait until the notebook that downloads vLLM's wheels has ended.

        Raises:
            UserError: it ended with an error, or not within the limit.
        """

        def look() -> Session | None:
            session = self.kaggle.session(names, version=version)
            return session if session.state in ENDED else None

        rule = f"{names.kernel_id} must download vLLM's wheels"
        session = self.asking.until(look, limit_s=self.asking.waiting.run_max_s, rule=rule)
        if session.state != "COMPLETE":
            cure = "read its log on Kaggle; or send the wheels from here, with `submit wheels --engine vllm` and "
            cure += "`submit build --vllm-wheels`"
            raise UserError(rule, value=f"{session.state} {session.failure}".strip(), cure=cure)

    def send_model(self) -> None:
        """Upload the model where it changed; see that one which is mounted is there."""
        names, digest = self.build.names, self.hashes.weights
        if not names.uploads_model:
            self._require_mounted()
            return
        instance, version = names.model_instance, names.model_version
        if not self.uploads.has_sent(instance, digest):
            self._require_next_model()
            self._send(
                instance,
                digest,
                newest=lambda: self.kaggle.model_version(names),
                upload=lambda: self.kaggle.upload_model(
                    names, self.build.model, notes=digest[:12], licence=self.build.licence
                ),
            )
        rule, limit_s = f"version {version} of {instance} must appear", self.asking.waiting.upload_max_s
        cure = self._describe_deleted(instance)
        self.asking.until(lambda: self.kaggle.model_version(names) >= version, limit_s=limit_s, rule=rule, cure=cure)

    def _describe_deleted(self, name: str) -> str:
        return f"If it was deleted on Kaggle, delete the entry {name} of {self.uploads.file}: it is sent anew"

    def _send(self, name: str, digest: str, *, newest: Callable[[], int], upload: Callable[[], None]) -> None:
        send_once(name, digest, uploads=self.uploads, asking=self.asking, newest=newest, upload=upload)

    def _require_mounted(self) -> None:
        """Check that Kaggle has the version of somebody's model that the notebook mounts.

        Raises:
            UserError: it has not, or does not show it.
        """
        names = self.build.names
        newest = self.asking.once(
            lambda: self.kaggle.model_version(names), rule=f"{names.model_instance} must be readable"
        )
        if newest < int(names.model_source.rpartition("/")[2]):
            raise UserError(
                "Kaggle must have the model that the notebook mounts",
                value=f"{names.model_source}, and the newest version that you can see is {newest or 'none'}",
                cure="check each part of --model-source, and accept the model's terms on its page",
            )

    def _require_next_model(self) -> None:
        """Check that the notebook mounts the version of the model that this push uploads, or that an earlier one did.

        Raises:
            UserError: it mounts another.
        """
        names = self.build.names
        last, wanted = self.uploads.last(names.model_instance), names.model_version
        newest = self.asking.once(
            lambda: self.kaggle.model_version(names), rule=f"{names.model_instance} must be readable"
        )
        is_there = last is not None and last.hash == self.hashes.weights and last.version == wanted <= newest
        if not is_there and wanted != newest + 1:
            raise UserError(
                "the notebook must mount the model's version that this push uploads",
                value=f"version {wanted}, the next one on Kaggle is {newest + 1}",
                cure=f"build with --names.model-version {newest + 1}, rehearse, push again",
            )
