"""Values of simple trees by raw numbers: those of `numeric.TreeEvaluation`, bit for bit and step for step.

An evaluation of mpmath's objects spends most of its time around the arithmetic, and a formula is evaluated sixteen
times. Here its tree becomes a function once, and the function works on mpmath's raw numbers. What it does not know, or
what has no value, is left to `TreeEvaluation`, which alone says why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import TypeAlias

from mpmath import libmp  # type: ignore[import-untyped]

from mathlete.answers.effort import STEPS, spend, steps_spent
from mathlete.answers.exact import MOST_BITS, OPERATIONS, bits_of
from mathlete.answers.points import draw_point
from mathlete.answers.tree import Node, TooBig, Undefined

Raw: TypeAlias = tuple[int, int, int, int]
"""mpmath's own number: sign, mantissa, exponent, bits of the mantissa."""
Pair: TypeAlias = tuple[Raw, Raw]
"""The same of a complex number: its real and imaginary part, which is not zero."""
_Rule: TypeAlias = Callable[[int, int], Raw | Pair]
"""From bits and the number of the point to the value."""
MAX_BITS = 699
"""Highest precision: beyond, an operation is more than one step."""
_MAX_EXPONENT = 1000
_MAX_NODES = 60
"""Largest tree: what a larger one takes is counted as it is taken."""
_MAX_SIZE = 1 << 20
"""Largest binary exponent of what is raised to a power: far below what is too big."""


class _NotHere(Exception):
    """The tree is not simple, or has no value."""


@dataclass(frozen=True, slots=True)
class Program:
    """A tree as a function of bits and point."""

    rule: _Rule
    steps: int
    """What an evaluation spends."""

    def run(self, *precisions: int, point: int = 0) -> list[Raw | Pair] | None:
        """Return the value at each precision, the steps spent.

        None, and nothing spent, where the steps do not suffice, there is no value, or an operation is several steps.
        """
        steps = self.steps * len(precisions)
        if max(precisions) > MAX_BITS or steps_spent() + steps > STEPS:
            return None  # whoever spends them one by one says where they end
        try:
            values = [self.rule(bits, point) for bits in precisions]
        except _NotHere:
            return None
        spend(steps)
        return values


@lru_cache(maxsize=1024)
def compile_constant(node: Node) -> Program | None:
    """Return the program of a tree without variables, exact where its parts are; None if it is not simple."""
    return _compile_whole(node, is_constant=True)


def compile_formula(node: Node) -> Program | None:
    """Return the program of a tree at the points that were drawn for its variables; None if it is not simple."""
    return _compile_whole(node, is_constant=False)


def _compile_whole(node: Node, *, is_constant: bool) -> Program | None:
    try:
        return Program(*_Compiler(is_constant=is_constant).compile(node)) if _is_small(node) else None
    except (_NotHere, Undefined, TooBig):
        return None


def _is_small(node: Node) -> bool:
    count, stack = 0, [node]
    while stack and count <= _MAX_NODES:
        count += 1
        stack.extend(stack.pop().args)
    return not stack


class _Compiler:
    """One compilation of a tree: as one without variables, or at drawn points."""

    def __init__(self, *, is_constant: bool) -> None:
        self.is_constant = is_constant
        self.exact: dict[int, tuple[Fraction | None, int]] = {}
        """By a node's identity: what `find_exact` returned."""

    def compile(self, node: Node) -> tuple[_Rule, int]:
        """Return the rule of a tree and its steps.

        Raises:
            _NotHere: it is not simple.
            Undefined: a division by zero.
            TooBig: a power that cannot be written down.
        """
        if node.op == "num":
            return _number_rule(_check_length(node.fraction)), 1
        own_steps = 1
        if self.is_constant:
            exact, taken = self.find_exact(node)
            if exact is not None:
                return _number_rule(exact), 1 + taken
            own_steps += taken
        elif node.op == "sym":
            return _symbol_rule(str(node.value)), 1
        if node.op not in _RULES:
            raise _NotHere
        rule, steps = _RULES[node.op](self, node)
        return rule, own_steps + steps

    def compile_all(self, nodes: Sequence[Node]) -> tuple[list[_Rule], int]:
        """Return the rules of trees and the sum of their steps; errors as in `compile`."""
        parts = [self.compile(node) for node in nodes]
        return [rule for rule, _ in parts], sum([steps for _, steps in parts])

    def find_exact(self, node: Node) -> tuple[Fraction | None, int]:
        """Return what `exact_value` returns of a tree, and its steps; errors as in `compile`."""
        if node.op == "num":
            return node.fraction, 0
        known = self.exact.get(id(node))
        if known is None:
            known = self.exact[id(node)] = self._compute_exact(node)
        return known

    def _compute_exact(self, node: Node) -> tuple[Fraction | None, int]:
        if node.op == "const":
            return None, 1
        if node.op not in _RULES:
            raise _NotHere
        values: list[Fraction] = []
        steps = 1
        for arg in node.args:
            value, taken = self.find_exact(arg)
            steps += taken
            if value is None:
                return None, steps
            values.append(_check_length(value))
        if node.op == "pow" and abs(values[1].numerator) * bits_of(values[0]) > _MAX_EXPONENT:
            raise _NotHere
        result = OPERATIONS[node.op](values)
        return (None if result is None else _check_length(result)), steps


def _check_length(value: Fraction) -> Fraction:
    if bits_of(value) > MOST_BITS:
        raise _NotHere
    return value


