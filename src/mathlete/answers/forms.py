"""Whole answers: lists, labelled values, chains of =, relations, sets, intervals, tuples, ratios, text.

Source of the conventions: the semantics table in docs/answers.md. Lists hold relations, relations hold expressions,
and brackets inside an expression hold lists again, so these readers call each other.
"""

from __future__ import annotations

import re

from mathlete.answers.glyphs import clean
from mathlete.answers.grammar import Grammar
from mathlete.answers.lexer import Token, tokenize
from mathlete.answers.prose import read_words, strip_prose, unwrap_text
from mathlete.answers.relations import ORDER_SIGNS, SIGNS, chain_inequalities, equate, is_plain_name
from mathlete.answers.tree import Node, Unreadable, walk
from mathlete.answers.vocabulary import CURRENCY, NUMBER_WORDS, PERCENT, SCALES

_OPEN = {"(": 1, "[": 1, "{": 1, r"\{": 1, r"\langle": 1, r"\lfloor": 1, r"\begin": 1,
         ")": -1, "]": -1, "}": -1, r"\}": -1, r"\rangle": -1, r"\rfloor": -1, r"\end": -1}  # fmt: skip
_JOINERS = {"and": "and", "or": "or", "&": "and", "or else": "or", "and also": "and", "respectively": "",
            ", and": "and", ", or": "or", "; and": "and", "and,": "and", "oder": "or", "et": "and",
            "ou": "or"}  # fmt: skip
_INTERVALS = {"(]": "(]", "[)": "[)", "[]": "[]", "][": "()", "]]": "(]", "[[": "[)"}
"""The brackets of each way to write an interval; ]0, 1[ is the French one."""
_CURRENCY_SIGNS = frozenset({"$", r"\$", "€", "£", "¥", "?"})


def read(text: str) -> Node:
    """Return the tree of a whole answer.

    Raises:
        Unreadable: the text is no answer of the grammar.
    """
    cleaned = clean(text)
    if not cleaned:
        raise Unreadable("nothing is left after removing spacing")
    words = read_words(cleaned)
    if words is not None:
        return words
    if inner := unwrap_text(cleaned):
        return read(inner)
    return read_items(tokenize(strip_prose(cleaned)))


def read_items(tokens: list[Token]) -> Node:
    """Return a list of items or the one item; relations joined by "or" make a union of regions."""
    tokens = _mark_joiners(tokens)
    groups = [group for group in _split(tokens, "and", "or", ";") if group]
    if len(groups) == 1:
        return _read_comma_list(groups[0])
    nodes = [_read_comma_list(group) for group in groups]
    return _collect(nodes, is_or=any(token.kind == "join" and token.text == "or" for token in tokens))


def _mark_joiners(tokens: list[Token]) -> list[Token]:
    """Return the tokens with "join" tokens for the words between items, and commas for line breaks."""
    marked = []
    for token in tokens:
        joiner = _JOINERS.get(re.sub(r"\s+", " ", token.text.strip().casefold()))
        if token.kind in ("text", "name", "word") and joiner is not None and token.text.strip() != "&":
            # "respectively" joins nothing: it is dropped.
            if joiner:
                marked.append(Token("join", joiner))
        elif token.text in (r"\lor", r"\vee", r"\land", r"\wedge"):
            marked.append(Token("join", "or" if token.text in (r"\lor", r"\vee") else "and"))
        # "3 to 4" is the ratio 3:4.
        elif token.kind in ("text", "word") and token.text.strip() == "to":
            marked.append(Token("op", ":"))
        elif token.kind == "nl":
            marked.append(Token("join", ","))
        else:
            marked.append(token)
    return marked


def _read_comma_list(tokens: list[Token]) -> Node:
    parts = [part for part in _split(tokens, ",") if part]
    if not parts:
        raise Unreadable("an empty list")
    nodes = [node for part in parts for node in _expand_signs(read_relation(part))]
    return _collect(nodes, is_or=False) if len(nodes) > 1 else nodes[0]


def _collect(nodes: list[Node], *, is_or: bool) -> Node:
    """Return several items as one answer: a region, a tuple of named values, or an unordered list."""
    # Conditions side by side hold together, unless "or" stands between them.
    if any(n.op in ("rel", "inter") for n in nodes):
        return Node("union" if is_or else "inter", tuple(nodes))
    names = [str(n.value) for n in nodes if n.op == "named"]
    if len(names) == len(nodes) and len(set(names)) == len(names) and all(len(n) == 1 for n in names):
        # x=1, y=2 is a point, in the order of its names; x=1, x=2 is a list of solutions.
        ordered = sorted(nodes, key=lambda n: str(n.value))
        return Node("tuple", tuple(n.args[0] for n in ordered))
    items: list[Node] = []
    for node in nodes:
        bare = node.args[0] if node.op == "named" else node
        items.extend(bare.args if bare.op == "list" else (bare,))
    return Node("list", tuple(items))


