"""Whether vLLM can share a mixture's experts among GPUs, as their weights are stored.

As the layers of experts of vLLM 0.19.1 ask (`create_weights` of fp8.py, compressed_tensors_moe.py and moe_wna16.py,
`check_moe_marlin_supports_layer`). Each GPU has a part of each expert's columns, or whole experts with
`enable_expert_parallel`. mxfp4 is filled up to what its kernels take, and so is held against nothing here.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mathlete.sampling.served import VllmShape

_Config = Mapping[str, object]
_LAYERS = ("ignore", "modules_to_not_convert", "ignored_layers")
"""What lists layers that are left in 16 bits: compressed-tensors', AWQ's and fp8's word."""
_NAMES = (("mlp", "down_proj"), ("block_sparse_moe", "w2"), ("feed_forward", "down_proj"))
"""What Qwen, DeepSeek and GLM, Mixtral, and Llama 4 call the part of a layer that has experts, and one of theirs."""
_MARLIN = (-1, 32, 64, 128)
_LEAST_GROUP = 32
"""The smallest group that vLLM's kernels for 16-bit numbers (`moe_wna16`) cut a larger one into."""
_HOPPERS = 256
"""What the kernels for 4 bits beside activations in 8 divide the experts by."""


@dataclass(frozen=True, kw_only=True)
class _Experts:
    """The experts of a layer as one GPU has them."""

    hidden: int
    columns: int
    """Those that a GPU has of each expert."""
    shared: int
    """Among how many GPUs all layers are shared."""

    def holds(self, group: int) -> bool:
        """Return whether groups of so many weights fill the rows of all layers."""
        return self.columns % group == 0 and self.hidden % group == 0

    def suits_marlin(self, group: int) -> bool:
        """Return whether Marlin takes them (`check_moe_marlin_supports_layer`); -1: a whole row has one scale."""
        return group in _MARLIN and self.hidden % 128 == 0 and self.columns % max(64, group) == 0

    @property
    def words(self) -> str:
        """Return it in words."""
        return f"in experts, of {self.columns} columns on each GPU"


