"""What vLLM makes of a model's shape, read out of its config.json as vLLM 0.19.1 does.

>>> VllmShape.of({"num_attention_heads": 28, "max_position_embeddings": 32768}).shares
28
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

from mathlete.kaggle_image import vllm_facts
from mathlete.models import Shape
from mathlete.sampling.served.vllm_settings import VllmSettings

_OTHER_CACHES = ("block_configs", "attention_chunk_size", "interleaved_sliding_window", "num_kv_shared_layers")
"""Words by which layers of attention keep other than all keys and values of a sample: of Nemotron-NAS, Llama 4,
openPangu, Gemma 3n."""
_LOW_RANK = (
    *("AXK1", "deepseek_v2", "deepseek_v3", "deepseek_v32", "deepseek_mtp", "glm_moe_dsa", "glm4_moe_lite"),
    *("glm4_moe_lite_mtp", "kimi_k2", "kimi_linear", "longcat_flash", "pangu_ultra_moe", "pangu_ultra_moe_mtp"),
    "bailing_hybrid",
)
"""Kinds of model whose attention vLLM computes in the low rank of their keys and values, where config.json says one
(0.19.1, transformers_utils/model_arch_config_convertor.py); others with such a rank it serves as plain ones."""
_OLDER = {
    "num_attention_heads": ("n_head", "n_heads"),
    "num_key_value_heads": ("n_head_kv", "num_kv_heads", "multi_query_group_num"),
    "num_hidden_layers": ("n_layer", "n_layers", "num_layers"),
    "hidden_size": ("n_embd", "d_model"),
    "intermediate_size": ("n_inner", "ffn_hidden_size"),
    "head_dim": (),
    "vocab_size": (),
}
"""{word: what older configurations say in its place}: transformers' `attribute_map` of the decoders that vLLM serves,
and what vLLM itself looks for."""
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
"""What vLLM takes a mixture of experts by (`get_num_experts`)."""
_SENSES = ("vision_config", "audio_config")
"""Parts of a config.json that describe what a model sees or hears with."""
_HELD = {"bitsandbytes": 0.28, "fp8": 0.5, "mxfp8": 0.52}
"""{how vLLM makes dense weights smaller as it loads them: part of 16 bits that a linear layer has then}, with scales
for 64 weights of 4 bits and for 32 of mxfp8 (0.19.1, quantization/bitsandbytes.py and mxfp8.py)."""
_MOST_GPUS = 1024
"""Beyond any machine."""


@dataclass(frozen=True, kw_only=True)
class VllmShape:
    """What of a model's shape vLLM's settings must suit."""

    shares: int | None
    """What the number of GPUs that share it must divide; None: not known. Each GPU has as many attention heads and
    columns of a feed-forward layer, and each key-value head is on one GPU, or on equally many. 1 for weights of
    bitsandbytes, which vLLM cannot split (bitsandbytes_loader.py)."""
    longest: int | None
    """Tokens of the longest context; None: not known."""
    layers: int | None
    """Those that keep keys and values of all tokens, which is each of a plain decoder; None of any other."""
    keys: int
    """Key-value heads."""
    width: int
    """Numbers of a head."""
    experts: bool
    """Whether its layers have experts."""
    multimodal: bool
    """Whether it also sees or hears."""
    attention: Literal["plain", "low rank", "sparse"]
    """What its attention kernels must do; sparse is of low rank too."""

    @classmethod
    def of(cls, config: Mapping[str, object]) -> Self:
        """Return what a config.json says.

        >>> VllmShape.of({"text_config": {"num_attention_heads": 8}}).shares
        8
        >>> VllmShape.of({"n_head": 25, "n_embd": 1600}).shares
        25
        >>> VllmShape.of({"num_attention_heads": 6, "num_key_value_heads": 2, "intermediate_size": 512}).shares
        2
        """
        inner = config.get("text_config")
        # A part for texts that names no kind is of the whole's.
        text = {"model_type": config.get("model_type"), **inner} if isinstance(inner, Mapping) else config
        numbers = _read_numbers(text)
        heads = numbers.get("num_attention_heads", 0)
        whole = (Shape.read_quantization(config) or {}).get("quant_method") == "bitsandbytes"
        plain = heads and "hidden_size" in numbers and not _keeps_less(text)
        return cls(
            shares=1 if whole else _count_shares(numbers),
            longest=Shape.read_context(config),
            layers=numbers.get("num_hidden_layers") if plain else None,
            keys=numbers.get("num_key_value_heads", heads),
            width=numbers.get("head_dim", numbers.get("hidden_size", 0) // max(1, heads)),
            experts=any(text.get(name) for name in _EXPERTS),
            multimodal=_is_multimodal(config),
            attention=_name_attention(text),
        )

    def count_token_bytes(self, *, shared: int, number: int) -> int | None:
        """Return the bytes of a token's keys and values on each GPU; None where they are not those of a plain decoder.

        Args:
            shared: how many GPUs share the model. Where these are more than its key-value heads, several hold the same.
            number: bytes of a number.
        """
        return self.layers and 2 * self.layers * max(1, self.keys // shared) * self.width * number

    def count_context_bytes(self, tokens: int, *, vllm: VllmSettings, shared: int, number: int) -> float | None:
        """Return the bytes of a sample's keys and values on each GPU; None where they are not those of a plain decoder.

        Args:
            tokens: of prompt and completion together.
            vllm: vLLM's settings.
            shared: how many GPUs share the model, in all parts of its layers.
            number: bytes of a number.
        """
        stages, block = vllm.count_stages(), vllm.read_block()
        token = self.count_token_bytes(shared=shared // stages, number=number)
        # The cache is of whole blocks (`max_memory_usage_bytes` of v1/kv_cache_interface.py).
        return token and -(-tokens // block) * block * token / stages

    @staticmethod
    def count_held(weights: int, *, model: Mapping[str, object], vllm: VllmSettings) -> int:
        """Return the bytes of weights that vLLM holds, by how it is told to make dense ones smaller.

        Args:
            weights: bytes of the weights as they are stored.
            model: the model's config.json.
            vllm: vLLM's settings.

        >>> fp8 = VllmSettings(extra={"quantization": "fp8"})
        >>> VllmShape.count_held(3000, model={"vocab_size": 50, "hidden_size": 10}, vllm=fp8)
        2500
        """
        loaded = Shape.count_loaded(weights, model=model)
        part = _HELD.get(str(vllm.read_extra().get("quantization")), 1.0)
        if part == 1 or Shape.read_quantization(model) is not None:
            return loaded
        inner = model.get("text_config")
        text = inner if isinstance(inner, Mapping) else model
        numbers = _read_numbers(text)
        # Embedding and head keep their 16 bits; a config that does not say whether they are one is read as of two.
        tables = 2 * numbers.get("vocab_size", 0) * numbers.get("hidden_size", 0)
        tied = any(one.get("tie_word_embeddings") is True for one in (model, text))
        kept = min(loaded, tables if tied else 2 * tables)
        return kept + int(part * (loaded - kept))


def _read_numbers(text: Mapping[str, object]) -> dict[str, int]:
    """Return the whole numbers above 0, those under older names under today's too, and what the kind means by none."""
    numbers = {name: value for name, value in text.items() if type(value) is int and value > 0}
    for name, older in _OLDER.items():
        said = next((numbers[one] for one in (name, *older) if one in numbers), None)
        if said is None and not any(one in text for one in (name, *older)):
            said = Shape.read_default(text.get("model_type"), name)
        if said is not None:
            numbers[name] = said
    # Falcon's and GPT-BigCode's word for one head that all share.
    if text.get("multi_query") is True and text.get("new_decoder_architecture") is not True:
        numbers["num_key_value_heads"] = 1
    # MPT's and DBRX's.
    inner = text.get("attn_config")
    if isinstance(inner, Mapping) and type(keys := inner.get("kv_n_heads")) is int and keys > 0:
        numbers["num_key_value_heads"] = keys
    return numbers


