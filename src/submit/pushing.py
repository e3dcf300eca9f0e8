"""`submit preflight`, `push`, `submit` and `ledger`: what leaves this machine, and what came of it."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro

from mathlete.command import busy, console
from mathlete.competitions import competition
from mathlete.errors import UserError
from mathlete.submission.build import Build, load_build
from mathlete.submission.ledger import LEDGER, append, events, submission_id, table
from mathlete.submission.preflight import Limits, preflight
from mathlete.submission.push import Waiting, plan, push
from mathlete.submission.scorer import SUBMISSION
from submit.settings import WORK, RunFolder


@dataclass(frozen=True, kw_only=True)
class PreflightSettings:
    """What must hold before a push."""

    limits: Limits = field(default_factory=Limits)
    released: str = ""
    """Day the base model was released, YYYY-MM-DD; default: known by the model's name."""
    run: RunFolder = WORK
    """The build's folder."""
    json: bool = False
    """End with one line of JSON on stdout."""


def preflight_command(settings: PreflightSettings) -> dict[str, object]:
    """Checks the build and its rehearsal; raises UserError where it must not be pushed."""
    with busy("hashes and checks"):
        return _checked(load_build(settings.run), settings)


def _checked(build: Build, settings: "PreflightSettings | PushSettings") -> dict[str, object]:
    out = console(json=settings.json)
    checks = preflight(build, folder=settings.run, limits=settings.limits, released=settings.released)
    for what, problems in checks:
        out.print(f"{'ok' if not problems else 'NO':<4}{what}", markup=False)
        for problem in problems:
            out.print(f"    {problem.rule}, got {problem.value}. Fix: {problem.cure}", markup=False)
    wrong = [problem for _, problems in checks for problem in problems]
    if wrong:
        raise wrong[0].error()
    return {"go": True, "checks": len(checks), "id": submission_id(build.hashes())}


@dataclass(frozen=True, kw_only=True)
class PushSettings:
    """What to push."""

    yes: bool = False
    """Push; without it nothing is sent and nobody is asked."""
    limits: Limits = field(default_factory=Limits)
    released: str = ""
    """Day the base model was released, YYYY-MM-DD; default: known by the model's name."""
    waiting: Waiting = field(default_factory=Waiting)
    run: RunFolder = WORK
    """The build's folder."""
    json: bool = False
    """End with one line of JSON on stdout."""


def push_command(settings: PushSettings) -> dict[str, object]:
    """Uploads wheels and model, pushes the notebook, waits for its run and checks its output."""
    from mathlete.submission.kaggle_client import Kaggle

    out = console(json=settings.json)
    settings.waiting.check()
    folder = settings.run
    build = load_build(folder)
    checked = _checked(build, settings)
    steps = plan(build, folder=folder)
    for step in steps:
        out.print(step, markup=False)
    if not settings.yes:
        out.print("dry run: nothing was sent; push with --yes")
        return {**checked, "pushed": False, "plan": steps}
    with busy("uploads, then the notebook's run on Kaggle"):
        saved = push(build, Kaggle(), folder=folder, waiting=settings.waiting, say=partial(out.print, markup=False))
    name = append(folder / LEDGER, "push", build.hashes(), version=saved.version, url=saved.url)
    out.print(f"pushed as version {saved.version}; it is not submitted yet: python -m submit submit --yes")
    return {**checked, "id": name, "pushed": True, "version": saved.version, "url": saved.url}


@dataclass(frozen=True, kw_only=True)
class SubmitSettings:
    """What to submit."""

    yes: Annotated[bool, tyro.conf.arg(aliases=["--confirm"])] = False
    """Submit; without it nothing is sent. Kaggle counts submissions: one a day in AIMO-3."""
    message: str = "mathlete"
    """The submission's description on Kaggle."""
    wait: bool = False
    """Wait for the public score and write it into the ledger."""
    waiting: Waiting = field(default_factory=Waiting)
    run: RunFolder = WORK
    """The build's folder."""
    json: bool = False
    """End with one line of JSON on stdout."""


def submit_command(settings: SubmitSettings) -> dict[str, object]:
    """Submits the pushed version of this very build."""
    from mathlete.submission.kaggle_client import Kaggle

    out = console(json=settings.json)
    settings.waiting.check()
    build, ledger = load_build(settings.run), settings.run / LEDGER
    hashes = build.hashes()
    name = submission_id(hashes)
    versions = [event["version"] for event in events(ledger) if event["kind"] == "push" and event["id"] == name]
    if not versions:
        rule = "what is submitted must have been pushed, this very build"
        raise UserError(rule, value=f"{name} was not", cure="run `python -m submit push --yes`")
    line = {"id": name, "version": versions[-1], "competition": competition(build.config.competition).slug}
    if not settings.yes:
        out.print(f"would submit version {versions[-1]} of {build.names.kernel_id}; submit with --yes")
        return {**line, "submitted": False}
    kaggle = Kaggle()
    number = kaggle.submit(
        build.names,
        competition_slug=str(line["competition"]),
        version=int(versions[-1]),
        file_name=SUBMISSION,
        message=settings.message,
    )
    append(ledger, "submission", hashes, version=versions[-1], number=number)
    out.print(f"submitted: number {number}")
    if not settings.wait:
        return {**line, "submitted": True, "number": number}
    scores: list[float] = []
    rule = f"submission {number} must get its score"
    settings.waiting.until(
        lambda: _keep_score(kaggle.score(number), scores), limit_s=settings.waiting.run_max_s, rule=rule
    )
    append(ledger, "score", hashes, number=number, score=scores[0])
    out.print(f"public score {scores[0]:g}")
    return {**line, "submitted": True, "number": number, "score": scores[0]}


def _keep_score(score: float | None, scores: list[float]) -> bool:
    """Appends a score that is there; returns whether it is."""
    if score is not None:
        scores.append(score)
    return score is not None


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
    """Tables all submissions: rehearsed, predicted, pushed, scored."""
    from rich.table import Table

    file = settings.run / LEDGER
    if settings.score is not None or settings.id is not None:
        _write_score(file, settings)
    rows = table(file)
    columns = ("id", "built", "rehearsal", "predicted", "version", "score")
    shown = Table(*columns)
    for row in rows:
        shown.add_row(*(str(getattr(row, column)) for column in columns))
    out = console(json=settings.json)
    out.print(shown)
    return {"ledger": str(file), "submissions": [{column: getattr(row, column) for column in columns} for row in rows]}


def _write_score(file: Path, settings: LedgerSettings) -> None:
    known: dict[str, Any] = {event["id"]: event["hashes"] for event in events(file)}
    if settings.id not in known or settings.score is None:
        raise UserError(
            "a score needs --score and the --id of a submission in the ledger",
            value=f"--id {settings.id} --score {settings.score}",
            cure=f"known: {', '.join(known) or 'none'}",
        )
    append(file, "score", known[settings.id], score=settings.score)
