"""Figures in README and docs that a table of the code or of bench/ owns are that table's."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from mathlete.kaggle_image import vllm_facts, vllm_lock
from mathlete.rehearsal import FAULTS
from mathlete.rehearsal.gateway.behaviours import PACKAGES
from mathlete.rehearsal.vllm_faults import VLLM_FAULTS
from mathlete.shipped import data_folder
from tests.conftest import ROOT

WORDS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9}


def count_lines(recording: str, name: str) -> int:
    return len((data_folder() / "recordings" / recording / name).read_text(encoding="utf-8").splitlines())


def read_n(recording: str) -> int:
    problems = count_lines(recording, "problems.jsonl")
    return count_lines(recording, "samples.jsonl") // problems


def gib_of_lock() -> float:
    sizes = re.findall(r"# (\d+) bytes", vllm_lock().read_text(encoding="utf-8"))
    return round(sum(map(int, sizes)) / 2**30, 1)


REAL = "qwen-coder-0.5b-gsm8k"
FIGURES: list[tuple[str, str, Callable[[], float]]] = [
    ("docs/peers.md", r"✔, (\d+) faults", lambda: len(FAULTS)),
    ("docs/vllm.md", r"each of the (\d+) faults in", lambda: len(VLLM_FAULTS)),
    ("docs/vllm.md", r"The (\d+) wheels are", lambda: vllm_lock().read_text(encoding="utf-8").count("--hash=")),
    ("docs/vllm.md", r"wheels are ([\d.]+) GiB", gib_of_lock),
    ("docs/rehearsal.md", r"in (\w+) versions of its package", lambda: len(PACKAGES)),
    ("docs/solving.md", r"`pocket` are (\d+) problems", lambda: count_lines("pocket", "problems.jsonl")),
    ("docs/solving.md", r"problems of pocket_val with (\d+)\s+samples each", lambda: read_n("pocket")),
    ("docs/solving.md", rf"`{REAL}` the first (\d+) problems", lambda: count_lines(REAL, "problems.jsonl")),
    ("docs/solving.md", r"test half with (\d+) samples each", lambda: read_n(REAL)),
]
"""(page, a pattern whose group is the figure, what owns it)."""


@pytest.mark.parametrize(("page", "pattern", "own"), FIGURES, ids=lambda value: value if isinstance(value, str) else "")
def test_a_figure_is_its_tables(page: str, pattern: str, own: Callable[[], float]) -> None:
    said = re.findall(pattern, (ROOT / page).read_text(encoding="utf-8"))
    assert said, f"{page} says it no more in these words: change the pattern too"
    assert {float(WORDS.get(figure, figure)) for figure in said} == {own()}


def test_more_than_a_hundred_is_what_readme_says_of_the_faults() -> None:
    assert "More than a hundred ways ([the faults](docs/rehearsal.md))" in (ROOT / "README.md").read_text(
        encoding="utf-8"
    )
    assert len(FAULTS) > 100


def test_the_checkers_figures_in_readme_are_those_of_the_bench() -> None:
    readme, results = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "bench/RESULTS.md"))
    row = next(line for line in results.splitlines() if line.startswith("| the answer checker beside math-verify"))
    cases, ours, theirs = re.findall(r"(\d+) cases of.*accuracy ([\d.]+)% to ([\d.]+)%", row)[0]
    assert f"| answer checker | own, {ours}%[^1] | regex | regex | math-verify, {theirs}%[^1] |" in readme
    assert f"[^1]: Accuracy over {cases} cases" in readme


def test_vllms_version_in_the_docs_is_the_locks() -> None:
    facts = json.loads((data_folder() / "vllm.json").read_text(encoding="utf-8"))
    assert facts["version"] == vllm_facts().version
    assert f"vLLM {vllm_facts().version}" in (ROOT / "docs/vllm.md").read_text(encoding="utf-8")
    assert vllm_lock().read_text(encoding="utf-8").startswith(f"# vllm=={vllm_facts().version} ")


def test_a_page_names_no_count_of_faults_that_no_row_here_holds() -> None:
    pages = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
    counted = {(page, figure) for page in pages for figure in re.findall(r"(\d{2,}) faults", page.read_text("utf-8"))}
    assert {(Path(page.relative_to(ROOT)).as_posix(), figure) for page, figure in counted} == {
        ("docs/peers.md", str(len(FAULTS))),
        ("docs/vllm.md", str(len(VLLM_FAULTS))),
    }
