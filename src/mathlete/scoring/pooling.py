"""Pooling: what recordings say of themselves in results.json, and whether they can be one pool."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from mathlete.errors import UserError
from mathlete.runs import MANIFEST, read_json
from mathlete.sampling import Sample
from mathlete.scoring.facts import RunSettings, is_whole

_Results = Mapping[str, Any]
"""The content of a results.json, also another program's."""
_NAMED = ("model_sha", "prompt_sha")
"""What pooled runs must have in common, as far as their results.json say, also where another program wrote these."""
_VOTED = ("vote", "select")
"""Settings that no sample depends on: the replay votes anew."""
_WEIGHED_BY: Mapping[str, Callable[[Sample], bool]] = {
    "text": lambda sample: bool(sample.text),
    "tokens": lambda sample: sample.tokens > 0,
    "logprobs": lambda sample: sample.logprob_mean is not None,
    "logprob_tail": lambda sample: sample.logprob_tail is not None,
}
"""{what votes weigh samples by: whether a sample has it}."""
_FEW = 1 / 16
"""Share of a run's samples that may lack it: those whose numbers were not finite."""
_LOGPROB, _SECONDS = 4, 3
"""Digits of both that a recording without texts keeps."""


def read_whole(folder: Path, samples: Iterable[Sample]) -> bool | None:
    """Return whether no rule and no clock kept samples from a run; None where nobody knows."""
    results = _read_results(folder)
    ended, told = results.get("ended", {"time": 1}), results.get("whole")
    return is_whole(ended, _read_settings(results), samples, told=told)


def read_missing(folder: Path) -> Sequence[str]:
    """Return what a run does not say of its samples."""
    missing = _read_results(folder).get("missing", [])
    return [str(name) for name in missing] if isinstance(missing, list) else []


def find_cap(samples: Iterable[Sample], folder: Path | None = None) -> int | None:
    """Return the cap at which samples ended, as their run says it, else the longest of those; None where none did."""
    longest = max((one.tokens for one in samples if one.finish == "length"), default=None)
    if longest is None or folder is None:
        return longest
    part: object = _read_results(folder)
    # What a log does not say stands in an import's settings too, with a number that is not the tool's.
    if "max_tokens" in read_missing(folder):
        return longest
    for key in ("policy", "sampling", "max_tokens"):
        part = part.get(key) if isinstance(part, Mapping) else None
    # The model's context may have cut samples before their cap.
    return max(longest, part) if isinstance(part, int) else longest


def find_lacking(samples: Sequence[Sample]) -> set[str]:
    """Return what of that by which votes weigh samples one run lacks, by all its samples.

    Not every engine knows log-probabilities, and a log may have the mean of all tokens without that of the last ones.
    Of several runs each is asked alone: a short one without a field is no small share of a long one with it.
    """
    voting = _list_voting(samples)
    return {name for name in _WEIGHED_BY if count_without(name, samples) > _FEW * len(voting)}


def count_without(name: str, samples: Iterable[Sample]) -> int:
    """Return how many of those samples that vote lack what votes weigh them by, such as `logprobs`."""
    return sum(not _WEIGHED_BY[name](one) for one in _list_voting(samples))


def _list_voting(samples: Iterable[Sample]) -> list[Sample]:
    """Return the samples with an answer, for no other votes; all, where none has one."""
    every = list(samples)
    return [one for one in every if one.answer is not None] or every


def check_one_model(folders: Sequence[Path], runs: Sequence[Sequence[Sample]]) -> None:
    """Check that runs with these samples were drawn of one model, with settings that make one pool of them.

    Raises:
        UserError: they differ in something that samples depend on.
    """
    every = [_read_results(folder) for folder in folders]
    # A limit in time that no problem and no sample came to is none.
    ended = [results.get("ended") for results in every]
    timed = any("time" in how if isinstance(how, Mapping) else True for how in ended)
    timed |= any(sample.finish in ("cancelled", "clock") for samples in runs for sample in samples)
    told = [_read_fixed(results, timed=timed) for results in every]
    for key in {name: None for one in told for name in one}:
        if len(values := {str(one[key]) for one in told if key in one}) > 1:
            raise UserError(
                f"runs are pooled only with the same {key}",
                value=" and ".join(sorted(values)),
                cure="replay them one by one, or put them side by side with `python -m eval compare`",
            )


