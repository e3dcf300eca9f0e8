"""Settings of the rows: which traces are fit to learn from, and which of them become training rows."""

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
    """Right traces to keep of a problem: all, the shortest, the K shortest, or the longest under --rows.longest."""
    traces: int = 2
    """How many traces --rows.policy k_shortest keeps of a problem, 1 or more."""
    longest: int = 4096
    """Token limit for --rows.policy longest_under, trace and answer together."""
    heldout: int = 200
    """Problems held out to measure what merge and export cost; at most a tenth of all, at least one."""

    def check(self) -> None:
        """Raise UserError where a value is out of its range."""
        require(
            ("rows.max-tokens", self.max_tokens, self.max_tokens >= 16, "at least 16"),
            ("rows.heldout", self.heldout, self.heldout >= 1, "at least 1"),
            ("rows.traces", self.traces, self.traces >= 1, "at least 1"),
            ("rows.longest", self.longest, self.longest >= 1, "at least 1"),
        )


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Which traces are fit to learn from. Traces with a wrong answer are always left out."""

    min_tokens: int = 1
    """Shortest trace with its answer, tokens."""
    foreign: float = 0.02
    """Largest share of a trace's letters in scripts that its statement does not use, 0 to 1; 1: any."""
    repeats: float = 0.3
    """Largest share of a trace's runs of 20 words that repeat an earlier run, 0 to 1; above it, the trace is a loop."""
    two_boxes: Literal["drop", "keep"] = "drop"
    """Traces that end on two boxes with different answers."""
    duplicates: Literal["near", "exact", "keep"] = "exact"
    """Which problems count as one: reworded ones (near), those that differ only in typesetting (exact), or those with
    the same id (keep). Of one problem equal traces are kept once, except with keep; --rows.policy chooses among its
    traces; and all of its rows are trained on, or all held out."""
    tool_output: Literal["drop", "mask"] = "drop"
    """Traces in which programs were run: left out, or kept without loss on what the tool wrote. Such a model is served
    with python -m eval ... --tools.turns N --tools.instruction ""."""
    unverified: Literal["drop", "keep"] = "drop"
    """Traces without a gold, whose answers cannot be checked; kept, the answer that they mark (a box, "answer is",
    ####, <answer>) is trusted, and the card counts them."""

    def check(self) -> None:
        """Raise UserError where a value is out of its range."""
        require(
            ("min-tokens", self.min_tokens, self.min_tokens >= 1, "at least 1"),
            ("foreign", self.foreign, 0 <= self.foreign <= 1, "0 to 1"),
            ("repeats", self.repeats, 0 <= self.repeats <= 1, "0 to 1"),
            prefix="--filters.",
            cure="leave it out",
        )
