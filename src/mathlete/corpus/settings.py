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
    on_bad: Literal["error", "skip"] = "error"
    """A row that cannot be read ends the run, or is counted and left out."""

    def check(self) -> None:
        """Raises UserError where a value is out of its range."""
        if not self.source:
            raise UserError("--source must name a source", cure="use --source pocket")
        if self.limit is not None and self.limit < 2:
            raise UserError("--limit must be at least 2", value=self.limit, cure="leave it out")
