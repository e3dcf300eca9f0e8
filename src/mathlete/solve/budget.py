"""Budget: how long the next question may take when many share one clock.

The rule is `what is left - floor for each question still to come`, at most a ceiling. It covers both recipes of the
field: a fixed share plus a buffer of what others left (floor 350, ceiling 560: 350 s and at most 210 s more), and the
clamp between a floor and a ceiling (300, 900).

Guarantees, whatever the engine does (`solve` gives up on it at its deadline): the questions' times together never
exceed the wall less the reserve; as long as each keeps to its allowance, none gets less than the floor; if one
overshoots, what is left is shared evenly, so that the late ones are not starved for it.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from mathlete.errors import UserError, require
from mathlete.solve.clock import Clock
from mathlete.solve.harvesting import Reserve

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

Seconds = TypeVar("Seconds", float, "Array")

_FORM = "SECONDS[:FLOOR:CEILING[:RESERVE]]"
_CLOCK_FACE = re.compile(r"(\d{1,2}):([0-5]\d):([0-5]\d)")
_PERCENTILE = 0.95
"""Plan for the 95th percentile of the questions still to come."""


@dataclass(frozen=True, kw_only=True)
class BudgetSettings:
    """One clock for many questions, and how they share it."""

    wall_s: float
    """All questions together, seconds from the budget's start."""
    reserve_s: float = 0.0
    """Kept back at the end for what is not solving, seconds."""
    floor_s: float
    """What every question gets at least, seconds."""
    ceiling_s: float
    """What one question gets at most, seconds."""
    questions: int | Mapping[int, float]
    """How many questions come; or, where it is not known, {count: probability}."""

    def check(self) -> None:
        """Raise UserError where a value is out of its range or the floors do not fit into the wall."""
        most = self.to_come(served=-1)
        require(
            ("questions", most, most >= 1, "at least 1"),
            ("reserve", self.reserve_s, 0 <= self.reserve_s < self.wall_s, "0 or more and below the wall"),
            ("ceiling", self.ceiling_s, self.ceiling_s > 0, "above 0"),
            ("floor", self.floor_s, 0 <= self.floor_s <= self.ceiling_s, "0 or more and at most the ceiling"),
            prefix="the time budget's ",
            cure=f"write --budget {_FORM}, each in seconds: five hours are 18000",
        )
        if self.floor_s * most > (self.wall_s - self.reserve_s) * (1 + 1e-9):
            raise UserError(
                f"{most} questions with {self.floor_s:g} s each must fit into the wall less the reserve",
                value=f"{self.wall_s - self.reserve_s:g} s",
                cure="lower FLOOR or RESERVE of --budget SECONDS:FLOOR:CEILING:RESERVE, or raise SECONDS",
            )

    def to_come(self, *, served: int) -> int:
        """Return how many questions to plan for after the present one, when `served` came before it.

        For `served` -1 there is no present one yet: these are all questions.

        >>> shape = {"wall_s": 100, "floor_s": 1, "ceiling_s": 9}
        >>> BudgetSettings(**shape, questions=50).to_come(served=9)
        40
        >>> BudgetSettings(**shape, questions={50: 0.9, 110: 0.1}).to_come(served=9)
        100
        >>> BudgetSettings(**shape, questions={50: 0.97, 110: 0.03}).to_come(served=9)
        40
        """
        if isinstance(self.questions, int):
            return max(0, self.questions - served - 1)
        # Given that the present question came, counts up to those served are ruled out.
        possible = {count: share for count, share in self.questions.items() if count > served and share > 0}
        total, seen = sum(possible.values()), 0.0
        for count, share in sorted(possible.items()):
            seen += share / total
            # Too few planned would starve the last questions, too many only keeps some seconds back.
            if seen >= _PERCENTILE:
                return count - served - 1
        return max(possible, default=served + 1) - served - 1

    @classmethod
    def share_evenly(cls, *, wall_s: float, questions: int) -> "BudgetSettings":
        """Share the wall evenly: the floor is five sixths of the even share, the ceiling two and a half of it.

        So 50 questions in five hours get 300 to 900 s each:

        >>> BudgetSettings.share_evenly(wall_s=18_000, questions=50).ceiling_s
        900.0
        """
        share = wall_s / questions
        return cls(wall_s=wall_s, floor_s=share * 5 / 6, ceiling_s=share * 2.5, questions=questions)

    @classmethod
    def parse(cls, words: str, *, questions: int, reserve_s: float = 0.0) -> "BudgetSettings | None":
        """Return the clock of a `--budget` word: none, or SECONDS[:FLOOR:CEILING[:RESERVE]].

        Zeros before a number are those of hours, minutes and seconds: five hours are 18000, not 5:00:00.
        SECONDS alone are shared evenly, with a floor that fits; without RESERVE it is `reserve_s`.

        >>> BudgetSettings.parse("18000", questions=50).words
        '18000:300:900'
        >>> BudgetSettings.parse("18000:350:560:300", questions=50).reserve_s
        300.0

        Raises:
            UserError: other words, or floors that do not fit.
        """
        if words == "none":
            return None
        try:
            numbers = [float(number) for number in words.split(":")]
        except ValueError:
            numbers = []
        padded = re.search(r":0\d", words) is not None
        if padded or len(numbers) not in (1, 3, 4) or not all(map(math.isfinite, numbers)) or numbers[0] <= 0:
            rule = f"a budget must be none or {_FORM}, finite, with SECONDS above 0"
            raise UserError(rule, value=repr(words), cure=_explain_form(words))
        wall_s, *shares = numbers
        settings = cls.share_evenly(wall_s=wall_s, questions=questions)
        if shares:
            settings = replace(settings, floor_s=shares[0], ceiling_s=shares[1])
        else:
            # Nobody chose this floor, so it gives way to the reserve.
            settings = replace(settings, floor_s=min(settings.floor_s, (wall_s - reserve_s) / questions))
        settings = replace(settings, reserve_s=shares[2] if len(shares) > 2 else reserve_s)
        try:
            settings.check()
        except UserError as error:
            if not (meant := _read_clock_face(words)):
                raise
            cure = f"{error.cure}; if {words} is hours, minutes and seconds, write --budget {meant}"
            raise UserError(error.rule, value=error.value, cure=cure) from error
        return settings

    @property
    def words(self) -> str:
        """The `--budget` word that `parse` reads this from."""
        parts = (self.wall_s, self.floor_s, self.ceiling_s, *((self.reserve_s,) if self.reserve_s else ()))
        return ":".join(f"{part:.12g}" for part in parts)

    def allowance_s(self, left_s: Seconds, *, to_come: int) -> Seconds:
        """Return the seconds for the present question, of `left_s` for it and all to come; a number or an array of
        them.

        >>> field = BudgetSettings(wall_s=18_000, floor_s=350, ceiling_s=560, questions=50)
        >>> field.allowance_s(18_000.0, to_come=49), field.allowance_s(17_500.0, to_come=49)
        (560.0, 350.0)
        >>> field.allowance_s(100.0, to_come=1), field.allowance_s(-1.0, to_come=1)
        (50.0, 0.0)
        """
        import numpy as np

        # An even share where the floors no longer fit: one that overshot must not starve the late ones.
        spare = np.maximum(left_s - self.floor_s * to_come, left_s / (to_come + 1))
        seconds: Any = np.clip(spare, 0.0, self.ceiling_s)
        return seconds if isinstance(left_s, np.ndarray) else seconds.item()  # type: ignore[no-any-return]


