"""The source itself: layout, names that must not appear, faces and arrows of the rooms. `make check` runs it."""

import ast
import re
import subprocess
from collections.abc import Collection
from functools import cache
from pathlib import Path

import pytest

from bench.house import measure, named_folders
from bench.source.classes import count_settings, find_repeated_names
from bench.source.modules import Module, read_modules

FORBIDDEN = re.compile(r"/(?:work|root|opt)/\w|\bpypi\.org|npmjs\.|debian\.org")


def list_tracked(root: Path, *suffixes: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("needs a git checkout")
    paths = (root / line for line in listed.stdout.splitlines())
    return [path for path in paths if path.suffix in suffixes and path.is_file()]


def test_no_file_is_longer_than_400_lines(root: Path) -> None:
    long = {p.name: n for p in list_tracked(root, ".py") if (n := len(p.read_text().splitlines())) > 400}
    assert not long


RULED_FROM = "aa3893b"
"""The last commit before the rule on subjects was held by a test: an older subject can no longer be mended."""


def test_subjects_of_commits_are_short_imperatives(root: Path) -> None:
    log = ["git", "log", "--no-merges", "--format=%s", f"{RULED_FROM}..HEAD"]
    listed = subprocess.run(log, cwd=root, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("needs a git checkout with its history")
    for subject in listed.stdout.splitlines():
        assert len(subject) <= 72, subject
        # "Adds", "Added", "Adding" and "RESULTS: ..." are the usual slips; "Pass" and "Need" are imperatives.
        assert re.fullmatch(r"[A-Z][a-z]+", first := subject.split()[0]), subject
        assert not re.search(r"[^s]s$|ing$|[^e]ed$|^The$|^A$", first), subject


def test_no_machine_path_or_registry_host_is_named(root: Path) -> None:
    texts = list_tracked(root, ".py", ".md", ".toml", ".txt", ".json", ".yml")
    named = {
        p.name: matches[0]
        for p in texts
        if p.name != Path(__file__).name and (matches := FORBIDDEN.findall(p.read_text()))
    }
    assert not named


HONEST_RECURSION = {
    frozenset(f"mathlete.answers.{name}" for name in ("grammar", "commands", "operators", "suffixes")),
}
"""Modules that may import each other: an expression holds commands, operators and suffixes, which hold expressions."""


def modules_of_room(room: Path) -> dict[str, Path]:
    """Return the files of a room by the dotted name of their module."""
    names = {path: path.relative_to(room.parents[1]).with_suffix("").parts for path in room.rglob("*.py")}
    return {".".join(parts[:-1] if parts[-1] == "__init__" else parts): path for path, parts in names.items()}


@cache
def imports_in(file: Path) -> tuple[ast.Import | ast.ImportFrom, ...]:
    """Return all imports of a file, in functions and for type checking too."""
    nodes: list[ast.AST] = [ast.parse(file.read_text())]
    # The list grows as it is read. Expressions, most of a file's nodes, hold no imports.
    for node in nodes:
        nodes += [child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.expr)]
    return tuple(node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom))


def find_imports(name: str, modules: dict[str, Path]) -> set[str]:
    """Return the modules of the room that a module imports anywhere: in functions and for type checking too."""
    imported: set[str] = set()
    for node in imports_in(modules[name]):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif node.module:
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}
            imported |= {submodule if submodule in modules else node.module for submodule in submodules}
    return imported & modules.keys() - {name}


def circles(arrows: dict[str, set[str]]) -> set[frozenset[str]]:
    """Return the largest groups of modules that all reach each other."""
    reached: dict[str, set[str]] = {}
    for name in arrows:
        reached[name], stack = set(), [name]
        while stack:
            new = arrows[stack.pop()] - reached[name]
            reached[name] |= new
            stack.extend(new)
    return {
        frozenset(other for other in reached[name] if name in reached[other])
        for name in arrows
        if name in reached[name]
    }


def test_circles_are_seen_in_arrows() -> None:
    arrows = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a", "e"}, "e": set(), "f": {"f"}}
    assert circles(arrows) == {frozenset("abc"), frozenset("f")}


def test_no_modules_of_a_room_import_each_other(root: Path) -> None:
    rooms = [path.parent for path in sorted((root / "src/mathlete").glob("*/__init__.py"))]
    assert {"answers", "corpus", "tune"} <= {room.name for room in rooms}
    seen: set[frozenset[str]] = set()
    for room in rooms:
        modules = modules_of_room(room)
        seen |= circles({name: find_imports(name, modules) for name in modules})
    assert seen == HONEST_RECURSION


SUB_ROOMS = {
    "mathlete.sampling.embedded",
    "mathlete.sampling.served",
    "mathlete.export.formats",
    "mathlete.export.records",
    "mathlete.export.lab",
    "mathlete.delivery.hub",
    "mathlete.submission.adapter",
    "mathlete.submission.training",
    "mathlete.rehearsal.adapter",
    "mathlete.delivery.adapter",
}
"""Packages inside a room that have a face of their own."""


