"""The rehearsal: the very notebook, in Kaggle's two containers rebuilt here, against the gateway's measured behaviour.

It ends with a strict scorer on the file the gateway wrote, and with a gate: a notebook that never answers cannot pass.
"""

import csv
import json
import random
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from mathlete.competitions import competition
from mathlete.errors import UserError
from mathlete.kernel.config import KernelConfig
from mathlete.kernel.server import JOURNAL
from mathlete.problems import Problem
from mathlete.rehearsal.containers import NOTEBOOK_LOG, Ended, Stage, run_stage
from mathlete.rehearsal.gateway.behaviours import RESULT, STARTUP_LIMIT_S
from mathlete.runs import write_json
from mathlete.submission.build import Build
from mathlete.submission.lint import Problem as Refusal
from mathlete.submission.metadata import NOTEBOOK
from mathlete.submission.notebook import SERVE, notebook_text, with_cell
from mathlete.submission.scorer import SUBMISSION, answers_in, penalised_score, score_file

Layout = Literal["old", "new"]
Order = Literal["file", "shuffled", "hard-first"]
ClockKind = Literal["real", "virtual"]
VIRTUAL_SPEED = 100.0
"""Seconds of the virtual clock in a real one on an idle machine: five hours in three minutes."""
FALLBACKS_MAX = 0.5
"""Share of questions without an answer of the model above which a rehearsal refuses."""
_BUSIER = 1.3
"""How much busier the machine must have got for a failure on the virtual clock to be tried again."""
_SPARE_S = 60.0
"""Real seconds a rehearsal may take beyond the wall: two containers have to start."""
_PLACEHOLDER = "id,{column}\n000aaa,What is $1-1$?\n111bbb,What is $0\\times10$?\n222ccc,Solve $4+x=4$ for $x$.\n"
"""The test.csv a notebook sees outside its rerun: three questions, all with the answer 0."""
PLACEHOLDERS, _STAGE = 3, "stage"


@dataclass(kw_only=True)
class Draft:
    """What a fault may change before the curtain rises."""

    text: str
    """The notebook."""
    inputs: dict[str, Path]
    """{path below /kaggle/input: folder}."""
    test: Path
    """The hidden test.csv."""
    stage: dict[str, Any] = field(default_factory=dict)
    """Further settings of the stage."""
    startup_s: float = STARTUP_LIMIT_S
    limit_s: float
    """Real seconds after which the rehearsal is broken off."""
    folder: Path
    """For files of its own."""


@dataclass(frozen=True, kw_only=True)
class RehearsalSettings:
    """How to rehearse."""

    layout: Layout = "new"
    """Where inputs are mounted: as before 2026, or below datasets/, models/ and competitions/."""
    order: Order = "shuffled"
    """Order of the questions; AIMO-3's private rerun has the file's."""
    clock: ClockKind = "virtual"
    """virtual: every limit is divided by 100, five hours pass in three minutes; by less on a busy machine."""
    rerun: bool = True
    """False: the commit run, in which the notebook asks itself the three placeholder questions."""
    seed: int = 0
    limit_s: float | None = None
    """Real seconds after which the rehearsal is broken off; None: the wall's."""
    real_package: Path | None = None
    """Folder of the competition's download that holds kaggle_evaluation; used instead of our gateway."""
    packages: Path | None = None
    """Folder of packages that come before this environment's; the image's versions of them, say."""