def _expand_signs(node: Node) -> list[Node]:
    """Return the values of a ± expression: all upper signs, then all lower signs."""
    if not any(n.op in ("pm", "mp") for n in walk(node)):
        return [node]
    return [_choose_signs(node, upper=True), _choose_signs(node, upper=False)]


def _choose_signs(node: Node, *, upper: bool) -> Node:
    args = tuple(_choose_signs(a, upper=upper) for a in node.args)
    if node.op not in ("pm", "mp"):
        return Node(node.op, args, node.value, node.digits)
    plus = upper == (node.op == "pm")
    last = args[-1] if plus else Node("neg", (args[-1],))
    return Node("add", (args[0], last)) if len(args) == 2 else last


def _split(tokens: list[Token], *separators: str) -> list[list[Token]]:
    """Return the parts between separators that stand outside all brackets."""
    parts: list[list[Token]] = [[]]
    depth = 0
    for token in tokens:
        depth += _OPEN.get(token.text, 0) if token.kind in ("op", "cmd") else 0
        if depth == 0 and token.text in separators and token.kind in ("op", "cmd", "join"):
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def read_relation(tokens: list[Token]) -> Node:
    """Return one item: an expression, a labelled value, the end of a chain of =, an equation or an inequality."""
    parts: list[list[Token]] = [[]]
    signs: list[str] = []
    depth = 0
    for token in tokens:
        depth += _OPEN.get(token.text, 0) if token.kind in ("op", "cmd") else 0
        if depth == 0 and token.kind in ("op", "cmd") and token.text in SIGNS:
            signs.append(SIGNS[token.text])
            parts.append([])
        else:
            parts[-1].append(token)
    return _relate(parts, signs)


def _relate(parts: list[list[Token]], signs: list[str]) -> Node:
    """Return the tree of one item that was split at its relation signs.

    Only the parts that decide the value are read: words nobody can parse often stand before the sign.

    Raises:
        Unreadable: a part that decides the value cannot be read.
    """
    if "then" in signs:
        last = len(signs) - 1 - signs[::-1].index("then")
        return _relate(parts[last + 1 :], signs[last + 1 :])
    if not signs:
        return read_expression(parts[0])
    if "~" in signs:
        return _read_approximation(parts, signs)
    if set(signs) <= {"="}:
        return _read_equalities(parts)
    if signs == ["mod="]:
        return read_expression(parts[1])
    if signs == ["in"] or (signs == ["to"] and len(parts[0]) == 1):
        return read_expression(parts[1])
    if set(signs) <= ORDER_SIGNS | {"="}:
        return chain_inequalities([read_expression(part) for part in parts], signs)
    raise Unreadable(f"the relation {' '.join(signs)}")


def _read_approximation(parts: list[list[Token]], signs: list[str]) -> Node:
    """Return the exact value before ≈; after a bare label or nothing, return the approximation."""
    at = signs.index("~")
    if not parts[at]:
        return read_expression(parts[at + 1])
    before = _relate(parts[: at + 1], signs[:at])
    if before.op == "sym" or before.op == "apply":
        return read_expression(parts[at + 1])
    return before


def _read_equalities(parts: list[list[Token]]) -> Node:
    parts = [p for p in parts if p] if len(parts) > 2 or not parts[0] else parts
    if not parts:
        raise Unreadable("nothing but signs")
    if len(parts) == 1:
        return read_expression(parts[0])
    last = read_expression(parts[-1])
    try:
        first = read_expression(parts[0])
    except Unreadable:
        # A label in words, as in "number of ways = 12": the value stands behind it.
        return last
    if len(parts) > 2:
        return Node("named", (last,), first.value) if first.op == "sym" and is_plain_name(first) else last
    return equate(first, last)


def read_expression(tokens: list[Token]) -> Node:
    """Return the tree of an expression without relations, with annotations at its ends removed."""
    tokens = [t for t in tokens if t.text not in _CURRENCY_SIGNS]
    ratio = _split(tokens, ":", r"\colon")
    if len(ratio) > 1:
        return Node("ratio", tuple(read_expression(part) for part in ratio))
    trimmed = _trim_annotations(tokens)
    if not trimmed:
        raise Unreadable("an empty expression")
    if stacked := _read_stacked(trimmed):
        return stacked
    return Grammar(trimmed, read_group=read_group).read_all()


