"""The draft of a rehearsal: the notebook, what it mounts, its questions and its gateway, before anything is started."""

import os
import random
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from mathlete.competitions import Competition
from mathlete.errors import UserError
from mathlete.kaggle_image import PYTHON, VLLM_LOCK
from mathlete.problems import Problem
from mathlete.prompts import PromptSettings
from mathlete.rehearsal.containers import Disks
from mathlete.rehearsal.environments import THIS_PYTHON, NotebookPython
from mathlete.rehearsal.gateway.behaviours import STARTUP_LIMIT_S
from mathlete.rehearsal.real_package import PACKAGE, find_real_package
from mathlete.rehearsal.speed import FASTEST, choose_speed
from mathlete.rehearsal.stand_in import choose_behaviour, write_csv, write_stand_in
from mathlete.runs import sha256_file
from mathlete.submission import Build, with_cell

Layout = Literal["old", "new"]
Order = Literal["file", "shuffled", "hard-first"]
Part = Literal["wheels", "model", "competition", "vllm"]
"""What is mounted."""
FALLBACKS_MAX = 0.5
_SPARE_S = 60.0
"""Real seconds that a rehearsal may take beyond the wall: two containers have to start."""
_REHEARSED = """\
# Put in by the rehearsal alone.
from dataclasses import replace

CONFIG = replace(CONFIG, problems={problems}).speed_up({speed!r})
BUILT = {{**globals().get("BUILT", {{}}), "machine": ""}}  # this machine is not Kaggle's
"""
_OWN_PROMPT = """\
from mathlete.prompts import PromptSettings

CONFIG = replace(CONFIG, prompt=PromptSettings())  # the model that stands in has a template of its own
"""
_ON_CPU = """\
# Put in by the rehearsal alone: vLLM's CPU build has no GPUs to share, no kernels to choose, need not compile, and
# this machine may have other work.
import mathlete.kernel.server as server
from mathlete.kernel import config_from

server.QUIET_S = 1200.0
CONFIG = config_from({**CONFIG.to_json(), "load_max_s": 3600.0})
CONFIG = replace(CONFIG, vllm=replace(
    CONFIG.vllm, tensor_parallel=1, kv_gib=1.0, kv_dtype="auto", eager=True, attention_backend="auto", extra={}
))
"""
_NOT_ON_CPU = ("tensor_parallel", "gpu_memory_utilization", "kv_gib", "kv_dtype", "attention_backend", "extra")
_OTHER_VLLM = """\
# Put in by the rehearsal alone: vLLM's CPU build stands in for its CUDA build; "": nothing does, which is no error.
BUILT = {{**BUILT, "vllm": {vllm!r}}}
"""
_STANDS_IN = """\
# Put in by the rehearsal alone: another model stands in for the build's.
BUILT = {{**BUILT, "config": {config!r}, "weights": {weights!r}}}
"""
DRAFTED = ("competition", "hidden", "spoilt-*", "files-*")
"""What a draft puts into its folder: the competition's data, the hidden questions, what a fault spoilt, and the files
of inputs that are links."""


