"""Which modules a command means: Python's and its own, never files of the folder that the user works in.

`python -m NAME` looks there first: a random.py of the user's, or a train.py, would be imported in place of Python's own
and of this project's. It imports nothing that could be such a file itself.
"""

import os
import sys

_OWN = {"mathlete", "train", "eval", "submit"}


def forget_working_folder() -> None:
    """Leave the working folder out of where modules are looked for; in processes begun later too, if it hides any.

    A checkout of this project stays: its packages lie there.
    """
    here = os.getcwd()  # noqa: PTH109
    if os.path.isdir(os.path.join(here, "src", "mathlete")):  # noqa: PTH112, PTH118
        return
    if sys.path[:1] in ([""], [here]):
        del sys.path[0]
    if find_hiding_files(here):
        os.environ["PYTHONSAFEPATH"] = "1"


def find_hiding_files(folder: str) -> list[str]:
    """Return the entries of a folder that are named as a module of Python's library or of this project.

    >>> find_hiding_files(os.devnull)
    []
    """
    try:
        names = os.listdir(folder)  # noqa: PTH208
    except OSError:
        return []
    return sorted(name for name in names if name.removesuffix(".py") in sys.stdlib_module_names | _OWN)
