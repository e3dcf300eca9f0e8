"""The sandbox's table in docs/solving.md against what programs see, behind every set of layers and as every user."""

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from mathlete.tir.protection import usable_layers
from mathlete.tir.readable import readable_paths
from tests.conftest import POCKET_VAL, ROOT, sample
from tests.sandbox_programs import CREDENTIALS, GROUPS, MARK, RUNS

SCRIPT = ROOT / "tests" / "sandbox_programs.py"
NOBODY = 65534
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
SITE = sysconfig.get_path("purelib")


@dataclass(frozen=True)
class Setting:
    """Layers, and the user whose evaluation uses them."""

    column: str
    """Of the table; of several layers that which hides most."""
    layers: tuple[str, ...]
    nobody: bool = False
    """Whether the evaluation is a user without privilege; else this one."""

    def __str__(self) -> str:
        return f"{'+'.join(self.layers)}{' as nobody' if self.nobody else ''}"


SETTINGS = [
    Setting(column, layers, nobody)
    for column, layers in (
        ("filter", ("filter",)),
        ("filter", ("filter", "hook")),
        ("landlock", ("landlock", "filter")),
        ("namespaces", ("namespaces", "filter")),
        ("namespaces", ("namespaces", "landlock", "filter")),
        ("uid", ("uid", "filter")),
        ("landlock", ("uid", "landlock", "filter")),
        ("namespaces", ("uid", "namespaces", "landlock", "filter")),
        ("hook", ("hook",)),
        ("landlock", ("landlock", "hook")),
        ("namespaces", ("namespaces", "hook")),
    )
    for nobody in (False, True)
    if not (nobody and "uid" in layers)
]
HERE = Setting("namespaces", ("namespaces", "landlock", "filter"))
FEW = {"tcp", "fork", "flock", "pair", "write", "environ", "memory", "own environment", "suite", "~/.netrc",
       "~/.kaggle/kaggle.json", "sum", "late import", "thread"}  # fmt: skip


READING = [f"{group}: {name}" for group in ("golds", "keys and tokens in files") for name in GROUPS[group]]


@functools.cache
def python_for_others() -> str | None:
    """Return an interpreter of this version that any user can run with this environment's packages, if there is one."""
    minor = f"python3.{sys.version_info.minor}"
    for path in (sys.executable, f"/usr/bin/{minor}", f"/usr/local/bin/{minor}"):
        # It must start itself too: setpriv still has root's rights when it starts it.
        code = "import numpy, sympy, subprocess, sys; subprocess.run([sys.executable, '-c', ''], check=True)"
        command = [*AS_NOBODY, path, "-c", code]
        done = subprocess.run(command, env=environment(Path("/")), capture_output=True, check=False, cwd="/")
        if done.returncode == 0:
            return path
    return None


