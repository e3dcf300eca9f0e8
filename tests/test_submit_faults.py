"""Faults strike and leave a mark, or their test fails; nothing here starts a container."""

import ast
import io
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest

from mathlete.competitions import competition
from mathlete.kernel import KernelConfig, engine_child
from mathlete.problems import Problem
from mathlete.rehearsal import FAULTS, RehearsalSettings, rehearse_fault, runner, unisolated
from mathlete.rehearsal.containers import Disks, Ended, Stage
from mathlete.rehearsal.draft import Draft, Layout, Part, make_draft
from mathlete.rehearsal.faults import Fault
from mathlete.rehearsal.gateway.behaviours import PACKAGES
from mathlete.rehearsal.injections import (
    Inject,
    cell,
    combine,
    engine,
    has_struck,
    on_disks,
    probe_container,
    start_within,
    stop_after,
)
from mathlete.rehearsal.speed import contention
from mathlete.rehearsal.vllm_faults import VLLM_FAULTS
from mathlete.rehearsal.vllm_injections import write_stand_in_wheels
from mathlete.submission import Build, Names
from mathlete.submission.notebook import notebook_text
from tests.conftest import NAMES, CommandLine, with_settings

PROBLEMS = [Problem(id=str(number), statement=f"What is {number}?", gold=str(number)) for number in range(1, 4)]


@pytest.fixture
def build(build: Build, tmp_path: Path) -> Build:
    """A build recorded where the commands look for it."""
    build.save(tmp_path / "runs" / "submit")
    return build


def cells(text: str) -> list[str]:
    """Sources of the cells that a fault put in."""
    notebook = json.loads(text)["cells"]
    return ["".join(part["source"]) for part in notebook if "rehearsal" in part["metadata"].get("tags", [])]


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of two containers: the probe, then the cells of the fault, one process each; none of them is fatal."""

    def run(stage: Stage, folder: Path) -> Ended:
        working = folder / "notebook"
        working.mkdir(parents=True)
        for source, log in (
            (stage.probe, "probe.log"),
            *((one, "notebook.log") for one in cells(stage.notebook.read_text())),
        ):
            done = subprocess.run(
                [sys.executable, "-c", source], cwd=working, capture_output=True, text=True, check=False
            )
            with (folder / log).open("a") as file:
                file.write(done.stdout + done.stderr)
        return Ended(notebook_code=1, gateway_code=None, timed_out=False, isolation="namespaces", folder=folder)

    monkeypatch.setattr(runner, "run_stage", run)
    # How busy the machine is changes nothing here: a hundredth of a second tells it too.
    monkeypatch.setattr(runner, "contention", partial(contention, 0.01))


STRIKES: list[tuple[Inject, bool]] = [
    (cell("mark()"), True),
    (cell("mark(); raise RuntimeError('boom')"), True),
    (cell("import os, signal; mark(); os.kill(os.getpid(), signal.SIGKILL)"), True),
    (cell("if False: mark()"), False),
    # The log then shows the line that would have printed the mark.
    (cell("raise RuntimeError('mark() comes too late'); mark()"), False),
    (probe_container("1 + 1 == 2"), True),
    (probe_container("os.path.exists('/nowhere')"), False),
    (probe_container("no_such_name"), False),
    (on_disks(Disks(working_mib=1)), False),
    (combine(on_disks(Disks(working_mib=1)), cell("mark()")), True),
]


@pytest.mark.parametrize("on", ["open", "stream"])
def test_a_fault_of_the_engine_is_opened_as_the_engines_process_opens_its_own(
    on: str, build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the mark is written where the process runs
    (tmp_path / "draft").mkdir()
    made = make_draft(build, PROBLEMS, RehearsalSettings(), speed=1.0, folder=tmp_path / "draft")
    engine("mark()", on=on)(made)
    (code,) = [
        node.value
        for node in ast.walk(ast.parse(cells(made.text)[-1]))
        if isinstance(node, ast.Constant) and "child.main()" in str(node.value)
    ]
    opened: list[tuple[Any, ...]] = []
    monkeypatch.setattr(engine_child, "open_sampler", lambda *given: opened.append(given))
    monkeypatch.setattr(engine_child, "describe_torch", dict)
    monkeypatch.setattr(engine_child, "end_with_input", lambda: None)  # the input is no file here
    monkeypatch.setattr(engine_child, "serve", lambda commands, replies, sampler: opened.append((sampler.name,)))
    monkeypatch.setattr(os, "dup2", lambda old, new: None)
    monkeypatch.setattr(os, "fdopen", lambda number, *how, **more: io.StringIO())
    monkeypatch.setattr(os, "dup", lambda number: number)
    monkeypatch.setattr("sys.stdin", io.StringIO('{"model": "m"}\n'))
    exec(str(code), {"__name__": "injected"})
    assert [given[0] for given in opened] == [{"model": "m"}, "faulty"]


def test_a_faults_seconds_are_as_slow_as_the_clock(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy machine has no more done in a fixed time; what the row says of the notebook must not change with it."""
    monkeypatch.chdir(tmp_path)  # where the injected cell leaves its mark
    for speed, limits in ((100.0, (90, 30)), (25.0, (360, 120))):
        (folder := tmp_path / str(speed)).mkdir()
        made = make_draft(build, PROBLEMS, RehearsalSettings(), speed=speed, folder=folder)
        combine(start_within(90), stop_after(30))(made)
        assert (made.startup_s, made.limit_s) == limits
        left = KernelConfig().speed_up(speed).clock.wall_s / 6
        FAULTS["clock-30s-left"].put_into(made)
        scope: dict[str, Any] = {"CONFIG": KernelConfig().speed_up(speed), "time": time}
        exec(cells(made.text)[-1], scope)
        config = scope["CONFIG"]
        assert config.clock.wall_s - config.clock.reserve_s - (time.time() - scope["STARTED"]) == pytest.approx(
            left, abs=1
        )


