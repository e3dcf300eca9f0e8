"""Words and signs between the items of an answer, and the conditions that stand behind a value."""

from __future__ import annotations

import re

from mathlete.answers.lexer import Token
from mathlete.answers.relations import SIGNS
from mathlete.answers.vocabulary import FUNCTIONS, GREEK, LETTER_UNITS, MODIFIERS_BEHIND, UNITS

OPENING = {"(": 1, "[": 1, "{": 1, r"\{": 1, r"\langle": 1, r"\lfloor": 1, r"\begin": 1,
         ")": -1, "]": -1, "}": -1, r"\}": -1, r"\rangle": -1, r"\rfloor": -1, r"\end": -1}  # fmt: skip
_JOINERS = {"and": "and", "or": "or", "&": "and", "or else": "or", "and also": "and", "respectively": "",
            ", and": "and", ", or": "or", "; and": "and", "and,": "and", "oder": "or", "et": "and",
            "ou": "or"}  # fmt: skip


def split(tokens: list[Token], *separators: str) -> list[list[Token]]:
    """Return the parts between separators that stand outside all brackets."""
    # Most answers have none, and each is looked at for a dozen.
    if {token.text for token in tokens}.isdisjoint(separators):
        return [[*tokens]]
    parts: list[list[Token]] = [[]]
    depth = 0
    for token in tokens:
        depth += OPENING.get(token.text, 0) if token.kind in ("op", "cmd") else 0
        if depth == 0 and token.text in separators and token.kind in ("op", "cmd", "join"):
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def join_with_commas(tokens: list[Token]) -> list[Token]:
    """Return the tokens with a comma for "and", where neither "or" nor a semicolon makes another list of it.

    x = 1, y = 2 and z = 3 is one list, and not a list beside a value.
    """
    if len(split(tokens, "or", ";")) > 1 or len(split(tokens, "and")) == 1:
        return tokens
    return [Token("op", ",") if t.kind == "join" and t.text == "and" else t for t in tokens]


def mark_joiners(tokens: list[Token]) -> list[Token]:
    """Return the tokens with "join" tokens for the words between items and before a condition."""
    marked = []
    # A sign between two statements joins them, one between two names is an operation.
    has_logic = any(token.text in _LOGIC for token in tokens)
    are_relations = has_logic and all(any(one.text in SIGNS for one in part) for part in split(tokens, *_LOGIC))
    for token in _split_units(_spell_products(tokens)):
        is_word = token.kind in ("text", "name", "word")
        joiner = _JOINERS.get(" ".join(token.text.casefold().split())) if is_word else None
        if joiner is not None and token.text.strip() != "&":
            # "respectively" joins nothing: it is dropped.
            if joiner:
                marked.append(Token("join", joiner))
        elif token.text in _LOGIC and are_relations:
            marked.append(Token("join", "or" if token.text in (r"\lor", r"\vee") else "and"))
        # "3 to 4" is the ratio 3:4.
        elif token.kind in ("text", "word") and token.text.strip() == "to":
            marked.append(Token("op", ":"))
        # "all n >= 3" is n >= 3.
        elif not marked and token.kind in ("text", "word") and token.text.strip().casefold() in ("all", "for all"):
            continue
        elif token.text == r"\forall" or (token.kind in ("text", "word") and _CONDITION.match(token.text)):
            marked.append(Token("join", "if"))
        else:
            marked.append(token)
    return marked


def _spell_products(tokens: list[Token]) -> list[Token]:
    r"""Return the tokens with letters for words that stand where none can: the `at` of `e^{at}` and of `b + at` is a*t.

    Behind an operator, at the beginning and within braces there are no two things that a word could stand between.
    """
    spelled: list[Token] = []
    depth = 0
    for at, token in enumerate(tokens):
        depth += (token.text == "{") - (token.text == "}") if token.kind == "op" else 0
        # Glued to what stands before it, as in 3at, it is no word either.
        within = depth or at == 0 or tokens[at - 1].text in _BEFORE_FACTORS or _is_glued(tokens, at)
        if token.kind != "text" and token.text in _LETTERS_TOO and (within or _goes_on_as_factor(tokens, at)):
            spelled += [Token("name", letter) for letter in token.text]
        else:
            spelled.append(token)
    return spelled


def _is_glued(tokens: list[Token], at: int) -> bool:
    return tokens[at].text in ("at", "as", "on") and not tokens[at].spaced and tokens[at - 1].kind in ("num", "name")


