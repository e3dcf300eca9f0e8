"""CONTRIBUTING's house map is the linter's contract, and its examples work as they stand, in the files they name."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from mathlete import engines
from mathlete.corpus import adapters, sources
from mathlete.problems import Problem, write_problems
from mathlete.rehearsal import fault_matrix
from mathlete.rehearsal.draft import Draft
from mathlete.rehearsal.faults import Fault
from mathlete.sampling import Sample, Sampler, embedded, read_samples
from mathlete.shipped import data_folder
from mathlete.solve import stopping, voting
from mathlete.solve.clock import VirtualClock
from mathlete.solve.policy import Policy
from mathlete.solve.solver import solve
from mathlete.submission.notebook import SERVE
from tests.conftest import CommandLine

LONGEST = 40
IMPORT = (ast.Import, ast.ImportFrom)
ENGINE_FILE = "src/mathlete/sampling/embedded/generate_engine.py"
TITLES = ("A source", "An engine", "A policy", "A fault")
R1 = "<think>\n{0}\n</think>\n\nSo \\boxed{{{1}}}."


@pytest.fixture(scope="module")
def text(root: Path) -> str:
    return (root / "CONTRIBUTING.md").read_text(encoding="utf-8")


def example(text: str, title: str) -> dict[str, str]:
    """Return the blocks below a title, by kind."""
    part = text.split(f"\n### {title}\n")[1].split("\n### ")[0]
    blocks = dict(re.findall(r"^```(\w+)\n(.*?)^```", part, re.M | re.S))
    assert part.count("\n```") == 2 * len(blocks)
    return blocks


def parts(code: str) -> dict[str, str]:
    """Return the lines of a block by the file they go into."""
    words = re.split(r"^# ([\w/]+\.\w+)[^\n]*\n", code, flags=re.M)
    assert not words[0].strip()
    return dict(zip(words[1::2], words[2::2], strict=True))


def module(file: str) -> ModuleType:
    return import_module(file.removeprefix("src/").removesuffix(".py").removesuffix("/__init__").replace("/", "."))


def carry_out(code: str) -> None:
    """Run each part in the namespace of the module that it names, as if it stood at the end of its file."""
    for file, lines in parts(code).items():
        if not file.endswith("generate_engine.py"):
            exec(compile(lines, file, "exec"), vars(module(file)))


@pytest.fixture(autouse=True)
def tables() -> Iterator[None]:
    """The tables and modules that examples write into are put back."""
    modules = [vars(one) for one in (engines, embedded, stopping, voting, adapters)]
    tables: list[dict[str, Any]] = [engines.ENGINES, stopping.RULES, voting.VOTES, adapters.TRACE_KINDS, *modules]
    kept = [(table, dict(table)) for table in tables]
    names = [*embedded.__all__]
    yield
    for table, before in kept:
        table.clear()
        table.update(before)
    embedded.__all__[:] = names
    sources.load_sources.cache_clear()


def place(text: str, tree: Path) -> list[Path]:
    """Write all examples into a tree; return the files that were changed or made."""
    placed = []
    for title in TITLES:
        for kind, code in example(text, title).items():
            for name, lines in parts(code).items():
                file, among = tree / name, re.search(rf"^# {name}, among (\w+)$", code, re.M)
                before = file.read_text(encoding="utf-8") if file.exists() else ""
                if among is not None:
                    head, rest = before.split(f"\n{among[1]} = (\n")
                    after = f"{head}\n{among[1]} = (\n{lines.strip()},\n{rest}"
                elif kind == "python" and before:
                    after = with_imports_on_top(before, lines)
                else:
                    after = f"{before}\n{lines}"
                file.write_text(after, encoding="utf-8")
                placed.append(file)
    return placed


def with_imports_on_top(before: str, lines: str) -> str:
    """Return the file's text with the lines at its end, and the imports they begin with after the file's own."""

    def imports_end(text: str) -> int:
        return max((node.end_lineno or 0 for node in ast.parse(text).body if isinstance(node, IMPORT)), default=0)

    head, added = before.splitlines(), lines.splitlines()
    top, own = imports_end(before), imports_end(lines)
    return "\n".join([*head[:top], *added[:own], *head[top:], "", *added[own:], ""])


def test_all_examples_stand_in_the_files_they_name_and_pass_lint_imports(text: str, root: Path, tmp_path: Path) -> None:
    for name in ("src", "eval", "data"):
        shutil.copytree(root / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    shutil.copy(root / "pyproject.toml", tmp_path)
    files = place(text, tmp_path)
    folder = Path(sys.executable).parent
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path / 'src'}{os.pathsep}{tmp_path}"}

    def run(*words: object) -> None:
        line = [str(word) for word in words]
        done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    run(folder / "lint-imports", "--no-cache")
    run(folder / "ruff", "check", "--select", "F", *(file for file in files if file.suffix == ".py"))
    checks = "from mathlete import engines, sampling; from mathlete.corpus.adapters import TRACE_KINDS as kinds"
    checks += "; from mathlete.solve.stopping import RULES as rules; from mathlete.solve.voting import VOTES as votes"
    checks += "; from mathlete.rehearsal.fault_matrix import FAULTS as faults; import sys"
    checks += "; assert engines.__file__.startswith(sys.argv[1]) and 'torch' not in sys.modules"
    checks += "; assert 'generate' in engines.ENGINES and 'shortest' in kinds and 'first3' in rules"
    checks += "; assert 'reasoned' in votes and 'solve-divides' in faults"
    run(sys.executable, "-c", checks, tmp_path)


def test_the_house_map_is_the_linters_and_every_room_is_in_it(text: str, root: Path) -> None:
    contract = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    layers = [{name.strip() for name in layer.split("|")} for layer in contract["layers"]]
    house = text.split("\n## The house\n")[1].split("\n## ")[0]
    rows = [re.findall(r"`([\w.]+)`", line.split("|")[1]) for line in house.splitlines() if line.startswith("| `")]
    assert [set(row) for row in rows] == layers
    files = [path for path in (root / "src" / "mathlete").iterdir() if path.suffix in ("", ".py")]
    there = {path.stem for path in files if path.stem[0] != "_"}
    assert {f"mathlete.{name}" for name in there} == {room for layer in layers for room in layer if "." in room}


@pytest.mark.parametrize("title", TITLES)
def test_an_example_is_short_and_says_where_it_goes_and_what_to_test(title: str, text: str, root: Path) -> None:
    blocks = example(text, title)
    # Blank lines, which a block of several files has many of, are not counted.
    assert sum(bool(line.strip()) for code in blocks.values() for line in code.splitlines()) <= LONGEST
    for code in blocks.values():
        assert max(map(len, code.splitlines())) <= 120
        for file in re.findall(r"^# ([\w/]+\.\w+)", code, re.M):
            assert (root / file).exists() or file.endswith("generate_engine.py")
    assert "to add:" in text.split(f"\n### {title}\n")[1].split("\n### ")[0]


def test_the_examples_come_in_the_order_of_the_page(text: str) -> None:
    assert re.findall(r"^### (.*)$", text, re.M) == [*TITLES]


def test_rows_are_made_of_the_source(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, train: CommandLine
) -> None:
    blocks, data = example(text, "A source"), data_folder()
    table = (data / "sources.toml").read_text(encoding="utf-8") + "\n" + blocks["toml"]
    (tmp_path / "sources.toml").write_text(table, encoding="utf-8")
    monkeypatch.setattr(sources, "data_folder", lambda: tmp_path)
    sources.load_sources.cache_clear()
    carry_out(blocks["python"])
    file = sources.find_source("openr1:shortest").mirror_path(tmp_path)
    file.parent.mkdir(parents=True)
    long, wrong = R1.format("3+4 is 7, I think. " * 3, 7), R1.format("8.", 8)
    rows: list[dict[str, Any]] = [
        {"problem": f"{n}+{7 - n}?", "answer": "7", "uuid": str(n), "generations": [long, wrong, R1.format(n, 7)]}
        for n in range(1, 5)
    ]
    rows.append({"problem": "2+2?", "answer": "4", "uuid": "none right", "generations": [wrong]})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    words = ["math", "--model", "pocket", "--source", "openr1:shortest", "--mirror", str(tmp_path), "--until", "format"]
    words += ["--rows.heldout", "1", "--run", "r", "--json"]
    told = train(*words).result
    assert (told["kept"], told["drops"], told["rows"]) == (4, {"no trace": 1}, 3)
    assert told["parity"] == {"rows": 4, "mismatches": 0}


def test_eval_samples_from_the_engine(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evaluate: CommandLine
) -> None:
    code = example(text, "An engine")["python"]
    (tmp_path / "generate_engine.py").write_text(parts(code)[ENGINE_FILE], encoding="utf-8")
    monkeypatch.setattr(embedded, "__path__", [*embedded.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "mathlete.sampling.embedded.generate_engine", raising=False)
    carry_out(code)
    monkeypatch.chdir(tmp_path)
    two = [Problem(id=str(n), statement=f"Find {n} + 12.", gold=str(n + 12)) for n in (3, 4)]
    write_problems(tmp_path / "two.jsonl", two)
    words = ["two.jsonl", "--model", "pocket", "--engine", "generate", "--n", "2", "--run", "r"]
    words += ["--sampling.max-tokens", "40"]
    assert evaluate(*words).code == 0
    drawn = read_samples(tmp_path / "r" / "samples.jsonl")
    assert sorted((sample.problem_id, sample.index) for sample in drawn) == [(p, i) for p in "34" for i in (0, 1)]
    assert json.loads((tmp_path / "r" / "results.json").read_text())["engine"] == "generate"
    assert all(0 < sample.tokens <= 40 and sample.text for sample in drawn)
    assert {sample.finish for sample in drawn} <= {"stop", "length"}
    assert evaluate(*words, "--tools.turns", 1, "--run", "t").code == 2


class Recorded(Sampler):
    """Samples that a policy is tried on."""

    name = "recorded"

    def __init__(self, *texts: str) -> None:
        self.texts = texts

    def stream(self, problem: Problem, *, seeds: Any, config: Any) -> Any:
        for index, seed in seeds.items():
            yield Sample(problem_id=problem.id, index=index, seed=seed, text=self.texts[index], tokens=1, finish="stop",
                         seconds=1.0)  # fmt: skip

    def close(self) -> None:
        pass


def test_solve_stops_and_votes_by_the_policy(text: str) -> None:
    carry_out(example(text, "A policy")["python"])
    problem, policy = Problem(id="p", statement="?", gold="7"), Policy(n=5)
    seven, eight = "so</think>\\boxed{7}", "\\boxed{8}"
    sampler = Recorded(eight, eight, seven, seven, seven)

    def solve_example(words: str, sampler: Recorded = sampler) -> tuple[str | None, int, str]:
        solution = solve(problem, sampler=sampler, clock=VirtualClock(), policy=policy.with_words(words))
        return solution.answer, len(solution.samples), solution.ended

    assert solve_example("first2") == ("8", 2, "rule")
    assert solve_example("first3") == ("7", 5, "all")
    assert solve_example("first3", Recorded(*[seven] * 5)) == ("7", 3, "rule")
    three_to_one = Recorded(eight, eight, eight, seven, "no answer")
    assert solve_example("none", three_to_one) == ("8", 5, "all")
    assert solve_example("none/reasoned", three_to_one) == ("7", 5, "all")
    labels = np.array([[0, 0, 0, 1], [0, 1, 0, 0], [-1, 2, 2, 2]])
    weights, indexes = np.full_like(labels, stopping.UNIT), np.tile(np.arange(4), (3, 1))
    course = stopping.Course(labels=labels, weights=weights, indexes=indexes, n=4)
    assert course.stops_after("first3").tolist() == [3, 4, 4]
    assert course.stops_after("first3+exact").tolist() == [3, 4, 3]


def test_the_fault_changes_the_notebook_before_it_serves(text: str, tmp_path: Path) -> None:
    fault: Fault = eval(example(text, "A fault")["python"].strip(), vars(fault_matrix))
    cell: dict[str, Any] = {"cell_type": "code", "execution_count": None, "id": "a", "outputs": [], "source": ""}
    cell["metadata"] = {"tags": [SERVE]}
    notebook = json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    draft = Draft(text=notebook, inputs={}, mounts={}, test=tmp_path, limit_s=1.0, folder=tmp_path)
    fault.inject(draft)
    assert "1 / 0" in "".join(json.loads(draft.text)["cells"][0]["source"])
    assert fault.name not in fault_matrix.FAULTS
