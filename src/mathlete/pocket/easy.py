"""The easy families, one skill each. The pocket base is trained almost only on these."""

from random import Random

from mathlete.pocket.family import Family, Parameters, count_subtractions, draw_between, split_digits
from mathlete.pocket.scratch import Scratch

MAX_SUBTRACTIONS = 12
"""Subtractions of a greatest common divisor at most: a trace has no room for more."""


def _draw_linear(random: Random) -> Parameters:
    a, b, x = draw_between(random, 2, 12), draw_between(random, 1, 99), draw_between(random, 2, 49)
    return {"a": a, "b": b, "c": a * x + b}


def _solve_linear(work: Scratch, a: int, b: int, c: int) -> int:
    return work.quotient(work.subtract(c, b), a)


def _draw_evaluate(random: Random) -> Parameters:
    return {"a": draw_between(random, 11, 99), "b": draw_between(random, 2, 9), "c": draw_between(random, 10, 99)}


def _solve_evaluate(work: Scratch, a: int, b: int, c: int) -> int:
    return work.add(work.times(a, b), c)


def _draw_remainder(random: Random) -> Parameters:
    return {"a": draw_between(random, 20, 699), "m": draw_between(random, 3, 13)}


def _solve_remainder(work: Scratch, a: int, m: int) -> int:
    return work.remainder(a, m)


