"""The wheelhouse: the project's wheel and what it needs beyond Kaggle's image. Resolved for that image; no sdist.

uv resolves, because pip evaluates markers with its own Python; pip downloads and proves the result installable for the
image's tags with no index. (https://docs.astral.sh/uv/pip/compile/, https://pip.pypa.io/en/stable/cli/pip_download/)
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mathlete.errors import UserError
from mathlete.kaggle_image import GLIBC, PYTHON, image_packages, platforms
from mathlete.locks import LOCK as HOLDER
from mathlete.runs import (
    MANIFEST,
    Leftovers,
    Step,
    read_manifest,
    run_step,
    sha256_file,
    sha256_tree,
    write_atomically,
)
from mathlete.submission.resolver import compile_pins, require_recent
from mathlete.submission.vocabularies import write_wheel
from mathlete.temporary import TemporaryFolder

SUMS, LOCK = "SHA256SUMS", "wheels.lock"
_ROOT = Path(__file__).parents[3]


def build_wheelhouse(
    folder: Path,
    requirements: Sequence[str],
    *,
    find_links: Path | None = None,
    vocabularies: Sequence[Path] = (),
    root: Path = _ROOT,
    overwrite: bool = False,
) -> Step:
    """Fill a folder with wheels, their lock and hashes; skip it where nothing changed.

    A wheel that was put there by hand is moved to the folder beside it, NAME-added, and carried from there by every
    later build: instead of one of the same package from the index.

    Args:
        folder: where wheels go; a run folder with its manifest.
        requirements: what is needed beyond the project itself.
        find_links: take wheels from this folder instead of the package index; it must hold all that is needed.
        vocabularies: files that the model's library would download, which travel as a wheel.
        root: the project's checkout.
        overwrite: whether wheels for other requirements are deleted.

    Raises:
        UserError: no checkout, no solution, or a package that has no wheel for the image.
    """
    if not (root / "pyproject.toml").is_file():
        raise UserError("the wheel is built from a checkout", value=str(root), cure="clone the project, run it there")
    if find_links and not find_links.is_dir():
        raise UserError("--find-links must be a folder of wheels", value=str(find_links), cure="check the path")
    added = adopt_added(folder)
    links = {**({"find_links": find_links} if find_links else {}), **({"added": added} if added.is_dir() else {})}
    settings = {"requirements": list(requirements), "python": PYTHON, "glibc": GLIBC, "image": image_packages()}
    with TemporaryFolder("wheels") as temporary:
        # hatchling is reproducible: the same source gives the same bytes, so the wheel's hash stands for its source.
        project = _build_wheel(root, temporary)
        own = (project, *([write_wheel(vocabularies, temporary)] if vocabularies else []))
        links |= {"vocabularies": own[1]} if vocabularies else {}
        return run_step(
            "wheels",
            folder=folder,
            inputs={"project": project, **links},
            settings=settings,
            build=lambda into: _fill(into, requirements, own=own, find_links=find_links, added=added),
            # The project\'s own wheel, wheels added by hand and more requirements: what was downloaded stays.
            leftovers=Leftovers(overwrite=overwrite, extends=is_same_or_more, writes=("*.whl", SUMS, LOCK)),
        )


def adopt_added(folder: Path) -> Path:
    """Move wheels that no build has put into a wheelhouse beside it; return the folder of all wheels added so."""
    added = folder.with_name(f"{folder.name}-added")
    made = read_manifest(folder).get("outputs") if (folder / MANIFEST).is_file() else None
    if isinstance(made, dict):
        for wheel in folder.glob("*.whl"):
            if wheel.name not in made:
                added.mkdir(exist_ok=True)
                wheel.rename(added / wheel.name)
    return added


def is_same_or_more(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Return whether a wheelhouse can be made of another one by adding to it.

    The image and `find_links` must be the same; the project and the wheels added by hand may be others.
    """
    inputs, settings = ([one[part] for one in (old, new)] for part in ("inputs", "settings"))
    same_links = inputs[0].get("find_links") == inputs[1].get("find_links")
    needed = [set(one.get("requirements", [])) for one in settings]
    rest = [{name: value for name, value in one.items() if name != "requirements"} for one in settings]
    return same_links and needed[0] <= needed[1] and rest[0] == rest[1]


