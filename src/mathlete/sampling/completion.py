"""What a decode loop must know of text: which tokens end a sample, and the text of a completion."""

import threading
from typing import TYPE_CHECKING

from mathlete.prompts import END_THINK
from mathlete.sampling.box import box_end
from mathlete.sampling.fence import code_end

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TAIL = 16
"""Tokens in which `</think>` is looked for where it is not one token; no tokenizer needs more for eight characters."""


class CompletionReader:
    """A tokenizer as seen by the decode loop. Each token is looked up in small sets; text is decoded only on a hit."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", *, eos_ids: set[int]) -> None:
        self.eos_ids = frozenset(eos_ids)
        self._tokenizer = tokenizer
        # Tokenizers refuse to be used by two threads at the same moment ("Already borrowed").
        self.lock = threading.Lock()
        vocabulary = tokenizer.get_vocab()
        self.closers = frozenset(token for piece, token in vocabulary.items() if "}" in piece or piece == "<0x7D>")
        """Tokens that can close a box."""
        whole = vocabulary.get(END_THINK)
        self.think_enders = (
            frozenset(token for piece, token in vocabulary.items() if ">" in piece or piece == "<0x3E>")
            if whole is None
            else frozenset({whole})
        )
        """Tokens that can end the reasoning."""
        self.fences = frozenset(token for piece, token in vocabulary.items() if "`" in piece or piece == "<0x60>")
        """Tokens that can close a block of code."""
        self.special = self.eos_ids | self.closers | self.think_enders
        """All tokens that the decode loop must look at, but for the fences."""

    def text(self, tokens: list[int]) -> str:
        """The tokens' text without special tokens; `<think>` and `</think>` stay."""
        with self.lock:
            text = self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)

    def answering_from(self, tokens: list[int]) -> int | None:
        """A position at or just before the `</think>` that the last tokens hold; None where they hold none."""
        start = max(0, len(tokens) - _TAIL)
        return start if END_THINK in self.text(tokens[start:]) else None

    def boxed_text(self, tokens: list[int], *, answering_from: int, answering: bool = False) -> str | None:
        """The completion's text up to and with the brace that closes its box; None while it is open.

        `answering` says that the reasoning ended before these tokens.
        """
        before = END_THINK if answering else ""
        # What follows the reasoning is short, the whole text may be long: decode it only when the box is closed.
        if box_end(before + self.text(tokens[answering_from:])) is None:
            return None
        text = before + self.text(tokens)
        return text[len(before) : box_end(text)]

    def code_text(self, tokens: list[int]) -> str | None:
        """The completion's text up to and with the fence that closes its first Python block; None while it is open."""
        text = self.text(tokens)
        end = code_end(text)
        return None if end is None else text[:end]

    def ids(self, text: str) -> list[int]:
        """The tokens of text that follows a prompt. The caller holds the lock."""
        return [int(token) for token in self._tokenizer(text, add_special_tokens=False)["input_ids"]]
