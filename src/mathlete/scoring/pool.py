"""Pool: recorded samples of one or several runs of a model, from which the replay draws and runs are compared."""

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from mathlete.answers import label_classes, read_answer
from mathlete.errors import UserError
from mathlete.finish_order import FinishOrder, finish_order
from mathlete.gates import find_run_export
from mathlete.jsonl import pause_collection
from mathlete.organiser import Grade
from mathlete.problems import Problem, read_problems
from mathlete.reasoning import closes_unopened
from mathlete.runs import verify_if_made
from mathlete.sampling import Sample, read_samples
from mathlete.scoring.grading import finish_times, judge
from mathlete.scoring.known import find_grades, read_known
from mathlete.scoring.pooling import (
    check_distinct,
    check_one_model,
    check_sampled,
    count_without,
    find_cap,
    find_lacking,
    read_missing,
    read_whole,
)
from mathlete.scoring.results import ProblemResult
from mathlete.shipped import name_recording, suggest_recording
from mathlete.text import agree, counted

if TYPE_CHECKING:
    from mathlete.scoring.ballot import Array


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """One problem's recorded samples."""

    problem: Problem
    samples: list[Sample]
    """By run, then by index."""
    labels: list[int]
    """Each sample's answer class, -1 without an answer."""
    verdicts: list[Grade]
    """Of each sample."""
    forced: tuple[int, ...] = ()
    """Each sample's class by the answer that it was made to give, -1 without one; empty where none was asked for."""
    forced_right: frozenset[int] = frozenset()
    """Those classes that no sample gave by itself, and that are right."""

    @property
    def right_classes(self) -> set[int]:
        """Answer classes with a right sample."""
        own = {label for label, verdict in zip(self.labels, self.verdicts, strict=True) if verdict == "equal"}
        return own | self.forced_right


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Problems with their recorded samples."""

    name: str
    problems: list[Recorded]
    whole: bool | None = False
    """Whether no rule and no clock kept a sample from being recorded; None: nobody knows."""
    missing: frozenset[str] = frozenset()
    """What was not recorded: `seconds`, `tokens`, `text`, `logprobs`, `logprob_tail`. The samples' fields then hold
    nothing."""
    left_out: int = 0
    """Problems that only some of the runs had with which it was cut to those that all share."""
    cut_at: int | None = None
    """The smallest cap that cut samples, tokens: what they would have said beyond is not known. None: none did."""

    @classmethod
    @pause_collection()
    def read(cls, folders: Sequence[Path]) -> Self:
        """Pool the samples of these run folders, each with its problems.jsonl and samples.jsonl.

        Raises:
            UserError: a folder without those files, a problem without samples, or runs that cannot be one pool.
        """
        runs = [read_recording(folder) for folder in folders]
        every = [its_samples for _, its_samples in runs]
        check_one_model(folders, every)
        problems: dict[str, Problem] = {}
        samples: dict[str, list[Sample]] = {}
        for folder, (its_problems, its_samples) in zip(folders, runs, strict=True):
            for problem in its_problems:
                if differs := problems.setdefault(problem.id, problem).name_difference(problem):
                    raise UserError(
                        "runs are pooled only where equal ids are equal problems",
                        value=f"{problem.id} of {folder}, with {differs}",
                        cure=_choose_cure(problems[problem.id], problem, otherwise="replay the runs one by one"),
                    )
            for sample in its_samples:
                # What a deadline cut is no sample: how long it would have become is not known.
                if sample.finish != "clock":
                    samples.setdefault(sample.problem_id, []).append(sample)
        check_distinct(every)
        check_sampled(
            {
                folder: [one.id for one in its if one.id not in samples]
                for folder, (its, _) in zip(folders, runs, strict=True)
            }
        )
        missing = {name for folder in folders for name in read_missing(folder)}
        missing = missing.union(*map(find_lacking, every))
        # Of answers in several runs nobody knows whether one run's equal another's.
        known = read_known(folders[0], verify_recording(folders[0])) if len(folders) == 1 else {}
        name = ", ".join(map(name_recording, folders))
        told = [read_whole(folder, its) for folder, its in zip(folders, every, strict=True)]
        whole = False if False in told else None if None in told else True
        pool = cls.of(list(problems.values()), samples, name=name, missing=missing, known=known, whole=whole)
        caps = [cap for folder, its in zip(folders, every, strict=True) if (cap := find_cap(its, folder))]
        return replace(pool, cut_at=min(caps, default=None))

    @classmethod
    def of(
        cls,
        problems: Sequence[Problem],
        samples: Mapping[str, list[Sample]],
        *,
        name: str = "",
        missing: Iterable[str] = (),
        known: Mapping[str, ProblemResult] = {},
        whole: bool | None = False,
    ) -> Self:
        """Pool these problems with their samples, by problem id.

        `missing` is what they lack, `known` what this checker said of them before (`mathlete.scoring.known`), `whole`
        whether no rule and no clock kept a sample from being recorded, None where nobody knows.

        Raises:
            UserError: no problem, or one without samples.
        """
        if unsampled := [problem.id for problem in problems if not samples.get(problem.id)]:
            raise UserError(
                "every problem must have samples", value=f"none of {unsampled[0]}", cure="leave it out, or draw some"
            )
        recorded = [_read_pooled(problem, samples[problem.id], known.get(problem.id)) for problem in problems]
        every = [sample for item in recorded for sample in item.samples]
        return cls(
            name=name,
            problems=recorded,
            whole=whole,
            missing=frozenset({*missing, *find_lacking(every)}),
            cut_at=find_cap(every),
        )

    def count_without(self, name: str) -> int:
        """Return how many of the samples that vote lack what a vote weighs them by, such as `logprobs`."""
        return count_without(name, (sample for item in self.problems for sample in item.samples))

    @staticmethod
    def share(pools: "Sequence[Pool]") -> "list[Pool]":
        """Return the pools with the problems that all of them have, in the first one's order.

        Raises:
            UserError: they share no problem, or an id stands for two problems.
        """
        by_id = [{item.problem.id: item for item in pool.problems} for pool in pools]
        shared = [name for name in by_id[0] if all(name in other for other in by_id)]
        if not shared:
            raise UserError(
                "two runs compare only on problems they share",
                value=f"none of {' and '.join(str(len(pool.problems)) for pool in pools)}",
                cure="evaluate both models on the same suite; logs of several tools name its problems alike where each "
                "is imported with --problems SUITE",
            )
        # Suites change from version to version, and files of problems number them anew: an id alone proves nothing.
        for other in by_id[1:]:
            pairs = ((name, by_id[0][name].problem.name_difference(other[name].problem)) for name in shared)
            for name, differs in pairs:
                if differs is None:
                    continue
                cure = (
                    "evaluate both models on the same version of the suite; logs of other tools are judged by a "
                    "suite's conventions where they are imported with --problems SUITE"
                )
                raise UserError(
                    "equal ids must be equal problems",
                    value=f"{name}, with {differs}, which differs between the runs",
                    cure=_choose_cure(by_id[0][name].problem, other[name].problem, otherwise=cure),
                )
        left_out = len({name for of in by_id for name in of}) - len(shared)
        return [
            replace(pool, problems=[of[name] for name in shared], left_out=pool.left_out + left_out)
            for pool, of in zip(pools, by_id, strict=True)
        ]

    def describe_left_out(self) -> list[str]:
        """Return a sentence on the problems that are left out (`share`); none where there are none."""
        words = agree(self.left_out, "is", "are")
        said = f"{counted(self.left_out, 'problem')} that only some of the runs have {words} left out"
        return [said] * bool(self.left_out)

    @property
    def is_uneven(self) -> bool:
        """Whether its problems have different numbers of samples."""
        return len({len(item.samples) for item in self.problems}) > 1

    @property
    def stopped_early(self) -> bool:
        """Whether the recording itself may have stopped early: then the missing samples are the late ones, not random
        ones."""
        return self.is_uneven and not self.whole

    @property
    def fewest(self) -> int:
        """Samples of the problem that has fewest."""
        return min(len(item.samples) for item in self.problems)

    @property
    def longest(self) -> int:
        """Tokens of the longest sample."""
        return max(sample.tokens for item in self.problems for sample in item.samples)

    def require_cap(self, max_tokens: int) -> None:
        """Check that what was recorded says what samples are under a cap.

        Raises:
            UserError: samples were cut at a smaller one, and nobody knows how they would have gone on.
        """
        if self.cut_at is not None and max_tokens > self.cut_at:
            raise UserError(
                f"--max-tokens must be at most {self.cut_at}, where samples of {self.name} were cut",
                value=max_tokens,
                cure="leave it out, or record with a larger cap",
            )

    @property
    def is_harvested(self) -> bool:
        """Whether samples that were cut without an answer were made to give one, as far as there are any."""
        if any(item.forced for item in self.problems):
            return True
        # How samples ended is not known of each import.
        every = (sample for item in self.problems for sample in item.samples)
        return "finish" not in self.missing and not any(sample.needs_harvest for sample in every)

    @cached_property
    def finish_order(self) -> FinishOrder | None:
        """How often a right answer came before a wrong one; None where no problem has both, or no seconds are known."""
        if "seconds" in self.missing:
            return None
        return finish_order([finish_times(item.samples, item.verdicts) for item in self.problems])

    @property
    def is_ordered(self) -> bool:
        """Whether the samples' times say which finished first, as far as that changes a score."""
        return "seconds" not in self.missing and (self.finish_order is None or self.finish_order.is_recorded)

    def table(self, values: Callable[[Recorded], Sequence[float]], *, fill: float, kind: str) -> "Array":
        """Return (problems, samples): a value for each sample, `fill` where a problem has fewer than others."""
        import numpy as np

        widest = max(len(item.samples) for item in self.problems)
        table = np.full((len(self.problems), widest), fill, dtype=kind)
        for row, item in enumerate(self.problems):
            table[row, : len(item.samples)] = values(item)
        return table


