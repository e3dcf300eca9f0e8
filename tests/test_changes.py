"""docs/architecture.md says where to change what: the changes are made in a copy of the tree, and take effect there."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import sample


@dataclass(frozen=True, kw_only=True)
class Change:
    """Edits of a copy of the tree, and what must be true there afterwards."""

    edits: tuple[tuple[str, str, str], ...]
    """(file, text that stands there, text in its place)."""
    check: str
    """Python that asserts the change's effect."""


CHANGES = {
    "a reason to drop a trace": Change(
        edits=(
            (
                "src/mathlete/rows/filters.py",
                '    if has_marks(trace.text):\n        return "marks"\n',
                '    if has_marks(trace.text):\n        return "marks"\n'
                '    if "TODO" in trace.text:\n        return "unfinished"\n',
            ),
            (
                "src/mathlete/rows/card.py",
                '    "too short": (',
                '    "unfinished": ("a part is still to be written", "write it"),\n    "too short": (',
            ),
        ),
        check=r"""
from mathlete.problems import Problem
from mathlete.rows import Filters, find_cure, explain_reason
from mathlete.rows.filters import find_drop_reason
from mathlete.traces import Trace, TracedProblem
problem = Problem(id="a", statement="1 + 1?", gold="2")
for text, reason in (("1 + 1 is 2.", ""), ("TODO: add.", "unfinished")):
    traced = TracedProblem(problem=problem, trace=Trace(problem_id="a", text=text, answer="2", generator="me"))
    assert find_drop_reason(traced, Filters()) == reason, text
assert (explain_reason("unfinished"), find_cure("unfinished")) == ("a part is still to be written", "write it")
""",
    ),
    "a training method": Change(
        edits=(
            (
                "src/mathlete/tune/methods.py",
                '    "lora": Method(),\n',
                '    "lora": Method(),\n    "slow-lora": Method(rate_factor=0.5),\n',
            ),
        ),
        check=r"""
from mathlete.command import Command
from train.math_command import MATH_COMMAND
settings = MATH_COMMAND.default_settings(["--model", "pocket", "--method", "slow-lora"])
assert settings.recipe.method == "slow-lora"
assert settings.recipe.tune.rate == 0.5 * MATH_COMMAND.default_settings(["--model", "pocket"]).recipe.tune.rate
import tyro
assert "slow-lora" in tyro.extras.get_parser(MATH_COMMAND.settings, default=settings).format_help()
""",
    ),
    "an export format": Change(
        edits=(
            (
                "src/mathlete/export/formats/table.py",
                "_ENTRIES = (\n",
                "_ENTRIES = (\n"
                "    ExportFormat(\n"
                '        name="half",\n'
                '        title="the merged model as it is",\n'
                "        bits=16,\n"
                "        write=lambda folder, merged, _: [\n"
                "            (folder / file.name).write_bytes(file.read_bytes()) for file in merged.iterdir()\n"
                "        ],\n"
                "        weights=int8_weights,\n"
                "        least=6.0,\n"
                '        stored_as="dense",\n'
                "    ),\n",
            ),
        ),
        check=r"""
from mathlete.export import EXPORT_FORMATS
from train.math_command import MATH_COMMAND
import tyro
assert EXPORT_FORMATS["half"].folder == "export-half"
assert EXPORT_FORMATS["half"].require("t4").startswith("half: t4 takes it")
defaults = MATH_COMMAND.default_settings(["--model", "pocket"])
words = ["--export.formats", "int8", "half"]
assert tyro.cli(MATH_COMMAND.settings, args=words, default=defaults).after.export.formats == ("int8", "half")
""",
    ),
    "a GPU or a Kaggle machine": Change(
        edits=(
            (
                "src/mathlete/models/hardware.py",
                '        _gpu("h200", 143771, 9.0, 989),\n',
                '        _gpu("h200", 143771, 9.0, 989),\n        _gpu("gb10", 122880, 12.1, 125, NvidiaGb10=1),\n',
            ),
        ),
        check=r"""
from mathlete.models import GPUS
from train.math_command import MATH_COMMAND
import tyro
defaults = MATH_COMMAND.default_settings(["--model", "pocket"])
chosen = tyro.cli(MATH_COMMAND.settings, args=["--plan", "--device", "gb10"], default=defaults)
assert chosen.staging.planned.device == "gb10"
assert (GPUS["gb10"].dtype, GPUS["gb10"].machines) == ("bfloat16", {"NvidiaGb10": 1})
""",
    ),
    "a preset of a model": Change(
        edits=(
            (
                "src/mathlete/models/names.py",
                "HUB_MODELS = {\n",
                'HUB_MODELS = {\n    "r2-1b": ("somebody/R2-1B", "0" * 40),\n',
            ),
            (
                "src/train/presets.py",
                '    "pocket": POCKET,\n',
                '    "pocket": POCKET,\n    "r2-1b": replace(DISTILLED, seed=7),\n',
            ),
        ),
        check=r"""
from mathlete.models import find_model
from train.math_command import MATH_COMMAND
assert find_model("r2-1b").location == "somebody/R2-1B"
assert MATH_COMMAND.default_settings(["--model", "r2-1b"]).seed == 7
""",
    ),
    "a unit that answers may carry": Change(
        edits=(("src/mathlete/answers/vocabulary.py", '_LENGTH = "mm cm', '_LENGTH = "furlong furlongs mm cm'),),
        check=r"""
from mathlete.answers import compare
assert compare(answer=r"3\text{ furlongs}", gold="3").outcome == "equal"
""",
    ),
}


