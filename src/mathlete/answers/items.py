"""Items side by side: named values, lists, conditions, the values of ±, the lines of an answer."""

from __future__ import annotations

import re
from itertools import product
from math import prod

from mathlete.answers.effort import spend
from mathlete.answers.exact import exact_value
from mathlete.answers.lexer import Token
from mathlete.answers.relations import SIGNS, make_point
from mathlete.answers.tree import Node, Unreadable, number, symbol, walk

_REGIONS = frozenset({"interval", "union", "field"})
_CONDITIONS = frozenset({"rel", "inter", "in"})
MAX_ITEMS = 400
"""Items of a list that are read."""
_MAX_SIGNS = 4
"""Signs ± that are chosen independently: sixteen values."""


def collect(nodes: list[Node], *, is_or: bool) -> Node:
    """Return items as one answer: the only one, a region, a tuple of named values, or an unordered list.

    Raises:
        Unreadable: a value behind a condition.
    """
    if len(nodes) == 1:
        return nodes[0]
    first = next((at for at, node in enumerate(nodes) if node.op in _CONDITIONS), None)
    if first is not None and not is_or:
        nodes = _repeat_exclusion(nodes)
        if any(node.op not in _CONDITIONS for node in nodes[first:]):
            raise Unreadable("a value behind a condition")
        if first and all(node.op in _REGIONS for node in nodes[:first]):
            # A condition narrows a region: [0, 5] without 2.
            return Node("inter", tuple(_join_memberships(nodes)))
        if first:
            # What stands behind the values says where they hold or what their letters are.
            return collect(nodes[:first], is_or=False)
    nodes = _join_memberships(nodes)
    if len(nodes) == 1:
        return nodes[0]
    if is_or and all(node.op == "named" for node in nodes) and len({node.value for node in nodes}) > 1:
        # x = 1 or y = 2 is no point.
        return Node("list", tuple(Node("point", node.args, str(node.value)) for node in nodes))
    # Conditions side by side hold together, unless "or" stands between them.
    if any(node.op in ("rel", "inter") for node in nodes):
        return Node("union" if is_or else "inter", tuple(nodes))
    return _collect_values(nodes)


def _repeat_exclusion(nodes: list[Node]) -> list[Node]:
    """Return the items with `x != 1, 4` as x != 1, x != 4."""
    repeated: list[Node] = []
    for node in nodes:
        before = repeated[-1] if repeated else None
        if before is not None and before.op == "rel" and before.value == "!=" and node.op not in _CONDITIONS:
            node = Node("rel", (before.args[0], node), "!=")
        repeated.append(node)
    return repeated


def _join_memberships(nodes: list[Node]) -> list[Node]:
    """Return the sets of `x \\in S`; beside inequalities a set of whole numbers only says what the letter is."""
    is_bounded = any(node.op in ("rel", "inter") for node in nodes)
    sets = [node.args[0] if node.op == "in" else node for node in nodes]
    kept = [s for s, node in zip(sets, nodes, strict=True) if not (is_bounded and node.op == "in" and s.op == "field")]
    return kept or sets


def _collect_values(nodes: list[Node]) -> Node:
    names = [str(node.value) for node in nodes if node.op == "named"]
    distinct = set(names)
    if len(names) == len(nodes) and len(distinct) > 1:
        size = len(distinct)
        points = [nodes[at : at + size] for at in range(0, len(nodes), size)]
        # x=1, y=2 is a point, in the order of its names; x=1, y=2, x=3, y=4 are two; x=1, x=2 is a list of solutions.
        if all({str(node.value) for node in point} == distinct for point in points):
            tuples = [make_point([str(n.value) for n in point], [n.args[0] for n in point]) for point in points]
            return tuples[0] if len(tuples) == 1 else Node("list", tuple(tuples))
    # Other names, as of x = 1, x = 2 and y = 3, leave a list of values.
    items: list[Node] = []
    for node in nodes:
        bare = node.args[0] if node.op == "named" else node
        items.extend(bare.args if bare.op == "list" else (bare,))
    return Node("list", tuple(items))


