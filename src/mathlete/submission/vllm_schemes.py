"""Whether vLLM has kernels for how a model's weights are stored: bits, groups, scales, and shapes on each GPU.

As the loaders of vLLM 0.19.1 ask (model_executor/layers/quantization: compressed_tensors, gptq, gptq_marlin, awq,
awq_marlin, fp8, mxfp4; model_executor/kernels/linear/mixed_precision). Shapes are held against the kernels for plain
decoders whose layers are all stored in one way; of others only their experts are (`vllm_experts`).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from mathlete.errors import UserError
from mathlete.kaggle_image import vllm_facts
from mathlete.models import Device, Shape
from mathlete.sampling.served import VllmShape
from mathlete.submission.vllm_experts import find_wrong_experts
from mathlete.submission.weights import tell_other_weights

_Config = Mapping[str, object]

_MARLIN = (-1, 32, 64, 128)
"""Sizes of groups that Marlin has kernels for; -1: a whole row."""
_ACTIVATIONS = ("naive-quantized", "int-quantized", "float-quantized", "nvfp4-pack-quantized")
"""Formats of compressed-tensors in which activations are made smaller too."""
_HOPPER = 9.0
_WHOLE = ("tensor", "channel", "block")


@dataclass(frozen=True, kw_only=True)
class _Layer:
    """A linear layer as one GPU has it."""

    name: str
    inputs: int
    outputs: tuple[int, ...]
    """Those of each layer that vLLM puts together in it."""
    row: int
    """Inputs on all GPUs together."""


@dataclass(frozen=True, kw_only=True)
class _There:
    """Where the weights are to be served."""

    capability: float
    layers: tuple[_Layer, ...]
    """Empty: not known."""
    experts: bool

    @property
    def has_float16(self) -> bool:
        """Whether numbers are computed in float16, which some kernels need: on GPUs without bfloat16."""
        return self.capability < 8


@dataclass(frozen=True, kw_only=True)
class _Numbers:
    """How numbers are stored, as compressed-tensors 0.15 completes what a config says (`QuantizationArgs`)."""

    bits: int
    kind: str
    group: int
    """-1: none."""
    symmetric: bool
    dynamic: bool
    ordered: bool
    strategy: str

    @classmethod
    def of(cls, config: object) -> "_Numbers | None":
        if not isinstance(config, Mapping):
            return None
        group, order = config.get("group_size"), config.get("actorder")
        usual = "tensor" if group is None else "channel" if group == -1 else "group"
        return cls(
            bits=_whole(config.get("num_bits", 8)),
            kind=str(config.get("type") or "int").lower(),
            group=-1 if group is None else _whole(group),
            symmetric=config.get("symmetric", True) is not False,
            dynamic=bool(config.get("dynamic")),
            ordered=order is True or str(order).lower() == "group",
            strategy=str(config.get("strategy") or usual).lower(),
        )

    def has(self, **said: object) -> bool:
        return all(getattr(self, name) == value for name, value in said.items())

    @property
    def words(self) -> str:
        """Return it in words."""
        group = f" of {self.group}" if self.group > 0 else ""
        return f"{self.bits}-bit {self.kind} by {self.strategy}{group}"


@dataclass(frozen=True, kw_only=True)
class WeightRoom:
    """What of a machine has room for a model's weights."""

    shared: Callable[[int, int], bool] = lambda count, stages: True
    """Whether vLLM has it where so many GPUs share each layer, in so many parts of its layers one after the other."""
    embedded: bool = True
    """Whether the embedded engine has it, on one GPU."""