def _choose_cure(one: Problem, other: Problem, *, otherwise: str) -> str:
    """Return what mends that two runs have a problem otherwise: older imports lack the conventions of its answers."""
    if replace(one, answers=other.answers).name_difference(other):
        return otherwise
    return f"where one run is an older import, import the older log again, into another --run; else {otherwise}"


def _read_pooled(problem: Problem, samples: list[Sample], known: ProblemResult | None) -> Recorded:
    if (told := find_grades(problem, samples, known)) is not None:
        label: dict[str | None, int] = {None: -1}
        for answer in dict.fromkeys(one.answer for one in samples if one.answer is not None):
            label[answer] = len(label) - 1
        return Recorded(
            problem=problem,
            samples=samples,
            labels=[label[one.answer] for one in samples],
            verdicts=[told[one.answer] for one in samples],
        )
    answers, forced = [one.answer for one in samples], [one.harvest.answer if one.harvest else None for one in samples]
    # Classes are numbered as they first appear: those of the samples' own answers stay what they are.
    labels = label_classes([*answers, *forced], problem.answers)
    own, other = labels[: len(samples)], labels[len(samples) :]
    grades_of = {
        one: judge(one, gold=problem.gold, settings=problem.answers) for one in dict.fromkeys((*answers, *forced))
    }
    grades = [grades_of[answer] for answer in (*answers, *forced)]
    right = {label for label, grade in zip(labels, grades, strict=True) if grade == "equal"}
    return Recorded(
        problem=problem,
        samples=samples,
        labels=own,
        verdicts=grades[: len(samples)],
        forced=tuple(other) if any(one.harvest for one in samples) else (),
        forced_right=frozenset(right.difference(own)),
    )


