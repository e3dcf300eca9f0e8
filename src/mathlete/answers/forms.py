"""Whole answers: lists, labelled values, chains of =, relations, sets, intervals, tuples, ratios, text.

Source of the conventions: the semantics table in docs/answers.md.
"""

from __future__ import annotations

import re

from mathlete.answers.glyphs import clean
from mathlete.answers.grammar import Grammar
from mathlete.answers.lexer import Token, tokenize
from mathlete.answers.tree import Node, Unreadable, number, walk
from mathlete.answers.vocabulary import ALL_REALS, CURRENCY, NO_SOLUTION, NUMBER_WORDS

RELATIONS = {
    "=": "=", "==": "=", "<": "<", ">": ">", "<=": "<=", ">=": ">=", r"\le": "<=", r"\leq": "<=", r"\leqslant": "<=",
    r"\ge": ">=", r"\geq": ">=", r"\geqslant": ">=", r"\lt": "<", r"\gt": ">", "!=": "!=", "<>": "!=", r"\ne": "!=",
    r"\neq": "!=", r"\approx": "~", r"\simeq": "~", r"\doteq": "~", r"\in": "in", r"\equiv": "mod=", r"\to": "to",
    r"\cong": "mod=", ":=": "=", r"\Rightarrow": "then", r"\implies": "then", r"\iff": "then",
    r"\Leftrightarrow": "then", "->": "to", r"\rightarrow": "to", r"\coloneqq": "=", r"\subseteq": "sub",
    r"\subset": "sub", r"\ll": "<<", r"\gg": ">>",
}  # fmt: skip
_OPEN = {"(": 1, "[": 1, "{": 1, r"\{": 1, r"\langle": 1, r"\lfloor": 1, r"\begin": 1,
         ")": -1, "]": -1, "}": -1, r"\}": -1, r"\rangle": -1, r"\rfloor": -1, r"\end": -1}  # fmt: skip
_JOINERS = {"and": "and", "or": "or", "&": "and", "or else": "or", "and also": "and", "respectively": "",
            ", and": "and", ", or": "or", "; and": "and", "and,": "and", "oder": "or", "et": "and",
            "ou": "or"}  # fmt: skip
_WORDS = re.compile(r"[A-Za-z][A-Za-z'\- ]*[.!]?\Z")
_TIME = re.compile(r"\d{1,2}:0\d(?::\d{2})?|\d{1,2}:[0-5]\d\s*[ap]\.?m\.?\Z", re.I)
_CHOICE = re.compile(r"\(?\s*([A-Z])\s*\)\s*\S|([A-Z])\s*[.:)]\s+\S|\(?([A-Za-z])\)\Z")
_OPTION = re.compile(r"(?:option|choice|(?:the )?(?:correct )?answer is:?) (?=\(?[A-Z]\)?\Z)", re.I)
_TEXT = re.compile(
    r"\\(?:text|mbox|textnormal|textbf|textit|textrm|mathrm|mathbf|mathit|textsf|operatorname|bf|rm)\s*(?=\{)"
)
_ALL_TEXT = re.compile(_TEXT.pattern + r"\{([^{}]*[,\d][^{}]*)\}")


def read(text: str) -> Node:
    """The tree of a whole answer.

    Raises:
        Unreadable: the text is no answer the grammar knows.
    """
    cleaned = clean(text)
    if not cleaned:
        raise Unreadable("nothing is left after removing spacing")
    special = words(cleaned)
    if special is not None:
        return special
    if inner := _ALL_TEXT.fullmatch(cleaned):
        return read(inner[1])
    tokens = tokenize(_prose(cleaned))
    return read_items(tokens, top=True)


