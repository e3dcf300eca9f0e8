"""What needs a computer algebra system: integrals, limits, infinite sums, inequalities that are not linear.

Only the worker imports this. The expressions are built node by node from our own tree; sympy never parses a string.
"""

from __future__ import annotations

from typing import Any

import sympy

from mathlete.answers.answer import Verdict, decide, parse
from mathlete.answers.canonical import canonical
from mathlete.answers.equality import same
from mathlete.answers.tree import Node, TooBig, TooHard, Undefined, constant, number, symbols, walk


def decide_with_algebra(answer: str, gold: str) -> Verdict:
    """The verdict with all means; unknown where none decides."""
    try:
        return decide(answer, gold, patient=True)
    except (TooHard, TooBig) as error:
        reason = str(error)
    a, b = parse(answer).node, parse(gold).node
    assert a is not None
    assert b is not None
    try:
        return Verdict("equal" if _same(a, b) else "different", "by computer algebra")
    except (TooHard, TooBig, Undefined, NotImplementedError) as error:
        return Verdict("unknown", f"{reason}; {error}")


def _same(a: Node, b: Node) -> bool:
    a, b = (_solved(node) for node in (a, b))
    try:
        return same(a, b, patient=True)
    except (TooHard, TooBig):
        return _is_zero(expression(a) - expression(b))


def _solved(node: Node) -> Node:
    """The tree with its inequalities solved and its integrals, limits and sums done."""
    if any(n.op in ("rel", "chain") for n in walk(node)):
        return _solution_set(node)
    if any(n.op in _DONE for n in walk(node)) and node.op not in ("set", "tuple", "eq", "matrix"):
        return canonical(tree(expression(node).doit()))
    return node


_DONE = frozenset({"integral", "limit", "sum", "prod"})


def _is_zero(difference: Any) -> bool:
    if difference.free_symbols:
        found = sympy.simplify(difference)
        if found == 0:
            return True
        if found.is_number and found.is_zero is False:
            return False
        raise TooHard("undecided by simplification")
    value = difference.evalf(50)
    if abs(value) > 1e-30:
        return False
    if sympy.simplify(difference) == 0 or difference.equals(0):
        return True
    raise TooHard("undecided by simplification")


def _solution_set(node: Node) -> Node:
    names = symbols(node)
    if len(names) != 1:
        raise TooHard("an inequality between several variables")
    found = _condition(node, sympy.Symbol(names.pop(), real=True))
    return canonical(_region(found))


def _condition(node: Node, variable: Any) -> Any:
    if node.op == "chain":
        parts = [_condition(arg, variable) for arg in node.args]
        return (sympy.Union if node.value == "union" else sympy.Intersection)(*parts)
    if node.op == "rel":
        left, right = (expression(arg) for arg in node.args)
        relation = sympy.Rel(left, right, {"!=": "ne"}.get(str(node.value), str(node.value)))
        if relation in (True, False, sympy.true, sympy.false):
            return sympy.S.Reals if relation else sympy.S.EmptySet
        return sympy.solve_univariate_inequality(relation, variable, relational=False)
    raise TooHard(f"{node.op} in a system of inequalities")


def _region(found: Any) -> Node:
    if found is sympy.S.EmptySet:
        return Node("set")
    if found == sympy.S.Reals:
        return Node("field", value="reals")
    if isinstance(found, sympy.Interval):
        brackets = ("(" if found.left_open else "[") + (")" if found.right_open else "]")
        return Node("interval", (tree(found.start), tree(found.end)), brackets)
    if isinstance(found, sympy.FiniteSet):
        return Node("set", tuple(tree(item) for item in found))
    if isinstance(found, sympy.Union):
        return Node("union", tuple(_region(part) for part in found.args))
    raise TooHard(f"a solution set of the kind {type(found).__name__}")


