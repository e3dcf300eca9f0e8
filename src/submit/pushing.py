"""`submit preflight`, `push`, `submit` and `ledger`: what leaves this machine, and what came of it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from mathlete.command import busy, console
from mathlete.delivery import (
    Asking,
    Kaggle,
    Ledger,
    Waiting,
    check_before_push,
    plan_push,
    push_build,
    submit_version,
    wait_for_score,
)
from mathlete.delivery.adapter import check_adapter_before_push, plan_adapter, submit_adapter
from mathlete.errors import UserError
from mathlete.locks import hold
from mathlete.rehearsal import Thresholds
from mathlete.submission import Build, Check, Hashes
from mathlete.submission.adapter import AdapterBuild
from submit.adapters import load_build, with_rules_of_today
from submit.building import find_chosen_rules
from submit.settings import WORK, RunFolder

if TYPE_CHECKING:
    from mathlete.tables import FittingTable


@dataclass(frozen=True, kw_only=True)
class PreflightSettings:
    """What must hold before a push."""

    limits: Thresholds = field(default_factory=Thresholds)
    released: str = ""
    """Day the base model was released, YYYY-MM-DD; default: as the build says, or known by the model's name."""
    recording: tuple[Path, ...] = ()
    """Runs of `python -m eval` whose samples' lengths are laid against the clock at the speed of the run on Kaggle;
    default: those of the last push."""
    run: RunFolder = WORK
    """The build's folder."""
    json: bool = False
    """End with one line of JSON on stdout."""


def preflight_command(settings: PreflightSettings) -> dict[str, object]:
    """Check the build and its rehearsal; raise UserError where it must not be pushed."""
    with busy("hashes and checks"):
        return _check_build(load_build(settings.run), settings)


def _check_build(build: Build | AdapterBuild, settings: "PreflightSettings | PushSettings") -> dict[str, object]:
    settings.limits.check()
    say = partial(console(json=settings.json).print, markup=False)
    if isinstance(build, AdapterBuild):
        build = with_rules_of_today(build, say=say)
        preflight = check_adapter_before_push(build, folder=settings.run, thresholds=settings.limits)
        _print_checks(preflight.checks, json=settings.json)
        return {"go": True, "checks": len(preflight.checks), "id": preflight.hashes.id}
    preflight = check_before_push(
        build,
        folder=settings.run,
        thresholds=settings.limits,
        released=settings.released,
        recordings=settings.recording,
        rules=find_chosen_rules(build, settings.run, say=say),
    )
    clock = preflight.clock
    unknown = ["speed on Kaggle: not known before these weights have run there, which a push has them do"]
    _print_checks(preflight.checks, speed=[*clock.describe()] if clock else unknown, json=settings.json)
    run = clock.to_json() if clock else None
    return {"go": True, "checks": len(preflight.checks), "id": preflight.hashes.id, "run": run}


def _print_checks(checks: Sequence[Check], *, json: bool, speed: Sequence[str] = ()) -> None:
    """Print each check and what it found, and the lines about the speed on Kaggle; raise the first refusal."""
    out, refusals = console(json=json), [refusal for check in checks for refusal in check.refusals]
    for check in checks:
        out.print(f"{'NO' if check.refusals else 'ok':<4}{check.what}", markup=False)
        for refusal in check.refusals:
            # The first is the error that ends the command, and is told there.
            if refusal is not refusals[0]:
                out.print(f"    {refusal.rule}, got {refusal.value}. Fix: {refusal.cure}", markup=False)
    for line in speed:
        out.print(line, markup=False)
    if refusals:
        raise refusals[0].error()


@dataclass(frozen=True, kw_only=True)
class PushSettings:
    """What to push."""

    yes: bool = False
    """Push; without it nothing is sent and nobody is asked."""
    again: bool = False
    """Save another version, though one of this very build is saved: it costs a second GPU session."""
    limits: Thresholds = field(default_factory=Thresholds)
    released: str = ""
    """Day the base model was released, YYYY-MM-DD; default: as the build says, or known by the model's name."""
    recording: tuple[Path, ...] = ()
    """Runs of `python -m eval` whose samples' lengths are laid against the clock at the speed of the run on Kaggle;
    default: those of the last push."""
    waiting: Waiting = field(default_factory=Waiting)
    run: RunFolder = WORK
    """The build's folder."""
    json: bool = False
    """End with one line of JSON on stdout."""