def words(cleaned: str) -> Node | None:
    """The node of an answer made of words: a letter of a choice, a number word, "no solution", other text."""
    plain = _TEXT.sub("", cleaned).replace("{", "").replace("}", "").replace("$", "").strip()
    plain = _OPTION.sub("", re.sub(r"\s+", " ", plain).strip(" .,;:*'\""))
    folded = plain.casefold()
    if folded in NO_SOLUTION:
        return Node("set")
    if folded in ALL_REALS:
        return Node("field", value="reals")
    if (count := number_word(folded)) is not None:
        return number(count)
    if _TIME.match(plain):
        return Node("text", value=folded.replace(".", "").replace(" ", ""))
    choice = _CHOICE.match(plain)
    if choice:
        return Node("letter", value=str(choice[1] or choice[2] or choice[3]).casefold())
    if len(plain) == 1 and plain.isalpha() and plain not in "ei":
        return Node("letter", value=folded)
    if _WORDS.match(plain) and _is_text(plain, cleaned):
        names = re.split(r" and | or ", folded)
        texts = tuple(Node("text", value=_SYNONYMS.get(name, name)) for name in names)
        return Node("list", texts) if len(texts) > 1 else texts[0]
    return None


_SYNONYMS = {"dne": "does not exist", "doesn't exist": "does not exist"}


def number_word(word: str) -> int | None:
    """The number a word spells: twelve, forty-two."""
    tens, dash, ones = word.replace(" ", "-").partition("-")
    if dash and 20 <= NUMBER_WORDS.get(tens, 0) <= 90 and 0 < NUMBER_WORDS.get(ones, 0) < 10:
        return NUMBER_WORDS[tens] + NUMBER_WORDS[ones]
    return NUMBER_WORDS.get(word)


def _is_text(plain: str, cleaned: str) -> bool:
    """Several letters are text if marked as text or if they look like words rather than products."""
    marked = bool(_TEXT.match(cleaned)) and len(plain) > 1
    longest = max(len(w) for w in re.split(r"[ '\-]+", plain) if w) if plain else 0
    return (marked and plain not in ("pi", "infinity")) or (longest > 2 and plain not in _NAMES)


_NAMES = frozenset({"pi", "infinity", "inf", "oo", "abc", "xyz", "abcd"})
_IS = re.compile(r".*\b(?:is|are|equals)\s*[:]?\s+(?=\S*[\d\\(\[{])", re.S)
_ABOUT = re.compile(
    r"\\(?:text|mbox)\s*\{\s*\(?\s*(?:(?:or )?(?:about|approx|approximately)|i\.e\.|which|where)[^{}]*\}.*", re.S
)

_WHERE = re.compile(r"(?<=\S),?\s+(?:where|for (?:all|any|every|each|some))\s.*", re.S)


def _prose(cleaned: str) -> str:
    """The value in "the area is 5", and the exact part of "5/3 (about 1.67)"."""
    cut = _ABOUT.match(cleaned)
    if cut is None and (found := _ABOUT.search(cleaned)) and found.start() > 0:
        cleaned = cleaned[: found.start()]
    cleaned = _WHERE.sub("", cleaned)
    if "is" in cleaned or "are" in cleaned or "equals" in cleaned:
        cleaned = _IS.sub("", cleaned.replace("\\ ", " "))
    return cleaned


def read_group(tokens: list[Token], opener: str, closer: str) -> Node:
    """The tree of a bracketed token list; what the bracket means depends on its kind and its commas."""
    builder = _set_builder(tokens) if opener in (r"\{", "{") else None
    if builder is not None:
        return builder
    if opener == "[" and (nested := _nested_rows(tokens)):
        return nested
    if opener != r"\{" and (stacked := _stacked(tokens)):
        return stacked
    if opener != r"\{" and (single := _single_item(tokens)):
        return read_relation(single)
    items = read_list(tokens)
    if opener == r"\{":
        return Node("set", items)
    if opener == "{":
        return items[0] if len(items) == 1 else Node("set", items)
    pair = opener + closer
    if len(items) == 2 and pair in _INTERVALS:
        return Node("interval", items, _INTERVALS[pair])
    if len(items) == 1 and pair in ("()", "[]"):
        return items[0]
    if not items and pair == "()":
        raise Unreadable("an empty bracket")
    return Node("tuple", items)


_INTERVALS = {"(]": "(]", "[)": "[)", "[]": "[]", "][": "()", "]]": "(]", "[[": "[)"}


def _nested_rows(tokens: list[Token]) -> Node | None:
    """`[[1, 2], [3, 4]]`: a matrix as program output writes it."""
    parts = _split(tokens, ",")
    if len(parts) < 2 or not all(len(p) > 2 and p[0].text == "[" and p[-1].text == "]" for p in parts):
        return None
    rows = tuple(Node("row", read_list(part[1:-1])) for part in parts)
    return Node("matrix", rows) if len({len(row.args) for row in rows}) == 1 else None


