"""The tensors that a method trains, by their shapes: what parameters, gradients and optimizer are counted from."""

from collections.abc import Sequence

from mathlete.errors import UserError
from mathlete.models import Shape
from mathlete.tune.optimizers import Trained
from mathlete.tune.settings import Lora

_BIASED = ("q_proj", "k_proj", "v_proj")
"""Layers whose output has a bias in a Qwen2 block."""


_FUSED = ("qkv_proj", "query_key_value", "Wqkv", "c_attn")
_OTHERS = {
    "q_proj": _FUSED,
    "k_proj": _FUSED,
    "v_proj": _FUSED,
    "o_proj": ("dense", "out_proj"),
    "gate_proj": ("gate_up_proj", "w1"),
    "up_proj": ("gate_up_proj", "dense_h_to_4h", "fc1", "c_fc", "fc_in", "w3"),
    "down_proj": ("dense_4h_to_h", "fc2", "c_proj", "fc_out", "w2"),
}
"""{Llama's name: what others call a layer that does its work, alone or with another's}: Phi-3, GLM, GPT-NeoX, Phi, …"""


def find_layer(shape: Shape, name: str) -> str | None:
    """Return the layer of a block that does the work of Llama's of this name; None where none is known to."""
    return next((one for one in (name, *_OTHERS.get(name, ())) if one in shape.linears), None)


def _list_meant(shape: Shape, target: str) -> list[str]:
    """List the layers that do the work of what another base calls so: one that holds it, or its parts."""
    named = target if target in shape.linears else find_layer(shape, target)
    return (
        [named] if named else [name for name, others in _OTHERS.items() if target in others and name in shape.linears]
    )


def _name_targets(shape: Shape, targets: Sequence[str]) -> str:
    """Return in words what to name in place of targets of which the base lacks some."""
    named = [target for word in targets for target in word.split(",") if target]
    meant = {target: _list_meant(shape, target.rpartition(".")[2]) for target in named}
    use = " ".join(dict.fromkeys(name for names in meant.values() for name in names))
    if not use:
        return "use --lora.targets all-linear"
    lost = ", ".join(target for target, names in meant.items() if not names)
    spaced = ", with spaces between" if any("," in word for word in targets) else ""
    return f"use --lora.targets {use}{spaced}, which do {f'the work of all but {lost}' if lost else 'their work'}"


def find_adapted_layers(shape: Shape, lora: Lora) -> dict[str, tuple[int, int]]:
    """Return {name: (inputs, outputs)} of one block's linear layers that get an adapter.

    Raises:
        UserError: the base has no such layer, which peft would leave out, or fail where it has none of all.
    """
    linears = shape.linears
    if "all-linear" in lora.targets:
        return linears
    # As peft matches them: by the end of a layer's name.
    named = {target: [name for name in linears if f".{name}".endswith(f".{target}")] for target in lora.targets}
    if missing := [target for target, names in named.items() if not names]:
        raise UserError(
            f"--lora.targets must be linear layers of the base's blocks: {', '.join(linears)}",
            value=", ".join(missing),
            cure=_name_targets(shape, lora.targets),
        )
    return {name: linears[name] for names in named.values() for name in names}


def find_scaled_layers(shape: Shape) -> tuple[list[str], str]:
    """Return (the layers whose outputs IA3 scales, the one whose inputs it scales): keys and values, feed-forward.

    Of a layer that holds queries too, they are scaled with them, as peft's own table has it.

    Raises:
        UserError: the base has no layer that is known to be such a one.
    """
    keys, values, last = (find_layer(shape, name) for name in ("k_proj", "v_proj", "down_proj"))
    if not (keys and values and last):
        raise UserError(
            "--method ia3 scales keys, values and feed-forward layers, and must know which these are",
            value=", ".join(shape.linears),
            cure="use --method lora",
        )
    return list(dict.fromkeys((keys, values))), last


def list_lora_tensors(shape: Shape, lora: Lora) -> list[Trained]:
    """List two matrices a layer, one as wide as its input, one its output, and the biases that are trained."""
    adapted = find_adapted_layers(shape, lora)
    matrices = [
        one
        for inputs, outputs in adapted.values()
        for one in (
            Trained(number=shape.layers, rows=lora.rank, columns=inputs),
            Trained(number=shape.layers, rows=outputs, columns=lora.rank),
        )
    ]
    biased = {"none": (), "lora_only": adapted, "all": _BIASED}[lora.bias]
    return [*matrices, *_list_biases(shape, [name for name in _BIASED if name in biased])]


def _list_biases(shape: Shape, names: Sequence[str]) -> list[Trained]:
    return [Trained(number=shape.layers, rows=shape.linears[name][1]) for name in names if shape.biases]


def list_dora_tensors(shape: Shape, lora: Lora) -> list[Trained]:
    """List LoRA's, and a magnitude for each output."""
    magnitudes = (outputs for _, outputs in find_adapted_layers(shape, lora).values())
    return [*list_lora_tensors(shape, lora), *(Trained(number=shape.layers, rows=rows) for rows in magnitudes)]


def list_ia3_tensors(shape: Shape, _: Lora) -> list[Trained]:
    """List the scales of keys, values and inner activations."""
    scaled, last = find_scaled_layers(shape)
    outputs = [Trained(number=shape.layers, rows=shape.linears[name][1], columns=1) for name in scaled]
    return [*outputs, Trained(number=shape.layers, rows=1, columns=shape.linears[last][0])]


def list_prefix_tensors(shape: Shape, lora: Lora) -> list[Trained]:
    """List the table that holds each virtual token's keys and values of all blocks."""
    columns = shape.layers * 2 * shape.kv_heads * shape.head_width
    return [Trained(number=1, rows=lora.virtual_tokens, columns=columns, embedding=True)]


def list_prompt_tensors(shape: Shape, lora: Lora) -> list[Trained]:
    """List the table of the virtual tokens' vectors."""
    return [Trained(number=1, rows=lora.virtual_tokens, columns=shape.hidden, embedding=True)]


def list_all_tensors(shape: Shape, _: Lora) -> list[Trained]:
    """List every weight of the model."""
    tables = [Trained(number=1, rows=shape.vocabulary, columns=shape.hidden, embedding=True)]
    if not shape.tied:
        tables.append(Trained(number=1, rows=shape.vocabulary, columns=shape.hidden))
    linears = [Trained(number=shape.layers, rows=outputs, columns=inputs) for inputs, outputs in shape.linears.values()]
    norms = Trained(number=2 * shape.layers + 1, rows=shape.hidden)
    return [*tables, *linears, *_list_biases(shape, _BIASED), norms]
