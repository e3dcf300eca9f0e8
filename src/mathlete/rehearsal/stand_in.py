"""The competition's data as a notebook sees it here: placeholder questions, and its evaluation package or a stand-in.

The stand-in holds its own copy of our gateway's modules, because a notebook imports kaggle_evaluation before it
installs anything.
"""

import csv
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from mathlete.competitions import Competition
from mathlete.errors import UserError, nearest
from mathlete.rehearsal import gateway
from mathlete.rehearsal.gateway.behaviours import PACKAGES, Behaviour
from mathlete.rehearsal.real_package import PACKAGE, find_real_package

_COPIED = ("behaviours", "gateway", "relay", "submission", "wire")
_CORE = f"{PACKAGE}.core"


def choose_behaviour(rules: Competition, *, version: str | None = None) -> Behaviour:
    """Return the behaviour of a competition's gateway, with its own version of the package or another one.

    >>> from mathlete.competitions import competition
    >>> choose_behaviour(competition("aimo-3")).package.version
    '0.9.0'

    Raises:
        UserError: its package was not measured.
    """
    wanted = version or str(rules.notebook.gateway.package)
    if wanted not in PACKAGES:
        raise UserError(
            f"gateway.package of {rules.name} must be a measured one for a rehearsal",
            value=repr(wanted),
            cure=f"{nearest(wanted, [*PACKAGES])}; or choose one with --behaviour, or rehearse with --real-package",
        )
    return Behaviour(
        package=PACKAGES[wanted],
        id_column=rules.columns[0],
        submission_id=rules.submission_columns[0],
        target=rules.submission_columns[1] if rules.notebook.gateway.names_columns else "",
        deadline_s=rules.notebook.predict_deadline_s,
    )


def write_csv(file: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table as a test.csv."""
    with file.open("w", encoding="utf-8", newline="") as lines:
        csv.writer(lines).writerows([columns, *rows])


def write_stand_in(
    folder: Path, rules: Competition, *, version: str | None = None, real_package: Path | None = None
) -> None:
    """Write the competition's data as the notebook sees it: placeholder questions and the evaluation package.

    Args:
        folder: made here.
        rules: the competition's.
        version: of the package to imitate; None: the competition's.
        real_package: folder that holds Kaggle's own package, which is copied instead.

    Raises:
        UserError: it does not.
    """
    folder.mkdir()
    write_csv(folder / "test.csv", rules.columns, [*rules.placeholders.items()])
    if rules.notebook.gateway.api == "iterator":
        (folder / f"{rules.notebook.gateway.module}.py").write_text(
            "from pathlib import Path\n\nfrom mathlete.rehearsal.gateway import iterator\n\n\n"
            "def make_env():\n"
            f"    names = {{'id_column': {rules.columns[0]!r}, 'submission_columns': {rules.submission_columns!r}}}\n"
            "    return iterator.make_env(str(Path(__file__).parent), **names)\n"
        )
    elif real_package is not None:
        shutil.copytree(find_real_package(real_package, rules).folder, folder / PACKAGE)
    else:
        _write_package(folder / PACKAGE, rules, choose_behaviour(rules, version=version))


def _write_package(package: Path, rules: Competition, behaviour: Behaviour) -> None:
    core = package / "core"
    core.mkdir(parents=True)
    (package / "__init__.py").write_text(f"__version__ = {behaviour.package.version!r}\n")
    for name in _COPIED:
        text = Path(gateway.__path__[0], f"{name}.py").read_text(encoding="utf-8")
        (core / f"{name}.py").write_text(text.replace(gateway.__name__, _CORE), encoding="utf-8")
    module = rules.notebook.gateway.module
    # As in the one competition seen with 1.4.0, whose two modules lie in a sub-package with its number.
    if behaviour.package.tells_port and "." not in module:
        module = f"{re.sub('[^a-z0-9]+', '_', rules.name)}_000000.{module}"
    file = package.joinpath(*module.split(".")).with_suffix(".py")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(
        f"from {_CORE}.behaviours import Behaviour, Package\n"
        f"from {_CORE}.gateway import InferenceServer\n\n\n"
        f"class {rules.notebook.gateway.server}(InferenceServer):\n"
        "    def __init__(self, *listeners, **options):\n"
        f"        super().__init__(*listeners, behaviour={behaviour!r}, **options)\n"
    )
