"""Runs of this project as logs: slices of one evaluation are joined, and a run is written again without its texts."""

from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path

from mathlete.logs.entries import IMPORTED, NO_STATEMENT, Entry, Facts, Log
from mathlete.scoring import EvalRun


def read_own_run(folder: Path) -> Log:
    """Read the samples of a run's folder; whether an unfinished one may be read, its caller has asked.

    Raises:
        UserError: the folder is not that of a run.
    """
    run = EvalRun.read(folder)
    facts = run.results.facts
    missing = facts.missing if facts else ()
    names = _seeds_name_samples(run, missing)
    # What was not in the log that this run was made of holds a number or an empty text: it is nothing again.
    entries = [
        Entry(
            where=f"{folder}, problem {sample.problem_id} #{sample.index}",
            problem_id=sample.problem_id,
            statement=None if item.problem.statement == NO_STATEMENT else item.problem.statement,
            gold=item.problem.gold,
            subset=item.problem.subset,
            text=None if "text" in missing else sample.text,
            answer=sample.answer,
            tokens=None if "tokens" in missing else sample.tokens,
            seconds=None if "seconds" in missing else sample.seconds,
            finish=None if "finish" in missing else sample.finish,
            logprob_mean=sample.logprob_mean,
            logprob_tail=sample.logprob_tail,
            seed=sample.seed,
            index=sample.index,
            uid=str(sample.seed) if names else None,
            thinking=sample.in_thoughts,
            sample=sample,
        )
        for item in run.graded
        # What a deadline cut may have answered, and votes.
        for sample in item.solution.voting
    ]
    sampling = asdict(facts.settings.policy.sampling) if facts else {}
    known = {name: float(sampling[name]) for name in ("temperature", "top_p", "max_tokens") if name in sampling}
    return Log(
        path=folder,
        layout="mathlete",
        facts=Facts(
            model=facts.model if facts else None,
            task=facts.settings.suite if facts else None,
            sampling={name: value for name, value in known.items() if name not in missing},
        ),
        entries=entries,
        run=run,
    )


def _seeds_name_samples(run: EvalRun, missing: Collection[str]) -> bool:
    """Return whether a sample is known by its seed: the same one draws the same sample here, in whatever slice.

    Other tools give one seed to all samples, or the same ones to each of their files. Where they gave none, the import
    numbered the samples.
    """
    facts = run.results.facts
    if facts is None or facts.settings.engine != IMPORTED:
        return True
    seeds = [(sample.problem_id, sample.seed) for item in run.graded for sample in item.solution.samples]
    return "seed" in missing and len({*seeds}) == len(seeds)
