"""Settings of the corpus: what is read, and what becomes of bad rows."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mathlete.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Problems with traces to train on."""

    source: tuple[str, ...]
    """Sets of sources.toml (gsm8k, openr1:extended), pocket, or files: .jsonl, .json, .csv, .parquet. With weights,
    openr1=2 gsm8k=1, they are mixed in these shares; without, one comes after the other."""
    mirror: Path | None = None
    """Folder that stands in for the hub's data sets."""
    limit: int | None
    """Only the first so many problems of the mix; None: all."""
    against: tuple[str, ...] | None = None
    """Suites whose problems are left out; default: pocket_val, and every hub suite that the mirror holds, or the hub
    where a source is read from there."""
    on_bad: Literal["error", "skip"] = "error"
    """A row that cannot be read ends the run, or is counted and left out."""
    keep_dropped: bool = False
    """Write what is left out, with its reason, into the run's data/dropped.jsonl."""
    num_proc: int = 1
    """Processes that verify and tokenise."""
    ray: str | None = None
    """Address of a Ray cluster whose workers are these processes, as in auto or ray://HOST:10001; local starts one. All
    its machines must see the run's folder."""

    def check(self) -> None:
        """Raises UserError where a value is out of its range."""
        if not self.source:
            raise UserError("--source must name a source", cure="use --source pocket")
        if self.limit is not None and self.limit < 2:
            raise UserError("--limit must be at least 2", value=self.limit, cure="leave it out")
        if self.num_proc < 1:
            raise UserError("--num-proc must be at least 1", value=self.num_proc, cure="leave it out")


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Which traces are fit to learn from. What the checker finds wrong is always left out."""

    min_tokens: int = 1
    """Shortest trace with its answer, tokens."""
    foreign: float = 0.02
    """Largest share of a trace's letters in scripts that its statement does not use, 0 to 1; 1: any."""
    repeats: float = 0.3
    """Largest share of a trace's runs of 20 words that were there before, 0 to 1: above it, it is a loop."""
    two_boxes: Literal["drop", "keep"] = "drop"
    """Answers with two boxes that differ."""
    duplicates: Literal["near", "exact", "keep"] = "exact"
    """Problems are one where their statements are reworded, or differ in typesetting only, or where their ids are the
    same. Of one problem a trace is kept once, policies choose, and all rows are trained on or all held out."""
    tool_output: Literal["drop", "mask"] = "drop"
    """Traces in which programs were run: left out, or kept with no loss on what the tool wrote. Such a model is served
    with python -m eval ... --tools.turns N --tools.instruction ""."""
    unverified: Literal["drop", "keep"] = "drop"
    """Rows of files that have no gold column, so that nothing tells whether their answer is right."""

    def check(self) -> None:
        """Raises UserError where a value is out of its range."""
        for flag, value, good, rule in (
            ("min-tokens", self.min_tokens, self.min_tokens >= 1, "at least 1"),
            ("foreign", self.foreign, 0 <= self.foreign <= 1, "0 to 1"),
            ("repeats", self.repeats, 0 <= self.repeats <= 1, "0 to 1"),
        ):
            if not good:
                raise UserError(f"--filters.{flag} must be {rule}", value=value, cure="leave it out")
