"""The draft of a rehearsal: the notebook, what it mounts, its questions and its gateway, before anything is started."""

import csv
import json
import random
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mathlete.competitions import Competition
from mathlete.errors import UserError, nearest
from mathlete.kernel import KernelConfig
from mathlete.problems import Problem
from mathlete.rehearsal.containers import Disks
from mathlete.rehearsal.gateway.behaviours import BEHAVIOURS, STARTUP_LIMIT_S
from mathlete.submission import Build, with_cell

Layout = Literal["old", "new"]
Order = Literal["file", "shuffled", "hard-first"]
ClockKind = Literal["real", "virtual"]
_SPARE_S = 60.0
"""Real seconds that a rehearsal may take beyond the wall: two containers have to start."""
_PLACEHOLDER = "id,{column}\n000aaa,What is $1-1$?\n111bbb,What is $0\\times10$?\n222ccc,Solve $4+x=4$ for $x$.\n"
"""The test.csv that a notebook sees outside its rerun: three questions, all with the answer 0."""
PLACEHOLDER_IDS = ("000aaa", "111bbb", "222ccc")


DRAFTED = ("competition", "hidden", "spoilt-*")
"""What a draft puts into its folder: the competition's data, the hidden questions, and what a fault spoilt."""


@dataclass(frozen=True, kw_only=True)
class RehearsalSettings:
    """How to rehearse."""

    layout: Layout = "new"
    """Where inputs are mounted: as before 2026, or below datasets/, models/ and competitions/."""
    order: Order = "shuffled"
    """Order of the questions; AIMO-3's private rerun has the file's."""
    clock: ClockKind = "virtual"
    """virtual: every limit is divided by 100, so that five hours take three minutes; by less on a loaded machine."""
    rerun: bool = True
    """False: the commit run, in which the notebook asks itself the three placeholder questions."""
    seed: int = 0
    limit_s: float | None = None
    """Real seconds after which the rehearsal is ended; None: the wall's."""
    real_package: Path | None = None
    """Folder of the competition's download that holds kaggle_evaluation; used instead of our gateway."""
    packages: Path | None = None
    """Folder of packages that come before this environment's, such as the image's versions."""

    def ids(self, problems: Sequence[Problem]) -> list[str]:
        """Return the ids of the questions asked: the problems' in a rerun, the placeholders' in a commit run."""
        return [problem.id for problem in problems] if self.rerun else [*PLACEHOLDER_IDS]


@dataclass(kw_only=True)
class Draft:
    """The notebook, inputs and disks of a rehearsal, which a fault may still change."""

    text: str
    """The notebook."""
    inputs: dict[str, Path]
    """{path below /kaggle/input: folder}."""
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
    folder: Path
    """Where a fault may put files of its own."""


def make_draft(
    build: Build, config: KernelConfig, problems: Sequence[Problem], settings: RehearsalSettings, *, folder: Path
) -> Draft:
    """Lay out a rehearsal in an empty folder: the notebook with its limits, the mounts, the hidden test.csv.

    Args:
        build: what is rehearsed.
        config: its settings on the rehearsal's clock.
        problems: the questions.
        settings: how to rehearse.
        folder: where stand-ins for the competition's data go.
    """
    rules = build.config.competition
    # The built notebook but for two things: it asserts this machine's Python, and its limits are the clock's.
    here = ".".join(map(str, sys.version_info[:2]))
    changed = f"CONFIG = config_from(json.loads({json.dumps(config.to_json(), sort_keys=True)!r}))"
    text = with_cell(build.notebook_text(python=here), source=changed)
    stand_in, hidden = (folder / name for name in DRAFTED[:2])
    _write_competition(stand_in, build, settings)
    hidden.mkdir()
    ordered = _sort(problems, settings)
    _write_csv(hidden / "test.csv", rules.columns, [(problem.id, problem.statement) for problem in ordered])
    if settings.rerun and rules.gateway.api == "iterator":
        shutil.copyfile(hidden / "test.csv", stand_in / "test.csv")
    names = build.names
    old, new = settings.layout == "old", settings.layout == "new"
    version = names.model_source.split("/")
    inputs = {
        names.wheels if old else f"datasets/{names.wheels_id}": build.wheels,
        "/".join(version[1:]) if old else f"models/{names.model_source}": build.model,
        f"competitions/{rules.slug}" if new else rules.slug: stand_in,
    }
    limit_s = settings.limit_s or config.wall_s + _SPARE_S
    return Draft(text=text, inputs=inputs, test=hidden / "test.csv", limit_s=limit_s, folder=folder)


