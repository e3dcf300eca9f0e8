"""Preflight: everything that can be known before a push. A model that never answers cannot pass."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from mathlete.errors import UserError
from mathlete.models import GPUS, Device
from mathlete.runs import read_json
from mathlete.submission.build import Build, precision_of
from mathlete.submission.lint import Problem, lint_dataset, lint_kernel, lint_model
from mathlete.submission.metadata import KERNEL_FILE
from mathlete.submission.wheelhouse import needed_for, verify, verify_sums

REPORT = "rehearsal.json"
"""What a rehearsal leaves in the build's folder."""
CAPABILITY = {"dense": 6.0, "nf4": 6.0, "int8": 7.5, "gptq": 7.5, "awq": 7.5, "fp8": 8.9, "compressed-tensors": 7.5}
"""Compute capability that each way of holding weights needs: the tables of bitsandbytes and vLLM."""
CUTOFFS = {"aimo-1": date(2024, 2, 23), "aimo-3": date(2026, 3, 15)}
"""Models must have been released before this day; AIMO-2 had a list instead."""
RELEASED = {"DeepSeek-R1-Distill": date(2025, 1, 20)}
"""Releases of the bases mathlete knows, by a part of their name (huggingface.co/deepseek-ai)."""
_DATASET_BYTES = 100 * 2**30


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a rehearsal must have shown."""

    fallbacks_max: float = 0.2
    """Share of questions without an answer of the model."""
    empty_max: float = 0.2
    """Share of empty completions."""
    right_min: float = 0.1
    """Share of the canaries solved; their answers are never 0."""
    tokens_per_s_min: float = 1.0
    """On the machine of the rehearsal."""


def preflight(build: Build, *, folder: Path, limits: Limits, released: str = "") -> list[tuple[str, list[Problem]]]:
    """[(what was looked at, what is wrong with it)]; nothing wrong anywhere means go.

    Args:
        build: what would be pushed.
        folder: where its rehearsal's report is.
        limits: what the rehearsal must have shown.
        released: day the base model was released, YYYY-MM-DD; empty: known by its name.
    """
    return [
        ("kernel metadata and notebook", lint_kernel(build.kaggle)),
        ("model metadata and licence", lint_model(build.kaggle)),
        ("data set metadata", lint_dataset(build.kaggle)),
        ("names agree", list(_names(build))),
        ("wheels against the image", list(_wheels(build))),
        ("weights against the GPU", list(_gpu(build))),
        ("sizes", list(_sizes(build))),
        ("model cutoff date", list(_cutoff(build, released))),
        ("rehearsal", list(_rehearsal(build, folder, limits))),
    ]


def _names(build: Build) -> Iterator[Problem]:
    kernel = read_json(build.kaggle / KERNEL_FILE)
    text = (build.kaggle / str(kernel["code_file"])).read_text(encoding="utf-8")
    sources: list[Any] = [kernel["dataset_sources"], kernel["model_sources"], kernel["competition_sources"]]
    for source in (name for names in sources for name in names):
        if str(source) not in text:
            rule = f"the notebook must look for what {KERNEL_FILE} mounts: the rerun mounts exactly that"
            yield Problem(rule=rule, value=f"it never names {source}", cure="run `submit build` again")


def _wheels(build: Build) -> Iterator[Problem]:
    try:
        verify_sums(build.wheels)
        verify(build.wheels)
    except UserError as error:
        yield Problem(rule=error.rule, value=str(error.value), cure=error.cure)
    have = " ".join(path.name.lower() for path in build.wheels.glob("*.whl"))
    for requirement in needed_for(precision_of(build.model)):
        if (name := requirement.split(">")[0]) not in have:
            rule = "the wheels must hold what the weights need"
            yield Problem(rule=rule, value=f"no {name}", cure="run `submit build` again")


def _machine_gpu(build: Build) -> tuple[str, Device | None]:
    """Return (the notebook's machine shape, one of its GPUs; None for an unknown shape, which the lint names).

    The engine uses one GPU.
    """
    shape = str(read_json(build.kaggle / KERNEL_FILE).get("machine_shape"))
    return shape, next((gpu for gpu in GPUS.values() if shape in gpu.machine_shapes), None)


def _gpu(build: Build) -> Iterator[Problem]:
    (shape, gpu), precision = _machine_gpu(build), precision_of(build.model)
    if gpu is None or gpu.capability is None:
        return
    if precision not in CAPABILITY:
        rule, cure = "weights must be held in a way the engine knows", f"export as one of {', '.join(CAPABILITY)}"
        yield Problem(rule=rule, value=precision, cure=cure)
    elif gpu.capability < CAPABILITY[precision]:
        rule = f"{precision} weights need compute capability {CAPABILITY[precision]}"
        yield Problem(rule=rule, value=f"{shape} has {gpu.capability}", cure="choose another machine or another export")


def _sizes(build: Build) -> Iterator[Problem]:
    weights = sum(path.stat().st_size for path in build.model.rglob("*") if path.is_file())
    _, gpu = _machine_gpu(build)
    if gpu is not None and weights > 0.85 * gpu.memory:
        rule = f"the weights must leave memory for keys and values on one GPU of {gpu.memory_gib:.1f} GiB"
        yield Problem(
            rule=rule, value=f"{weights / 2**30:.1f} GiB", cure="export with fewer bits or take a smaller model"
        )
    total = weights + sum(path.stat().st_size for path in build.wheels.glob("*.whl"))
    if total > _DATASET_BYTES:
        rule = "uploads must stay below the private quota of 100 GiB"
        yield Problem(rule=rule, value=f"{total / 2**30:.1f} GiB", cure="ship fewer weights")


def _cutoff(build: Build, released: str) -> Iterator[Problem]:
    cutoff = CUTOFFS.get(build.config.competition)
    if cutoff is None:
        return
    base = _base_name(build.model)
    try:
        day = date.fromisoformat(released) if released else _known_release(base)
    except ValueError as error:
        yield Problem(rule=f"--released must be a day ({error})", value=repr(released), cure="write it as 2025-01-20")
        return
    if day is None:
        rule = "the day the base model was released must be known: the rules have a cutoff"
        yield Problem(rule=rule, value=f"base {base or 'unknown'}", cure="name it with --released YYYY-MM-DD")
    elif day >= cutoff:
        rule = f"{build.config.competition} admits models released before {cutoff}"
        yield Problem(rule=rule, value=str(day), cure="use an older base model")


def _known_release(base: str) -> date | None:
    if base.startswith("mathlete/"):
        # Trained from nothing by this project, on problems of its own: no release to speak of.
        return date.min
    return next((day for part, day in RELEASED.items() if part in base), None)


def _base_name(model: Path) -> str:
    """The base an export was made of: the pocket model, its card's `base_model`, or its configuration's name."""
    from huggingface_hub import metadata_load
    from yaml import YAMLError

    config = read_json(model / "config.json")
    # The pocket model is told by its vocabulary: no released model has one so small.
    if int(str(config.get("vocab_size", 10**6))) < 2000:
        return "mathlete/pocket"
    card = model / "README.md"
    try:
        told = (metadata_load(card) or {}) if card.is_file() else {}
    except (ValueError, YAMLError):
        told = {}
    return str(told.get("base_model") or config.get("_name_or_path") or "")


def _rehearsal(build: Build, folder: Path, limits: Limits) -> Iterator[Problem]:
    file, again = folder / REPORT, "run `python -m submit rehearse`"
    if not file.is_file():
        yield Problem(rule="there must be a rehearsal", value=f"no {file}", cure=again)
        return
    report: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    hashes = build.hashes()
    changed = sorted(part for part in hashes if report["hashes"].get(part) != hashes[part])
    if changed:
        rule = "the rehearsal must be of this very build"
        yield Problem(rule=rule, value=f"changed since: {', '.join(changed)}", cure=again)
    if report.get("commit"):
        yield Problem(rule="the rerun must be rehearsed", value="a commit run", cure=again)
        return
    if not report.get("settings", {}).get("image"):
        rule = "the rehearsal must run on the versions that the image has"
        yield Problem(rule=rule, value="it ran on this machine's", cure=f"{again} without --image none")
    if report["outcome"] != "valid":
        yield Problem(rule="the rehearsal must end valid", value=str(report["runs"][-1]["refusal"]), cure=again)
        return
    for run in report["runs"]:
        yield from _figures(run, limits)


def _figures(run: dict[str, Any], limits: Limits) -> Iterator[Problem]:
    questions, samples = max(1, run["questions"]), max(1, run["samples"])
    for rule, value, good in (
        ("share of fallbacks must be at most {}", run["fallbacks"] / questions, limits.fallbacks_max),
        ("share of empty completions must be at most {}", run["empty"] / samples, limits.empty_max),
    ):
        if value > good:
            yield Problem(rule=rule.format(good), value=f"{value:.2f}", cure="look into the rehearsal's journal.jsonl")
    if run["right"] / questions < limits.right_min:
        rule = f"share of canaries solved must be at least {limits.right_min}"
        yield Problem(rule=rule, value=f"{run['right'] / questions:.2f}", cure="check model, prompt and extraction")
    if (run["tokens_per_s"] or 0.0) < limits.tokens_per_s_min:
        rule = f"tokens a second must be at least {limits.tokens_per_s_min}"
        yield Problem(rule=rule, value=str(run["tokens_per_s"]), cure="check engine and machine")
