"""Tokenising at the speed of tiktoken where it provably gives the tokenizer's ids, else by the tokenizer.

Both are byte-level BPE: an expression splits the text, and in each piece the adjacent pair of lowest rank is merged
until no pair is left. They differ in three ways. The tokenizer ranks a pair by its place among the merges, tiktoken
(github.com/openai/tiktoken) by the id of the resulting token. tiktoken merges any pair that makes a token, not only the
listed merges. And tiktoken first looks the whole piece up in the vocabulary.

The ids are the same if the merges make the tokens in the order of their ids, and if one of these holds: the bytes of
each token merge to that token (then a pair that makes a token is one of the merges: no other step could join it); or
the tokenizer looks pieces up too (`ignore_merges`) and every pair that makes a token is among its merges. As a check,
every 64th text is tokenised by both.
"""

import json
import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from itertools import count, pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

Json = dict[str, Any]
"""A part of a tokenizer.json."""
Encode = Callable[[str], list[int]]
"""Maps a text to its token ids, without special tokens around it."""
_PLAIN_BYTE_LEVEL = {"add_prefix_space": False, "use_regex": False}
_COMPARED_EVERY = 64
_KEPT = 32
"""Tokenizers whose encoder is kept; few processes use more than two."""


@lru_cache(maxsize=_KEPT)
def make_encoder(tokenizer: "PreTrainedTokenizerBase") -> Encode:
    """Return a function that gives the ids of `tokenizer(text, add_special_tokens=False)`."""

    def slow(text: str) -> list[int]:
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    backend = getattr(tokenizer, "backend_tokenizer", None)
    fast = None if backend is None else _make_tiktoken(backend, len(tokenizer))
    if fast is None:
        return slow
    return _compare_some(lambda text: slow(text) if (ids := fast(text)) is None else ids, slow)


@lru_cache(maxsize=_KEPT)
def _make_tiktoken(backend: "Tokenizer", _tokens: int) -> Callable[[str], list[int] | None] | None:
    """Return a function that gives a text's ids, or None for one that is not in NFC; None where the ids may differ.

    To prove that they are the same takes seconds of a real vocabulary, so it is done once for all tokenizers over it.
    """
    from tiktoken import Encoding

    file: Json = json.loads(backend.to_str())
    pattern = _split_pattern(file)
    if pattern is None or not _merges_alike(file["model"]):
        return None
    vocabulary: dict[str, int] = file["model"]["vocab"]
    values = _byte_of_each_mark()
    ranks = {bytes(values[mark] for mark in token): index for token, index in vocabulary.items()}
    encoding = Encoding("tokenizer", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    added = {token["content"]: int(token["id"]) for token in file["added_tokens"]}
    # Of added tokens that begin at the same place the tokenizer takes the longest.
    split = re.compile("|".join(map(re.escape, sorted(added, key=len, reverse=True))) or r"(?!)")
    composes = file["normalizer"] is not None

    def fast(text: str) -> list[int] | None:
        if composes and not unicodedata.is_normalized("NFC", text):
            return None
        ids: list[int] = []
        at = 0
        for match in split.finditer(text):
            ids += [*encoding.encode_ordinary(text[at : match.start()]), added[match[0]]]
            at = match.end()
        return ids + encoding.encode_ordinary(text[at:])

    return fast


def _split_pattern(file: Json) -> str | None:
    """Return the expression that splits text; None if the tokenizer does more than NFC, splitting and merging."""
    model, before = file["model"], file["pre_tokenizer"] or {}
    parts = before.get("pretokenizers", [])
    # Anything else that a tokenizer.json may ask for (other normalisers, prefix spaces, dropout, added tokens that
    # swallow blanks) would have to be rebuilt here: such a tokenizer tokenises by itself.
    plain = (
        model["type"] == "BPE"
        and not any(model.get(key) for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"))
        and file["normalizer"] in (None, {"type": "NFC"})
        and [part["type"] for part in parts] == ["Split", "ByteLevel"]
        and all(parts[1][key] == value for key, value in _PLAIN_BYTE_LEVEL.items())
        and (parts[0]["behavior"], parts[0]["invert"]) == ("Isolated", False)
        and not any(token[key] for token in file["added_tokens"] for key in ("lstrip", "rstrip", "single_word"))
    )
    # The format also allows a fixed string in place of an expression, which tiktoken has no use for.
    return parts[0]["pattern"].get("Regex") if plain else None


def _merges_alike(model: Json) -> bool:
    """Return whether tiktoken merges as the tokenizer does: the conditions of the module's docstring."""
    vocabulary: dict[str, int] = model["vocab"]
    made = ["".join(pair) for pair in model["merges"]]
    ordered = all(vocabulary[before] <= vocabulary[after] for before, after in pairwise(made))
    bytes_alone = {*_byte_of_each_mark()} == {*vocabulary} - {*made}
    return (
        ordered
        and bytes_alone
        and (_lists_all_merges(model) if model.get("ignore_merges") else _reaches_all_tokens(model))
    )


def _reaches_all_tokens(model: Json) -> bool:
    """Return whether the bytes of each token merge to that token."""
    from tokenizers.models import BPE

    merging = BPE(model["vocab"], [(first, second) for first, second in model["merges"]])
    return all(len(merging.tokenize(token)) == 1 for token in model["vocab"])


def _lists_all_merges(model: Json) -> bool:
    """Return whether every pair of tokens that makes a token is among the merges."""
    vocabulary: dict[str, int] = model["vocab"]
    splits = ((token[:at], token[at:]) for token in vocabulary for at in range(1, len(token)))
    pairs = sum(first in vocabulary and second in vocabulary for first, second in splits)
    return pairs == len({(first, second) for first, second in model["merges"]})


def _compare_some(fast: Encode, slow: Encode) -> Encode:
    number = count()

    def encode(text: str) -> list[int]:
        ids = fast(text)
        if next(number) % _COMPARED_EVERY == 0 and ids != slow(text):
            raise RuntimeError(f"tiktoken and the tokenizer must give the same ids; they differ on {text[:200]!r} …")
        return ids

    return encode


def _byte_of_each_mark() -> dict[str, int]:
    """Return {mark: byte} of byte-level BPE, whose tokens have a visible mark per byte (openai/gpt-2, encoder.py)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + at): byte for at, byte in enumerate(rest)}
