"""The hard families: composites of the easy skills, in the manner of competition questions."""

import math
from random import Random

from mathlete.pocket.easy import MAX_SUBTRACTIONS
from mathlete.pocket.family import Family, Parameters, count_subtractions, draw_between, split_digits
from mathlete.pocket.scratch import Scratch


def _draw_expression(random: Random) -> Parameters:
    return {
        "a": draw_between(random, 11, 60),
        "b": draw_between(random, 2, 9),
        "c": draw_between(random, 10, 99),
        "m": draw_between(random, 4, 13),
    }


def _solve_expression(work: Scratch, a: int, b: int, c: int, m: int) -> int:
    return work.remainder(work.add(work.times(a, b), c), m)


def _draw_power(random: Random) -> Parameters:
    a, e, m = draw_between(random, 2, 99), draw_between(random, 3, 6), draw_between(random, 5, 12)
    # A base that is 0 or 1 modulo m needs no work.
    return {"a": a, "e": e, "m": m} if a % m > 1 else _draw_power(random)


def _solve_power(work: Scratch, a: int, e: int, m: int) -> int:
    base = work.remainder(a, m) if a >= m else a
    value = base
    for reached in range(2, e + 1):
        product = work.times(value, base)
        value = work.remainder(product, m) if product >= m else product
        work.note(f"^{reached}={value}")
    return value


def _draw_congruence(random: Random) -> Parameters:
    a, m = draw_between(random, 3, 9), draw_between(random, 11, 49)
    b = draw_between(random, 1, m - 1)
    return {"a": a, "b": b, "m": m} if math.gcd(a, m) == 1 else _draw_congruence(random)


def _solve_congruence(work: Scratch, a: int, b: int, m: int) -> int:
    # b + km is divisible by a for the first k at which b mod a, with m mod a added k times, comes to 0.
    left, step, k = work.remainder(b, a), work.remainder(m, a), 0
    while left:
        left, k = work.add(left, step), k + 1
        if left >= a:
            left = work.subtract(left, a)
        work.note(f"k={k}")
    return work.quotient(work.add(work.times(m, k), b) if k else b, a)