def _fill(
    folder: Path, requirements: Sequence[str], *, own: Sequence[Path], find_links: Path | None, added: Path
) -> dict[str, object]:
    index = ["--no-index", "--find-links", str(find_links)] if find_links else []
    by_hand = sorted(added.glob("*.whl")) if added.is_dir() else []
    # A folder of wheels lacks the image's own packages, so dependencies could not be resolved from it.
    pins = resolve(requirements, options=[*index, "--no-deps"] if index else []) if requirements else []
    instead = {_package_of(wheel) for wheel in by_hand}
    lock = [pin for pin in pins if canonicalize(pin.split("==")[0]) not in instead]
    _delete_others(folder, keep=lock)
    for wheel in (*own, *by_hand):
        shutil.copyfile(wheel, folder / wheel.name)
    write_atomically(folder / LOCK, "".join(f"{line}\n" for line in lock))
    if lock:
        _pip("download", "-r", str(folder / LOCK), "--no-deps", "-d", str(folder), *index, *_target())
    verify(folder)
    wheels = sorted(folder.glob("*.whl"))
    write_atomically(folder / SUMS, "".join(f"{sha256_file(wheel)}  {wheel.name}\n" for wheel in wheels))
    size = sum(wheel.stat().st_size for wheel in wheels)
    return {"wheels": len(wheels), "bytes": size, "locked": lock, "added": [wheel.name for wheel in by_hand]}


def download(folder: Path, lock: Path, *, find_links: Path | None = None, python: str = PYTHON) -> None:
    """Download the wheels of a lock for the image's platform, each by its hash.

    Raises:
        UserError: one cannot be had.
    """
    index = ["--no-index", "--find-links", str(find_links)] if find_links else []
    words = ["-r", str(lock), "--require-hashes", "--no-deps", "-d", str(folder)]
    _pip("download", *words, *index, *_target(python))


def _delete_others(folder: Path, *, keep: Sequence[str]) -> None:
    """Delete the wheels of an earlier build that are not among the pins: the notebook would install both versions."""
    pins = {(canonicalize(name), version) for name, _, version in (pin.partition("==") for pin in keep)}
    for wheel in folder.glob("*.whl"):
        if (_package_of(wheel), wheel.name.split("-")[1]) not in pins:
            wheel.unlink()


def _package_of(wheel: Path) -> str:
    return canonicalize(wheel.name.split("-")[0])


def canonicalize(name: str) -> str:
    """Return a package's name as the packaging standard writes it."""
    from packaging.utils import canonicalize_name

    return canonicalize_name(name)


def resolve(requirements: Sequence[str], *, options: Sequence[str] = ()) -> list[str]:
    """Return pins, NAME==VERSION, of what must be shipped: the solution for the image, less what it has already.

    Args:
        requirements: as in a requirements file.
        options: more arguments for uv.

    Raises:
        UserError: there is no solution, or only one of an ancient version.
    """
    solution = compile_pins(requirements, options=options)
    # A folder of wheels has no dates, and holds what somebody chose.
    if not options:
        require_recent(requirements, dict(re.findall(r"(?m)^([^=\s]+)==([^\s;]+)", solution)))
    return pins_to_ship(solution)


