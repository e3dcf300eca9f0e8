"""The files of a step's folder: which are the step's own, what may be deleted of them, and what is a stranger's.

>>> from tempfile import mkdtemp
>>> folder = Path(mkdtemp())
>>> for name in ("samples.jsonl", "report.html", ".lock", "notes.txt"):
...     _ = (folder / name).write_text("")
>>> list_strangers(folder, None, ("samples.jsonl",))
['notes.txt']
"""

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path

from mathlete.errors import UserError
from mathlete.files import read_json, read_pointer, require_ordinary, require_place, write_json
from mathlete.hashes import sha256_file
from mathlete.locks import LOCK
from mathlete.mistakes import require_utf8

MANIFEST = "manifest.json"
STARTED = "started.json"
REPORT, PLOTS, INSPECT, SCORER = "report.html", "plots", "inspect", "scorer.json"
_VIEWS = (REPORT, PLOTS, INSPECT, SCORER)
"""Made from a finished step, and rewritten at any time: not among the outputs that its manifest lists."""
_RUN_FILES = ((MANIFEST,), (STARTED,), ("problems.jsonl", "samples.jsonl"))
"""Files by which a folder is told for a run's; the last two are all that another program's run needs."""
CHART_MAKER = "mathlete, charts of a report"
"""What a PNG says that it was made by."""


def files_below(folder: Path) -> Iterator[Path]:
    """Yield a step's files in order, without manifest, start mark, reports, checkpoints and temporary files.

    Raises:
        UserError: a name that a manifest can't hold.
    """
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        skipped = path.name in (MANIFEST, STARTED) or parts[0] in _VIEWS or parts[0].startswith((".", "checkpoint"))
        if path.is_file() and not skipped:
            require_utf8(str(path))
            yield path


def list_weights(folder: Path) -> list[Path]:
    """List a model's files of weights, without the second copy in Mistral's own layout that some folders hold."""
    files = sorted(path for path in folder.glob("*.safetensors") if path.is_file())
    return [path for path in files if not path.name.startswith("consolidated")] or files


def measure_file(file: Path) -> int:
    """Return the bytes of a file, or of that which git-lfs' pointer in its place stands for."""
    pointed = read_pointer(file)
    return file.stat().st_size if pointed is None else pointed


def sha256_tree(folder: Path) -> dict[str, str]:
    """Return {relative path: SHA-256} of a step's files; for a single file, its name and hash."""
    if folder.is_file():
        return {folder.name: sha256_file(folder)}
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in files_below(folder)}


def is_bare(folder: Path) -> bool:
    """Return whether nothing was made in the folder yet."""
    return {path.name for path in folder.iterdir()} <= {STARTED, LOCK}


def explain_stray(folder: Path, names: list[str]) -> UserError:
    """Return the error for files that the step did not write."""
    return UserError(
        f"{folder / MANIFEST} must match the folder's files",
        value=f"{join_first(names)}, which the run did not write",
        cure=f"move {'it' if len(names) == 1 else 'them'} out of the folder",
    )


def join_first(words: list[str], comma: str = ", ") -> str:
    """Return the first five words, and how many more there are."""
    return comma.join(words[:5]) + (f"{comma}{len(words) - 5} more" if len(words) > 5 else "")


def require_result_file(out: Path, *, inputs: Iterable[Path] = (), begins: bytes = b"") -> None:
    """Check that a file which a person has named for a result may be written, before the work for it is done.

    Args:
        out: the file; where it is there already, it is replaced.
        inputs: what the result is made of.
        begins: how such a result begins, whatever the letters' case: a file of another kind is not replaced.

    Raises:
        UserError: it is a folder, no ordinary file, an input or of another kind, or lies among the files of a run.
    """
    cure = "name another file"
    if not out.name or out.is_dir():
        raise UserError("a result must be a file", value=f"{out}, a folder", cure="name a file in it")
    require_ordinary(out)
    require_place(out)
    if out.is_file():
        # By another name too: a link, or a path in other words.
        if any(one.exists() and out.samefile(one) for one in inputs):
            raise UserError("a result must not be written over what it is made of", value=str(out), cure=cure)
        with out.open("rb") as file:
            if not file.read(len(begins)).lower().startswith(begins):
                raise UserError("a result may only replace a file of its kind", value=str(out), cure=cure)
    # A new file there would be a stranger in the run's folder, and a replaced one a loss.
    for folder in out.parents:
        if any(all((folder / name).is_file() for name in names) for names in _RUN_FILES):
            name = out.relative_to(folder)
            if name.parts[0] not in _VIEWS and not name.parts[0].startswith("."):
                raise UserError(
                    "a result must not be written among the files of a run",
                    value=f"{out}, in the run {folder}",
                    cure="name a file outside of it",
                )