def faces(root: Path) -> dict[str, Path]:
    """Return {room: its __init__.py}, with the rooms inside rooms."""
    files = {f"mathlete.{path.parent.name}": path for path in (root / "src/mathlete").glob("*/__init__.py")}
    return files | {name: root / "src" / name.replace(".", "/") / "__init__.py" for name in SUB_ROOMS}


def imports_past_faces(file: Path, *, own: str, rooms: set[str], all_modules: Collection[str]) -> list[str]:
    """Return the modules inside other rooms that a file imports from."""
    modules: list[str] = []
    for node in imports_in(file):
        if isinstance(node, ast.ImportFrom) and node.module in rooms:
            # A name of the room's face, or a module inside it.
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            modules += [name for name in names if name in all_modules and name not in rooms]
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.append(node.module)
        elif isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
    modules = [module for module in modules if module.startswith("mathlete.")]
    inside = [module for module in modules if module not in rooms and module.rpartition(".")[0].count(".") >= 1]
    return [module for module in inside if not own.startswith(".".join(module.split(".")[:2]) + ".")]


def test_an_import_past_a_face_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text(
        "from mathlete.errors import UserError\n"
        "from mathlete.rows import Rows\n"
        "def f():\n    from mathlete.tune.plan import make_plan\n"
        "import mathlete.tune.ranks\n"
        "from mathlete.tune import Recipe, curve\n"
    )
    rooms, modules = {"mathlete.rows", "mathlete.tune"}, {"mathlete.tune.curve", "mathlete.rows.step"}
    past = ["mathlete.tune.ranks", "mathlete.tune.curve", "mathlete.tune.plan"]
    assert imports_past_faces(file, own="mathlete.rows.step", rooms=rooms, all_modules=modules) == past
    assert imports_past_faces(file, own="mathlete.tune.step", rooms=rooms, all_modules=modules) == []


def test_a_room_is_entered_by_its_face(root: Path) -> None:
    files = [(path, path.relative_to(root / "src")) for path in (root / "src").rglob("*.py")]
    files += [(path, path.relative_to(root)) for path in (root / "eval").rglob("*.py")]
    rooms = set(faces(root))
    names = {name.removeprefix("src.") for name in modules_of_room(root / "src/mathlete")}
    assert rooms < names
    past = {
        str(name): modules
        for path, name in files
        if (
            modules := imports_past_faces(
                path, own=".".join(name.with_suffix("").parts), rooms=rooms, all_modules=names
            )
        )
    }
    assert past == {}


def test_a_face_says_what_the_room_is_for_and_names_three_to_ten(root: Path) -> None:
    for room, file in faces(root).items():
        tree = ast.parse(file.read_text())
        names = next(
            ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
        )
        assert 3 <= len(names) <= 10, room
        text = ast.get_docstring(tree) or ""
        assert len(text.split()) >= 15, room
        assert ">>>" in text, f"{room} has no example"


@pytest.fixture(scope="module")
def modules(root: Path) -> list[Module]:
    """All of src and eval, read once."""
    (folders,) = named_folders([f"mathlete={root}"]).values()
    return read_modules(folders)


def test_the_figures_of_the_house_hold(modules: list[Module]) -> None:
    figures = measure("mathlete", modules, hardest=40)
    assert figures.names_any < 250
    assert figures.found_bound_in_1000_lines < 0.2
    assert figures.hardest_with_2_comments == 40


def test_a_public_class_name_has_one_meaning(modules: list[Module]) -> None:
    assert find_repeated_names(modules) == {}


NO_VERB = re.compile(
    r"((The|An?|Whether|What|How|Why|Which|Each|Both|True|False|(Hash|Share|Seconds|Probability|Bytes|Mean) of)\b"
    r"|[({`]).*",
    re.DOTALL,
)


def test_the_docstring_of_a_function_says_what_it_does(modules: list[Module]) -> None:
    """An imperative, as in "Return the …"; a rule of `solve.stopping` says when it holds."""
    without = {
        f"{module.name}.{node.name}": text.splitlines()[0]
        for module in modules
        if module.name != "mathlete.solve.stopping"
        for node in module.nodes
        if isinstance(node, ast.FunctionDef) and node.name != "__init__"
        if not any("property" in ast.unparse(one) for one in node.decorator_list)
        if (text := ast.get_docstring(node) or "Return it.") and NO_VERB.fullmatch(text)
    }
    assert without == {}


def test_a_class_of_settings_has_twelve_fields_at_most(root: Path, modules: list[Module]) -> None:
    """More of them are groups, whose names need not show (`mathlete.settings`)."""
    benches = [count_settings([module]) for module in read_modules([root / "bench"])]
    counts = {**count_settings(modules), **{f"bench {at}": max(own.values()) for at, own in enumerate(benches) if own}}
    assert {"BuildSettings", "Solving", "Tune", "KernelConfig", "VllmSettings", "Survival"} <= counts.keys()
    assert {name: count for name, count in counts.items() if count > 12} == {}
