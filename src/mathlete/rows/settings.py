"""Which traces become training rows."""

from dataclasses import dataclass
from typing import Literal

from mathlete.errors import require

TracePolicy = Literal["all", "shortest_correct", "k_shortest", "longest_under"]
"""Which of a problem's right traces are kept."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Which traces become training rows."""

    max_tokens: int = 512
    """Longest row, prompt and completion together, tokens. A longer one is dropped, never cut."""
    shorten: bool = False
    """End a trace that is too long where it first boxes the right answer, if it fits then."""
    policy: TracePolicy = "all"
    """Of a problem's right traces: all, the shortest, the K shortest, or the longest under so many tokens."""
    traces: int = 2
    """K of k_shortest, 1 or more."""
    longest: int = 4096
    """What a trace with its answer must stay under for longest_under, tokens."""
    heldout: int = 200
    """Rows kept from training to measure what merge and export cost; at most a tenth of all rows, at least one."""

    def check(self) -> None:
        """Raises UserError where a value is out of its range."""
        require(
            ("rows.max-tokens", self.max_tokens, self.max_tokens >= 16, "at least 16"),
            ("rows.heldout", self.heldout, self.heldout >= 1, "at least 1"),
            ("rows.traces", self.traces, self.traces >= 1, "at least 1"),
            ("rows.longest", self.longest, self.longest >= 1, "at least 1"),
        )
