"""The verdict on a rehearsal: a strict scorer reads what the gateway wrote, and the model must have answered."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mathlete.competitions import Competition
from mathlete.errors import UserError
from mathlete.kernel import JOURNAL, SUBMISSION, JournalLine, read_facts, read_journal
from mathlete.organiser import list_golds
from mathlete.problems import Problem
from mathlete.rehearsal.containers import GATEWAY_LOG, NOTEBOOK_LOG, Ended, Isolation
from mathlete.rehearsal.draft import RehearsalSettings, has_gateway
from mathlete.rehearsal.gateway.behaviours import RESULT
from mathlete.rehearsal.scorer import answers_in, score_file
from mathlete.submission import Build, Refusal
from mathlete.text import counted

if TYPE_CHECKING:
    from mathlete.report import LostRun

_OUT_OF_TIME = "the clock"
"""How the journal begins to say that a question had no time."""
Outcome = Literal["valid", "refused"]


@dataclass(frozen=True, kw_only=True)
class RunFigures:
    """The figures of one run of a rehearsal, for its report."""

    outcome: Outcome = "valid"
    refusal: str | None
    questions: int
    right: int
    fallbacks: int
    """Questions without an answer of the model."""
    samples: int
    empty: int
    """Samples without any text."""
    tokens_per_s: float | None
    """None where the model never ran."""
    seconds: float = 0.0
    """Real seconds of the whole run."""
    isolation: Isolation = "namespaces"
    commit: bool = False
    """Whether it was the commit run, which asks the placeholder questions."""
    out_of_time: int = 0
    """Of the fallbacks those for which this machine had no time at the rehearsal's speed."""
    left: tuple[str, ...] = ()
    """The engines that did not come up or died, each with its cause: the next one of the ladder answered."""

    def in_words(self) -> str:
        """Return the figures on one line."""
        shown = ("outcome", "right", "questions", "fallbacks", "empty", "tokens_per_s", "seconds")
        return " · ".join(f"{name} {getattr(self, name)}" for name in shown)


@dataclass(frozen=True, kw_only=True)
class Rehearsed:
    """The outcome of one run of a rehearsal."""

    refusal: Refusal | None
    """Why the notebook must not be pushed; None where it may."""
    answers: dict[str, int]
    """{problem id: answer sent}; empty where it was refused."""
    right: int
    journal: list[JournalLine]
    seconds: float
    contention: float
    """By what factor the virtual clock was slowed."""
    ended: Ended
    changes: tuple[str, ...] = ()
    """In words, how the notebook that ran differs from the one in kaggle/."""
    commit: bool = False
    """Whether it was the commit run."""

    @property
    def outcome(self) -> Outcome:
        """valid: the notebook may be pushed; refused: it must not."""
        return "refused" if self.refusal else "valid"

    @property
    def why(self) -> str:
        """Why it was refused, or what went wrong on the way to a valid end, by the journal."""
        if self.refusal:
            return f"{self.refusal.rule}: {self.refusal.value}"
        return "; ".join(dict.fromkeys(line.why for line in self.journal if line.why))

    def describe(self, name: str, *, golds: Mapping[str, str], rules: Competition) -> Iterator[str]:
        """Yield what to print of the run; of a commit run, which is the first, also what it ran on.

        Args:
            name: what the run is called.
            golds: {problem id: gold}.
            rules: the competition, by whose scorer the answers are judged.
        """
        if self.commit:
            yield f"isolation: {self.ended.isolation}"
            yield from (f"beside the notebook in kaggle/: {change.strip()}" for change in self.changes)
        yield f"{name}: {self.figures().in_words()}"
        yield from (f"{name}: left {left}" for left in self.left)
        if self.journal and not self.commit:
            lost = self.explain(golds=golds, rules=rules)
            yield lost.losses.describe()
            yield from (f"{name}: {line}" for line in (lost.scorer.describe() if lost.scorer else ()))

    def explain(self, *, golds: Mapping[str, str], rules: Competition) -> "LostRun":
        """Return why questions were lost, and of a run that was not refused what the competition's scorer gives."""
        from mathlete.report import LostRun

        lost = LostRun.of_journal(self.ended.folder.parent, self.journal, golds=golds, rules=rules)
        return replace(lost, scorer=None) if self.refusal else lost

    @property
    def left(self) -> tuple[str, ...]:
        """The engines that were left for the next, each with its cause, by the journal or else the log."""
        folder = self.ended.folder
        facts = read_facts(folder / "notebook" / JOURNAL).left or read_facts(folder / NOTEBOOK_LOG).left
        return tuple(f"{fact.get('step')} after {fact.get('seconds')} s: {fact.get('cause')}" for fact in facts)

    def figures(self) -> RunFigures:
        """Return the run's figures for the report."""
        solving_s = sum(line.seconds - line.load_s for line in self.journal)
        tokens = sum(line.tokens for line in self.journal)
        return RunFigures(
            outcome=self.outcome,
            refusal=str(self.refusal.error()) if self.refusal else None,
            questions=len(self.journal),
            right=self.right,
            fallbacks=sum(line.fallback for line in self.journal),
            samples=sum(line.samples for line in self.journal),
            empty=sum(line.empty for line in self.journal),
            tokens_per_s=round(tokens / solving_s, 1) if solving_s > 0 else None,
            seconds=round(self.seconds, 1),
            isolation=self.ended.isolation,
            commit=self.commit,
            out_of_time=count_out_of_time(self.journal),
            left=self.left,
        )


