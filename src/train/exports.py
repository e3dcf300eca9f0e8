"""The last steps of `python -m train math`: the merged model in each format, and what becomes of those refused."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mathlete.export import EXPORT_FORMATS, TunedModel, export_model
from mathlete.export.records import ANSWERS
from mathlete.folders import STARTED
from mathlete.gates import Refused, is_set_aside, join_refused, require_passed, set_aside
from mathlete.rows import RowFiles
from mathlete.runs import read_json, sha256_tree
from train.shown import bar

if TYPE_CHECKING:
    from train.steps import MathRun


def write_exports(run: "MathRun", tuned: TunedModel, *, effect: Path, merged: Path) -> None:
    """Write the merged model in all formats of the settings, each to its folder.

    Raises:
        Refused: formats that are asked for cost more than their limits.
        UserError: as `export_model`.
    """
    refused, formats = {}, run.settings.after.export
    for name in formats.written:
        # One format that costs too much is no reason to withhold the others.
        try:
            export(run, tuned, name=name, effect=effect, merged=merged)
        except Refused as error:
            refused[name] = error
    if asked := [refused[name] for name in formats.named if name in refused]:
        raise join_refused(asked)
    for one in EXPORT_FORMATS.values():
        # What this command does not ask for, and an earlier one may have, is none of the run's models.
        if one.name not in formats.named:
            set_aside(run.folder / one.folder)
    for name, why in refused.items():
        run.say(f"{name}, which --export.formats does not name, is refused: {why.rule}, got {why.value}")


def export(run: "MathRun", tuned: TunedModel, *, name: str, effect: Path, merged: Path) -> Path:
    """Write the merged model in one 8-bit format; return its folder, `export/` (int8) or `export-FORMAT/`.

    Raises:
        Refused: it cost more than its limits; one that is not asked for is not made again to see the same.
        UserError: as `export_model`.
    """
    after, title = run.settings.after, EXPORT_FORMATS[name].folder
    rows = {"rows": RowFiles(tuned.data).train} if EXPORT_FORMATS[name].is_calibrated else {}
    inputs = {**run.files_of(tuned), **rows, "merged": merged, "answers": effect / ANSWERS}
    settings = {
        **{name: value for name, value in asdict(after.survival).items() if name != "trial_rows"},
        **after.export.settings_of(name, seed=run.settings.seed),
    }
    if name not in after.export.named and not after.accept_refused:
        _require_not_refused(run.folder / title, inputs=inputs, settings=settings)
    step = run.begin(title, run.folder / title, inputs=inputs, settings=settings)
    if not step.skipped:
        with bar(title) as advance, step.noting_unfinished():
            figures = export_model(
                step.folder,
                name=name,
                tuned=tuned,
                effect=effect,
                merged=merged,
                limits=after.survival,
                formats=after.export,
                seed=run.settings.seed,
                accept_refused=after.accept_refused,
                advance=advance,
                show=run.show_hops,
            )
            step.finish(figures)
    return run.end(step)


def _require_not_refused(folder: Path, *, inputs: Mapping[str, Path], settings: Mapping[str, object]) -> None:
    """Raise Refused where an export of these inputs and settings was refused, and the run is finished without it."""
    if not is_set_aside(folder):
        return
    mark = read_json(folder / STARTED)
    hashes = {name: sha256_tree(path) for name, path in inputs.items()}
    made: dict[str, dict[str, object]] = json.loads(json.dumps({"settings": settings, "inputs": hashes}, default=str))
    # The mark has settings of the model's prompt, too.
    held = mark.get("settings")
    same = isinstance(held, dict) and mark.get("inputs") == made["inputs"] and {**held, **made["settings"]} == held
    if same and "breaches" in mark:
        require_passed(folder)