@dataclass(frozen=True, kw_only=True)
class RehearsalSettings:
    """How to rehearse."""

    layout: Layout = "new"
    """Where inputs are mounted: as before 2026, or below datasets/, models/ and competitions/."""
    order: Order = "shuffled"
    """Order of the questions; AIMO-3's private rerun has the file's."""
    speed: float = FASTEST
    """What every limit is divided by at most, 1 to 100: at 100 five hours take three minutes."""
    fallbacks_max: float = FALLBACKS_MAX
    """Share of questions without an answer of the model above which a rehearsal refuses."""
    stand_in: Path | None = None
    """Folder of a model that is mounted in the build's place, to prove the wiring of one that is slow here."""
    rerun: bool = True
    """False: the commit run, in which the notebook asks itself the placeholder questions."""
    seed: int = 0
    behaviour: str | None = None
    """Version of kaggle_evaluation that our gateway imitates; None: the competition's."""
    real_package: Path | None = None
    """Folder of the competition's download that holds kaggle_evaluation; used instead of our gateway."""
    vllm: Path | None = None
    """Folder of the wheels of vLLM's CPU build, where the build's engine is vLLM; None: it is not mounted, and the
    embedded engine answers, in the commit run too."""
    python: NotebookPython | None = None
    """What the notebook runs on; None: this Python, with this machine's versions of what the image holds."""
    mounts: Mapping[str, Path] = field(default_factory=dict)
    """{source in kernel-metadata.json that is no part of the build: the folder here that stands for it}."""

    def ids(self, problems: Sequence[Problem], *, rules: Competition) -> list[str]:
        """Return the ids of the questions asked: the problems' in a rerun, the placeholders' in a commit run."""
        return [problem.id for problem in problems] if self.rerun else [*rules.placeholders]

    def skips_vllm(self, build: Build) -> bool:
        """Return whether vLLM's wheels, of a build whose engine it is, are not mounted: the embedded one answers."""
        return build.config.engine == "vllm" and self.vllm is None

    def speed_at(self, contention: float) -> float:
        """Return the clock's speed on a machine where a second of CPU takes so many: 100 is for an idle one.

        >>> RehearsalSettings().speed_at(2.0), RehearsalSettings(speed=12).speed_at(2.0)
        (50.0, 12)
        """
        return max(1.0, min(self.speed, FASTEST / contention))

    def fit_speed(self, build: Build, problems: Sequence[Problem], *, asked: int) -> "tuple[RehearsalSettings, str]":
        """Return these settings with the speed at which this machine keeps up, and by what it was chosen, in words.

        Args:
            build: what is rehearsed.
            problems: the questions.
            asked: how many of them all runs ask together.
        """
        # A model that stands in has another template, which may read no arguments.
        config = build.config if self.stand_in is None else replace(build.config, prompt=PromptSettings())
        config = replace(config, engine="transformers") if self.skips_vllm(build) else config
        speed = choose_speed(self.stand_in or build.model, config, problems, asked=asked)
        return replace(self, speed=speed.factor), speed.why

    @property
    def python_version(self) -> str:
        """The Python that the notebook runs on, as "3.12"."""
        return self.python.version if self.python else THIS_PYTHON

    def find_folder(self, source: str) -> Path:
        """Return the folder on this machine that stands for a source which is no part of the build.

        Raises:
            UserError: none was named.
        """
        if (folder := self.mounts.get(source)) is not None and folder.is_dir():
            return folder
        raise UserError(
            "all that kernel-metadata.json mounts must be on this machine for a rehearsal",
            value=f"{source}, which is {'no folder' if source in self.mounts else 'no part of the build'}",
            cure=f"name its folder with --mounts {source} DIR, or take it out of kernel-metadata.json",
        )


@dataclass(kw_only=True)
class Draft:
    """The notebook, inputs and disks of a rehearsal, which a fault may still change."""

    text: str
    """The notebook."""
    changes: tuple[str, ...] = ()
    """In words, how it differs from the one in kaggle/."""
    inputs: dict[str, Path]
    """{path below /kaggle/input: folder}."""
    mounts: Mapping[Part, tuple[str, str]]
    """{what is mounted: (its path below /kaggle/input, its path in the other layout)}."""
    test: Path
    """The hidden test.csv."""
    disks: Disks = field(default_factory=Disks)
    """Sizes of the notebook's disks."""
    fault: str = ""
    """Name of the fault that is put in; its marks carry it."""
    probe: str = ""
    """Python that is run in the notebook's container before the notebook."""
    startup_s: float = STARTUP_LIMIT_S
    """Real seconds in which the notebook's server must come up."""
    limit_s: float
    """Real seconds after which the rehearsal is ended."""
    slow: float = 1.0
    """How many times as slow as at its fastest the clock runs; a fault's own seconds are as many times more."""
    folder: Path
    """Where a fault may put files of its own."""


