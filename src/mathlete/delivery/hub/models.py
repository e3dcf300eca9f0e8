"""A model that a run has made: the folder of the run that holds it, what of it is sent, and whether it may be."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from mathlete.delivery.uploads import list_sent
from mathlete.errors import UserError
from mathlete.gates import GateOutcome, require_passed
from mathlete.runs import MANIFEST, sha256_file, sha256_json, verify_outputs

PARTS = ("export", "merged", "adapter")
"""Folders of a run that hold a model, the one that is pushed by default first; export-FORMAT are others."""


@dataclass(frozen=True, kw_only=True)
class RunModel:
    """A folder of a run with a model."""

    run: Path
    part: str
    outcome: GateOutcome = field(default_factory=GateOutcome)
    """What the gates of the run said of it."""

    @property
    def folder(self) -> Path:
        """The model's folder."""
        return self.run / self.part

    @cached_property
    def files(self) -> list[Path]:
        """The files that are sent, relative to the folder."""
        return list_sent(self.folder)

    @cached_property
    def hash(self) -> str:
        """The hash of all that is sent."""
        return sha256_json({file.as_posix(): sha256_file(self.folder / file) for file in self.files})

    def describe_for(self, place: str) -> Iterator[str]:
        """Yield what would be sent to a place, a line each."""
        size = sum((self.folder / file).stat().st_size for file in self.files)
        yield f"model       {self.folder}: {len(self.files)} files, {size / 2**20:,.1f} MiB"
        yield place
        for file in self.files:
            yield f"  {file.as_posix():<32} {(self.folder / file).stat().st_size:>16,} bytes"
        for breach in self.outcome.breaches:
            yield f"refused by its gates: {breach}; accepted: {self.outcome.reason}"


def choose_model(run: Path, *, part: str | None = None, accept_refused: str = "") -> RunModel:
    """Return the model of a run that a push would send.

    Args:
        run: a training run's folder.
        part: its folder with the model; None: its export, else its merged model, else its adapter.
        accept_refused: why a model may be sent that its gates refused; empty: it may not.

    Raises:
        UserError: no such folder or model, or one that is unfinished, changed or refused.
    """
    there = _list_models(run)
    part = part or next(iter(there), PARTS[0])
    if part not in there:
        begun = any((run / name).is_dir() for name in ("data", "adapter"))
        none = "let its training command end" if begun else "name the folder of a run of `python -m train math`"
        cure = f"use --part with one of {', '.join(there)}" if there else none
        raise UserError("a push needs a model that a run has finished", value=str(run / part), cure=cure)
    outcome = require_passed(run / part, reason=accept_refused)
    verify_outputs(run / part)
    return RunModel(run=run, part=part, outcome=outcome)


def _list_models(run: Path) -> list[str]:
    """Return the finished parts of a run that hold a model.

    Raises:
        UserError: it is no run.
    """
    if not run.is_dir():
        raise UserError("a push needs the folder of a run", value=f"{run}, which is not there", cure="check the path")
    if (run / MANIFEST).is_file() and _is_part(run.resolve().name):
        cure = f"name its run, {run.parent}, with --part {run.resolve().name}"
        raise UserError("a push needs the folder of a run", value=f"{run}, a part of one", cure=cure)
    names = sorted(folder.name for folder in run.glob("export-*"))
    return [name for name in (*PARTS, *names) if (run / name / MANIFEST).is_file()]


def _is_part(name: str) -> bool:
    return name in PARTS or name.startswith("export-")