@dataclass(frozen=True, kw_only=True)
class Rehearsed:
    """What one rehearsal came to."""

    refusal: Refusal | None
    """Why this notebook must not be pushed, or None."""
    answers: dict[str, int]
    right: int
    journal: list[dict[str, Any]]
    seconds: float
    ended: Ended

    def figures(self) -> dict[str, object]:
        """What a person wants to know, as JSON values."""
        questions = len(self.journal)
        samples, tokens = (sum(line[key] for line in self.journal) for key in ("samples", "tokens"))
        busy_s = sum(line["seconds"] - line["load_s"] for line in self.journal)
        return {
            "outcome": "refused" if self.refusal else "valid",
            "refusal": str(self.refusal.error()) if self.refusal else None,
            "questions": questions,
            "right": self.right,
            "fallbacks": sum(line["fallback"] for line in self.journal),
            "samples": samples,
            "empty": sum(line["empty"] for line in self.journal),
            "tokens_per_s": round(tokens / busy_s, 1) if busy_s > 0 else None,
            "seconds": round(self.seconds, 1),
            "isolation": self.ended.isolation,
        }


def rehearse(
    build: Build,
    problems: Sequence[Problem],
    settings: RehearsalSettings,
    *,
    folder: Path,
    fault: Callable[[Draft], None] | None = None,
    measure: Callable[[], float] | None = None,
) -> Rehearsed:
    """Rehearses once, again where it failed while the machine got busier; what it made stays in the folder.

    Args:
        build: what to rehearse.
        problems: the questions, with their golds.
        settings: how.
        folder: emptied first.
        fault: changes the draft before it is staged.
        measure: how busy the machine is; default: `busyness`.
    """
    measure = measure or busyness
    busy = measure()
    found = _rehearse(build, problems, settings, folder=folder, fault=fault, busy=busy)
    if found.refusal is None or fault is not None or settings.clock == "real" or (now := measure()) < _BUSIER * busy:
        return found
    # The machine got busier on the way: its clock ran too fast.
    return _rehearse(build, problems, settings, folder=folder, fault=fault, busy=now)


def _rehearse(
    build: Build,
    problems: Sequence[Problem],
    settings: RehearsalSettings,
    *,
    folder: Path,
    fault: Callable[[Draft], None] | None,
    busy: float,
) -> Rehearsed:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    speed = VIRTUAL_SPEED / busy if settings.clock == "virtual" else 1.0
    config = replace(build.config, problems=len(problems)).faster(speed)
    draft = _draft(build, config, problems, settings, folder=folder)
    if fault is not None:
        fault(draft)
    notebook = folder / NOTEBOOK
    notebook.write_text(draft.text, encoding="utf-8")
    began = time.monotonic()
    ended = run_stage(
        Stage(
            notebook=notebook,
            mounts=draft.inputs,
            rerun=settings.rerun,
            gateway=_gateway(build, settings, draft, deadline_s=config.deadline_s)
            if _has_gateway(build, settings)
            else (),
            gateway_mounts=_gateway_mounts(build, settings, draft),
            limit_s=draft.limit_s,
            packages=settings.packages,
            **draft.stage,
        ),
        folder / _STAGE,
    )
    return _judged(build, problems, settings, ended, seconds=time.monotonic() - began)


def notebook_log(folder: Path) -> Path:
    """Where a rehearsal in this folder writes what the notebook says."""
    return folder / _STAGE / NOTEBOOK_LOG


def busyness(work_s: float = 0.2) -> float:
    """Seconds that pass while this process gets one of a core, at least 1: a rehearsal judges no machine by its load.

    >>> busyness(0.01) >= 1
    True
    """
    began, used = time.perf_counter(), time.process_time()
    while time.process_time() - used < work_s:
        pass
    return max(1.0, (time.perf_counter() - began) / work_s)


def _draft(
    build: Build, config: KernelConfig, problems: Sequence[Problem], settings: RehearsalSettings, *, folder: Path
) -> Draft:
    rules = competition(build.config.competition)
    # The same notebook, but for the Python it asserts (this machine's) and, before it serves, its limits.
    here = ".".join(map(str, sys.version_info[:2]))
    changed = f"CONFIG = config_from(json.loads({config.as_json()!r}))"
    text = with_cell(notebook_text(build.config, build.names, python=here), source=changed, before=SERVE)
    stand_in, hidden = folder / "competition", folder / "hidden"
    _write_competition(stand_in, build, settings)
    hidden.mkdir()
    ordered = _in_order(problems, settings)
    _write_csv(hidden / "test.csv", rules.columns, [(problem.id, problem.statement) for problem in ordered])
    if settings.rerun and build.config.competition == "aimo-1":
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


