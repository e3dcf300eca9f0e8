"""Whether the embedded engine could load a model on a machine of Kaggle's: else no notebook begins or ends on it."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mathlete.errors import UserError
from mathlete.kaggle_image import embedded_kinds, image_packages
from mathlete.kernel import KernelConfig
from mathlete.models import Device, Shape, find_model
from mathlete.sampling.embedded import check_covered
from mathlete.submission.weights import FEWER_BITS, formats_of, name_storage

_MOST_WEIGHTS = 0.85
"""Part of the memory of all GPUs of an engine that weights may take: the rest is for keys and values."""


def is_crowded(weights: int, *, gpu: Device | None, model: Mapping[str, object]) -> bool:
    """Return whether weights leave one GPU no memory for keys and values; False of a GPU that is not known here.

    Args:
        weights: their bytes as they are stored.
        gpu: the kind.
        model: the model's config.json.
    """
    return gpu is not None and Shape.count_loaded(weights, model=model) > _MOST_WEIGHTS * gpu.memory


def find_embedded_crowding(model: Path, *, machine: str, weights: int, shared: str) -> UserError | None:
    """Return why the weights of a model have no room in the embedded engine on a machine; None where they may have.

    Args:
        model: the folder with the model's config.json.
        machine: Kaggle's machine shape, of which it uses one GPU.
        weights: the bytes of the model's weights.
        shared: a cure that the caller knows beside other weights; "": none.
    """
    gpu, settings = Device.of_machine(machine), Shape.read_config(model)
    if gpu is None or not is_crowded(weights, gpu=gpu, model=settings):
        return None
    count = gpu.machines.get(machine)
    of = "" if count in (None, 1) else f" (of {count}: the engine uses 1)"
    return UserError(
        f"the weights must leave memory for keys and values on one GPU of {gpu.memory_gib:.1f} GiB{of}",
        value=f"{Shape.count_loaded(weights, model=settings) / 2**30:.1f} GiB",
        cure=f"{shared}{FEWER_BITS}",
    )


def find_unloadable(model: Path, *, machine: str, weights: int) -> str:
    """Return why the embedded engine cannot load a model, in words; "" where nothing speaks against it.

    Args:
        model: the folder with the model's config.json.
        machine: Kaggle's machine shape, of which it uses one GPU.
        weights: the bytes of the model's weights.
    """
    if not any(one.embedded for one in formats_of(model)):
        return f"it does not read {name_storage(model)} weights"
    gpu = Device.of_machine(machine)
    settings = Shape.read_config(model)
    if gpu is not None and is_crowded(weights, gpu=gpu, model=settings):
        loaded = Shape.count_loaded(weights, model=settings)
        return f"{loaded / 2**30:.1f} GiB of weights and its cache do not fit into one GPU of {gpu.memory_gib:.1f} GiB"
    source = find_model(str(model))
    try:
        source.require_described(on_kaggle=True)
        if source.measure_weights().whole:  # of a model that is mounted they are on Kaggle
            source.require_weights()
        check_covered(source.load_config())
        require_kind(model)
    except UserError as error:
        # What a library says of a config that it cannot read stands in brackets, and is long.
        return error.rule.partition(" (")[0] + (f", got {error.value}" if error.value else "")
    return ""


def require_kind(model: Path, *, other: str = "") -> None:
    """Raise UserError where the embedded engine draws nothing from a kind of model with the image's transformers.

    What transformers on this machine has is no answer: it may know kinds that the image's does not know yet, and knows
    configs of which it makes no model of text.

    Args:
        model: the folder with the model's config.json.
        other: a cure that the caller knows beside another model, such as another engine.
    """
    kind = str(Shape.read_config(model).get("model_type"))
    if kind not in embedded_kinds():
        raise UserError(
            "the embedded engine must draw from the kind of model with the image's transformers "
            f"{image_packages()['transformers']}",
            value=f"model_type {kind}",
            cure=f"{other and f'{other}, or '}take a Qwen, Llama, Gemma, Phi or Mistral model of text alone",
        )


def settle_steps(config: KernelConfig, *, model: Path, machine: str, weights: int) -> tuple[KernelConfig, str]:
    """Return (the settings with what the ladder may end on, what a person should know of that; "" where nothing).

    Args:
        config: how the notebook answers, by which engine.
        model: the folder with the model's config.json.
        machine: Kaggle's machine shape.
        weights: the bytes of the model's weights.
    """
    why = find_unloadable(model, machine=machine, weights=weights) if config.engine == "vllm" else ""
    told = (
        f"no embedded step: {why}. Where vLLM does not come up it is tried again; a rerun that lacks its wheels has "
        "no answers"
    )
    return replace(config, embedded=not why), told if why else ""
