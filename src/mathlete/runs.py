"""Runs and steps: folders whose manifest is written last, hashed in and out, skipped when nothing changed.

A step is a function path in, path out. `begin_step` gives it a folder, and `Step.finish` writes `manifest.json` there
by atomic rename; `run_step` does both. No manifest means unfinished: the step is called again on the same folder and
may resume from what is there. A manifest whose key (name, version, settings, input hashes) matches means done: the step
is skipped.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mathlete.errors import UserError

MANIFEST = "manifest.json"
_STARTED = "started.json"
REPORT, PLOTS, INSPECT = "report.html", "plots", "inspect"
_VIEWS = (REPORT, PLOTS, INSPECT)
"""Made from a finished step, and rewritten at any time: not among the outputs that its manifest lists."""
Advance = Callable[[int, int | None, str], None]
"""Moves a progress bar: (done, total where it is known, words)."""
_PACKAGES = ("torch", "transformers", "peft", "trl", "datasets", "bitsandbytes", "accelerate", "sympy", "mathlete")


def sha256_json(value: object) -> str:
    """Return the SHA-256 of a JSON value in canonical form (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_below(folder: Path) -> Iterator[Path]:
    """Yield a step's files in order, without manifest, start mark, reports, checkpoints and temporary files."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        skipped = path.name in (MANIFEST, _STARTED) or parts[0] in _VIEWS or parts[0].startswith((".", "checkpoint"))
        if path.is_file() and not skipped:
            yield path


def sha256_tree(folder: Path) -> dict[str, str]:
    """Return {relative path: SHA-256} of a step's files; for a single file, its name and hash."""
    if folder.is_file():
        return {folder.name: sha256_file(folder)}
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in files_below(folder)}


def write_atomically(path: Path, text: str) -> None:
    """Write text to a temporary file, flush it to disk and rename it: a reader sees all of it or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_json(path: Path, value: object) -> None:
    """Write indented JSON atomically."""
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def read_json(path: Path) -> dict[str, object]:
    """Return the JSON object in a file.

    Raises:
        UserError: no such file, or not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"must be a readable JSON file ({error})", value=str(path), cure="make it again") from error
    if not isinstance(value, dict):
        raise UserError("must hold a JSON object", value=str(path), cure="make it again")
    return value


