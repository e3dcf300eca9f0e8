"""results.json: the scores of a run, whole, per group, per subset and per problem."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from statistics import fmean

from mathlete.metrics import (
    Interval,
    bootstrap,
    calibration,
    calibration_error,
    curve_points,
    finish_order,
    standard_error,
    wilson,
)
from mathlete.scoring.grading import Graded, finish_times


def scores(graded: Sequence[Graded]) -> dict[str, object]:
    """The scores of some problems as JSON values.

    `maj_at` holds value, lo and hi at each k: Wilson's interval for the one vote over all samples, the bootstrap's
    over problems for smaller k. `pass_at` is unbiased pass@k. Where an early stop drew fewer samples of some problem,
    the curves end at the fewest, and `maj_at_k` is the vote's all the same. `fallbacks` are the problems without any
    answer, where a submission has to send something else.
    """
    passes = [item.pass_at(1) for item in graded]
    k = max(len(item.verdicts) for item in graded)
    ks = curve_points(max(1, min(len(item.verdicts) for item in graded)))
    vote = wilson(right=sum(item.verdict == "equal" for item in graded), n=len(graded))
    return {
        "problems": len(graded),
        **_counts(graded),
        "pass_at_1": fmean(passes),
        "pass_at_1_se": standard_error(passes) if len(passes) > 1 else None,
        "k": k,
        "maj_at_k": vote.value,
        "maj_at_k_interval": [vote.lo, vote.hi],
        "pass_at": {str(point): fmean(item.pass_at(point) for item in graded) for point in ks},
        "maj_at": {str(point): asdict(_majority(graded, point, vote)) for point in ks},
        "unknown_votes": sum(item.verdict == "unknown" for item in graded),
        "fallbacks": sum(item.solution.answer is None for item in graded),
    }


def _majority(graded: Sequence[Graded], k: int, vote: Interval) -> Interval:
    if all(len(item.verdicts) == k for item in graded):
        return vote
    return bootstrap([item.maj_at(k) for item in graded])


def _counts(graded: Sequence[Graded]) -> dict[str, int]:
    samples = [sample for item in graded for sample in item.solution.samples]
    verdicts = [verdict for item in graded for verdict in item.verdicts]
    return {
        "samples": len(samples),
        "right": verdicts.count("equal"),
        "unknown": verdicts.count("unknown"),
        "unanswered": verdicts.count("none"),
        "capped": sum(sample.finish == "length" for sample in samples),
        "tokens": sum(sample.tokens for sample in samples),
    }


def split_scores(graded: Sequence[Graded], key: Callable[[Graded], str]) -> dict[str, dict[str, object]]:
    """The scores of each part of the problems, by the part's name; empty where all problems have none."""
    names = sorted({key(item) for item in graded})
    if names == [""]:
        return {}
    return {name: scores([item for item in graded if key(item) == name]) for name in names}


def problem_row(item: Graded) -> dict[str, object]:
    """One problem's line of the results."""
    verdicts = {sample.index: verdict for sample, verdict in zip(item.solution.samples, item.verdicts, strict=True)}
    votes = [
        {"answer": vote.answer, "count": vote.count, "verdict": verdicts[vote.indexes[0]]}
        for vote in item.solution.votes
    ]
    return {
        "id": item.problem.id,
        "subset": item.problem.subset,
        "gold": item.problem.gold,
        "answer": item.solution.answer,
        "verdict": item.verdict,
        "pass_at_1": item.pass_at(1),
        **_counts([item]),
        "votes": votes,
        **({"judgements": item.solution.selection.judgements} if item.solution.selection else {}),
        "seconds": round(item.solution.seconds, 3),
    }


def results(graded: Sequence[Graded], facts: dict[str, object]) -> dict[str, object]:
    """The content of results.json: the run's facts (suite, policy, engine, model, code), then its scores.

    `calibration` is of the vote's share against its correctness; `finish_order` is the share of pairs in which a right
    sample came before a wrong one of its problem, None where there are none.
    """
    votes = [(item.vote_share, item.verdict == "equal") for item in graded]
    bias = finish_order([finish_times(item.solution.samples, item.verdicts) for item in graded])
    return {
        **facts,
        **scores(graded),
        "ended": dict(sorted(Counter(item.solution.ended for item in graded).items())),
        "calibration": [asdict(found) for found in calibration(votes)],
        "calibration_error": calibration_error(votes),
        "finish_order": bias and asdict(bias),
        "groups": split_scores(graded, lambda item: item.group),
        "subsets": split_scores(graded, lambda item: item.problem.subset),
        "per_problem": [problem_row(item) for item in graded],
    }
