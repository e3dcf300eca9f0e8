"""Whether a notebook may name what `--vllm.extra` names: arguments whose values are held here against vLLM's own rules.

All others are refused, each with the reason: what nothing is known of may end the engine's boot on Kaggle, or change
what comes out.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

from mathlete.errors import UserError, nearest, spell_switch
from mathlete.kaggle_image import vllm_facts
from mathlete.kernel import KernelConfig
from mathlete.models import Shape
from mathlete.sampling.served import VllmShape
from mathlete.submission.vllm_drafts import find_wrong_draft

_BATCHED = 2048
"""Tokens in one step, where nothing else is said: `SchedulerConfig.DEFAULT_MAX_NUM_BATCHED_TOKENS`, which an AsyncLLM
gets on any GPU."""
_LEAVE_OUT = "leave it out"


def find_wrong_extra(config: KernelConfig, *, model: Mapping[str, object]) -> Iterator[UserError]:
    """Yield what is wrong with arguments of vLLM that are named, each and beside the others.

    Args:
        config: how the notebook answers.
        model: the model's config.json.
    """
    values = config.vllm.read_extra()
    alone = [wrong for name in values if (wrong := _find_wrong_alone(name, values[name], word=config.vllm.extra[name]))]
    yield from alone
    # What is wrong by itself says nothing beside the others.
    if not alone:
        vllm, longest = config.vllm, VllmShape.of(model).longest
        context = vllm.choose_context(context=longest or 2**31, max_tokens=config.policy.longest_tokens)
        drafted = find_wrong_draft(values, min_p=config.policy.sampling.min_p)
        yield from _check_rows(values, rows=vllm.at_once, context=context or 2**31)
        yield from drafted
        yield from _check_model(values, model=model)


def _find_wrong_alone(name: str, value: object, *, word: str) -> UserError | None:
    """Return what is wrong with an argument and its value, first what vLLM would say first; None where nothing is."""
    facts = vllm_facts()
    offered = ", ".join(facts.offered)
    if name not in facts.arguments:
        rule = f"--vllm.extra must name arguments of vLLM {facts.version}"
        return UserError(rule, value=name, cure=nearest(name, [*facts.offered]))
    if name not in facts.offered:
        why = next(reason for reason, names in facts.refused.items() if name in names)
        rule = f"--vllm.extra must name arguments that can be held against vLLM {facts.version} before a push"
        return UserError(rule, value=f"{name}, {why}", cure=f"{_LEAVE_OUT}; offered: {offered}")
    if not _suits(value, kind := facts.offered[name] or facts.values.get(name, "")):
        switch = spell_switch(word) if kind == "bool" else ""
        cure = f"write {switch}" if switch else _LEAVE_OUT
        cure = cure if isinstance(kind, str) else nearest(str(value), [*map(str, kind)])
        return UserError(f"--vllm.extra {name} must be {_describe(kind)}", value=word, cure=cure)
    if not _is_within(value, bounds := facts.bounds.get(name, (None, None))):
        upper = "" if bounds[1] is None else f", at most {bounds[1]:g}"
        rule = f"--vllm.extra {name} must be at least {bounds[0]:g}{upper}"
        return UserError(rule, value=word, cure=_LEAVE_OUT)
    return None


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
        cure = f"--vllm.at-once {max(1, batched)}, or add max_num_batched_tokens {rows} behind --vllm.extra"
        yield UserError(rule, value=f"{rows} of {batched}", cure=cure)
    if whole and batched < context:
        rule = "without chunked prefill --vllm.extra max_num_batched_tokens must hold a whole context"
        yield UserError(
            rule, value=f"{batched} of {context}", cure=f"give {context}, or leave enable_chunked_prefill out"
        )


def _check_model(values: Mapping[str, object], *, model: Mapping[str, object]) -> Iterator[UserError]:
    """Yield what the model cannot be asked for."""
    facts, shape, kinds = vllm_facts(), VllmShape.of(model), model.get("architectures")
    kind = str(kinds[0]) if isinstance(kinds, list) and kinds else ""
    if values.get("pipeline_parallel_size", 1) != 1 and kind in facts.undivided:
        rule = f"vLLM {facts.version} must be able to cut the model's layers into parts for --vllm.extra pipeline_"
        yield UserError(f"{rule}parallel_size", value=kind, cure=f"{_LEAVE_OUT}: --vllm.tensor-parallel shares a model")
    if values.get("enable_expert_parallel") is True and not shape.experts:
        rule = "--vllm.extra enable_expert_parallel needs a model whose layers have experts"
        yield UserError(rule, value=kind or "another one", cure=_LEAVE_OUT)
    stored = Shape.read_quantization(model) is not None or "quantization" in values
    if values.get("moe_backend", "auto") != "auto" and shape.experts and stored:
        rule = "--vllm.extra moe_backend triton is for experts in 16 bits: which others it serves depends on the GPU"
        yield UserError(rule, value="experts in fewer bits", cure=_LEAVE_OUT)
    limits = values.get("limit_mm_per_prompt", {})
    if not (isinstance(limits, dict) and all(type(limit) is int and limit == 0 for limit in limits.values())):
        rule = "--vllm.extra limit_mm_per_prompt must be an object in JSON that rules kinds of pictures or sounds out"
        yield UserError(rule, value=str(limits), cure="""as in '{"image": 0, "video": 0}'""")


def _is_within(value: object, bounds: Sequence[float | None]) -> bool:
    least, most = bounds
    if not isinstance(value, int | float):
        return True
    return (least is None or value >= least) and (most is None or value <= most)


def _suits(value: object, kind: object) -> bool:
    if isinstance(kind, list):
        # True is no 1.
        return any(type(one) is type(value) and one == value for one in kind)
    match kind:
        case "bool":
            return isinstance(value, bool)
        case "int":
            return isinstance(value, int) and not isinstance(value, bool)
        case "float":
            return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    # It has a rule of its own.
    return True


def _describe(kind: object) -> str:
    if isinstance(kind, list):
        return f"one of {', '.join(map(str, kind))}"
    return {"bool": "true or false", "int": "a whole number", "float": "a number"}[str(kind)]
