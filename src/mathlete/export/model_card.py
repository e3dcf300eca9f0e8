"""The model card beside an export, in the hub's format: what it was made of, with hashes, and what it cost."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mathlete.export.formats.table import ExportFormat
from mathlete.folders import STARTED
from mathlete.gates import CARD
from mathlete.models import ModelSource
from mathlete.runs import MANIFEST, read_json, sha256_file, sha256_tree, write_atomically, write_json
from mathlete.text import quote_markdown


def write_export_card(
    folder: Path,
    *,
    export_format: ExportFormat,
    source: ModelSource,
    made_of: Mapping[str, Path],
    figures: Mapping[str, object],
) -> None:
    """Write an export's card; the files it names and hashes are those that are there already.

    Args:
        folder: the export's.
        export_format: what it is written in.
        source: the model that was trained.
        made_of: the folders of rows, adapter and merged model.
        figures: what it cost, as JSON values.
    """
    write_card(
        folder,
        source=source,
        title=f"in {export_format.bits} bits: {export_format.title}",
        library=export_format.library,
        tags=["math", "reasoning", export_format.name],
        usage=export_format.usage,
        made_of=made_of,
        figures=figures,
    )


def write_card(
    folder: Path,
    *,
    source: ModelSource,
    title: str,
    library: str,
    tags: Sequence[str],
    usage: str,
    made_of: Mapping[str, Path],
    figures: Mapping[str, object],
    named: Sequence[str] | None = None,
) -> None:
    """Write the card of an adapter, a merged model or an export, in the hub's format, without a path of this machine.

    Args:
        folder: the model's; the files that are named and hashed are those that are there already.
        source: the model that was trained.
        title: what the folder holds, after the base's name.
        library: the hub's name of what reads it.
        tags: the hub's tags.
        usage: how it is loaded, in a line of code.
        made_of: the folders of the steps before.
        figures: what it cost, as JSON values.
        named: the files that are hashed; None: all in the folder.
    """
    base, commit, licence = source.public_name, source.public_commit, source.licence
    front = {
        # What was named by its folder has no name that others know.
        **({"base_model": base} if "/" in base or base == source.name else {}),
        **({"license": licence} if licence else {}),
        "library_name": library,
        "pipeline_tag": "text-generation",
        "tags": [*tags],
    }
    hashed = sha256_tree(folder) if named is None else {name: sha256_file(folder / name) for name in named}
    files = {file: digest for file, digest in hashed.items() if file != CARD}
    cost = ["## What it cost", "Against the model as it was trained, on held-out rows:"] if figures else []
    lines = [
        "---",
        *(f"{key}: {json.dumps(value)}" for key, value in front.items()),
        "---",
        f"# {quote_markdown(base)}, tuned, {title}",
        "",
        f"    {usage}",
        "",
        "## Made of",
        f"- base: {quote_markdown(base)}" + (f"@{commit}" if commit else ""),
        f"- licence of the base: {quote_markdown(licence) or 'not named by its files here: look at its own page'}",
        *(f"- {step}: {_lineage(step_folder)}" for step, step_folder in made_of.items()),
        "",
        *cost,
        *(f"- {key}: {quote_markdown(str(value))}" for key, value in figures.items()),
        *([""] if figures else []),
        "## Files",
        "| file | sha256 |",
        "|---|---|",
        *(f"| {file} | `{digest}` |" for file, digest in sorted(files.items())),
        "",
    ]
    write_atomically(folder / CARD, "\n".join(lines))


def write_adapter_card(folder: Path, *, source: ModelSource, data: Path) -> None:
    """Write the card of an adapter, or of a model trained whole, and name the base without its place on this machine.

    Args:
        folder: what peft or transformers wrote, with their card, whose place this one takes.
        source: the model that was trained.
        data: the folder of the rows.
    """
    config = folder / "adapter_config.json"
    if config.is_file():
        write_json(config, {**read_json(config), "base_model_name_or_path": source.public_name})
    (folder / CARD).unlink(missing_ok=True)
    files = [file for file in folder.glob("*") if file.suffix in (".json", ".safetensors") and file.is_file()]
    # The step's own marks stay here: no card has to vouch for them elsewhere.
    kept = [file for file in files if file.name not in (MANIFEST, STARTED)]
    adapter = config.is_file()
    write_card(
        folder,
        source=source,
        title="the adapter" if adapter else "all weights",
        library="peft" if adapter else "transformers",
        tags=["math", "reasoning", *(["lora"] if adapter else [])],
        usage=f"{'PeftModel' if adapter else 'AutoModelForCausalLM'}.from_pretrained({'BASE, ' * adapter}THIS_FOLDER)",
        made_of={"rows": data},
        figures={},
        named=[file.name for file in kept],
    )


def _lineage(folder: Path) -> str:
    """Return a step's own figures and the key of its inputs and settings."""
    if not (folder / MANIFEST).is_file():
        return "not made by a run"
    manifest: dict[str, Any] = read_json(folder / MANIFEST)
    shown = ("method", "teacher", "steps", "rows", "base", "dtype", "last_loss")
    figures = {key: manifest["figures"][key] for key in shown if key in manifest["figures"]}
    return f"{', '.join(f'{key} {value}' for key, value in figures.items())}; key `{manifest['key']}`"
