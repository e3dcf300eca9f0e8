"""Results: the scores of a run as a whole, by group, by subset and by problem; results.json is their only file."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from mathlete.competitions import Competition
from mathlete.errors import UserError
from mathlete.finish_order import FinishOrder, finish_order
from mathlete.jsonl import pause_collection
from mathlete.losses import Losses, ProblemLosses
from mathlete.metrics import (
    INFORMATIVE,
    Bin,
    Interval,
    calibration,
    calibration_error,
)
from mathlete.organiser import Grade
from mathlete.runs import read_json, write_json
from mathlete.scoring.facts import RunFacts
from mathlete.scoring.grading import Graded, finish_times
from mathlete.scoring.harness import HARNESS, harness_results
from mathlete.scoring.harvested import HarvestScores
from mathlete.scoring.scores import Counts, Scores, split_scores
from mathlete.solve import Ended
from mathlete.text import agree, counted

if TYPE_CHECKING:
    from rich.table import Table

RESULTS = "results.json"
_FEW = 30
"""Problems below which the score alone says little."""


def classify_problem(item: Graded, facts: RunFacts | None, *, rules: Competition | None = None) -> ProblemLosses:
    """Return why a problem of a run with these facts was lost; `rules` as in `Graded.find_losses`."""
    if facts is None:
        return item.find_losses(rules=rules)
    asked, told = facts.samples_asked(item.solution.ended), "finish" not in facts.missing
    return item.find_losses(n=asked, rules=rules, tells_finish=told)


@dataclass(frozen=True, kw_only=True)
class VoteResult:
    """One class of equal answers of a problem."""

    answer: str
    count: int
    """Samples that gave it by themselves."""
    verdict: Grade
    harvested: int = 0
    """Samples that were made to give it after they were cut."""

    def to_json(self) -> dict[str, object]:
        """Return the class in results.json; forced answers only where there are any."""
        return {name: value for name, value in vars(self).items() if name != "harvested" or value}


@dataclass(frozen=True, kw_only=True)
class ProblemResult:
    """One problem's part of the results."""

    id: str
    subset: str
    gold: str
    answer: str | None
    verdict: Grade
    """Grade of the answer."""
    pass_at_1: float
    counts: Counts
    votes: list[VoteResult]
    """Winner first."""
    judgements: dict[str, int] | None
    """How often the model itself preferred each candidate; None where it was not asked."""
    seconds: float
    ended: Ended | None = None
    """Why it ended; None in a file of a version that did not say so, as is the next."""
    losses: ProblemLosses | None = None
    """Why it and its samples were lost."""

    @classmethod
    def of(cls, item: Graded, facts: RunFacts | None) -> Self:
        """Return the result of a graded problem in a run of these facts; None of one that has not come to its end."""
        return cls(
            id=item.problem.id,
            subset=item.problem.subset,
            gold=item.problem.gold,
            answer=item.solution.answer,
            verdict=item.verdict,
            pass_at_1=item.pass_at(1),
            counts=Counts.of([item]),
            votes=[
                VoteResult(
                    answer=vote.answer, count=vote.count, verdict=item.judge_class(label), harvested=len(vote.harvested)
                )
                for label, vote in enumerate(item.solution.votes)
            ],
            judgements=item.solution.selection.judgements if item.solution.selection else None,
            seconds=round(item.solution.seconds, 3),
            ended=item.solution.ended,
            losses=classify_problem(item, facts),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the problem's row in results.json; judgements only where there were any to make."""
        return {
            "id": self.id,
            "subset": self.subset,
            "gold": self.gold,
            "answer": self.answer,
            "verdict": self.verdict,
            "pass_at_1": self.pass_at_1,
            **asdict(self.counts),
            "votes": [vote.to_json() for vote in self.votes],
            **({} if self.judgements is None else {"judgements": self.judgements}),
            "seconds": self.seconds,
            **({} if self.ended is None else {"ended": self.ended}),
            **({} if self.losses is None else {"cause": self.losses.cause, "causes": self.losses.samples}),
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Return the problem's result in a row of results.json."""
        plain = ("id", "subset", "gold", "answer", "verdict", "pass_at_1", "seconds")
        return cls(
            **{name: row[name] for name in plain},
            counts=Counts.from_json(row),
            votes=[VoteResult(**vote) for vote in row["votes"]],
            judgements=row.get("judgements"),
            ended=row.get("ended"),
            losses=ProblemLosses(id=row["id"], cause=row["cause"], samples=row["causes"]) if "cause" in row else None,
        )


@dataclass(frozen=True, kw_only=True)
class Results:
    """The content of results.json."""

    facts: RunFacts | None
    """None for a run that has not come to its end: only its samples are known."""
    scores: Scores
    """Of all problems."""
    ended: dict[str, int]
    """Problems by why they ended: all samples in, stopping rule, time."""
    calibration: list[Bin]
    """How often votes are right, by the share of the samples they won with."""
    calibration_error: float
    finish_order: FinishOrder | None
    """Share of pairs in which a right sample came before a wrong one of its problem; None where there are none."""
    groups: dict[str, Scores]
    """Scores by the first part of the problems' subsets."""
    subsets: dict[str, Scores]
    per_problem: list[ProblemResult]
    losses: Losses | None = None
    """Why problems and samples were lost; None in a file of a version that did not count it."""
    harvest: HarvestScores | None = None
    """Answers that samples were made to give; None where the policy asks for none."""

    @classmethod
    @pause_collection()
    def of(cls, graded: Sequence[Graded], facts: RunFacts | None) -> Self:
        """Return the scores of a run."""
        votes = [(item.vote_share, item.verdict == "equal") for item in graded]
        per_problem = [ProblemResult.of(item, facts) for item in graded]
        policy = facts and facts.settings.policy
        return cls(
            facts=facts,
            scores=Scores.of(graded),
            ended=dict(sorted(Counter(item.solution.ended for item in graded).items())),
            calibration=calibration(votes),
            calibration_error=calibration_error(votes),
            # Without the samples' seconds nobody knows which finished first.
            finish_order=None
            if facts and "seconds" in facts.missing
            else finish_order([finish_times(item.solution.samples, item.verdicts) for item in graded]),
            groups=split_scores(graded, lambda item: item.group),
            subsets=split_scores(graded, lambda item: item.problem.subset),
            per_problem=per_problem,
            losses=Losses.of(row.losses for row in per_problem if row.losses and (facts or row.counts.samples)),
            harvest=HarvestScores.of(graded, policy) if policy and policy.harvest else None,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the content of results.json: first the facts, then the scores."""
        return {
            **(self.facts.to_json() if self.facts else {}),
            **self.scores.to_json(),
            **({} if self.harvest is None else {"harvest": self.harvest.to_json()}),
            "ended": self.ended,
            "calibration": [asdict(item) for item in self.calibration],
            "calibration_error": self.calibration_error,
            "finish_order": self.finish_order and self.finish_order.to_json(),
            "groups": {name: part.to_json() for name, part in self.groups.items()},
            "subsets": {name: part.to_json() for name, part in self.subsets.items()},
            **({} if self.losses is None else {"losses": self.losses.to_json()}),
            "per_problem": [problem.to_json() for problem in self.per_problem],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Return the results in the content of results.json.

        Raises:
            KeyError, ValueError, TypeError: it lacks something that `python -m eval` writes.
        """
        forced = content.get("harvest")
        return cls(
            facts=RunFacts.from_json(content),
            scores=Scores.from_json(content),
            ended=content["ended"],
            calibration=[Bin(**item) for item in content["calibration"]],
            calibration_error=content["calibration_error"],
            finish_order=FinishOrder(**content["finish_order"]) if content["finish_order"] else None,
            groups={name: Scores.from_json(part) for name, part in content["groups"].items()},
            subsets={name: Scores.from_json(part) for name, part in content["subsets"].items()},
            per_problem=[ProblemResult.from_json(row) for row in content["per_problem"]],
            losses=Losses.from_json(content["losses"]) if "losses" in content else None,
            harvest=HarvestScores(**{**forced, "gain": Interval(**forced["gain"])}) if forced else None,
        )

    def write(self, folder: Path, *, began: float) -> None:
        """Write results.json, and the same scores in the shape of lm-evaluation-harness.

        Args:
            folder: the run's folder.
            began: when the evaluation began, seconds since 1970.
        """
        content = self.to_json()
        write_json(folder / RESULTS, content)
        write_json(folder / HARNESS, harness_results(content, began=began))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return the results of a finished run.

        Raises:
            UserError: there is no results.json, or not one of `python -m eval`.
        """
        content = read_json(folder / RESULTS)
        try:
            return cls.from_json(content)
        except (KeyError, ValueError, TypeError) as error:
            raise UserError(
                f"{folder / RESULTS} must be as `python -m eval` writes it",
                value=f"{type(error).__name__}: {error}",
                cure="run the evaluation again with that --run, which keeps its samples",
            ) from error

    def to_table(self) -> "Table":
        """Return the scores for the terminal: of all problems, by group and by subset."""
        from mathlete.tables import FittingTable

        facts, k = self.facts, self.scores.k
        run = f"{facts.settings.suite} · {facts.model} ({facts.settings.precision}) · " if facts else ""
        table = FittingTable(
            f"{run}{counted(self.scores.problems, 'problem')}",
            columns=("", "n", "pass@1 ± se", f"maj@{k} [95%]", f"pass@{k}", "none", "unk."),
        )
        # One group, or one subset, is all problems again; a subset without a slash is its group again.
        groups = {name: part for name, part in self.groups.items() if name and len(self.groups) > 1}
        subsets = {name: part for name, part in self.subsets.items() if name not in groups and len(self.subsets) > 1}
        for parts in ({"all": self.scores}, groups, subsets):
            for name, part in parts.items():
                cells = (str(part.problems), *part.format(k), str(part.counts.unanswered), str(part.counts.unknown))
                table.add_row(name, *cells)
            table.add_section()
        return table

    def describe(self) -> str:
        """Return what the scores rest on, in a sentence, which says so where they mean nothing."""
        known = self.facts and "max_tokens" not in self.facts.missing
        cap = f" at {self.facts.settings.policy.sampling.max_tokens} tokens" if self.facts and known else ""
        words = describe_scores(self.scores, cap=cap, stopped=self.ended.get("rule", 0))
        if self.facts and (tries := self.facts.engine_facts.get("lost_tries")):
            never = self.facts.engine_facts.get("lost_samples")
            words += f" {agree(tries, '1 try was', f'{tries} tries were')} lost by the engine (lost.jsonl); "
            again = agree(tries, "it was", "all of them were")
            words += f"{counted(never, 'sample')} never came." if never else f"{again} made again."
        return words


def describe_scores(scores: Scores, *, cap: str, stopped: int) -> str:
    """Return what scores rest on, in a sentence.

    >>> from mathlete.metrics import wilson
    >>> counts = Counts(samples=20, right=0, unknown=0, unanswered=18, capped=18, tokens=9)
    >>> none = wilson(right=0, n=10)
    >>> scores = Scores(problems=10, counts=counts, pass_at_1=0.0, pass_at_1_se=0.0, k=2, maj_at_k=none, pass_at={},
    ...     maj_at={}, unknown_votes=0, fallbacks=0)
    >>> describe_scores(scores, cap=" at 256 tokens", stopped=0)
    '0 of 20 samples right; 18 ended without an answer; 18 were cut at 256 tokens. This score says nothing but that \
the model cannot do these problems under this cap.'
    """
    counts = scores.counts
    parts = [f"{counts.right} of {counted(counts.samples, 'sample')} right"]
    if counts.unanswered:
        parts.append(f"{counts.unanswered} ended without an answer")
    if counts.capped:
        parts.append(f"{counts.capped} {agree(counts.capped, 'was', 'were')} cut{cap}")
    if counts.unknown:
        parts.append(f"{counts.unknown} could not be judged (counted as not right)")
    if stopped:
        parts.append(f"{counted(stopped, 'problem')} stopped early, so pass@1 is over the samples that were in")
    if scores.fallbacks:
        of = counted(scores.problems, "problem")
        parts.append(f"{scores.fallbacks} of {of} {agree(scores.fallbacks, 'has', 'have')} no answer at all")
    words = "; ".join(parts) + "."
    if not counts.right:
        words += " This score says nothing but that the model cannot do these problems under this cap."
    elif scores.problems < _FEW:
        few = agree(scores.problems, "1 problem is little", f"{scores.problems} problems are few")
        words += f" {few}: read the interval, not the score."
    if counts.right and scores.pass_at_1_se is None:
        words += (
            f" pass@1 has no standard error: too few to say, for fewer than {INFORMATIVE} problems have another score "
            "than the most common one."
        )
    return words
