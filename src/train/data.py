"""The format step of a run: what it reads, what makes it another step, and how its rows are built."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mathlete.corpus.card import card_text
from mathlete.corpus.sources import hub_commit
from mathlete.corpus.stream import SHOWN, BadRows, Mix, Spec, opened, parse_spec
from mathlete.corpus.suites import SUITE_NAMES, Suite, load_suite, suites_at_hand
from mathlete.models import ModelSource, load_prompt_format
from mathlete.prompts import PromptFormat
from mathlete.rows.format import DROPPED, format_rows
from mathlete.rows.parts import Maker
from mathlete.runs import Advance, write_atomically
from train.settings import DataSettings


@dataclass(frozen=True, kw_only=True)
class Data:
    """Which rows are made of what, for which tokenizer."""

    settings: DataSettings
    model: ModelSource
    seed: int

    def check(self) -> None:
        """Reads the tokenizer, the first row of each source and the suites.

        Raises:
            UserError: a source, a suite or the tokenizer is not what it must be.
        """
        specs, _ = self._specs, self._prompts.opening
        for spec in specs:
            next(
                opened(
                    spec,
                    mirror=self.settings.corpus.mirror,
                    limit=1,
                    on_bad=BadRows(skip=self.settings.corpus.on_bad == "skip"),
                ),
                None,
            )
        _ = self._suites

    @property
    def inputs(self) -> dict[str, Path]:
        """The files it reads on this machine."""
        files = [file for spec in self._specs for file in spec.files(self.settings.corpus.mirror)]
        tokenizer = {"tokenizer": self.model.folder / "tokenizer.json"} if self.model.folder else {}
        return {**tokenizer, **{f"traces {number}": file for number, file in enumerate(files)}}

    @property
    def step_settings(self) -> dict[str, object]:
        """What, beside the files, makes other rows."""
        # A file is told by its hash: it may be moved.
        sources = [
            (spec.weight, "file" if spec.files(None) else spec.name, self._commits.get(spec.name))
            for spec in self._specs
        ]
        return {
            **{key: getattr(self.settings.corpus, key) for key in ("limit", "on_bad", "keep_dropped")},
            **{
                "seed": self.seed,
                "prompt": self._prompts.sha256,
                **asdict(self.settings.rows),
                "filters": asdict(self.settings.filters),
            },
            **{"sources": sources, "suites": {suite.name: suite.sha256 for suite in self._suites}},
        }

    def build(self, folder: Path, advance: Advance, *, say: Callable[[Any], None]) -> dict[str, object]:
        """Makes the rows in the folder; returns the figures.

        Raises:
            UserError: a bad row, or fewer than two rows are left.
        """
        bad = BadRows(skip=self.settings.corpus.on_bad == "skip", say=say, keep=self.settings.corpus.keep_dropped)
        mix = Mix(
            self._specs,
            mirror=self.settings.corpus.mirror,
            limit=self.settings.corpus.limit,
            seed=self.seed,
            on_bad=bad,
        )
        suites = [suite.name for suite in self._suites]
        say(f"kept clear of: {', '.join(suites) or 'no suite'}" + self._left_out(suites))
        for name, commit in self._commits.items():
            say(f"{name}: commit {commit or 'unknown, as the cache has it'}")
        figures = format_rows(
            folder,
            traced=mix,
            total=self.settings.corpus.limit,
            maker=Maker(
                prompts=self._prompts,
                rows=self.settings.rows,
                filters=self.settings.filters,
                suites=self._suites,
                keep_dropped=self.settings.corpus.keep_dropped,
            ),
            seed=self.seed,
            advance=advance,
            num_proc=self.settings.corpus.num_proc,
            ray=self.settings.corpus.ray,
        )
        if mix.ended_by:
            say(f"the mix ended where {mix.ended_by} did: {mix.taken}")
        if self.settings.corpus.keep_dropped:
            with (folder / DROPPED).open("a", encoding="utf-8") as file:
                file.writelines(json.dumps({"reason": "bad row", "error": line}) + "\n" for line in bad.noted)
        read = {"sources": mix.taken, "ended_by": mix.ended_by, "commits": self._commits}
        figures |= {**read, "suites": suites, "bad_rows": {"rows": bad.count, "first": bad.noted[:SHOWN]}}
        write_atomically(folder / "README.md", card_text(figures, specs=self._specs, settings=self.step_settings))
        return figures

    def _left_out(self, suites: list[str]) -> str:
        missing = [name for name in SUITE_NAMES if name not in suites]
        return f"; not compared with {', '.join(missing)} (--mirror DIR or --against)" if missing else ""

    @cached_property
    def _specs(self) -> list[Spec]:
        return [parse_spec(word) for word in self.settings.corpus.source]

    @cached_property
    def _prompts(self) -> PromptFormat:
        return load_prompt_format(self.model)

    @cached_property
    def _commits(self) -> dict[str, str | None]:
        """The commit of each source that is read from the hub."""
        sources = {spec.name: spec.registered for spec in self._specs}
        return {name: hub_commit(src) for name, src in sources.items() if src and not self.settings.corpus.mirror}

    @cached_property
    def _suites(self) -> list[Suite]:
        names = self.settings.corpus.against
        if names is None:
            names = tuple(suites_at_hand(mirror=self.settings.corpus.mirror, hub=bool(self._commits)))
        return [load_suite(name, mirror=self.settings.corpus.mirror) for name in names]
