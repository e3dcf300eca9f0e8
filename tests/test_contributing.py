"""CONTRIBUTING's house map is the linter's contract, and its examples work as they stand."""

import ast
import json
import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.__main__ import COMMANDS, EVALUATE
from mathlete.command import run_command_line
from mathlete.corpus import sources
from mathlete.engines import ENGINES
from mathlete.problems import Problem, write_problems
from mathlete.rehearsal import fault_matrix
from mathlete.rehearsal.draft import Draft
from mathlete.rehearsal.faults import Fault
from mathlete.sampling.record import read_samples
from mathlete.sampling.samples import Sample
from mathlete.shipped import data_folder
from mathlete.solve import stopping, voting
from mathlete.solve.clock import VirtualClock
from mathlete.solve.policy import Policy, with_words
from mathlete.solve.solver import solve
from mathlete.submission.notebook import SERVE
from train.__main__ import COMMANDS as TRAIN

LONGEST = 40
TITLES = ("A source", "An engine", "A policy", "A fault")
R1 = "<think>\n{0}\n</think>\n\nSo \\boxed{{{1}}}."


@pytest.fixture(scope="module")
def text(root: Path) -> str:
    return (root / "CONTRIBUTING.md").read_text(encoding="utf-8")


def example(text: str, title: str) -> dict[str, str]:
    """The blocks below a title, by kind."""
    part = text.split(f"\n### {title}\n")[1].split("\n### ")[0]
    found = dict(re.findall(r"^```(\w+)\n(.*?)^```", part, re.M | re.S))
    assert part.count("\n```") == 2 * len(found)
    return found


def in_its_file(block: str, text: str) -> str:
    """The text of a file with a block in it: its imports before the file's own, its other lines at the end."""
    lines, nodes = block.splitlines(), ast.parse(block).body
    imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    moved = {number for node in imports for number in range(node.lineno - 1, (node.end_lineno or 0))}
    first = next(node.lineno for node in ast.parse(text).body if isinstance(node, ast.Import | ast.ImportFrom)) - 1
    head = text.splitlines()
    rest = [line for number, line in enumerate(lines) if number not in moved]
    return "\n".join([*head[:first], *(lines[number] for number in sorted(moved)), *head[first:], *rest]) + "\n"


@contextmanager
def carried_out(block: str) -> Iterator[None]:
    """The module that a block names, while it is what its file with the block in it makes of it."""
    name = re.findall(r"^# src/([\w/]+)\.py", block)[0].replace("/", ".")
    module = import_module(name)
    kept, text = dict(vars(module)), Path(str(module.__file__)).read_text(encoding="utf-8")
    for own in [key for key in kept if not key.startswith("__")]:
        del vars(module)[own]
    try:
        # Functions of the module that others have imported see these names too: their globals are the module's.
        exec(compile(in_its_file(block, text), str(module.__file__), "exec"), vars(module))
        yield
    finally:
        vars(module).clear()
        vars(module).update(kept)


def execute(code: str, name: str, into: dict[str, Any] | None = None) -> None:
    exec(compile(code, name, "exec"), {} if into is None else into)


