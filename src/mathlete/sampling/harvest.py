"""What a sample is made to answer once it was cut, and how samples end."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self, get_args

from mathlete.errors import UserError

Finish = Literal["stop", "length", "cancelled", "boxed", "clock"]
"""Why a sample ended: eos or a stop string · token cap · cancelled by the solve loop · its box closed after
`</think>` · the deadline of its problem, and what it had said until then was kept."""
FINISHES = get_args(Finish)
CURE = "delete the line, or the whole run folder to draw all samples again"
"""For a recorded sample that cannot be read."""
MOST = 2**31
"""Largest index, tokens and seconds of a sample."""
_TYPES: dict[str, tuple[type, ...]] = {
    "text": (str,),
    "answer": (str, type(None)),
    "tokens": (int,),
    "finish": (str,),
    "seconds": (int, float),
}


@dataclass(frozen=True, kw_only=True)
class Harvest:
    """What a sample that was cut answered when its text was closed and the box asked for; never its own answer."""

    text: str
    """All that follows the sample's text: what closed it, the box that was begun for it, and what it put in."""
    answer: str | None
    """What stands in the box; None where that was not closed."""
    tokens: int
    """Tokens drawn for it."""
    finish: Finish
    """Why it ended: boxed where the box was closed."""
    seconds: float
    """From its request to its end on the engine's clock."""

    def fits(self, max_tokens: int) -> bool:
        """Return whether it is what would be drawn under that cap; one that was cut is so under its own cap alone."""
        return self.tokens <= max_tokens and (self.finish != "length" or self.tokens in (0, max_tokens))

    @classmethod
    def from_json(cls, row: Mapping[str, object], *, where: str) -> Self:
        """Return the forced answer in a row of samples.jsonl.

        Raises:
            UserError: it is none; `where` (file:line) is named.
        """
        right = row.keys() == _TYPES.keys() and all(type(row[name]) in kinds for name, kinds in _TYPES.items())
        numbers = [row[name] for name in ("tokens", "seconds")] if right else []
        if not right or row["finish"] not in FINISHES or not all(0 <= one <= MOST for one in numbers):  # type: ignore[operator]
            rule = f"{where}: harvest must have {', '.join(_TYPES)}, with numbers from 0 to {MOST}"
            raise UserError(rule, value=repr(row)[:200], cure=CURE)
        return cls(**row)  # type: ignore[arg-type]  # checked above
