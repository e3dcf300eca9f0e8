"""The model card beside an export, in the hub's format: what it was made of, with hashes, and what it cost."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mathlete.export.formats.table import ExportFormat
from mathlete.gates import CARD
from mathlete.models import ModelSource
from mathlete.runs import MANIFEST, read_json, sha256_tree, write_atomically


def write_card(
    folder: Path,
    *,
    export_format: ExportFormat,
    source: ModelSource,
    made_of: Mapping[str, Path],
    figures: Mapping[str, object],
) -> None:
    """Write README.md; the files it names and hashes are those that are there already.

    Args:
        folder: the export's.
        export_format: what it is written in.
        source: the model that was trained.
        made_of: the folders of rows, adapter and merged model.
        figures: what it cost, as JSON values.
    """
    base = source.location if source.folder is None else source.name
    front = {
        "base_model": base,
        "library_name": export_format.library,
        "pipeline_tag": "text-generation",
        "tags": ["math", "reasoning", export_format.name],
    }
    files = {file: digest for file, digest in sha256_tree(folder).items() if file != CARD}
    lines = [
        "---",
        *(f"{key}: {json.dumps(value)}" for key, value in front.items()),
        "---",
        f"# {base}, tuned, in {export_format.bits} bits: {export_format.title}",
        "",
        f"    {export_format.usage}",
        "",
        "## Made of",
        f"- base: {base}" + (f"@{source.revision}" if source.revision else ""),
        *(f"- {step}: {_lineage(step_folder)}" for step, step_folder in made_of.items()),
        "",
        "## What it cost",
        "Against the model as it was trained, on held-out rows:",
        *(f"- {key}: {value}" for key, value in figures.items()),
        "",
        "## Files",
        "| file | sha256 |",
        "|---|---|",
        *(f"| {file} | `{digest}` |" for file, digest in sorted(files.items())),
        "",
    ]
    write_atomically(folder / CARD, "\n".join(lines))


def _lineage(folder: Path) -> str:
    """Return a step's own figures and the key of its inputs and settings."""
    if not (folder / MANIFEST).is_file():
        return "not made by a run"
    manifest: dict[str, Any] = read_json(folder / MANIFEST)
    shown = ("method", "steps", "rows", "base", "dtype", "last_loss")
    figures = {key: manifest["figures"][key] for key in shown if key in manifest["figures"]}
    return f"{', '.join(f'{key} {value}' for key, value in figures.items())}; key `{manifest['key']}`"
