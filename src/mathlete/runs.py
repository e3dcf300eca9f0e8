"""Runs and steps: folders whose manifest is written last, hashed in and out, skipped when nothing changed.

A step is a function path in, path out. `begin_step` gives it a folder, and `Step.finish` writes `manifest.json` there
by atomic rename; `run_step` does both. No manifest means unfinished: the step is called again on the same folder and
may resume from what is there. A manifest whose key (name, version, settings, input hashes) matches means done: the step
is skipped. A folder of another key is refused with what differs; only `Leftovers.overwrite` deletes what a step made.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mathlete.differences import list_differences
from mathlete.environment import environment
from mathlete.errors import UserError
from mathlete.files import read_json, read_record, require_space, share_files, write_atomically, write_json
from mathlete.folders import (
    INSPECT,
    MANIFEST,
    PLOTS,
    REPORT,
    STARTED,
    delete_outputs,
    explain_stray,
    files_below,
    is_bare,
    join_first,
    list_strangers,
    own_all_files,
    require_apart,
    sha256_tree,
)
from mathlete.hashes import sha256_file, sha256_json
from mathlete.locks import LOCK, hold

__all__ = [
    "INSPECT",
    "MANIFEST",
    "PLOTS",
    "REPORT",
    "Advance",
    "Leftovers",
    "Step",
    "begin_step",
    "files_below",
    "is_unfinished",
    "read_json",
    "read_manifest",
    "read_record",
    "require_space",
    "run_step",
    "sha256_file",
    "sha256_json",
    "sha256_tree",
    "verify_if_made",
    "verify_outputs",
    "write_atomically",
    "write_json",
]

Advance = Callable[[int, int | None, str], None]
"""Moves a progress bar: (done, total where it is known, words)."""
Extends = Callable[[dict[str, Any], dict[str, Any]], bool]
"""Whether the first record's step (step, version, settings, inputs) can be gone on with as the second's."""


@dataclass(frozen=True, kw_only=True)
class Leftovers:
    """What becomes of the files that an earlier command left in a step's folder."""

    overwrite: bool = False
    """Whether what the step made with other settings is deleted; other files never are."""
    extends: Extends = lambda old, new: False
    """Says of another key's record and of this one's whether what the other left can be built upon."""
    writes: tuple[str, ...] = ("*",)
    """Names that the step writes at the top of its folder, with wildcards."""
    deletes: tuple[str, ...] | None = None
    """Those that may be deleted where no manifest lists the step's files; None: the same."""
    parts: tuple[str, ...] = (".parts", ".train-*")
    """Names of unfinished work that only the same settings can go on with: alone in a folder, it is made anew."""
    cure: str = "choose another --run, or delete what is there with --overwrite"
    """What to do about a folder of another key."""


@dataclass(kw_only=True)
class Step:
    """A step: begun by `begin_step`, and finished where nothing changed since it was made, or by `finish`."""

    folder: Path
    record: dict[str, Any]
    """What its result depends on, as its mark and its manifest say: key, step, version, settings, inputs."""
    manifest: dict[str, object] = field(default_factory=dict)
    """Empty until it is finished."""
    skipped: bool = False
    """True where the manifest was already there and matched."""
    started: float = field(default_factory=time.monotonic)
    extended: dict[str, object] | None = None
    """The manifest of the finished step that this one is built upon, if there is one."""

    @property
    def name(self) -> str:
        """The step's name."""
        return str(self.record["step"])

    @property
    def figures(self) -> dict[str, object]:
        """The figures that the step itself returned."""
        figures = self.manifest["figures"]
        assert isinstance(figures, dict)
        return figures

    def skip_where_done(self, *, overwrite: bool) -> bool:
        """Read the manifest of a step with this key that is done; return whether there is one.

        Raises:
            UserError: files of its folder have changed; with `overwrite`, it counts as not done then.
        """
        try:
            done = (self.folder / MANIFEST).is_file() and read_manifest(self.folder).get("key") == self.record["key"]
            self.manifest = verify_outputs(self.folder) if done else {}
        except UserError:
            # What is damaged may be made again by who asks for that.
            if not overwrite:
                raise
        self.skipped = bool(self.manifest)
        return self.skipped

    @contextmanager
    def noting_unfinished(self) -> Iterator[None]:
        """Let a Ctrl-C carry a note that the step is unfinished, where no other says more exactly how far it got."""
        try:
            yield
        except KeyboardInterrupt as stop:
            if not getattr(stop, "__notes__", None):
                stop.add_note(f"{self.folder}, unfinished")
            raise

    @contextmanager
    def keeping_extended(self) -> Iterator[None]:
        """Leave the finished step that is extended as it was where this one ends before it changed a file of that."""
        try:
            yield
        except BaseException:
            if self.extended is not None and sha256_tree(self.folder) == self.extended.get("outputs"):
                write_json(self.folder / MANIFEST, self.extended)
            raise

    def finish(self, figures: dict[str, object]) -> None:
        """Write the manifest: the step is done."""
        manifest = {
            "schema": 2,
            "status": "done",
            # Not the whole path of this code: a recording's manifest leaves this machine.
            "argv": [Path(*Path(sys.argv[0]).parts[-2:]).as_posix(), *sys.argv[1:]],
            **self.record,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - self.started, 3),
            **environment(),
            "outputs": sha256_tree(share_files(self.folder)),
            "figures": figures,
        }
        manifest = json.loads(json.dumps(manifest, default=str))  # as a reader will have it
        self.manifest = {**manifest, "sha256": _own_sha256(manifest)}
        write_json(self.folder / MANIFEST, self.manifest)


