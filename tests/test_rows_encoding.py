import unicodedata
from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.models import find_model
from mathlete.models.tokenizers import load_tokenizer
from mathlete.pocket import generate_items
from mathlete.prompts import PromptFormat
from mathlete.rows.encoding import _make_tiktoken, make_encoder
from tests.conftest import CHARACTERS, dear

TRICKY = st.lists(
    st.sampled_from(
        ["<think>", "</think>", "<｜end▁of▁sentence｜>", "aaaa", "a aa a", "  \n\n ", "don't", "DON'T", "1234567", "½",
         "中文", "e\u0301", "\u00e9", "\r\n", "\\boxed{", "𝒳", "😀‍👩", "\x00", "\u200b", "\u2028", "==>", "\t", "ß"]
    )
    | st.text(CHARACTERS, max_size=8),
    max_size=30,
).map("".join)  # fmt: skip
"""Texts of pieces that tokenizers trip over."""


@pytest.fixture(scope="module", params=["r1-distill-qwen", "r1-distill-llama"])
def real(request: pytest.FixtureRequest, load_real: Callable[[str], PromptFormat]) -> Any:
    return load_real(request.param).tokenizer


def small(*, merges: list[tuple[str, str]], words: list[str], ignore_merges: bool = False, **changed: object) -> Any:
    """Return a tokenizer of bytes and a few merges, its tokens in the order of `words`."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: at for at, token in enumerate([*letters, *words])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=ignore_merges))
    split = pre_tokenizers.Split(Regex(r"\s+|\S+"), "isolated")
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=bool(changed.get("prefix")), use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_])
    tokenizer.normalizer = normalizers.NFKC() if changed.get("nfkc") else normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)  # type: ignore[no-untyped-call]


def plain(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


@dear(20)
@given(text=TRICKY)
def test_real_tokenizers_give_the_same_ids(real: Any, text: str) -> None:
    assert make_encoder(real).__name__ == "encode"
    assert make_encoder(real)(text) == plain(real, text)


def test_real_traces_have_the_same_ids(real: Any, shared: Path) -> None:
    traces = [item.traced.trace.text for item in generate_items(families=["hard"], count=50, seed=1, split="train")]
    for file in sorted((shared / "data").rglob("*.jsonl"))[:20]:
        with file.open(encoding="utf-8") as lines:
            traces += [unicodedata.normalize("NFC", line) for line, _ in zip(lines, range(5), strict=False)]
    for text in traces:
        assert make_encoder(real)(text) == plain(real, text)


@pytest.mark.parametrize(
    ("merges", "words", "changed", "taken"),
    [
        ([("a", "b"), ("ab", "c")], ["ab", "abc"], {}, "encode"),
        ([("ab", "c"), ("a", "b")], ["ab", "abc"], {}, "slow"),  # merged in another order than the ids
        ([("a", "b")], ["ab", "abc"], {}, "slow"),  # a token that no merge makes
        ([("b", "c"), ("a", "b"), ("ab", "c")], ["bc", "ab", "abc"], {}, "slow"),  # bc goes first: abc is never reached
        ([("b", "c"), ("a", "b"), ("a", "bc")], ["bc", "ab", "abc"], {}, "encode"),
        ([("b", "c"), ("a", "b"), ("ab", "c")], ["bc", "ab", "abc"], {"ignore_merges": True}, "slow"),
        ([("b", "c"), ("a", "b"), ("ab", "c"), ("a", "bc")], ["bc", "ab", "abc"], {"ignore_merges": True}, "encode"),
        ([("a", "b")], ["ab"], {"nfkc": True}, "slow"),
        ([("a", "b")], ["ab"], {"prefix": True}, "slow"),
    ],
)  # fmt: skip
def test_tiktoken_is_taken_where_it_merges_the_same(
    merges: list[tuple[str, str]], words: list[str], changed: dict[str, Any], taken: str
) -> None:
    tokenizer = small(merges=merges, words=words, **changed)
    encode = make_encoder(tokenizer)
    assert encode.__name__ == taken
    for text in ("abc", "ab abc abcabc", "bcab", "aabcc", "é abc", "e\u0301abc"):
        assert encode(text) == plain(tokenizer, text)


def test_a_difference_is_no_row_but_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from tiktoken import Encoding

    monkeypatch.setattr(Encoding, "encode_ordinary", lambda *_: [0])
    with pytest.raises(RuntimeError, match="they differ on 'abc' …"):
        make_encoder(small(merges=[("a", "b")], words=["ab"]))("abc")


def test_what_is_proved_of_a_vocabulary_holds_for_all_its_tokenizers() -> None:
    first = small(merges=[("a", "b")], words=["ab"])
    second, third = copy(first), copy(first)
    assert make_encoder(first) is not make_encoder(second)
    proved = _make_tiktoken.cache_info().misses
    for text in ("ab abc", "e\u0301"):
        assert make_encoder(third)(text) == plain(first, text)
    assert _make_tiktoken.cache_info().misses == proved
    first.add_tokens(["bca"])  # a fourth has another vocabulary
    assert make_encoder(copy(first))("abcab") == plain(first, "abcab")
    assert _make_tiktoken.cache_info().misses == proved + 1


def test_the_pocket_model_has_the_same_ids() -> None:
    tokenizer = load_tokenizer(find_model("pocket"))
    for item in generate_items(families=["hard", "easy"], count=50, seed=2, split="train"):
        text = f"<think>\n{item.traced.trace.text}\n</think>"
        assert make_encoder(tokenizer)(text) == plain(tokenizer, text)
