"""Why vLLM refuses an adapter, or serves another model than was trained and says nothing.

Read in vLLM 0.19.1: `lora/peft_helper.py` (settings: it reads r, lora_alpha, target_modules, bias, modules_to_save,
use_rslora and use_dora, and no other), `lora/utils.py` (names of tensors), `lora/lora_model.py` and
`lora/model_manager.py` (layers: those of other names are refused by their last word, and else ignored). So rsLoRA is
taken, and what is refused here beside vLLM's own refusals would be served wrong.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from mathlete.adapters.base import ServedBase
from mathlete.adapters.files import AdapterFiles
from mathlete.adapters.foreign import ADAPTER_CONFIG, FIRST_WEIGHTS
from mathlete.adapters.tensors import TensorFacts
from mathlete.competitions import AdapterRules
from mathlete.errors import UserError
from mathlete.kaggle_image import vllm_facts

_PREFIX = "base_model.model."
_NAME = re.compile(
    rf"{re.escape(_PREFIX)}(?P<layer>.+)\.(?:lora_(?P<part>[AB])\.weight|lora_embedding_(?P<table>[AB]))"
)
_TABLES = ("embed_tokens", "embeddings", "lm_head")
_FLOATS = ("float32", "float16", "bfloat16")
_TRAIN = "train it again without that"
_UNREAD = {
    "layer_replication": "layers that are repeated",
    "alora_invocation_tokens": "activation from certain tokens on",
    "trainable_token_indices": "trained tokens of the embedding",
    "use_qalora": "QA-LoRA",
    "use_bdlora": "BD-LoRA",
    "arrow_config": "Arrow's routing",
    "monteclora_config": "MonteCLoRA",
    "kasa_config": "KaSA",
    "lora_bias": "biases of the adapter's own",
}
"""peft's settings that change what an adapter computes, and that vLLM does not read."""


def find_served_faults(
    adapter: AdapterFiles, *, rules: AdapterRules, base: ServedBase | None, dtype: str | None = None
) -> Iterator[UserError]:
    """Yield each reason not to hand the adapter in: rule, value and cure.

    Args:
        adapter: its files.
        rules: the competition's.
        base: what it is served with; None: its config is not here, and no layer is looked up in it.
        dtype: type that its weights will be cast to, by torch's name; None: they stay as they are.
    """
    yield from find_config_faults(adapter.config, rules=rules)
    if dtype is not None:
        cast = {name: replace(facts, dtype=dtype) for name, facts in adapter.tensors.items() if facts.dtype in _FLOATS}
        adapter = replace(adapter, tensors={**adapter.tensors, **cast})
    yield from _find_tensor_faults(adapter, rules=rules)
    if base is not None:
        yield from _find_base_faults(adapter, base)


def find_config_faults(config: Mapping[str, object], *, rules: AdapterRules) -> Iterator[UserError]:
    """Yield what is wrong with an adapter's settings, which are those that a training is given too."""
    if (kind := config.get("peft_type", "LORA")) != "LORA":
        yield UserError("an adapter that is handed in must be a LoRA", value=str(kind), cure=_TRAIN)
        return
    if missing := [name for name in ("r", "lora_alpha", "target_modules") if not config.get(name)]:
        rule, cure = f"{ADAPTER_CONFIG} must say what vLLM reads", "take the file as peft wrote it"
        yield UserError(rule, value=f"no {', '.join(missing)}", cure=cure)
        return
    yield from _find_rank_faults(config, most=rules.max_rank)
    if config.get("use_dora"):
        cure = "train it without (--method lora here, use_dora=False in peft): it can't be turned into a LoRA"
        yield UserError("an adapter must be without DoRA, which vLLM does not serve", value="use_dora true", cure=cure)
    if (first := config.get("init_lora_weights", True)) not in FIRST_WEIGHTS:
        rule = "an adapter must belong to its base as it is: this one's first weights changed the base"
        cure = (
            "save it with peft's path_initial_model_for_weight_conversion, which makes a plain LoRA of twice the rank"
        )
        yield UserError(rule, value=f"init_lora_weights {_show(first)}"[:200], cure=cure)
    if saved := config.get("modules_to_save"):
        rule = "an adapter must come without whole modules, embeddings among them: vLLM takes none"
        cure = "train it with modules_to_save=None, and add no tokens"
        yield UserError(rule, value=f"modules_to_save {_show(saved)}", cure=cure)
    if (bias := config.get("bias", "none")) != "none":
        rule, cure = "an adapter must be without trained biases, which vLLM does not take", "train with bias none"
        yield UserError(rule, value=f"bias {bias}", cure=cure)
    for name, what in _UNREAD.items():
        if config.get(name):
            rule = f"an adapter must be without {what}, of which vLLM knows nothing"
            yield UserError(rule, value=f"{name} {_show(config[name])}"[:200], cure=_TRAIN)
    if config.get("target_parameters"):
        rule = "an adapter must be of linear layers: of matrices that hold all experts in one nothing is rehearsed here"
        cure = "train with target_modules; save experts one by one, as vLLM reads them"
        yield UserError(rule, value=f"target_parameters {_show(config['target_parameters'])}"[:200], cure=cure)
    if rules.targets is not None and (others := sorted(_list_targets(config) - {*rules.targets})):
        rule = f"an adapter must be of the layers that the rules name: {', '.join(rules.targets)}"
        yield UserError(rule, value=", ".join(others), cure="train it with those as target_modules")


