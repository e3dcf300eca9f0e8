"""`submit answer`: a table of questions in, a table of ids and answers out, through the one solve loop."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mathlete.command import Command, busy, console, note_on_stop
from mathlete.competitions import Competition
from mathlete.drawing import LOST, SAMPLES, SPENT, DrawingPlan, Watching, draw_samples
from mathlete.folders import require_result_file
from mathlete.foreign_flags import DRAWING_FLAGS
from mathlete.gates import GateOutcome, require_passed
from mathlete.problems import Problem
from mathlete.runs import Leftovers, run_step, write_atomically, write_json
from mathlete.sampling import Sample
from mathlete.sampling.served import ServerSettings
from mathlete.solve import BudgetSettings
from submit.answer_settings import LEADING_FLAGS, AnswerSettings, answer_defaults, require_table

if TYPE_CHECKING:
    from mathlete.answer_sheet import Sheet, SheetLog
    from mathlete.corpus import Questions
    from mathlete.organiser import Grade

ANSWERS, SUBMISSION, SUMMARY = "answers.jsonl", "submission.csv", "summary.json"
"""Files of the run's folder: a line for each question that is answered, the table that is handed in, counts."""


@dataclass
class AnswerTally:
    """What the bar says: questions answered so far, and how many of them by no answer of the model."""

    log: "SheetLog"
    questions: int
    samples: int = 0
    new_tokens: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, sample: Sample) -> None:
        """Count one sample."""
        with self._lock:
            self.samples += 1
            self.new_tokens += sample.tokens

    def describe(self) -> str:
        """Return the counts as text."""
        lost = f", {len(self.log.lost)} of them without an answer" if self.log.lost else ""
        return f"{len(self.log.lines)} of {self.questions} questions done{lost}"


def answer_command(settings: AnswerSettings) -> dict[str, object]:
    """Answer the questions, or go on where a killed run stopped; print what was answered, and return it."""
    settings.check()
    out = console(json=settings.json)
    say, rules = partial(out.print, markup=False), settings.rules
    if rules:
        require_table(rules)
    questions = settings.read()
    # What cannot be scored is told before hours of answering.
    golds = [one for one in settings.read(golds=True).problems if one.gold] if settings.score else []
    columns = rules.submission_columns if rules else (questions.id_column, "answer")
    with busy("loading the libraries"):
        from mathlete.answer_sheet import SheetLine, SheetLog, write_row, write_sheet

    if settings.out:
        require_result_file(settings.out, inputs=[settings.file], begins=write_row(columns).strip().encode().lower())
    plan, gates = make_plan(settings, questions, say=say)
    unfit = find_unfit(plan, say=say)
    ids = [problem.id for problem in questions.problems]

    def build(folder: Path) -> dict[str, object]:
        log = SheetLog(folder / ANSWERS, ids=ids)
        if log.lines:
            say(f"going on: {len(log.lines)} of {len(ids)} questions are done")
        for name in [name for name in unfit if name not in log.lines]:
            log.append(SheetLine.without_answer(name, why=unfit[name], rules=rules))
        draw_answers(folder, plan, log, rules=rules, say=say)
        write_sheet(folder / SUBMISSION, log.sheet.lines, columns=columns)
        write_json(folder / SUMMARY, log.sheet.to_json())
        return log.sheet.to_json()

    step = run_step(
        "answer",
        folder=settings.folder,
        inputs={"model": source} if (source := plan.engine.source.folder) else {},
        settings={
            **describe_plan(plan, settings.file),
            "columns": [*columns],
            "rules": rules and rules.to_json(),
            **gates.to_json(),
        },
        build=build,
        leftovers=Leftovers(
            overwrite=settings.overwrite,
            # Who was refused by a server before anything came may change what was refused.
            extends=lambda old, new: old["step"] == "answer" and is_blank(settings.folder),
            writes=(ANSWERS, SAMPLES, SPENT, LOST, SUBMISSION, SUMMARY),
        ),
    )
    sheet = SheetLog(step.folder / ANSWERS, ids=ids).sheet
    for line in sheet.describe(rules=rules):
        say(line)
    scored = score_answers(sheet, golds, rules=rules, say=say) if settings.score else {}
    written = hand_in(step.folder / SUBMISSION, settings.out)
    say(f"{'nothing changed, skipped: ' if step.skipped else ''}{written}")
    if too_many := len(sheet.fallbacks) > settings.fallbacks_max * sheet.questions:
        say(f"more than {settings.fallbacks_max:.0%} of the questions have no answer of the model (--fallbacks-max)")
    return {"run": str(step.folder), "out": str(written), **step.figures, **scored, "passed": not too_many}


def is_blank(folder: Path) -> bool:
    """Return whether a run has drawn and answered nothing yet."""
    return not any(file.stat().st_size for name in (ANSWERS, SAMPLES) if (file := folder / name).is_file())


def make_plan(
    settings: AnswerSettings, questions: "Questions", *, say: Callable[[str], None]
) -> tuple[DrawingPlan, GateOutcome]:
    """Return (what is drawn, what the gates of the model's training said), and say what was chosen."""
    policy = settings.to_policy()
    engine, reason = settings.to_model(say=say).choose(max_tokens=policy.longest_tokens)
    if policy.harvest:
        engine.require_continuing()
    source = engine.source.folder
    gates = require_passed(source, reason=settings.accept_refused) if source else GateOutcome()
    budget = settings.to_budget(questions=len(questions.problems))
    plan = DrawingPlan(problems=questions.problems, engine=engine, policy=policy, budget=budget)
    drawn = f"{policy.n} samples of at most {policy.sampling.max_tokens:,} tokens, policy {settings.solving.policy}"
    for line in (
        reason,
        drawn,
        questions.note,
        describe_rules(settings.rules, budget),
        *plan.check_model(all_fit=False),
    ):
        say(line)
    return plan, gates