def _number_rule(value: Fraction) -> _Rule:
    top, bottom = value.numerator, libmp.from_int(value.denominator)
    known: dict[int, Raw] = {}

    def rule(bits: int, point: int) -> Raw:
        if bits not in known:
            known[bits] = libmp.mpf_div(libmp.from_int(top, bits, "n"), bottom, bits, "n")
        return known[bits]

    return rule


def _symbol_rule(name: str) -> _Rule:
    return lambda bits, point: _value_at(name, bits, point)


@lru_cache(maxsize=4096)
def _value_at(name: str, bits: int, point: int) -> Raw | Pair:
    return _number_rule(draw_point(name, point))(bits, point)


def _make_real(value: Raw | Pair) -> Raw:
    """Return a real number.

    Raises:
        _NotHere: it is complex.
    """
    if len(value) == 2:
        raise _NotHere
    return value


def _simplify(real: Raw, imaginary: Raw) -> Raw | Pair:
    return real if imaginary == libmp.fzero else (real, imaginary)


def _add(compiler: _Compiler, node: Node) -> tuple[_Rule, int]:
    rules, steps = compiler.compile_all(node.args)

    def rule(bits: int, point: int) -> Raw | Pair:
        values = [rule(bits, point) for rule in rules]
        pairs = [value for value in values if len(value) == 2]
        if not pairs:
            total: Raw = libmp.mpf_sum(values, bits, "n")
            return total
        reals = [value[0] if len(value) == 2 else value for value in values]
        return _simplify(libmp.mpf_sum(reals, bits, "n"), libmp.mpf_sum([pair[1] for pair in pairs], bits, "n"))

    return rule, steps


def _mul(compiler: _Compiler, node: Node) -> tuple[_Rule, int]:
    (first, *others), steps = compiler.compile_all(node.args)

    def rule(bits: int, point: int) -> Raw | Pair:
        product = first(bits, point)
        for other in others:
            product = _multiply(product, other(bits, point), bits)
        return product if len(product) == 4 else _simplify(*product)

    return rule, steps


def _multiply(a: Raw | Pair, b: Raw | Pair, bits: int) -> Raw | Pair:
    if len(a) == 4 and len(b) == 4:
        product: Raw = libmp.mpf_mul(a, b, bits, "n")
        return product
    if len(a) == 2 and len(b) == 2:
        both: Pair = libmp.mpc_mul(a, b, bits, "n")
        return both
    scaled: Pair = libmp.mpc_mul_mpf(a, b, bits, "n") if len(a) == 2 else libmp.mpc_mul_mpf(b, a, bits, "n")
    return scaled


def _neg(compiler: _Compiler, node: Node) -> tuple[_Rule, int]:
    (inner,), steps = compiler.compile_all(node.args)

    def rule(bits: int, point: int) -> Raw | Pair:
        value = inner(bits, point)
        return libmp.mpf_neg(value) if len(value) == 4 else (libmp.mpf_neg(value[0]), libmp.mpf_neg(value[1]))

    return rule, steps


def _div(compiler: _Compiler, node: Node) -> tuple[_Rule, int]:
    (top, bottom), steps = compiler.compile_all(node.args)

    def rule(bits: int, point: int) -> Raw:
        over, under = _make_real(top(bits, point)), _make_real(bottom(bits, point))
        if under == libmp.fzero:
            raise _NotHere
        value: Raw = libmp.mpf_div(over, under, bits, "n")
        return value

    return rule, steps


def _pow(compiler: _Compiler, node: Node) -> tuple[_Rule, int]:
    exponent, taken = compiler.find_exact(node.args[1])
    if exponent is None or exponent.denominator != 1 or abs(exponent) > _MAX_EXPONENT:
        raise _NotHere
    (base,), steps = compiler.compile_all(node.args[:1])
    times = exponent.numerator

    def rule(bits: int, point: int) -> Raw:
        raised = _make_real(base(bits, point))
        if raised == libmp.fzero or abs(raised[2] + raised[3]) > _MAX_SIZE:
            raise _NotHere
        value: Raw = libmp.mpf_pow_int(raised, times, bits, "n")
        return value

    return rule, steps + taken


def _root(compiler: _Compiler, node: Node) -> tuple[_Rule, int]:
    degree, taken = compiler.find_exact(node.args[1])
    if degree != 2:
        raise _NotHere
    (base,), steps = compiler.compile_all(node.args[:1])

    def rule(bits: int, point: int) -> Raw:
        inner = _make_real(base(bits, point))
        if inner == libmp.fzero or inner[0]:
            raise _NotHere
        value: Raw = libmp.mpf_sqrt(inner, bits, "n")
        return value

    return rule, steps + taken


def _const(compiler: _Compiler, node: Node) -> tuple[_Rule, int]:
    if node.value == "i":
        return lambda bits, point: (libmp.fzero, libmp.fone), 0
    constants: dict[object, Callable[[int, str], Raw]] = {"pi": libmp.mpf_pi, "e": libmp.mpf_e}
    if node.value not in constants:
        raise _NotHere
    value = constants[node.value]
    return lambda bits, point: value(bits, "n"), 0


_RULES: dict[str, Callable[[_Compiler, Node], tuple[_Rule, int]]] = {
    "add": _add,
    "mul": _mul,
    "neg": _neg,
    "div": _div,
    "pow": _pow,
    "root": _root,
    "const": _const,
}
"""What is simple."""