def _explain_form(words: str) -> str:
    """Return how to write what was meant by a word that is no budget.

    >>> _explain_form("4:30:00")
    'write seconds: --budget 16200 for 4:30:00'
    >>> _explain_form("18000:300:900:060")
    'leave out the zeros before a number: --budget 18000:300:900:60'
    """
    if words.endswith(":free"):
        return "leave :free out, which only the replay has: it shares nothing"
    if meant := _read_clock_face(words):
        return f"write seconds: --budget {meant} for {words}"
    plain = re.sub(r":0+(?=\d)", ":", words)
    if plain != words and len(plain.split(":")) in (3, 4):
        return f"leave out the zeros before a number: --budget {plain}"
    return "write seconds: --budget 18000 for five hours"


def _read_clock_face(words: str) -> int | None:
    """Return the seconds of HOURS:MINUTES:SECONDS; None of other words."""
    if not (face := _CLOCK_FACE.fullmatch(words)):
        return None
    hours, minutes, seconds = map(int, face.groups())
    return hours * 3600 + minutes * 60 + seconds


class Budget:
    """The clock shared by questions that come one after another."""

    def __init__(self, settings: BudgetSettings, *, clock: Clock, spent_s: float = 0.0, served: int = 0) -> None:
        """Start the wall now, or, for a run that goes on, `spent_s` ago with `served` questions served.

        Raises:
            UserError: settings that cannot be kept.
        """
        settings.check()
        self.settings, self._clock, self._started, self._served = settings, clock, clock.now() - spent_s, served
        self.reserve = Reserve()
        """What of a question's time its forced answers need."""

    @property
    def left_s(self) -> float:
        """Seconds left for solving, never below 0."""
        spent = self._clock.now() - self._started
        return max(0.0, self.settings.wall_s - self.settings.reserve_s - spent)

    def next_question_s(self) -> float:
        """Return the seconds for the question that comes now, which counts as served."""
        to_come = self.settings.to_come(served=self._served)
        self._served += 1
        return self.settings.allowance_s(self.left_s, to_come=to_come)


