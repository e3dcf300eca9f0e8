"""The notebook's Python: an environment of its own, in which packages of Kaggle's image can be imported and no others.

A virtual environment sees nothing of the one that made it. What the image holds is installed into it, or linked into it
from this one, distribution by distribution; papermill, which executes the notebook, lies in a folder beside it that
papermill's own process alone sees.
"""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions
from pathlib import Path

from mathlete.kaggle_image import image_packages

THIS_PYTHON = ".".join(map(str, sys.version_info[:2]))
IMPORTED = (
    "grpcio",
    "ipykernel",
    "numpy",
    "pandas",
    "pip",
    "polars",
    "protobuf",
    "pyarrow",
    "pydantic",
    "scipy",
    "sympy",
    "tokenizers",
    "transformers",
)
"""What the notebook, its kernel and the gateway's library import, torch apart."""
BESIDE_TORCH = "accelerate"
"""It needs torch, so its dependencies are not installed with it."""
RUNNER = "papermill"
"""What executes the notebook; Kaggle's image has it too, in a version that nobody lists."""
_SEPARATORS = str.maketrans("_.", "--")


@dataclass(frozen=True, kw_only=True)
class NotebookPython:
    """The Python of a rehearsed notebook."""

    folder: Path
    """Holds the environment and what executes the notebook."""
    version: str = THIS_PYTHON
    """As "3.12"."""

    @property
    def environment(self) -> Path:
        """The virtual environment, by a path without links: in the container what a link names may be hidden."""
        return self.folder.resolve() / ".environment"

    @property
    def executable(self) -> Path:
        """Its interpreter."""
        return self.environment / "bin" / "python"

    @property
    def runner(self) -> Path:
        """Packages that only the process which executes the notebook sees."""
        return self.folder / ".runner"

    @property
    def site(self) -> Path:
        """Where its packages lie."""
        return self.environment / "lib" / f"python{self.version}" / "site-packages"

    @property
    def needs(self) -> tuple[Path, ...]:
        """Folders outside of it that must be there too: its interpreter's, and what it links to."""
        linked = {Path(sys.prefix).resolve()} if any(path.is_symlink() for path in self.site.iterdir()) else set()
        return (self.folder.resolve(), self.executable.resolve().parents[1], *linked)

    def papermill(self) -> list[str]:
        """Return the command that executes a notebook with it."""
        seen = f"import sys; sys.path.append({str(self.runner.resolve())!r})"
        start = f"{seen}; from papermill.cli import papermill; papermill()"
        return [str(self.executable), "-c", start, "--log-output", "--no-progress-bar"]


def link_this_python(folder: Path) -> NotebookPython:
    """Make an environment of the packages that are installed here, as far as Kaggle's image holds them too.

    Args:
        folder: where it goes; nothing is there yet.
    """
    python = NotebookPython(folder=folder)
    make_environment(python, Path(sys.executable))
    needed = list_needs((*IMPORTED, BESIDE_TORCH, "torch"))
    seen = needed | {name_of(one) for one in distributions()} & image_packages().keys()
    link_packages(seen, into=python.site)
    link_packages(list_needs((RUNNER,)) - seen, into=python.runner)
    return python


def make_environment(python: NotebookPython, interpreter: Path) -> None:
    """Make an empty virtual environment of an interpreter."""
    python.runner.mkdir(parents=True)
    subprocess.run([interpreter, "-m", "venv", "--without-pip", python.environment], check=True, capture_output=True)


def list_needs(names: Collection[str]) -> set[str]:
    """Return these distributions and all that they need, as installed here, by their canonical names."""
    from packaging.requirements import Requirement

    needs, queue = set[str](), [*names]
    while queue:
        name = canonical(queue.pop())
        if name in needs:
            continue
        with suppress(PackageNotFoundError):
            lines = map(Requirement, distribution(name).requires or ())
            needs.add(name)
            queue += [line.name for line in lines if line.marker is None or line.marker.evaluate({"extra": ""})]
    return needs


def link_packages(names: Collection[str], *, into: Path) -> None:
    """Link distributions that are installed here into another folder of packages, those that it has apart."""
    wanted = {canonical(name) for name in names} - {name_of(one) for one in distributions(path=[str(into)])}
    installed = {name_of(one): (one, _read_paths(one)) for one in distributions()}
    owners = Counter(top for _, paths in installed.values() for top in {parts[0] for parts in paths})
    for name in sorted(wanted & installed.keys()):
        one, paths = installed[name]
        # Whole folders, or what is in those that several distributions share.
        for entry in sorted({parts[: 1 if owners[parts[0]] == 1 else 2] for parts in paths}):
            _link(Path(str(one.locate_file("/".join(entry)))).resolve(), into.joinpath(*entry))


def _link(source: Path, target: Path) -> None:
    if source.exists() and not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source)


def _read_paths(one: Distribution) -> set[tuple[str, ...]]:
    """Return the paths of a distribution's files, as far as two levels down; scripts and bytecode apart."""
    # `Distribution.files` makes an object of each line, which takes seconds for all that is installed.
    lines = (one.read_text("RECORD") or "").splitlines()
    paths = {tuple(line.split(",", 1)[0].strip('"').split("/")[:2]) for line in lines}
    return {parts for parts in paths if parts[0] not in ("", "..", "__pycache__")}


def hide_strangers(python: NotebookPython, *, allowed: Collection[str]) -> list[str]:
    """Move distributions that the image lacks out of the notebook's sight; return their names."""
    strangers = [one for one in distributions(path=[str(python.site)]) if name_of(one) not in allowed]
    for one in strangers:
        for file in one.files or ():
            source, target = python.site / file, python.runner / file
            if ".." not in file.parts and source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                source.rename(target)
    for folder in sorted((path for path in python.site.rglob("*") if path.is_dir()), reverse=True):
        with suppress(OSError):  # not empty
            folder.rmdir()
    return sorted(name_of(one) for one in strangers)


def canonical(name: str) -> str:
    """Return a distribution's name as the packaging standard writes it.

    >>> canonical("Typing_Extensions")
    'typing-extensions'
    """
    return name.lower().translate(_SEPARATORS)


def name_of(one: Distribution) -> str:
    """Return the canonical name of a distribution."""
    return canonical(str(one.metadata["Name"]))


def find_python(version: str) -> Path | None:
    """Return an interpreter of that version on this machine: this one, pyenv's, one on the PATH, uv's; else None."""
    for candidate in _candidates(version):
        works = [str(candidate), "-c", "import sys, ctypes, venv; print('%d.%d' % sys.version_info[:2])"]
        with suppress(OSError):
            done = subprocess.run(works, capture_output=True, text=True, check=False)
            # A shim of pyenv's is on the PATH even where no such version is chosen.
            if done.returncode == 0 and done.stdout.strip() == version:
                return candidate
    return None


def _candidates(version: str) -> Iterator[Path]:
    if version == THIS_PYTHON:
        yield Path(sys.executable)
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from sorted(root.glob(f"versions/{version}.*/bin/python{version}"), reverse=True)
    for folder in os.get_exec_path():
        yield Path(folder, f"python{version}")
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or Path.home() / ".local/share/uv/python")
    yield from sorted(uv.glob(f"cpython-{version}.*/bin/python{version}"), reverse=True)
