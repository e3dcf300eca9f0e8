"""Tokenising at the speed of tiktoken, where its ids are the tokenizer's own by construction; else by the tokenizer.

Both hold byte-level BPE: a text is split by an expression, and in each piece the neighbours of lowest rank are merged
until none is left. The tokenizer's ranks are the places of its merges, tiktoken's (github.com/openai/tiktoken) the ids
of the tokens; and it merges any two that make a token, and looks a whole piece up first. That is the same where the
merges make the tokens in the order of their ids, and either the bytes of each token merge to it (two neighbours that
make a token are then one of the merges, for no other step could join them), or the tokenizer looks up too
(`ignore_merges`) and any two tokens that make a token are among its merges. Each 64th text is given to both.
"""

import json
import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from itertools import count, pairwise
from typing import Any

Encode = Callable[[str], list[int]]
"""Text to token ids, without special tokens around it."""
_AS_TIKTOKEN = {"add_prefix_space": False, "use_regex": False}
_COMPARED = 64


@lru_cache(maxsize=4)
def encoder_of(tokenizer: Any) -> Encode:
    """What gives the ids that `tokenizer(text, add_special_tokens=False)` gives."""

    def slow(text: str) -> list[int]:
        found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return slow
    file: dict[str, Any] = json.loads(backend.to_str())
    pattern = _pattern(file)
    if pattern is None or not _same_merges(file["model"]):
        return slow
    return _compared(_by_tiktoken(file, pattern=pattern, slow=slow), slow)


def _by_tiktoken(file: dict[str, Any], *, pattern: str, slow: Encode) -> Encode:
    from tiktoken import Encoding

    vocabulary: dict[str, int] = file["model"]["vocab"]
    values = _bytes()
    ranks = {bytes(values[mark] for mark in token): index for token, index in vocabulary.items()}
    encoding = Encoding("tokenizer", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    added = {token["content"]: int(token["id"]) for token in file["added_tokens"]}
    # The longest of those that begin at a place, as the tokenizer has it.
    split = re.compile("|".join(map(re.escape, sorted(added, key=len, reverse=True))) or r"(?!)")

    def fast(text: str) -> list[int]:
        if file["normalizer"] and not unicodedata.is_normalized("NFC", text):
            return slow(text)
        found: list[int] = []
        at = 0
        for match in split.finditer(text):
            found += [*encoding.encode_ordinary(text[at : match.start()]), added[match[0]]]
            at = match.end()
        return found + encoding.encode_ordinary(text[at:])

    return fast


def _pattern(file: dict[str, Any]) -> str | None:
    """The expression that splits text, where all that is done beside splitting and merging is nothing or NFC."""
    model, before = file["model"], file["pre_tokenizer"] or {}
    parts = before.get("pretokenizers", [])
    plain = (
        model["type"] == "BPE"
        and not any(model.get(key) for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"))
        and file["normalizer"] in (None, {"type": "NFC"})
        and [part["type"] for part in parts] == ["Split", "ByteLevel"]
        and all(parts[1][key] == value for key, value in _AS_TIKTOKEN.items())
        and (parts[0]["behavior"], parts[0]["invert"]) == ("Isolated", False)
        and not any(token[key] for token in file["added_tokens"] for key in ("lstrip", "rstrip", "single_word"))
    )
    return parts[0]["pattern"].get("Regex") if plain else None


def _same_merges(model: dict[str, Any]) -> bool:
    vocabulary: dict[str, int] = model["vocab"]
    made = ["".join(pair) for pair in model["merges"]]
    ordered = all(vocabulary[before] <= vocabulary[after] for before, after in pairwise(made))
    bytes_alone = {*_bytes()} == {*vocabulary} - {*made}
    return ordered and bytes_alone and (_complete(model) if model.get("ignore_merges") else _reached(model))


def _reached(model: dict[str, Any]) -> bool:
    """Whether the bytes of each token merge to that token."""
    from tokenizers.models import BPE

    merging = BPE(model["vocab"], [(first, second) for first, second in model["merges"]])
    return all(len(merging.tokenize(token)) == 1 for token in model["vocab"])


def _complete(model: dict[str, Any]) -> bool:
    """Whether any two tokens that make a token are among the merges."""
    vocabulary: dict[str, int] = model["vocab"]
    splits = ((token[:at], token[at:]) for token in vocabulary for at in range(1, len(token)))
    pairs = sum(first in vocabulary and second in vocabulary for first, second in splits)
    return pairs == len({(first, second) for first, second in model["merges"]})


def _compared(fast: Encode, slow: Encode) -> Encode:
    number = count()

    def encode(text: str) -> list[int]:
        found = fast(text)
        if next(number) % _COMPARED == 0 and found != slow(text):
            raise RuntimeError(f"tiktoken and the tokenizer must give the same ids; they differ on {text[:200]!r} …")
        return found

    return encode


def _bytes() -> dict[str, int]:
    """{mark: byte} of byte-level BPE, whose tokens are written without blanks (github.com/openai/gpt-2, encoder.py)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + at): byte for at, byte in enumerate(rest)}