def pins_to_ship(solution: str) -> list[str]:
    """Return the pins to ship: not in the image and not only a dependency of something that is.

    >>> pins_to_ship("a==1 # via -r -\\ntorch==2.10.0 # via a\\nnvidia-x==9 # via torch\\nb==2 # via a, torch")
    ['a==1', 'b==2']
    """
    image, parents = image_packages(), dict[str, tuple[str, set[str]]]()
    for line in solution.splitlines():
        pin, _, why = line.partition("#")
        if name := pin.split("==")[0].strip():
            # uv annotates each pin with what requires it; "-r -" is the requirements themselves, read from stdin.
            via = {part.strip() for part in re.sub(r"^\s*via", "", why).split(",")}
            parents[name] = (pin.strip(), via)
    kept = {name for name, (_, via) in parents.items() if via & {"-r -", "-"} or "" in via} - set(image)
    # Dependencies of what is shipped are shipped too, those of the image's packages are not.
    while more := {n for n, (_, via) in parents.items() if via & kept and n not in image} - kept:
        kept |= more
    return [pin for name, (pin, _) in sorted(parents.items()) if name in kept]


def verify(folder: Path) -> None:
    """Prove that every file is a wheel that the image's pip installs without an index.

    Raises:
        UserError: a file is no wheel, there is no wheel, or one has tags that the image does not take.
    """
    allowed = {SUMS, LOCK, "manifest.json", "started.json", HOLDER}
    if strangers := [path.name for path in folder.iterdir() if path.suffix != ".whl" and path.name not in allowed]:
        raise UserError(
            "a wheelhouse holds wheels only: Kaggle unpacks archives, and an sdist cannot be built there",
            value=", ".join(sorted(strangers)),
            cure="delete them, and choose versions that have wheels",
        )
    wheels = sorted(str(path) for path in folder.glob("*.whl"))
    if not wheels:
        raise UserError("a wheelhouse needs the project's wheel", value=f"none in {folder}", cure="run `submit wheels`")
    nowhere = folder.parent / f".{folder.name}-dry-run"
    _pip("install", "--no-index", "--no-deps", "--dry-run", "--target", str(nowhere), *_target(), *wheels)


def verify_sums(folder: Path) -> None:
    """Prove that the wheels are those of SHA256SUMS.

    Raises:
        UserError: one is missing, new or changed.
    """
    sums = folder / SUMS
    text = sums.read_text(encoding="utf-8", errors="replace") if sums.is_file() else ""
    # A line that is no hash with its name lists nothing.
    listed = {name: digest for digest, name in re.findall(r"(?m)^([0-9a-f]{64})  (\S+)$", text)}
    there = {name: digest for name, digest in sha256_tree(folder).items() if name.endswith(".whl")}
    if listed != there:
        changed = sorted(name for name in {*listed, *there} if listed.get(name) != there.get(name))
        raise UserError(
            f"the wheels must be those of {SUMS}", value=", ".join(changed) or "no wheel", cure="run `submit wheels`"
        )


def _target(python: str = PYTHON) -> list[str]:
    words = ["--only-binary=:all:", "--python-version", python, "--implementation", "cp"]
    for abi in (f"cp{python.replace('.', '')}", "abi3", "none"):
        words += ["--abi", abi]
    # pip takes each platform tag literally: with manylinux_2_28 alone it refuses a manylinux2014 wheel.
    for platform in platforms():
        words += ["--platform", platform]
    return words


def _build_wheel(root: Path, into: Path) -> Path:
    """Build the project's wheel. By its build backend itself: pip would start that three times for the same bytes."""
    command = [sys.executable, "-P", "-m", "hatchling", "build", "--target", "wheel", "--directory", str(into)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(
            f"hatchling must build a wheel of {root}",
            value=" ".join(done.stderr.split())[-500:],
            cure="pip install 'hatchling>=1.27'; or mend what it names",
        )
    (wheel,) = into.glob("*.whl")
    return wheel


def _pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", *words, "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()[-1:]
        raise UserError(
            f"pip {words[0]} must find a wheel that Kaggle's image takes",
            value=" ".join(" ".join(lines).split())[:500],
            cure="choose a version that has a wheel for it, or take the requirement out",
        )
