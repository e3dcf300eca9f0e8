"""The data files that the project ships: `data/` of a checkout, or the copy inside an installed wheel."""

from pathlib import Path

from mathlete.errors import nearest


def data_folder() -> Path:
    """Return the project's data: `data/` of a checkout, or the copy inside an installed wheel."""
    installed = Path(__file__).parent / "_data"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "data"


def name_recording(folder: Path) -> str:
    """Return what a person calls a run's folder: its path, of a recording that the project ships its name."""
    return folder.name if folder.parent == data_folder() / "recordings" else str(folder)


def find_recording(folder: Path) -> Path:
    """Return the folder of a run: the one given, or where there is none of that name, the recording that the project
    ships."""
    shipped = data_folder() / "recordings" / folder.name
    return shipped if not folder.exists() and folder.name == str(folder) and shipped.is_dir() else folder


def suggest_recording(folder: Path) -> str:
    """Return the cure for a run's folder that is not there: a path to check, or for a bare name a shipped recording."""
    if str(folder) != folder.name or folder.name == "..":
        return "check the path"
    known = sorted(path.name for path in (data_folder() / "recordings").iterdir())
    return f"check the path, or name a shipped recording: {nearest(folder.name.lower(), known)}"
