"""The build of a competition in which an adapter is handed in: a zip, and what it was made of."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import cast

from mathlete.adapters import AdapterFiles, ServedBase, find_served_faults
from mathlete.competitions import AdapterRules, Competition
from mathlete.errors import UserError
from mathlete.files import replace_when_done
from mathlete.gates import REBUILD, require_passed
from mathlete.models import ModelSource, find_model
from mathlete.runs import read_json, read_record, sha256_file, verify_if_made, write_json
from mathlete.submission.adapter.base import find_base_refusal, settle_base
from mathlete.submission.adapter.zips import find_size_refusal, write_adapter_zip
from mathlete.submission.build import BUILD_FILE, Hashes
from mathlete.submission.refusal import Check, Refusal, check, refusal_of

_KIND = "adapter"


@dataclass(frozen=True, kw_only=True)
class AdapterBuild:
    """An adapter in its zip, ready for a rehearsal."""

    zip: Path
    """What is handed in."""
    competition: Competition
    named: str
    """What the competition was called: its name, or the file of its rules."""
    adapter: Path
    """What it was made of: the adapter's folder, or another zip."""
    base: str = ""
    """Folder or hub id of the base here; empty: it is not here, and nothing can be drawn."""
    accept_refused: str = ""
    """Why it may be handed in though the gates of its training refused it; empty where they did not."""

    @property
    def rules(self) -> AdapterRules:
        """What the competition says of an adapter."""
        return rules_of(self.competition)

    @cached_property
    def base_source(self) -> ModelSource | None:
        """The base here; None where it is not."""
        return find_model(self.base) if self.base else None

    def hashes(self) -> Hashes:
        """Hash the zip: all that Kaggle gets.

        Raises:
            UserError: it is gone.
        """
        if not self.zip.is_file():
            raise UserError("a build's zip must be there", value=f"no {self.zip}", cure="run `submit build` again")
        return Hashes(notebook="", code="", weights=sha256_file(self.zip), wheels="", metadata="", image="")

    def check(self) -> list[Check]:
        """Check all of the zip that can be known without loading it."""
        return [
            check("gates of its training", self._gates()),
            check("the zip, as vLLM reads it", self._zip()),
            check("its base", self._base()),
            check("its size", self._size()),
        ]

    def save(self, folder: Path) -> None:
        """Write build.json, from which `load` reads it.

        Raises:
            UserError: there is a file of that name which another program wrote.
        """
        file = folder / BUILD_FILE
        if file.is_file() and not {"kaggle", "deliverable"} & read_json(file).keys():
            rule = f"{BUILD_FILE} must be one that `python -m submit build` wrote"
            raise UserError(rule, value=str(file), cure="move it, or choose another --run")
        said = {"named": self.named, "base": self.base, "accept_refused": self.accept_refused}
        paths = {"zip": str(self.zip), "adapter": str(self.adapter)}
        content = {"deliverable": _KIND, **paths, **{name: value for name, value in said.items() if value}}
        write_json(file, {**content, "competition": self.competition.to_json()})

    @staticmethod
    def load(folder: Path) -> "AdapterBuild":
        """Read the build in a folder that `holds_adapter_build`.

        Raises:
            UserError: build.json is broken, or the zip is gone.
        """
        build = read_record(folder / BUILD_FILE, _build_of)
        build.hashes()
        return build

    def _gates(self) -> Iterator[Refusal]:
        if self.adapter.is_dir():
            require_passed(self.adapter, reason=self.accept_refused, accept=REBUILD)
        yield from ()

    def _zip(self) -> Iterator[Refusal]:
        base = ServedBase.of(self.base_source) if self.base_source else None
        yield from map(refusal_of, find_served_faults(AdapterFiles.read(self.zip), rules=self.rules, base=base))

    def _base(self) -> Iterator[Refusal]:
        if refusal := find_base_refusal(AdapterFiles.read(self.zip).config, self.rules):
            yield refusal

    def _size(self) -> Iterator[Refusal]:
        if refusal := find_size_refusal(self.zip, self.rules):
            yield refusal


def _build_of(value: dict[str, object]) -> AdapterBuild:
    return AdapterBuild(
        zip=Path(str(value["zip"])),
        adapter=Path(str(value["adapter"])),
        competition=Competition.from_json(cast("dict[str, object]", value["competition"])),
        named=str(value["named"]),
        base=str(value.get("base", "")),
        accept_refused=str(value.get("accept_refused", "")),
    )


def holds_adapter_build(folder: Path) -> bool:
    """Return whether the build in a folder is of an adapter; False where there is no build."""
    file = folder / BUILD_FILE
    return file.is_file() and read_json(file).get("deliverable") == _KIND


def rules_of(competition: Competition) -> AdapterRules:
    """Return what a competition says of an adapter.

    Raises:
        UserError: none is handed in there.
    """
    if competition.adapter is None:
        rule, cure = f"{competition.name} must be a competition in which an adapter is handed in", "name another one"
        raise UserError(rule, value=competition.deliverable, cure=cure)
    return competition.adapter


def build_adapter(
    adapter: Path,
    *,
    competition: Competition,
    named: str,
    folder: Path,
    base: str = "",
    dtype: str | None = None,
    accept_refused: str = "",
    say: Callable[[str], None] = lambda text: None,
) -> AdapterBuild:
    """Make the zip of an adapter, checked as far as it can be without loading it.

    Args:
        adapter: its folder, or a zip of it.
        competition: whose rules it must keep.
        named: what that was called, a name or a file.
        folder: where the zip goes, under the name that the rules give it.
        base: the base here, a folder or hub id, or the name that the base has in the rules; empty: as the adapter says.
        dtype: type that its weights are cast to, by torch's name; None: they stay as they are.
        accept_refused: why an adapter that its gates refused is used.
        say: called with what was taken for the base.

    Raises:
        Refused: the gates of its training did not pass, and there is no reason to accept that.
        UserError: it would be refused, or served wrong; nothing is written.
    """
    rules, files = rules_of(competition), AdapterFiles.read(adapter)
    outcome = ""
    if adapter.is_dir():
        verify_if_made(adapter)
        outcome = require_passed(adapter, reason=accept_refused).reason
    name, source = settle_base(files.config, rules=rules, base=base)
    say(f"base {name}: {source.location if source else 'its files are not here, so no layer is looked up in it'}")
    served = ServedBase.of(source) if source else None
    for fault in find_served_faults(files, rules=rules, base=served, dtype=dtype):
        raise fault
    made = AdapterBuild(
        zip=folder / rules.file,
        competition=competition,
        named=named,
        adapter=adapter,
        base=source.location if source else "",
        accept_refused=outcome,
    )
    with replace_when_done(made.zip) as temporary:
        write_adapter_zip(temporary, files, base=name, dtype=dtype)
        for one in replace(made, zip=temporary).check():
            for refusal in one.refusals:
                raise refusal.error()
    return made
