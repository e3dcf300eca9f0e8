"""A copy of a run on another disk: kept up to date while the run goes on, and taken back by a later session.

What says that something is whole is copied last: a step's manifest, a checkpoint's mark, the copy's own list. So a copy
that was cut off is an earlier state of the run, or says itself what it lacks.

>>> from tempfile import mkdtemp
>>> place = Path(mkdtemp())
>>> (place / "run" / "data").mkdir(parents=True)
>>> _ = (place / "run" / "data" / "manifest.json").write_text("{}")
>>> copy = RunCopy(place / "kept")
>>> copy.update(place / "run")
1
>>> choose_copy([place]).describe()
'finished: data; no checkpoint'
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mathlete.errors import UserError
from mathlete.files import read_record, replace_when_done, write_json
from mathlete.folders import MANIFEST, STARTED
from mathlete.locks import LOCK

_LIST = "kept.json"
_MARKS = (MANIFEST, "whole")
"""Files that say of the others in their folder that they are whole."""
_Stamp = tuple[int, int]
"""Bytes of a file, and when it was changed, in nanoseconds."""


@dataclass(frozen=True)
class RunCopy:
    """The folder of a copy."""

    folder: Path

    def require_place(self, run: Path, *, begun: bool) -> None:
        """Check that a copy of the run may be written here.

        Raises:
            UserError: one lies in the other, or there is something else: other files, or a copy that nobody took.
        """
        own, other = self.folder.resolve(), run.resolve()
        if own.is_relative_to(other) or other.is_relative_to(own):
            rule = "--session.keep must be a folder apart from the run"
            raise UserError(rule, value=f"{self.folder} for {run}", cure="choose another --session.keep or --run")
        if not self.folder.is_dir() or not any(self.folder.iterdir()):
            return
        if not self.has_list:
            rule = "--session.keep must be empty, or hold the copy of an earlier session"
            raise UserError(rule, value=f"{self.folder}, which holds other files", cure="choose another folder")
        if not begun:
            rule = "a copy that an earlier session kept is not replaced by a run that begins"
            cure = f"go on from it with --session.resume {self.folder}, or choose another --session.keep"
            raise UserError(rule, value=str(self.folder), cure=cure)

    @property
    def has_list(self) -> bool:
        """Whether it says which files it has; a run's folder that a person has copied does not."""
        return (self.folder / _LIST).is_file()

    def update(self, run: Path, *, leave_out: Iterable[str] = ()) -> int:
        """Copy what changed in the run since the last time, and delete what is gone from there; return how many files.

        Raises:
            OSError: the disk of the copy is full or gone.
        """
        if not run.is_dir():
            return 0
        before = self._read()
        # Marks are looked for first: all that they speak of is then there before the other files are.
        marks = dict(_list_files(run, leave_out, marks=True))
        files = dict(_list_files(run, leave_out, marks=False))
        gone = [name for name in before if name not in marks and name not in files]
        _delete(self.folder, (name for name in gone if Path(name).name in _MARKS))
        kept, lost = _copy_files(run, self.folder, files, before=before)
        sound = {name: stamp for name, stamp in marks.items() if not _speaks_of(name, lost)}
        _delete(self.folder, (name for name in marks if name not in sound))
        marked, _ = _copy_files(run, self.folder, sound, before=before)
        _delete(self.folder, (name for name in gone if Path(name).name not in _MARKS))
        if (now := kept | marked) != before:
            write_json(self.folder / _LIST, {"run": run.name, "files": now})
        return sum(before.get(name) != stamp for name, stamp in now.items())

    def take_into(self, run: Path) -> None:
        """Make the run's folder of the copy: all of it or none. Marks of what did not arrive whole are left out."""
        coming = run.with_name(f".{run.name}.coming")
        shutil.rmtree(coming, ignore_errors=True)
        listed = self._read()
        for name in self._sound_files:
            source, target = self.folder / name, coming / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_file():
                shutil.copyfile(source, target)
            else:
                target.touch()  # data sets have no empty files
            if name in listed:
                os.utime(target, ns=(listed[name][1],) * 2)
        if run.is_dir():  # empty, or with a lock that nobody holds
            shutil.rmtree(run)
        coming.rename(run)

    def describe(self) -> str:
        """Say what of the run is done."""
        steps = ", ".join(sorted({name.split("/")[0] for name in self._sound_files if _is_step(name)}))
        checkpoint = f"checkpoint of step {self.progress[1]}" if self.progress[1] else "no checkpoint"
        return f"finished: {steps or 'no step'}; {checkpoint}"

    @cached_property
    def progress(self) -> tuple[int, int]:
        """How many steps are finished, and the step of the newest whole checkpoint; 0 where there is none."""
        checkpoints = [Path(name).parent.name for name in self._sound_files if name.endswith("/whole")]
        steps = [int(number) for name in checkpoints if (number := name.rpartition("-")[2]).isdigit()]
        return sum(map(_is_step, self._sound_files)), max(steps, default=0)

    @cached_property
    def _sound_files(self) -> list[str]:
        """Its files, without marks of what is not as it was listed."""
        there = {path.relative_to(self.folder).as_posix(): path for path in self.folder.rglob("*") if path.is_file()}
        listed = self._read()
        lost = {
            name for name, (size, _) in listed.items() if size != (there[name].stat().st_size if name in there else 0)
        }
        names = {*there, *listed} - {_LIST, LOCK} - lost
        return sorted(name for name in names if not (Path(name).name in _MARKS and _speaks_of(name, lost)))

    def _read(self) -> dict[str, _Stamp]:
        return read_record(self.folder / _LIST, _list_of) if self.has_list else {}


