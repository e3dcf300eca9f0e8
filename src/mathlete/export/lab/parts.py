"""Parts of a model that a scheme leaves as they are, or rounds besides: layers, tables, activations."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mathlete.export.lab.quantizers import Part, Scheme, requantize, round_to_fp8

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Linear, Module

_LAYERS = {
    "qkv": r"\.(q|k|v|qkv)_proj$",
    "attention": r"\.self_attn\.",
    "down": r"\.down_proj$",
    "mlp": r"\.mlp\.",
}
"""{the word of a part: a pattern of its layers' names}, as Llama, Qwen and most others name them."""


def is_kept(layer: str, part: Part | None, *, blocks: int) -> bool:
    """Return whether a linear layer of so many blocks stays as it is.

    >>> is_kept("model.layers.29.mlp.down_proj", "but ends", blocks=30)
    True
    >>> is_kept("model.layers.1.mlp.down_proj", "but first", blocks=30)
    False
    """
    if part is None or not part.startswith("but "):
        return False
    word = part.removeprefix("but ")
    ends = {"first": (0,), "last": (blocks - 1,), "ends": (0, blocks - 1)}.get(word, ())
    numbers = [int(number) for number in re.findall(r"\.(\d+)\.", layer)[:1]]
    return any(number in ends for number in numbers) or (word in _LAYERS and bool(re.search(_LAYERS[word], layer)))


@contextmanager
def round_tables(model: "Module", scheme: Scheme) -> Iterator[None]:
    """Round the embeddings and the output layer while it lasts, where the scheme says so."""
    if scheme.part != "and tables":
        yield
        return
    from torch.nn import Embedding, Linear

    tables = [
        module
        for name, module in model.named_modules()
        if isinstance(module, Embedding) or (isinstance(module, Linear) and "head" in name)
    ]
    # A table that both share is one tensor, and is rounded once.
    before = {table.weight.data_ptr(): (table, table.weight.data.clone()) for table in tables}
    for layer, weight in before.values():
        layer.weight.data.copy_(requantize(weight, scheme))
    try:
        yield
    finally:
        for layer, weight in before.values():
            layer.weight.data.copy_(weight)


@contextmanager
def round_inputs(layers: "Mapping[str, Linear]", scheme: Scheme) -> Iterator[None]:
    """Round what goes into the layers to 8 bits a token while it lasts, as W8A8 and fp8 do, where the part says so."""
    part = scheme.part or ""
    kept = part.partition(" but ")[2]
    round_input = _round_to_fp8 if scheme.kind == "fp8" else _round_input
    names = [name for name in layers if not (kept and re.search(_LAYERS[kept], name))]
    hooks = [layers[name].register_forward_pre_hook(round_input) for name in names if part.startswith("and act")]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _round_input(_: object, given: "tuple[Tensor, ...]") -> "tuple[Tensor, ...]":
    first, *rest = given
    scale = (first.abs().amax(-1, keepdim=True) / 127.5).clamp(min=1e-8)
    return (first / scale).round().clamp(-128, 127) * scale, *rest


def _round_to_fp8(_: object, given: "tuple[Tensor, ...]") -> "tuple[Tensor, ...]":
    first, *rest = given
    return round_to_fp8(first), *rest
