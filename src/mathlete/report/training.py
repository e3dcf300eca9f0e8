"""A training run, read back for its report: loss curve, what each hop cost, what was left out, rows as text."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mathlete.export.records import EFFECT, EffectFigures, Hop, MergeFigures, SurvivalFigures
from mathlete.gates import SURVIVAL
from mathlete.jsonl import read_json_lines
from mathlete.rows import DroppedTrace, FormatFigures, RowFiles, RowText, explain_reason
from mathlete.runs import verify_if_made

STEPS = ("data", "adapter", "effect", "merged", "export")
_CURVE = "metrics.jsonl"
_MOST_DROPPED = 200
"""Traces that were left out, as far as they are shown."""


@dataclass(frozen=True, kw_only=True)
class TrainRun:
    """One training run, as far as it has come."""

    name: str
    folder: Path
    manifests: dict[str, dict[str, Any]]
    """Those of its finished steps, by folder."""
    format: FormatFigures | None
    """What was read, kept and left out; None before the format step is done."""
    curve: list[dict[str, float]]
    """Points of step, loss, learning_rate and what else the method logs."""
    effect: EffectFigures | None
    """What the training changed on held-out and on general problems; None before that was measured."""
    merge: MergeFigures | None
    """What the merge cost; None before it."""
    exports: dict[str, SurvivalFigures]
    """What each export cost, by its folder; empty before the first one."""
    rows: list[RowText]
    """The first rows as text."""
    dropped: list[DroppedTrace]
    """The first traces that were left out, where the run kept them."""

    @property
    def hops(self) -> list[Hop]:
        """All models on the way to the exports, in their order."""
        hops = self.effect.hops if self.effect else ()
        return [*hops, *(hop for figures in self.exports.values() for hop in figures.hops)]

    @property
    def drops(self) -> list[tuple[str, int, str]]:
        """(reason, traces, what it means), most first."""
        drops = self.format.drops if self.format else {}
        by_count = sorted(drops.items(), key=lambda item: -item[1])
        return [(reason, count, explain_reason(reason)) for reason, count in by_count]


def read_train_run(folder: Path) -> TrainRun:
    """Read the run in a folder with the steps of `python -m train math`.

    Raises:
        UserError: a file that is not what it must be, or one of a finished step that has changed.
    """
    data = RowFiles(folder / "data")
    exports = [file.parent for file in sorted(folder.glob(f"export*/{SURVIVAL}"))]
    shown = {
        "data": (data.head.name, data.dropped.name),
        "adapter": (_CURVE,),
        "effect": (EFFECT,),
        **{export.name: (SURVIVAL,) for export in exports},
    }
    # Only what is shown: the weights would take minutes to read.
    read = {step: verify_if_made(folder / step, only=shown.get(step, ())) for step in {**dict.fromkeys(STEPS), **shown}}
    manifests: dict[str, dict[str, Any]] = {step: read[step] for step in STEPS if read[step]}
    return TrainRun(
        name=folder.resolve().name,
        folder=folder,
        manifests=manifests,
        format=FormatFigures.from_json(manifests["data"]["figures"]) if "data" in manifests else None,
        curve=_read_curve(folder / "adapter" / _CURVE),
        effect=EffectFigures.read(folder / "effect") if (folder / "effect" / EFFECT).is_file() else None,
        merge=MergeFigures.from_json(manifests["merged"]["figures"]) if "merged" in manifests else None,
        exports={export.name: SurvivalFigures.read(export) for export in exports},
        rows=data.read_head(),
        dropped=data.read_dropped(_MOST_DROPPED),
    )


def is_train_run(folder: Path) -> bool:
    """Return whether the folder has a step of a training run."""
    return any((folder / step).is_dir() for step in STEPS)


def _read_curve(file: Path) -> list[dict[str, float]]:
    if not file.is_file():
        return []
    return [point for _, point in read_json_lines(file) if isinstance(point, dict)]
