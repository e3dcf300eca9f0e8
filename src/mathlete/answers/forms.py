"""Whole answers: lists, labelled values, chains of =, relations, sets, intervals, tuples, ratios, text.

Source of the conventions: the semantics table in docs/answers.md. Lists hold relations, relations hold expressions,
and brackets inside an expression hold lists again, so these readers call each other.
"""

from __future__ import annotations

from mathlete.answers.annotations import name_by_words, says_where, trim_annotations
from mathlete.answers.conventions import adapt_tokens, adapt_tree, read_conventions, split_unit
from mathlete.answers.effort import spend
from mathlete.answers.glyphs import clean
from mathlete.answers.grammar import Grammar
from mathlete.answers.items import (
    MAX_ITEMS,
    collect,
    collect_with_signs,
    drop_line_breaks,
    drop_said_of_letters,
    expand_dots,
    expand_signs,
)
from mathlete.answers.joiners import (
    OPENING,
    drop_bracketed_condition,
    drop_premises,
    is_condition,
    join_with_commas,
    mark_condition,
    mark_joiners,
    split,
)
from mathlete.answers.labels import (
    is_call,
    is_in_words,
    is_plain,
    is_title,
    is_value_beside_name,
    name_of,
    names_equation,
    split_words,
)
from mathlete.answers.laws import names_operation, states_equation, states_motion
from mathlete.answers.lexer import MAX_WRITTEN, Token, tokenize
from mathlete.answers.prose import read_words, strip_prose, unwrap_text
from mathlete.answers.relations import ORDER_SIGNS, SIGNS, chain_inequalities, equate
from mathlete.answers.tree import Node, TooBig, Unreadable, replace, symbol, symbols
from mathlete.answers.vectors import make_vector
from mathlete.answers.vocabulary import GREEK

_INTERVALS = {"(]": "(]", "[)": "[)", "[]": "[]", "][": "()", "]]": "(]", "[[": "[)"}
"""The brackets of each way to write an interval; ]0, 1[ is the French one."""
_UNKNOWNS = frozenset("abcpqrstuvwxyz")
_CURRENCY_SIGNS = frozenset({"$", r"\$", "€", "£", "¥", "?"})