def make_draft(
    build: Build, problems: Sequence[Problem], settings: RehearsalSettings, *, speed: float, folder: Path
) -> Draft:
    """Lay out a rehearsal in an empty folder: the notebook as it lies there, its own mounts, the hidden test.csv.

    Args:
        build: what is rehearsed.
        problems: the questions.
        settings: how to rehearse.
        speed: how many times as fast as a real one the notebook's clock runs.
        folder: where stand-ins for the competition's data go.

    Raises:
        UserError: the notebook looks for what is not mounted, something is mounted for nothing or is not on this
            machine, or no cell serves.
    """
    rules, notebook = build.config.competition, build.read_notebook()
    for refusal in notebook.lint():
        raise refusal.error()
    served = settings.vllm if build.config.engine == "vllm" else None
    cell = _REHEARSED.format(problems=len(problems), speed=speed) + (_ON_CPU if served else "")
    if settings.stand_in is not None and build.config.prompt != PromptSettings():
        cell += _OWN_PROMPT
    stand_in, hidden = (folder / name for name in DRAFTED[:2])
    write_stand_in(stand_in, rules, version=settings.behaviour, real_package=settings.real_package)
    hidden.mkdir()
    ordered = _sort(problems, settings)
    write_csv(hidden / "test.csv", rules.columns, [(problem.id, problem.statement) for problem in ordered])
    if settings.rerun and rules.notebook.gateway.api == "iterator":
        shutil.copyfile(hidden / "test.csv", stand_in / "test.csv")
    folders: dict[Part, Path] = {
        "wheels": build.wheels,
        "model": settings.stand_in or build.model,
        "competition": stand_in,
    }
    if served is not None:
        folders["vllm"] = served
    inputs, mounts = _lay_out(build, settings, folders)
    inputs = {
        place: _hold_files(source, folder / f"files-{place.replace('/', '-')}") for place, source in inputs.items()
    }
    text = notebook.with_rehearsal_cell(cell, python=settings.python_version)
    changes = [f"one more cell: {cell}", *_describe_python(settings.python_version)]
    own = [_describe_stand_in(settings.stand_in)] if settings.stand_in is not None else []
    if served is not None:
        # Its lock is another one than the build's, which the notebook compares with what is mounted.
        own.append(_OTHER_VLLM.format(vllm=sha256_file(served / VLLM_LOCK)))
        if idle := build.config.vllm.list_flags(_NOT_ON_CPU):
            changes.append(f"not rehearsed, for want of a GPU: {' '.join(idle)}")
    elif settings.skips_vllm(build) and not settings.rerun:
        own.append(_OTHER_VLLM.format(vllm=""))
    for one in own:
        changes.append(f"one more cell: {one}")
        # A notebook of one's own compares nothing with its build.
        text = with_cell(text, source=one, before="find") if "BUILT" in text else text
    return Draft(
        text=text,
        changes=tuple(changes),
        inputs=inputs,
        mounts=mounts,
        test=hidden / "test.csv",
        limit_s=build.config.clock.wall_s / speed + _SPARE_S,
        slow=FASTEST / speed,
        folder=folder,
    )


def _lay_out(
    build: Build, settings: RehearsalSettings, folders: Mapping[Part, Path]
) -> tuple[dict[str, Path], dict[Part, tuple[str, str]]]:
    """Return ({path below /kaggle/input: folder}, {part of the build: (its path, its path in the other layout)})."""
    inputs, mounts = dict[str, Path](), dict[Part, tuple[str, str]]()
    mounted = build.read_notebook().mounted
    others = [source.name for source in mounted if _part_of(source.identity, build) is None]
    if idle := [name for name in settings.mounts if name not in others]:
        raise UserError(
            "--mounts must name what kernel-metadata.json mounts beside the build's own",
            value=", ".join(idle),
            cure=f"leave it out; to be named: {', '.join(others) or 'nothing'}",
        )
    for source in mounted:
        new, old = source.places
        here, other = (old, new) if settings.layout == "old" else (new, old)
        part = _part_of(source.identity, build)
        if part == "vllm" and part not in folders:
            continue
        inputs[here] = settings.find_folder(source.name) if part is None else folders[part]
        if part is not None:
            mounts[part] = (here, other)
    return inputs, mounts


def _hold_files(source: Path, into: Path) -> Path:
    """Return the folder, or one with the files themselves where links lead out of it, as in the hub's cache.

    On Kaggle files are uploaded; in the container a link would lead to what is not mounted.
    """
    home = source.resolve()
    # Not `resolve`, which raises where a link leads to itself.
    if all(Path(os.path.realpath(path)).is_relative_to(home) for path in home.rglob("*") if path.is_symlink()):
        return source
    shutil.copytree(home, into, copy_function=_link_file, ignore=_list_dangling)
    return into


def _list_dangling(folder: str, names: Sequence[str]) -> list[str]:
    """Return what leads nowhere: it can't be mounted, nor uploaded, which preflight says."""
    return [name for name in names if not Path(folder, name).exists()]


def _link_file(source: str, target: str) -> None:
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        # Another disk, or one without hard links.
        shutil.copyfile(source, target)