@pytest.fixture(scope="module")
def table(root: Path) -> dict[str, tuple[str, str]]:
    """{change: (where, what tries it)} of the page."""
    page = (root / "docs" / "architecture.md").read_text().split("## Where would I change")[1]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in page.splitlines() if line[:1] == "|"]
    return {change.removeprefix("| "): (where, tried) for change, where, tried in rows[2:]}


def test_the_page_names_files_and_names_that_are_there(table: dict[str, tuple[str, str]], root: Path) -> None:
    assert len(table) >= 10
    for where, tried in table.values():
        files = [word for word in re.findall(r"`([\w/.]+\.\w+)`", where + tried) if "NAME" not in word]
        assert all((root / file).is_file() for file in files), files
        for name, file in re.findall(r"`(\w+)`(?: and `\w+`)? (?:in|of) `([\w/.]+)`", where):
            assert re.search(rf"^(?:def )?{name}\b", (root / file).read_text(), re.M), (name, file)


def test_what_the_page_says_is_tried_here_is(table: dict[str, tuple[str, str]]) -> None:
    assert {change for change, (_, tried) in table.items() if "test_changes" in tried} == CHANGES.keys()


CHECK = """
import json, sys, traceback
failures = {}
for title, check in json.load(sys.stdin).items():
    try:
        exec(check, {"__name__": title})
    except Exception:
        failures[title] = traceback.format_exc()
print(json.dumps(failures))
"""


@pytest.mark.parametrize("titles", sample([*CHANGES], slow=[[title] for title in CHANGES]), ids=", ".join)
def test_a_change_where_the_page_says_takes_effect(titles: list[str], root: Path, tmp_path: Path) -> None:
    """All of them in one copy of the tree and one process, which loads the commands once; each alone is slow."""
    for name in ("src", "eval", "data"):
        # With what Python has compiled: it compiles anew only what was edited. Another process may be compiling.
        left_out = shutil.ignore_patterns("*-pytest-*", "*.pyc.*", "*.safetensors")
        shutil.copytree(root / name, tmp_path / name, ignore=left_out)
    for file, old, new in (edit for title in titles for edit in CHANGES[title].edits):
        text = (tmp_path / file).read_text()
        assert old in text, f"{file} no longer has {old!r}"
        (tmp_path / file).write_text(text.replace(old, new, 1))
    path = os.pathsep.join([str(tmp_path / "src"), str(tmp_path)])
    done = subprocess.run(
        [sys.executable, "-c", CHECK],
        input=json.dumps({title: CHANGES[title].check for title in titles}),
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout.splitlines()[-1]) == {}
