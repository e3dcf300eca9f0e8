"""A model that a run has made: the folder of the run that holds it, what of it is sent, and whether it may be."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from mathlete.delivery.uploads import list_sent
from mathlete.errors import UserError
from mathlete.gates import PARTS, GateOutcome, Refused, find_run_export, is_part, is_set_aside, require_passed
from mathlete.runs import MANIFEST, is_unfinished, sha256_file, sha256_json, verify_outputs

_CONFIGS = ("config.json", "adapter_config.json")
"""Files of which a model has one, and a step that was refused before it made any has none."""


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
        part: its folder with the model; None: its export, else its merged model, else its adapter, whether or not its
            gates let it pass.
        accept_refused: why a model may be sent that its gates refused; empty: it may not.

    Raises:
        UserError: no such folder or model, or one that is changed, or that was refused or never finished where there is
            no reason to accept that.
    """
    there = _list_models(run)
    part = part or next(iter(there), PARTS[0])
    if part not in there:
        begun = any((run / name).is_dir() for name in ("data", "adapter"))
        none = "let its training command end" if begun else "name the folder of a run of `python -m train math`"
        cure = f"use --part with one of {', '.join(there)}" if there else none
        raise UserError("a push needs a model that a run has finished", value=str(run / part), cure=cure)
    try:
        outcome = require_passed(run / part, reason=accept_refused)
    except Refused as refused:
        # Another is never sent in its place unasked: who pushes a run means the model that it ends in.
        others = [name for name in there if _has_passed(run / name)]
        cure = f"{refused.cure}, or push what passed with --part {' or '.join(others)}" if others else refused.cure
        raise Refused(refused.rule, value=refused.value, cure=cure) from refused
    if is_unfinished(run / part):  # no manifest vouches for it, and no step wrote its card
        outcome.note_in_card(run / part)
    else:
        verify_outputs(run / part)
    return RunModel(run=run, part=part, outcome=outcome)


def _list_models(run: Path) -> list[str]:
    """Return the parts of a run that hold a model, finished or not.

    Raises:
        UserError: it is no run.
    """
    if not run.is_dir():
        raise UserError("a push needs the folder of a run", value=f"{run}, which is not there", cure="check the path")
    if _holds_model(run) and is_part(run.resolve().name):
        cure = f"name its run, {run.parent}, with --part {run.resolve().name}"
        raise UserError("a push needs the folder of a run", value=f"{run}, a part of one", cure=cure)
    first = find_run_export(run)
    names = [PARTS[0] if first is None else first.name, *PARTS, *sorted(folder.name for folder in run.glob("export-*"))]
    there = [name for name in dict.fromkeys(names) if _holds_model(run / name)]
    return sorted(there, key=lambda name: is_set_aside(run / name))


def _has_passed(folder: Path) -> bool:
    try:
        require_passed(folder)
    except Refused:
        return False
    return True


def _holds_model(folder: Path) -> bool:
    begun = is_unfinished(folder) and any((folder / name).is_file() for name in _CONFIGS)
    return begun or (folder / MANIFEST).is_file()