def _in_order(problems: Sequence[Problem], settings: RehearsalSettings) -> list[Problem]:
    ordered = list(problems)
    if settings.order == "shuffled":
        random.Random(settings.seed).shuffle(ordered)
    if settings.order == "hard-first":
        # Hard ones by their subset, then the longest statements.
        ordered.sort(key=lambda problem: ("hard" not in problem.subset, -len(problem.statement)))
    return ordered


def _write_csv(file: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as lines:
        csv.writer(lines).writerows([columns, *rows])


def behaviour_of(name: str) -> str:
    """The newest behaviour of a competition's gateway."""
    return {"aimo-2": "aimo-2-0.7", "aimo-3": "aimo-3-0.9"}.get(name, "")


def _has_gateway(build: Build, settings: RehearsalSettings) -> bool:
    """Whether a second container asks: in AIMO-1 and in a commit run the notebook asks itself."""
    return settings.rerun and bool(behaviour_of(build.config.competition))


def _write_competition(folder: Path, build: Build, settings: RehearsalSettings) -> None:
    """The competition's data as the notebook sees it: placeholder questions and the evaluation package."""
    folder.mkdir()
    name = build.config.competition
    rules = competition(name)
    (folder / "test.csv").write_text(_PLACEHOLDER.format(column=rules.columns[1]), encoding="utf-8")
    if name == "aimo-1":
        (folder / "aimo.py").write_text(
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
    number = name.split("-")[1]
    (package / f"aimo_{number}_inference_server.py").write_text(
        "from mathlete.rehearsal.gateway.behaviours import BEHAVIOURS\n"
        "from mathlete.rehearsal.gateway.gateway import InferenceServer\n\n\n"
        f"class AIMO{number}InferenceServer(InferenceServer):\n"
        "    def __init__(self, *listeners):\n"
        f"        super().__init__(*listeners, behaviour=BEHAVIOURS[{behaviour_of(name)!r}])\n"
    )


def _gateway(build: Build, settings: RehearsalSettings, draft: Draft, *, deadline_s: float) -> list[str]:
    slug = competition(build.config.competition).slug
    command = [sys.executable, "-m", "mathlete.rehearsal.gateway"]
    command += ["--behaviour", behaviour_of(build.config.competition), "--test", f"/kaggle/input/{slug}/test.csv"]
    command += ["--host", "inference_server", "--order", "file", "--seed", str(settings.seed)]
    command += ["--deadline-s", str(deadline_s), "--startup-s", str(draft.startup_s)]
    return command + (["--real", f"/kaggle/input/{slug}"] if settings.real_package else [])


def _gateway_mounts(build: Build, settings: RehearsalSettings, draft: Draft) -> Mapping[str, Path]:
    hidden = draft.test.parent
    if settings.real_package and not (hidden / "kaggle_evaluation").exists():
        shutil.copytree(settings.real_package / "kaggle_evaluation", hidden / "kaggle_evaluation")
    return {competition(build.config.competition).slug: hidden}


def _judged(
    build: Build, problems: Sequence[Problem], settings: RehearsalSettings, ended: Ended, *, seconds: float
) -> Rehearsed:
    notebook = ended.folder / "notebook"
    file = (ended.folder / "gateway" if _has_gateway(build, settings) else notebook) / SUBMISSION
    journal_file = notebook / JOURNAL
    lines = journal_file.read_text(encoding="utf-8").splitlines() if journal_file.is_file() else []
    journal = [json.loads(line) for line in lines if line.endswith("}")]
    ids = [problem.id for problem in problems] if settings.rerun else ["000aaa", "111bbb", "222ccc"]
    refusal = _refusal(build, ended, file, ids, journal)
    answers = answers_in(file) if refusal is None else {}
    golds = {problem.id: problem.gold for problem in problems}
    right = sum(str(answer) == golds.get(name) for name, answer in answers.items())
    return Rehearsed(refusal=refusal, answers=answers, right=right, journal=journal, seconds=seconds, ended=ended)


def _refusal(
    build: Build, ended: Ended, file: Path, ids: Sequence[str], journal: Sequence[Mapping[str, Any]]
) -> Refusal | None:
    cure = f"read {ended.folder / NOTEBOOK_LOG}, mend the cause and build again"
    if not file.is_file():
        rule = "a rehearsal must end with the gateway's submission.parquet"
        return Refusal(rule=rule, value=_what_happened(ended), cure=cure)
    if problem := score_file(file, ids=ids, rules=competition(build.config.competition)):
        rule = "submission.parquet must be exactly id and answer: int64 in range, every id once"
        return Refusal(rule=rule, value=problem, cure=cure)
    fallbacks = sum(bool(line["fallback"]) for line in journal)
    if fallbacks > FALLBACKS_MAX * len(ids):
        reasons = {str(line["why"]) for line in journal if line["fallback"]}
        rule = f"the model must answer at least {1 - FALLBACKS_MAX:.0%} of the questions itself"
        value = f"{fallbacks} of {len(ids)} without an answer ({'; '.join(sorted(reasons)[:2])})"
        return Refusal(rule=rule, value=value, cure=cure)
    return None


def _what_happened(ended: Ended) -> str:
    if ended.timed_out:
        return "no end: it was broken off at its time limit"
    result = ended.folder / "gateway" / RESULT
    if result.is_file():
        found = json.loads(result.read_text(encoding="utf-8"))
        if not found["Succeeded"]:
            # Of a traceback the last line; what the notebook itself printed tells the cause.
            details = str(found.get("ErrorDetails") or "").strip()
            last = details.splitlines()[-1] if details.startswith("Traceback") else " ".join(details.split())
            parts = [found["ErrorName"], last[:200], _last_error(ended)]
            return " · ".join(dict.fromkeys(part for part in parts if part))
    return f"notebook ended with {ended.notebook_code}: {_last_error(ended) or 'no error was printed'}"


def _last_error(ended: Ended) -> str:
    log = ended.folder / NOTEBOOK_LOG
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    errors = [line for line in lines if "Error" in line and not line.startswith(" ")]
    return errors[-1][:200] if errors else ""


def write_report(
    build: Build, rehearsals: Sequence[Rehearsed], problems: Sequence[Problem], *, file: Path, **more: object
) -> dict[str, object]:
    """Writes and returns what preflight reads: figures of each run, hashes of what was rehearsed, the two-run score."""
    golds = {p.id: int(p.gold) for p in problems if p.gold.lstrip("-").isdigit()}
    report: dict[str, object] = {
        "schema": 1,
        "written": time.time(),
        "competition": build.config.competition,
        "hashes": build.hashes(),
        "runs": [rehearsed.figures() for rehearsed in rehearsals],
        "outcome": "refused" if any(rehearsed.refusal for rehearsed in rehearsals) else "valid",
        "penalised_score": penalised_score([rehearsed.answers for rehearsed in rehearsals], golds=golds),
        "problems": len(problems),
        **more,
    }
    write_json(file, report)
    return report


def canary(problems: Sequence[Problem], *, count: int) -> list[Problem]:
    """The first problems whose gold is an integer above 0: the usual fallback is 0, and so are Kaggle's placeholders.

    Raises:
        UserError: there are fewer.
    """
    fit = [problem for problem in problems if problem.gold.isdigit() and int(problem.gold) > 0]
    if len(fit) < count:
        raise UserError(
            "a rehearsal needs problems whose answers are integers above 0",
            value=f"{len(fit)} of {count}",
            cure="name another file with --problems, or ask fewer with --questions",
        )
    return fit[:count]
