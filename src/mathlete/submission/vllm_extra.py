"""Whether vLLM's engine takes the arguments that `--vllm.extra` names, and still answers what the model does."""

import math
from collections.abc import Iterator, Mapping, Sequence

from mathlete.errors import UserError, nearest
from mathlete.kaggle_image import vllm_facts
from mathlete.kernel import KernelConfig

_NOT_CARRIED: dict[str, tuple[object, ...]] = {
    "distributed_executor_backend": ("ray", "external_launcher"),
    "data_parallel_backend": ("ray",),
    "load_format": ("runai_streamer", "runai_streamer_sharded", "tensorizer", "fastsafetensors"),
}
"""{argument: words that need a package which vLLM's wheels lack}."""
_SHAPE = "and config.json is what everything here is held against"
_OTHER_ANSWERS: dict[str, tuple[tuple[object, ...], str]] = {
    "load_format": (("dummy",), "which draws weights at random"),
    "runner": (("pooling", "draft"), "which writes no text"),
    "convert": (("embed", "classify"), "which writes no text"),
    "hf_overrides": ((), f"which changes the model's shape, {_SHAPE}"),
    "hf_config_path": ((), f"which takes another model's config, {_SHAPE}"),
    "model_weights": ((), "which takes other weights"),
    "pooler_config": ((), "which is for models that write no text"),
    "logits_processors": ((), "which changes what is drawn"),
    "io_processor_plugin": ((), "which changes what is read and written"),
    "override_attention_dtype": ((), "which computes in another type than the model's"),
}
"""{argument: the words by which other answers would come out than the model's, and why}; no words: all do."""
_BATCHED = 2048
"""Tokens in one step, where nothing else is said: `SchedulerConfig.DEFAULT_MAX_NUM_BATCHED_TOKENS`, which an AsyncLLM
gets on any GPU."""
_LEAVE_OUT = "leave it out"


def find_wrong_extra(config: KernelConfig, *, longest: int | None) -> Iterator[UserError]:
    """Yield what is wrong with arguments of vLLM that are named, each and beside the others.

    Args:
        config: how the notebook answers.
        longest: tokens of the model's context; None: not known.
    """
    vllm = config.vllm
    # Each by itself, first what vLLM would say first.
    facts, values = vllm_facts(), vllm.read_extra()
    for name, value in values.items():
        if name not in facts.arguments:
            rule = f"--vllm.extra must name arguments of vLLM {facts.version}"
            yield UserError(rule, value=name, cure=nearest(name, [*facts.arguments]))
        elif not _suits(value, kind := facts.values.get(name, "")):
            rule = f"--vllm.extra {name} must be {_describe(kind)}"
            cure = nearest(str(value), [*map(str, kind)]) if not isinstance(kind, str) else _LEAVE_OUT
            yield UserError(rule, value=vllm.extra[name], cure=cure)
        elif why := _find_other_answers(name, value):
            rule = "--vllm.extra must leave the model that answers as it is"
            yield UserError(rule, value=f"{name} {vllm.extra[name]}, {why}", cure=_LEAVE_OUT)
        elif not _is_within(value, bounds := facts.bounds.get(name, (None, None))):
            upper = "" if bounds[1] is None else f", at most {bounds[1]:g}"
            rule = f"--vllm.extra {name} must be at least {bounds[0]:g}{upper}"
            yield UserError(rule, value=vllm.extra[name], cure=_LEAVE_OUT)
        elif value in _NOT_CARRIED.get(name, ()):
            rule = "vLLM's wheels must hold what --vllm.extra asks for"
            yield UserError(rule, value=f"{name} {value}", cure=_LEAVE_OUT)
    # A draft by name would be downloaded.
    draft = values.get("speculative_config")
    if isinstance(draft, dict) and not str(draft.get("model", "/")).startswith("/"):
        rule = "a model that drafts must be a folder on Kaggle, where nothing is downloaded"
        yield UserError(rule, value=str(draft["model"]), cure="mount it, and name its folder below /kaggle/input")
    if all(name in facts.arguments and _suits(values[name], facts.values.get(name, "")) for name in values):
        context = vllm.choose_context(context=longest or 2**31, max_tokens=config.policy.longest_tokens)
        yield from _check_rows(values, rows=vllm.at_once, context=context or 2**31)


def _check_rows(values: Mapping[str, object], *, rows: int, context: int) -> Iterator[UserError]:
    """Yield what `verify_max_model_len` of config/scheduler.py refuses, with the defaults of engine/arg_utils.py."""
    # Prompts are read in parts, unless that is said otherwise.
    usual = _BATCHED * (2 if values.get("performance_mode") == "throughput" else 1)
    whole = values.get("enable_chunked_prefill") is False
    said = values.get("max_num_batched_tokens")
    batched = said if isinstance(said, int) else min(rows * context, max(usual, context) if whole else usual)
    # Each sample that is drawn needs one token of a step.
    if batched < rows:
        rule = "--vllm.at-once must be within the tokens that vLLM reads in one step, max_num_batched_tokens"
        cure = f"--vllm.at-once {batched}, or --vllm.extra max_num_batched_tokens {rows}"
        yield UserError(rule, value=f"{rows} of {batched}", cure=cure)
    if whole and batched < context:
        rule = "without chunked prefill --vllm.extra max_num_batched_tokens must hold a whole context"
        yield UserError(
            rule, value=f"{batched} of {context}", cure=f"give {context}, or leave enable_chunked_prefill out"
        )
    parts, long = values.get("max_num_partial_prefills", 1), values.get("max_long_partial_prefills", 1)
    if isinstance(parts, int) and isinstance(long, int) and (long > parts or (whole and parts > 1)):
        rule = "--vllm.extra max_num_partial_prefills must suit max_long_partial_prefills and chunked prefill"
        yield UserError(rule, value=f"{parts}, of them {long} long ones", cure=_LEAVE_OUT)


def _find_other_answers(name: str, value: object) -> str:
    """Return why an argument would have other answers than the model's come out; empty where it would not."""
    words, why = _OTHER_ANSWERS.get(name, ((), ""))
    return why if value in words or (not words and why) else ""


def _is_within(value: object, bounds: Sequence[float | None]) -> bool:
    least, most = bounds
    if not isinstance(value, int | float):
        return True
    return (least is None or value >= least) and (most is None or value <= most)


def _suits(value: object, kind: object) -> bool:
    if isinstance(kind, list):
        return value in kind
    match kind:
        case "bool":
            return isinstance(value, bool)
        case "int":
            return isinstance(value, int) and not isinstance(value, bool)
        case "float":
            return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return True


def _describe(kind: object) -> str:
    if isinstance(kind, list):
        return f"one of {', '.join(map(str, kind))}"
    return {"bool": "true or false", "int": "a whole number", "float": "a number"}[str(kind)]