def read_manifest(folder: Path) -> dict[str, object]:
    """Return a finished step's manifest.

    Raises:
        UserError: there is none, or it is not as it was written.
    """
    manifest = read_json(folder / MANIFEST)
    # Before schema 2 manifests did not vouch for themselves.
    vouches = manifest.get("schema", 1) != 1 or "sha256" in manifest
    if vouches and manifest.get("sha256") != _own_sha256(manifest):
        raise _explain_changed(folder, [f"{MANIFEST} itself changed"])
    return manifest


def _own_sha256(manifest: Mapping[str, object]) -> str:
    return sha256_json({name: value for name, value in manifest.items() if name != "sha256"})


def verify_outputs(folder: Path, *, only: Collection[str] | None = None) -> dict[str, object]:
    """Return the folder's manifest, after checking that its files are those it lists.

    Args:
        folder: of a finished step.
        only: files to look at; None: all that are there.

    Raises:
        UserError: a file is missing, new or changed, or the manifest itself is.
    """
    manifest = read_manifest(folder)
    outputs = manifest.get("outputs")
    listed = outputs if isinstance(outputs, dict) else {}
    if only is None:
        present = sha256_tree(folder)
    else:
        listed = {name: listed.get(name) for name in only}
        present = {name: sha256_file(folder / name) for name in only if (folder / name).is_file()}
    if new := sorted(present.keys() - listed.keys()):
        raise explain_stray(folder, new)
    words = [f"{n} {'changed' if n in present else 'missing'}" for n in sorted(listed) if listed[n] != present.get(n)]
    if words:
        raise _explain_changed(folder, words)
    return manifest


def verify_if_made(folder: Path, *, only: Collection[str] | None = None) -> dict[str, object]:
    """Check a folder's files where its manifest.json is a step's; another program's may have that name too.

    Args:
        folder: anyone's.
        only: files to look at; None: all that are there.

    Returns:
        The step's manifest; empty where no step has finished there.

    Raises:
        UserError: a file is missing, new or changed.
    """
    if (folder / MANIFEST).is_file() and not {"key", "outputs", "figures"}.isdisjoint(read_json(folder / MANIFEST)):
        return verify_outputs(folder, only=only)
    return {}


def _explain_changed(folder: Path, words: list[str]) -> UserError:
    return UserError(
        f"{folder / MANIFEST} must match the folder's files",
        value=join_first(words),
        cure="put back what was there, or make it again with the same command and --overwrite",
    )


def begin_step(
    name: str,
    *,
    folder: Path,
    inputs: Mapping[str, Path],
    settings: Mapping[str, object],
    step_version: int = 1,
    leftovers: Leftovers = Leftovers(),
) -> Step:
    """Return the step, skipped where its manifest says that nothing changed, else with its folder made ready.

    A folder left by a killed run of the same key stays as it is. The caller holds the folder, or one above it.

    Raises:
        UserError: the folder is of another key, lies in one of the inputs, or its files are not those of its manifest.
    """
    step = _identify(name, folder=folder, inputs=inputs, settings=settings, step_version=step_version)
    if not step.skip_where_done(overwrite=leftovers.overwrite):
        _prepare(step, leftovers)
    return step


def run_step(
    name: str,
    *,
    folder: Path,
    inputs: Mapping[str, Path],
    settings: Mapping[str, object],
    build: Callable[[Path], dict[str, object]],
    step_version: int = 1,
    leftovers: Leftovers = Leftovers(),
) -> Step:
    """Run one step whole, or skip it: `build(folder)` fills the folder and returns its figures (JSON values).

    Where Ctrl-C ends it, the exception has a note that says what is kept.

    Raises:
        UserError: the folder is of another key, is held by another process, lies in one of the inputs, or its files are
            not those of its manifest.
    """
    step = _identify(name, folder=folder, inputs=inputs, settings=settings, step_version=step_version)
    if step.skip_where_done(overwrite=leftovers.overwrite):
        return step
    with hold(folder) as require_place:
        if not step.skip_where_done(overwrite=leftovers.overwrite):  # by who held it before
            _prepare(step, leftovers)
            with step.noting_unfinished(), step.keeping_extended(), _unmark_if_bad_input(folder):
                figures = build(folder)
                require_place()
                step.finish(figures)
    return step


