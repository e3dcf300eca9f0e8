"""The stamp of a notebook: a hash of its cells, which stands in one of them, so that an output tells its notebook."""

import re
from collections.abc import Mapping
from typing import Any

from mathlete.errors import UserError
from mathlete.runs import sha256_json
from mathlete.submission.contents import UNSTAMPED
from mathlete.text import parse_json

# In the file a cell's text is JSON, in which quotation marks are escaped.
_STAMP = re.compile(r'(\\?"build\\?": *\\?")([0-9a-f]{12})(\\?")')


def read_stamp(text: str) -> str:
    """Return the stamp in a notebook; empty where it carries none."""
    match = _STAMP.search(text)
    return match[2] if match else ""


def parse_notebook(text: str | bytes) -> dict[str, Any]:
    """Return the notebook in a text, as far as it has the form of one: cells with their sources, and metadata.

    Raises:
        ValueError: it has not.
    """
    notebook = parse_json(text)
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise ValueError("no list of cells")
    for place, cell in enumerate((notebook, *notebook["cells"])):
        if not isinstance(cell, dict) or not isinstance(cell.get("metadata", {}), dict) or not _has_source(cell):
            raise ValueError(f"cell {place} is none" if place else "its metadata are no object")
    return notebook


def _has_source(cell: Mapping[str, object]) -> bool:
    lines = cell.get("source", "") if "cells" in cell else cell.get("source")
    return isinstance(lines, str) or (isinstance(lines, list) and all(isinstance(line, str) for line in lines))


def compute_stamp(text: str) -> str:
    """Return the stamp that a notebook should carry: of its cells and its metadata, ids and the stamp itself apart.

    Raises:
        UserError: it is no notebook.
    """
    try:
        notebook = parse_notebook(text)
        cells = [(one["cell_type"], "".join(one["source"]), one.get("metadata", {})) for one in notebook["cells"]]
        blank = [(kind, _STAMP.sub(rf"\g<1>{UNSTAMPED}\g<3>", source), metadata) for kind, source, metadata in cells]
        return sha256_json([blank, notebook.get("metadata", {})])[:12]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        cure = "run `submit build` again"
        raise UserError(f"the notebook must be one in JSON ({error})", value="something else", cure=cure) from error


def with_stamp(text: str, stamp: str) -> str:
    """Return the notebook with another stamp in it, all else as it was."""
    return _STAMP.sub(rf"\g<1>{stamp}\g<3>", text, count=1)
