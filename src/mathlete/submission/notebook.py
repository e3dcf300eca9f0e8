"""The notebook: six short cells around the project's own wheel; the same inputs give the same bytes."""

import hashlib
import importlib
import inspect
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from mathlete.competitions import GatewayRules
from mathlete.errors import UserError
from mathlete.kaggle_image import PYTHON, VLLM_LOCK
from mathlete.kernel import PASTED, KernelConfig
from mathlete.runs import write_atomically
from mathlete.submission.contents import NOTHING, Contents
from mathlete.submission.metadata import Names, VllmFrom
from mathlete.submission.stamps import compute_stamp, parse_notebook

_Cell = Mapping[str, Any]

OPEN, INSTALL, SERVE = "server", "install", "serve"
"""Tags of the cells between which a rehearsal may put one of its own."""
_TITLE = "# {title}\n\nBuilt by `python -m submit build` of mathlete. Do not edit: build it again."
_START = """\
import json
import os
import sys
import time

STARTED = time.time()  # the one clock: everything below is inside the wall
# What this was built of: the journal carries its hash, the mounts are compared with its sums.
BUILT = json.loads(r\"\"\"{built}\"\"\")
print("build", BUILT["build"], flush=True)

assert sys.version_info[:2] == ({version}), f"built for Python {python}, this image has {{sys.version}}"
"""
_FIND = """\
import hashlib
from pathlib import Path


{find_input}

{find_changes}

WHEELS = find_input("datasets", "{wheels}")
MODEL = find_input("models", "{model}")
COMPETITION = find_input("competitions", "{slug}")
print(WHEELS, MODEL, COMPETITION, sep="\\n")
sums, digest, weights = BUILT["wheels"], BUILT["config"], BUILT["weights"]
changes = find_changes(WHEELS, MODEL, sums=sums, config=digest, weights=weights)
{find_vllm}print(f"NOT AS BUILT: {{'; '.join(changes)}}" if changes else "wheels and model are as built", flush=True)
# In the commit run an error costs nothing; in the rerun it would cost the submission.
assert not changes or os.getenv("KAGGLE_IS_COMPETITION_RERUN") is not None, changes
"""
_FIND_VLLM = """\

try:
    VLLM = find_input("{kind}", "{vllm}")
    lock = next(VLLM.rglob("{lock}"), None)
    if lock is None or hashlib.sha256(lock.read_bytes()).hexdigest() != BUILT["vllm"]:
        changes += [f"{{VLLM}} holds other wheels of vLLM"]
except FileNotFoundError as error:
    # The embedded engine needs none of them, and answers.
    VLLM = None
    changes += [str(error)] if BUILT["vllm"] else []  # a rehearsal without vLLM wants none
"""
_OPEN = """\
import importlib
from collections.abc import Callable


{open_server}

# First of all: where something else has taken port 50051, a newer gateway never finds the server.
SERVER = open_server(COMPETITION, "{module}", "{server}")
"""
_INSTALL = """\
import subprocess

# A folder of its own in front of the image's packages, which stay as they are; child processes find it too.
PACKAGES = "/tmp/mathlete-packages"
wheels = sorted(str(path) for path in WHEELS.rglob("*.whl"))
assert wheels, f"no wheel in {WHEELS}"
pip = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--no-warn-script-location"]
# check_call, because a failing `!pip` does not stop a notebook.
subprocess.check_call([*pip, "--quiet", "--disable-pip-version-check", "--target", PACKAGES, *wheels])
sys.path.insert(0, PACKAGES)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [PACKAGES, os.environ.get("PYTHONPATH")]))
os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
"""
_CONFIG = """\
from mathlete.kernel import config_from

SETTINGS = r\"\"\"{config}\"\"\"
CONFIG = config_from(json.loads(SETTINGS))
"""
_SERVE = """\
from mathlete.kernel import serve

# The server answers at once; the model loads in the background from here on, and the first question waits for it.
serve(
    CONFIG, model=MODEL, competition_folder=COMPETITION, started=STARTED, working=Path.cwd(), built=BUILT{server}{vllm}
)
"""


def notebook_text(
    config: KernelConfig, names: Names, contents: Contents = NOTHING, *, vllm: VllmFrom | None = None
) -> str:
    """Return the notebook as JSON text. It is deterministic: cell ids are hashes of the cells.

    Args:
        config: how it answers.
        names: what it mounts.
        contents: what it carries of its build; its hash is computed.
        vllm: what brings vLLM's wheels; None: it does without.
    """
    stamp = compute_stamp(_compose(config, names, contents, vllm=vllm))
    return _compose(config, names, replace(contents, build=stamp), vllm=vllm)


def _compose(config: KernelConfig, names: Names, contents: Contents, *, vllm: VllmFrom | None) -> str:
    """Return the notebook with the stamp that the contents name."""
    gateway = config.competition.notebook.gateway
    opened = [("code", OPEN, _open(gateway))] if gateway.server else []
    sources = [
        ("markdown", "", _TITLE.format(title=names.kernel.replace("-", " "))),
        ("code", "start", _START.format(version=PYTHON.replace(".", ", "), python=PYTHON, built=_to_text(contents))),
        ("code", "find", _find(config, names, vllm=vllm)),
        *opened,
        ("code", INSTALL, _INSTALL),
        ("code", "config", _CONFIG.format(config=_to_text(config))),
        ("code", SERVE, _SERVE.format(server=", server=SERVER" if opened else "", vllm=", vllm=VLLM" if vllm else "")),
    ]
    return write_cells(sources)


