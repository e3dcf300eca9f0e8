"""What the engine would refuse of a model on Kaggle, asked here in a second: nothing of its weights is read."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mathlete.errors import UserError
from mathlete.files import read_pointer
from mathlete.kernel import KernelConfig
from mathlete.models import Shape, find_model, load_prompt_format
from mathlete.runs import read_json
from mathlete.sampling.embedded import check_covered
from mathlete.submission.embedded_fit import require_kind
from mathlete.submission.engine_choice import name_other_engine
from mathlete.submission.vllm_fit import QUESTION_TOKENS

_DENSE = frozenset(("F64", "F32", "F16", "BF16"))
"""Types of a dense model's tensors, as safetensors' headers name them."""
_PLAIN = ("llama", "mistral", "qwen2", "qwen3")
"""Kinds of model whose layers have the names and shapes of Llama's."""
_SCALES = (".weight_scale", ".weight_scale_inv", ".weight_packed", ".qweight")
"""Ends of names that only tensors of weights in few bits have."""
_LENGTH = 8
"""Bytes before a header, which say its length. Source: huggingface.co/docs/safetensors, "Format"."""


def check_serving(model: Path, config: KernelConfig, *, weights: bool = True, machine: str = "", size: int = 0) -> str:
    """Check tokenizer, padding, template, context, attention and types of a model, as the engine does when it opens it.

    Returns what a person should know of the room for a question; "" where nothing.

    Args:
        model: the export.
        config: how the notebook answers.
        weights: whether the folder must have weights.
        machine: Kaggle's machine shape, by which a cure may name another engine; empty: none does.
        size: the bytes of the model's weights.

    Raises:
        UserError: the engine could not draw with it.
    """
    source = replace(find_model(str(model)), prompt=config.prompt)
    other = name_other_engine(model=model, machine=machine, config=config, weights=size) if machine else ""
    if weights:
        source.require_weights(by_vllm=config.engine == "vllm", other=other)
    else:
        source.measure_weights()  # no file here is cut
    prompts = load_prompt_format(source)
    if config.engine == "transformers":
        check_covered(source.load_config(), other=other)
        source.require_described(on_kaggle=True, other=other)
        require_kind(model, other=other)
    longest = max(config.competition.placeholders.values(), key=len)
    prompt, asked, own = len(prompts.prompt_ids(longest)), config.policy.longest_tokens, source.context_tokens()
    context, cure = own, "a model that attends to more"
    if config.engine == "vllm":
        # It may be told to attend to less.
        context = min(own, config.vllm.choose_context(context=own, max_tokens=asked) or own)
        cure = cure if context == own else f"--vllm.max-model-len {min(own, asked + prompt)}"
    closing = asked - config.policy.sampling.max_tokens
    if asked > (room := context - prompt):
        raise UserError(
            f"a completion must fit into the model's context of {context} tokens beside its prompt",
            value=f"{config.policy.longest_words}, and {max(0, room)} are left by a prompt of {prompt}",
            cure=f"build with --sampling.max-tokens {max(1, min(room // 2, room - closing))}, or with {cure}",
        )
    settings = Shape.read_config(model)
    if not Shape.read_quantization(settings):
        _check_tensors(model, _list_shapes(settings))
        _check_index(model)
    if (left := context - asked) >= min(QUESTION_TOKENS, own // 2):
        return ""
    return f"{left} tokens are left for a question beside a whole completion; one that is longer is not answered"


def _list_shapes(config: Mapping[str, object]) -> dict[str, list[int]]:
    """Return {end of a tensor's name: its shape} by a config.json; {} of models of a kind that is not known here."""
    if config.get("model_type") not in _PLAIN:
        return {}
    try:
        shape = Shape.from_config(config)
    except (UserError, KeyError, ValueError, TypeError, ZeroDivisionError):
        return {}
    linears = {f".{name}.weight": [outputs, inputs] for name, (inputs, outputs) in shape.linears.items()}
    return {"model.embed_tokens.weight": [shape.vocabulary, shape.hidden], **linears}


def _check_tensors(model: Path, shapes: Mapping[str, list[int]]) -> None:
    for file in sorted(model.glob("*.safetensors")):
        if read_pointer(file) is not None:
            continue
        header = _read_header(file)
        for name, tensor in header.items():
            wanted = next((shape for end, shape in shapes.items() if name.endswith(end)), None)
            if wanted is not None and tensor["shape"] != wanted:
                raise UserError(
                    "config.json must describe the weights beside it",
                    value=f"{wanted} by it, {tensor['shape']} in {file.name}, for {name}",
                    cure="take its config.json from where the weights come from",
                )
        kinds = {str(tensor["dtype"]) for tensor in header.values() if "dtype" in tensor}
        if others := sorted(kinds - _DENSE):
            raise _refuse_undescribed(f"{', '.join(others)} in {file.name}")


def _check_index(model: Path) -> None:
    """Raise UserError where the list of a model's tensors, which may be on Kaggle alone, has scales of weights."""
    index = model / "model.safetensors.index.json"
    names = read_json(index).get("weight_map") if index.is_file() else None
    if isinstance(names, dict) and (scale := next((name for name in names if str(name).endswith(_SCALES)), None)):
        raise _refuse_undescribed(f"{scale} in {index.name}")


def _refuse_undescribed(value: str) -> UserError:
    return UserError(
        "weights of 8 bits and fewer must be described by a quantization_config: the engine would take them "
        "for the numbers themselves",
        value=value,
        cure="export the model again, or take its config.json, and hf_quant_config.json where there is one, from "
        "where the weights come from",
    )


def _read_header(file: Path) -> Mapping[str, Mapping[str, object]]:
    with file.open("rb") as opened:
        header: dict[str, dict[str, object]] = json.loads(opened.read(int.from_bytes(opened.read(_LENGTH), "little")))
    return header
