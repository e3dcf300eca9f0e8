"""`submit rehearse`: what tries a submission, on the versions of Kaggle's image."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from mathlete.command import busy, console
from mathlete.competitions import Competition, describe_changes
from mathlete.corpus import load_suite
from mathlete.delivery import Ledger
from mathlete.errors import UserError, require
from mathlete.locks import hold
from mathlete.models import find_model
from mathlete.organiser import list_golds
from mathlete.problems import Problem
from mathlete.rehearsal import RehearsalSettings, choose_canaries, fetch_image, rehearse, write_report
from mathlete.settings import flatten
from mathlete.submission import Build
from mathlete.submission.adapter import AdapterBuild
from submit.adapters import AdapterServing, load_build, rehearse_adapter_command, require_gates
from submit.building import find_chosen_rules
from submit.matrix import list_faults, run_faults
from submit.mounting import require_vllm_here, require_weights_here
from submit.settings import VLLM_CPU, WORK, RunFolder
from submit.watching import rehearsal_bar

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, kw_only=True)
class QuestionSettings:
    """What the notebook is asked."""

    order: Literal["file", "shuffled", "hard-first"] = "shuffled"
    """Order of the questions."""
    questions: int | None = None
    """Questions in a run; default: as many as the competition asks."""
    problems: str | None = None
    """A suite, or a file of problems (.jsonl, .json, .csv, .parquet); default: the pocket suite's."""


@dataclass(frozen=True, kw_only=True)
class GatewaySettings:
    """Who asks the notebook."""

    behaviour: Literal["0.3.0", "0.7.0", "0.9.0", "1.4.0", "1.7.0"] | None = None
    """Version of kaggle_evaluation that the gateway behaves as; default: the competition's."""
    real_package: Path | None = None
    """Folder of your competition download that holds kaggle_evaluation."""

    @property
    def chosen(self) -> str | Path | None:
        """The one that is named, as it was named."""
        return self.behaviour or self.real_package

    def check(self) -> None:
        """Raise UserError where both are named."""
        alone = self.behaviour is None or self.real_package is None
        rule = "left out beside --real-package, which behaves as it does"
        require(("behaviour", self.behaviour, alone, rule), cure="leave it out")


@dataclass(frozen=True, kw_only=True)
class InputSettings:
    """What is mounted, and what stands for it on this machine."""

    layout: Literal["old", "new"] = "new"
    """Mount layout of /kaggle/input: before 2026, or since."""
    stand_in: Literal["pocket"] | None = None
    """The model that is mounted in the build's place: proves the wiring where the build's own is slow."""
    mounts: dict[str, Path] = field(default_factory=dict)
    """Folders here of what kernel-metadata.json mounts beside the build's own: SOURCE DIR for each."""
    image: str = "runs/image"
    """Folder of the image's versions of what the notebook imports, filled where it is not; none: this machine's."""
    vllm: str = str(VLLM_CPU)
    """Folder of vLLM's CPU build, where vLLM is the engine; none: as if its wheels were not there."""
    adapter: AdapterServing = field(default_factory=AdapterServing)