def find_wrong_scheme(
    *,
    gpu: Device,
    shared: int,
    model: _Config,
    replicas: int = 1,
    whole_experts: bool = False,
    room: WeightRoom | None = None,
) -> Iterator[UserError]:
    """Yield why vLLM could not load weights as they are stored, on GPUs of a kind.

    Args:
        gpu: the kind.
        shared: how many share each layer.
        model: the model's config.json.
        replicas: how many such sets of GPUs share a mixture's experts.
        whole_experts: whether each GPU has whole experts.
        room: what has room for the weights, without which nothing is a cure; None: everything has.
    """
    stored, room = Shape.read_quantization(model) or {}, room or WeightRoom()
    if (check := _CHECKS.get(str(stored.get("quant_method")))) is None:
        return

    def list_wrong(count: int, whole: bool) -> list[str]:
        there = _place(gpu, shared=count, model=model, stored=stored)
        experts = find_wrong_experts(stored, model=model, shared=count, replicas=replicas, whole=whole)
        return [*check(stored, there), *experts]

    for why in list_wrong(shared, whole_experts):
        fewer = (count for count in range(shared - 1, 0, -1) if shared % count == 0)
        fitting = [count for count in fewer if not list_wrong(count, whole_experts)]
        ways = (*((count, 1) for count in fitting), *((count, shared // count) for count in fitting))
        parallel = next((_tell_shares(*way) for way in ways if room.shared(*way)), "")
        if not whole_experts and room.shared(shared, 1) and not list_wrong(shared, True):
            parallel += "--vllm.extra enable_expert_parallel true, or "
        rule = f"vLLM {vllm_facts().version} must have kernels for the weights on {gpu.name}"
        yield UserError(
            rule, value=why, cure=f"{parallel}{tell_other_weights(gpu, model=model, embedded=room.embedded)}"
        )


def _tell_shares(count: int, stages: int) -> str:
    cut = f" --vllm.extra pipeline_parallel_size {stages}" if stages > 1 else ""
    return f"--vllm.tensor-parallel {count}{cut}, or "


def _place(gpu: Device, *, shared: int, model: _Config, stored: _Config) -> _There:
    inner = model.get("text_config")
    text = inner if isinstance(inner, Mapping) else model
    shape = VllmShape.of(model)
    plain = "num_attention_heads" in text and not shape.experts and shape.layers and _is_uniform(stored)
    layers = tuple(_list_layers(text, shape=shape, shared=shared)) if plain else ()
    return _There(capability=gpu.capability or 0, layers=layers, experts=shape.experts)


def _is_uniform(stored: _Config) -> bool:
    """Return whether all linear layers of the blocks are stored in one way."""
    left = [one for name in ("ignore", "modules_to_not_convert", "ignored_layers") for one in _list(stored.get(name))]
    groups = stored.get("config_groups")
    one = not isinstance(groups, Mapping) or [_list(_map(group).get("targets")) for group in groups.values()] == [
        ["Linear"]
    ]
    parts = stored.get("dynamic") or stored.get("modules_in_block_to_quantize")
    return one and not parts and all("head" in str(name) or "embed" in str(name) for name in left)


def _list_layers(text: _Config, *, shape: VllmShape, shared: int) -> Iterator[_Layer]:
    hidden, heads, inner = (
        _whole(text.get(name)) for name in ("hidden_size", "num_attention_heads", "intermediate_size")
    )
    keys, columns = max(1, shape.keys // shared) * shape.width, heads * shape.width
    yield _Layer(name="qkv_proj", inputs=hidden, outputs=(columns // shared, keys, keys), row=hidden)
    yield _Layer(name="o_proj", inputs=columns // shared, outputs=(hidden,), row=columns)
    if inner:
        yield _Layer(name="gate_up_proj", inputs=hidden, outputs=(inner // shared,) * 2, row=hidden)
        yield _Layer(name="down_proj", inputs=inner // shared, outputs=(hidden,), row=inner)


def _check_compressed(stored: _Config, there: _There) -> Iterator[str]:
    groups = [_map(group) for group in _map(stored.get("config_groups")).values()]
    for group in groups:
        targets = _list(group.get("targets"))
        # vLLM leaves attention to the scales of the cache.
        if len(targets) == 1 and str(targets[0]).endswith("Attention"):
            continue
        numbers, inputs = _Numbers.of(group.get("weights")), _Numbers.of(group.get("input_activations"))
        if numbers is None:
            yield "a group of compressed-tensors without weights"
        else:
            how = str(group.get("format") or stored.get("format"))
            yield from _check_group(numbers, inputs, how=how, there=there)
    sparse = _map(stored.get("sparsity_config"))
    if _list(sparse.get("targets")) and sparse.get("format") not in (None, "dense"):
        yield f"sparse weights ({sparse['format']}), which it no longer supports"


def _check_group(weights: _Numbers, inputs: _Numbers | None, *, how: str, there: _There) -> Iterator[str]:
    """Yield what speaks against one group, in the order of `_get_scheme_from_parts`."""
    small = weights.has(kind="float", bits=4, symmetric=True)
    least = 0.0
    # Four bits of floating point, with one scale more for the whole tensor (nvfp4) or without (mxfp4).
    if small and weights.has(strategy="tensor_group", group=16) and inputs is None:
        least = 7.5
    elif small and weights.has(strategy="group", group=32):
        least = 8.0
    # Of Hopper alone, whatever the format is called.
    elif there.capability == _HOPPER and weights.has(bits=4, strategy="group", symmetric=True) and inputs is not None:
        if not (weights.group == 128 and inputs.has(bits=8, strategy="token", symmetric=True, dynamic=True)):
            yield f"{weights.words} with activations in {inputs.words}, where it takes groups of 128 and tokens"
        yield from (_tell(weights.words, one) for one in there.layers if not _divides(one, 128, 128))
    elif inputs is None and weights.has(dynamic=False) and how == "pack-quantized":
        yield from _check_packed(weights, there)
    elif how in _ACTIVATIONS and (needed := _find_least(weights, inputs)) is not None:
        least = needed
    else:
        beside = f" with activations in {inputs.words}" if inputs else ""
        yield f"{weights.words}{beside}, {how}: it has no such scheme"
    if least > there.capability:
        yield f"{weights.words}, which needs compute capability {least:g}"


def _find_least(weights: _Numbers, inputs: _Numbers | None) -> float | None:
    """Return the compute capability that weights with activations in few bits need; None: there is no such scheme."""
    if not weights.symmetric or weights.dynamic:
        return None
    # Activations that a GPU cannot make smaller are left as they are.
    if weights.has(kind="float", bits=8) and weights.strategy in _WHOLE:
        return 7.5
    if inputs is None:
        return None
    if weights.has(kind="float", bits=4, strategy="tensor_group", group=16):
        return 7.5 if inputs.has(kind="float", bits=4, strategy="tensor_group", group=16, symmetric=True) else None
    by = "token" if inputs.dynamic else "tensor"
    fits = weights.bits == inputs.bits == 8 and weights.strategy in ("tensor", "channel") and inputs.strategy == by
    return 7.5 if fits else None


def _check_packed(weights: _Numbers, there: _There) -> Iterator[str]:
    """Yield what speaks against integers packed into words, with activations in 16 bits."""
    if weights.bits not in (4, 8) or weights.strategy not in ("channel", "group"):
        yield f"{weights.words}, where it takes 4 and 8 bits, by channel or group"
        return
    for layer in there.layers or (None,):
        if not _has_kernel(weights, layer, there):
            yield _tell(weights.words, layer)
            return


def _has_kernel(weights: _Numbers, layer: _Layer | None, there: _There) -> bool:
    """Return whether one of `_POSSIBLE_KERNELS` takes a layer; None: of any shape."""
    group, whole = weights.group, layer is None or layer.inputs == layer.row
    if layer is not None and not weights.ordered and group > 0 and layer.inputs % group:
        return False
    # Machete, on Hopper alone.
    if (
        there.capability == _HOPPER
        and group in (-1, 64, 128)
        and _divides(layer, 64, 128)
        and (whole or not weights.ordered)
    ):
        return True
    plain = weights.symmetric
    # AllSpark, of whole rows in 8 bits.
    if 8 <= there.capability < 9 and weights.bits == 8 and plain and group == -1 and _divides(layer, 16, 16):
        return True
    # Marlin.
    if there.capability >= 7.5 and (plain or weights.bits == 4) and group in _MARLIN and _divides(layer, 128, 64):
        return True
    # Exllama.
    fits = layer is None or (layer.row % max(1, group) == 0 and _divides(layer, 1, 32 // weights.bits))
    return there.has_float16 and plain and group > 0 and fits and (whole or not weights.ordered)


def _divides(layer: _Layer | None, inputs: int, outputs: int) -> bool:
    return layer is None or (layer.inputs % inputs == 0 and sum(layer.outputs) % outputs == 0)


def _check_gptq(stored: _Config, there: _There) -> Iterator[str]:
    bits, group, ordered = (
        _whole(stored.get("bits")),
        _whole(stored.get("group_size", -1)),
        bool(stored.get("desc_act")),
    )
    words = f"{bits}-bit gptq{f' in groups of {group}' if group > 0 else ''}"
    if bits not in (2, 3, 4, 8):
        yield f"{words}, where it takes 2, 3, 4 and 8 bits"
        return
    known = {"group_size", "sym", "desc_act"} <= stored.keys()
    if known and stored.get("sym") is True and bits in (4, 8) and group in _MARLIN:
        numbers = _Numbers(
            bits=bits,
            kind="int",
            group=group,
            symmetric=True,
            dynamic=False,
            ordered=ordered and group > 0,
            strategy="",
        )
        wrong = (layer for layer in there.layers if not _has_kernel(numbers, layer, there))
        yield from (_tell(words, layer) for layer in wrong)
    elif not there.has_float16:
        yield f"{words}, {'not ' * (stored.get('sym') is not True)}symmetric, which it serves in float16 alone"
    else:
        wrong = (one for one in there.layers if group > 0 and one.inputs % group)
        yield from (_tell(words, layer) for layer in wrong)


def _check_awq(stored: _Config, there: _There) -> Iterator[str]:
    names = (("bits", "w_bit"), ("group_size", "q_group_size"))
    bits, group = (_whole(stored.get(name, stored.get(other))) for name, other in names)
    words = f"{bits}-bit awq{f' in groups of {group}' if group > 0 else ''}"
    if bits != 4:
        yield f"{words}, where it takes 4 bits"
        return
    fast = stored.get("zero_point") is True and group in _MARLIN
    if not fast and not there.has_float16:
        yield f"{words}{'' if stored.get('zero_point') else ' without zero points'}, which it serves in float16 alone"
        return
    for layer in there.layers:
        # What Marlin does not take goes to kernels of float16.
        fits = layer.inputs % max(1, group) == 0 and sum(layer.outputs) % 8 == 0
        if not fits or not (there.has_float16 or _divides(layer, 128, 64)):
            yield _tell(words, layer)


def _check_fp8(stored: _Config, there: _There) -> Iterator[str]:
    scheme, block = stored.get("activation_scheme"), stored.get("weight_block_size")
    if scheme not in ("static", "dynamic"):
        yield f"fp8 with activation_scheme {scheme}, where it takes static and dynamic"
    # Kernels are of e4m3 (`Fp8LinearMethod`).
    if str(stored.get("fmt", "e4m3")).lower().startswith("e5m2"):
        yield "fp8 of e5m2, where it takes e4m3"
    if block is None:
        return
    sizes = [_whole(one) for one in _list(block)]
    if len(sizes) != 2 or min(sizes) < 1 or scheme != "dynamic":
        yield f"fp8 in blocks of {block} with activation_scheme {scheme}, where it takes two sizes and dynamic"
        return
    for layer in there.layers:
        # The last of layers that are put together may end within a block, where each GPU has it whole.
        cut = layer.outputs if any(one.inputs != one.row for one in there.layers) else layer.outputs[:-1]
        if (layer.inputs != layer.row and layer.inputs % sizes[1]) or (
            len(layer.outputs) > 1 and any(one % sizes[0] for one in cut)
        ):
            yield _tell(f"fp8 in blocks of {sizes[0]} x {sizes[1]}", layer)


def _check_mxfp4(_: _Config, there: _There) -> Iterator[str]:
    if not there.experts:
        yield "mxfp4 of a model without experts, whose layers it does not load"


_CHECKS: dict[str, Callable[[_Config, _There], Iterator[str]]] = {
    "compressed-tensors": _check_compressed,
    "gptq": _check_gptq,
    "awq": _check_awq,
    "fp8": _check_fp8,
    "mxfp4": _check_mxfp4,
}


def _tell(words: str, layer: _Layer | None) -> str:
    if layer is None:
        return f"{words}, for which it has none"
    return f"{words} in {layer.name}, of {layer.inputs} x {sum(layer.outputs)} on each GPU"


def _whole(value: object) -> int:
    return value if type(value) is int else 0


def _map(value: object) -> _Config:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
