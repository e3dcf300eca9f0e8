"""CONTRIBUTING's house map is the linter's contract, and its examples work as they stand."""

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mathlete.corpus import sources
from mathlete.corpus.stream import opened, parse_spec
from mathlete.models import data_folder, model_source, prompt_format
from mathlete.problems import Problem
from mathlete.sampling.samples import SamplingConfig
from mathlete.solve import stopping
from mathlete.solve.clock import RealClock
from mathlete.solve.policy import Policy
from mathlete.solve.solver import solve

LONGEST = 40


@pytest.fixture(scope="module")
def text(root: Path) -> str:
    return (root / "CONTRIBUTING.md").read_text(encoding="utf-8")


def example(text: str, title: str) -> str:
    part = text.split(f"\n### {title}\n")[1].split("\n### ")[0]
    (code,) = re.findall(r"^```\w+\n(.*?)^```", part, re.M | re.S)
    assert len(code.splitlines()) <= LONGEST
    return str(code)


def test_the_house_map_is_the_linters(text: str, root: Path) -> None:
    contract = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    layers = [{name.strip() for name in layer.split("|")} for layer in contract["layers"]]
    rows = [re.findall(r"`([\w.]+)`", line.split("|")[1]) for line in text.splitlines() if line.startswith("| `")]
    assert [set(row) for row in rows] == layers


def test_the_engine_is_sampled_from_by_the_solve_loop(text: str) -> None:
    made: dict[str, Any] = {}
    exec(compile(example(text, "An engine"), "command_engine.py", "exec"), made)
    program = "import sys; sys.stdin.read(); print(r'so</think>\\boxed{%d}' % (7 if int(sys.argv[1]) % 4 else 8))"
    sampler = made["CommandSampler"](sys.executable, "-c", program, prompts=prompt_format(model_source("pocket")))
    problem = Problem(id="p", statement="What is 3+4?", gold="7")
    policy = Policy(n=4, stop="none", sampling=SamplingConfig())
    found = solve(problem, sampler=sampler, clock=RealClock(), policy=policy)
    assert (found.answer, len(found.samples)) == ("7", 4)
    assert all(sample.tokens > 0 for sample in found.samples)


def test_the_source_is_read(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = (data_folder() / "sources.toml").read_text(encoding="utf-8") + "\n" + example(text, "A source")
    (tmp_path / "sources.toml").write_text(table, encoding="utf-8")
    monkeypatch.setattr(sources, "data_folder", lambda: tmp_path)
    sources.sources.cache_clear()
    try:
        file = tmp_path / "owner" / "my-set" / "train.jsonl"
        file.parent.mkdir(parents=True)
        file.write_text('{"question": "3+4?", "final": "7", "reasoning": "<think>3+4=7</think>\\\\boxed{7}"}\n')
        ((one,),) = opened(parse_spec("my-set"), mirror=tmp_path)
    finally:
        sources.sources.cache_clear()
    assert (one.problem.statement, one.problem.gold, one.trace.text) == ("3+4?", "7", "3+4=7")


def test_the_rule_stops_where_it_says(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "_TERMS", stopping._TERMS)  # put back afterwards
    exec(compile(example(text, "A policy"), "stopping.py", "exec"), vars(stopping))
    labels = np.array([[0, 0, 0, 1], [0, 1, 0, 0], [-1, 2, 2, 2]])
    weights, indexes = np.full_like(labels, stopping.UNIT), np.tile(np.arange(4), (3, 1))
    course = stopping.Course(labels=labels, weights=weights, indexes=indexes, n=4)
    assert stopping.stops_after(course, stopping.stopping_rule("first3")).tolist() == [3, 4, 4]
    assert stopping.stops_after(course, stopping.stopping_rule("first3+exact")).tolist() == [3, 4, 3]