def choose_copy(folders: Iterable[Path]) -> RunCopy | None:
    """Return the copy that is the furthest of those in or below the folders; None where there is none."""
    copies = [copy for folder in folders for copy in _find_copies(folder)]
    return max(copies, key=lambda copy: copy.progress, default=None)


def _find_copies(folder: Path) -> list[RunCopy]:
    listed = [RunCopy(file.parent) for file in sorted(folder.rglob(_LIST))]
    by_hand = any((folder / "data" / name).is_file() for name in (MANIFEST, STARTED))
    return listed or ([RunCopy(folder)] if by_hand else [])


def _list_of(value: Mapping[str, Mapping[str, list[int]]]) -> dict[str, _Stamp]:
    files = {name: (int(size), int(changed)) for name, (size, changed) in value["files"].items()}
    if any(Path(name).is_absolute() or ".." in Path(name).parts for name in files):
        raise ValueError("a file outside of the copy")
    return files


def _list_files(run: Path, leave_out: Iterable[str], *, marks: bool) -> Iterator[tuple[str, _Stamp]]:
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run)
        if (name.name in _MARKS) != marks or name.name == LOCK or name.parts[0] in leave_out:
            continue
        try:
            state = path.stat()
        except FileNotFoundError:  # a temporary file, or a checkpoint that is deleted as a newer one is whole
            continue
        if path.is_file():
            yield name.as_posix(), (state.st_size, state.st_mtime_ns)


def _copy_files(
    run: Path, copy: Path, files: Mapping[str, _Stamp], *, before: Mapping[str, _Stamp]
) -> tuple[dict[str, _Stamp], set[str]]:
    """Copy the files that changed; return those that are in the copy now, and the names of those that were gone."""
    kept, lost = dict[str, _Stamp](), set[str]()
    for name, stamp in files.items():
        target = copy / name
        if before.get(name) != stamp or not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with replace_when_done(target) as temporary:
                    shutil.copyfile(run / name, temporary)
            except FileNotFoundError:
                lost.add(name)
                continue
        kept[name] = stamp
    return kept, lost


def _delete(copy: Path, names: Iterable[str]) -> None:
    for name in names:
        (copy / name).unlink(missing_ok=True)
        for folder in (copy / name).parents:
            if folder == copy or not folder.is_dir() or any(folder.iterdir()):
                break
            folder.rmdir()


def _speaks_of(mark: str, names: Iterable[str]) -> bool:
    """Return whether a mark's folder holds one of the files; a step's manifest knows nothing of its checkpoints."""
    folder = Path(mark).parent
    inside = [Path(name).relative_to(folder) for name in names if Path(name).is_relative_to(folder)]
    return any(not name.parts[0].startswith((".", "checkpoint")) for name in inside)


def _is_step(name: str) -> bool:
    return Path(name).name == MANIFEST and len(Path(name).parts) == 2
