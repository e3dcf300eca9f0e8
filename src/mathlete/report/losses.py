"""Why samples and problems were lost, and what the organiser's scorer gives, read from what there is: an evaluation's
folder, or a submission's journal."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from mathlete.answers import compare, read_integer
from mathlete.competitions import Competition
from mathlete.errors import UserError
from mathlete.kernel import JOURNAL, JournalLine, read_journal
from mathlete.losses import Cause, Losses, ProblemLosses, find_answer_cause
from mathlete.organiser import BothJudged, Grade, ScorerResult, judge_both, organisers_gold
from mathlete.scoring import EvalRun
from mathlete.text import counted

_OUTPUTS = ("", "stage/notebook", "notebook")
"""Where a folder may have the notebook's output: itself, below a rehearsal's folder, below its stage."""


@dataclass(frozen=True, kw_only=True)
class LostRun:
    """A run's problems by why they were lost."""

    path: Path
    rows: Sequence[ProblemLosses]
    notes: Sequence[str]
    """What the counts leave out, in sentences."""
    scorer: ScorerResult | None = None
    """What the scorer of the competition gives; None where none was named."""

    @property
    def losses(self) -> Losses:
        """Return all problems together."""
        return Losses.of(self.rows)

    @classmethod
    def of_journal(
        cls, path: Path, lines: Sequence[JournalLine], *, golds: Mapping[str, str], rules: Competition | None
    ) -> Self:
        """Return why the questions of a journal's lines were lost; the arguments are those of `read_losses`."""
        rows = [_lost_question(line, gold=golds.get(line.id), rules=rules) for line in lines]
        without = sum(line.id not in golds for line in lines)
        old = sum(line.lost is None for line in lines)
        notes = [f"{path}: no gold is known of {without} of {len(lines)} questions (--golds FILE)"] if without else []
        if old:
            notes.append(f"{path}: no cause of empty samples, of an earlier version: {counted(old, 'question')}")
        scorer = _judge_journal(lines, golds=golds, rules=rules) if rules and not rules.scorer.reads_text else None
        return cls(path=path, rows=rows, notes=notes, scorer=scorer)


def read_losses(path: Path, *, golds: Mapping[str, str], rules: Competition | None = None) -> LostRun:
    """Read why the problems of a run or of a journal were lost.

    Args:
        path: an evaluation's folder; or a journal, the notebook's log, or a folder that holds a journal.
        golds: {problem id: gold} for a journal, which has none.
        rules: the competition whose range answers must keep to; a journal says what was in range, unless it is old.

    Raises:
        UserError: it is none of these.
    """
    journal = _find_journal(path)
    if journal is not None:
        return _read_journal_losses(path, journal, golds=golds, rules=rules)
    run = EvalRun.read(path)
    rows = run.find_losses(rules=rules)
    missing = len(run.graded) - len(rows)
    notes = [f"{path} is unfinished, and left out without samples: {counted(missing, 'problem')}"] if missing else []
    scorer = None
    if rules:
        try:
            scorer = run.judge_by(rules)
        except UserError as error:  # it would read what the recording lacks: the classes can still be told
            notes.append(str(error))
    return LostRun(path=path, rows=rows, notes=notes, scorer=scorer)


def _find_journal(path: Path) -> Path | None:
    """Return the journal that a path names; None where it may be an evaluation's folder."""
    if path.is_file():
        return path
    files = (path / below / JOURNAL for below in _OUTPUTS)
    return next((file for file in files if file.is_file()), None)


def _read_journal_losses(path: Path, journal: Path, *, golds: Mapping[str, str], rules: Competition | None) -> LostRun:
    lines = read_journal(journal)
    if not lines:
        raise UserError(
            "a journal has a line a question",
            value=f"none in {journal}",
            cure="give the journal.jsonl or the log that the notebook wrote",
        )
    return LostRun.of_journal(path, lines, golds=golds, rules=rules)


def _judge_journal(lines: Sequence[JournalLine], *, golds: Mapping[str, str], rules: Competition) -> ScorerResult:
    """Return what the scorer gives for the answers sent, beside what the checker says of those with most votes."""
    known = [(line, organisers_gold(golds[line.id], rules=rules)) for line in lines if line.id in golds]
    return ScorerResult.of(
        [_judge_line(line, gold=gold, rules=rules) for line, gold in known if gold is not None],
        rules=rules,
        left_out=[line.id for line, gold in known if gold is None],
    )


def _judge_line(line: JournalLine, *, gold: str, rules: Competition) -> BothJudged:
    voted = line.votes[0][0] if line.votes else None
    own: Grade = "none" if voted is None else compare(answer=voted, gold=gold).outcome
    if voted is not None and len(voted) >= JournalLine.VOTE_CHARACTERS:
        own = "unknown"  # it may have had more
    return judge_both(str(line.answer), gold=gold, rules=rules, problem_id=line.id, answer=voted, own=own)


def _lost_question(line: JournalLine, *, gold: str | None, rules: Competition | None) -> ProblemLosses:
    """Put a question's samples into classes by what its line says of them."""
    wanted = None if gold is None else read_integer(gold, competition=rules)
    won = None if gold is None else line.answer == wanted
    # A new line counts what could not be right by itself; an old one shows it in its votes, as far as it has them.
    causes = Counter[Cause](line.lost or {})
    sends = line.sends or [read_integer(answer, competition=rules) for answer, _ in line.votes]
    for (answer, count), sent in zip(line.votes, sends, strict=True):
        if sent is not None:
            right: Cause = "won" if won else "outvoted"
            causes["unknown" if gold is None else right if sent == wanted else "no_right_answer"] += count
        elif line.lost is None:
            causes[find_answer_cause(answer, integer=True, rules=rules) or "unknown"] += count
    # Rare answers beyond those that are written down; in an old journal also the samples without an answer.
    listed = line.answered if line.lost is not None else line.samples
    causes["unknown"] += max(0, listed - sum(count for _, count in line.votes))
    return ProblemLosses.of(line.id, won=won, samples=causes)
