"""A recorded evaluation run, read back from its folder: its problems, samples, votes and grades, finished or not."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from mathlete.competitions import Competition
from mathlete.errors import UserError
from mathlete.jsonl import pause_collection
from mathlete.losses import Losses, ProblemLosses
from mathlete.organiser import ScorerResult, organisers_gold
from mathlete.problems import Problem
from mathlete.sampling import Sample
from mathlete.scoring.facts import is_whole
from mathlete.scoring.grading import Graded, grade_one
from mathlete.scoring.inspect_log import write_inspect_log
from mathlete.scoring.known import CHECKER, checker_sha256, find_grades, is_own_checker
from mathlete.scoring.pool import Pool, Recorded, read_recording, verify_recording
from mathlete.scoring.results import RESULTS, ProblemResult, Results, classify_problem
from mathlete.solve import Ended, Policy, Solution


@dataclass(frozen=True, kw_only=True)
class EvalRun:
    """One evaluation run."""

    name: str
    folder: Path
    graded: list[Graded]
    """In the suite's order."""
    results: Results
    """From results.json; scored from the samples, and without facts, where the run never came to its end."""
    manifest: dict[str, Any]
    """Empty where the run is unfinished."""

    @classmethod
    @pause_collection()
    def read(cls, folder: Path) -> Self:
        """Read the run in a folder with problems.jsonl and samples.jsonl, and results.json where it is finished.

        Raises:
            UserError: there is no such folder, its files are not those of a run, or one of a finished run has changed.
        """
        manifest = verify_recording(folder)
        problems, samples = read_recording(folder)
        finished = Results.read(folder) if (folder / RESULTS).is_file() else None
        of_problem: defaultdict[str, list[Sample]] = defaultdict(list)
        for sample in samples:
            of_problem[sample.problem_id].append(sample)
        rows = {row.id: row for row in finished.per_problem} if finished else {}
        # An unfinished run does not say how it votes: its votes are counted as a majority.
        policy = finished.facts.settings.policy if finished and finished.facts else Policy()
        is_known = is_own_checker(manifest)
        # Each problem is graded right behind its vote: among thousands the checker forgets what it has read.
        graded = [_grade(one, of_problem[one.id], rows.get(one.id), policy, is_known=is_known) for one in problems]
        return cls(
            name=folder.resolve().name,
            folder=folder,
            graded=graded,
            results=finished or Results.of(graded, None),
            manifest=manifest,
        )

    @staticmethod
    def name_checker() -> dict[str, str]:
        """Return what the figures of a manifest say of the checker that grades a run now."""
        return {CHECKER: checker_sha256()}

    @property
    def is_own_graded(self) -> bool:
        """Whether this checker graded the finished run, and all of it: results.json says what it would say now."""
        verdicts = (vote.verdict for row in self.results.per_problem for vote in row.votes)
        return is_own_checker(self.manifest) and "unknown" not in verdicts

    @property
    def missing(self) -> tuple[str, ...]:
        """What the log does not say that the run was imported from."""
        return self.results.facts.missing if self.results.facts else ()

    @property
    def pool(self) -> Pool:
        """Its problems that have samples, as the paired comparison takes them."""
        recorded = [_read_recorded(item) for item in self.graded if item.solution.samples]
        facts = self.results.facts
        told = facts.engine_facts.get("whole") if facts else None
        every = [sample for item in self.graded for sample in item.solution.voting]
        whole = is_whole(self.results.ended, facts.settings if facts else None, every, told=told)
        return Pool(name=self.name, problems=recorded, whole=whole, missing=frozenset(self.missing))

    @property
    def losses(self) -> Losses:
        """Return why problems and samples were lost, as results.json says; counted anew where it does not."""
        return self.results.losses or Losses.of(self.find_losses())

    def find_losses(self, *, rules: Competition | None = None) -> list[ProblemLosses]:
        """Return why each problem and its samples were lost; of an unfinished run, the problems that have samples.

        `rules` is the competition whose range the answers must keep to, if there is one.
        """
        facts = self.results.facts
        items = self.graded if facts else [item for item in self.graded if item.verdicts]
        return [classify_problem(item, facts, rules=rules) for item in items]

    @property
    def scorer(self) -> ScorerResult | None:
        """What a competition's scorer gave for the run, as far as one was asked."""
        return ScorerResult.read(self.folder)

    def judge_by(self, rules: Competition) -> ScorerResult:
        """Return what the competition's scorer gives for the answers, or for the samples whose text it reads.

        Raises:
            UserError: it reads the samples' texts, and the recording has kept none.
        """
        if rules.scorer.reads_text and "text" in self.missing:
            raise UserError(
                f"the scorer of {rules.name} reads the model's text, so the recording must have kept it",
                value=f"a recording without texts, {self.folder}",
                cure="evaluate the model anew, or import its logs with their texts",
            )
        items = self.graded if self.manifest else [item for item in self.graded if item.verdicts]
        return ScorerResult.of(
            [one for item in items for one in item.judge_by(rules)],
            rules=rules,
            left_out=[one.problem.id for one in items if organisers_gold(one.problem.gold, rules=rules) is None],
        )

    @property
    def allowances_s(self) -> list[float] | None:
        """Seconds that the shared clock allowed each question; None for a run without one."""
        facts = self.results.facts
        if facts is None or (budget := facts.settings.budget) is None:
            return None
        # The budget's rule once more, with the recorded seconds in place of a clock: an allowance depends only on what
        # is left and on how many questions are still to come.
        allowances, left = [], budget.wall_s - budget.reserve_s
        for served, item in enumerate(self.graded):
            to_come = budget.to_come(served=served)
            allowances.append(budget.allowance_s(max(0.0, left), to_come=to_come))
            left -= item.solution.seconds
        return allowances

    def write_inspect_log(self, out: Path) -> Path:
        """Write the run as an eval log of Inspect, NAME.eval or NAME.json; returns its path.

        Raises:
            UserError: inspect_ai is not installed, the run is unfinished, or the name is not that of a log.
        """
        facts, scores = self.results.facts, self.results.scores
        if not self.manifest or facts is None:
            raise UserError("a log needs a finished run", value=str(self.folder), cure="run the evaluation to its end")
        return write_inspect_log(out, graded=self.graded, scores=scores, facts=facts, manifest=self.manifest)


