"""The settings of a corpus: what is read, from where, and what happens to bad rows."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mathlete.corpus.columns import Reading, Task, parse_columns
from mathlete.corpus.layouts import SAMPLES
from mathlete.corpus.sources import find_commit
from mathlete.corpus.stream import BadRows, Mix, SourceSpec
from mathlete.corpus.suites import Suite, find_default_suites, load_suite
from mathlete.errors import UserError, require

_FIRST = 20
"""Rows of each source that are looked at before the work begins."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Problems with traces to train on."""

    source: tuple[str, ...]
    """Sets of sources.toml (gsm8k, openr1:extended), pocket, files (.jsonl, .json, .csv, .parquet, .arrow), folders or
    patterns of them, other sets of the hub (OWNER/NAME:CONFIG@SPLIT), or folders of evaluation runs, whose samples are
    the traces. With weights, openr1=2 gsm8k=1, they are mixed in these shares; without, one comes after the other."""
    task: Task = "math"
    """What the rows teach: traces that reach a right answer, or (chat) replies as they stand, checked by nothing."""
    columns: tuple[str, ...] = ()
    """Which column of files and hub sets is what, as in statement=Problem trace=cot gold=Final (also ending, id,
    subset); default: recognised."""
    ignore: tuple[str, ...] = ()
    """Columns, or keys of a turn, to leave unread though they hold long text in most rows."""
    mirror: Path | None = None
    """Folder that stands in for the hub's data sets."""
    limit: int | None
    """Number of problems to take from the mix; None: all."""
    against: tuple[str, ...] | None = None
    """Suites whose problems are left out; default: pocket_val, and every hub suite that the mirror holds, or the hub
    where a source is read from there."""
    on_bad: Literal["error", "skip"] = "error"
    """What a row that cannot be read does: it ends the run, or is counted and left out."""
    keep_dropped: bool = False
    """Write what is left out, with its reason, into the run's data/dropped.jsonl."""
    num_proc: int = 1
    """Processes that verify and tokenise."""
    ray: str | None = None
    """Address of a Ray cluster whose workers are these processes, as in auto or ray://HOST:10001; local starts one. All
    its machines must see the run's folder."""

    def check(self) -> None:
        """Raise UserError where a value is out of its range."""
        if not self.source:
            raise UserError("--source must name a source", cure="use --source pocket")
        _ = self.reading
        require(
            ("limit", self.limit, self.limit is None or self.limit >= 2, "at least 2"),
            ("num-proc", self.num_proc, self.num_proc >= 1, "at least 1"),
            cure="leave it out",
        )

    @property
    def reading(self) -> Reading:
        """How files and sets of any columns are read.

        Raises:
            UserError: words of --columns that say nothing.
        """
        return Reading(columns=parse_columns(self.columns), ignore=frozenset(self.ignore), task=self.task)

    @property
    def specs(self) -> list[SourceSpec]:
        """The sources, in the order in which they are named."""
        return [SourceSpec.parse(word) for word in self.source]

    def files(self) -> list[Path]:
        """Return the files on this machine that the sources are read from."""
        return [file for spec in self.specs for file in spec.files(self.mirror)]

    def runs(self) -> list[Path]:
        """Return the folders of evaluation runs whose samples are read."""
        return [*dict.fromkeys(file.parent for file in self.files() if file.name == SAMPLES)]

    def commits(self) -> dict[str, str | None]:
        """Return the commit of each source that is read from the hub; None where the hub is out of reach."""
        sources = {spec.name: spec.registered for spec in self.specs}
        return {name: find_commit(source) for name, source in sources.items() if source and not self.mirror}

    def load_suites(self) -> tuple[list[Suite], dict[str, str]]:
        """Load the suites whose problems are left out; return (them, {a default one that can't be read: why}).

        Raises:
            UserError: a suite that was named can't be read.
        """
        if self.against is not None:
            return [load_suite(name, mirror=self.mirror) for name in self.against], {}
        suites: list[Suite] = []
        unread: dict[str, str] = {}
        for name in find_default_suites(mirror=self.mirror, hub=bool(self.commits())):
            try:
                suites.append(load_suite(name, mirror=self.mirror))
            except UserError as error:
                # Of a dozen sets on the hub one may be gone or renamed: that must not end every training.
                if self.mirror:
                    raise
                unread[name] = error.rule
        return suites, unread

    def check_first_rows(self) -> None:
        """Read the first rows of each source.

        Raises:
            UserError: a source cannot be read, one of these rows is bad and bad rows end the run, or most of them have
                a column with long text that is not read.
        """
        for spec in self.specs:
            mix = Mix([spec], mirror=self.mirror, limit=_FIRST, seed=0, bad_rows=self._bad_rows(), reading=self.reading)
            for _ in mix:
                pass
            mix.check_columns()

    def open(self, *, seed: int, say: Callable[[str], None] = lambda _: None) -> Mix:
        """Return the stream of rows: the traces of one row at a time, mixed by the sources' weights.

        Args:
            seed: chooses the pocket generator's problems.
            say: receives a line for each of the first bad rows.
        """
        bad_rows = self._bad_rows(say)
        return Mix(self.specs, mirror=self.mirror, limit=self.limit, seed=seed, bad_rows=bad_rows, reading=self.reading)

    def _bad_rows(self, say: Callable[[str], None] = lambda _: None) -> BadRows:
        return BadRows(skip=self.on_bad == "skip", keep_all=self.keep_dropped, say=say)