def count_out_of_time(journal: Sequence[JournalLine]) -> int:
    """Return how many questions got no answer because no time was left to draw one."""
    return sum(line.fallback and line.why.startswith(_OUT_OF_TIME) for line in journal)


def judge(
    build: Build,
    problems: Sequence[Problem],
    settings: RehearsalSettings,
    ended: Ended,
    *,
    seconds: float,
    contention: float,
) -> Rehearsed:
    """Score what the containers wrote, and refuse what would score nothing.

    Args:
        build: what was rehearsed.
        problems: the questions, with their golds.
        settings: how it was rehearsed.
        ended: the folders and exit codes of both containers.
        seconds: how long they ran.
        contention: by what factor the virtual clock was slowed.
    """
    notebook = ended.folder / "notebook"
    file = (ended.folder / "gateway" if has_gateway(build, settings) else notebook) / SUBMISSION
    journal = read_journal(notebook / JOURNAL)
    if has_gateway(build, settings) or ended.notebook_code == 0:
        ids = settings.ids(problems, rules=build.config.competition)
        refusal = _refuse_file(build, ended, file, ids) or _refuse_fallbacks(
            journal, settings, asked=len(ids), speed=settings.speed_at(contention), folder=ended.folder
        )
    else:
        # Whatever it wrote: Kaggle takes no output of a notebook that ends with an error.
        rule, cure = "a notebook that asks itself must end without an error", "mend the cell that raises"
        refusal = Refusal(rule=rule, value=_describe_failure(ended), cure=f"{cure}: {ended.folder / NOTEBOOK_LOG}")
    answers = answers_in(file) if refusal is None else {}
    rules = build.config.competition
    golds = list_golds(problems, rules=rules)
    right = sum(rules.scorer.judge(str(answers[name]), gold=golds[name]).right for name in answers.keys() & golds)
    return Rehearsed(
        refusal=refusal,
        answers=answers,
        right=right,
        journal=journal,
        seconds=seconds,
        contention=contention,
        ended=ended,
        commit=not settings.rerun,
    )


def _refuse_file(build: Build, ended: Ended, file: Path, ids: Sequence[str]) -> Refusal | None:
    cure = f"read {ended.folder / NOTEBOOK_LOG}, mend the cause and build again"
    if not file.is_file():
        rule = "a rehearsal must end with the gateway's submission.parquet"
        return Refusal(rule=rule, value=_describe_failure(ended), cure=cure)
    rules = build.config.competition
    if fault := score_file(file, ids=ids, rules=rules):
        columns = " and ".join(rules.submission_columns)
        rule = f"submission.parquet must be exactly {columns}: int64 in range, every id once"
        return Refusal(rule=rule, value=fault, cure=cure)
    return None