def _draw_two_multiples(random: Random) -> Parameters:
    # Without a common factor drawn first, most pairs would be coprime, and the answer 1.
    factor, limit = draw_between(random, 1, 16), 150
    a, b = factor * draw_between(random, 1, limit // factor), factor * draw_between(random, 1, limit // factor)
    good = a != b and min(a, b) > 3 and count_subtractions(a, b) <= MAX_SUBTRACTIONS
    return {"a": a, "b": b} if good else _draw_two_multiples(random)


def _solve_gcd(work: Scratch, a: int, b: int) -> int:
    return work.gcd(a, b)


def _draw_lcm(random: Random) -> Parameters:
    factor = draw_between(random, 2, 24)
    a, b = factor * draw_between(random, 1, 9), factor * draw_between(random, 1, 150 // factor)
    good = a != b and min(a, b) > 3 and count_subtractions(a, b) <= MAX_SUBTRACTIONS
    return {"a": a, "b": b} if good else _draw_lcm(random)


def _solve_lcm(work: Scratch, a: int, b: int) -> int:
    return work.lcm(a, b)


def _draw_choose(random: Random) -> Parameters:
    return {"n": draw_between(random, 4, 20), "k": 2, "c": draw_between(random, 2, 299)}


def _solve_choose(work: Scratch, n: int, k: int, c: int) -> int:
    return work.add(work.pairs(n), c)


def _draw_digit_sum(random: Random) -> Parameters:
    length = draw_between(random, 4, 8)
    return {"n": draw_between(random, 10 ** (length - 1), 10**length - 1)}


def _solve_digit_sum(work: Scratch, n: int) -> int:
    return work.total(split_digits(n))


def _draw_term(random: Random) -> Parameters:
    return {"a": draw_between(random, 1, 60), "d": draw_between(random, 2, 9), "n": draw_between(random, 5, 60)}


def _solve_term(work: Scratch, a: int, d: int, n: int) -> int:
    return work.add(work.times(work.subtract(n, 1), d), a)


def _draw_power(random: Random) -> Parameters:
    a = draw_between(random, 2, 9)
    longest = {2: 9, 3: 6, 4: 4, 5: 4}.get(a, 3)
    return {"a": a, "e": draw_between(random, 2, longest), "c": draw_between(random, 2, 299)}


def _solve_power(work: Scratch, a: int, e: int, c: int) -> int:
    value = a
    for _ in range(e - 1):
        value = work.times(value, a)
    return work.add(value, c)


def _draw_base(random: Random) -> Parameters:
    base = draw_between(random, 2, 9)
    length = {2: draw_between(random, 5, 7), 3: draw_between(random, 4, 5)}.get(
        base, 3 + draw_between(random, 0, int(base < 7))
    )
    digits = [draw_between(random, 1, base - 1), *(draw_between(random, 0, base - 1) for _ in range(length - 1))]
    return {"n": int("".join(map(str, digits))), "b": base}


def _solve_base(work: Scratch, n: int, b: int) -> int:
    value, *rest = split_digits(n)
    for digit in rest:
        value = work.add(work.times(value, b), digit)
    return value


EASY = (
    Family(
        name="linear",
        level="easy",
        wordings=(
            "Solve for x: {a}x + {b} = {c}.",
            "If {a}x + {b} = {c}, what is the value of x?",
            "Find the number x such that {a}x + {b} = {c}.",
            "A number is multiplied by {a}, then {b} is added, which gives {c}. What is the number?",
        ),
        draw=_draw_linear,
        solve=_solve_linear,
    ),
    Family(
        name="evaluate",
        level="easy",
        wordings=(
            "Compute {a} * {b} + {c}.",
            "What is the value of {a} * {b} + {c}?",
            "Evaluate {a} \\cdot {b} + {c}.",
            "A hall has {a} rows of {b} seats and {c} more seats. How many seats does it have?",
        ),
        draw=_draw_evaluate,
        solve=_solve_evaluate,
    ),
    Family(
        name="remainder",
        level="easy",
        wordings=(
            "What is the remainder when {a} is divided by {m}?",
            "Find {a} mod {m}.",
            "Find the remainder of {a} divided by {m}.",
            "{a} apples are packed in boxes of {m}. How many apples are left over?",
        ),
        draw=_draw_remainder,
        solve=_solve_remainder,
    ),
    Family(
        name="gcd",
        level="easy",
        wordings=(
            "Find the greatest common divisor of {a} and {b}.",
            "What is gcd({a}, {b})?",
            "Determine the largest integer that divides both {a} and {b}.",
        ),
        draw=_draw_two_multiples,
        solve=_solve_gcd,
    ),
    Family(
        name="lcm",
        level="easy",
        wordings=(
            "Find the least common multiple of {a} and {b}.",
            "What is lcm({a}, {b})?",
            "Determine the smallest positive integer divisible by both {a} and {b}.",
        ),
        draw=_draw_lcm,
        solve=_solve_lcm,
    ),
    Family(
        name="choose",
        level="easy",
        wordings=(
            "Compute C({n}, {k}) + {c}.",
            "What is \\binom{{{n}}}{{{k}}} + {c}?",
            "A set of {k} people is chosen from {n} people in N ways. Find N + {c}.",
        ),
        draw=_draw_choose,
        solve=_solve_choose,
    ),
    Family(
        name="digitsum",
        level="easy",
        wordings=(
            "Find the sum of the digits of {n}.",
            "What is the digit sum of {n}?",
            "Let S(n) be the sum of the digits of n. Find S({n}).",
        ),
        draw=_draw_digit_sum,
        solve=_solve_digit_sum,
    ),
    Family(
        name="term",
        level="easy",
        wordings=(
            "An arithmetic sequence has first term {a} and common difference {d}. Find term number {n}.",
            "What is term {n} of the arithmetic sequence that starts at {a} and has difference {d}?",
            "A sequence starts at {a} and grows by {d} each time. What is its term number {n}?",
        ),
        draw=_draw_term,
        solve=_solve_term,
    ),
    Family(
        name="power",
        level="easy",
        wordings=(
            "Compute {a}^{e} + {c}.",
            "What is the value of {a}^{e} + {c}?",
            "Let N = {a}^{e}. Find N + {c}.",
        ),
        draw=_draw_power,
        solve=_solve_power,
    ),
    Family(
        name="base",
        level="easy",
        wordings=(
            "The number {n} is written in base {b}. Find its value in decimal.",
            "Convert {n} from base {b} to decimal.",
            "What is the decimal value of the numeral {n}_{b}?",
        ),
        draw=_draw_base,
        solve=_solve_base,
    ),
)
"""All easy families."""