def _draw_chain(random: Random) -> Parameters:
    factor = draw_between(random, 4, 16)
    a, b = factor * draw_between(random, 1, 120 // factor), factor * draw_between(random, 1, 120 // factor)
    c = draw_between(random, 4, 24)
    g = math.gcd(a, b)
    short = max(count_subtractions(a, b), count_subtractions(g, c)) <= MAX_SUBTRACTIONS
    good = a != b and g != c and short
    return {"a": a, "b": b, "c": c} if good else _draw_chain(random)


def _solve_chain(work: Scratch, a: int, b: int, c: int) -> int:
    return work.lcm(work.gcd(a, b), c)


def _draw_product(random: Random) -> Parameters:
    return {"a": draw_between(random, 101, 999), "b": draw_between(random, 3, 9)}


def _solve_product(work: Scratch, a: int, b: int) -> int:
    return work.total(split_digits(work.times(a, b)))


def _draw_choose(random: Random) -> Parameters:
    k = draw_between(random, 2, 3)
    n = draw_between(random, 5, 20 if k == 2 else 9)
    return {"n": n, "k": k, "c": draw_between(random, 2, 99), "m": draw_between(random, 4, 13)}


def _solve_choose(work: Scratch, n: int, k: int, c: int, m: int) -> int:
    ways = work.pairs(n)
    if k == 3:
        ways = work.quotient(work.times(ways, work.subtract(n, 2)), 3)
    return work.remainder(work.add(ways, c), m)


def _draw_union(random: Random) -> Parameters:
    a, b = draw_between(random, 2, 12), draw_between(random, 2, 12)
    if a % b == 0 or b % a == 0:
        return _draw_union(random)
    return {"a": a, "b": b, "n": draw_between(random, 30, 199)}


def _solve_union(work: Scratch, a: int, b: int, n: int) -> int:
    first, second = work.quotient(n, a), work.quotient(n, b)
    shared = work.quotient(n, work.lcm(a, b))
    return work.subtract(work.add(first, second), shared)


def _draw_series(random: Random) -> Parameters:
    n = 2 * draw_between(random, 2, 5)
    return {"n": n, "a": draw_between(random, 1, 40), "d": draw_between(random, 2, 9), "m": draw_between(random, 5, 13)}


def _solve_series(work: Scratch, n: int, a: int, d: int, m: int) -> int:
    last = work.add(work.times(work.subtract(n, 1), d), a)
    return work.remainder(work.times(work.add(a, last), work.halve(n)), m)


def _draw_solutions(random: Random) -> Parameters:
    a, b, c = (draw_between(random, 1, 12) for _ in range(3))
    return {"a": a, "b": b, "c": c, "n": a + b + c + draw_between(random, 3, 18)}


def _solve_solutions(work: Scratch, a: int, b: int, c: int, n: int) -> int:
    # Stars and bars: what is left after the least values is shared out among three.
    left = work.subtract(work.subtract(work.subtract(n, a), b), c)
    return work.pairs(work.add(left, 2))


def _draw_digits_in_base(random: Random) -> Parameters:
    b = draw_between(random, 3, 9)
    return {"n": draw_between(random, b * b, min(b**4 - 1, 699)), "b": b}


def _solve_digits_in_base(work: Scratch, n: int, b: int) -> int:
    digits = []
    while n >= b:
        n, digit = work.divide(n, b)
        digits.append(digit)
    return work.total([*digits, n])


HARD = (
    Family(
        name="expression",
        level="hard",
        wordings=(
            "Find the remainder when {a} * {b} + {c} is divided by {m}.",
            "Let N = {a} \\cdot {b} + {c}. What is N mod {m}?",
            "{a} boxes of {b} pens and {c} more pens are shared among {m} pupils as equally as possible. "
            "How many pens are left over?",
        ),
        draw=_draw_expression,
        solve=_solve_expression,
    ),
    Family(
        name="power",
        level="hard",
        wordings=(
            "Find the remainder when {a}^{e} is divided by {m}.",
            "What is {a}^{e} mod {m}?",
            "Let N = {a}^{e}. Determine the remainder of N modulo {m}.",
        ),
        draw=_draw_power,
        solve=_solve_power,
    ),
    Family(
        name="congruence",
        level="hard",
        wordings=(
            "Find the smallest positive integer x with {a}x \\equiv {b} (mod {m}).",
            "Determine the least positive integer x such that {a}x leaves remainder {b} when divided by {m}.",
            "What is the smallest positive solution of the congruence {a}x = {b} mod {m}?",
        ),
        draw=_draw_congruence,
        solve=_solve_congruence,
    ),
    Family(
        name="chain",
        level="hard",
        wordings=(
            "Find lcm(gcd({a}, {b}), {c}).",
            "Let g be the greatest common divisor of {a} and {b}. Find the least common multiple of g and {c}.",
            "Let g = gcd({a}, {b}). What is the smallest positive integer divisible by both g and {c}?",
        ),
        draw=_draw_chain,
        solve=_solve_chain,
    ),
    Family(
        name="product",
        level="hard",
        wordings=(
            "Find the sum of the digits of {a} * {b}.",
            "Let S(n) be the sum of the digits of n. Find S({a} \\cdot {b}).",
            "What is the digit sum of the product of {a} and {b}?",
        ),
        draw=_draw_product,
        solve=_solve_product,
    ),
    Family(
        name="choose",
        level="hard",
        wordings=(
            "Find the remainder when C({n}, {k}) + {c} is divided by {m}.",
            "What is \\binom{{{n}}}{{{k}}} + {c} mod {m}?",
            "A committee of {k} is chosen from {n} people in N ways. Find the remainder of N + {c} modulo {m}.",
        ),
        draw=_draw_choose,
        solve=_solve_choose,
    ),
    Family(
        name="union",
        level="hard",
        wordings=(
            "How many positive integers up to {n} are divisible by {a} or {b}?",
            "Find the number of positive integers not exceeding {n} that are multiples of {a} or of {b}.",
            "How many of the integers from one to {n} are divisible by at least one of {a} and {b}?",
        ),
        draw=_draw_union,
        solve=_solve_union,
    ),
    Family(
        name="series",
        level="hard",
        wordings=(
            "An arithmetic sequence has first term {a} and common difference {d}. "
            "Find the remainder when the sum of its first {n} terms is divided by {m}.",
            "Let S be the sum of the first {n} terms of the arithmetic sequence that starts at {a} "
            "and has difference {d}. What is S mod {m}?",
            "A sequence starts at {a} and grows by {d} each time. Its first {n} terms have sum S. Find S modulo {m}.",
        ),
        draw=_draw_series,
        solve=_solve_series,
    ),
    Family(
        name="solutions",
        level="hard",
        wordings=(
            "How many integer solutions has x + y + z = {n} with x >= {a}, y >= {b} and z >= {c}?",
            "Find the number of integer triples (x, y, z) with x + y + z = {n}, x \\ge {a}, y \\ge {b}, z \\ge {c}.",
            "In how many ways can {n} coins be shared among three people "
            "so that they get at least {a}, {b} and {c} coins?",
        ),
        draw=_draw_solutions,
        solve=_solve_solutions,
    ),
    Family(
        name="basedigits",
        level="hard",
        wordings=(
            "Find the sum of the digits of {n} written in base {b}.",
            "What is the digit sum of {n} in base {b}?",
            "The decimal number {n} is converted to base {b}. Find the sum of its digits.",
        ),
        draw=_draw_digits_in_base,
        solve=_solve_digits_in_base,
    ),
)
"""All hard families."""