def _describe_stand_in(model: Path) -> str:
    weights = {file.name: file.stat().st_size for file in sorted(model.glob("*.safetensors"))}
    return _STANDS_IN.format(config=sha256_file(model / "config.json"), weights=weights)


def _part_of(identity: tuple[str, str], build: Build) -> Part | None:
    """Return which part of the build a source is; None where it is none."""
    kind, name = identity
    match kind:
        case "competitions" if name == build.config.competition.slug.lower():
            return "competition"
        case "datasets" if name == build.names.wheels_id.lower():
            return "wheels"
        case "datasets" | "notebooks" if build.vllm and name == build.names.vllm_id.lower():
            return "vllm"
        case "models" if name.rpartition("/")[0] == build.names.model_instance.lower():
            return "model"
    return None


def _describe_python(python: str) -> Iterator[str]:
    if python == PYTHON:
        yield f"nothing else: Python {PYTHON} is the image's"
    else:
        yield f"it may run on Python {python} here, where the image has {PYTHON}: the wheels for {PYTHON} are not tried"


def _sort(problems: Sequence[Problem], settings: RehearsalSettings) -> list[Problem]:
    ordered = list(problems)
    if settings.order == "shuffled":
        random.Random(settings.seed).shuffle(ordered)
    if settings.order == "hard-first":
        # The pocket suite names its hard subsets so; elsewhere the longest statements stand for the hardest.
        ordered.sort(key=lambda problem: ("hard" not in problem.subset, -len(problem.statement)))
    return ordered


def has_gateway(build: Build, settings: RehearsalSettings) -> bool:
    """Return whether a second container asks; with an iterator and in a commit run the notebook asks itself."""
    return settings.rerun and build.config.competition.notebook.gateway.api == "inference-server"


def gateway_command(build: Build, settings: RehearsalSettings, draft: Draft, *, deadline_s: float) -> list[str]:
    """Return the command of the gateway's container."""
    rules = build.config.competition
    data = f"/kaggle/input/{rules.slug}"
    # The very code that asks for it, whichever checkout the environment's editable install points to.
    command = ["env", f"PYTHONPATH={Path(__file__).parents[2]}", sys.executable, "-m", "mathlete.rehearsal.gateway"]
    command += [
        "--test",
        f"{data}/test.csv",
        "--host",
        "inference_server",
        "--order",
        "file",
        "--seed",
        str(settings.seed),
    ]
    command += ["--deadline-s", str(deadline_s), "--startup-s", str(draft.startup_s)]
    if settings.real_package is None:
        behaviour = choose_behaviour(rules, version=settings.behaviour)
        columns = ["--id-column", behaviour.id_column, "--submission-id", behaviour.submission_id]
        columns += ["--target", behaviour.target]
        return [*command, "--package", behaviour.package.version, *columns]
    real = find_real_package(settings.real_package, rules)
    return [*command, "--real", data, "--real-module", real.module, "--real-class", real.gateway]


def gateway_mounts(build: Build, settings: RehearsalSettings, draft: Draft) -> Mapping[str, Path]:
    """Return the mounts of the gateway's container: the competition's data with the hidden test.csv."""
    hidden = draft.test.parent
    if settings.real_package and not (hidden / PACKAGE).exists():
        package = find_real_package(settings.real_package, build.config.competition).folder
        shutil.copytree(package, hidden / PACKAGE)
    return {build.config.competition.slug: hidden}


def choose_canaries(problems: Sequence[Problem], *, count: int, rules: Competition) -> list[Problem]:
    """Return the first problems that a model that never answers can't be right in.

    Their golds are integers of the competition's range, and neither the fallback nor 0, which is the answer of Kaggle's
    own placeholder questions.

    Raises:
        UserError: there are fewer than `count`.
    """
    fit = [problem for problem in problems if _is_canary(problem.gold, rules)]
    if len(fit) < count:
        raise UserError(
            f"a rehearsal needs problems whose answers are integers from {rules.answer_min} to {rules.answer_max}, "
            f"neither 0 nor the fallback {rules.fallback}",
            value=f"{len(fit)} of {count}",
            cure="name another file with --problems, or ask fewer with --questions",
        )
    return fit[:count]


def _is_canary(gold: str, rules: Competition) -> bool:
    # Written plainly, so that a reader who compares letter for letter counts the same as the scorer.
    value = int(gold) if re.fullmatch("-?[1-9][0-9]*", gold) else None
    return value is not None and value in rules.notebook.answers and value != rules.fallback
