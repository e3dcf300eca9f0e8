"""A training run, read back for its report: loss curve, what each hop cost, what was left out, rows as text."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from mathlete.export.records import EFFECT, SURVIVAL, EffectFigures, Hop, MergeFigures, SurvivalFigures
from mathlete.jsonl import read_json_lines
from mathlete.rows import explain_reason
from mathlete.runs import MANIFEST, read_json

STEPS = ("data", "adapter", "effect", "merged", "export")
_MOST_DROPPED = 200
"""Traces that were left out, as far as they are shown."""


@dataclass(frozen=True, kw_only=True)
class TrainRun:
    """One training run, as far as it has come."""

    name: str
    folder: Path
    manifests: dict[str, dict[str, Any]]
    """Those of its finished steps, by folder."""
    curve: list[dict[str, Any]]
    """Points of step, loss, learning_rate and more."""
    effect: EffectFigures | None
    """What the training changed on held-out and on general problems; None before that was measured."""
    merge: MergeFigures | None
    """What the merge cost; None before it."""
    exports: dict[str, SurvivalFigures]
    """What each export cost, by its folder; empty before the first one."""
    rows: list[dict[str, Any]]
    """The first rows as text: prompt, trained, problem_id, gold."""
    dropped: list[dict[str, Any]]
    """Traces that were left out, where the run kept them: reason, statement, gold, trace."""

    def figures(self, step: str) -> dict[str, Any]:
        """What a step reported; empty where it is not done."""
        figures: dict[str, Any] = self.manifests.get(step, {}).get("figures", {})
        return figures

    @property
    def hops(self) -> list[Hop]:
        """All models on the way to the exports, in their order."""
        hops = self.effect.hops if self.effect else ()
        return [*hops, *(hop for figures in self.exports.values() for hop in figures.hops)]

    @property
    def drops(self) -> list[tuple[str, int, str]]:
        """(reason, traces, what it means), most first."""
        drops: dict[str, int] = self.figures("data").get("drops", {})
        return [
            (reason, count, explain_reason(reason)) for reason, count in sorted(drops.items(), key=lambda it: -it[1])
        ]


def read_train_run(folder: Path) -> TrainRun:
    """The run in a folder with the steps of `python -m train math`.

    Raises:
        UserError: a file that is not what it must be.
    """
    manifests = {step: read_json(path) for step in STEPS if (path := folder / step / MANIFEST).is_file()}
    exports = [file.parent for file in sorted(folder.glob(f"export*/{SURVIVAL}"))]
    return TrainRun(
        name=folder.resolve().name,
        folder=folder,
        manifests=manifests,
        curve=_rows(folder / "adapter" / "metrics.jsonl"),
        effect=EffectFigures.read(folder / "effect") if (folder / "effect" / EFFECT).is_file() else None,
        merge=_merge_figures(manifests.get("merged")),
        exports={export.name: SurvivalFigures.read(export) for export in exports},
        rows=_rows(folder / "data" / "head.jsonl"),
        dropped=_rows(folder / "data" / "dropped.jsonl", most=_MOST_DROPPED),
    )


def is_train_run(folder: Path) -> bool:
    """Whether the folder has a step of a training run."""
    return any((folder / step).is_dir() for step in STEPS)


def _merge_figures(manifest: Mapping[str, Any] | None) -> MergeFigures | None:
    return MergeFigures.from_json(manifest["figures"]) if manifest else None


def _rows(path: Path, *, most: int | None = None) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    rows = islice((row for _, row in read_json_lines(path)), most)
    return [row for row in rows if isinstance(row, dict)]