def _stacked(tokens: list[Token]) -> Node | None:
    """`{a \\over b}` and `{n \\choose k}`: all that stands before the command over all that stands after it."""
    for command, op in ((r"\over", "div"), (r"\choose", "binom")):
        parts = _split(tokens, command)
        if len(parts) == 2 and all(parts):
            return Node(op, (read_expression(parts[0]), read_expression(parts[1])))
    return None


def _set_builder(tokens: list[Token]) -> Node | None:
    """`{x : x > 3}` and `{x \\in R | x > 3}` as the region of the condition."""
    for at, token in enumerate(tokens):
        if token.text in ("|", ":", r"\mid", r"\colon") and 0 < at < len(tokens) - 1:
            head = tokens[0]
            if head.kind == "name" and (at == 1 or tokens[1].text == r"\in"):
                return read_items(tokens[at + 1 :], top=False)
            return None
    return None


def _single_item(tokens: list[Token]) -> list[Token] | None:
    """The tokens without an empty list end, if no comma makes them a list; a ± in them is written out at the top."""
    parts = [part for separator in ",;" for part in _split(tokens, separator) if part]
    return tokens if len(parts) == 2 and parts[0] == parts[1] == tokens else None


def read_list(tokens: list[Token]) -> tuple[Node, ...]:
    """The items between commas or semicolons, with ± written out."""
    if not tokens:
        return ()
    parts = _split(tokens, ";") if any(t.text == ";" for t in tokens) else _split(tokens, ",")
    found: list[Node] = []
    for part in parts:
        if part:
            found.extend(expand(read_relation(part)))
    return tuple(found)


def expand(node: Node) -> list[Node]:
    """The values of a ± expression: all upper signs, then all lower signs."""
    if not any(n.op in ("pm", "mp") for n in walk(node)):
        return [node]
    return [_choose(node, upper=True), _choose(node, upper=False)]


def _choose(node: Node, *, upper: bool) -> Node:
    args = tuple(_choose(a, upper=upper) for a in node.args)
    if node.op not in ("pm", "mp"):
        return Node(node.op, args, node.value, node.digits)
    plus = upper == (node.op == "pm")
    last = args[-1] if plus else Node("neg", (args[-1],))
    return Node("add", (args[0], last)) if len(args) == 2 else last


def _split(tokens: list[Token], *separators: str) -> list[list[Token]]:
    parts: list[list[Token]] = [[]]
    depth = 0
    for token in tokens:
        depth += _OPEN.get(token.text, 0) if token.kind in ("op", "cmd") else 0
        if depth == 0 and token.text in separators and token.kind in ("op", "cmd", "join"):
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def _joined(tokens: list[Token]) -> list[Token]:
    """Words and texts that join items become join tokens; line breaks become commas where items stand alone."""
    found = []
    for token in tokens:
        joiner = _JOINERS.get(re.sub(r"\s+", " ", token.text.strip().casefold()))
        if token.kind in ("text", "name", "word") and joiner is not None and token.text.strip() != "&":
            if joiner:
                found.append(Token("join", joiner))
        elif token.text in (r"\lor", r"\vee", r"\land", r"\wedge"):
            found.append(Token("join", "or" if token.text in (r"\lor", r"\vee") else "and"))
        elif token.kind in ("text", "word") and token.text.strip() == "to":
            found.append(Token("op", ":"))
        elif token.kind == "nl":
            found.append(Token("join", ","))
        else:
            found.append(token)
    return found


def read_items(tokens: list[Token], *, top: bool) -> Node:
    """A list of items or the one item; relations joined by "or" make a union of regions."""
    tokens = _joined(tokens)
    separators = ("and", "or", ";")
    groups = [g for g in _split(tokens, *separators) if g]
    if len(groups) == 1:
        return _one_or_list([p for p in _split(groups[0], ",") if p])
    inner = [_one_or_list([p for p in _split(g, ",") if p]) for g in groups]
    is_or = any(t.kind == "join" and t.text == "or" for t in tokens)
    return collect(inner, is_or=is_or)


