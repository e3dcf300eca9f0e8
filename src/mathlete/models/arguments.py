"""What a chat template asks of whoever renders it: its arguments, and which of them are true or false."""

import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import nodes

_GIVEN = {"messages", "raise_exception", "strftime_now", "add_generation_prompt", "tools", "documents"}
"""What transformers gives a template."""
_OWN_TAG = re.compile(r"\{%[-+]?\s*(?:end)?generation\s*[-+]?%\}")
"""A tag of transformers' own, around what the model is to say; it writes nothing."""


def find_arguments(template: str) -> list[str]:
    """Return the names that a template reads and that nobody but its user gives.

    >>> find_arguments("{% if enable_thinking is defined %}{{ messages }}{% endif %}")
    ['enable_thinking']
    >>> find_arguments("{% for m in messages %}{% set role = m.role %}{% endfor %}{{ role }}")
    []
    """
    from jinja2 import meta

    if (tree := _parse(template)) is None:
        read = {*re.findall(r"[A-Za-z_]\w*", template)}
    else:
        # What it sets itself in a loop or branch counts as undeclared behind that.
        first: dict[str, str] = {}
        for node in _list_names(tree):
            first.setdefault(node.name, node.ctx)
        read = {name for name in meta.find_undeclared_variables(tree) if first.get(name) == "load"}
    return sorted(name for name in read - _GIVEN if not name.endswith("_token"))


def find_switches(template: str) -> dict[str, bool]:
    """Return {name that a template takes as true or false: whether as these themselves, so that 0 is not false}.

    A name is one, too, of which it never asks more than whether it is there and true.

    >>> find_switches("{% if think is false %}{% endif %}{% if budget == 0 %}{{ 1 }}{% endif %}")
    {'think': True}
    >>> find_switches("{% if not think %}{% endif %}{% if not effort %}{% endif %}{{ effort }}")
    {'think': False}
    >>> find_switches("{% set low = low if low is defined else false %}{% if low %}{% endif %}")
    {'low': False}
    """
    from jinja2 import nodes

    if (tree := _parse(template)) is None:
        return {}
    asked = [(_name_of(node), strict) for node, strict in _list_asked(tree)]
    there = [_name_of(test.node) for test in tree.find_all(nodes.Test) if test.name in ("defined", "undefined")]
    # A name that is set from itself, true or false where it was not given, is asked nothing by that.
    again = [source for source, target in _list_defaults(tree) if source == target]
    counted = Counter([*(name for name, _ in asked), *there, *again])
    total = Counter(node.name for node in tree.find_all(nodes.Name) if node.ctx == "load")
    strict = {name for name, itself in asked if itself and name}
    loose = {name for name, _ in asked if name and counted[name] == total[name]}
    # Under another name it is a switch where that is one.
    passed = Counter(source for source, target in _list_defaults(tree) if target in strict | loose and source != target)
    loose |= {source for source, times in passed.items() if counted[source] + times == total[source]}
    return {name: name in strict for name in sorted(strict | loose)}


@lru_cache(maxsize=8)
def _parse(template: str) -> "nodes.Template | None":
    """Return a template's tree; None where it has a tag that is not known here."""
    from jinja2 import Environment, TemplateError

    try:
        return Environment(extensions=["jinja2.ext.loopcontrols"]).parse(_OWN_TAG.sub("", template))
    except TemplateError:
        return None


def _list_asked(tree: "nodes.Template") -> "Iterator[tuple[nodes.Node, bool]]":
    """Yield what a template asks whether it is true or false, and whether as true and false themselves."""
    from jinja2 import nodes

    for test in tree.find_all(nodes.Test):
        same = test.name == "sameas" and any(_is_bool(one) for one in test.args)
        if same or test.name in ("true", "false"):
            yield test.node, True
    for compared in tree.find_all(nodes.Compare):
        if len(compared.ops) == 1 and compared.ops[0].op in ("eq", "ne"):
            sides = (compared.expr, compared.ops[0].expr)
            yield from ((one, False) for one, other in (sides, sides[::-1]) if _is_bool(other))
    yield from ((choice.test, False) for choice in tree.find_all(nodes.If))
    yield from ((choice.test, False) for choice in tree.find_all(nodes.CondExpr))
    for both in tree.find_all((nodes.And, nodes.Or)):
        yield from ((both.left, False), (both.right, False))
    for negated in tree.find_all(nodes.Not):
        yield negated.node, False


def _list_names(node: "nodes.Node") -> "Iterator[nodes.Name]":
    """Yield the names in a tree in the order in which they are read and set."""
    from jinja2 import nodes

    if isinstance(node, nodes.Name):
        yield node
    # The value of an assignment is read before its name is set.
    inside = (node.node, node.target) if isinstance(node, nodes.Assign) else node.iter_child_nodes()
    for child in inside:
        yield from _list_names(child)


def _list_defaults(tree: "nodes.Template") -> "Iterator[tuple[str, str]]":
    """Yield (name, the name that it is set as) of what is true or false where it was not given, or is set as it is."""
    from jinja2 import nodes

    for assigned in tree.find_all(nodes.Assign):
        value = assigned.node
        if isinstance(value, nodes.CondExpr) and isinstance(value.test, nodes.Test) and value.test.name == "defined":
            value = value.expr1 if value.expr2 is not None and _is_bool(value.expr2) else assigned
        if isinstance(assigned.target, nodes.Name) and (name := _name_of(value)):
            yield name, assigned.target.name


def _is_bool(node: "nodes.Node") -> bool:
    from jinja2 import nodes

    return isinstance(node, nodes.Const) and isinstance(node.value, bool)


def _name_of(node: "nodes.Node | None") -> str:
    """Return the name that an expression is, or is where it is given; "" where it is another."""
    from jinja2 import nodes

    if isinstance(node, nodes.Filter) and node.name in ("default", "d") and all(_is_bool(one) for one in node.args):
        node = node.node
    return node.name if isinstance(node, nodes.Name) else ""