def environment(home: Path) -> dict[str, str]:
    path = os.pathsep.join((str(ROOT / "src"), str(ROOT), SITE))
    tokens = dict.fromkeys(("HF_TOKEN", "KAGGLE_API_TOKEN", "OPENAI_API_KEY"), MARK)
    return {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", **tokens}


def require(setting: Setting) -> None:
    """Skip the test where this machine cannot have the setting."""
    root = os.getuid() == 0
    if "uid" in setting.layers or setting.nobody:
        if not root or shutil.which("setpriv") is None:
            pytest.skip("needs root, and setpriv to give it up")
        if python_for_others() is None:
            pytest.skip("no other user can run an interpreter with numpy and sympy")
    missing = {*setting.layers} - {"uid", "hook", *usable_layers()}
    if missing:
        pytest.skip(f"not to be had here: {', '.join(sorted(missing))}")


@functools.cache
def outputs_of(setting: Setting, few: bool) -> tuple[dict[str, str], list[str]]:
    """Run the programs behind the layers; return what each printed, and those after which a file was changed."""
    programs = {f"{group}: {name}": code for group, rows in GROUPS.items() for name, code in rows.items()}
    programs |= {f"runs: {name}": code for name, (code, _) in RUNS.items()}
    if not setting.layers:
        programs = {name: programs[name] for name in READING}
    if few:
        programs = {name: code for name, code in programs.items() if name.split(": ", 1)[1] in FEW}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder, "home")
        for name in CREDENTIALS:
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (home / name).write_text(MARK)
            (home / name).chmod(0o600)
        golds = Path(folder, "suite.jsonl")
        golds.write_text(json.dumps({"id": "a", "problem": "?", "gold": MARK}))
        others = "uid" in setting.layers or setting.nobody
        user = AS_NOBODY if setting.nobody else ()
        if setting.nobody:
            for path in (Path(folder), *Path(folder).rglob("*")):
                os.chown(path, NOBODY, NOBODY)
        # Another user may read the suite, but not the home.
        Path(folder).chmod(0o755)
        home.chmod(0o700)
        text = json.dumps({"layers": setting.layers, "programs": programs})
        for word, value in {"HOME": home, "GOLDS": golds, "SHIPPED": POCKET_VAL}.items():
            text = text.replace(word, str(value))
        done = subprocess.run(
            [*user, (python_for_others() if others else None) or sys.executable, str(SCRIPT)],
            input=text, capture_output=True, text=True, check=False, env=environment(home), cwd="/",
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["layers"] == [*setting.layers]
    return result["outputs"], result["changed"]


def table() -> dict[str, dict[str, str]]:
    """Return {row: {column: cell}} of docs/solving.md, rows and columns by their first words."""
    lines = (ROOT / "docs" / "solving.md").read_text().split("What holds where")[1].split("\n\n")[1].splitlines()
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    columns = [re.sub(r"\W", "", cell.split(":")[0].split()[-1]) for cell in head[1:]]
    return {row[0]: dict(zip(columns, row[1:], strict=True)) for row in rows}


@pytest.mark.parametrize("setting", sample(HERE, slow=(one for one in SETTINGS if one != HERE)), ids=str)
def test_programs_see_what_the_table_says(setting: Setting, request: pytest.FixtureRequest) -> None:
    require(setting)
    outputs, changed = outputs_of(setting, few=request.node.get_closest_marker("slow") is None)
    check(setting, outputs, changed)


@pytest.mark.slow
def test_all_programs_behind_all_layers() -> None:
    require(HERE)
    check(HERE, *outputs_of(HERE, few=False))


def check(setting: Setting, outputs: dict[str, str], changed: list[str]) -> None:
    """Compare each cell of the setting's column with what its programs printed."""
    assert changed == []
    cells = {row: columns[setting.column] for row, columns in table().items()}
    wrong = []
    for name, output in outputs.items():
        group, row = name.split(": ", 1)
        if group == "runs":
            wrong += [(name, output)] if output != RUNS[row][1] else []
            continue
        cell = next(cell for words, cell in cells.items() if words.startswith(group))
        if not cell.startswith("can be read"):
            wrong += [(name, output)] if MARK in output else []
        elif "hook" not in setting.layers and (setting.nobody or "not root's" not in cell):
            # A table that is too modest is wrong as well.
            wrong += [(name, "not read: " + output)] if MARK not in output else []
    assert wrong == []


@pytest.mark.slow
def test_without_layers_the_files_are_read() -> None:
    """Else the rows above would prove nothing. Attacks that could do harm are left out."""
    setting = Setting("none", ())
    outputs, _ = outputs_of(setting, few=False)
    assert {name for name, output in outputs.items() if MARK in output} >= {*READING}


HIDING = pytest.mark.parametrize("layers", ["namespaces,filter", "landlock,filter", "hook"])


def run_from(site: Path, layers: str, programs: dict[str, str]) -> dict[str, str]:
    """Return what the programs print, where that folder is the first of Python's path."""
    missing = {*layers.split(",")} - {"hook", *usable_layers()}
    if missing:
        pytest.skip(f"not to be had here: {', '.join(sorted(missing))}")
    around = environment(site.parent)
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], input=json.dumps({"layers": layers.split(","), "programs": programs}),
        capture_output=True, text=True, check=False, env={**around, "PYTHONPATH": f"{site}:{around['PYTHONPATH']}"},
        cwd="/",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    outputs: dict[str, str] = json.loads(done.stdout)["outputs"]
    return outputs