def read(text: str, settings: str = "") -> Node:
    """Return the tree of a whole answer, read by the conventions that the settings name.

    Raises:
        Unreadable: the text is no answer of the grammar.
    """
    if len(text) > MAX_WRITTEN:
        raise Unreadable(f"longer than {MAX_WRITTEN} characters")
    spend(len(text) // 3)
    unit = ""
    if "unit=compared" in settings:
        text, unit = split_unit(text)
    cleaned = clean(text)
    if not cleaned:
        raise Unreadable("nothing is left after removing spacing")
    words = read_words(cleaned)
    if words is not None:
        return words
    if inner := unwrap_text(cleaned):
        return read(inner, settings)
    tokens = tokenize(strip_prose(cleaned))
    spend(2 * len(tokens))
    if not settings:
        return read_items(tokens)
    conventions = read_conventions(settings)
    return adapt_tree(read_items(adapt_tokens(tokens, conventions)), conventions, unit=unit)


def read_items(tokens: list[Token]) -> Node:
    """Return a list of items or the one item; relations joined by "or" make a union of regions."""
    tokens = mark_joiners(drop_line_breaks(tokens))
    tokens = join_with_commas(mark_condition(tokens))
    tokens = drop_premises(tokens)
    groups = [group for group in split(tokens, "and", "or", ";") if group]
    if len(groups) == 1:
        return _read_with_condition(groups[0])
    is_or = any(token.kind == "join" and token.text == "or" for token in tokens)
    nodes = [_read_comma_list(group) for group in groups]
    return collect(nodes if is_or else name_by_words(nodes, groups), is_or=is_or)


def _read_with_condition(tokens: list[Token]) -> Node:
    """Return a list without the condition behind it: `2k for k > 0` is 2k.

    Raises:
        Unreadable: the words of a condition without a relation, or values for several cases.
    """
    value, *conditions = split(tokens, "if")
    if conditions and (len(conditions) > 1 or not value or not is_condition(conditions[0])):
        raise Unreadable("a condition that cannot be read")
    return _read_comma_list([*value[:-1], *(t for t in value[-1:] if t.text != ",")] if conditions else tokens)


def _split_chain(part: list[Token]) -> list[list[Token]]:
    """Return `x = y = 1` beside other items as x = 1 and y = 1."""
    at = (
        len(part) - 1 - [token.text for token in reversed(part)].index("=")
        if len(part) > 4 and "=" in _texts(part)
        else 0
    )
    names, signs = part[:at:2], part[1:at:2]
    is_chain = at > 2 and all(token.kind == "name" for token in names) and all(token.text == "=" for token in signs)
    return [[name, *part[at:]] for name in names] if is_chain and at % 2 else [part]


def _texts(part: list[Token]) -> list[str]:
    return [token.text for token in part]


def _read_comma_list(tokens: list[Token]) -> Node:
    parts = [part for part in split(tokens, ",") if part]
    if not parts:
        raise Unreadable("an empty list")
    if len(parts) > MAX_ITEMS:
        raise TooBig(f"a list of more than {MAX_ITEMS} items")
    parts = drop_said_of_letters([drop_bracketed_condition(part) for part in parts])
    # Beside other items x = y = 1 names two values; alone it is a point.
    if len(parts) > 1:
        parts = [one for part in parts for one in _split_chain(part)]
    nodes = [read_relation(part) for part in parts]
    if any(token.text == r"\vec" for token in tokens):
        nodes = [make_vector(node) for node in nodes]
    return collect_with_signs(expand_dots(name_by_words(nodes, parts)))


def read_relation(tokens: list[Token]) -> Node:
    """Return one item: an expression, a labelled value, the end of a chain of =, an equation or an inequality."""
    parts: list[list[Token]] = [[]]
    signs: list[str] = []
    depth = 0
    for token in tokens:
        depth += OPENING.get(token.text, 0) if token.kind in ("op", "cmd") else 0
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
    if "iff" in signs:
        if _names_two_values(parts, signs.index("iff")):
            raise Unreadable("two values, of which one holds where the other does")
        signs = ["then" if sign == "iff" else sign for sign in signs]
    if "then" in signs:
        last = len(signs) - 1 - signs[::-1].index("then")
        # An implication between bare statements, p => q, is no derivation of a value.
        if set(signs) == {"then"} and any(token.kind != "text" for token in parts[last]):
            raise Unreadable("an implication")
        return _relate(parts[last + 1 :], signs[last + 1 :])
    if not signs:
        return read_expression(parts[0])
    # Exact beats rounded: of "sqrt 2 ~ 1.41" the answer is the root.
    if "~" in signs:
        return _read_approximation(parts, signs)
    if set(signs) <= {"="}:
        return _read_equalities(parts)
    if signs == ["mod="]:
        return _read_congruence(parts)
    # {2k | k in Z} is no name in a set: what stands before the sign must be a name, or it is the answer itself.
    if signs == ["in"] and not is_plain(parts[0]):
        raise Unreadable("a membership of what is no name")
    if signs == ["in"]:
        return Node("in", (read_expression(parts[1]),))
    if signs == ["to"]:
        return _read_arrow(parts)
    if signs[0] in ORDER_SIGNS and len(signs) == 1 and not parts[0]:
        return chain_inequalities([symbol("x"), read_expression(parts[1])], signs)
    if set(signs) <= ORDER_SIGNS | {"="}:
        return chain_inequalities([read_expression(part) for part in parts], signs)
    raise Unreadable(f"the relation {' '.join(signs)}")


def _read_arrow(parts: list[list[Token]]) -> Node:
    r"""Return the value behind `x \to 3`, or behind a leading arrow.

    Raises:
        Unreadable: an arrow between two names, as of a map `A \to B`.
    """
    left, right = parts
    value = read_expression(right)
    is_name = left and left[0].kind != "num" and (is_plain(left) or is_call(left, right))
    if not is_name or value.op in ("field", "sym") or any(token.text in (":", r"\colon") for token in left):
        raise Unreadable("an arrow that leads to no value")
    return Node("named", (value,), name_of(left))


def _read_congruence(parts: list[list[Token]]) -> Node:
    r"""Return the right side of `2^{100} \equiv 2 \pmod 7`, or of one whose left side is a label.

    Raises:
        Unreadable: a congruence for an unknown, as `x^2 \equiv 1` is.
    """
    value = read_expression(parts[1])
    try:
        left = read_expression(parts[0]) if parts[0] else value
    except Unreadable:
        if not is_in_words(parts[0]) or any("all" in token.text.casefold().split() for token in parts[0]):
            raise
        return value
    if symbols(left) and left.op != "sym" and equate(left, value, names=("", "")).op != "named":
        raise Unreadable("a congruence for an unknown")
    return value


def _names_two_values(parts: list[list[Token]], at: int) -> bool:
    r"""Return whether `N = 42 \iff k = 6` names other values before the sign than behind it: none is the answer."""
    heads = [part for part in (parts[0], parts[at + 1]) if len(part) == 1 and part[0].kind == "name"]
    return len(heads) == 2 and len(parts) > at + 2 and heads[0][0].text != heads[1][0].text


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
    names = [name_of(part) for part in parts[:-1] if _is_unknown(part)]
    if len(names) == len(parts) - 1 > 1 and len(set(names)) == len(names):
        # x = y = z = 1 is the point (1, 1, 1), x = y = ±1 are two.
        points = [Node("tuple", (value,) * len(names)) for value in expand_signs(last)]
        return points[0] if len(points) == 1 else Node("list", tuple(points))
    if any(is_value_beside_name(part) for part in parts[1:-1]):
        raise Unreadable("two values without a sign between them")
    named = Node("named", (last,), name_of(parts[0]))
    if len(parts) == 2 and states_equation(parts[0], last):
        raise Unreadable("an operation that is set equal to something, which is no label")
    if len(parts) == 2 and states_motion(parts[0], last):
        return Node("eq", (symbol(name_of(parts[0])), last))
    if is_call(parts[0], parts[-1]):
        return named
    words, rest = split_words(parts[0])
    # "Area of" ABC: letters behind words are part of the name.
    if words and words[0].kind == "text" and (not rest or words[-1].text.split()[-1:] == ["of"]):
        return named
    if words and rest and says_where(words[-1].text):
        raise Unreadable("words that go on with the equation")
    if rest and names_equation(words):
        parts[0] = rest
    try:
        first = read_expression(parts[0])
    except Unreadable:
        # A label in words, as in "number of ways = 12", or a chain: the value stands at the end. Any other side that
        # cannot be read may be an unknown's equation, which is not its right side.
        if len(parts) > 2 or is_in_words(parts[0]) or names_operation(parts[0], last):
            return named
        raise
    return named if len(parts) > 2 else equate(first, last, names=(name_of(parts[0]), name_of(parts[-1])))


def _is_unknown(part: list[Token]) -> bool:
    r"""Return whether the tokens are an unknown's name: x, \alpha, x_1."""
    head, *rest = part or [Token("end", "")]
    is_letter = head.text in _UNKNOWNS or (head.kind == "cmd" and head.text[1:] in GREEK)
    index = [token for token in rest if token.text not in ("{", "}")]
    return is_letter and (not rest or (len(index) == 2 and index[0].text == "_"))


def read_expression(tokens: list[Token]) -> Node:
    """Return the tree of an expression without relations, with annotations at its ends removed."""
    tokens = [t for t in tokens if t.text not in _CURRENCY_SIGNS]
    ratio = split(tokens, ":", r"\colon")
    if len(ratio) > 1 and is_title(ratio[0]) and not is_title(ratio[-1]):
        ratio = ratio[1:]
        tokens = ratio[0]
    if len(ratio) > 1:
        return Node("ratio", tuple(read_expression(part) for part in ratio))
    trimmed = trim_annotations(tokens)
    if not trimmed:
        raise Unreadable("an empty expression")
    if stacked := _read_stacked(trimmed):
        return stacked
    return Grammar(trimmed, read_group=read_group).read_all()


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
    items = _read_list(tokens, expand=opener in ("{", r"\{"))
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
                region = read_items(tokens[at + 1 :])
                # Of {n in Z : n^2 < 4} the whole numbers are meant, not the interval.
                if at > 1 and tokens[2].text in (r"\Z", r"\N"):
                    return Node("whole", (Node("union", (region,)),), tokens[2].text[1:])
                # One set: the conditions of two sets side by side do not hold together.
                return Node("union", (region,)) if region.op in ("rel", "inter") else region
            return _read_family(tokens[:at], tokens[at + 1 :])
    return None


def _read_family(value: list[Token], condition: list[Token]) -> Node | None:
    r"""Return `{3k : k \in \Z}` as its formula with the letter k, whatever letter the set binds; None for others."""
    if len(condition) != 3 or condition[1].text != r"\in" or condition[2].text not in (r"\Z", r"\N"):
        return None
    formula, letter = read_expression(value), symbol(condition[0].text)
    if symbols(formula) != {condition[0].text}:
        raise Unreadable("a family of several letters")
    return replace(formula, letter, symbol("k"))


def _read_nested_rows(tokens: list[Token]) -> Node | None:
    """Return `[[1, 2], [3, 4]]`, a matrix as programs print it, or None."""
    parts = split(tokens, ",")
    if len(parts) < 2 or not all(len(p) > 2 and p[0].text == "[" and p[-1].text == "]" for p in parts):
        return None
    rows = tuple(Node("row", _read_list(part[1:-1], expand=False)) for part in parts)
    return Node("matrix", rows) if len({len(row.args) for row in rows}) == 1 else None


def _read_stacked(tokens: list[Token]) -> Node | None:
    """Return `{a \\over b}` or `{n \\choose k}`: all before the command over all after it; None for anything else."""
    for command, op in ((r"\over", "div"), (r"\choose", "binom")):
        parts = split(tokens, command)
        if len(parts) == 2 and all(parts):
            return Node(op, (read_expression(parts[0]), read_expression(parts[1])))
    return None


def _is_single_item(tokens: list[Token]) -> bool:
    """Return whether no comma makes the tokens a list; a ± in them is then expanded at the top, with all others."""
    return all([part for part in split(tokens, separator) if part] == [tokens] for separator in ",;")


def _read_list(tokens: list[Token], *, expand: bool) -> tuple[Node, ...]:
    """Return the items between commas or semicolons; in a set both values of ±, while a pair keeps its sign."""
    if not tokens:
        return ()
    parts = split(tokens, ";") if any(t.text == ";" for t in tokens) else split(tokens, ",")
    items: list[Node] = []
    for part in parts:
        if part:
            item = read_relation(part)
            items.extend(expand_signs(item) if expand else [item])
    return tuple(expand_dots(items))
