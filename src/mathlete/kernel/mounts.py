"""Where Kaggle mounts an input: in 2026 there are two layouts, and a notebook must find its files in either.

`find_input` and `find_changes` are also pasted into the notebook, which needs them before this package is installed:
they must need no more than the imports above them.
"""

import hashlib
from pathlib import Path


def find_input(kind: str, source: str, root: str = "/kaggle/input") -> Path:
    """Return the folder where an input is mounted, in either of the two layouts.

    Args:
        kind: "competitions", "datasets", "models" or "notebooks".
        source: as kernel-metadata.json writes it: a slug, owner/slug, or owner/model/framework/variation/version.
        root: where inputs are mounted.

    Raises:
        FileNotFoundError: it is in neither; the message lists what is there.
    """
    # A data set's version is mounted without its number.
    parts = source.split("/")[: 2 if kind in ("datasets", "notebooks") else None]
    # /kaggle/input/models/owner/model/framework/variation/version, and without kind and owner before 2026.
    for place in ([kind, *parts], parts[1:] or parts):
        found = [Path(root)]
        for name in place:
            inside = [path for folder in found if folder.is_dir() for path in folder.iterdir()]
            # Kaggle's metadata and pages write Transformers or PyTorch, and what is mounted has small letters.
            found = [path for path in sorted(inside) if path.name.lower() == name.lower()]
        found.sort(key=lambda path: path.parts[-len(place) :] != tuple(place))
        if folder := next(filter(Path.is_dir, found), None):
            return folder
    there = sorted(str(path.relative_to(root)) for path in Path(root).glob("*/*"))[:20]
    raise FileNotFoundError(f"{kind} {source} is not mounted; {root} holds {there}")


def find_changes(wheels: Path, model: Path, *, sums: dict[str, str], config: str, weights: dict[str, int]) -> list[str]:
    """Return in words what is mounted otherwise than it was built; weights are compared by their sizes alone.

    Args:
        wheels: the mounted data set.
        model: the mounted model.
        sums: {wheel: its SHA-256}.
        config: SHA-256 of the model's config.json.
        weights: {file of weights: its bytes}.
    """

    def digest(file: Path) -> str:
        with file.open("rb") as data:
            return hashlib.file_digest(data, "sha256").hexdigest()

    there = {path.name: digest(path) for path in wheels.rglob("*.whl") if path.is_file()}
    built: dict[str, object] = {**sums, "config.json": config, **weights}
    now: dict[str, object] = {**there}
    for name in ("config.json", *weights):
        if (model / name).is_file():
            now[name] = digest(model / name) if name == "config.json" else (model / name).stat().st_size
    words = [f"{name} is {'another' if name in now else 'missing'}" for name in built if built[name] != now.get(name)]
    return words + [f"{name} is new" for name in now if name not in built]
