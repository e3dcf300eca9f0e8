"""The image's own versions for a rehearsal here: what the notebook imports, as Kaggle's image has it.

A notebook that runs on this machine's transformers may find another one there. torch is left as it is here: the image's
build needs a GPU's libraries, and is gigabytes.
"""

import re
import subprocess
import sys
from pathlib import Path

from mathlete.errors import UserError
from mathlete.kernel.kaggle_image import constraints_file, image_packages
from mathlete.kernel.wheelhouse import uv_path
from mathlete.runs import Step, run_step

IMPORTED = (
    "accelerate",
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
"""What the notebook and the gateway's library import of the image, torch apart."""
PACKAGES = "packages"
_LEFT = re.compile(r"(torch|triton|setuptools)==|nvidia-|cuda-")


def image_folder(folder: Path) -> Step:
    """Fills the folder's `packages` with the image's versions of what the notebook imports, and of what they need.

    Skipped where that is done. Wheels are for this Python, which may be another one than the image's.

    Raises:
        UserError: the package index cannot be reached, or has no such wheel.
    """
    return run_step(
        "image",
        folder=folder,
        inputs={},
        settings={"imported": list(IMPORTED), "image": image_packages(), "python": list(sys.version_info[:2])},
        build=_fill,
    )


def _fill(folder: Path) -> dict[str, object]:
    form = ("--only-binary", ":all:", "--python", sys.executable)
    words = ("compile", "-", "-c", str(constraints_file()), "--no-annotate", "--no-header", *form)
    pins = [pin for pin in _uv(*words, given="\n".join(IMPORTED)).splitlines() if not _LEFT.match(pin)]
    # The container mounts it read-only, so bytecode must be there.
    _uv("install", "--no-deps", "--compile-bytecode", *form, "--target", str(folder / PACKAGES), *pins)
    return {"packages": pins}


def _uv(*words: str, given: str = "") -> str:
    command = [uv_path(), "pip", *words]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(
            "the image's versions must be in the package index",
            value=" ".join(done.stderr.split())[:500],
            cure="try again with the network up, or rehearse on this machine's versions with --image none",
        )
    return done.stdout