def push_command(settings: PushSettings) -> dict[str, object]:
    """Upload wheels and model, pushes the notebook, waits for its run and check its output."""
    out = console(json=settings.json)
    settings.waiting.check()
    folder = settings.run
    build = load_build(folder)
    with busy("hashes and checks"):
        checked = _check_build(build, settings)
    if isinstance(build, AdapterBuild):
        steps = plan_adapter(build, folder=folder)
        for step in steps:
            out.print(step, markup=False)
        out.print("nothing was sent: an adapter is uploaded when it is submitted")
        return {**checked, "pushed": False, "plan": steps}
    steps = plan_push(build, folder=folder, again=settings.again)
    for step in steps:
        out.print(step, markup=False)
    if not settings.yes:
        out.print("dry run: nothing was sent; push with --yes")
        return {**checked, "pushed": False, "plan": steps}
    asking = Asking(waiting=settings.waiting, say=partial(out.print, markup=False))
    with hold(folder), busy("uploads, then the notebook's run on Kaggle"):
        saved = push_build(
            build,
            _connect(asking),
            folder=folder,
            asking=asking,
            again=settings.again,
            recordings=settings.recording,
        )
    again = "" if folder == WORK else f" --run {folder}"
    out.print(f"pushed as version {saved.version}; it is not submitted yet: python -m submit submit --yes{again}")
    event = Ledger(folder).run(build.hashes(), shape=build.machine)
    return {**checked, "pushed": True, "version": saved.version, "url": saved.url, "run": event and event.run}


def _connect(asking: Asking) -> Kaggle:
    answer_max_s = asking.waiting.answer_max_s
    return asking.once(lambda: Kaggle(answer_max_s=answer_max_s), rule="Kaggle must let you in")


@dataclass(frozen=True, kw_only=True)
class SubmitSettings:
    """What to submit."""

    yes: Annotated[bool, tyro.conf.arg(aliases=["--confirm"])] = False
    """Submit; without it nothing is sent. Kaggle counts submissions: `submit rules` says how many a day."""
    message: str = "mathlete"
    """The submission's description on Kaggle."""
    wait: bool = False
    """Wait for the public score and write it into the ledger."""
    again: bool = False
    """Submit, though this version has a submission already: Kaggle counts both."""
    limits: Thresholds = field(default_factory=Thresholds)
    """Of an adapter, which is checked before it is uploaded."""
    waiting: Waiting = field(default_factory=Waiting)
    run: RunFolder = WORK
    """The build's folder."""
    json: bool = False
    """End with one line of JSON on stdout."""


def submit_command(settings: SubmitSettings) -> dict[str, object]:
    """Submit the pushed version of this very build."""
    out = console(json=settings.json)
    settings.waiting.check()
    build, ledger = load_build(settings.run), Ledger(settings.run)
    hashes = build.hashes()
    if isinstance(build, AdapterBuild):
        return _submit_adapter(build, settings)
    versions = ledger.versions(hashes)
    if not versions:
        rule = "what is submitted must have been pushed, this very build"
        raise UserError(rule, value=f"{hashes.id} was not", cure="run `python -m submit push --yes`")
    rules, version = build.config.competition, versions[-1]
    line = {"id": hashes.id, "version": version, "competition": rules.slug}
    if rules.submissions_a_day is not None:
        out.print(f"{rules.name} takes {rules.submissions_a_day} a day")
    if not settings.yes:
        out.print(f"would submit version {version} of {build.names.kernel_id}; submit with --yes")
        return {**line, "submitted": False}
    asking = Asking(waiting=settings.waiting, say=partial(out.print, markup=False))
    with hold(settings.run):
        kaggle = _connect(asking)
        number = submit_version(
            build,
            kaggle,
            hashes=hashes,
            version=version,
            message=settings.message,
            ledger=ledger,
            asking=asking,
            again=settings.again,
        )
    return {**line, **_tell_submission(number, kaggle, hashes, settings, asking=asking)}