class Speed:
    """How fast the engine draws, learned from the samples that finish: seconds a token = base + slope x rows.

    A decode step costs a fixed part (reading the weights) and a part for each row of the batch. The line is a least
    squares fit, weighted by tokens, whose sums decay: an engine that slows down is noticed.
    """

    def __init__(self, *, decay: float = 0.98) -> None:
        """`decay`: weight of past samples after each new one, 0 to 1."""
        self._decay = decay
        # Sums over samples, all weighted by tokens: 1, rows, cost, rows squared, rows times cost.
        self._weight = self._rows = self._cost = self._rows2 = self._rows_cost = 0.0
        self._tokens = self._count = 0.0

    def learn(self, *, tokens: int, seconds: float, rows: int) -> None:
        """Take one finished sample: its tokens and seconds, and the rows decoded together with it, itself included."""
        if tokens < 1 or seconds <= 0:
            return
        cost, decay = seconds / tokens, self._decay
        self._weight = decay * self._weight + tokens
        self._rows = decay * self._rows + tokens * rows
        self._cost = decay * self._cost + tokens * cost
        self._rows2 = decay * self._rows2 + tokens * rows * rows
        self._rows_cost = decay * self._rows_cost + tokens * rows * cost
        self._tokens, self._count = decay * self._tokens + tokens, decay * self._count + 1

    @property
    def known(self) -> bool:
        """Whether any sample has been learned from."""
        return self._weight > 0

    def token_s(self, *, rows: int) -> float:
        """Return the seconds of one token of one sample with so many rows in the batch.

        >>> speed = Speed()
        >>> for batch in (1, 2, 4, 8):
        ...     speed.learn(tokens=100, seconds=100 * (0.02 + 0.001 * batch), rows=batch)
        >>> round(speed.token_s(rows=16), 4)
        0.036
        """
        mean_rows, mean_cost = self._rows / self._weight, self._cost / self._weight
        variance = self._rows2 / self._weight - mean_rows**2
        # One batch size seen says nothing of others: take the cost to be the same for all.
        slope = 0.0 if variance < 1e-9 else (self._rows_cost / self._weight - mean_rows * mean_cost) / variance
        # Noise can tilt the line either way. A batch never makes a row cheaper, nor is the fixed part negative.
        slope = max(0.0, min(slope, mean_cost / mean_rows))
        return mean_cost + slope * (rows - mean_rows)

    def tokens_per_s(self, *, rows: int) -> float:
        """Return the tokens a second of the whole batch."""
        return rows / self.token_s(rows=rows)

    def samples_that_fit(self, *, seconds: float, n: int) -> int:
        """Return how many samples, 1 to n, finish a mean length in this time when they start together."""
        if not self.known:
            return n
        length = self._tokens / self._count
        fitting = [rows for rows in range(1, n + 1) if length * self.token_s(rows=rows) <= seconds]
        return max(fitting, default=1)