def is_unfinished(folder: Path) -> bool:
    """Return whether a step began in the folder and never ended: refused, killed, or still at work."""
    return (folder / STARTED).is_file() and not (folder / MANIFEST).is_file()


def _identify(
    name: str, *, folder: Path, inputs: Mapping[str, Path], settings: Mapping[str, object], step_version: int
) -> Step:
    require_apart(folder)
    for path in inputs.values():
        if folder.resolve().is_relative_to(path.resolve()):
            rule = "a run must lie outside of what it is made of, which it would change"
            raise UserError(rule, value=f"{folder}, in {path}", cure="choose another --run")
    hashes = {key: sha256_tree(path) for key, path in sorted(inputs.items())}
    record = {"step": name, "version": step_version, "settings": dict(settings), "inputs": hashes}
    record = {"key": _hash_record(record), **record}
    return Step(folder=folder, record=json.loads(json.dumps(record, default=str)))


def _hash_record(record: Mapping[str, object]) -> str:
    """Return the key of a record; a mark that was damaged has another."""
    name, *others = (record.get(word) for word in ("step", "version", "settings", "inputs"))
    return sha256_json({"name": name, **dict(zip(("version", "settings", "inputs"), others, strict=True))})


@contextmanager
def _unmark_if_bad_input(folder: Path) -> Iterator[None]:
    """Delete the mark where the step ends before it made anything: without it an empty folder is nobody's."""
    try:
        yield
    except UserError:
        if folder.is_dir() and is_bare(folder):
            (folder / STARTED).unlink(missing_ok=True)
        raise


def _prepare(step: Step, leftovers: Leftovers) -> None:
    """Have the folder hold nothing that the step can't go on from, and mark it as begun."""
    folder, manifest, new = step.folder, step.folder / MANIFEST, step.record
    folder.mkdir(parents=True, exist_ok=True)
    old = _read_record(folder, damaged_too=leftovers.overwrite)
    finished = manifest.is_file()
    if old is not None and not finished and old.get("key") != new["key"]:
        _delete_parts(folder, leftovers.parts)
    if old is None:
        # Without mark and manifest it was not made by a step: it may be anyone's.
        if any(not path.name.startswith(".") for path in folder.iterdir()):
            rule = "a step writes only into its own or an empty folder"
            raise UserError(rule, value=str(folder), cure="choose another --run")
    elif finished or (old.get("key") != new["key"] and not is_bare(folder)):
        # A key of a finished run that is this one's comes here only where its files are damaged.
        if _is_extended(step, old, leftovers):
            step.extended = read_json(manifest) if finished else None
            manifest.unlink(missing_ok=True)
        elif leftovers.overwrite:
            delete_outputs(folder, old, leftovers.deletes or leftovers.writes)
        else:
            rule = "a run goes on only with the settings that it was begun with"
            differ = join_first(list_differences(old, new), "; ")
            raise UserError(rule, value=f"{folder}{' (finished)' if finished else ''}: {differ}", cure=leftovers.cure)
    if strange := list_strangers(folder, None, leftovers.writes):
        raise explain_stray(folder, strange)
    own_all_files(folder)
    write_json(folder / STARTED, new)
    step.started = time.monotonic()


def _delete_parts(folder: Path, names: Collection[str]) -> None:
    """Delete what another key left unfinished, where nothing else is there: no try may stand in the way of the next."""
    parts = [path for path in folder.iterdir() if any(path.match(name) for name in names) and not path.is_symlink()]
    if {path.name for path in folder.iterdir()} <= {STARTED, LOCK, *(path.name for path in parts)}:
        for path in parts:
            shutil.rmtree(path)


def _is_extended(step: Step, old: dict[str, Any], leftovers: Leftovers) -> bool:
    """Return whether what another key left, as its manifest has it, can be built upon.

    Raises:
        UserError: it could be, but its files have changed; with `overwrite` it can't then.
    """
    if old.get("key") != _hash_record(old) or not leftovers.extends(old, step.record):
        return False
    try:
        verify_if_made(step.folder)
    except UserError:
        if leftovers.overwrite:
            return False
        raise
    return True


def _read_record(folder: Path, *, damaged_too: bool) -> dict[str, object] | None:
    """Return what manifest or mark say of a step, {} for what is damaged; None where neither is a step's."""
    marked = (folder / STARTED).is_file()
    file = next((folder / name for name in (MANIFEST, STARTED) if (folder / name).is_file()), None)
    try:
        record = {} if file is None else read_json(file)
    except UserError:
        if not damaged_too:
            raise
        record = {}
    # Other programs write a manifest.json too; earlier records do not name their version.
    return {"version": 1, **record} if marked or "key" in record else None