def require_apart(path: Path) -> None:
    """Check that what a run writes does not lie among the files of a finished one, which would not know it.

    Raises:
        UserError: it does.
    """
    for folder in path.resolve().parents:
        first = path.resolve().relative_to(folder).parts[0]
        if not (folder / MANIFEST).is_file() or first in _VIEWS or first.startswith("."):
            continue
        try:
            record = read_json(folder / MANIFEST)
        except UserError:  # another program's
            continue
        if {"key", "outputs"} <= record.keys():
            rule = "a run must not lie among the files of another, which would count as changed"
            raise UserError(rule, value=f"{path}, in {folder}", cure="choose another --run")


def list_strangers(folder: Path, listed: object, writes: tuple[str, ...]) -> list[str]:
    """Return the files that the step did not write, as far as the manifest's list or the step's names tell."""
    names = [path.relative_to(folder) for path in files_below(folder)]
    if isinstance(listed, dict):
        return [name.as_posix() for name in names if name.as_posix() not in listed]
    return [name.as_posix() for name in names if not _is_written(name.parts[0], writes)]


def _is_written(name: str, writes: tuple[str, ...]) -> bool:
    # A hidden file is the step's only by a hidden name.
    return any(fnmatch(name, pattern) and name[:1] + pattern[:1] != ".*" for pattern in writes)


def delete_outputs(folder: Path, record: Mapping[str, object], writes: tuple[str, ...]) -> None:
    """Delete what the step made, its report too, and nothing else.

    Raises:
        UserError: there is something else in the folder, which is left as it is.
    """
    if strange := list_strangers(folder, record.get("outputs"), writes):
        raise explain_stray(folder, strange)
    if not (folder / STARTED).is_file():
        write_json(folder / STARTED, {})  # should this be killed, the folder is still known as a step's
    (folder / MANIFEST).unlink(missing_ok=True)
    for path in (*files_below(folder), *_list_views(folder, record)):
        path.unlink(missing_ok=True)
    for path in [*folder.iterdir()]:
        kept_apart = path.name.startswith(".") or re.fullmatch(r"checkpoint-\d+", path.name)
        if kept_apart and _is_written(path.name, writes) and path.is_dir():
            # Behind a link is what somebody has moved to another disk.
            path.unlink() if path.is_symlink() else shutil.rmtree(path)
    for path in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        with suppress(OSError):  # not empty
            path.rmdir()


def _list_views(folder: Path, record: Mapping[str, object]) -> list[Path]:
    """Return the step's report, charts, log for Inspect and scorer's verdicts, as far as they are its own."""
    settings = record.get("settings")
    suite = settings.get("suite") if isinstance(settings, dict) else None
    charts = filter(is_chart, (folder / PLOTS).glob("*.png"))
    views = (folder / REPORT, folder / INSPECT / f"{suite}.eval", folder / SCORER, *charts)
    return [view for view in views if view.is_file()]


def is_chart(file: Path) -> bool:
    """Return whether a PNG was drawn for a report, and not by somebody else."""
    with file.open("rb") as png:
        return CHART_MAKER.encode() in png.read(1024)


def own_all_files(folder: Path) -> None:
    """Give each file that has other names elsewhere (hard links, as `cp -al` makes them) a copy of its own here.

    What a step adds to its files would be added to those of another run as well.
    """
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_nlink > 1:
            temporary = path.with_name(f".{path.name[:100]}.{os.getpid()}")
            try:
                shutil.copy2(path, temporary)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
