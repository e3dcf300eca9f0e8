"""What a notebook looks for and what kernel-metadata.json mounts: the two must be the same, source for source."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Literal, get_args

from mathlete.errors import UserError
from mathlete.files import read_text
from mathlete.runs import read_json
from mathlete.submission.metadata import KERNEL_FILE
from mathlete.submission.notebook import with_cell, with_python
from mathlete.submission.refusal import Refusal
from mathlete.submission.stamps import parse_notebook

SourceKind = Literal["competitions", "datasets", "models", "notebooks"]
"""As `find_input` and Kaggle's folders call it; kernel-metadata.json lists notebooks as kernel_sources."""
_KINDS: dict[str, SourceKind] = {kind: kind for kind in get_args(SourceKind)}
_MAKES_CONFIG = re.compile(r"(?m)^[ \t]*CONFIG\b[^=\n]*=[^=]")
_SETTINGS = re.compile(r'(?s)r"""\{.*?\}"""')
"""JSON values that a build writes into its cells."""
_AGAIN = "run `submit build` again, or write the same source into both"


@dataclass(frozen=True, kw_only=True)
class MountedSource:
    """One thing that is mounted below /kaggle/input.

    >>> MountedSource(kind="datasets", name="alice/wheels/3").places
    ('datasets/alice/wheels', 'wheels')
    >>> MountedSource(kind="models", name="alice/m/Transformers/int8/1").places[1]
    'm/transformers/int8/1'
    """

    kind: SourceKind
    name: str
    """As kernel-metadata.json writes it."""

    @property
    def _parts(self) -> list[str]:
        # A data set's version is mounted without its number.
        return self.name.split("/")[: 2 if self.kind in ("datasets", "notebooks") else None]

    @property
    def places(self) -> tuple[str, str]:
        """Its paths below /kaggle/input, in small letters: in the layout of 2026, and in the one before."""
        return "/".join(self.identity), self.identity[1].partition("/")[2] or self.identity[1]

    @property
    def identity(self) -> tuple[str, str]:
        """What two sources of the same thing have in common, whatever letters of its name are capitals."""
        return self.kind, "/".join(self._parts).lower()


@dataclass(frozen=True, kw_only=True)
class MountedNotebook:
    """A folder's notebook beside what its kernel-metadata.json mounts."""

    text: str
    """The notebook, as it lies there."""
    mounted: tuple[MountedSource, ...]

    @cached_property
    def cells(self) -> list[str]:
        """The sources of its code cells, without the lines that IPython alone reads."""
        return [_drop_magics(source) for source in code_cells(self.text)]

    @cached_property
    def wanted(self) -> list[MountedSource]:
        """What its calls of `find_input` name by plain strings."""
        calls = (call for cell in self.cells for call in _find_calls(cell))
        return list(dict.fromkeys(calls))

    def with_rehearsal_cell(self, cell: str, *, python: str) -> str:
        """Return the notebook with one more cell before it serves, asserting this Python where it asserts the image's.

        Raises:
            UserError: it has no cell that serves, or no cell before that one which makes its CONFIG.
        """
        text = with_cell(with_python(self.text, python), source=cell)
        before = takewhile(lambda source: source != cell.rstrip("\n"), code_cells(text))
        if not any(_MAKES_CONFIG.search(source) for source in before):
            rule = "the notebook must make CONFIG in a cell before the one that serves: a rehearsal changes it between"
            raise UserError(rule, value="no such cell", cure="write `CONFIG = config_from(…)` into a cell of its own")
        return text

    def lint(self) -> Iterator[Refusal]:
        """Yield what the notebook would not find, and what is mounted for nothing."""
        there = {source.identity for source in self.mounted}
        for source in self.wanted:
            if source.identity not in there:
                rule = f"{KERNEL_FILE} must mount what the notebook looks for: the rerun mounts exactly that"
                yield Refusal(rule=rule, value=f"{source.kind} {source.name} is not mounted", cure=_AGAIN)
        wanted = {source.identity for source in self.wanted}
        # The notebook's own settings are words, not paths: one of them may be the name of a data set.
        code = _SETTINGS.sub("", "\n".join(self.cells))
        for source in self.mounted:
            # A path that is written out is another way of looking for it.
            if source.identity not in wanted and not any(place in code for place in source.places):
                rule = f"the notebook must look for what {KERNEL_FILE} mounts: the rerun mounts exactly that"
                yield Refusal(rule=rule, value=f"it never names {source.name}", cure=_AGAIN)


def read_mounted(kaggle: Path) -> MountedNotebook:
    """Read notebook and sources of a folder of `submit build`.

    Raises:
        UserError: a file is missing, the notebook is none, or its sources are no lists.
    """
    metadata = read_json(kaggle / KERNEL_FILE)
    file = kaggle / str(metadata.get("code_file"))
    if not file.is_file():
        raise UserError(f"{KERNEL_FILE} must name the notebook", value=f"no {file}", cure="run `submit build` again")
    sources = list[MountedSource]()
    for kind in get_args(SourceKind):
        key = f"{kind.replace('notebooks', 'kernels').removesuffix('s')}_sources"
        names = metadata.get(key, [])
        if not isinstance(names, list):
            raise UserError(f"{KERNEL_FILE}: {key} must be a list", value=repr(names), cure="run `submit build` again")
        sources += [MountedSource(kind=kind, name=str(name)) for name in names]
    text = read_text(file)
    code_cells(text)
    return MountedNotebook(text=text, mounted=tuple(sources))


def code_cells(text: str) -> list[str]:
    """Return the sources of a notebook's code cells.

    Raises:
        UserError: it is no notebook.
    """
    try:
        cells = parse_notebook(text)["cells"]
        return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    except (ValueError, KeyError, TypeError) as error:
        cure = "run `submit build` again"
        raise UserError(f"the notebook must be one in JSON ({error})", value="something else", cure=cure) from error


def _drop_magics(source: str) -> str:
    return re.sub(r"^([ \t]*)[!%].*$", r"\1pass", source, flags=re.MULTILINE)


def _find_calls(cell: str) -> Iterator[MountedSource]:
    try:
        tree = ast.parse(cell)
    except SyntaxError:
        # It fails by itself when it is run, and then says so better.
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "find_input":
            given = [*node.args, *(one.value for one in node.keywords if one.arg in ("kind", "name"))]
            match [argument.value for argument in given if isinstance(argument, ast.Constant)]:
                case [str(kind), str(name), *_] if kind in _KINDS:
                    yield MountedSource(kind=_KINDS[kind], name=name)
