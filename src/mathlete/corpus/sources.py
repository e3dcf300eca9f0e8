"""Hub data sets, or a mirror of them on disk: the registry, their rows, and the Problems in them."""

import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from mathlete.corpus.tables import FORMATS, cell_text, read_rows
from mathlete.errors import OnBad, UserError, nearest, stop
from mathlete.problems import Problem
from mathlete.shipped import data_folder

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Source:
    """One entry of `data/sources.toml`."""

    name: str
    hub: str
    split: str
    statement: str
    answer: str
    gold: str
    licence: str
    config: str = ""
    configs: Sequence[str] = ()
    revision: str | None = None
    id: str = ""
    subset: str = ""
    trace: str = ""
    trace_kind: str = ""
    ending: str = ""
    only: Mapping[str, str] = field(default_factory=dict)
    no_gold: Sequence[str] = ()
    streaming: bool = False

    @property
    def parts(self) -> Sequence[str]:
        """The configs it is read from, in turn."""
        return (self.config,) if self.config or not self.configs else self.configs

    def mirrored(self, mirror: Path, config: str | None = None) -> Path:
        """The file a mirror holds this split in: `<owner>/<name>/[<config>/]<split>.jsonl`."""
        part = self.parts[0] if config is None else config
        return mirror.joinpath(*self.hub.split("/"), part, f"{self.split}.jsonl")

    def files(self, mirror: Path, config: str | None = None) -> list[Path]:
        """The files the split is in: that one, else parquet as the hub has it and `hf download` leaves it, else none.

        The hub's layouts: `<config>/` or `data/<split>-00000-of-00002.parquet`, or the set's only file of rows.
        """
        file = self.mirrored(mirror, config)
        if file.is_file():
            return [file]
        folder = mirror.joinpath(*self.hub.split("/"))
        places = (
            (file.parent, folder / "data") if file.parent == folder or file.parent.name == "default" else (file.parent,)
        )
        for place in places:
            if found := sorted(place.glob(f"{self.split}-*.parquet")):
                return found
        rows = [path for path in sorted(folder.glob("*")) if path.suffix in FORMATS]
        return rows if len(rows) == 1 and file.parent == folder else []

    def fits(self, row: Row) -> bool:
        """Whether the row has what the set's `only` asks for."""
        return all(fnmatchcase(str(row.get(column)), wanted) for column, wanted in self.only.items())


@cache
def sources() -> dict[str, Source]:
    """All sources by name."""
    table: dict[str, dict[str, Any]] = tomllib.loads((data_folder() / "sources.toml").read_text(encoding="utf-8"))
    return {name: Source(name=name, **entry) for name, entry in table.items()}


def source(name: str) -> Source:
    """The source of that name, or `NAME:CONFIG`.

    Raises:
        UserError: an unknown name or config, with the nearest known ones.
    """
    if name in sources():
        return sources()[name]
    base, _, config = name.partition(":")
    if not config or base not in sources():
        raise UserError("the source must be a known one", value=repr(name), cure=nearest(name, [*sources()]))
    known = sources()[base].configs
    if config not in known:
        splits = tuple(other.partition(":")[2] for other in sources() if other.startswith(f"{base}:"))
        cure = nearest(config, [*known, *splits]) if known or splits else f"use {base}, it has no configs"
        raise UserError(f"the config of {base} must be a known one", value=repr(config), cure=cure)
    return replace(sources()[base], name=name, config=config)


def rows_of(src: Source, *, mirror: Path | None, on_bad: OnBad = stop) -> Iterator[tuple[str, Row]]:
    """Yields (where, row) in the hub's own columns, from the mirror or from the hub.

    Raises:
        UserError: the mirror lacks the file or the hub can't be reached; with `stop`, a row that is not an object.
    """
    for part in src.parts:
        if mirror is None:
            yield from _hub_rows(src, part)
            continue
        files = src.files(mirror, part)
        if not files:
            value = f"no {src.mirrored(mirror, part)}, nor parquet files as the hub has them"
            cure = f"put the split there as JSON lines, or run `hf download --repo-type dataset {src.hub}` into it"
            raise UserError(f"the mirror must hold {src.hub}", value=value, cure=cure)
        for file in files:
            yield from read_rows(file, on_bad=on_bad)


def _hub_rows(src: Source, part: str) -> Iterable[tuple[str, Row]]:
    import datasets

    try:
        table = datasets.load_dataset(
            src.hub, part or None, split=src.split, revision=hub_commit(src), streaming=src.streaming
        )
    except (OSError, ValueError) as error:  # offline is a ConnectionError, an OSError; unknown configs are ValueErrors
        raise UserError(
            f"{src.hub} can't be had from the hub ({type(error).__name__})",
            cure=f"go online, or give --mirror DIR with {src.mirrored(Path('DIR'), part)}",
        ) from error
    for number, row in enumerate(table):
        yield f"{src.hub}[{number}]", row


@cache
def _newest_commit(hub: str) -> str | None:
    from huggingface_hub import HfApi, utils

    web: Any = utils
    try:
        return HfApi().dataset_info(hub).sha
    except (OSError, web.httpx.HTTPError):  # offline by setting is an OSError, as is an answer that says no
        return None  # `datasets` may still have it in its cache, and says what is wrong where it has not


def hub_commit(src: Source) -> str | None:
    """The commit the set is read at: its pinned one, else the newest; None where the hub can't be asked."""
    return src.revision or _newest_commit(src.hub)


def gold_of(src: Source, row: Row, *, where: str) -> str:
    """The gold answer as text, "" where the set says that it has none.

    A float that is whole loses its point (AMC stores 142.0).

    Raises:
        UserError: no answer in the row, or one that is not text or a number.
    """
    value = row.get(src.answer)
    text = "" if value is None or isinstance(value, bool | list | dict) else cell_text(value)
    if src.gold == "after ####":
        text = text.rpartition("####")[2].strip().replace(",", "") if "####" in text else ""
    if not text:
        raise UserError(
            f"{where}: a row needs an answer in {src.answer!r}", value=repr(value)[:80], cure="mend the row"
        )
    if src.gold == "extracted":
        from mathlete.answers import extract

        return extract(text).string or ""
    return "" if text in src.no_gold else text


def problem_of(src: Source, row: Row, *, number: int, where: str) -> Problem:
    """The Problem in a row; ids are `<set>-<the row's own id, else its number>`, so that sets can be joined."""
    statement = row.get(src.statement)
    if not isinstance(statement, str) or not statement.strip():
        raise UserError(
            f"{where}: a row needs a statement in {src.statement!r}", value=sorted(row), cure="mend the row"
        )
    own = row.get(src.id) if src.id else None
    return Problem(
        id=f"{src.hub.rpartition('/')[2]}-{own if own not in (None, '') else number}",
        statement=statement.strip(),
        gold=gold_of(src, row, where=where),
        source=src.hub,
        subset=str(row.get(src.subset) or "") if src.subset else "",
        licence=src.licence,
    )


def load_problems(name: str, *, mirror: Path | None = None) -> list[Problem]:
    """All problems of a source, in its order."""
    src = source(name)
    found = enumerate(rows_of(src, mirror=mirror))
    return [problem_of(src, row, number=number, where=where) for number, (where, row) in found]