def expression(node: Node) -> Any:
    """The sympy expression of a tree."""
    if node.op == "num":
        return sympy.Rational(node.value.numerator, node.value.denominator)  # type: ignore[union-attr]
    if node.op in ("sym", "letter"):
        return sympy.Symbol(str(node.value), real=True)
    if node.op == "const":
        return {"pi": sympy.pi, "e": sympy.E, "i": sympy.I, "oo": sympy.oo}[str(node.value)]
    if node.op == "deg":
        return expression(node.args[0])
    if node.op == "apply":
        return sympy.Function(str(node.args[0].value))(*(expression(arg) for arg in node.args[1:]))
    args = [expression(arg) for arg in node.args]
    if node.op.startswith("fn:"):
        return _function(node, args)
    if node.op not in _BUILDERS:
        raise TooHard(f"{node.op} is not done by algebra")
    return _BUILDERS[node.op](*args)


def _function(node: Node, args: list[Any]) -> Any:
    name = node.op[3:]
    if any(n.op == "deg" for n in walk(node)):
        raise TooHard("degrees in a formula")
    return getattr(sympy, name.replace("arc", "a"))(args[0])


def _power(base: Any, exponent: Any) -> Any:
    if exponent.is_Rational and exponent.q % 2 and exponent.q > 1:
        return sympy.real_root(base, exponent.q) ** exponent.p
    return base**exponent


def _root(base: Any, degree: Any) -> Any:
    return sympy.real_root(base, degree) if degree.is_odd else sympy.root(base, degree)


_BUILDERS = {
    "add": sympy.Add,
    "neg": lambda a: -a,
    "mul": sympy.Mul,
    "div": lambda a, b: a / b,
    "pow": _power,
    "root": _root,
    "log": lambda value, base: sympy.log(value) if base == sympy.E else sympy.log(value, base),
    "abs": sympy.Abs,
    "floor": sympy.floor,
    "ceil": sympy.ceiling,
    "factorial": sympy.factorial,
    "binom": sympy.binomial,
    "mod": sympy.Mod,
    "gcd": sympy.gcd,
    "lcm": sympy.lcm,
    "min": sympy.Min,
    "max": sympy.Max,
    "sum": lambda k, low, high, body: sympy.Sum(body, (k, low, high)),
    "prod": lambda k, low, high, body: sympy.Product(body, (k, low, high)),
    "integral": lambda body, x, *limits: sympy.Integral(body, (x, *limits)),
    "limit": lambda body, x, to: sympy.Limit(body, x, to, "+-" if to.is_finite else "-"),
}


def tree(found: Any) -> Node:
    """The tree of a sympy expression.

    Raises:
        TooHard: a function that our trees do not have.
    """
    if found.is_Rational:
        return number(sympy_fraction(found))
    if found.is_Symbol:
        return Node("sym", value=found.name)
    leaf = {sympy.pi: "pi", sympy.E: "e", sympy.I: "i", sympy.oo: "oo"}.get(found)
    if leaf:
        return constant(leaf)
    if found is -sympy.oo:
        return Node("neg", (constant("oo"),))
    args = tuple(tree(arg) for arg in found.args)
    if isinstance(found, sympy.log):
        return Node("log", (args[0], constant("e")))
    if isinstance(found, sympy.exp):
        return Node("pow", (constant("e"), args[0]))
    name = {sympy.Add: "add", sympy.Mul: "mul", sympy.Pow: "pow", sympy.Abs: "abs"}.get(found.func)
    if name is None and found.func in _FUNCTIONS:
        name = f"fn:{_FUNCTIONS[found.func]}"
    if name is None:
        raise TooHard(f"the function {found.func}")
    return Node(name, args)


_FUNCTIONS = {
    getattr(sympy, name): name.replace("a", "arc", 1) if name.startswith("a") else name
    for name in ("sin", "cos", "tan", "cot", "sec", "csc", "asin", "acos", "atan", "sinh", "cosh", "tanh")
}


def sympy_fraction(found: Any) -> Any:
    """A sympy rational as a Fraction."""
    from fractions import Fraction

    return Fraction(int(found.p), int(found.q))