def _find_rank_faults(config: Mapping[str, object], *, most: int) -> Iterator[UserError]:
    rank, alpha = config["r"], config["lora_alpha"]
    if type(rank) is not int or rank < 1:
        yield UserError("an adapter's rank must be an integer above 0", value=f"r {rank!r}", cure="save it with peft")
        return
    if type(alpha) not in (int, float) or not math.isfinite(float(str(alpha))):
        yield UserError("an adapter's lora_alpha must be a number", value=repr(alpha), cure="save it with peft")
        return
    if rank > most:
        cure = f"train with --lora.rank {most}; or cut it to rank {most} by an SVD and measure what that costs"
        yield UserError(f"an adapter must have a rank of at most {most}", value=f"r {rank}", cure=cure)
    for name, usual in (("rank_pattern", rank), ("alpha_pattern", alpha)):
        own = config.get(name)
        if isinstance(own, Mapping) and (others := {layer: value for layer, value in own.items() if value != usual}):
            rule = f"every layer of an adapter must have the same rank and scale: vLLM reads no {name}"
            value, cure = f"{len(others)} layers, {_show(others)}"[:200], "train it without, at one rank and alpha"
            yield UserError(rule, value=value, cure=cure)


def _list_targets(config: Mapping[str, object]) -> set[str]:
    """List the last words of the layers that are named; none of a pattern or of all-linear."""
    targets = config.get("target_modules")
    return {str(one).rpartition(".")[2] for one in targets} if isinstance(targets, list) else set()


def _find_tensor_faults(adapter: AdapterFiles, *, rules: AdapterRules) -> Iterator[UserError]:
    """Yield what is wrong with names, ranks and types of its tensors; of one kind of fault the first tensor alone."""
    tensors, rank = adapter.tensors, adapter.config.get("r")
    if not tensors:
        yield UserError("an adapter must hold tensors", value="none", cure="save it again with peft")
        return
    seen = set[str]()
    for name, facts in tensors.items():
        fault = _find_name_fault(name) or _find_pair_fault(name, facts, tensors=tensors, rank=rank, rules=rules)
        if fault is not None and fault.rule not in seen:
            seen.add(fault.rule)
            yield fault
    layers = {match["layer"].rpartition(".")[2] for name in tensors if (match := _NAME.fullmatch(name))}
    if rules.targets is not None and (others := sorted(layers - {*rules.targets})):
        rule = f"an adapter must be of the layers that the rules name: {', '.join(rules.targets)}"
        if rule not in seen and not _list_targets(adapter.config) - {*rules.targets}:
            yield UserError(rule, value=", ".join(others), cure="train it with those as target_modules")


_BAD_NAMES: Sequence[tuple[str, str, str]] = (
    (
        r".*\.lora_[AB]\.[^.]+\.weight",
        "a tensor's name must be without the adapter's own name, as peft's save_pretrained writes it",
        "save it with save_pretrained, not its state_dict; no adapter's name may hold another's",
    ),
    (
        r".*\.lora_magnitude_vector(\..*)?",
        "an adapter must be without DoRA's magnitudes, which vLLM does not serve",
        "train it without use_dora",
    ),
    (
        r".*(\.modules_to_save\.|\.base_layer\.weight$|token_adapter).*|.*(embed_tokens|lm_head|embeddings)\.weight",
        "an adapter must come without embeddings and other whole layers: vLLM refuses them or leaves them out",
        "train it with modules_to_save=None and save it with save_embedding_layers=False; add no tokens",
    ),
    (r".*\.bias", "an adapter must be without trained biases, which vLLM does not take", "train it with bias none"),
    (
        r"(?!base_model\.model\.).*",
        f"a tensor's name must begin with {_PREFIX}, as peft writes it",
        "save it with peft's save_pretrained, or rename the tensors",
    ),
    (
        r".*",
        "a tensor's name must be one that vLLM loads: LAYER.lora_A.weight or LAYER.lora_B.weight",
        "save it with peft",
    ),
)
"""(pattern of names that vLLM does not load, rule, cure): the first that fits says why."""


def _find_name_fault(name: str) -> UserError | None:
    if _NAME.fullmatch(name):
        return None
    rule, cure = next((rule, cure) for pattern, rule, cure in _BAD_NAMES if re.fullmatch(pattern, name))
    return UserError(rule, value=name, cure=cure)


