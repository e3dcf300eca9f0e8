"""The tensors that a method trains, by their shapes: what parameters, gradients and optimizer are counted from."""

from collections.abc import Sequence

from mathlete.models import Shape
from mathlete.tune.optimizers import Trained
from mathlete.tune.settings import Lora

_BIASED = ("q_proj", "k_proj", "v_proj")
"""Layers whose output has a bias in a Qwen2 block."""


def find_adapted_layers(shape: Shape, lora: Lora) -> dict[str, tuple[int, int]]:
    """Return {name: (inputs, outputs)} of one block's linear layers that get an adapter."""
    linears = shape.linears
    return linears if "all-linear" in lora.targets else {name: linears[name] for name in lora.targets}


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
    keys = shape.kv_heads * shape.head_width
    return [
        Trained(number=2 * shape.layers, rows=keys, columns=1),
        Trained(number=shape.layers, rows=1, columns=shape.intermediate),
    ]


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