def _submit_adapter(build: AdapterBuild, settings: SubmitSettings) -> dict[str, object]:
    """Check the zip as `preflight` does, upload and submit it."""
    out, hashes = console(json=settings.json), build.hashes()
    settings.limits.check()
    build = with_rules_of_today(build, say=partial(out.print, markup=False))
    rules = build.competition
    with busy("hashes and checks"):
        preflight = check_adapter_before_push(build, folder=settings.run, thresholds=settings.limits)
    _print_checks(preflight.checks, json=settings.json)
    line = {"id": hashes.id, "competition": rules.slug}
    if rules.submissions_a_day is not None:
        out.print(f"{rules.name} takes {rules.submissions_a_day} a day")
    if not settings.yes:
        out.print(f"would upload and submit {build.zip}; submit with --yes", markup=False)
        return {**line, "submitted": False}
    asking = Asking(waiting=settings.waiting, say=partial(out.print, markup=False))
    with hold(settings.run), busy("upload"):
        kaggle = _connect(asking)
        number = submit_adapter(
            build,
            kaggle,
            hashes=preflight.hashes,
            message=settings.message,
            ledger=Ledger(settings.run),
            asking=asking,
            again=settings.again,
        )
    return {**line, **_tell_submission(number, kaggle, hashes, settings, asking=asking)}


def _tell_submission(
    number: int, kaggle: Kaggle, hashes: Hashes, settings: SubmitSettings, *, asking: Asking
) -> dict[str, object]:
    """Print the submission's number and, with --wait, its score, which goes into the ledger; return both."""
    out = console(json=settings.json)
    out.print(f"submitted: number {number}")
    if not settings.wait:
        return {"submitted": True, "number": number}
    score = wait_for_score(kaggle, number, asking=asking)
    Ledger(settings.run).append("score", hashes, number=number, score=score)
    out.print(f"public score {score:g}")
    return {"submitted": True, "number": number, "score": score}


@dataclass(frozen=True, kw_only=True)
class LedgerSettings:
    """The ledger."""

    id: str | None = None
    """A submission, by its id, to write a score for."""
    score: float | None = None
    """Its public score, where `submit submit --wait` did not wait for it."""
    run: RunFolder = WORK
    """The folder of the ledger."""
    json: bool = False
    """End with one line of JSON on stdout."""


def ledger_command(settings: LedgerSettings) -> dict[str, object]:
    """Print a table of all submissions: rehearsed, predicted, pushed, scored."""
    ledger = Ledger(settings.run)
    if settings.score is not None or settings.id is not None:
        _write_score(ledger, settings)
    entries = [asdict(entry) for entry in ledger.entries()]
    console(json=settings.json).print(ledger_table(entries) if entries else f"no submission yet: {ledger.file}")
    return {"ledger": str(ledger.file), "submissions": entries}


def ledger_table(entries: Sequence[Mapping[str, str]]) -> "FittingTable":
    """Return a line for each submission."""
    from mathlete.tables import FittingTable

    names = ("id", "built", "rehearsal", "predicted", "version", "score")
    table = FittingTable("submissions", columns=names, left=names[:4])
    for entry in entries:
        table.add_row(*entry.values())
    return table


def _write_score(ledger: Ledger, settings: LedgerSettings) -> None:
    known = {event.id: Hashes(**event.hashes) for event in ledger.events()}
    if settings.id not in known or settings.score is None:
        raise UserError(
            "a score needs --score and the --id of a submission in the ledger",
            value=f"--id {settings.id} --score {settings.score}",
            cure=f"known: {', '.join(known) or 'none'}",
        )
    ledger.append("score", known[settings.id], score=settings.score)