def _grade(
    problem: Problem, samples: Sequence[Sample], row: ProblemResult | None, policy: Policy, *, is_known: bool
) -> Graded:
    """Return a problem's solution and grades; where `is_known`, its results were graded by this checker."""
    grades = find_grades(problem, samples, row) if is_known else None
    # Files of earlier versions do not say it. A stop, where there was one, is the likelier reason then.
    ended: Ended = (row and row.ended) or ("all" if policy.stop == "none" else "rule")
    votes = policy.count_votes(samples, settings=problem.answers, settled=ended == "rule", spelled=grades is not None)
    voted = votes[0].answer if votes else None
    solution = Solution(
        problem_id=problem.id,
        # The model's own judgements may have chosen another answer than the vote.
        answer=row.answer if row else voted,
        votes=votes,
        samples=sorted((one for one in samples if one.finish != "clock"), key=lambda sample: sample.index),
        unfinished=sorted((one for one in samples if one.finish == "clock"), key=lambda sample: sample.index),
        seconds=row.seconds if row else max((sample.seconds for sample in samples), default=0.0),
        ended=ended,
    )
    return grade_one(problem, solution, grades)


def _read_recorded(item: Graded) -> Recorded:
    labels = [-1 if label is None else label for label in item.labels]
    return Recorded(problem=item.problem, samples=item.solution.samples, labels=labels, verdicts=list(item.verdicts))