@pytest.mark.usefixtures("stage")
@pytest.mark.parametrize(("inject", "struck"), STRIKES)
def test_a_mark_is_left_only_where_a_fault_struck(inject: Inject, struck: bool, build: Build, tmp_path: Path) -> None:
    fault = Fault(name="tried", says="", inject=inject, expect="refused")
    result = rehearse_fault(fault, build, PROBLEMS, RehearsalSettings(), folder=tmp_path / "tried")
    assert result.struck == struck
    assert not has_struck("other", result.rehearsed.ended.folder)


@pytest.mark.usefixtures("stage", "build")
def test_the_command_fails_where_a_fault_did_not_strike_or_ended_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, submit: CommandLine
) -> None:
    monkeypatch.chdir(tmp_path)
    cases: tuple[tuple[str, Literal["valid", "refused"], str], ...] = (
        ("mark()", "refused", ""),
        ("if False: mark()", "refused", "a fault must strike and leave its mark, or it has tested nothing, got tried"),
        ("mark()", "valid", "a rehearsal with a fault must end as its row says, got tried"),
    )
    for source, expect, told in cases:
        monkeypatch.setitem(FAULTS, "tried", Fault(name="tried", says="", inject=cell(source), expect=expect))
        done = submit("rehearse", "--fault", "tried", "--json")
        if told:
            assert told in done.refusal
            assert (tmp_path / "runs/submit/faults/tried").is_dir()
        else:
            assert (done.code, done.result["refused"]) == (0, 1)


@pytest.fixture(scope="module")
def text() -> str:
    """A notebook."""
    return notebook_text(KernelConfig(), NAMES)


@pytest.fixture(scope="module")
def text_of_vllm() -> str:
    """A notebook whose engine is vLLM."""
    return notebook_text(KernelConfig(engine="vllm"), NAMES, vllm="notebook")


def test_a_run_without_namespaces_puts_its_own_folders_into_the_notebook(text: str) -> None:
    assert text.count(f'\\"{unisolated._INPUT}\\"') == text.count(f'\\"{unisolated._PACKAGES}\\"') == 1