def verify_recording(folder: Path) -> dict[str, Any]:
    """Return the manifest of a finished run, after checking its problems, samples and results; {} for another folder.

    Raises:
        UserError: a file has changed.
    """
    return verify_if_made(folder, only=("problems.jsonl", "samples.jsonl", "results.json"))


def read_recording(folder: Path) -> tuple[list[Problem], list[Sample]]:
    """Read (problems, samples by index) of a run folder.

    Raises:
        UserError: a file is missing or is not what it must be, or one of a finished run has changed.
    """
    files = [folder / "problems.jsonl", folder / "samples.jsonl"]
    if missing := [file.name for file in files if not file.is_file()]:
        raise UserError(
            "an evaluation's run has problems.jsonl and samples.jsonl",
            value=f"{folder} without {' and '.join(missing)}",
            cure=_find_cure(folder),
        )
    verify_recording(folder)
    problems = read_problems(files[0])
    ids = {problem.id for problem in problems}
    samples = read_samples(files[1])
    if foreign := [sample.problem_id for sample in samples if sample.problem_id not in ids]:
        raise UserError(
            f"{files[1]} must hold samples of {files[0].name}'s problems only",
            value=f"problem {foreign[0]}",
            cure="take both files from the same run",
        )
    if all(sample.answer is None for sample in samples):
        # Another program recorded them and did not read the answers; a run of ours always has some.
        # Where some end thoughts that they have not opened, the prompts did, and the others stand in them.
        opened = None if any(closes_unopened(one.text) for one in samples) else False
        samples = [
            replace(one, answer=read_answer(one.text, cut=one.was_cut, thinking=one.in_thoughts or opened))
            for one in samples
        ]
    return problems, sorted(samples, key=lambda sample: sample.index)


def _is_log(file: Path) -> bool:
    return file.suffix in (".eval", ".jsonl", ".parquet", ".csv") and file.name not in (
        "problems.jsonl",
        "samples.jsonl",
    )


def _find_cure(folder: Path) -> str:
    """Return what to give in place of a folder that holds no recorded samples, by what it does hold."""
    word = shlex.quote(str(folder))
    if not folder.exists():
        return f"there is no such folder: {suggest_recording(folder)}"
    if (made := find_run_export(folder)) and (made / "config.json").is_file():
        return f"this is a training run: evaluate its model, `python -m eval SUITE --model {shlex.quote(str(made))}`"
    if (folder / "adapter").is_dir() or (folder / "data").is_dir():
        return "this is a training run, which has no samples: evaluate its model first with `python -m eval SUITE`"
    if (folder / "config.json").is_file():
        return f"this is a model: evaluate it first, `python -m eval SUITE --model {word}`"
    if (folder / "replay.json").is_file():
        return "this is a replay: give the run that was replayed"
    if logs := [file for at in ("*", "*/*") for file in sorted(folder.glob(at)) if _is_log(file)]:
        more = "" if len(logs) == 1 else " …"
        command = f"python -m eval import {shlex.quote(str(logs[0]))}{more} --run RUN"
        return f"a folder of other tools' logs is imported by its files: `{command}`"
    return "give the folder that `python -m eval` wrote"
