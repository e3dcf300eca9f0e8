"""Shapes of decoders: how many parameters they have and where, from numbers of their config alone."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mathlete.errors import UserError
from mathlete.models.contexts import find_context, find_default
from mathlete.models.descriptions import find_quantization, read_folder_config
from mathlete.models.layers import list_linears
from mathlete.models.names import ModelSource

_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
"""What the configs of Qwen, Mixtral and gpt-oss, DeepSeek, and ERNIE call the experts of a layer."""
_OTHER_LAYERS = {
    r"text_config": "a decoder behind other parts, such as one for images",
    r"kv_lora_rank": "keys and values of low rank",
    r"(ssm_)?state_size|(mamba|ssm)_\w+": "layers of state",
    r"linear_(num|attn)_\w+|full_attention_interval": "linear attention",
    r"hybrid_\w+|(layers_)?block_types?|attn_(layer|type)_\w+|full_attn_idxs": "layers of several kinds",
    r"layer_group_size|conv_L_cache": "layers of several kinds",
}
"""{words that configs of other models have: what they tell of}: DeepSeek; Mamba, Falcon-H1, Bamba, Plamo 2; Qwen3-Next,
OLMo-hybrid, Kimi-linear, MiniMax; Nemotron-H, Zamba2, Jamba, LFM2, Ring. Their plan would be wrong."""
_ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}
"""Types of layers, in a config's layer_types, that need what attention needs, or less."""
PLAIN = frozenset(("gemma", "gemma2", "gemma3_text", "llama", "mistral", "qwen2", "qwen3"))
"""Kinds of model whose linear layers are Llama's: they are known without building the model."""
_NARROWER = {"float32": 2, "float64": 4}
"""{type that dense weights are stored in: how many times smaller they are in 16 bits, in which engines load them}."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The shape of a Llama or Qwen2 decoder; any other with gated feed-forward layers is close to one."""

    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    tied: bool
    """Whether the output layer is the embedding."""
    biases: bool
    """Whether queries, keys and values have one, as Qwen2's have."""
    own_linears: tuple[tuple[str, int, int], ...] = ()
    """(name, inputs, outputs) of one block's linear layers, where they are others than Llama's: Phi-3 holds queries,
    keys and values in one."""

    @classmethod
    def of(cls, source: ModelSource) -> "Shape":
        """Return the shape of a preset, else of the model's own config.

        Raises:
            UserError: not on this machine nor on the hub, or not a decoder of this kind.
        """
        known = SHAPES.get(source.name.removesuffix("-4bit"))
        if known:
            return known
        try:
            config = source.read_config()
            shape = cls.from_config(config)
        except (KeyError, ValueError, TypeError, ZeroDivisionError) as error:
            raise UserError(
                f"config.json of {source.location} must describe a decoder as Qwen2's and Llama's are",
                value=f"{type(error).__name__}: {error}",
                cure="copy it from the base model's folder",
            ) from error
        return shape if config.get("model_type") in PLAIN else replace(shape, own_linears=_read_linears(source))

    @staticmethod
    def read_context(config: Mapping[str, object]) -> int | None:
        """Return the tokens of the longest context by any model's config.json; None: it does not say."""
        return find_context(config)

    @staticmethod
    def read_default(kind: object, word: str) -> int | None:
        """Return the number that a config.json of a kind means by leaving it out; None: none is known."""
        return find_default(kind, word)

    @staticmethod
    def read_quantization(config: Mapping[str, object]) -> Mapping[str, object] | None:
        """Return how weights are stored, by any model's config.json; None of dense ones."""
        return find_quantization(config)

    @staticmethod
    def read_config(folder: Path) -> dict[str, Any]:
        """Return the config.json of a model's folder, with how its weights are stored where another file says that.

        Raises:
            UserError: it is not there, or a file is no JSON.
        """
        return read_folder_config(folder)

    @staticmethod
    def count_loaded(weights: int, *, model: Mapping[str, object]) -> int:
        """Return the bytes that an engine holds of weights, which on a GPU computes in 16 bits.

        Args:
            weights: bytes of the weights as they are stored.
            model: the model's config.json.

        >>> Shape.count_loaded(28, model={"torch_dtype": "float32"}), Shape.count_loaded(14, model={"dtype": "float16"})
        (14, 14)
        """
        if Shape.read_quantization(model) is not None:
            return weights
        inner = model.get("text_config")
        parts = (model, inner if isinstance(inner, Mapping) else {})
        said = [part.get(name) for part in parts for name in ("dtype", "torch_dtype")]
        return weights // next((_NARROWER.get(str(one), 1) for one in said if one), 1)

    @staticmethod
    def name_other_layers(config: Mapping[str, object]) -> str:
        """Return what a config.json has beside attention and feed-forward, and the word that tells; "" of nothing.

        >>> Shape.name_other_layers({"num_hidden_layers": 48, "full_attention_interval": 4})
        'linear attention (full_attention_interval)'
        """
        said = [name for name, value in config.items() if value]
        told = ((words, name) for word, words in _OTHER_LAYERS.items() for name in said if re.fullmatch(word, name))
        return next((f"{words} ({name})" for words, name in told), "")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Shape":
        """Return the shape that a config.json describes."""
        experts = next((name for name in _EXPERTS if (config.get(name) or 0) > 1), "")
        if experts:
            raise UserError(
                "memory is planned for decoders whose layers are dense",
                value=f"{config[experts]} experts a layer ({experts} in config.json)",
                cure="choose a dense model: a mixture of experts is neither planned nor trained here",
            )
        other = cls.name_other_layers(config)
        if types := {*map(str, config.get("layer_types") or ())} - _ATTENTION:
            other = f"{', '.join(sorted(types))} (layer_types)"
        if other:
            raise UserError(
                "memory is planned for decoders whose layers are as Qwen2's and Llama's, attention and feed-forward",
                value=f"{other} in config.json",
                cure="choose such a model: others are neither planned nor trained here",
            )
        heads = int(config["num_attention_heads"])
        # What is left out is the kind's own; `null` is said.
        own = {word: find_default(config.get("model_type"), word) for word in ("num_key_value_heads", "head_dim")}
        config = {**own, **config}
        return cls(
            vocabulary=int(config["vocab_size"]),
            hidden=int(config["hidden_size"]),
            intermediate=int(config["intermediate_size"]),
            layers=int(config["num_hidden_layers"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_width=int(config.get("head_dim") or config["hidden_size"] // heads),
            tied=bool(config.get("tie_word_embeddings", True)),
            biases=config.get("model_type") == "qwen2",
        )

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """{name: (inputs, outputs)} of one block's linear layers."""
        if self.own_linears:
            return {name: (inputs, outputs) for name, inputs, outputs in self.own_linears}
        queries, keys = self.heads * self.head_width, self.kv_heads * self.head_width
        return {
            "q_proj": (self.hidden, queries),
            "k_proj": (self.hidden, keys),
            "v_proj": (self.hidden, keys),
            "o_proj": (queries, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }

    def kv_bytes(self, width: int) -> int:
        """Return the bytes of one token's keys and values in all layers, numbers of `width` bytes."""
        return 2 * self.layers * self.kv_heads * self.head_width * width

    @property
    def linear_parameters(self) -> int:
        """Parameters of all blocks' linear layers, which are what is quantised."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.linears.values())

    @property
    def dense_parameters(self) -> int:
        """All others: embedding, output layer, norms, biases."""
        biases = (self.heads + 2 * self.kv_heads) * self.head_width if self.biases else 0
        tables = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return tables + self.hidden + self.layers * (2 * self.hidden + biases)

    @property
    def parameters(self) -> int:
        """All of them.

        >>> SHAPES["r1-qwen-1.5b"].parameters, SHAPES["r1-llama-8b"].parameters
        (1777088000, 8030261248)
        """
        return self.linear_parameters + self.dense_parameters


def _read_linears(source: ModelSource) -> tuple[tuple[str, int, int], ...]:
    """Return those that transformers builds; none for a kind that it does not know, which only vLLM may serve."""
    try:
        return list_linears(source.build_empty())
    except UserError:
        return ()


def _r1(vocabulary: int, hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int, biases: bool) -> Shape:
    return Shape(
        vocabulary=vocabulary,
        hidden=hidden,
        intermediate=intermediate,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_width=hidden // heads,
        tied=False,
        biases=biases,
    )


SHAPES = {
    "r1-qwen-1.5b": _r1(151936, 1536, 8960, 28, 12, 2, True),
    "r1-qwen-7b": _r1(152064, 3584, 18944, 28, 28, 4, True),
    "r1-qwen-14b": _r1(152064, 5120, 13824, 48, 40, 8, True),
    "r1-llama-8b": _r1(128256, 4096, 14336, 32, 32, 8, False),
}
"""The R1 distillations' (their config.json), so that a plan for them needs no hub."""
