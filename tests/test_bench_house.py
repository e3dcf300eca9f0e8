"""The figures of the house: each way to count, on a small tree whose counts are known."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.house import Figures, Spread, measure, named_folders, read_coverage
from bench.source.classes import count_settings, find_repeated_names
from bench.source.modules import read_modules

SCRIPT = Path(__file__).parents[1] / "bench" / "house.py"

FILES = {
    "src/mathlete/__init__.py": '"""The house."""\n',
    "src/mathlete/errors.py": "class Wrong(Exception):\n    pass\n",
    "src/mathlete/shut/__init__.py": 'from mathlete.shut.door import opened\n\n__all__ = ["opened", "again"]\n',
    "src/mathlete/shut/door.py": "def opened():\n    from mathlete.shut import hinge\n\n    return hinge\n",
    "src/mathlete/shut/hinge.py": "from .door import opened\n",
    "src/mathlete/open/__init__.py": '"""No list of names."""\n',
    "src/mathlete/open/first.py": "import mathlete.open.inner.deep\n",
    "src/mathlete/open/inner/__init__.py": "",
    "src/mathlete/open/inner/deep.py": "from ..last import x\n",
    "src/mathlete/open/last.py": "x = 1\n",
    "src/train/__init__.py": "",
    "src/train/steps.py": "if TYPE_CHECKING:\n    from mathlete.open.first import mathlete\n",
    "eval/__init__.py": "from mathlete.shut import opened\n",
    "eval/run.py": "def go():\n    from mathlete.open.inner import deep\n    from mathlete.open import last as found\n",
    "tests/test_it.py": "found = 1\n",
}

WORDS = '''"""Two lines

of text: nothing was found."""
# noqa: F401
import typing
from typing import Any

LIMIT = 1  # beside code
"""Of a field."""


class Holder:
    """Holds."""

    # Why it is so,
    # on two lines.
    found: "dict[str, Any]"

    def take(self, found: typing.Any, *more: int) -> "typing.Mapping[str, object]":
        for found in more:
            pass
        try:
            found = [found for found in more]
        except ValueError as found:
            pass
        return dict[str, int | None](other=(found := 1))
'''

HARD = """def hard(rows, one):
    # Why.
    for row in rows:
        # Because
        # of this.
        if row and one or not row:
            while row:
                one = 1 if row else 2  # kept
        elif one:
            pass
        else:
            pass

    def inner(x: int | None) -> int | None:
        return x

    try:
        # noqa
        return [x for x in rows if x]
    except ValueError:
        match one:
            case 1:
                return rows[one[0]] | rows[one > 1]
