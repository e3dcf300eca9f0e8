"""Lost tries: an engine that is given nonsense, or nothing, draws the sample again, and says what came."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from mathlete.errors import UserError
from mathlete.jsonl import JsonLines


@dataclass(frozen=True, kw_only=True)
class LostTry:
    """One try at a sample that came to nothing. It is no sample and no answer: the same seed is drawn again."""

    problem_id: str
    index: int
    seed: int
    where: str
    """The server, worker or engine that it was lost on."""
    reason: str
    """What went wrong, quoting what came."""
    text: str = ""
    """What the model had said until then."""


_ROUNDED_UP = 0.1
"""A sum of 16-bit numbers may come out a little above a probability of 1."""
OnLost = Callable[[LostTry], None]
"""Called with each lost try as it happens, from any thread."""


class Lost(Exception):
    """Raised where a try at a sample comes to nothing."""

    def __init__(
        self,
        reason: str,
        *,
        wait_s: float | None = None,
        garbled: bool = True,
        broken: bool = False,
        filtered: bool = False,
    ) -> None:
        """Take what happened.

        Args:
            reason: what went wrong, quoting what came.
            wait_s: seconds after which the other side wants to be asked again; None: it did not say.
            garbled: whether a reply came and was wrong; False where there was none, or a refusal for being busy.
            broken: whether the other side says that it failed over this very request.
            filtered: whether it says that a filter of its own has withheld the reply.
        """
        super().__init__(reason)
        self.reason, self.wait_s, self.garbled = reason, wait_s, garbled
        self.broken, self.filtered = broken, filtered


class QuestionRefused(UserError):
    """Raised where no server takes the requests for one problem, or answers them; those for others it may."""


OnRefused = Callable[[str, QuestionRefused], None]
"""Called with a problem's id and why it was refused: raises that, or notes it so that the others go on."""


def raise_refusal(problem_id: str, refused: QuestionRefused) -> None:
    """Raise the refusal: one problem ends the run."""
    raise refused


class EngineGone(UserError):
    """Raised where an engine has ended for good: only another process can draw what was asked for."""


def finite_logprob(value: object) -> float:
    """Return a token's log-probability.

    Raises:
        Lost: it is not a finite number, or that of no probability, so what drew the token was broken.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e30 < value < 1e30:
        raise Lost(f"a token's log-probability must be a number, and was {str(value)[:40]}")
    if value > _ROUNDED_UP:
        raise Lost(f"a token's log-probability must be at most 0, and was {value}")
    return float(value)


class LostLog:
    """The lost tries of a run, on file: appended from many threads, and read again when the run goes on."""

    def __init__(self, path: Path) -> None:
        self._lines = JsonLines(path, sync_s=None)
        self._lines.cut_half_line()
        self.tries = [_read_try(row, where=where) for where, row in self._lines.read()]
        """All lost tries so far, those of earlier parts of the run first."""
        self.earlier = len(self.tries)
        """Lost tries of earlier parts of the run."""

    def append(self, one: LostTry) -> None:
        """Add one line."""
        self.tries.append(one)
        self._lines.append(asdict(one))


def _read_try(row: Any, *, where: str) -> LostTry:
    names = {item.name for item in fields(LostTry)}
    if not isinstance(row, dict) or set(row) != names:
        raise UserError(f"{where}: must be a lost try with {', '.join(sorted(names))}", cure="delete the line")
    return LostTry(**row)