@pytest.fixture(autouse=True)
def tables(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The tables that examples write into are put back."""
    kept = [(table, dict(table)) for table in (ENGINES, stopping.RULES, voting.VOTES)]
    yield
    for table, before in kept:
        table.clear()
        table.update(before)  # type: ignore[arg-type]
    sources.load_sources.cache_clear()


def test_the_house_map_is_the_linters_and_every_room_is_in_it(text: str, root: Path) -> None:
    contract = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    layers = [{name.strip() for name in layer.split("|")} for layer in contract["layers"]]
    rows = [re.findall(r"`([\w.]+)`", line.split("|")[1]) for line in text.splitlines() if line.startswith("| `")]
    assert [set(row) for row in rows] == layers
    files = [path for path in (root / "src" / "mathlete").iterdir() if path.suffix in ("", ".py")]
    there = {path.stem for path in files if path.stem[0] != "_"}
    assert {f"mathlete.{name}" for name in there} == {room for layer in layers for room in layer if "." in room}


@pytest.mark.parametrize("title", TITLES)
def test_an_example_is_short_and_says_where_it_goes_and_what_to_test(title: str, text: str, root: Path) -> None:
    blocks = example(text, title)
    assert sum(len(code.splitlines()) for code in blocks.values()) <= LONGEST
    for code in blocks.values():
        assert max(map(len, code.splitlines())) <= 120
        for file in re.findall(r"^# ([\w/]+\.\w+)", code, re.M):
            assert (root / file).exists() or file.endswith("generate_engine.py")
    assert "to add:" in text.split(f"\n### {title}\n")[1].split("\n### ")[0]


def test_the_examples_come_in_the_order_of_the_page(text: str) -> None:
    assert re.findall(r"^### (.*)$", text, re.M) == [*TITLES]


def test_rows_are_made_of_the_source(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks, data = example(text, "A source"), data_folder()
    table = (data / "sources.toml").read_text(encoding="utf-8") + "\n" + blocks["toml"]
    (tmp_path / "sources.toml").write_text(table, encoding="utf-8")
    monkeypatch.setattr(sources, "data_folder", lambda: tmp_path)
    sources.load_sources.cache_clear()
    file = sources.find_source("openr1:shortest").mirrored(tmp_path)
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
    with carried_out(blocks["python"]):
        assert run_command_line(words, prog="train", commands=TRAIN) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["kept"], told["drops"], told["rows"]) == (4, {"no trace": 1}, 3)
    assert told["parity"] == {"rows": 4, "mismatches": 0}


def test_eval_samples_from_the_engine(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    execute(example(text, "An engine")["python"], "generate_engine.py")
    monkeypatch.chdir(tmp_path)
    two = [Problem(id=str(n), statement=f"Find {n} + 12.", gold=str(n + 12)) for n in (3, 4)]
    write_problems(tmp_path / "two.jsonl", two)
    words = ["two.jsonl", "--model", "pocket", "--engine", "generate", "--n", "2", "--run", "r"]
    words += ["--sampling.max-tokens", "40"]
    run = dict(prog="eval", commands=COMMANDS, otherwise=EVALUATE)
    assert run_command_line(words, **run) == 0  # type: ignore[arg-type]
    drawn = read_samples(tmp_path / "r" / "samples.jsonl")
    assert sorted((sample.problem_id, sample.index) for sample in drawn) == [(p, i) for p in "34" for i in (0, 1)]
    assert json.loads((tmp_path / "r" / "results.json").read_text())["engine"] == "generate"
    assert all(0 < sample.tokens <= 40 and sample.text for sample in drawn)
    assert {sample.finish for sample in drawn} <= {"stop", "length"}
    assert run_command_line([*words, "--tools.turns", "1", "--run", "t"], **run) == 2  # type: ignore[arg-type]


class Recorded:
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
    execute(example(text, "A policy")["python"], "policy.py")
    problem, policy = Problem(id="p", statement="?", gold="7"), Policy(n=5)
    seven, eight = "so</think>\\boxed{7}", "\\boxed{8}"
    sampler = Recorded(eight, eight, seven, seven, seven)

    def solved(words: str, sampler: Recorded = sampler) -> tuple[str | None, int, str]:
        found = solve(problem, sampler=sampler, clock=VirtualClock(), policy=with_words(policy, words))
        return found.answer, len(found.samples), found.ended

    assert solved("first2") == ("8", 2, "rule")
    assert solved("first3") == ("7", 5, "all")
    assert solved("first3", Recorded(*[seven] * 5)) == ("7", 3, "rule")
    three_to_one = Recorded(eight, eight, eight, seven, "no answer")
    assert solved("none", three_to_one) == ("8", 5, "all")
    assert solved("none/reasoned", three_to_one) == ("7", 5, "all")
    labels = np.array([[0, 0, 0, 1], [0, 1, 0, 0], [-1, 2, 2, 2]])
    weights, indexes = np.full_like(labels, stopping.UNIT), np.tile(np.arange(4), (3, 1))
    course = stopping.Course(labels=labels, weights=weights, indexes=indexes, n=4)
    assert stopping.stops_after(course, stopping.stopping_rule("first3")).tolist() == [3, 4, 4]
    assert stopping.stops_after(course, stopping.stopping_rule("first3+exact")).tolist() == [3, 4, 3]


def test_the_fault_changes_the_notebook_before_it_serves(text: str, tmp_path: Path) -> None:
    fault: Fault = eval(example(text, "A fault")["python"].strip(), vars(fault_matrix))
    cell: dict[str, Any] = {"cell_type": "code", "execution_count": None, "id": "a", "outputs": [], "source": ""}
    cell["metadata"] = {"tags": [SERVE]}
    notebook = json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    draft = Draft(text=notebook, inputs={}, test=tmp_path, limit_s=1.0, folder=tmp_path)
    fault.inject(draft)
    assert "1 / 0" in "".join(json.loads(draft.text)["cells"][0]["source"])
    assert fault.name not in fault_matrix.FAULTS
