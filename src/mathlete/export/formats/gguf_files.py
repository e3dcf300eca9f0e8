"""GGUF for llama.cpp, in the types that its `gguf` package writes: F16, Q8_0 and Q4_0.

Q8_0: blocks of 32 weights, s = max|w| / 127 in 16 bits, q = round(w / s). Q4_0: s = (the weight farthest from 0) / -8,
q = round(w / s) + 8, and embedding and output layer in Q8_0: llama.cpp's own tools take Q6_K there, which the package
can only read. Names, metadata and the order of Llama's rotary halves are those of llama.cpp's own convert_hf_to_gguf.py
(github.com/ggml-org/llama.cpp); the bytes come from its `gguf` package. Qwen2 and Llama shapes, byte-level
BPE as four families have it.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathlete.errors import UserError
from mathlete.export.formats.weights import LayerWeights, WriteOptions
from mathlete.models import ModelSource, load_model
from mathlete.runs import read_json

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from numpy import float32
    from numpy.typing import NDArray
    from transformers import PretrainedConfig, PreTrainedModel

_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CURE = "use another of --export.formats"
_WORDS, _DIGITS = "GPT-2's own expression", "each digit apart"
_SPLITS = {
    (_PIECES.replace("DIGITS", r"\p{N}"),): "qwen2",
    (_PIECES.replace("DIGITS", r"\p{N}{1,3}"),): "llama-bpe",
    (_DIGITS, _WORDS): "smollm",
    (_WORDS,): "gpt-2",
}
"""{how a tokenizer splits text, one after the other: llama.cpp's name of it}."""


@dataclass(frozen=True)
class Gguf:
    """A GGUF file whose matrices are of one type."""

    name: str
    """The type's, in small letters: the format's word too."""
    tables: str | None = None
    """The type of embedding and output layer; None: that of all matrices."""

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"model-{self.name}.gguf"

    def write(self, folder: Path, merged: Path, _: WriteOptions) -> None:
        """Write the merged model as one GGUF file, which llama.cpp computes in types of its own.

        Raises:
            UserError: a shape, a tokenizer, a position encoding or a number that GGUF can't express.
        """
        import gguf

        source = ModelSource(name="merged", location=str(merged))
        kind, split = self.require(source)
        model = load_model(source, precision="dense", dtype="float32")
        folder.mkdir(parents=True, exist_ok=True)
        # Renamed when it is whole: a killed run must leave no half GGUF under the name that llama.cpp opens.
        temporary = folder / f".{self.file}"
        writer = gguf.GGUFWriter(str(temporary), arch=kind)
        writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{self.name.upper()}"])
        _add_shape(writer, model.config)
        _add_tokens(writer, merged, split=split, size=int(model.config.vocab_size))
        for name, values in _tensors(model, kind=kind):
            of_tables = name.startswith(("token_embd.", "output."))
            _add_tensor(writer, name, values, type_name=self.tables if self.tables and of_tables else self.name)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        temporary.replace(folder / self.file)

    def require(self, source: ModelSource) -> tuple[str, str]:
        """Check that a model of this shape and tokenizer can be written; return llama.cpp's names of both.

        Raises:
            UserError: it can't.
        """
        config = source.read_config()
        kind = str(config["model_type"])
        if kind not in ("qwen2", "llama"):
            raise UserError(f"{self.name} is written for Qwen2 and Llama shapes", value=kind, cure=_CURE)
        positions = config.get("rope_parameters") or config.get("rope_scaling")
        named = positions if isinstance(positions, dict) else {}
        scaling = str(named.get("rope_type") or named.get("type") or "default")
        if scaling not in ("default", "llama3"):
            raise UserError(f"{self.name} writes plain positions or Llama 3's", value=scaling, cure=_CURE)
        tokenizer = source.read_described("tokenizer.json")
        if (ids := _highest_id(tokenizer)) >= int(config["vocab_size"]):
            rule = f"{self.name} needs an embedding of every token"
            raise UserError(rule, value=f"token {ids} of {config['vocab_size']} embeddings", cure=_CURE)
        return kind, _split(tokenizer, name=self.name)

    def load(self, folder: Path) -> "PreTrainedModel":
        """Load the model with the GGUF's weights dequantised, as transformers reads it."""
        return load_model(ModelSource(name="export", location=str(folder)), gguf_file=self.file)

    def weights(self, folder: Path) -> LayerWeights:
        """Return the layers that the numbers stand for, as transformers dequantises them."""
        weights = dict(self.load(folder).named_parameters())
        return lambda layer: weights[f"{layer}.weight"].detach().float().cpu()


F16, Q8_0, Q4_0 = Gguf("f16"), Gguf("q8_0"), Gguf("q4_0", tables="q8_0")


def _add_shape(writer: "GGUFWriter", config: "PretrainedConfig") -> None:
    """Write the model's shape; head sizes only where they don't follow from the hidden size, as the converter does."""
    import gguf

    heads = int(config.num_attention_heads)
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_name("mathlete export")
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_rope_dimension_count(width)
    writer.add_vocab_size(config.vocab_size)
    if width * heads != config.hidden_size:
        writer.add_key_length(width)
        writer.add_value_length(width)


def _highest_id(tokenizer: Mapping[str, Any]) -> int:
    """Return the highest id of a tokenizer.json."""
    own = tokenizer["model"].get("vocab") or {}
    ids = own.values() if isinstance(own, dict) else range(len(own))
    return max(int(index) for index in (*ids, *(added["id"] for added in tokenizer["added_tokens"])))


def _split(tokenizer: Mapping[str, Any], *, name: str) -> str:
    """Return llama.cpp's name of the way the tokenizer splits text before it merges bytes."""
    before: dict[str, Any] = tokenizer.get("pre_tokenizer") or {}
    ways = tuple(way for part in before.get("pretokenizers", [before]) if (way := _describe_way(part)))
    changed = (tokenizer.get("normalizer") or {}).get("type", "NFC")
    if tokenizer["model"]["type"] == "BPE" and changed == "NFC" and ways in _SPLITS:
        return _SPLITS[ways]
    raise UserError(
        f"{name} needs a tokenizer that splits text as Qwen2's, Llama 3's, SmolLM's or GPT-2's does",
        value=f"{tokenizer['model']['type']}, {changed}, {' and '.join(ways) or 'nothing known'}",
        cure=_CURE,
    )


def _describe_way(part: Mapping[str, Any]) -> str:
    """Return what one part of a pre-tokenizer splits text at; "" for bytes that are only written as letters."""
    match part:
        case {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated"} if not part.get("invert"):
            return str(expression)
        case {"type": "Digits", "individual_digits": True}:
            return _DIGITS
        case {"type": "ByteLevel", "add_prefix_space": False}:
            return _WORDS if part.get("use_regex", True) else ""
        case _:
            return str(part.get("type"))


def _add_tokens(writer: "GGUFWriter", merged: Path, *, split: str, size: int) -> None:
    """Write a text and a type for each of the `size` rows of the embedding."""
    import gguf

    tokenizer: dict[str, Any] = read_json(merged / "tokenizer.json")
    # Padding rows: the embedding is larger than the tokenizer.
    tokens, types = [f"[PAD{index}]" for index in range(size)], [gguf.TokenType.UNUSED] * size
    for text, index in tokenizer["model"]["vocab"].items():
        tokens[index], types[index] = text, gguf.TokenType.NORMAL
    for added in tokenizer["added_tokens"]:
        tokens[added["id"]] = added["content"]
        types[added["id"]] = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    # It warns of a template of pairs that it does not know: no conversation is one.
    logging.getLogger("gguf").setLevel(logging.ERROR)
    # Merges, special tokens, whether bos comes first, chat template.
    gguf.SpecialVocab(merged, load_merges=True, n_vocab=size).add_to_gguf(writer, quiet=True)


def _tensors(model: "PreTrainedModel", *, kind: str) -> "Iterator[tuple[str, NDArray[float32]]]":
    """Yield (llama.cpp's name, fp32 values) of every weight; nothing for a tied output layer."""
    import gguf

    arch = gguf.MODEL_ARCH.QWEN2 if kind == "qwen2" else gguf.MODEL_ARCH.LLAMA
    names = gguf.get_tensor_name_map(arch, model.config.num_hidden_layers)
    heads = {"q_proj": model.config.num_attention_heads, "k_proj": model.config.num_key_value_heads}
    for name, weight in model.named_parameters():
        gguf_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if gguf_name is None:
            raise RuntimeError(f"llama.cpp has no name for {name}")
        layer = name.split(".")[-2]
        values = weight.detach().float().cpu()
        if kind == "llama" and layer in heads:
            # The rotary embedding turns number i with i + half a head in transformers, 2i with 2i + 1 in llama.cpp.
            values = values.reshape(heads[layer], 2, -1, *values.shape[1:]).transpose(1, 2).reshape(values.shape)
        yield gguf_name, values.contiguous().numpy()
    if (factors := _rope_factors(model)) is not None:
        yield "rope_freqs.weight", factors


def _rope_factors(model: "PreTrainedModel") -> "NDArray[float32] | None":
    """Return the divisor of each rotary frequency, as Llama 3 scales them; None for plain frequencies."""
    import torch

    kind = model.config.rope_parameters["rope_type"]
    if kind == "default":
        return None
    # GGUF holds no formula: llama.cpp divides each plain frequency by the factor that is stored for it.
    scaled = model.model.rotary_emb.inv_freq.float().cpu()
    steps = torch.arange(0, 2 * len(scaled), 2).float() / (2 * len(scaled))
    plain = 1.0 / float(model.config.rope_parameters["rope_theta"]) ** steps
    factors: NDArray[float32] = (plain / scaled).numpy()
    return factors


def _add_tensor(writer: "GGUFWriter", name: str, values: "NDArray[float32]", *, type_name: str) -> None:
    """Write vectors in fp32, matrices as named, and in 16 bits those whose rows are no whole number of blocks."""
    import gguf
    import numpy as np

    kind = gguf.GGMLQuantizationType[type_name.upper()]
    if values.ndim == 1:
        writer.add_tensor(name, values)
    elif kind is gguf.GGMLQuantizationType.F16 or values.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0]:
        if not (largest := float(np.abs(values).max())) <= float(np.finfo(np.float16).max):
            raise UserError(f"{name} must fit 16 bits", value=largest, cure=_CURE)
        writer.add_tensor(name, values.astype(np.float16))
    else:
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
