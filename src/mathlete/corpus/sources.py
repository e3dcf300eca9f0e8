"""Hub data sets, or a mirror of them on disk: the registry, their rows, and the problems in the rows."""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from mathlete.corpus.cells import TableRow, find_gold, format_gold
from mathlete.corpus.tables import FORMATS, read_rows
from mathlete.errors import OnBad, UserError, nearest, stop
from mathlete.mistakes import find_hub_cure, name_cause
from mathlete.problems import Problem
from mathlete.settings import NAMELESS, nest
from mathlete.shipped import data_folder
from mathlete.text import quote


@dataclass(frozen=True, kw_only=True)
class SourcePart:
    """What is read of a set on the hub, and at which commit."""

    split: str
    file: str = ""
    config: str = ""
    configs: Sequence[str] = ()
    revision: str | None = None
    streaming: bool = False


@dataclass(frozen=True, kw_only=True)
class GoldRule:
    """Where a row has its gold, and how that is meant."""

    answer: str
    gold: str
    no_gold: Sequence[str] = ()
    answers: str = ""


@dataclass(frozen=True, kw_only=True)
class Source:
    """One entry of `data/sources.toml`, whose head explains the keys; those of its two groups stand beside its own."""

    name: str
    hub: str
    part: Annotated[SourcePart, NAMELESS]
    statement: str
    golds: Annotated[GoldRule, NAMELESS]
    licence: str
    id: str = ""
    subset: str = ""
    trace: str = ""
    trace_kind: str = ""
    ending: str = ""
    only: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_entry(cls, **entry: Any) -> "Source":
        """Return the source of an entry's keys."""
        nested = nest(cls, entry)
        return cls(**{**nested, "part": SourcePart(**nested["part"]), "golds": GoldRule(**nested["golds"])})

    @property
    def parts(self) -> Sequence[str]:
        """The configs to read, in order."""
        part = self.part
        return (part.config,) if part.config or not part.configs else part.configs

    def mirror_folder(self, mirror: Path) -> Path:
        """Return the set's folder in a mirror: `<owner>/<name>/`, or a competition's.

        Kaggle mounts a competition, or a data set, in a folder of its kind or, before 2026, without that.
        """
        kind = "competitions" if self.part.file else "datasets"
        places = [mirror.joinpath(*way, *self.hub.split("/")) for way in ((kind,), ())]
        # The folder of a kind may be there, and empty.
        return next((place for place in places if any(place.glob(self.part.file or "*"))), places[-1])

    def mirror_path(self, mirror: Path, config: str | None = None) -> Path:
        """Return the path of this split in a mirror: `[<config>/]<split>.jsonl` in its folder, or its one file."""
        if self.part.file:
            return self.mirror_folder(mirror) / self.part.file
        part = self.parts[0] if config is None else config
        return self.mirror_folder(mirror).joinpath(part, f"{self.part.split}.jsonl")

    def files(self, mirror: Path, config: str | None = None) -> list[Path]:
        """Return the files of the split: the JSONL file, else parquet as `hf download` leaves it, else none.

        The hub's layouts are `<config>/` or `data/<split>-00000-of-00002.parquet`, or the set's only table.
        """
        file = self.mirror_path(mirror, config)
        if file.is_file() or self.part.file:
            return [file] if file.is_file() else []
        folder = self.mirror_folder(mirror)
        places = (
            (file.parent, folder / "data") if file.parent == folder or file.parent.name == "default" else (file.parent,)
        )
        for place in places:
            if parquet := sorted(place.glob(f"{self.part.split}-*.parquet")):
                return parquet
        tables = [path for path in sorted(folder.glob("*")) if path.suffix in FORMATS]
        return tables if len(tables) == 1 and file.parent == folder else []

    def fits(self, row: TableRow) -> bool:
        """Return whether the row matches the set's `only` patterns."""
        return all(fnmatchcase(str(row.get(column)), wanted) for column, wanted in self.only.items())


_HUB_SET = re.compile(r"(?P<id>[\w-][\w.-]*/[\w-][\w.-]*)(?::(?P<config>[\w.-]+))?(?:@(?P<split>[\w.-]+))?")
"""A set of the hub that has no entry here: OWNER/NAME, then :CONFIG and @SPLIT."""