def _one_or_list(parts: list[list[Token]]) -> Node:
    if not parts:
        raise Unreadable("an empty list")
    nodes = [n for part in parts for n in expand(read_relation(part))]
    return collect(nodes, is_or=False) if len(nodes) > 1 else nodes[0]


def collect(nodes: list[Node], *, is_or: bool) -> Node:
    """Several items as one answer: a region, a tuple of named values, or an unordered list."""
    if any(n.op in ("rel", "inter") for n in nodes):
        return Node("union" if is_or else "inter", tuple(nodes))
    names = [str(n.value) for n in nodes if n.op == "named"]
    if len(names) == len(nodes) and len(set(names)) == len(names) and all(len(n) == 1 for n in names):
        ordered = sorted(nodes, key=lambda n: str(n.value))
        return Node("tuple", tuple(n.args[0] for n in ordered))
    items: list[Node] = []
    for node in nodes:
        bare = node.args[0] if node.op == "named" else node
        items.extend(bare.args if bare.op == "list" else (bare,))
    return Node("list", tuple(items))


def read_relation(tokens: list[Token]) -> Node:
    """One item: an expression, a labelled value, the end of a chain of =, an equation or an inequality."""
    from mathlete.answers.relations import relation

    parts: list[list[Token]] = [[]]
    signs: list[str] = []
    depth = 0
    for token in tokens:
        depth += _OPEN.get(token.text, 0) if token.kind in ("op", "cmd") else 0
        if depth == 0 and token.kind in ("op", "cmd") and token.text in RELATIONS:
            signs.append(RELATIONS[token.text])
            parts.append([])
        else:
            parts[-1].append(token)
    return relation(parts, signs)


def read_expression(tokens: list[Token]) -> Node:
    """The tree of an expression without relations, with annotations at its ends removed."""
    tokens = [t for t in tokens if t.text not in _CURRENCY_SIGNS]
    ratio = _split(tokens, ":", r"\colon")
    if len(ratio) > 1:
        return Node("ratio", tuple(read_expression(part) for part in ratio))
    trimmed = trim(tokens)
    if not trimmed:
        raise Unreadable("an empty expression")
    if stacked := _stacked(trimmed):
        return stacked
    return Grammar(trimmed, groups=read_group).whole()


_CURRENCY_SIGNS = frozenset({"$", r"\$", "€", "£", "¥", "?"})
_VALUE_TEXT = re.compile(r"[-+]?[\d.,/ ]+\Z")


def trim(tokens: list[Token]) -> list[Token]:
    """The tokens without words before a value and nouns after it: `\\text{Area: } 5 \\text{ apples}`."""
    start, end = 0, len(tokens)
    while start < end - 1 and _is_label(tokens[start]):
        start += 1
    while end > start + 1:
        end_of_unit = _unit_power(tokens[:end])
        if tokens[end_of_unit - 1].kind in ("text", "word") and _is_noun(tokens[end_of_unit - 1]) and end_of_unit > 1:
            end = end_of_unit - 1
        else:
            break
    return tokens[start:end]


def _is_label(token: Token) -> bool:
    return (token.kind == "text" and _is_noun(token)) or (token.kind == "word" and token.text.lower() in CURRENCY)


def _unit_power(tokens: list[Token]) -> int:
    """Where `^2` or `^{2}` after a unit starts, or the end."""
    end = len(tokens)
    if end > 2 and tokens[-2].text == "^" and tokens[-3].kind in ("text", "word"):
        return end - 2
    if end > 4 and tokens[-4].text == "^" and tokens[-1].text == "}" and tokens[-5].kind in ("text", "word"):
        return end - 4
    return end


def _is_noun(token: Token) -> bool:
    from mathlete.answers.vocabulary import PERCENT, SCALES

    word = token.text.strip().casefold().strip(".:,;")
    if word in PERCENT or word in SCALES or word in NUMBER_WORDS or word in ("degrees", "degree", "mod"):
        return False
    if token.kind == "word":
        return len(word) > 2 and token.spaced and word.isalpha()
    wordy = re.match(r"[A-Za-z(][A-Za-z .,'()/^0-9:²³-]*\Z", token.text.strip())
    return (bool(wordy) and len(word) > 1) or word in "mgs"
