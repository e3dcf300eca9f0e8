"""A family of problems: its wordings, how its numbers are drawn and how it is solved."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Literal

from mathlete.pocket.scratch import Scratch

Level = Literal["easy", "hard"]
Parameters = dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Family:
    """Problems that differ only in their numbers and their wording, all with a whole non-negative answer."""

    name: str
    level: Level
    wordings: tuple[str, ...]
    """Format strings with all parameters and no other numbers: the split law counts the statement's numbers."""
    draw: Callable[[Random], Parameters]
    """Draws the parameters with `randrange` alone, which every Python version computes alike."""
    solve: Callable[..., int]
    """Takes a Scratch and the parameters by name; writes the steps there and returns the answer."""

    @property
    def subset(self) -> str:
        """`easy/<name>` or `hard/<name>`."""
        return f"{self.level}/{self.name}"

    def write_solution(self, parameters: Parameters) -> tuple[str, int]:
        """Return (trace, answer) for these parameters."""
        work = Scratch()
        answer = self.solve(work, **parameters)
        return work.text, answer


def draw_between(random: Random, low: int, high: int) -> int:
    """Draw a whole number from low to high, both included."""
    return random.randrange(low, high + 1)


def split_digits(number: int) -> list[int]:
    """Return the decimal digits, most significant first."""
    return [int(digit) for digit in str(number)]


def count_subtractions(a: int, b: int) -> int:
    """Return the number of steps of Euclid's algorithm by subtraction.

    >>> count_subtractions(141, 78)
    10
    """
    steps = 0
    while a != b:
        a, b, steps = min(a, b), abs(a - b), steps + 1
    return steps