def require_space(path: Path, *, needed_bytes: int) -> None:
    """Check that the disk under `path` has room.

    Raises:
        UserError: fewer than `needed_bytes` are free.
    """
    existing = next(parent for parent in (path, *path.resolve().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed_bytes:
        raise UserError(
            f"{path} needs {needed_bytes / 2**30:.2f} GiB of free disk",
            value=f"{free / 2**30:.2f} GiB",
            cure="free some space or choose another folder with --run",
        )


def _git(*arguments: str) -> str:
    # The checkout of this code, not of the folder in which the user called it.
    here = Path(__file__).parent
    done = subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def code_state() -> dict[str, object]:
    """Return {"commit", "dirty", "diff_sha256"} of mathlete's checkout; commit is "" for an installed wheel."""
    if shutil.which("git") is None or not (commit := _git("rev-parse", "HEAD")):
        return {"commit": "", "dirty": False, "diff_sha256": ""}
    diff = _git("diff", "HEAD")
    dirty = bool(_git("status", "--porcelain"))
    return {"commit": commit, "dirty": dirty, "diff_sha256": sha256_json(diff) if diff else ""}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def hardware() -> dict[str, object]:
    """Return CPU count, platform and, where torch has been imported and sees one, the CUDA device's name."""
    facts: dict[str, object] = {"cpus": os.cpu_count(), "platform": sys.platform}
    # Importing torch for this would cost seconds in steps that do without it.
    torch = sys.modules.get("torch")
    if torch is not None:
        facts["threads"] = torch.get_num_threads()
        facts["cuda"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return facts


def environment() -> dict[str, object]:
    """Return what a manifest says of where a run was made: code, packages, Python, hardware."""
    return {
        "git": code_state(),
        "python": sys.version.split()[0],
        "packages": {name: number for name in _PACKAGES if (number := _version(name))},
        "hardware": hardware(),
    }


@dataclass(kw_only=True)
class Step:
    """A step: begun by `begin_step`, and finished where nothing changed since it was made, or by `finish`."""

    name: str
    folder: Path
    key: str
    """Hash of name, version, settings and inputs."""
    settings: Mapping[str, object]
    inputs: Mapping[str, dict[str, str]]
    """Hashes of each input's files."""
    manifest: dict[str, object] = field(default_factory=dict)
    """Empty until it is finished."""
    skipped: bool = False
    """True where the manifest was already there and matched."""
    started: float = field(default_factory=time.monotonic)

    @property
    def figures(self) -> dict[str, object]:
        """The figures that the step itself returned."""
        figures = self.manifest["figures"]
        assert isinstance(figures, dict)
        return figures

    @contextmanager
    def noting_unfinished(self) -> Iterator[None]:
        """Let a Ctrl-C carry a note that the step is unfinished, where no other says more exactly how far it got."""
        try:
            yield
        except KeyboardInterrupt as stop:
            if not getattr(stop, "__notes__", None):
                stop.add_note(f"{self.folder}, unfinished")
            raise

    def finish(self, figures: dict[str, object]) -> None:
        """Write the manifest: the step is done."""
        manifest = {
            "schema": 1,
            "status": "done",
            "step": self.name,
            "key": self.key,
            "argv": sys.argv,
            "settings": dict(self.settings),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - self.started, 3),
            **environment(),
            "inputs": dict(self.inputs),
            "outputs": sha256_tree(self.folder),
            "figures": figures,
        }
        write_json(self.folder / MANIFEST, manifest)
        self.manifest = manifest


def verify_outputs(folder: Path) -> dict[str, object]:
    """Return the folder's manifest, after checking that its files are those it lists.

    Raises:
        UserError: a file is missing, new or changed.
    """
    manifest = read_json(folder / MANIFEST)
    listed, present = manifest.get("outputs"), sha256_tree(folder)
    if listed != present:
        names = set(listed) | set(present) if isinstance(listed, dict) else set(present)
        changed = sorted(n for n in names if not isinstance(listed, dict) or listed.get(n) != present.get(n))
        raise UserError(
            f"{folder / MANIFEST} must match the folder's files",
            value=f"changed, missing or new: {', '.join(changed[:5])}",
            cure=f"delete {folder} and run the command again",
        )
    return manifest


def begin_step(
    name: str,
    *,
    folder: Path,
    inputs: Mapping[str, Path],
    settings: Mapping[str, object],
    step_version: int = 1,
) -> Step:
    """Return the step, skipped where its manifest says that nothing changed, else with its folder made ready.

    A folder left by a killed run of the same key stays as it is; one of another key is emptied.

    Raises:
        UserError: the folder's files are not those of its manifest.
    """
    input_hashes = {key: sha256_tree(path) for key, path in sorted(inputs.items())}
    key = sha256_json({"name": name, "version": step_version, "settings": settings, "inputs": input_hashes})
    step = Step(name=name, folder=folder, key=key, settings=settings, inputs=input_hashes)
    if (folder / MANIFEST).exists():
        manifest = verify_outputs(folder)
        if manifest.get("key") == key:
            step.manifest, step.skipped = manifest, True
            return step
    _prepare(folder, key=key)
    step.started = time.monotonic()
    return step


def run_step(
    name: str,
    *,
    folder: Path,
    inputs: Mapping[str, Path],
    settings: Mapping[str, object],
    build: Callable[[Path], dict[str, object]],
    step_version: int = 1,
) -> Step:
    """Run one step whole, or skip it: `build(folder)` fills the folder and returns its figures (JSON values).

    Where Ctrl-C ends it, the exception has a note that says what is kept.

    Raises:
        UserError: the folder's files are not those of its manifest.
    """
    step = begin_step(name, folder=folder, inputs=inputs, settings=settings, step_version=step_version)
    if not step.skipped:
        with step.noting_unfinished():
            step.finish(build(folder))
    return step


def _prepare(folder: Path, *, key: str) -> None:
    """Empty the folder of another key, and mark it as begun with this one."""
    mark = folder / _STARTED
    same = mark.exists() and read_json(mark).get("key") == key and not (folder / MANIFEST).exists()
    # A folder without mark and manifest was not made by a step: it may be anyone's.
    if folder.exists() and not same:
        if any(folder.iterdir()) and not (mark.exists() or (folder / MANIFEST).exists()):
            raise UserError(
                "a step writes only into its own or an empty folder", value=str(folder), cure="choose another --run"
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(mark, {"key": key})
