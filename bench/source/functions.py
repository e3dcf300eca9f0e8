"""How long and how hard functions are, whether they are typed, and how much is said in them."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from bench.source.modules import Module

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
NESTING = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.match_case)


@dataclass(frozen=True, kw_only=True)
class Function:
    """A function's figures."""

    name: str
    hardness: int
    lines: int
    """From `def` to the end."""
    comments: int
    is_typed: bool


def functions_in(module: Module) -> Iterator[Function]:
    """All functions of a module, those inside classes and other functions too."""
    for name, node in _walk_named(module.tree, module.name):
        last = node.end_lineno or node.lineno
        yield Function(
            name=name,
            hardness=1 + hardness(node),
            lines=last - node.lineno + 1,
            comments=_comments(module, range(node.lineno, last + 1)),
            is_typed=_is_typed(node),
        )


def _walk_named(node: ast.AST, prefix: str) -> Iterator[tuple[str, FunctionNode]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            continue  # an expression holds no function with a name
        name = f"{prefix}.{child.name}" if isinstance(child, FunctionNode | ast.ClassDef) else prefix
        if isinstance(child, FunctionNode):
            yield name, child
        yield from _walk_named(child, name)


def hardness(node: ast.AST, depth: int = 0) -> int:
    """Return what a node and all below it add to a function's hardness, without functions, classes and types in it.

    Each branch, loop and handler adds 1 and 1 for every one around it; expressions add what `_expression` says. That
    is SonarSource's cognitive complexity (G. A. Campbell, 2018) with comprehensions and masks of arrays counted too.
    """
    total = _expression(node)
    for child in _children(node):
        # `elif` is an `if` alone in the else of another: no deeper than that.
        is_elif = isinstance(child, ast.If) and isinstance(node, ast.If) and node.orelse == [child]
        around = depth - is_elif
        nests = isinstance(child, NESTING)
        total += (1 + around if nests else 0) + hardness(child, around + nests)
    return total


def _children(node: ast.AST) -> Iterator[ast.AST]:
    for field, value in ast.iter_fields(node):
        if field not in ("annotation", "returns", "decorator_list"):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and not isinstance(child, FunctionNode | ast.ClassDef):
                    yield child


def _expression(node: ast.AST) -> int:
    """Return what an expression adds by itself. In array code, masks and indices of indices are the branches."""
    match node:
        case ast.BoolOp(values=values):
            return len(values) - 1
        case ast.comprehension(ifs=ifs):
            return 1 + len(ifs)
        case ast.IfExp() | ast.BinOp(op=ast.BitAnd() | ast.BitOr()) | ast.UnaryOp(op=ast.Invert()):
            return 1
        case ast.Subscript(slice=index):
            return int(any(isinstance(one, ast.Subscript | ast.Compare) for one in ast.walk(index)))
    return 0


def _comments(module: Module, lines: range) -> int:
    """Comments in these lines; on lines in a row that hold nothing else they are one."""
    return sum(
        not (alone and module.comments.get(line - 1) and line - 1 in lines)
        for line, alone in module.comments.items()
        if line in lines
    )


def _is_typed(node: FunctionNode) -> bool:
    """Return whether each argument but `self` and `cls` has a type, and the result too (`__init__` has None anyway)."""
    of = node.args
    arguments = [*of.posonlyargs, *of.args, *of.kwonlyargs, *filter(None, (of.vararg, of.kwarg))]
    typed = all(one.annotation is not None or one.arg in ("self", "cls") for one in arguments)
    return typed and (node.returns is not None or node.name == "__init__")
