"""The pocket model's tokenizer: a byte-level BPE with the special tokens and template of the R1 distillations."""

from importlib.resources import files
from typing import TYPE_CHECKING, Any

from mathlete.pocket.generator import generate_items

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

BOS, EOS, PAD = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"
"""Padding has a token of its own: padding with eos would mask the label that teaches the model to stop."""
_TURNS = ("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>")
"""Added but not special, as in R1: skip_special_tokens must keep `<think>` and `</think>` in the text."""
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Qwen2's pre-tokenizer expression: each digit is a token (tokenizer.json of DeepSeek-R1-Distill-Qwen-1.5B)."""
_SAMPLE = 20_000
_CONTEXT = 1024


def read_chat_template() -> str:
    """Return the revised chat template of the R1 distillations, which opens `<think>` in the prompt.

    It is trl's copy, byte for byte: trl recognises the template by its text when it swaps in the one for training.
    """
    return files("trl").joinpath("chat_templates", "deepseek_r1_distill.jinja").read_text(encoding="utf-8")


def build_tokenizer(*, vocabulary: int) -> "PreTrainedTokenizerFast":
    """Train a tokenizer of at most `vocabulary` tokens on generated problems and traces of the training side."""
    from transformers import PreTrainedTokenizerFast

    fast: Any = PreTrainedTokenizerFast
    tokenizer: PreTrainedTokenizerFast = fast(
        tokenizer_object=_train(vocabulary=vocabulary),
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=_CONTEXT,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = read_chat_template()
    # Without this line Qwen2's class adds "<|endoftext|>" as unknown token, one id beyond the embedding.
    tokenizer.init_kwargs["unk_token"] = None
    return tokenizer


def _train(*, vocabulary: int) -> "Tokenizer":
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = (BOS, EOS, PAD)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(special) - len(_TURNS),
        special_tokens=[],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_generate_texts(), trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in _TURNS])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS}:1 $B:1", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return tokenizer


def _generate_texts() -> list[str]:
    items = generate_items(families=["easy", "hard"], count=_SAMPLE, seed=0, split="train")
    return [f"{item.problem.statement}\n{item.completion}" for item in items]
