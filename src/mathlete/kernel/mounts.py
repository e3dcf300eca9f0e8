"""Where Kaggle mounts an input: in 2026 there are two layouts, and a notebook must find its files in either.

`find_input` is also pasted into the notebook, which needs it before this package is installed: it must stay
self-contained.
"""

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