def _find_pair_fault(
    name: str, facts: TensorFacts, *, tensors: Mapping[str, TensorFacts], rank: object, rules: AdapterRules
) -> UserError | None:
    match = _NAME.fullmatch(name)
    assert match is not None  # `_find_name_fault` has seen it
    table, part = match["table"] is not None, match["part"] or match["table"]
    other = name.replace("lora_A", "lora_B") if part == "A" else name.replace("lora_B", "lora_A")
    other = re.sub("lora_embedding_[AB]$", f"lora_embedding_{'B' if part == 'A' else 'A'}", other) if table else other
    if other not in tensors:
        return UserError("an adapter must hold both matrices of a layer", value=f"no {other}", cure="save it again")
    if len(facts.shape) != 2:
        rule, cure = "an adapter's matrices must have two dimensions", "leave convolutions out of target_modules"
        return UserError(rule, value=f"{name}, {facts.shape}", cure=cure)
    own = facts.shape[0] if part == "A" else facts.shape[1]
    if own != rank:
        rule = f"each matrix must have the rank that {ADAPTER_CONFIG} says, {rank}"
        return UserError(
            rule, value=f"{name}, {facts.shape}", cure="take both files of one saving, and one rank for all"
        )
    allowed = rules.dtypes or _FLOATS
    if facts.dtype not in allowed:
        cast = next((one for one in allowed if one != "float32"), allowed[0])
        rule = f"an adapter's tensors must be {' or '.join(allowed)}"
        return UserError(rule, value=f"{name}, {facts.dtype}", cure=f"build it with --adapter.dtype {cast}")
    return None


def _find_base_faults(adapter: AdapterFiles, base: ServedBase) -> Iterator[UserError]:
    """Yield layers that the base does not have, in these shapes, or that vLLM does not adapt in it."""
    facts = vllm_facts()
    if base.architecture not in facts.adapted:
        rule = f"vLLM {facts.version} must serve adapters of the base"
        yield UserError(rule, value=base.architecture or "a base without a name", cure="use another base or engine")
        return
    if missing := _find_missing(adapter, base):
        rule = f"an adapter must hold all layers that {ADAPTER_CONFIG} names: vLLM leaves the others as they were"
        yield UserError(rule, value=f"none of {', '.join(missing)}", cure="take both files of one saving, whole")
    seen = set[str]()
    for name, tensor in adapter.tensors.items():
        match = _NAME.fullmatch(name)
        if match is None or len(tensor.shape) != 2:
            continue
        fault = _find_layer_fault(match["layer"], part=match["part"] or match["table"], shape=tensor.shape, base=base)
        if fault is not None and fault.rule not in seen:
            seen.add(fault.rule)
            yield fault


def _find_missing(adapter: AdapterFiles, base: ServedBase) -> list[str]:
    """List the names of target_modules that the base has layers of, and the adapter has none of."""
    layers = {match["layer"].rpartition(".")[2] for name in adapter.tensors if (match := _NAME.fullmatch(name))}
    there = {name.rpartition(".")[2] for name in base.linears}
    return sorted((_list_targets(adapter.config) & there) - layers)


def _find_layer_fault(layer: str, *, part: str, shape: tuple[int, ...], base: ServedBase) -> UserError | None:
    facts, word = vllm_facts(), layer.rpartition(".")[2]
    if word in _TABLES and base.architecture not in facts.adapted_tables:
        rule = f"embedding and output layer must be left alone: vLLM {facts.version} does not adapt them"
        return UserError(rule, value=f"{layer} of a {base.architecture}", cure="leave it out of target_modules")
    if word in _TABLES and base.tied:
        rule = "a layer must not be adapted where it is the output layer and the embedding in one"
        return UserError(rule, value=layer, cure="leave it out of target_modules")
    if word in facts.ignored.get(base.architecture, ()):
        rule = f"no layer must be adapted that vLLM {facts.version} leaves as it is without an error"
        return UserError(rule, value=f"{layer} of a {base.architecture}", cure=f"leave {word} out of target_modules")
    if (linear := base.find_layer(layer)) is None:
        rule = "each layer of an adapter must be a linear layer of the base: vLLM leaves others out, or refuses them"
        return UserError(rule, value=f"{layer}, which a {base.architecture} does not have", cure=_OF_BASE)
    outputs, inputs = linear
    if word in ("embed_tokens", "embeddings"):
        outputs, inputs = inputs, outputs
    if (shape[1] != inputs) if part == "A" else (shape[0] != outputs):
        rule = "an adapter must fit the base that it is served with"
        value = f"{layer}: {shape} for {inputs} inputs and {outputs} outputs"
        return UserError(rule, value=value, cure=_OF_BASE)
    return None


_OF_BASE = "take the adapter that was trained on this base, saved by peft over transformers' own names"


def _show(value: object) -> str:
    """Return a setting as its file has it."""
    return json.dumps(value, default=str)
