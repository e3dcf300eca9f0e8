"""What is written and named in a module: docstrings, bound names, types that say little."""

import ast
from collections.abc import Iterator

from bench.source.modules import Module

LOOSE = {"dict": "dict", "Dict": "dict", "Mapping": "mapping", "MutableMapping": "mapping"}


def docstring_lines(module: Module) -> int:
    """Lines of strings that stand as statements (of modules, classes, functions, fields), without blank ones."""
    return sum(
        bool(line.strip())
        for node in module.nodes
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for line in module.lines[node.lineno - 1 : node.end_lineno]
    )


def bound_names(module: Module) -> Iterator[str]:
    """Each name that the code gives to something, as often as it does."""
    for node in module.nodes:
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name) | ast.alias(asname=str(name)):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield name


def loose_types(module: Module) -> Iterator[str]:
    """Return "any" for each name `Any`, "dict" or "mapping" for each such type from `str` to `Any` or `object`."""
    for node in _nodes_and_quoted_types(module):
        match node:
            case ast.Name(id="Any") | ast.Attribute(attr="Any"):
                yield "any"
            case ast.Subscript(value=kind, slice=ast.Tuple(elts=[ast.Name(id="str"), value])):
                if _last_name(kind) in LOOSE and _last_name(value) in ("Any", "object"):
                    yield LOOSE[_last_name(kind)]


def _last_name(node: ast.AST) -> str:
    """Return `Any` for both `Any` and `typing.Any`."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def _nodes_and_quoted_types(module: Module) -> Iterator[ast.AST]:
    """All nodes, and those of annotations that are written in quotes."""
    for node in module.nodes:
        yield node
        for annotation in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            for part in ast.walk(annotation) if annotation else ():
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield from _nodes_in_quotes(part.value)


def _nodes_in_quotes(text: str) -> Iterator[ast.AST]:
    try:
        yield from ast.walk(ast.parse(text, mode="eval"))
    except SyntaxError:  # some word of a Literal, which is no type
        return