def names_hub_set(name: str) -> bool:
    """Return whether a name is the hub id of a set without an entry here, and nothing on this machine.

    >>> names_hub_set("owner/name:part@test"), names_hub_set("gsm8k")
    (True, False)
    """
    return _HUB_SET.fullmatch(name) is not None and not Path(name).exists()


@cache
def load_sources() -> dict[str, Source]:
    """Return all sources by name."""
    table: dict[str, dict[str, Any]] = tomllib.loads((data_folder() / "sources.toml").read_text(encoding="utf-8"))
    return {name: Source.from_entry(name=name, **entry) for name, entry in table.items()}


def find_source(name: str) -> Source:
    """Return the source of that name, or `NAME:CONFIG`.

    Raises:
        UserError: an unknown name or config, with the nearest known ones.
    """
    if name in load_sources():
        return load_sources()[name]
    if hub := _HUB_SET.fullmatch(name):
        # What it is made of is seen in its rows, as of a file.
        return Source.from_entry(
            name=name,
            hub=hub["id"],
            config=hub["config"] or "",
            split=hub["split"] or "train",
            statement="",
            answer="",
            gold="",
            licence="as its page on the hub says",
            streaming=True,
        )
    base, _, config = name.partition(":")
    if not config or base not in load_sources():
        raise UserError("the source must be a known one", value=repr(name), cure=nearest(name, [*load_sources()]))
    source = load_sources()[base]
    known = source.part.configs
    if config not in known:
        splits = tuple(other.partition(":")[2] for other in load_sources() if other.startswith(f"{base}:"))
        cure = nearest(config, [*known, *splits]) if known or splits else f"use {base}, it has no configs"
        raise UserError(f"the config of {base} must be a known one", value=repr(config), cure=cure)
    return replace(source, name=name, part=replace(source.part, config=config))


def read_hub_rows(entry: Source, *, mirror: Path | None, on_bad: OnBad = stop) -> Iterator[tuple[str, TableRow]]:
    """Yield (where, row) in the hub's own columns, from the mirror or from the hub.

    Raises:
        UserError: the mirror lacks the file or the hub cannot be reached; with `stop`, a row that is not an object.
    """
    for part in entry.parts:
        if mirror is None and not entry.part.file:
            yield from _read_from_hub(entry, part)
            continue
        files = [] if mirror is None else entry.files(mirror, part)
        if not files:
            raise _explain_missing(entry, mirror, part)
        for file in files:
            yield from read_rows(file, on_bad=on_bad)


def _explain_missing(entry: Source, mirror: Path | None, part: str) -> UserError:
    path = entry.mirror_path(mirror or Path("DIR"), part)
    if entry.part.file:
        fetch = f"kaggle competitions download {entry.hub} -f {entry.part.file} -p {path.parent}"
        return UserError(
            f"{entry.part.file} of the competition {entry.hub} is read from a folder",
            value=f"no {path}" if mirror else "no --mirror",
            cure=f"accept the competition's rules, run `{fetch}`, and give --mirror {mirror or 'DIR'}",
        )
    value = f"no {path}, nor parquet files as the hub has them"
    cure = f"put the split there as JSON lines, or run `hf download --repo-type dataset {entry.hub}` into it"
    return UserError(f"the mirror must hold {entry.hub}", value=value, cure=cure)


def _read_from_hub(entry: Source, part: str) -> Iterable[tuple[str, TableRow]]:
    import datasets

    try:
        table = datasets.load_dataset(
            entry.hub, part or None, split=entry.part.split, revision=find_commit(entry), streaming=entry.part.streaming
        )
        for number, row in enumerate(table):
            yield f"{entry.hub}[{number}]", row
    # Offline is a ConnectionError, an OSError; unknown configs, and text that is not UTF-8, are ValueErrors.
    except (OSError, ValueError) as error:
        elsewhere = "" if entry.statement else "; on this machine there is no file or folder of that name"
        raise UserError(
            f"{entry.hub} cannot be read from the hub ({name_cause(error)})",
            value=None if entry.statement else quote(str(error)),
            cure=f"{find_hub_cure(error)}go online, or give --mirror DIR with "
            f"{entry.mirror_path(Path('DIR'), part)}{elsewhere}",
        ) from error


