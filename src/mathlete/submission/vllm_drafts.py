"""Whether vLLM takes how a draft is made, `--vllm.extra speculative_config`: the rules of its config/speculative.py."""

from collections.abc import Iterator, Mapping

from mathlete.errors import UserError, nearest

_WORDS = ("num_speculative_tokens", "prompt_lookup_min", "prompt_lookup_max")
"""What may be said of a draft by ngram."""
_MOST_DRAFTED = 64
"""Tokens drafted at once: far more than are ever taken, and vLLM makes tables for each."""
_EXAMPLE = """as in '{"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 4}'"""
_LEAVE_OUT = "leave it out"


def find_wrong_draft(values: Mapping[str, object], *, min_p: float) -> Iterator[UserError]:
    """Yield what is wrong with a draft, by itself and beside what else is asked for.

    Args:
        values: the arguments of vLLM that are named.
        min_p: least share of the likeliest token's probability that a token is drawn with.
    """
    draft = values.get("speculative_config")
    if draft is None:
        return
    rule = "--vllm.extra speculative_config must be an object in JSON that says how a draft is made"
    if not isinstance(draft, Mapping):
        yield UserError(rule, value=str(draft), cure=_EXAMPLE)
        return
    way = str(draft.get("method", "draft_model" if "model" in draft else "no method"))
    if "model" in draft:
        rule = "a notebook's draft must be made by ngram: a build mounts no second model that drafts"
        yield UserError(rule, value=f"{way}, {draft['model']}", cure=_EXAMPLE)
        return
    if way != "ngram":
        yield UserError(rule, value=way, cure=f"{nearest(way, ['ngram'])}; {_EXAMPLE}")
        return
    yield from _check_words(draft)
    yield from _check_beside(values, min_p=min_p)


def _check_words(draft: Mapping[str, object]) -> Iterator[UserError]:
    if other := next((word for word in draft if word not in ("method", *_WORDS)), None):
        rule = "--vllm.extra speculative_config of ngram must have words that are held here"
        yield UserError(rule, value=str(other), cure=f"{_LEAVE_OUT}: it may have {', '.join(_WORDS)}")
    numbers = {word: draft[word] for word in _WORDS if word in draft}
    drafted = numbers.get("num_speculative_tokens")
    for word, number in {"num_speculative_tokens": drafted, **numbers}.items():
        if not (type(number) is int and 1 <= number <= _MOST_DRAFTED):
            rule = f"--vllm.extra speculative_config: {word} must be a whole number, 1 to {_MOST_DRAFTED}"
            yield UserError(rule, value="none" if number is None else str(number), cure=_EXAMPLE)
            return
    least, most = (numbers.get(f"prompt_lookup_{end}") for end in ("min", "max"))
    if isinstance(least, int) and isinstance(most, int) and least > most:
        rule = "--vllm.extra speculative_config: prompt_lookup_min must not be more than prompt_lookup_max"
        yield UserError(rule, value=f"{least} and {most}", cure=_EXAMPLE)


def _check_beside(values: Mapping[str, object], *, min_p: float) -> Iterator[UserError]:
    if min_p > 0:
        rule = "--sampling.min-p must be 0 beside a draft: vLLM refuses each sample else"
        yield UserError(rule, value=f"{min_p:g}", cure="leave it out, or leave speculative_config out")
    if values.get("async_scheduling") is True:
        rule = "--vllm.extra async_scheduling true is not for a draft by ngram"
        yield UserError(rule, value="true", cure=_LEAVE_OUT)
    if values.get("pipeline_parallel_size", 1) != 1:
        rule = "a draft must not be asked for beside --vllm.extra pipeline_parallel_size: nothing is known of both"
        yield UserError(rule, value=str(values["pipeline_parallel_size"]), cure=f"{_LEAVE_OUT} of the two one")
