"""The image's own versions of what the notebook imports, for rehearsals on this machine.

A notebook that runs with this machine's transformers may fail with the image's. torch stays this machine's: the image's
build needs a GPU's libraries, and is gigabytes.
"""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

from mathlete.errors import UserError
from mathlete.kaggle_image import constraints_file, image_packages
from mathlete.runs import Leftovers, run_step

IMPORTED = (
    "grpcio",
    "numpy",
    "pandas",
    "polars",
    "protobuf",
    "pyarrow",
    "scipy",
    "sympy",
    "tokenizers",
    "transformers",
)
"""What the notebook and the gateway's library import, torch apart."""
_PACKAGES = "packages"
_BESIDE_TORCH = "accelerate"
"""It needs torch, so its dependencies are not installed with it."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """The image's versions of what the notebook imports, in a folder here."""

    folder: Path
    packages: tuple[str, ...]
    """What is there, NAME==VERSION each."""
    skipped: bool
    """Whether it was there already."""

    @property
    def path(self) -> Path:
        """What comes first on the notebook's PYTHONPATH."""
        return self.folder / _PACKAGES


def fetch_image(folder: Path, *, overwrite: bool = False) -> Image:
    """Download the image's versions of what the notebook imports, dependencies included; skip it where they are there.

    Wheels are for this machine's Python, which may be another one than the image's.

    Args:
        folder: where they are.
        overwrite: whether those of another image are deleted.

    Raises:
        UserError: the package index cannot be reached, or has no such wheel.
    """
    step = run_step(
        "image",
        folder=folder,
        inputs={},
        settings={"imported": [*IMPORTED, _BESIDE_TORCH], "image": image_packages(), "python": sys.version_info[:2]},
        build=_fill,
        leftovers=Leftovers(
            overwrite=overwrite,
            writes=(_PACKAGES,),
            cure=f"download them again with `python -m submit image --run {folder} --overwrite`",
        ),
    )
    packages = step.figures["packages"]
    assert isinstance(packages, list)
    return Image(folder=step.folder, packages=tuple(packages), skipped=step.skipped)


def _fill(folder: Path) -> dict[str, object]:
    packages = folder / _PACKAGES
    # pip would keep what is there, and a killed pip may have left half a package.
    shutil.rmtree(packages, ignore_errors=True)
    _pip(packages, *IMPORTED)
    _pip(packages, "--no-deps", _BESIDE_TORCH)
    return {"packages": sorted(f"{one.name}=={one.version}" for one in distributions(path=[str(packages)]))}


def _pip(into: Path, *words: str) -> None:
    # pip rather than uv: it has this machine's index and certificates, with which mathlete was installed.
    form = ("--only-binary", ":all:", "-c", str(constraints_file()), "--target", str(into))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *form, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(
            "the image's versions must be in the package index",
            value=" ".join(done.stderr.split())[-500:],
            cure="try again with the network up, or rehearse on this machine's versions with --image none",
        )