@dataclass(frozen=True, kw_only=True)
class RehearseSettings:
    """How to rehearse the build."""

    speed: float | None = None
    """What every limit is divided by, 1 to 100; default: by what the engine (for vLLM the embedded one) draws here."""
    clock: Literal["real", "virtual"] | None = None
    """real is --speed 1, virtual --speed 100."""
    fallbacks_max: float = 0.5
    """Share of questions without an answer of the model above which a run is refused."""
    commit: bool = False
    """The commit run alone: KAGGLE_IS_COMPETITION_RERUN unset, the placeholder questions."""
    fault: str | None = None
    """Inject a fault by name; `list` names them, `all` runs them all."""
    runs: int | None = None
    """Reruns after the commit run; default: as often as the competition runs its private set."""
    run: RunFolder = WORK
    """The build's folder; the report goes there."""
    json: bool = False
    """End with one line of JSON on stdout."""
    asked: Annotated[QuestionSettings, tyro.conf.arg(name="")] = field(default_factory=QuestionSettings)
    gateway: Annotated[GatewaySettings, tyro.conf.arg(name="")] = field(default_factory=GatewaySettings)
    inputs: Annotated[InputSettings, tyro.conf.arg(name="")] = field(default_factory=InputSettings)

    def check_fault(self) -> None:
        """Raise UserError where a flag is given beside --fault that a rehearsal with a fault does not read."""
        usual, read = flatten(RehearseSettings()), ("fault", "layout", "behaviour", "problems", "run", "json")
        if idle := [f"{name} {own}" for name, own in flatten(self).items() if own != usual[name] and name not in read]:
            rule = "beside --fault only --layout, --behaviour, --problems, --run and --json are read"
            raise UserError(rule, value=", ".join(idle), cure="leave it out")

    def check(self) -> None:
        """Raise UserError where a value is out of its range."""
        questions = self.asked.questions
        require(
            ("questions", questions, questions is None or questions >= 1, "at least 1"),
            ("runs", self.runs, self.runs is None or self.runs >= 1, "at least 1"),
            ("speed", self.speed, self.speed is None or 1 <= self.speed <= 100, "1 to 100"),
            ("clock", self.clock, self.clock is None or self.speed is None, "left out beside --speed"),
            ("fallbacks-max", self.fallbacks_max, 0 <= self.fallbacks_max <= 1, "0 to 1"),
            cure="leave it out",
        )
        self.gateway.check()


def rehearse_command(settings: RehearseSettings) -> dict[str, object]:
    """Rehearse the build; raise UserError where it must not be pushed."""
    settings.check()
    out = console(json=settings.json)
    say = partial(out.print, markup=False)
    suite = load_suite(settings.asked.problems or "pocket_val")
    if suite.origin:
        out.print(suite.origin, markup=False)
    if settings.fault is not None:
        settings.check_fault()
        if settings.fault == "list":
            return list_faults(say, version=settings.gateway.behaviour)
        how = RehearsalSettings(layout=settings.inputs.layout, behaviour=settings.gateway.behaviour)
        return run_faults(settings.fault, folder=settings.run, problems=suite.problems, settings=how, say=say)
    build = load_build(settings.run)
    require_gates(build)
    if isinstance(build, AdapterBuild):
        return rehearse_adapter_command(build, suite.problems, settings, RehearseSettings())
    with busy("the build's model and notebook"):
        # What the engine would refuse is known in a second, and with a stand-in the rehearsal would not show it.
        build.check_serving()
        build.read_notebook()  # before the image is downloaded for one that is none
        if settings.inputs.stand_in is None:
            require_weights_here(build)
    require_vllm_here(build, settings.inputs.vllm)
    rules = build.config.competition
    if changes := describe_changes(rules, find_chosen_rules(build, settings.run, say=say)):
        say(f"preflight will not take this rehearsal, the rules have changed since the build: {changes}")
    if rules.notebook.gateway.api == "iterator" and (chosen := settings.gateway.chosen):
        rule = f"{rules.name} has no gateway, so none can be chosen: its questions come from an iterator"
        raise UserError(rule, value=str(chosen), cure="leave --behaviour and --real-package out")
    problems = choose_canaries(suite.problems, count=settings.asked.questions or rules.problems, rules=rules)
    with hold(settings.run):
        return rehearse_build(build, problems, settings, out=out)


