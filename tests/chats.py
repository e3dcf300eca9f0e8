"""Chat models of the common families, small: their templates, their marks, and vocabularies of the same kind.

Templates that TRL ships are its copies; the others are written here as their models have them. A vocabulary is that of
the pocket model (bytes, as Qwen's, Llama 3's and SmolLM2's), or one trained here as SentencePiece makes them (blanks as
▁, bytes for what is unknown, as Gemma's, Phi-3's and Mistral's).
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mathlete.models import ModelSource, load_prompt_format
from mathlete.pocket import generate_items
from mathlete.prompts import PromptFormat
from tests.conftest import POCKET


@dataclass(frozen=True, kw_only=True)
class Chat:
    """One family, and what is expected of it."""

    template: str
    """The template, or the name of TRL's copy."""
    marks: tuple[str, ...]
    """Special tokens, in the order of their ids; bos, eos, pad and unk among them."""
    bos: str | None
    eos: str
    pad: str | None
    unk: str | None = None
    texts: tuple[str, ...] = ()
    """Added tokens that are no marks."""
    kind: str
    """Its architecture, by transformers' name."""
    pieces: str = "bytes"
    """What its vocabulary is made of: bytes, llama (SentencePiece with a blank before each text) or gemma (without)."""
    end: str
    """The token that ends a turn when served."""
    padding: str
    """The token to pad with."""
    said: tuple[str, ...] = ()
    """How the notes about eos and padding begin."""

    @property
    def chat_template(self) -> str:
        """The template itself."""
        if self.template.endswith(".jinja"):
            return files("trl").joinpath("chat_templates", self.template).read_text(encoding="utf-8")
        return self.template


_CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_QWEN = (*_CHATML, "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>")
_LLAMA = (
    *("<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>"),
    *("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
)
_GEMMA = ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>")
_PHI = (
    "<unk>",
    "<s>",
    "</s>",
    "<|endoftext|>",
    "<|assistant|>",
    "<|placeholder1|>",
    "<|system|>",
    "<|end|>",
    "<|user|>",
)
CHATS = {
    "smollm2": Chat(
        kind="llama",
        template="{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
        "{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        marks=(*_CHATML, "<repo_name>", "<file_sep>", "<empty_output>"),
        bos="<|im_start|>",
        eos="<|im_end|>",
        pad="<|im_end|>",
        unk="<|endoftext|>",
        end="<|im_end|>",
        padding="<empty_output>",
        said=("padding: <empty_output>, ",),
    ),
    "qwen2.5": Chat(
        kind="qwen2",
        template="qwen2_5.jinja",
        marks=_QWEN,
        bos=None,
        eos="<|im_end|>",
        pad="<|endoftext|>",
        texts=("<tool_call>", "</tool_call>", "<|fim_prefix|>"),
        end="<|im_end|>",
        padding="<|endoftext|>",
    ),
    "qwen2.5-base": Chat(
        kind="qwen2",
        template="qwen2_5.jinja",
        marks=_QWEN,
        bos=None,
        eos="<|endoftext|>",
        pad="<|endoftext|>",
        end="<|im_end|>",
        padding="<|endoftext|>",
        said=("eos: <|im_end|>, ",),
    ),
    "qwen3": Chat(
        kind="qwen3",
        template="qwen3.jinja",
        marks=_QWEN,
        bos=None,
        eos="<|im_end|>",
        pad="<|endoftext|>",
        texts=("<think>", "</think>"),
        end="<|im_end|>",
        padding="<|endoftext|>",
    ),
    "llama3": Chat(
        kind="llama",
        template="llama3.jinja",
        marks=_LLAMA,
        bos="<|begin_of_text|>",
        eos="<|end_of_text|>",
        pad=None,
        end="<|eot_id|>",
        padding="<|reserved_special_token_0|>",
        said=("eos: <|eot_id|>, ", "padding: <|reserved_special_token_0|>, "),
    ),
    "llama3.2": Chat(
        kind="llama",
        template="llama3_2.jinja",
        marks=(*_LLAMA, "<|finetune_right_pad_id|>", "<|eom_id|>", "<|python_tag|>"),
        bos="<|begin_of_text|>",
        eos="<|eot_id|>",
        pad=None,
        end="<|eot_id|>",
        padding="<|finetune_right_pad_id|>",
        said=("date: ", "padding: <|finetune_right_pad_id|>, "),
    ),
    "gemma": Chat(
        kind="gemma",
        template="gemma.jinja",
        marks=_GEMMA,
        bos="<bos>",
        eos="<eos>",
        pad="<pad>",
        unk="<unk>",
        texts=("\n", "\n\n", "▁▁", "<table>", "<b>"),
        pieces="gemma",
        end="<end_of_turn>",
        padding="<pad>",
        said=("eos: <end_of_turn>, ",),
    ),
    "gemma3": Chat(
        kind="gemma3_text",
        template="gemma3.jinja",
        marks=(*_GEMMA, "<start_of_image>"),
        bos="<bos>",
        eos="<end_of_turn>",
        pad="<pad>",
        unk="<unk>",
        texts=("\n", "\n\n", "▁▁", "<table>", "<b>"),
        pieces="gemma",
        end="<end_of_turn>",
        padding="<pad>",
    ),
    "phi3": Chat(
        kind="phi3",
        template="phi3.jinja",
        marks=_PHI,
        bos="<s>",
        eos="<|endoftext|>",
        pad="<|endoftext|>",
        unk="<unk>",
        pieces="llama",
        end="<|end|>",
        padding="<|endoftext|>",
        said=("eos: <|end|>, ",),
    ),
    "phi4-mini": Chat(
        kind="phi3",
        template="{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}",
        marks=("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|dummy_0|>"),
        bos="<|endoftext|>",
        eos="<|endoftext|>",
        pad="<|endoftext|>",
        unk="<|endoftext|>",
        end="<|end|>",
        padding="<|endoftext|>",
        said=("eos: <|end|>, ",),
    ),
    "mistral": Chat(
        kind="mistral",
        template="{{ bos_token }}{% for message in messages %}"
        "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
        "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
        "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}{% endif %}{% endfor %}",
        marks=("<unk>", "<s>", "</s>"),
        bos="<s>",
        eos="</s>",
        pad=None,
        unk="<unk>",
        pieces="llama",
        end="</s>",
        padding="<unk>",
        said=("padding: <unk>, ",),
    ),
    "mistral-nemo": Chat(
        kind="mistral",
        template="{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
        "{{ '[INST]' + message['content'] + '[/INST]' }}{% else %}{{ message['content'] + eos_token }}{% endif %}"
        "{% endfor %}",
        marks=("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "<pad>", "<SPECIAL_20>"),
        bos="<s>",
        eos="</s>",
        pad=None,
        unk="<unk>",
        end="</s>",
        padding="<pad>",
        said=("padding: <pad>, ",),
    ),
}


@cache
def load_chat(name: str) -> PromptFormat:
    """Load the prompts of a family, once a process."""
    with TemporaryDirectory() as folder:
        write_tokenizer(Path(folder), CHATS[name])
        return load_prompt_format(ModelSource(name=name, location=folder))


def write_tokenizer(folder: Path, chat: Chat) -> None:
    """Write the family's tokenizer and template into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = json.loads(_tokenizer(chat.pieces))
    size = len(content["model"]["vocab"])
    kinds = [*((mark, True) for mark in chat.marks), *((text, False) for text in chat.texts)]
    content["added_tokens"] = [
        {"id": size + number, "content": text, "special": special, "normalized": False}
        | {
            name: name == "rstrip" and chat.pieces == "llama" and "|" in text
            for name in ("single_word", "lstrip", "rstrip")
        }
        for number, (text, special) in enumerate(kinds)
    ]
    if chat.pieces != "bytes":
        content["model"]["vocab"] |= {text: size + number for number, (text, _) in enumerate(kinds)}
        content["model"]["unk_token"] = chat.unk
    (folder / "tokenizer.json").write_text(json.dumps(content))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 1024,
        **{f"{name}_token": getattr(chat, name) for name in ("bos", "eos", "pad", "unk") if getattr(chat, name)},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text(chat.chat_template)


def write_model(folder: Path, chat: Chat) -> None:
    """Write a model of the family with the settings that the hub's have; a Qwen2 has the pocket model's weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    write_tokenizer(folder, chat)
    # Of the family's own class, as the hub's: a Qwen2 tokenizer would read SentencePiece's blanks as bytes.
    shape: Any = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "head_dim": 32}
    heads: Any = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024}
    window: Any = {"sliding_window": 64} if chat.kind in ("gemma3_text", "phi3", "mistral") else {}
    torch.manual_seed(0)
    ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))  # else those of the real vocabulary
    config = AutoConfig.for_model(chat.kind, **shape, **heads, **window, **ids, vocab_size=640)
    auto: Any = AutoModelForCausalLM
    model = auto.from_pretrained(POCKET) if chat.kind == "qwen2" else auto.from_config(config)
    config.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=64)
    for name in ("bos", "eos", "pad"):
        index = getattr(tokenizer, f"{name}_token_id")
        setattr(model.config, f"{name}_token_id", index)
        setattr(model.generation_config, f"{name}_token_id", index)
    model.to(torch.float16).save_pretrained(folder)


@cache
def _tokenizer(pieces: str) -> str:
    """Return a tokenizer.json without added tokens."""
    if pieces == "bytes":
        content = json.loads((POCKET / "tokenizer.json").read_text())
        content["post_processor"] = None
        return json.dumps(content)
    return json.dumps(_sentence_pieces(prepend=pieces == "llama"))


def _sentence_pieces(*, prepend: bool) -> dict[str, Any]:
    """Return a tokenizer.json as SentencePiece's BPE with byte fallback is converted to."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    blanks = normalizers.Replace(" ", "▁")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), blanks]) if prepend else blanks
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    items = generate_items(families=["easy", "hard"], count=300, seed=0, split="train")
    texts = [f"{item.problem.statement} {item.completion}".replace("\n", " ") for item in items]
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=240, show_progress=False))
    strip = [decoders.Strip(" ", 1, 0)] if prepend else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    content: dict[str, Any] = json.loads(tokenizer.to_str())
    trained, model = content["model"]["vocab"], content["model"]
    model["vocab"] = {f"<0x{byte:02X}>": byte for byte in range(256)} | {text: 256 + at for text, at in trained.items()}
    model["byte_fallback"] = model["fuse_unk"] = True
    content["pre_tokenizer"] = None
    return content
