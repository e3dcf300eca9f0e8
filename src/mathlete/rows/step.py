"""The format step of a run: what it reads, what makes it another step, and how its rows are built."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

from mathlete.corpus import SUITE_NAMES, Corpus, Mix, SourceSpec, Suite
from mathlete.jsonl import JsonLines
from mathlete.models import ModelSource, load_prompt_format
from mathlete.prompts import PromptFormat
from mathlete.rows.card import make_card
from mathlete.rows.figures import BadRowFigures, FormatFigures, RowFigures
from mathlete.rows.files import DroppedTrace, RowFiles
from mathlete.rows.settings import Filters, Rows
from mathlete.runs import Advance, write_atomically
from mathlete.text import counted


@dataclass(frozen=True, kw_only=True)
class FormatStep:
    """Which rows are made of what, for which tokenizer."""

    corpus: Corpus
    rows: Rows
    filters: Filters
    model: ModelSource
    seed: int

    def check(self) -> None:
        """Read the tokenizer, the first row of each source and the suites.

        Raises:
            UserError: a source, a suite or the tokenizer is not what it must be.
        """
        _ = self._specs
        if self.corpus.task == "math":
            _ = self._prompts.opening
        self.corpus.check_first_rows()
        _ = self._suites

    @property
    def inputs(self) -> dict[str, Path]:
        """The files that it reads on this machine."""
        tokenizer = {"tokenizer": self.model.folder / "tokenizer.json"} if self.model.folder else {}
        return {**tokenizer, **{f"traces {number}": file for number, file in enumerate(self.corpus.files())}}

    @property
    def settings(self) -> dict[str, object]:
        """The values that, beside the files, decide which rows are made."""
        # The hash of a file is among the inputs; its path is left out, so that it may be moved.
        sources = [
            (spec.weight, "file" if spec.files(None) else spec.name, self._commits.get(spec.name))
            for spec in self._specs
        ]
        return {
            **{key: getattr(self.corpus, key) for key in ("limit", "on_bad", "keep_dropped")},
            **{"seed": self.seed, "prompt": self._prompts.sha256, **asdict(self.rows), "filters": asdict(self.filters)},
            **{"sources": sources, "suites": {suite.name: suite.sha256 for suite in self._suites}},
            **{key: getattr(self.corpus, key) for key in ("task", "columns", "ignore") if self._differs(key)},
            "conventions": [spec.registered.golds.answers if spec.registered else "" for spec in self._specs],
        }

    def _differs(self, key: str) -> bool:
        """Return whether a setting is another than the usual: rows of before it was there are the same without it."""
        return bool(getattr(self.corpus, key)) and getattr(self.corpus, key) != "math"

    def build(self, folder: Path, advance: Advance, *, say: Callable[[str], None]) -> FormatFigures:
        """Make the rows in the folder; return the figures.

        Raises:
            UserError: a bad row, or fewer than two rows are left.
        """
        # Here, because they load the answers package, and --help must be quick.
        from mathlete.rows.format import format_rows
        from mathlete.rows.parts import PartMaker

        files, mix = RowFiles(folder), self.corpus.open(seed=self.seed, say=say)
        self._announce(say)
        rows = format_rows(
            folder,
            traced=mix,
            total=self.corpus.limit,
            maker=PartMaker(
                prompts=self._prompts,
                # Every turn of a conversation is learnt: there are no several traces to choose from.
                rows=replace(self.rows, policy="all") if self.corpus.task == "chat" else self.rows,
                filters=self.filters,
                suites=self._suites,
                keep_dropped=self.corpus.keep_dropped,
            ),
            seed=self.seed,
            advance=advance,
            num_proc=self.corpus.num_proc,
            ray=self.corpus.ray,
            skipped=mix.bad_rows.describe,
        )
        mix.check_columns()
        for use in mix.columns.values():
            if words := use.describe():
                say(words)
        if rows.unverified:
            say(f"verified by nothing: {rows.unverified} of {rows.kept} kept traces have no gold")
        if rows.parity.first:
            many = counted(rows.parity.mismatches, "row")
            say(f"not what is served, and left out: {many}; the first, {rows.parity.first}")
        if mix.ended_by:
            say(f"the mix ended where {mix.ended_by} did: {mix.taken}")
        if self.corpus.keep_dropped:
            errors = (DroppedTrace(reason="bad row", error=error) for error in mix.bad_rows.messages)
            lines = JsonLines(files.dropped, sync_s=None)
            for error in errors:
                lines.append(error.to_json())
        figures = self._add_sources(rows, mix)
        write_atomically(files.card, make_card(figures, specs=self._specs, settings=self.settings))
        return figures

    def _announce(self, say: Callable[[str], None]) -> None:
        suites = [suite.name for suite in self._suites]
        missing = [name for name in SUITE_NAMES if name not in suites]
        others = f" · {len(missing)} suites not compared (--mirror DIR or --against)" if missing else ""
        say(f"kept clear of {', '.join(suites) or 'no suite'}{others}")
        for name, why in self._loaded_suites[1].items():
            say(f"{name}: {why}")
        for name, commit in self._commits.items():
            say(f"{name}: commit {commit or 'unknown, as the cache has it'}")

    def _add_sources(self, rows: RowFigures, mix: Mix) -> FormatFigures:
        return FormatFigures(
            **vars(rows),
            sources=mix.taken,
            ended_by=mix.ended_by,
            commits=self._commits,
            suites=[suite.name for suite in self._suites],
            bad_rows=BadRowFigures(rows=mix.bad_rows.count, first=mix.bad_rows.first),
            columns={name: {"read": use.read, "unread": use.unread} for name, use in mix.columns.items() if use.read},
        )

    @cached_property
    def _specs(self) -> list[SourceSpec]:
        return self.corpus.specs

    @cached_property
    def _prompts(self) -> PromptFormat:
        return load_prompt_format(self.model)

    @cached_property
    def _commits(self) -> dict[str, str | None]:
        return self.corpus.commits()

    @property
    def _suites(self) -> list[Suite]:
        return self._loaded_suites[0]

    @cached_property
    def _loaded_suites(self) -> tuple[list[Suite], dict[str, str]]:
        return self.corpus.load_suites()