def rehearse_build(
    build: Build, problems: Sequence[Problem], settings: RehearseSettings, *, out: "Console"
) -> dict[str, object]:
    """Rehearse the build as often as it will run, and write the report and the ledger's line."""
    how, packages = prepare_rehearsal(settings)
    if stamp := build.restamp():
        out.print(f"{build.notebook} was edited by hand: the hash in it is now {stamp}")
    rules, hashes = build.config.competition, build.hashes()
    how = choose_pace(build, problems, settings, how, out=out)
    runs, golds = [], list_golds(problems, rules=rules)

    def keep(aside: Path) -> None:
        out.print(f"the earlier rehearsal is kept: {aside}", markup=False)

    for number, run_how in enumerate(plan_runs(settings, how, rules=rules)):
        name, folder = f"run {number}" if run_how.rerun else "commit run", settings.run / f"rehearsal-{number}"
        with rehearsal_bar(name, golds=golds, total=len(run_how.ids(problems, rules=rules))) as show:
            runs.append(rehearse(build, problems, run_how, folder=folder, watch=show, on_aside=keep))
        for line in runs[-1].describe(name, golds=golds, rules=rules):
            out.print(line, markup=False)
        if runs[-1].refusal:
            break
    report = write_report(build, runs, problems, how, image=packages, hashes=hashes, folder=settings.run)
    # A commit run answers placeholders: its score predicts nothing.
    if not settings.commit:
        Ledger(settings.run).append(
            "rehearsal",
            hashes,
            outcome=report.outcome,
            score=report.penalised_score,
            problems=len(problems),
            asked=rules.problems,
            wrong=rules.scorer.wrong or None,
        )
    if refusal := runs[-1].refusal:
        raise refusal.error()
    score = f"{report.penalised_score:g} of {len(problems)}"
    reruns = f"score of {len(runs) - 1} reruns by the rules of {rules.name}: {score}"
    reruns = "the commit run alone, which preflight does not take" if settings.commit else reruns
    out.print(f"{reruns} · {settings.run / report.file_name}")
    if how.skips_vllm(build):
        out.print("without vLLM, of which this rehearsal says nothing: the embedded engine answered in its place")
    return report.to_json()


def choose_pace(
    build: Build, problems: Sequence[Problem], settings: RehearseSettings, how: RehearsalSettings, *, out: "Console"
) -> RehearsalSettings:
    """Return how to rehearse, at the speed asked for or at one at which this machine keeps up, which is said."""
    fixed = {"real": 1.0, "virtual": 100.0}.get(settings.clock or "", settings.speed)
    if fixed is not None:
        return replace(how, speed=fixed)
    rules = build.config.competition
    asked = sum(len(run.ids(problems, rules=rules)) for run in plan_runs(settings, how, rules=rules))
    with busy("how fast the engine draws here"):
        paced, why = how.fit_speed(build, problems, asked=asked)
    out.print(f"speed {why}", markup=False)
    return paced


def plan_runs(settings: RehearseSettings, how: RehearsalSettings, *, rules: Competition) -> Iterator[RehearsalSettings]:
    """Yield how each run is rehearsed: the commit run, without which Kaggle takes no submission, then the reruns."""
    yield replace(how, rerun=False)
    # The commit run has no private set, so there is nothing to run twice.
    for seed in range(0 if settings.commit else settings.runs or rules.runs):
        # Another seed is another order of the questions, as in Kaggle's runs.
        yield replace(how, rerun=True, seed=seed)


def prepare_rehearsal(settings: RehearseSettings) -> tuple[RehearsalSettings, Sequence[str]]:
    """Fetch the image's packages; return how to rehearse, and those packages, NAME==VERSION each."""
    inputs = settings.inputs
    with busy("the image's packages"):
        image = None if inputs.image == "none" else fetch_image(Path(inputs.image))
    how = RehearsalSettings(
        layout=inputs.layout,
        order=settings.asked.order,
        fallbacks_max=settings.fallbacks_max,
        stand_in=find_model(inputs.stand_in).folder if inputs.stand_in else None,
        rerun=not settings.commit,
        behaviour=settings.gateway.behaviour,
        real_package=settings.gateway.real_package,
        mounts=inputs.mounts,
        python=image.python if image else None,
        vllm=None if inputs.vllm == "none" else Path(inputs.vllm),
    )
    return how, image.packages if image else ()
