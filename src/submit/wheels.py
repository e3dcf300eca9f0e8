"""`submit wheels`: the wheelhouse alone, or the folder of vLLM's wheels."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from mathlete.command import busy, console
from mathlete.errors import UserError
from mathlete.submission import build_vllm_wheels, build_wheelhouse
from submit.settings import VLLM_WHEELS, WHEELS, RunFolder


@dataclass(frozen=True, kw_only=True)
class WheelsSettings:
    """Which wheels to collect, and from where."""

    need: tuple[str, ...] = ()
    """Requirements beyond the project, such as "bitsandbytes>=0.49"."""
    find_links: Path | None = None
    """Take wheels from this folder instead of the package index."""
    engine: Literal["embedded", "vllm"] = "embedded"
    """vllm: the wheels of vLLM by their lock, a gigabyte, into a folder of their own, runs/vllm-wheels."""
    relock: bool = False
    """Resolve vLLM's wheels anew beside the image's packages, into data/vllm.lock of this checkout."""
    run: RunFolder = WHEELS
    """Where they go."""
    overwrite: bool = False
    """Delete wheels that were made for other requirements."""
    json: bool = False
    """End with one line of JSON on stdout."""


def wheels_command(settings: WheelsSettings) -> dict[str, object]:
    """Resolve, download, hash and verify the wheels for Kaggle's image."""
    if settings.engine == "vllm":
        if settings.need:
            cure = "leave it out: vLLM's wheels are those of their lock"
            raise UserError("--need is for the notebook's own wheels", value=" ".join(settings.need), cure=cure)
        return fetch_vllm_wheels(settings)
    if settings.relock:
        raise UserError("--relock is for vLLM's wheels", value="--engine embedded", cure="add --engine vllm")
    with busy("resolving and downloading wheels"):
        step = build_wheelhouse(
            settings.run, settings.need, find_links=settings.find_links, overwrite=settings.overwrite
        )
    figures = step.figures
    console(json=settings.json).print(
        f"{'nothing changed, skipped: ' if step.skipped else ''}{figures['wheels']} wheels, "
        f"{int(str(figures['bytes'])) / 2**20:.1f} MiB in {settings.run}"
    )
    return {"folder": str(settings.run), "skipped": step.skipped, **figures}


def fetch_vllm_wheels(settings: WheelsSettings) -> dict[str, object]:
    """Make the folder of vLLM's wheels, after a new lock where one is asked for."""
    out, folder = console(json=settings.json), VLLM_WHEELS if settings.run == WHEELS else settings.run
    with busy("downloading vLLM's wheels"):
        step = build_vllm_wheels(
            folder,
            relock=settings.relock,
            find_links=settings.find_links,
            overwrite=settings.overwrite,
            say=partial(out.print, markup=False),
        )
    out.print(f"{'nothing changed, skipped: ' if step.skipped else ''}{step.figures['wheels']} wheels in {folder}")
    return {"folder": str(folder), "skipped": step.skipped, **step.figures}
