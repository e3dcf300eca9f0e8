"""Whether a decimal is the print-out of an exact value: how models write a second box."""

from __future__ import annotations

from fractions import Fraction

from mathlete.answers.answer import parse
from mathlete.answers.effort import start_count
from mathlete.answers.numeric import FILTER_BITS, constant_value, context
from mathlete.answers.tree import TooBig, TooHard, Undefined


def is_rounded(exact: str, decimal: str) -> bool:
    r"""Return whether the decimal is the exact value, rounded or cut at its last digit.

    >>> is_rounded(r"\sqrt{2}", "1.414"), is_rounded(r"\sqrt{2}", "1.415"), is_rounded("42", "42.0")
    (True, False, False)
    """
    node = parse(exact).node
    # An integer has no print-out: a decimal behind it is another answer.
    if node is None or (node.op == "num" and (node.fraction.denominator == 1 or node.digits is not None)):
        return False
    start_count()
    try:
        value = constant_value(node)
    except (TooHard, TooBig, Undefined):
        return False
    ctx = context(FILTER_BITS)
    if ctx.im(value):
        return False
    shown = Fraction(decimal.replace("−", "-"))
    unit = ctx.mpf(10) ** -len(decimal.partition(".")[2])
    missing = abs(value) - abs(ctx.mpf(shown.numerator) / shown.denominator)
    # A tie is rounded up: half a unit is what the last bits leave of it.
    half = unit / 2 * (1 + ctx.ldexp(1, -FILTER_BITS // 2))
    return bool((value < 0) == (shown < 0) and -half <= missing < unit)
