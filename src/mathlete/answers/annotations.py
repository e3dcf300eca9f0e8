"""Words around a value: labels in front of it, nouns and units behind it, and words that change it, which stay."""

from __future__ import annotations

import re

from mathlete.answers.lexer import Token
from mathlete.answers.tree import Node
from mathlete.answers.vocabulary import (
    COUNTED,
    CURRENCY,
    DIRECTIONS,
    MODIFIERS_BEFORE,
    MODIFIERS_BEHIND,
    NUMBER_WORDS,
    OPERATORS,
    PERCENT,
    PREPOSITIONS,
    SCALES,
    UNITS,
)

_VALUED = PERCENT | frozenset(SCALES) | frozenset(NUMBER_WORDS) | OPERATORS | {"degrees", "degree", "mod"}
"""Words that change the value beside them."""
_MEASURES = (UNITS - COUNTED) | CURRENCY


def name_by_words(nodes: list[Node], parts: list[list[Token]]) -> list[Node]:
    """Return the items with the words around each as its name: 3 red and 4 blue are not 4 red and 3 blue."""
    titles = [_title_of(part) or _noun_of(part) for part in parts]
    if len(parts) < 2 or not all(titles) or len(set(titles)) < len(titles):
        return nodes
    return [Node("named", (node,), title) for node, title in zip(nodes, titles, strict=True)]


def _noun_of(part: list[Token]) -> str | None:
    r"""Return the noun behind an item that is no unit, as in `3\text{ red}, 4\text{ blue}`, or None."""
    last = part[-1]
    word = last.text.strip().casefold()
    is_noun = len(part) > 1 and last.kind in ("text", "word") and len(word) > 1 and _is_noun(last)
    is_unit = word in _MEASURES
    return word.removesuffix("s") if is_noun and not is_unit and not _changes_value_before(word) else None


def _title_of(part: list[Token]) -> str | None:
    r"""Return the words in front of an item, as in `\text{Alice: } 3, \text{Bob: } 5`, or None."""
    words = part[0].text.strip(" :").casefold() if part[0].kind == "text" else ""
    return words if len(part) > 1 and len(words) > 1 and _is_label(part[0]) and words != "or" else None


def trim_annotations(tokens: list[Token]) -> list[Token]:
    """Return the tokens without words before a value and nouns after it: `\\text{Area: } 5 \\text{ apples}`."""
    start, end = 0, len(tokens)
    while start < end - 1 and _is_label(tokens[start]) and not _is_call(tokens, start):
        start += 1
    while end > start + 1:
        if _is_remark(tokens[max(start, end - 4) : end]):
            end -= 3
            continue
        end_of_unit = _start_of_unit_power(tokens[:end])
        # A unit behind a sign is the end of a compound, which the grammar reads.
        if tokens[end_of_unit - 2].text in ("/", r"\cdot", "*", r"\times"):
            break
        noun = tokens[end_of_unit - 1]
        # Behind degrees N is a direction, anywhere else a unit.
        if noun.text.strip() in _POLES and tokens[end_of_unit - 2].text in (r"\circ", "}", r"\degree"):
            break
        is_noun = noun.kind in ("text", "word") and _is_noun(noun) and not _changes_value_before(noun.text)
        if is_noun and end_of_unit > 1:
            end = end_of_unit - 1
        else:
            break
    return tokens[start:end]


def _is_remark(last: list[Token]) -> bool:
    r"""Return whether the last tokens are a value and words in brackets: `42\;(\text{verified})`."""
    if len(last) < 4 or [last[1].text, last[3].text] != ["(", ")"]:
        return False
    is_value = last[0].kind == "num" or last[0].text in ("}", ")")
    is_word = last[2].kind == "word" and last[1].spaced and len(last[2].text) > 4
    is_noun = is_word or (last[2].kind == "text" and _is_noun(last[2]))
    return is_value and is_noun and not _changes_value_before(last[2].text)


def _is_call(tokens: list[Token], at: int) -> bool:
    r"""Return whether a word stands before its argument, as in `\text{rk}(10)`: then it is no label."""
    return tokens[at].text.isalpha() and tokens[at + 1].text == "(" and not tokens[at + 1].spaced


def _is_label(token: Token) -> bool:
    if token.kind == "text" and _is_noun(token):
        return not _changes_value_behind(token.text)
    return token.kind == "word" and token.text.lower() in CURRENCY


def _changes_value_behind(text: str) -> bool:
    """Return whether words say another thing of the value behind them than its name: at least, twice, multiples of.

    What ends in "is" or a colon names it, whatever words it holds.
    """
    words = re.findall(r"[a-z]+|[:=]", text.casefold())
    if words[-1:] in _ANNOUNCING:
        return False
    return bool(words) and (words[-1] in PREPOSITIONS or not MODIFIERS_BEFORE.isdisjoint(words))


def says_where(text: str) -> bool:
    """Return whether words before an equation say where something is, "maximum at" x = 2, or answer by yes or no."""
    words = re.findall(r"[a-z]+|[:=]", text.casefold())
    is_place = words[-1:] in (["at"], ["on"], ["when"], ["where"], ["if"], ["for"], ["with"])
    return is_place or not {"yes", "no", "true", "false"}.isdisjoint(words)


def _changes_value_before(text: str) -> bool:
    """Return whether words say another thing of the value before them than its unit: squared, dozen, or more."""
    words = re.findall("[a-z]+", text.casefold())
    is_beside = words[-3:-1] == ["to", "the"] or not DIRECTIONS.isdisjoint(words)
    # "is a maximum" says another thing of a place than "is a minimum"; "is the answer" says nothing.
    is_claim = words[:1] in (["is"], ["are"]) and _SAYS_NOTHING.isdisjoint(words)
    return bool(words) and (words[0] in MODIFIERS_BEHIND or "or" in words or is_beside or is_claim)


_SAYS_NOTHING = frozenset({"answer", "solution", "result", "value", "required", "desired"})
_POLES = frozenset({"N", "S", "E", "W"})
"""Directions behind degrees: 60° N is a latitude."""
_ANNOUNCING = ([":"], ["="], ["is"], ["are"], ["equals"])


def _start_of_unit_power(tokens: list[Token]) -> int:
    """Return where `^2` or `^{2}` after a unit starts, or the end."""
    end = len(tokens)
    if end > 2 and tokens[-2].text == "^" and tokens[-3].kind in ("text", "word"):
        return end - 2
    if end > 4 and tokens[-4].text == "^" and tokens[-1].text == "}" and tokens[-5].kind in ("text", "word"):
        return end - 4
    return end


def _is_noun(token: Token) -> bool:
    word = token.text.strip().casefold().strip(".:,;")
    if word in _VALUED:
        return False
    if token.kind == "word":
        # Letters glued to a number may be a product: 3abc.
        return len(word) > 2 and token.spaced and word.isalpha()
    # Capitals glued to a value are a product or a segment: `2\\mathrm{AB}`.
    if re.fullmatch("[A-Z]{2,4}", token.text) and not token.spaced and word not in UNITS:
        return False
    wordy = re.match(r"[A-Za-z(][A-Za-z .,'()/^0-9:²³-]*\Z", token.text.strip())
    return (bool(wordy) and len(word) > 1) or word in "mgs"