def _sort(problems: Sequence[Problem], settings: RehearsalSettings) -> list[Problem]:
    ordered = list(problems)
    if settings.order == "shuffled":
        random.Random(settings.seed).shuffle(ordered)
    if settings.order == "hard-first":
        # The pocket suite names its hard subsets so; elsewhere the longest statements stand for the hardest.
        ordered.sort(key=lambda problem: ("hard" not in problem.subset, -len(problem.statement)))
    return ordered


def _write_csv(file: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as lines:
        csv.writer(lines).writerows([columns, *rows])


def behaviour_of(rules: Competition) -> str:
    """Return the measured gateway that stands in for a competition's own.

    Raises:
        UserError: the competition's file names none that is known.
    """
    name = str(rules.gateway.behaviour)
    if name not in BEHAVIOURS:
        rule = f"gateway.behaviour of {rules.name} must be a measured one"
        raise UserError(rule, value=repr(name), cure=nearest(name, [*BEHAVIOURS]))
    return name


def has_gateway(build: Build, settings: RehearsalSettings) -> bool:
    """Return whether a second container asks; with an iterator and in a commit run the notebook asks itself."""
    return settings.rerun and build.config.competition.gateway.api == "inference-server"


def _write_competition(folder: Path, build: Build, settings: RehearsalSettings) -> None:
    """Write the competition's data as the notebook sees it: placeholder questions and the evaluation package."""
    folder.mkdir()
    rules = build.config.competition
    (folder / "test.csv").write_text(_PLACEHOLDER.format(column=rules.columns[1]), encoding="utf-8")
    if rules.gateway.api == "iterator":
        (folder / f"{rules.gateway.module}.py").write_text(
            "from pathlib import Path\n\nfrom mathlete.rehearsal.gateway import aimo_1\n\n\n"
            "def make_env():\n    return aimo_1.make_env(str(Path(__file__).parent))\n"
        )
        return
    package = folder / "kaggle_evaluation"
    if settings.real_package is not None:
        shutil.copytree(settings.real_package / "kaggle_evaluation", package)
        return
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / f"{rules.gateway.module}.py").write_text(
        "from mathlete.rehearsal.gateway.behaviours import BEHAVIOURS\n"
        "from mathlete.rehearsal.gateway.gateway import InferenceServer\n\n\n"
        f"class {rules.gateway.server}(InferenceServer):\n"
        "    def __init__(self, *listeners):\n"
        f"        super().__init__(*listeners, behaviour=BEHAVIOURS[{behaviour_of(rules)!r}])\n"
    )


def gateway_command(build: Build, settings: RehearsalSettings, draft: Draft, *, deadline_s: float) -> list[str]:
    """Return the command of the gateway's container."""
    rules = build.config.competition
    data = f"/kaggle/input/{rules.slug}"
    command = [sys.executable, "-m", "mathlete.rehearsal.gateway"]
    command += ["--behaviour", behaviour_of(rules), "--test", f"{data}/test.csv"]
    command += ["--host", "inference_server", "--order", "file", "--seed", str(settings.seed)]
    command += ["--deadline-s", str(deadline_s), "--startup-s", str(draft.startup_s)]
    if settings.real_package is None:
        return command
    # Kaggle names a competition's gateway after its server.
    module = rules.gateway.module.replace("inference_server", "gateway")
    gateway = str(rules.gateway.server).replace("InferenceServer", "Gateway")
    return [*command, "--real", data, "--real-module", module, "--real-class", gateway]


def gateway_mounts(build: Build, settings: RehearsalSettings, draft: Draft) -> Mapping[str, Path]:
    """Return the mounts of the gateway's container: the competition's data with the hidden test.csv."""
    hidden = draft.test.parent
    if settings.real_package and not (hidden / "kaggle_evaluation").exists():
        shutil.copytree(settings.real_package / "kaggle_evaluation", hidden / "kaggle_evaluation")
    return {build.config.competition.slug: hidden}


def choose_canaries(problems: Sequence[Problem], *, count: int) -> list[Problem]:
    """Return the first problems whose gold is an integer above 0: a model that never answers must not be right.

    The usual fallback is 0, and so are the answers of Kaggle's placeholder questions.

    Raises:
        UserError: there are fewer than `count`.
    """
    fit = [problem for problem in problems if problem.gold.isdigit() and int(problem.gold) > 0]
    if len(fit) < count:
        raise UserError(
            "a rehearsal needs problems whose answers are integers above 0",
            value=f"{len(fit)} of {count}",
            cure="name another file with --problems, or ask fewer with --questions",
        )
    return fit[:count]