def _count_shares(numbers: Mapping[str, int]) -> int | None:
    if "num_attention_heads" not in numbers:
        return None
    heads = numbers["num_attention_heads"]
    columns = [numbers[name] for name in ("intermediate_size", "moe_intermediate_size") if name in numbers]
    shared, keys = math.gcd(heads, *columns), numbers.get("num_key_value_heads", heads)
    counts = [count for count in range(1, min(shared, _MOST_GPUS) + 1) if shared % count == 0]
    wrong = {count for count in counts if keys % count and count % keys}
    return max(most for most in counts if not any(most % count == 0 for count in wrong))


def _name_attention(text: Mapping[str, object]) -> Literal["plain", "low rank", "sparse"]:
    if text.get("model_type") not in _LOW_RANK or text.get("kv_lora_rank") is None:
        return "plain"
    return "sparse" if "index_topk" in text else "low rank"


def _is_multimodal(config: Mapping[str, object]) -> bool:
    kinds = config.get("architectures")
    known = isinstance(kinds, list) and any(kind in vllm_facts().multimodal for kind in kinds)
    # A later vLLM may know kinds that have no name here.
    return known or any(config.get(part) for part in _SENSES)


def _keeps_less(text: Mapping[str, object]) -> bool:
    """Return whether some layer keeps other than the keys and values of all tokens."""
    kinds = text.get("layer_types")
    windows = text.get("sliding_window") and text.get("use_sliding_window") is not False
    others = isinstance(kinds, list) and any(kind != "full_attention" for kind in kinds)
    return bool(windows or others or Shape.name_other_layers(text) or any(text.get(name) for name in _OTHER_CACHES))