"""


def tree(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


def measure_paths(*paths: Path) -> Figures:
    ((name, folders),) = named_folders([f"it={path}" for path in paths]).items()
    return measure(name, read_modules(folders), hardest=40)


def test_rooms_have_doors_faces_and_circles(tmp_path: Path) -> None:
    figures = measure_paths(tree(tmp_path, FILES))
    rooms = {room.name: room for room in figures.rooms}
    assert sorted(rooms) == ["eval", "mathlete.open", "mathlete.shut", "train"]
    shut = rooms["mathlete.shut"]
    assert (shut.files, shut.doors, shut.only_face, shut.face_names) == (3, ("mathlete.shut",), True, 2)
    # `from mathlete.shut import hinge`, in a function, is an import of the module and not of the face.
    assert shut.circles == (("mathlete.shut.door", "mathlete.shut.hinge"),)
    doors = rooms["mathlete.open"].doors
    assert doors == ("mathlete.open.first", "mathlete.open.inner.deep", "mathlete.open.last")
    assert (rooms["mathlete.open"].files, rooms["mathlete.open"].only_face) == (5, False)
    assert rooms["mathlete.open"].face_names is None
    assert not rooms["mathlete.open"].circles
    assert not rooms["train"].doors
    # tests are no part of the tree; `last as found` binds the name.
    assert (figures.files, figures.found_bound, figures.circles) == (14, 1, 1)


def test_prose_names_and_types(tmp_path: Path) -> None:
    figures = measure_paths(tree(tmp_path, {"words/__init__.py": WORDS}) / "words")
    assert figures.lines == WORDS.count("\n") == 26
    # Of 20 lines that are not blank 2 hold a comment that is no note to a tool, 4 belong to docstrings.
    assert figures.comment_lines_in_100 == pytest.approx(100 * 2 / 20, abs=0.01)
    assert figures.docstring_lines_in_100 == pytest.approx(100 * 4 / 20, abs=0.01)
    # field, argument, loop, assignment, comprehension, handler, walrus
    assert (figures.found_bound, figures.found_written) == (7, 9)
    assert figures.found_bound_in_1000_lines == pytest.approx(1000 * 7 / 26, abs=0.01)
    assert (figures.names_any, figures.loose_dicts, figures.loose_mappings) == (2, 1, 1)


def test_hardness_comments_and_lengths(tmp_path: Path) -> None:
    figures = measure_paths(tree(tmp_path, {"some/hard.py": HARD}) / "some")
    hard, inner = figures.hardest
    # 1, for 1, if in it 2, `and` and `or` 2, while 3, conditional 1, elif 2, comprehension and its `if` 2, handler 1,
    # case in it 2, mask 1, an index of an index 1, an index that compares 1
    assert (hard.name, hard.hardness, hard.lines) == ("some.hard.hard", 20, 23)
    assert (hard.comments, hard.is_typed) == (3, False)
    assert (inner.name, inner.hardness, inner.comments, inner.is_typed) == ("some.hard.hard.inner", 1, 0, True)
    assert figures.typed_functions_in_100 == 50
    assert figures.hardest_with_2_comments == 1
    assert figures.lines_of_functions == Spread(median=12.5, p90=23, max=23)


def test_several_folders_are_one_tree(tmp_path: Path) -> None:
    tree(tmp_path, {"a/one.py": "from b.two import x\n", "b/two.py": "x = 1\n", "b/three.py": "\n\n"})
    figures = measure_paths(tmp_path / "a", tmp_path / "b")
    assert (figures.files, figures.lines_of_files) == (3, Spread(median=1, p90=2, max=2))
    assert [(room.name, room.doors) for room in figures.rooms] == [("b", ("b.two",))]


def test_coverage_has_totals_and_the_ten_weakest(tmp_path: Path) -> None:
    def summary(covered: int, of: int) -> dict[str, int]:
        return {"covered_lines": covered, "num_statements": of, "covered_branches": 3, "num_branches": 4}

    files = {f"{count:02}.py": {"summary": summary(count, 20)} for count in range(12)}
    files["empty.py"] = {"summary": summary(0, 0)}
    (tmp_path / "coverage.json").write_text(json.dumps({"totals": summary(66, 240), "files": files}))
    coverage = read_coverage(tmp_path / "coverage.json")
    assert (coverage.lines, coverage.branches) == (27.5, 75)
    assert coverage.weakest[0] == ("00.py", 0)
    assert coverage.weakest[-1] == ("09.py", 45)


def test_the_script_ends_with_a_line_of_json(tmp_path: Path) -> None:
    tree(tmp_path, FILES)
    words = [sys.executable, str(SCRIPT), f"small={tmp_path}", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    *printed, line = done.stdout.strip().splitlines()
    assert json.loads(line)["trees"][0]["found_bound"] == 1
    assert any(row.split() == ["mathlete.shut", "3", "1", "yes", "2", "door–hinge"] for row in printed)


def test_a_tree_without_a_name_or_files_is_refused(tmp_path: Path) -> None:
    for words in ("nothing", f"empty={tmp_path}"):
        with pytest.raises(SystemExit, match="NAME=PATH"):
            named_folders([words])


CLASSES = {
    "src/mathlete/one.py": "class Twice:\n    a: int\n\n\nclass _Twice:\n    pass\n",
    "src/mathlete/two.py": "class Twice:\n    b: int\n    c: ClassVar[int]\n\n\nclass _Twice:\n    pass\n",
    "src/mathlete/rules.py": "class Config:\n    rules: Rules\n\n\nclass Rules:\n    a: int\n",
    "src/train/settings.py": "class Settings:\n    part: Annotated[Part, 1] = Part()\n    more: int\n\n\n"
    "class Part:\n    a: int\n    b: Inner | None\n    c: str\n\n    def check(self) -> None:\n        a: int\n",
    "src/train/inner.py": "class Inner:\n    a: Settings\n",
    "eval/__init__.py": "",
}  # fmt: skip


def test_names_and_settings_of_classes_are_counted(tmp_path: Path) -> None:
    for name, text in CLASSES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for package in ("mathlete", "train"):
        (tmp_path / "src" / package / "__init__.py").touch()
    (folders,) = named_folders([f"x={tmp_path}"]).values()
    modules = read_modules(folders)
    assert find_repeated_names(modules) == {"Twice": ["mathlete.one", "mathlete.two"]}
    # What a command's settings are made of, and what is named so; the rules of a file of data are no settings.
    assert count_settings(modules) == {"Config": 1, "Inner": 1, "Part": 3, "Settings": 2}