def _refuse_fallbacks(
    journal: Sequence[JournalLine], settings: RehearsalSettings, *, asked: int, speed: float, folder: Path
) -> Refusal | None:
    """Return why too few questions were answered: this machine had no time for them, or the model no answer."""
    fallbacks, late = sum(line.fallback for line in journal), count_out_of_time(journal)
    allowed = settings.fallbacks_max * asked
    if fallbacks <= allowed:
        return None
    log = folder / NOTEBOOK_LOG
    if fallbacks - late <= allowed:
        slower = f"rehearse with --speed {max(1.0, speed / 4):.2g}, or" if speed > 1 else f"read {log}, or"
        return Refusal(
            rule="a question must be drawn in its time on this machine, which says nothing of the model",
            value=f"{late} of {asked} ran out of time at ÷{speed:.3g}",
            cure=f"{slower} prove the wiring with --stand-in pocket; Kaggle's own run shows the speed there",
        )
    reasons = {line.why for line in journal if line.fallback}
    return Refusal(
        rule=f"the model must answer at least {1 - settings.fallbacks_max:.0%} of the questions itself",
        value=f"{fallbacks} of {asked} without an answer ({'; '.join(sorted(reasons)[:2])})",
        cure=f"read {log}, mend the cause and build again, or allow more with --fallbacks-max",
    )


def _describe_failure(ended: Ended) -> str:
    if ended.timed_out:
        return "no end: it was broken off at its time limit"
    result = ended.folder / "gateway" / RESULT
    if result.is_file():
        report = json.loads(result.read_text(encoding="utf-8"))
        if not report["Succeeded"]:
            # The gateway's traceback shows the gateway; what the notebook printed last shows the cause.
            details = str(report.get("ErrorDetails") or "").strip()
            last = details.splitlines()[-1] if details.startswith("Traceback") else " ".join(details.split())
            parts = [report["ErrorName"], last[:200], _last_error(ended)]
            return " · ".join(dict.fromkeys(part for part in parts if part))
    elif ended.gateway_code and (error := _last_error(ended, log=GATEWAY_LOG)):
        return f"the gateway ended before it asked anything: {error}"
    return f"notebook ended with {ended.notebook_code}: {_last_error(ended) or 'no error was printed'}"


def _last_error(ended: Ended, *, log: str = NOTEBOOK_LOG) -> str:
    file = ended.folder / log
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
    errors = [line for line in lines if "Error" in line and not line.startswith(" ")]
    return errors[-1][:200] if errors else ""


def check_output(folder: Path, build: Build) -> str:
    """Judge the output of the notebook's own run on Kaggle, with its three placeholder questions; return it in words.

    Raises:
        UserError: there is no submission file, it is unfit, or no answer in it is the model's.
    """
    again = f"read the log in {folder}, mend the cause, build and rehearse again"
    file, journal = folder / SUBMISSION, folder / JOURNAL
    for needed in (file, journal):
        if not needed.is_file():
            raise UserError(f"the notebook must write {needed.name}", value=f"none in {folder}", cure=again)
    # The log has every line of the journal, also one that a full disk cost.
    stamps = [read_facts(file).build for file in (journal, folder / f"{build.names.kernel}.log")]
    if build.stamp not in stamps:
        rule = f"the output must be of this build, {build.stamp or 'whose notebook carries no hash'}"
        value = next(filter(None, stamps), "an output without a hash")
        raise UserError(rule, value=value, cure="push this build again, or build and rehearse again")
    lines = read_journal(journal)
    rules = build.config.competition
    if fault := score_file(file, ids=[line.id for line in lines], rules=rules):
        columns = " and ".join(rules.submission_columns)
        raise UserError(f"{file.name} must be exactly {columns}, int64 in range", value=fault, cure=again)
    fallbacks = sum(line.fallback for line in lines)
    if fallbacks == len(lines):
        whys = "; ".join(dict.fromkeys(line.why for line in lines))
        rule = "the model must answer on Kaggle: a file of fallbacks is valid and scores nothing"
        raise UserError(rule, value=whys[:300], cure=again)
    return f"Kaggle's run: {counted(len(lines), 'question')}, {counted(fallbacks, 'fallback')}, output in {folder}"