@cache
def _find_newest_commit(hub: str) -> str | None:
    from huggingface_hub import HfApi, utils

    web: Any = utils
    try:
        return HfApi().dataset_info(hub).sha
    except (OSError, web.httpx.HTTPError):  # offline mode and refusals are OSErrors
        return None  # `datasets` may still have it in its cache, and names the problem where it has not


@cache
def _find_cached_commits(hub: str) -> list[str]:
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / f"datasets--{hub.replace('/', '--')}" / "snapshots"
    return sorted(path.name for path in folder.glob("*"))


def find_commit(entry: Source) -> str | None:
    """Return the commit the set is read at; None if the hub is out of reach.

    That is the pinned one, else the only one that this machine has, so that the second run reads what the first one
    read, else the newest.
    """
    cached = _find_cached_commits(entry.hub)
    return entry.part.revision or (cached[0] if len(cached) == 1 else _find_newest_commit(entry.hub))


def read_gold(entry: Source, row: TableRow, *, where: str) -> str:
    """Return the gold answer as text, or "" where the set marks it as missing.

    A whole float loses its point (AMC stores 142.0).

    Raises:
        UserError: no answer in the row, or one that is neither text nor a number.
    """
    _, value = find_gold(row, (entry.golds.answer,))
    bare = value is None or isinstance(value, bool | list | dict)
    text = "" if bare else format_gold(value, entry.golds.answer, where=where)
    if entry.golds.gold == "after ####":
        text = text.rpartition("####")[2].strip().replace(",", "") if "####" in text else ""
    if not text:
        raise UserError(
            f"{where}: a row needs an answer in {entry.golds.answer!r}", value=repr(value)[:80], cure="mend the row"
        )
    if entry.golds.gold == "extracted":
        from mathlete.answers import extract

        return extract(text).string or ""
    return "" if text in entry.golds.no_gold else text


def read_problem(entry: Source, row: TableRow, *, number: int, where: str) -> Problem:
    """Return the problem in a row. Its id is `<set>-<the row's id, else its number>`, so that sets can be joined."""
    statement = row.get(entry.statement)
    if not isinstance(statement, str) or not statement.strip():
        raise UserError(
            f"{where}: a row needs a statement in {entry.statement!r}", value=sorted(row), cure="mend the row"
        )
    own = row.get(entry.id) if entry.id else None
    return Problem(
        id=f"{entry.hub.rpartition('/')[2]}-{own if own not in (None, '') else number}",
        statement=statement.strip(),
        gold=read_gold(entry, row, where=where),
        source=entry.hub,
        subset=_read_subset(row.get(entry.subset)) if entry.subset else "",
        licence=entry.licence,
        answers=entry.golds.answers,
    )


def _read_subset(value: object) -> str:
    """Return a cell that says what kind of problem it is: a word, or several in a list."""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value or "")


def load_hub_problems(
    name: str, *, mirror: Path | None = None, first: int = 0, limit: int | None = None, on_behind: OnBad = stop
) -> list[Problem]:
    """Load all problems of a source, in its order.

    Args:
        name: the source's.
        mirror: folder that stands in for the hub.
        first: problems of the suite that stand before it, for messages.
        limit: problems that are asked for, of those here; None: all.
        on_behind: called with the error of a row behind the limit that is no problem, which is left out.

    Raises:
        UserError: a row that is asked for is no problem.
    """
    entry = find_source(name)
    problems = []
    for number, (where, row) in enumerate(read_hub_rows(entry, mirror=mirror)):
        try:
            problems.append(read_problem(entry, row, number=number, where=where))
        except UserError as error:
            if limit is not None and number >= limit:
                on_behind(error)
                continue
            # The hub's row is not the user's.
            before = f"; `python -m eval` also takes the rows before it alone, --limit {first + number}"
            cure = f"mend the row in a folder of your own, --mirror DIR{before if first + number else ''}"
            raise UserError(error.rule, value=error.value, cure=cure) from error
    return problems