def find_unfit(plan: DrawingPlan, *, say: Callable[[str], None]) -> dict[str, str]:
    """Return {id: why} of the questions that are too long for the model, and say it: they must not stop the others.

    Raises:
        UserError: all are too long.
    """
    unfit = plan.find_unfit()
    for error in unfit.values():
        if len(unfit) == len(plan.problems):
            raise error
        say(f"not asked: {error.rule}, got {error.value}")
    return {name: f"its prompt has {error.value}, too many for the model" for name, error in unfit.items()}


def describe_plan(plan: DrawingPlan, file: Path) -> dict[str, object]:
    """Return what the answers depend on: a run goes on with the same alone."""
    from mathlete.problems import hash_problems

    drawn = plan.settings(suite=file.name, suite_sha=hash_problems(plan.problems)).to_json()
    name, digest = drawn.pop("suite"), drawn.pop("suite_sha")
    served = {"server_model": plan.engine.of(ServerSettings).model} if plan.engine.name == "openai" else {}
    return {"file": name, "questions_sha": digest, **drawn, **served}


def hand_in(sheet: Path, out: Path | None) -> Path:
    """Write the table to the file that was asked for, if there is one; return where it is."""
    if out is None:
        return sheet
    write_atomically(out, sheet.read_text(encoding="utf-8"))
    return out


def draw_answers(
    folder: Path, plan: DrawingPlan, log: "SheetLog", *, rules: Competition | None, say: Callable[[str], None]
) -> None:
    """Answer the questions of which the log has no line."""
    from mathlete.answer_sheet import SheetLine
    from submit.refused import RefusedQuestions

    refused = RefusedQuestions(log, say=say)
    total, done = len(plan.problems), frozenset(log.lines)
    if len(done) == total:
        return

    def count(recorded: Sequence[Sample]) -> AnswerTally:
        tally = AnswerTally(log, questions=total)
        for sample in recorded:
            tally.add(sample)
        tally.new_tokens = 0
        return tally

    watching = Watching(
        title="answer",
        count=count,
        on_solution=lambda solution: refused.add(SheetLine.of(solution, rules=rules)),
        on_refused=refused.note,
        say=say,
    )
    with note_on_stop(lambda: [f"{folder / ANSWERS}, {len(log.lines)} of {total} questions"]):
        draw_samples(folder, plan, watching, solved=done)
        refused.finish()


def describe_rules(rules: Competition | None, budget: BudgetSettings | None) -> str:
    """Return what may be handed in, what a question without an answer gets, and the clock, in a line."""
    from mathlete.organiser import fallback_of

    clock = "no clock"
    if budget:
        clock = f"{budget.wall_s:,.0f} s for all questions, {budget.floor_s:,.0f} to {budget.ceiling_s:,.0f} s for each"
    if rules is None:
        return f"no competition: answers are handed in as the model writes them, or an empty cell; {clock}"
    taken = f"integers from {rules.answer_min} to {rules.answer_max}" if rules.integers else f"{rules.answer_type}s"
    cell = fallback_of(rules)
    own = "" if rules.deliverable == "csv" else f"; it takes a {rules.deliverable}, so this table is for your own use"
    day = (
        f"; that the model was released before {rules.released_before} is yours to check"
        if rules.released_before
        else ""
    )
    return f"rules of {rules.name}: {taken}, without an answer {cell or 'an empty cell'}; {clock}{own}{day}"


def score_answers(
    sheet: "Sheet", problems: Sequence[Problem], *, rules: Competition | None, say: Callable[[str], None]
) -> Mapping[str, object]:
    """Say how many answers are right of the problems with golds, by the competition's scorer and mathlete's checker."""
    from mathlete.answers import compare
    from mathlete.organiser import ScorerResult, judge_both, list_golds

    golds = {problem.id: problem.gold for problem in problems}
    known = [line for line in sheet.lines if line.id in golds]
    # The model's answer, be it one that may be handed in or not.
    voted = {line.id: line.votes[0][0] if line.votes else None for line in known}
    verdicts: dict[str, Grade] = {
        name: "none" if answer is None else compare(answer=answer, gold=golds[name]).outcome
        for name, answer in voted.items()
    }
    right = [*verdicts.values()].count("equal")
    counts = {"scored": len(known), "right": right}
    if rules is None:
        say(f"{right} of {len(known)} right, where the file has the right answer")
        return counts
    taken = list_golds(problems, rules=rules)
    judged = [
        judge_both(
            line.answer or None,
            gold=taken[line.id],
            rules=rules,
            problem_id=line.id,
            answer=voted[line.id],
            own=verdicts[line.id],
        )
        for line in known
        if line.id in taken
    ]
    left_out = [line.id for line in known if line.id not in taken]
    result = ScorerResult(competition=rules.name, judged=judged, left_out=left_out)
    for words in result.describe():
        say(words)
    return {**counts, "scorer": result.to_summary()}


ANSWER_COMMAND = Command(
    settings=AnswerSettings,
    run=answer_command,
    leading_flags=LEADING_FLAGS,
    foreign_flags=DRAWING_FLAGS,
    defaults=answer_defaults,
    fails=lambda result: result.get("passed") is False,
    help="Answers a table of questions, id and problem, and writes a table of ids and answers; goes on after a kill."
    "\n\nExamples:\n\npython -m submit answer questions.csv --model r1-qwen-7b\n\n"
    "python -m submit answer test.csv --competition cup.toml --out submission.csv\n\n"
    "python -m submit answer test.csv --engine openai --servers.api chat --servers.urls https://HOST/v1",
)