def _trim_annotations(tokens: list[Token]) -> list[Token]:
    """Return the tokens without words before a value and nouns after it: `\\text{Area: } 5 \\text{ apples}`."""
    start, end = 0, len(tokens)
    while start < end - 1 and _is_label(tokens[start]):
        start += 1
    while end > start + 1:
        end_of_unit = _start_of_unit_power(tokens[:end])
        if tokens[end_of_unit - 1].kind in ("text", "word") and _is_noun(tokens[end_of_unit - 1]) and end_of_unit > 1:
            end = end_of_unit - 1
        else:
            break
    return tokens[start:end]


def _is_label(token: Token) -> bool:
    return (token.kind == "text" and _is_noun(token)) or (token.kind == "word" and token.text.lower() in CURRENCY)


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
    # These words change the value, so they are no annotation.
    if word in PERCENT or word in SCALES or word in NUMBER_WORDS or word in ("degrees", "degree", "mod"):
        return False
    if token.kind == "word":
        # Letters glued to a number may be a product: 3abc.
        return len(word) > 2 and token.spaced and word.isalpha()
    wordy = re.match(r"[A-Za-z(][A-Za-z .,'()/^0-9:²³-]*\Z", token.text.strip())
    return (bool(wordy) and len(word) > 1) or word in "mgs"


def read_group(tokens: list[Token], opener: str, closer: str) -> Node:
    """Return the tree of a bracketed token list; what the bracket means depends on its kind and its commas."""
    builder = _read_set_builder(tokens) if opener in (r"\{", "{") else None
    if builder is not None:
        return builder
    # A plain { } groups for TeX, so what stands in it may be a fraction by \over; \{ \} is a set, even of one item.
    if opener == "[" and (nested := _read_nested_rows(tokens)):
        return nested
    if opener != r"\{" and (stacked := _read_stacked(tokens)):
        return stacked
    if opener != r"\{" and _is_single_item(tokens):
        return read_relation(tokens)
    items = _read_list(tokens)
    if opener == r"\{":
        return Node("set", items)
    if opener == "{":
        return items[0] if len(items) == 1 else Node("set", items)
    # (1, 2) stays a pair: only brackets that no pair has make an interval here, and the canonical form unites the two.
    pair = opener + closer
    if len(items) == 2 and pair in _INTERVALS:
        return Node("interval", items, _INTERVALS[pair])
    if len(items) == 1 and pair in ("()", "[]"):
        return items[0]
    if not items and pair == "()":
        raise Unreadable("an empty bracket")
    return Node("tuple", items)


def _read_set_builder(tokens: list[Token]) -> Node | None:
    """Return `{x : x > 3}` and `{x \\in R | x > 3}` as the region of the condition."""
    for at, token in enumerate(tokens):
        if token.text in ("|", ":", r"\mid", r"\colon") and 0 < at < len(tokens) - 1:
            head = tokens[0]
            if head.kind == "name" and (at == 1 or tokens[1].text == r"\in"):
                return read_items(tokens[at + 1 :])
            return None
    return None


def _read_nested_rows(tokens: list[Token]) -> Node | None:
    """Return `[[1, 2], [3, 4]]`, a matrix as programs print it, or None."""
    parts = _split(tokens, ",")
    if len(parts) < 2 or not all(len(p) > 2 and p[0].text == "[" and p[-1].text == "]" for p in parts):
        return None
    rows = tuple(Node("row", _read_list(part[1:-1])) for part in parts)
    return Node("matrix", rows) if len({len(row.args) for row in rows}) == 1 else None


def _read_stacked(tokens: list[Token]) -> Node | None:
    """Return `{a \\over b}` or `{n \\choose k}`: all before the command over all after it; None for anything else."""
    for command, op in ((r"\over", "div"), (r"\choose", "binom")):
        parts = _split(tokens, command)
        if len(parts) == 2 and all(parts):
            return Node(op, (read_expression(parts[0]), read_expression(parts[1])))
    return None


def _is_single_item(tokens: list[Token]) -> bool:
    """Return whether no comma makes the tokens a list; a ± in them is then expanded at the top, with all others."""
    return all([part for part in _split(tokens, separator) if part] == [tokens] for separator in ",;")


def _read_list(tokens: list[Token]) -> tuple[Node, ...]:
    """Return the items between commas or semicolons, with ± expanded."""
    if not tokens:
        return ()
    parts = _split(tokens, ";") if any(t.text == ";" for t in tokens) else _split(tokens, ",")
    items: list[Node] = []
    for part in parts:
        if part:
            items.extend(_expand_signs(read_relation(part)))
    return tuple(items)