def find_wrong_experts(
    stored: _Config, *, model: _Config, shared: int, replicas: int = 1, whole: bool = False
) -> Iterator[str]:
    """Yield why vLLM could not load a model's experts as they are stored; nothing where their size is not known.

    Args:
        stored: how the weights are stored, by config.json.
        model: the model's config.json.
        shared: how many GPUs share each layer.
        replicas: how many such sets of GPUs there are, all of which share the experts.
        whole: whether each GPU has whole experts.

    >>> qwen3 = {"num_experts": 128, "hidden_size": 2048, "moe_intermediate_size": 768}
    >>> fp8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    >>> [*find_wrong_experts(fp8, model=qwen3, shared=4)], [*find_wrong_experts(fp8, model=qwen3, shared=2)]
    (['8-bit floats in blocks of 128 x 128 in experts, of 192 columns on each GPU'], [])
    """
    inner = model.get("text_config")
    text = inner if isinstance(inner, Mapping) else model
    # Mixtral and its like have no word of their own for the experts' columns.
    hidden, columns, layers = (
        text.get("hidden_size"),
        text.get("moe_intermediate_size", text.get("intermediate_size")),
        text.get("num_hidden_layers"),
    )
    if not VllmShape.of(model).experts or type(hidden) is not int or type(columns) is not int:
        return
    experts = _Experts(hidden=hidden, columns=columns if whole else columns // (shared * replicas), shared=shared)
    # First layers may be left whole, or be dense.
    last = f"model.layers.{layers - 1 if type(layers) is int else 0}"
    names = [f"{last}.{parent}.experts.0.{part}" for parent, part in _NAMES]
    left = [str(one) for word in _LAYERS if isinstance(listed := stored.get(word), list) for one in listed]
    if any(_covers(one, name) for one in left for name in names):
        return
    match stored.get("quant_method"):
        case "compressed-tensors":
            yield from _check_compressed(stored, experts, names=names)
        case "fp8":
            yield from _check_blocks(stored.get("weight_block_size"), experts)
        # Single layers of GPTQ may be stored otherwise.
        case "gptq" if not (stored.get("dynamic") or stored.get("modules_in_block_to_quantize")):
            yield from _check_integers("gptq", stored.get("group_size"), experts)
        case "awq":
            yield from _check_integers("awq", stored.get("group_size", stored.get("q_group_size")), experts)


def _covers(pattern: str, name: str) -> bool:
    r"""Return whether a word of a list may stand for experts: in doubt it does.

    >>> name = "model.layers.47.mlp.experts.0.down_proj"
    >>> [_covers(one, name) for one in ("re:.*mlp.*", "model.layers.0.mlp.gate", "re:.*shared_experts.*", "lm_head")]
    [True, False, False, False]
    >>> _covers(r"re:backbone\.layers\.\d+\.mixer\.experts\..*", name)  # a model's parts may be called otherwise
    True
    """
    if pattern.startswith("re:"):
        try:
            matches = re.match(pattern.removeprefix("re:"), name) is not None
        except re.error:
            return True
        return matches or (not re.search(r"\(\?<?!", pattern) and re.search("(?<!shared_)experts", pattern) is not None)
    return ".experts" in pattern or pattern in name


def _check_compressed(stored: _Config, experts: _Experts, *, names: Sequence[str]) -> Iterator[str]:
    groups = stored.get("config_groups")
    known = [one for one in groups.values() if isinstance(one, Mapping)] if isinstance(groups, Mapping) else []
    for one in known:
        targets, weights = one.get("targets"), one.get("weights")
        words = [str(target) for target in targets] if isinstance(targets, list) else []
        named = any(word.startswith("re:") and _covers(word, name) for word in words for name in names)
        # Of several groups the one for experts may be another than that for all linear layers.
        if isinstance(weights, Mapping) and (named or (words == ["Linear"] and len(known) == 1)):
            yield from _check_group(weights, experts, whole=one.get("input_activations") is None)


def _check_group(weights: _Config, experts: _Experts, *, whole: bool) -> Iterator[str]:
    """Yield what speaks against one group; `whole`: whether its activations stay in 16 bits."""
    yield from _check_blocks(weights.get("block_structure"), experts)
    bits, kind, group = weights.get("num_bits", 8), weights.get("type", "int"), weights.get("group_size")
    size = group if type(group) is int and group > 0 else -1
    words = f"{bits}-bit {kind}{f' in groups of {size}' if size > 0 else ''}"
    packed = kind == "int" and whole
    if packed and weights.get("symmetric") is False:
        yield f"{words} in experts, which must be symmetric"
    # Without Marlin's kernels groups must be in order, and there must be some.
    elif packed and (size < 0 or weights.get("actorder") in ("group", "dynamic", True)):
        if not experts.suits_marlin(size):
            yield f"{words} {experts.words}"
    # A group that two GPUs share would get the scales of another.
    elif not experts.holds(_HOPPERS if kind == "int" and bits == 4 and not whole else max(1, size)):
        yield f"{words} {experts.words}"


def _check_blocks(block: object, experts: _Experts) -> Iterator[str]:
    match block:
        case [int(rows), int(columns)] if rows > 0 and columns > 0:
            if experts.columns % rows or (experts.shared > 1 and experts.columns % columns):
                yield f"8-bit floats in blocks of {rows} x {columns} {experts.words}"


def _check_integers(how: str, group: object, experts: _Experts) -> Iterator[str]:
    """Yield what speaks against AWQ and GPTQ, whose groups vLLM halves where Marlin does not take the experts."""
    if type(group) is not int or experts.suits_marlin(group):
        return
    size = group
    while size > 0 and not experts.holds(size):
        size //= 2
    if size < max(1, min(group, _LEAST_GROUP)):
        yield f"{how}{f' in groups of {group}' if group > 0 else ''} {experts.words}"
