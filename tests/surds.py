"""Roots of fractions, for the tests of exact and numeric answers."""

from fractions import Fraction

from mathlete.answers.tree import Node, number


def surd(top: int, bottom: int, degree: int) -> Node:
    """Return the root of that degree of top / bottom."""
    return Node("root", (number(Fraction(top, bottom)), number(degree)))
