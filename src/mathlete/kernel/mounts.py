"""Where Kaggle mounts an input: in 2026 there are two layouts, and a notebook must find its files in either.

`find_input` and `find_changes` are also pasted into the notebook, which needs them before this package is installed:
they must need no more than the imports above them.
"""

import hashlib
from pathlib import Path
from typing import Any


def find_input(kind: str, source: str, root: str = "/kaggle/input") -> Path:
    """Return the folder where an input is mounted, in either of the two layouts.

    Args:
        kind: "competitions", "datasets", "models" or "notebooks".
        source: as kernel-metadata.json writes it: a slug, owner/slug, or owner/model/framework/variation/version.
        root: where inputs are mounted.

    Raises:
        FileNotFoundError: it is in neither; the message lists what is there.
    """
    parts = source.split("/")
    # /kaggle/input/models/owner/model/framework/variation/version, and without kind and owner before 2026.
    candidates = [Path(root, kind, *parts), Path(root, *parts[1:] or parts)]
    if kind == "models":
        # Kaggle writes the framework's name in its own case.
        candidates += [Path(root, kind, *parts[:2], parts[2].title(), *parts[3:])]
        candidates += [Path(root, parts[1], parts[2].title(), *parts[3:])]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    there = sorted(str(path.relative_to(root)) for path in Path(root).glob("*/*"))[:20]
    raise FileNotFoundError(f"{kind} {source} is not mounted; {root} holds {there}")


def find_changes(wheels: Path, model: Path, built: dict[str, Any]) -> list[str]:
    """Return in words what is mounted otherwise than it was built; weights are compared by their sizes alone.

    Args:
        wheels: the mounted data set.
        model: the mounted model.
        built: {"wheels": {name: SHA-256}, "config": SHA-256 of config.json, "weights": {name: bytes}}.
    """

    def digest(file: Path) -> str:
        with file.open("rb") as data:
            return hashlib.file_digest(data, "sha256").hexdigest()

    there = {path.name: digest(path) for path in wheels.rglob("*.whl") if path.is_file()}
    config = model / "config.json"
    compared = [
        *((f"wheel {name}", built["wheels"].get(name), there.get(name)) for name in {**built["wheels"], **there}),
        ("config.json", built["config"], digest(config) if config.is_file() else None),
    ]
    for name, size in built["weights"].items():
        weights = model / name
        compared.append((name, size, weights.stat().st_size if weights.is_file() else None))
    words = {True: "is missing", False: "is another"}
    return [f"{name} {words[now is None]}" if old else f"{name} is new" for name, old, now in compared if old != now]
