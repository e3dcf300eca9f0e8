"""Which engine the notebook runs, and why: vLLM where the machine has a GPU that it serves, else the embedded one."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from mathlete.errors import UserError
from mathlete.kaggle_image import embedded_kinds, vllm_facts
from mathlete.kernel import KernelConfig
from mathlete.models import Device, Shape
from mathlete.sampling.served import VllmSettings, VllmShape
from mathlete.submission.embedded_fit import find_embedded_crowding, is_crowded
from mathlete.submission.vllm_extra import find_wrong_extra
from mathlete.submission.vllm_fit import find_wrong_setting
from mathlete.submission.vllm_memory import find_crowding, find_wrong_offload, shorten_context
from mathlete.submission.vllm_schemes import WeightRoom
from mathlete.submission.weights import formats_of, list_storage, name_storage, tell_other_weights

EngineWord = Literal["auto", "vllm", "embedded"]
"""auto: vLLM where it serves; embedded: the own decode loop, `--engine transformers` of the evaluation."""
_LEAST = 7.0
"""Compute capability from which vLLM's wheels have kernels (docs.vllm.ai, "GPU", "Requirements", of 0.14)."""


@dataclass(frozen=True, kw_only=True)
class EngineChoice:
    """The engine of a notebook."""

    engine: str
    """One of `mathlete.engines.ENGINES`."""
    reason: str
    vllm: VllmSettings
    """vLLM's settings, with the context that has room where the user named none."""


def choose_engine(word: EngineWord, *, model: Path, machine: str, config: KernelConfig, weights: int) -> EngineChoice:
    """Return the engine that a word stands for.

    Args:
        word: the user's.
        model: the folder with the model's config.json.
        machine: Kaggle's machine shape.
        config: how the notebook answers.
        weights: the bytes of the model's weights.

    Raises:
        UserError: vLLM is asked for and cannot serve that model there; or it may be chosen, and a word of its own is
            wrong, or a setting of it would have a mixture of experts served; or no engine that may be chosen has room.
    """
    idle = config.vllm.list_flags()
    unused = f"; {' '.join(idle)} not used" if idle else ""
    if word == "embedded":
        _require_room(model, machine=machine, weights=weights, config=config)
        return EngineChoice(engine="transformers", reason=f"asked for{unused}", vllm=config.vllm)

    def ask(config: KernelConfig) -> UserError | None:
        config = settle_context(config, model=model, machine=machine, weights=weights)
        refusal = find_refusal(model=model, machine=machine, config=config, weights=weights)
        return refusal or find_lack_of_room(model=model, machine=machine, config=config, weights=weights)

    refusal = ask(config)
    if refusal is None:
        vllm = settle_context(config, model=model, machine=machine, weights=weights).vllm
        reason = "asked for" if word == "vllm" else f"{machine} has a GPU that vLLM serves"
        shorter = "" if vllm == config.vllm else f"; --vllm.max-model-len {vllm.max_model_len}, for which there is room"
        return EngineChoice(engine="vllm", reason=f"{reason}{shorter}", vllm=vllm)
    curable = "--vllm." in refusal.cure
    # No word of the user's is a reason to take another engine without asking.
    is_worded = idle and (refusal.rule.startswith("--vllm.") or ask(replace(config, vllm=VllmSettings())) is None)
    if word == "vllm" or is_worded or (curable and _is_for_vllm(model)):
        raise _name_words(refusal, vllm=config.vllm, fits=lambda less: ask(replace(config, vllm=less)) is None)
    if crowded := find_embedded_crowding(model, machine=machine, weights=weights, shared=""):
        value = f"vLLM: {refusal.rule}, got {refusal.value}; embedded: {crowded.rule}, got {crowded.value}"
        raise UserError("an engine must serve the model on the machine", value=value, cure=refusal.cure)
    cure = f"; cured for vLLM by {refusal.cure}" if curable else ""
    return EngineChoice(
        engine="transformers", reason=f"{refusal.rule}, got {refusal.value}{cure}{unused}", vllm=config.vllm
    )


def _require_room(model: Path, *, machine: str, weights: int, config: KernelConfig) -> None:
    """Raise UserError where the embedded engine has no room for a model, naming vLLM where that serves it."""
    other = name_other_engine(model=model, machine=machine, config=config, weights=weights)
    shared = "build with --engine vllm, which has room for them, " if other else ""
    if crowded := find_embedded_crowding(model, machine=machine, weights=weights, shared=shared):
        raise crowded


def _name_words(refusal: UserError, *, vllm: VllmSettings, fits: Callable[[VllmSettings], bool]) -> UserError:
    """Return a refusal whose cure names the words of the user's that alone are wrong, where it names none of them."""
    said, less = f"{refusal.rule} {refusal.value} {refusal.cure}", vllm.list_without()
    every, alone = [flag for flag, _ in less], [flag for flag, without in less if fits(without)]
    if any(flag.split()[-1] in said for flag in alone):
        return refusal
    if not alone and len(every) > 1 and fits(VllmSettings()):
        alone = [" and ".join(every)]
    if not alone:
        return refusal
    # What it says of one of its words would not do.
    others = "" if any(flag.split()[0] in refusal.rule for flag in every) else f", or {refusal.cure}"
    return UserError(refusal.rule, value=refusal.value, cure=f"leave {alone[0]} out{others}")


