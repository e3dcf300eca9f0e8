"""Python files of a tree as they stand on the disk: lines, syntax, comments, imports. Nothing is imported or run."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HOUSE = "mathlete"
NOTE_TO_TOOLS = re.compile(r"#\s*(!|type:|noqa|pragma|fmt:|mypy:|ruff:|pyright:|-\*-)")


@dataclass(frozen=True, kw_only=True)
class Module:
    """A file."""

    name: str
    """With dots; a package's face, `__init__.py`, has the package's name."""
    room: str
    is_face: bool
    lines: tuple[str, ...]
    tree: ast.Module
    nodes: tuple[ast.AST, ...]
    """All of the tree, which is walked once."""
    comments: Mapping[int, bool]
    """By line, whether it holds nothing else; without notes to tools such as `noqa`."""


def package_folders(path: Path) -> list[Path]:
    """Return the packages of `src` and `eval`, if the path is a checkout of this project, else the path itself."""
    if (path / "src" / HOUSE).is_dir():
        return [*sorted(face.parent for face in (path / "src").glob("*/__init__.py")), path / "eval"]
    return [path]


def read_modules(folders: Sequence[Path]) -> list[Module]:
    """Return all modules below the folders, named from them on."""
    return [_read(file, folder) for folder in folders for file in sorted(folder.rglob("*.py"))]


def _read(file: Path, folder: Path) -> Module:
    text = file.read_text(encoding="utf-8")
    tree = ast.parse(text)
    names = [folder.name, *file.relative_to(folder).with_suffix("").parts]
    is_face = names[-1] == "__init__"
    if is_face:
        names.pop()
    return Module(
        name=".".join(names),
        # `mathlete` is the house, no room: its packages are rooms, and each of its own files stands alone.
        room=".".join(names[:2] if names[0] == HOUSE else names[:1]),
        is_face=is_face,
        lines=tuple(text.splitlines()),
        tree=tree,
        nodes=tuple(ast.walk(tree)),
        comments=dict(_comments(text)) if "#" in text else {},
    )


def _comments(text: str) -> Iterator[tuple[int, bool]]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and not NOTE_TO_TOOLS.match(token.string):
            line, column = token.start
            yield line, not token.line[:column].strip()


def find_imported(module: Module, known: Mapping[str, Module]) -> Iterator[str]:
    """Name of known modules that a module imports from, be it inside a function or for types only."""
    for node in module.nodes:
        match node:
            case ast.Import(names=names):
                yield from (one.name for one in names if one.name in known)
            case ast.ImportFrom(names=names):
                base = _absolute_base(module, node)
                for one in names:
                    # `from package import module` goes to the module; any other name is the package's face's.
                    yield from [name for name in (f"{base}.{one.name}", base) if name in known][:1]


def _absolute_base(module: Module, node: ast.ImportFrom) -> str:
    """Return what stands between `from` and `import`, its leading dots resolved."""
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    # One dot is the package that holds the module, which for a face is the face itself.
    package = parts[: len(parts) - node.level + module.is_face]
    return ".".join([*package, *filter(None, [node.module])])
