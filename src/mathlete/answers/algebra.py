"""What needs a computer algebra system: integrals, limits, infinite sums, inequalities that are not linear.

Only the worker imports this. The expressions are built node by node from our own tree; sympy never parses a string.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TypeAlias

import sympy

from mathlete.answers.answer import parse
from mathlete.answers.canonical import canonicalize
from mathlete.answers.equality import are_equal
from mathlete.answers.exact import MAX_BITS, MAX_FACTORIAL, MAX_TERMS
from mathlete.answers.tree import Node, TooBig, TooHard, Undefined, constant, number, symbols, walk
from mathlete.answers.verdict import Verdict, decide

Expr: TypeAlias = sympy.Expr
Set: TypeAlias = sympy.Set


def decide_with_algebra(answer: str, gold: str, settings: str = "") -> Verdict:
    """Return the verdict with all means; unknown where none decides."""
    try:
        return decide(answer, gold, patient=True, settings=settings)
    except TooBig as error:
        # What cannot be written down, sympy cannot write down either: a tower ends here, not after a second.
        return Verdict("unknown", str(error))
    except TooHard as error:
        reason = str(error)
    a, b = parse(answer, settings).node, parse(gold, settings).node
    assert a is not None
    assert b is not None
    try:
        return Verdict("equal" if _are_equal(a, b) else "different", "by computer algebra")
    except (TooHard, TooBig, Undefined, NotImplementedError) as error:
        return Verdict("unknown", f"{reason}; {error}")


def _are_equal(a: Node, b: Node) -> bool:
    a, b = (_carry_out(node) for node in (a, b))
    try:
        # Our own proof first: simplification is a heuristic, a separation bound is not.
        return are_equal(a, b, patient=True)
    except (TooHard, TooBig):
        return _is_zero(to_sympy(a) - to_sympy(b))


def _carry_out(node: Node) -> Node:
    """Return the tree with its inequalities solved and its integrals, limits and sums computed."""
    if any(n.op in ("rel", "chain") for n in walk(node)):
        return _solve_inequalities(node)
    if any(n.op in _DEFERRED for n in walk(node)) and node.op not in ("set", "tuple", "point", "eq", "matrix"):
        return canonicalize(from_sympy(to_sympy(node).doit()))
    return node


_DEFERRED = frozenset({"integral", "limit", "sum", "prod"})
"""Operations that sympy builds first and carries out when asked to."""


def _is_zero(difference: Expr) -> bool:
    if difference.free_symbols:
        simplified = sympy.simplify(difference)
        if simplified == 0:
            return True
        if simplified.is_number and simplified.is_zero is False:
            return False
        # What keeps its variables may still be zero everywhere: not simplifying to 0 proves nothing.
        raise TooHard("undecided by simplification")
    value = difference.evalf(50)
    if abs(value) > 1e-30:
        return False
    if sympy.simplify(difference) == 0 or difference.equals(0):
        return True
    raise TooHard("undecided by simplification")


def _solve_inequalities(node: Node) -> Node:
    names = symbols(node)
    if len(names) != 1:
        raise TooHard("an inequality between several variables")
    return canonicalize(_to_region(_solution_set(node, sympy.Symbol(names.pop(), real=True))))


def _solution_set(node: Node, variable: Expr) -> Set:
    if node.op == "chain":
        parts = [_solution_set(arg, variable) for arg in node.args]
        return (sympy.Union if node.value == "union" else sympy.Intersection)(*parts)
    if node.op == "rel":
        left, right = (to_sympy(arg) for arg in node.args)
        relation = sympy.Rel(left, right, {"!=": "ne"}.get(str(node.value), str(node.value)))
        # Without its variable, as in 1 < 2, sympy has decided the relation already.
        if relation in (True, False, sympy.true, sympy.false):
            return sympy.S.Reals if relation else sympy.S.EmptySet
        return sympy.solve_univariate_inequality(relation, variable, relational=False)
    raise TooHard(f"{node.op} in a system of inequalities")


def _to_region(solutions: Set) -> Node:
    if solutions is sympy.S.EmptySet:
        return Node("set")
    if solutions == sympy.S.Reals:
        return Node("field", value="reals")
    if isinstance(solutions, sympy.Interval):
        brackets = ("(" if solutions.left_open else "[") + (")" if solutions.right_open else "]")
        return Node("interval", (from_sympy(solutions.start), from_sympy(solutions.end)), brackets)
    if isinstance(solutions, sympy.FiniteSet):
        return Node("set", tuple(from_sympy(item) for item in solutions))
    if isinstance(solutions, sympy.Union):
        return Node("union", tuple(_to_region(part) for part in solutions.args))
    raise TooHard(f"a solution set of the kind {type(solutions).__name__}")


def to_sympy(node: Node) -> Expr:
    """Return the sympy expression of a tree.

    Raises:
        TooHard: an operation that is not translated.
    """
    if node.op == "num":
        return sympy.Rational(node.fraction.numerator, node.fraction.denominator)
    if node.op in ("sym", "letter"):
        return sympy.Symbol(str(node.value), real=True)
    if node.op == "const":
        return {"pi": sympy.pi, "e": sympy.E, "i": sympy.I, "oo": sympy.oo}[str(node.value)]
    if node.op == "deg":
        return to_sympy(node.args[0])
    if node.op == "apply":
        return sympy.Function(str(node.args[0].value))(*(to_sympy(arg) for arg in node.args[1:]))
    args = [to_sympy(arg) for arg in node.args]
    if node.op.startswith("fn:"):
        return _apply_function(node, args)
    if node.op not in _BUILDERS:
        raise TooHard(f"{node.op} is not done by algebra")
    return _BUILDERS[node.op](*args)


def _apply_function(node: Node, args: list[Expr]) -> Expr:
    name = node.op[3:]
    if any(n.op == "deg" for n in walk(node)):
        raise TooHard("degrees in a formula")
    return getattr(sympy, name.replace("arc", "a"))(args[0])


def _power(base: Expr, exponent: Expr) -> Expr:
    # sympy's (-8)^(1/3) is complex; here a root of odd degree is real, as in school.
    if base.is_Rational and exponent.is_Rational:
        size = max(abs(base.p).bit_length(), base.q.bit_length())
        # sympy writes a power of numbers down at once, however long it is.
        if size > 1 and size * abs(exponent.p) > MAX_BITS * exponent.q:
            raise TooBig("a power of too many digits")
    if exponent.is_Rational and exponent.q % 2 and exponent.q > 1:
        return sympy.real_root(base, exponent.q) ** exponent.p
    return base**exponent


def _root(base: Expr, degree: Expr) -> Expr:
    return sympy.real_root(base, degree) if degree.is_odd else sympy.root(base, degree)


def _product(k: Expr, low: Expr, high: Expr, body: Expr) -> Expr:
    # sympy writes the factors out before it looks for a formula.
    if low.is_Integer and high.is_Integer and high - low > MAX_TERMS:
        raise TooBig(f"a product of more than {MAX_TERMS} factors")
    return sympy.Product(body, (k, low, high))


def _factorial(n: Expr) -> Expr:
    if n.is_Integer and n > MAX_FACTORIAL:
        raise TooBig(f"a factorial beyond {MAX_FACTORIAL}")
    return sympy.factorial(n)


def _binomial(n: Expr, k: Expr) -> Expr:
    if n.is_Integer and k.is_Integer and n > MAX_FACTORIAL and min(k, n - k) > 200:
        raise TooBig(f"a binomial coefficient beyond {MAX_FACTORIAL}")
    return sympy.binomial(n, k)


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
    "factorial": _factorial,
    "binom": _binomial,
    "mod": sympy.Mod,
    "gcd": sympy.gcd,
    "lcm": sympy.lcm,
    "min": sympy.Min,
    "max": sympy.Max,
    "sum": lambda k, low, high, body: sympy.Sum(body, (k, low, high)),
    "prod": _product,
    "integral": lambda body, x, *limits: sympy.Integral(body, (x, *limits)),
    "limit": lambda body, x, to: sympy.Limit(body, x, to, "+-" if to.is_finite else "-"),
}


def from_sympy(expression: Expr) -> Node:
    """Return the tree of a sympy expression.

    Raises:
        TooHard: a function that our trees do not have.
    """
    if expression.is_Rational:
        return number(Fraction(int(expression.p), int(expression.q)))
    if expression.is_Symbol:
        return Node("sym", value=expression.name)
    leaf = {sympy.pi: "pi", sympy.E: "e", sympy.I: "i", sympy.oo: "oo"}.get(expression)
    if leaf:
        return constant(leaf)
    if expression is -sympy.oo:
        return Node("neg", (constant("oo"),))
    args = tuple(from_sympy(arg) for arg in expression.args)
    if isinstance(expression, sympy.log):
        return Node("log", (args[0], constant("e")))
    if isinstance(expression, sympy.exp):
        return Node("pow", (constant("e"), args[0]))
    name = {sympy.Add: "add", sympy.Mul: "mul", sympy.Pow: "pow", sympy.Abs: "abs"}.get(expression.func)
    if name is None and expression.func in _FUNCTIONS:
        name = f"fn:{_FUNCTIONS[expression.func]}"
    if name is None:
        raise TooHard(f"the function {expression.func}")
    return Node(name, args)


_FUNCTIONS = {
    getattr(sympy, name): name.replace("a", "arc", 1) if name.startswith("a") else name
    for name in ("sin", "cos", "tan", "cot", "sec", "csc", "asin", "acos", "atan", "sinh", "cosh", "tanh")
}
"""Our name of each sympy function."""