def _is_for_vllm(model: Path) -> bool:
    """Return whether a model is none for the embedded engine: it has experts, or its kind or weights are not read."""
    settings = Shape.read_config(model)
    if settings.get("model_type") not in embedded_kinds():
        return True
    return bool(VllmShape.of(settings).experts) or not any(one.embedded for one in formats_of(model))


def name_other_engine(*, model: Path, machine: str, config: KernelConfig, weights: int) -> str:
    """Return that a build for vLLM would be taken, in words of a cure; "" where none would."""
    try:
        choose_engine("vllm", model=model, machine=machine, config=config, weights=weights)
    except UserError:
        return ""
    return "vLLM reads this one (--engine vllm)"


def find_refusal(*, model: Path, machine: str, config: KernelConfig, weights: int) -> UserError | None:
    """Return why vLLM cannot serve a model on a machine of Kaggle's; None where nothing speaks against it.

    No cure names an engine, or a number of GPUs, that has no room for the weights, of so many bytes.
    """
    gpu, facts, settings = Device.of_machine(machine), vllm_facts(), Shape.read_config(model)
    has_room = not is_crowded(weights, gpu=gpu, model=settings)
    embedded = "use --engine embedded" if has_room else "take a smaller model, or a machine with larger GPUs"
    if gpu is None or gpu.capability is None or gpu.capability < _LEAST:
        value = f"{machine}, with {gpu.capability}" if gpu else f"{machine}, which has no GPU that is known here"
        return UserError(f"vLLM needs a GPU of compute capability {_LEAST:g} or later", value=value, cure=embedded)
    kinds = settings.get("architectures")
    kind = str(kinds[0]) if isinstance(kinds, list) and kinds else "none"
    if kind not in facts.architectures:
        return UserError(f"vLLM {facts.version} must know the kind of model", value=kind, cure=embedded)
    if kind in facts.not_as_text:
        rule = f"vLLM {facts.version} must serve a model that sees or hears as text alone"
        return UserError(rule, value=f"{kind}, which it does not serve so", cure=embedded)
    stored = name_storage(model)
    formats, cure = formats_of(model), tell_other_weights(gpu, model=settings, embedded=has_room)
    if not formats:
        rule = f"vLLM must serve weights whose storage is checked here: {', '.join(list_storage(embedded=False))}"
        return UserError(rule, value=stored, cure=cure)
    served = [one for one in formats if getattr(one, "engine", "vllm") == "vllm"]
    if not any(one.fits(gpu.capability) for one in served):
        return UserError("vLLM must have a kernel for the weights", value=f"{stored} on {gpu.capability:g}", cure=cure)
    room = WeightRoom(
        shared=partial(_is_shared, model=model, machine=machine, config=config, weights=weights), embedded=has_room
    )
    return find_wrong_setting(config, gpu=gpu, gpus=count_gpus(machine), model=settings, room=room)


def _is_shared(parallel: int, stages: int, *, model: Path, machine: str, config: KernelConfig, weights: int) -> bool:
    """Return whether a model has room where so many GPUs share each layer, in so many parts of its layers."""
    vllm = replace(config.vllm, tensor_parallel=parallel)
    if stages > 1 and vllm.count_stages() * vllm.count_replicas() > 1:
        return False
    if stages > 1:
        vllm = replace(vllm, extra={**vllm.extra, "pipeline_parallel_size": str(stages)})
    other = settle_context(replace(config, vllm=vllm), model=model, machine=machine, weights=weights)
    lacking = find_lack_of_room(model=model, machine=machine, config=other, weights=weights)
    return lacking is None and not [*find_wrong_extra(other, model=Shape.read_config(model))]


def find_lack_of_room(*, model: Path, machine: str, config: KernelConfig, weights: int) -> UserError | None:
    """Return why weights of so many bytes and a whole context do not fit into a machine in vLLM; None where they may.

    Build and preflight ask here, and nowhere else. Nothing is said of a machine whose GPU is not known here.
    """
    if (gpu := Device.of_machine(machine)) is None:
        return None
    shared, settings = count_shared(config, machine, model), Shape.read_config(model)
    wrong = find_wrong_offload(config, machine=machine, shared=shared, weights=weights, model=settings)
    return wrong or find_crowding(config, gpu=gpu, shared=shared, weights=weights, model=settings)


def settle_context(config: KernelConfig, *, model: Path, machine: str, weights: int) -> KernelConfig:
    """Return settings whose context is as long as has room on a machine; the same where the user named one."""
    if (gpu := Device.of_machine(machine)) is None:
        return config
    shared, settings = count_shared(config, machine, model), Shape.read_config(model)
    return shorten_context(config, gpu=gpu, shared=shared, weights=weights, model=settings)


def count_gpus(machine: str) -> int:
    """Return how many GPUs a machine of Kaggle's has; 1 where their number is not known."""
    gpu = Device.of_machine(machine)
    return (gpu.machines.get(machine) or 1) if gpu else 1


def count_shared(config: KernelConfig, machine: str, model: Path) -> int:
    """Return how many of a machine's GPUs share a model in vLLM."""
    shape = VllmShape.of(Shape.read_config(model))
    return config.vllm.choose_parallel(gpus=count_gpus(machine), heads=shape.shares) * config.vllm.count_stages()
