"""Hints for errors that models make often in sympy and here, shown below the traceback, as the field's notebooks do."""

import re

_HINTS = (
    (
        r"cannot determine truth value of Relational",
        "a comparison of symbols is no bool: substitute numbers first, or use solve, reduce_inequalities or Piecewise",
    ),
    (r"'(Symbol|Add|Mul|Pow)' object is not callable", "write * between an expression and a bracket"),
    (r"for \^:|expecting bool or Boolean, not", "a power is **, and ^ is exclusive or"),
    (
        r"[Cc]an(not|'t) convert (complex|expression) to (float|int)|loop of ufunc does not support argument",
        "functions of math and numpy take numbers: use those of sympy, or substitute and .evalf() first",
    ),
    (
        r"'(Add|Mul|Pow|Symbol|Float)' object cannot be interpreted as an integer",
        "take int(…) of a number; an expression with symbols has no integer value",
    ),
    (
        r"multiple generators|No algorithms are implemented to solve|could not solve",
        "try nsolve with a starting point, or a search over integers",
    ),
    (r"'Equality' (and|object)|and 'Equality'", "an equation has no arithmetic: take its .lhs - .rhs"),
    (
        r"'(FiniteSet|EmptySet|Interval|Union|ConditionSet)' object is not subscriptable",
        "a solution set has no order: use list(…), or solve in place of solveset",
    ),
    (
        r"list indices must be integers or slices, not Symbol",
        "solve returns a list of values or of tuples; with dict=True a list of dictionaries",
    ),
    (r"^ModuleNotFoundError", "there are numpy, sympy, mpmath and the standard library"),
    (r"^(PermissionError|FileNotFoundError)", "programs have no files, network or processes here"),
    (r"^EOFError", "there is no input: write values into the program"),
)
"""(what the last line of a traceback says, what to do)."""


def find_hint(line: str) -> str | None:
    """Return what to do about an error, of which `line` is the traceback's last; None where there is no hint.

    >>> find_hint("TypeError: 'Symbol' object is not callable")
    'write * between an expression and a bracket'
    """
    return next((hint for pattern, hint in _HINTS if re.search(pattern, line)), None)