def collect_with_signs(nodes: list[Node]) -> Node:
    """Return items, some with ±, as one answer: of named values each choice is a point, of others each is an item."""
    names = {str(node.value) for node in nodes if node.op == "named"}
    if any(n.op == "mp" for node in nodes for n in walk(node)) and len(names) == len(nodes) > 1:
        # x = 1 ± a, y = 1 ∓ a: the upper signs make one point, the lower ones the other.
        both = expand_signs(Node("list", tuple(nodes)))
        return Node("list", tuple(collect(list(choice.args), is_or=False) for choice in both))
    values = [expand_signs(node) for node in nodes]
    choices = prod(map(len, values))
    if len(names) == len(nodes) > 1 and 1 < choices <= 2**_MAX_SIGNS:
        return Node("list", tuple(collect(list(choice), is_or=False) for choice in product(*values)))
    return collect([one for of_node in values for one in of_node], is_or=False)


def expand_signs(node: Node) -> list[Node]:
    """Return the values of an expression with ±: of several such signs each is chosen by itself.

    With ∓, and in the pairs of `(1 ± a, 2 ± b)`, all upper signs go together, and all lower ones.
    """
    signs = [n for n in walk(node) if n.op in ("pm", "mp")]
    if not signs:
        return [node]
    together = any(n.op == "mp" for n in signs) or (node.op == "tuple" and all(len(n.args) == 2 for n in signs))
    if together or len(signs) > _MAX_SIGNS:
        return [_choose_signs(node, [upper] * len(signs)) for upper in (True, False)]
    return [_choose_signs(node, list(choice)) for choice in product((True, False), repeat=len(signs))]


def _choose_signs(node: Node, choice: list[bool]) -> Node:
    """Return the tree with the signs chosen, and take from the list what was used."""
    upper = choice.pop(0) if node.op in ("pm", "mp") else True
    args = tuple(_choose_signs(arg, choice) for arg in node.args)
    if node.op not in ("pm", "mp"):
        return Node(node.op, args, node.value, node.digits)
    last = args[-1] if upper == (node.op == "pm") else Node("neg", (args[-1],))
    return Node("add", (args[0], last)) if len(args) == 2 else last


def expand_dots(nodes: list[Node]) -> list[Node]:
    r"""Return the items with whole numbers for the dots of `1, 2, \ldots, 6`, where the others show their step."""
    at = next((at for at, node in enumerate(nodes) if node == _DOTS), 0)
    if at < 2 or at == len(nodes) - 1 or nodes.count(_DOTS) > 1:
        return nodes
    # The step is that of the first two.
    values = [exact_value(node) for node in nodes if node != _DOTS]
    given = [int(value) for value in values if value is not None and value.denominator == 1]
    step = given[1] - given[0] if len(given) == len(nodes) - 1 else 0
    if not step or not 0 <= (given[-1] - given[0]) // step < MAX_ITEMS:
        return nodes
    filled = list(range(given[0], given[-1] + (1 if step > 0 else -1), step))
    # Of 1, 2, 4, ..., 16 the powers are meant.
    is_one_step = filled[:at] == given[:at] and filled[at - len(given) :] == given[at:]
    return [number(value) for value in filled] if is_one_step else nodes


_DOTS = symbol("...")
_OPEN = {"(": 1, "[": 1, "{": 1, r"\{": 1, r"\begin": 1, ")": -1, "]": -1, "}": -1, r"\}": -1, r"\end": -1}
_PAIR_ENDS = frozenset({")", "]", r"\}"})