def check_sampled(unsampled: Mapping[Path, Sequence[str]]) -> None:
    """Check that no problem lacks samples; given are those that do, by the folders that they stand in.

    Raises:
        UserError: one does: its run goes on, or is finished and a clock cut all that was drawn of it.
    """
    lacking = {folder: names for folder, names in unsampled.items() if names}
    if not lacking:
        return
    going = [folder for folder in lacking if not (folder / MANIFEST).is_file()]
    folder = [*going, *lacking][0]
    value = f"none of {', '.join(lacking[folder][:5])} in {folder}"
    if going:
        cure = "finish the run first: the same `python -m eval` command continues it"
        raise UserError("every problem must have recorded samples", value=value, cure=cure)
    # Nobody knows how long such a sample would have become, so it is none; nor would it then have been forced.
    raise UserError(
        "every problem must have a sample that no clock cut",
        value=f"{value}, which is finished",
        cure="record without a clock: the same `python -m eval` command without --budget, with another --run",
    )


def check_distinct(runs: Sequence[Sequence[Sample]]) -> None:
    """Check that no sample stands twice, in one run or in two.

    Raises:
        UserError: one does.
    """
    drawn: list[dict[tuple[str, int, int], Sample]] = []
    for samples in runs:
        own: dict[tuple[str, int, int], Sample] = {}
        for sample in samples:
            first = own.setdefault((sample.problem_id, sample.index, sample.seed), sample)
            if first is not sample and _is_same(first, sample):
                raise _explain_twice(sample)
        drawn.append(own)
    for one, other in combinations(drawn, 2):
        shared = one.keys() & other.keys()
        same = [sample for name, sample in one.items() if name in shared and _is_same(sample, other[name])]
        # Without a text single samples are alike by chance; those of a whole run are not.
        if same and (len(same) == len(shared) or any(_have_texts(one, other[_name(one)]) for one in same)):
            raise _explain_twice(same[0])


def _read_results(folder: Path) -> _Results:
    """Return the content of results.json, empty without one.

    As JSON, not as Results: samples that another program recorded may come with a results.json of its own.
    """
    path = folder / "results.json"
    return read_json(path) if path.is_file() else {}


def _read_settings(results: _Results) -> RunSettings | None:
    """Return the settings in a results.json; None where it is another program's."""
    try:
        return RunSettings.from_json(results)
    except (KeyError, TypeError, ValueError):
        return None


def _read_fixed(results: _Results, *, timed: bool) -> dict[str, object]:
    """Return {name: value} of what a recording must have in common with others that are pooled with it."""
    settings, missing = _read_settings(results), results.get("missing")
    lacking = missing if isinstance(missing, list) else []
    fixed = settings.fixed if settings else {}
    ignored = {*_VOTED, *lacking, *(() if timed else ("timeout_s",))}
    if settings:
        # The replay weighs forced answers anew; where none is asked for, nothing cuts them.
        fixed["harvest"] = "forced answers" if settings.policy.harvest else "none"
        ignored |= set() if settings.policy.harvest else {"harvest_tokens"}
    told = {name: value for name, value in fixed.items() if name not in ignored}
    return {**{name: results[name] for name in _NAMED if name in results}, **told}


def _is_same(one: Sample, other: Sample) -> bool:
    """Return whether two samples of one seed are the same one: drawn again it takes another time."""
    if _have_texts(one, other):
        return one.text == other.text
    # In a copy without texts something else stands for an answer in prose.
    return _figures(one, copied=one.text != other.text) == _figures(other, copied=one.text != other.text)


def _figures(sample: Sample, *, copied: bool) -> tuple[object, ...]:
    if sample.logprob_mean is None:
        return (sample.tokens, sample.answer, round(sample.seconds, _SECONDS))
    return (sample.tokens, "" if copied else sample.answer, round(sample.logprob_mean, _LOGPROB))


def _have_texts(one: Sample, other: Sample) -> bool:
    return bool(one.text and other.text)


def _name(sample: Sample) -> tuple[str, int, int]:
    return (sample.problem_id, sample.index, sample.seed)


def _explain_twice(sample: Sample) -> UserError:
    return UserError(
        "runs are pooled only with different samples",
        value=f"problem {sample.problem_id} #{sample.index} twice",
        cure="draw the runs with different --seed",
    )