def write_cells(sources: Sequence[tuple[str, str, str]]) -> str:
    """Return a notebook of (kind, tag, source) as JSON text."""
    nbformat: Any = importlib.import_module("nbformat")
    notebook = nbformat.v4.new_notebook(cells=[_cell(*source) for source in sources])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata["language_info"] = {"name": "python"}
    notebook.nbformat_minor = 5
    nbformat.validate(notebook)
    return str(nbformat.writes(notebook, version=4, sort_keys=True, indent=1)) + "\n"


def _to_text(value: KernelConfig | Contents) -> str:
    return json.dumps(value.to_json(), indent=2, sort_keys=True)


def write_notebook(
    file: Path, config: KernelConfig, names: Names, contents: Contents = NOTHING, *, vllm: VllmFrom | None = None
) -> None:
    """Write the notebook; a reader sees all of it or none."""
    config.check()
    write_atomically(file, notebook_text(config, names, contents, vllm=vllm))


def require_as_built(file: Path) -> None:
    """Check that a notebook, where there is one, is as some build wrote it: each cell's id is the cell's hash.

    Raises:
        UserError: it is not, so it may be someone's work.
    """
    try:
        notebook = parse_notebook(file.read_bytes()) if file.is_file() else {"cells": []}
        built = all(_has_own_id(cell) for cell in notebook["cells"])
    except (ValueError, KeyError, TypeError):
        built = False
    if not built:
        raise UserError(
            "a build replaces only a notebook that was built",
            value=f"{file}, which was written or edited by hand",
            cure="move it away, or lose it with --overwrite",
        )


def _has_own_id(cell: _Cell) -> bool:
    source, (tag,) = "".join(cell["source"]), cell["metadata"].get("tags") or [""]
    return cell["id"] in (_cell_id(tag, source), _cell_id(tag, f"{source}\n"))


def _cell_id(tag: str, source: str) -> str:
    return hashlib.sha256(f"{tag}\n{source}".encode()).hexdigest()[:16]


def with_cell(text: str, *, source: str, before: str = SERVE) -> str:
    """Return the notebook with one more code cell before the cell of a tag: how a rehearsal changes what it runs.

    Nothing else is changed. In a notebook of one's own, whose cells have no tags, a cell that calls `serve` counts as
    tagged `serve`.

    Raises:
        UserError: there is no such cell.
    """
    notebook = parse_notebook(text)
    cells = notebook["cells"]
    tagged = [index for index, cell in enumerate(cells) if before in cell.get("metadata", {}).get("tags", [])]
    calls = [index for index, cell in enumerate(cells) if cell["cell_type"] == "code" and _serves(cell)]
    place = next(iter(tagged or (calls if before == SERVE else [])), None)
    if place is None:
        rule = "the notebook must have a cell that serves: a rehearsal puts its own settings in before it"
        raise UserError(rule, value=f"no cell tagged {before}", cure="call serve(CONFIG, …) in a cell of its own")
    new = _cell("code", "rehearsal", source)
    if notebook.get("nbformat_minor", 0) < 5:
        del new["id"]  # before 4.5 a cell has none
    cells.insert(place, new)
    return json.dumps(notebook, sort_keys=True, indent=1, ensure_ascii=False) + "\n"


def _serves(cell: _Cell) -> bool:
    return re.search(r"\bserve\(", "".join(cell["source"])) is not None


def with_python(text: str, python: str) -> str:
    """Return the notebook with its assertion of the image's Python, where it makes it, changed to that of another.

    >>> with_python("assert sys.version_info[:2] == (3, 12), 'no'", "3.11")
    "assert sys.version_info[:2] == (3, 11), 'no'"
    """
    old, new = (f"assert sys.version_info[:2] == ({one.replace('.', ', ')})" for one in (PYTHON, python))
    return text.replace(old, new)


def _find(config: KernelConfig, names: Names, *, vllm: VllmFrom | None) -> str:
    kind = "notebooks" if vllm == "notebook" else "datasets"
    return _FIND.format(
        find_vllm=_FIND_VLLM.format(kind=kind, vllm=names.vllm_id, lock=VLLM_LOCK).lstrip() if vllm else "",
        find_input=_source_of("find_input"),
        find_changes=_source_of("find_changes"),
        wheels=names.wheels_id,
        model=names.model_source,
        slug=config.competition.slug,
    )


def _open(gateway: GatewayRules) -> str:
    return _OPEN.format(open_server=_source_of("open_server"), module=gateway.module, server=gateway.server)


@cache
def _source_of(pasted: str) -> str:
    """Return the source of a function that is pasted into the notebook; Python reads the whole file for it."""
    return inspect.getsource(PASTED[pasted])


def _cell(kind: str, tag: str, source: str) -> Any:
    nbformat: Any = importlib.import_module("nbformat")
    cell: dict[str, object] = {
        "cell_type": kind,
        "id": _cell_id(tag, source),
        "metadata": {"tags": [tag]} if tag else {},
        "source": source.rstrip("\n"),
        **({"execution_count": None, "outputs": []} if kind == "code" else {}),
    }
    # Not by nbformat's own functions for it, which check every cell against the whole schema: the notebook is checked.
    return nbformat.from_dict(cell)
