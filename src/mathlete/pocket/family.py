"""What a family of problems is made of."""

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
    """Format strings. Their only numbers are the parameters, all of them: the split law is read off the statement."""
    draw: Callable[[Random], Parameters]
    """Draws the parameters, with `randrange` alone, which every Python computes alike."""
    solve: Callable[..., int]
    """Writes the steps on the Scratch it is given and returns the answer; parameters by name."""

    @property
    def subset(self) -> str:
        """`easy/<name>` or `hard/<name>`."""
        return f"{self.level}/{self.name}"

    def solution(self, parameters: Parameters) -> tuple[str, int]:
        """(trace, answer) for these parameters."""
        work = Scratch()
        answer = self.solve(work, **parameters)
        return work.text, answer


def between(random: Random, low: int, high: int) -> int:
    """A whole number from low to high, both included."""
    return random.randrange(low, high + 1)


def digits_of(number: int) -> list[int]:
    """The decimal digits, most significant first."""
    return [int(digit) for digit in str(number)]


def subtractions(a: int, b: int) -> int:
    """Steps of Euclid's algorithm by subtraction.

    >>> subtractions(141, 78)
    10
    """
    steps = 0
    while a != b:
        a, b, steps = min(a, b), abs(a - b), steps + 1
    return steps