def drop_line_breaks(tokens: list[Token]) -> list[Token]:
    """Return the tokens with a comma for each line break between complete lines; any other is white space."""
    if not any(token.kind == "nl" for token in tokens):
        return tokens
    kept: list[Token] = []
    line_start, depth = 0, 0
    for at, token in enumerate(tokens):
        depth += _OPEN.get(token.text, 0) if token.kind in ("op", "cmd") else 0
        if token.kind != "nl":
            kept.append(token)
            continue
        after = _line_after(tokens, at)
        spend(1 + (len(kept) - line_start) // 10)
        # No formula holds an empty line, but between the arguments of a fraction nothing else can stand.
        goes_on = _wants_argument(kept[line_start:]) or (kept and kept[-1].text in ("=", r"\approx", "+"))
        is_paragraph = token.text.count("\n") > 1 and not goes_on
        if depth == 0 and kept and after and (is_paragraph or _are_complete(kept[line_start:], after)):
            kept.append(Token("join", ","))
            line_start = len(kept)
        elif after:
            # The next token is spaced, as it would be behind a blank.
            tokens[at + 1] = Token(after[0].kind, after[0].text, spaced=True)
    return kept


def _line_after(tokens: list[Token], at: int) -> list[Token]:
    end = next((k for k in range(at + 1, len(tokens)) if tokens[k].kind == "nl"), len(tokens))
    return tokens[at + 1 : end]


_SAID_OF_LETTERS = frozenset(
    {"integer", "integers", "prime", "real", "natural", "positive", "constant", "even", "odd", "number"}
)
_SMALL_WORDS = frozenset({"a", "an", "is", "any", ""})


def drop_said_of_letters(parts: list[list[Token]]) -> list[list[Token]]:
    r"""Return the items without what is only said of their letters: `3n^2, n = 0, 1, \ldots`."""
    # What is said of a letter stands behind an item that holds the letter.
    names = {token.text for token in parts[0] if token.kind == "name"} if len(parts) > 1 else set()
    for at, part in enumerate(parts[1:], start=1):
        head, *rest = part
        if head.kind != "name" or not rest:
            continue
        # n = 0, 1 without dots may be values of n: only a list that goes on counts the letter's values.
        words = {word for token in rest for word in token.text.casefold().split()}
        is_counted = (
            rest[0].text == "=" and parts[-1][-1].text in (r"\ldots", r"\dots", r"\cdots") and len(parts) - at > 2
        )
        is_described = head.text in names and words <= _SAID_OF_LETTERS | _SMALL_WORDS and not words <= _SMALL_WORDS
        if is_counted or (is_described and len(parts) == at + 1):
            return parts[:at]
    return parts


def _wants_argument(line: list[Token]) -> bool:
    r"""Return whether a line ends between the arguments of a fraction: `\frac{49}`."""
    depth = 0
    for at in range(len(line) - 1, -1, -1):
        depth += (line[at].text == "}") - (line[at].text == "{")
        if depth == 0:
            return at > 0 and line[at - 1].text in (r"\frac", r"\binom")
    return False


_BASE_OF_LOG = re.compile(r"\\log_(?:\{?\w+\}?)\Z")
"""The end of a line whose logarithm has its argument in the next."""


def _are_complete(line: list[Token], after: list[Token]) -> bool:
    """Return whether a line and the next are items of a list: relations, pairs, words, or a number next."""
    if not line or _wants_argument(line):
        return False
    # TeX breaks a formula where it likes, most often at a sign.
    if line[-1].text in SIGNS or after[0].text in SIGNS:
        return False
    if all(any(t.text in SIGNS and t.kind in ("op", "cmd") for t in part) for part in (line, after)):
        return True
    if _BASE_OF_LOG.search("".join(token.text for token in line[-5:])):
        return False
    # 2 and -1 in two lines are two numbers: nobody breaks so short a sum.
    if all(
        len(part) <= 2 and part[-1].kind == "num" and part[0].text in ("-", part[-1].text) for part in (line, after)
    ):
        return True
    # A number never follows a factor directly, so that it begins an item of its own.
    if after[0].kind == "num" and (
        line[-1].kind in ("num", "name", "word", "text") or line[-1].text in ("}", ")", "]")
    ):
        return True
    if line[-1].text in _PAIR_ENDS and after[0].text in ("(", "[", r"\{"):
        return any(t.text == "," for t in line) and any(t.text == "," for t in after)
    return line[-1].kind in ("text", "word") and after[0].kind in ("text", "word")