def _goes_on_as_factor(tokens: list[Token], at: int) -> bool:
    return at + 1 < len(tokens) and tokens[at + 1].text in ("^", "_", "*", "/", ")", "!")


_LETTERS_TOO = frozenset({"at", "as", "on", "et", "ou", "or", "if", "to"})
_BEFORE_FACTORS = frozenset(
    {"+", "-", "*", "/", "=", "^", "(", "|", r"\cdot", r"\times"} | {f"\\{name}" for name in FUNCTIONS}
)


def _split_units(tokens: list[Token]) -> list[Token]:
    r"""Return `5\text{ m and }12\text{ m}` with the unit and the word behind it as two texts."""
    parted: list[Token] = []
    for token in tokens:
        if token.kind == "text" and token.text.strip() in (",", ";"):
            parted.append(Token("op", token.text.strip()))
            continue
        unit = _UNIT_AND.fullmatch(token.text) if token.kind == "text" else None
        if unit and (all(_is_unit(word) for word in unit[1].split()) or _is_counted(parted, unit[1])):
            parted += [Token("text", unit[1]), Token("text", unit[2])]
        else:
            parted.append(token)
    return parted


def _is_unit(word: str) -> bool:
    return word in LETTER_UNITS or word.casefold() in UNITS


def _is_counted(before: list[Token], words: str) -> bool:
    """Return whether words behind a number name what it counts: `3 boys`."""
    is_noun = words.split()[0].casefold() not in MODIFIERS_BEHIND and len(words.split()) <= _LONGEST_NOUN
    return bool(before) and before[-1].kind == "num" and is_noun


_LONGEST_NOUN = 2
"""Words of a noun such as "blue marbles"."""
_UNIT_AND = re.compile(r"\s*([a-zA-Z. ]+?),?\s+(and|or)\s*")
_LOGIC = frozenset({r"\lor", r"\vee", r"\land", r"\wedge"})
_CONDITION = re.compile(
    r"\s*,?\s*\(?\s*(?:which |and |it )?(?:is |occurs |occurring )?(?:attained|achieved|reached|obtained)?\s*(?:only )?"
    r"(?:for|where|with|if|iff|when|whenever|provided|such that|given|since|because|on|at(?! (?:most|least))"
    r"|as(?! (?:desired|required|claimed|needed|expected|wanted|asked|above|before|shown)))\b[a-z ]*\Z",
    re.I,
)


def mark_condition(tokens: list[Token]) -> list[Token]:
    r"""Return the tokens with the bar of `3n^2 \mid n \in \mathbb{Z}` as a mark of the condition behind it."""
    before, *behind = split(tokens, r"\mid")
    if len(behind) != 1 or not before or not any(token.text in (r"\in", r"\ge", r"\geq") for token in behind[0]):
        return tokens
    return [*before, Token("join", "if"), *behind[0]]


def drop_premises(tokens: list[Token]) -> list[Token]:
    r"""Return what follows from several things: of `a = 3, b = 4 \Rightarrow a+b = 7` the conclusion."""
    given, *concluded = split(tokens, *_IMPLIES)
    is_several = (
        len(concluded) == 1 and concluded[0] and len(split(given, ",")) > 1 and any(t.text == "=" for t in given)
    )
    return concluded[0] if is_several else tokens


_IMPLIES = tuple(sign for sign, relation in SIGNS.items() if relation == "then")


def is_condition(tokens: list[Token]) -> bool:
    """Return whether the tokens behind "for" or "where" say something of a letter: a relation, or `k` and words."""
    if any(token.text in SIGNS for token in tokens):
        return True
    # "at (1, 2)", "on [0, 1]": a place.
    if len(tokens) > 3 and tokens[0].text in ("(", "[") and any(token.text == "," for token in tokens):
        return True
    words = [token for token in tokens if token.kind in ("text", "word")]
    letters = [token for token in tokens if token.kind == "name" or token.text[1:] in GREEK]
    return bool(letters) and len(words) + len(letters) == len(tokens)


def drop_bracketed_condition(part: list[Token]) -> list[Token]:
    """Return an item without `(x > 0)` or `(k \\in \\mathbb{Z})` behind it."""
    opened = max((at for at, token in enumerate(part) if token.text == "("), default=0)
    inside = part[opened + 1 : -1]
    if not opened or part[-1].text != ")" or not part[opened].spaced or not inside:
        return part
    has_relation = any(t.text in SIGNS and t.kind in ("op", "cmd") for t in inside)
    return part[:opened] if has_relation and part[opened - 1].text not in SIGNS else part