def draft_of(text: str, folder: Path) -> Draft:
    names = (
        f"datasets/{NAMES.wheels_id}",
        f"models/{NAMES.model_source}",
        "competitions/olympiad",
        f"notebooks/{NAMES.vllm_id}",
    )
    mounts: dict[Part, tuple[str, str]] = {
        "wheels": (names[0], NAMES.wheels),
        "model": (names[1], names[1].split("/", 2)[2]),
        "competition": (names[2], "olympiad"),
        "vllm": (names[3], names[3].split("/", 1)[1]),
    }
    for name in names:
        (folder / name).mkdir(parents=True)
    (folder / names[1] / "model.safetensors").write_bytes(bytes(1000))
    (folder / names[1] / "tokenizer.json").write_text("{}")
    write_stand_in_wheels(folder / names[3])
    (folder / "test.csv").write_text("id,problem\na,x\nb,y\n")
    inputs = {name: folder / name for name in names}
    return Draft(text=text, inputs=inputs, mounts=mounts, test=folder / "test.csv", limit_s=1.0, folder=folder)


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_puts_in_code_that_compiles_and_can_leave_its_mark(
    name: str, text: str, text_of_vllm: str, tmp_path: Path
) -> None:
    draft = draft_of(text_of_vllm if FAULTS[name].needs == "vllm" else text, tmp_path)
    FAULTS[name].put_into(draft)
    sources = [draft.probe, *cells(draft.text)]
    trees = [compile(source, name, "exec", ast.PyCF_ONLY_AST) for source in sources]
    # An engine's code is a string in its cell, for a process of its own.
    strings = [node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    trees += [ast.parse(text) for text in strings if isinstance(text, str) and "import" in text]
    edited = [
        ast.parse("".join(part["source"])) for part in json.loads(draft.text)["cells"] if part["cell_type"] == "code"
    ]
    calls = [node.func for tree in (*trees, *edited) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert "mark" in [call.id for call in calls if isinstance(call, ast.Name)]
    assert f"'struck', {name!r}" in "".join([*sources, *map(str, strings)]).replace('"', "'")


def test_what_a_fault_expects_follows_from_the_version_of_the_package() -> None:
    aimo_1, aimo_3 = (KernelConfig(competition=competition(name)) for name in ("aimo-1", "aimo-3"))
    served = replace(aimo_3, engine="vllm")
    names = ("predict-returns-wrong-id", "port-taken", "predict-raises", "tmp-small")
    wrong_id, port, raises, small = (FAULTS[name] for name in names)
    # As in golden/gateway_outcomes.txt: pl_wrong_id and port_taken.
    assert [version for version in PACKAGES if wrong_id.expect_with(version) == "refused"] == ["0.3.0", "0.7.0"]
    assert [version for version in PACKAGES if port.expect_with(version) == "refused"] == ["0.3.0", "1.4.0"]
    assert port.ends == "valid; refused with 0.3.0, 1.4.0"
    assert raises.ends == "refused"
    assert [fault.suits(aimo_1) for fault in (wrong_id, raises, small)] == [False, False, True]
    assert all(fault.suits(served) for fault in FAULTS.values())
    assert [name for name, fault in FAULTS.items() if not fault.suits(aimo_3)] == [*VLLM_FAULTS]
    alone = [name for name, fault in FAULTS.items() if not fault.suits(replace(served, embedded=False))]
    assert {"vllm-oom-always", "vllm-wheel-other", "vllm-weights-cut"} < {*alone} < {*VLLM_FAULTS}
    assert "vllm-oom-at-boot" not in alone


def test_there_are_at_least_twenty_faults_of_vllm_and_each_says_what_the_journal_must() -> None:
    assert len(VLLM_FAULTS) >= 20
    assert all(fault.journalled for fault in VLLM_FAULTS.values())


@pytest.mark.usefixtures("build")
def test_a_fault_of_vllm_is_refused_for_another_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, submit: CommandLine
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = submit("rehearse", "--fault", "vllm-nccl").refusal
    assert "a fault of vLLM needs a build whose engine it is, got a build of the transformers engine" in refused


@pytest.mark.usefixtures("build")
def test_a_fault_of_a_server_is_refused_for_an_iterator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, submit: CommandLine, build: Build
) -> None:
    monkeypatch.chdir(tmp_path)
    config = replace(build.config, competition=competition("aimo-1"))
    replace(build, config=config).save(Path("runs/submit"))
    assert (
        "a server's predict or test.csv needs an inference server, got aimo-1 with an iterator"
        in submit("rehearse", "--fault", "csv-odd-text").refusal
    )


@pytest.mark.parametrize("layout", ["old", "new"])
def test_inputs_are_found_whatever_they_are_called(layout: Layout, build: Build, tmp_path: Path) -> None:
    names = Names(owner="x", wheels="one", model="two", kernel="three", model_version=4)
    build = with_settings(build, tmp_path / "renamed", names=names)
    settings = RehearsalSettings(layout=layout)
    for name in ("wheels-missing", "competition-missing", "model-other-layout"):
        folder = tmp_path / name
        folder.mkdir()
        draft = make_draft(build, PROBLEMS, settings, speed=1.0, folder=folder)
        before = {*draft.inputs}
        FAULTS[name].put_into(draft)
        moved = before ^ {*draft.inputs}
        assert len(moved) == (2 if name == "model-other-layout" else 1)
        assert {"wheels-missing": "one", "competition-missing": "olympiad", "model-other-layout": "two"}[
            name
        ] in "".join(moved)