@pytest.mark.slow
@HIDING
def test_an_installed_package_is_hidden_among_readable_ones(tmp_path: Path, layers: str) -> None:
    """Its data may hold golds, and stand in the folder from which programs import."""
    site = tmp_path / "site-packages"
    shutil.copytree(ROOT / "src" / "mathlete", site / "mathlete")
    (site / "mathlete" / "_data").mkdir()
    (site / "mathlete" / "_data" / "golds").write_text(MARK)
    (site / "other.py").write_text("value = 5")
    golds = f"print(open({str(site / 'mathlete/_data/golds')!r}).read())"
    outputs = run_from(site, layers, {"golds": golds, "other": "import other\nother.value"})
    assert MARK not in outputs["golds"]
    assert outputs["other"] == "5\n"


@pytest.mark.slow
@HIDING
@pytest.mark.parametrize("linked", [False, True])
def test_what_a_user_keeps_beside_packages_is_hidden(tmp_path: Path, layers: str, linked: bool) -> None:
    """`pip install --target .` in a project makes its folder one of packages, golds and scripts."""
    site = tmp_path / "project"
    (site / "other-1.0.dist-info").mkdir(parents=True)
    (site / "other-1.0.dist-info" / "RECORD").write_text("other.py,sha256=x,9\nother-1.0.dist-info/RECORD,,\n")
    (site / "other.py").write_text("value = 5")
    (site / "mpmath").symlink_to(Path(SITE, "mpmath"))
    (site / "runs").mkdir()
    for name in ("golds.jsonl", "kaggle.json", "runs/golds.jsonl", "mine.py"):
        (site / name).write_text(f"value = '{MARK}'")
    if linked:
        (tmp_path / "link").symlink_to(site)
    files = {name: f"print(open({str(site / name)!r}).read())" for name in ("golds.jsonl", "kaggle.json", "mine.py")}
    runs = {"runs": f"print(open({str(site / 'runs/golds.jsonl')!r}).read())"}
    programs = {**files, **runs, "mine": "import mine\nmine.value", "other": "import other\nother.value"}
    outputs = run_from(tmp_path / "link" if linked else site, layers, programs)
    assert [name for name, output in outputs.items() if MARK in output] == []
    assert outputs["other"] == "5\n"


def test_of_a_folder_with_libraries_only_these_are_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libx.so.1").touch()
    (tmp_path / "lib" / "libx.so").symlink_to("libx.so.1")
    for name in ("golds.jsonl", "lib/golds.jsonl"):
        (tmp_path / name).touch()
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{tmp_path}::/:{tmp_path / 'lib'}")
    assert [path for path in readable_paths() if path.is_relative_to(tmp_path.resolve())] == [
        (tmp_path / "lib" / "libx.so.1").resolve()
    ]


def test_of_a_folder_with_packages_only_these_are_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("numpy", "runs", "bin", "other", "other-1.0.dist-info"):
        (tmp_path / name).mkdir()
    (tmp_path / "other-1.0.dist-info" / "RECORD").write_text(
        "other/a.py,,\nsix.py,,\n../../bin/x,,\n__pycache__/s.pyc,,"
    )
    for name in ("golds.jsonl", "six.py"):
        (tmp_path / name).touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    readable = [path.name for path in readable_paths() if path.is_relative_to(tmp_path.resolve())]
    assert readable == ["numpy", "other", "six.py"]


def test_the_table_is_of_a_hundred_programs() -> None:
    assert sum(len(rows) for rows in GROUPS.values()) + len(RUNS) >= 100
    assert all(any(words.startswith(group) for words in table()) for group in GROUPS)
