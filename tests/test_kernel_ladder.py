"""The ladder of engines: real processes that die, hang or cannot be had, and what the journal says of each step."""

import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from mathlete.kaggle_image import VLLM_LOCK
from mathlete.kernel import server
from mathlete.kernel.answering import Answerer
from mathlete.kernel.config import KernelConfig, NotebookClock
from mathlete.kernel.engine import EngineError, EngineProcess
from mathlete.kernel.journal import read_facts, read_journal
from mathlete.kernel.ladder import Ladder
from mathlete.kernel.steps import EngineStep
from mathlete.kernel.world import InstalledWorld, install, read_into_cache
from mathlete.problems import Problem
from mathlete.sampling.samples import SamplingConfig
from mathlete.sampling.served import VllmSettings
from mathlete.solve.policy import Policy
from tests.conftest import POCKET
from tests.draws import draw_samples

PROBLEM = Problem(id="p", statement="1+1", gold="2")
SERVES = """
import json, os, sys
sys.stdin.readline()
print(json.dumps({"ready": True, "engine": {"pid": os.getpid()}, "opens_thoughts": True}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    if "cancel" in request:
        continue
    if os.path.exists(sys.argv[1]):
        sys.exit("EngineDeadError: EngineCore encountered an issue.")
    for index, seed in request["seeds"].items():
        sample = {"problem_id": request["problem"]["id"], "index": int(index), "seed": seed, "text": sys.argv[2]}
        sample |= {"answer": "2", "tokens": 1, "finish": "stop", "seconds": 0.1}
        print(json.dumps({"request": request["request"], "sample": sample}), flush=True)
    print(json.dumps({"request": request["request"], "done": True}), flush=True)
"""
REFUSES = SERVES.replace(
    "    for index",
    "    print(json.dumps({'request': request['request'], 'error': "
    "'UserError: vLLM must give a whole sample in 3 tries'}), flush=True)\n    continue\n    for index",
)
TOO_LONG = SERVES.replace('"text": sys.argv[2]', '"text": ""').replace(
    '"tokens": 1, "finish": "stop"', '"tokens": 0, "finish": "length"'
)
FAILS_SOME = REFUSES.replace("    print(json.dumps({'re", "    if 'bad' in line:\n     print(json.dumps({'re").replace(
    "\n    continue", "\n     continue"
)
DIES = "import sys; sys.exit('torch._inductor.exc.InductorError: CppCompileError: C++ compile error')"
OUT_OF_MEMORY = "import sys; sys.exit('torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 46.00 MiB')"
NCCL = "import sys; sys.exit('torch.distributed.DistBackendError: NCCL error, unhandled system error')"
HANGS = "import time; time.sleep(60)"


def process(
    folder: Path, code: str, *words: str, world: InstalledWorld | None = None, quiet_s: float | None = None
) -> EngineProcess:
    command = (sys.executable, "-S", "-c", code, *words)
    return EngineProcess(folder, log=folder / "engine.log", command=command, world=world, quiet_s=quiet_s)


def serving(folder: Path, says: str, *, dies_with: str = "never") -> EngineProcess:
    return process(folder, SERVES, str(folder / dies_with), says)


def ladder(*steps: tuple[str, EngineProcess]) -> tuple[Ladder, list[Mapping[str, object]]]:
    left: list[Mapping[str, object]] = []
    processes = dict(steps)
    named = [EngineStep(name=name, engine="any", mends="GPU memory" if name == "shorter" else "") for name in processes]
    return Ladder(named, lambda step: processes[step.name], on_step=left.append), left


def answerer_of(engine: Ladder, folder: Path, **how: Any) -> Answerer:
    given: dict[str, Any] = {"wall_s": 600.0, "reserve_s": 1.0, "question_min_s": 0.0, "question_max_s": 20.0, **how}
    config = KernelConfig(policy=Policy(n=2), problems=20, clock=NotebookClock(**given))
    return Answerer(config, engine=engine, started=time.time(), journal=folder / "journal.jsonl")


def texts(engine: Ladder) -> list[str]:
    return [sample.text for sample in draw_samples(engine, PROBLEM, 2, SamplingConfig()).values()]


@pytest.mark.parametrize(
    ("code", "quiet_s", "cause"),
    [
        (OUT_OF_MEMORY, None, "GPU memory: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 46.00 MiB"),
        (HANGS, 0.2, "no progress: it printed and read nothing for 0 s while it loaded"),
        (HANGS, None, "the model was not loaded within 6 s"),
    ],
)
def test_what_does_not_come_up_is_left_for_the_next_step(
    tmp_path: Path, code: str, quiet_s: float | None, cause: str
) -> None:
    engine, left = ladder(
        ("vllm", process(tmp_path, code, quiet_s=quiet_s)), ("embedded", serving(tmp_path, "embedded"))
    )
    with closing(engine):
        engine.start(timeout_s=10.0)
        assert (engine.step, texts(engine)) == ("embedded", ["embedded"] * 2)
    assert [(fact["step"], fact["next"]) for fact in left] == [("vllm", "embedded")]
    assert cause in str(left[0]["cause"])


def test_one_that_dies_is_restarted_once_then_left(tmp_path: Path) -> None:
    first = serving(tmp_path, "vllm", dies_with="deadly")
    engine, left = ladder(("vllm", first), ("embedded", serving(tmp_path, "embedded")))
    with closing(engine):
        for starts in (1, 2):
            engine.start(timeout_s=10.0)
            assert (texts(engine), engine.opens_thoughts) == (["vllm"] * 2, True)
            assert (first.starts, [fact["next"] for fact in left]) == (starts, ["vllm"] * (starts - 1))
            (tmp_path / "deadly").touch()
            with pytest.raises(EngineError, match="a worker that died: EngineDeadError"):
                texts(engine)
            (tmp_path / "deadly").unlink()
        engine.start(timeout_s=10.0)
        assert texts(engine) == ["embedded"] * 2
    assert "a worker that died: EngineDeadError" in str(left[0]["cause"])
    assert "ended a second time" in str(left[1]["cause"])


def test_a_step_that_mends_something_else_is_passed_over(tmp_path: Path) -> None:
    for code, steps in ((OUT_OF_MEMORY, ["shorter", "embedded"]), (DIES, ["embedded"])):
        engine, left = ladder(
            ("vllm", process(tmp_path, code)),
            ("shorter", process(tmp_path, code)),
            ("embedded", serving(tmp_path, "embedded")),
        )
        with closing(engine):
            engine.start(timeout_s=30.0)
        assert [fact["next"] for fact in left] == steps


@pytest.mark.parametrize("kind", ["error", "empty"])
def test_a_step_of_which_nothing_comes_is_left_and_costs_no_question(kind: str, tmp_path: Path) -> None:
    barren = process(tmp_path, SERVES if kind == "empty" else REFUSES, str(tmp_path / "never"), "")
    engine, left = ladder(("vllm", barren), ("embedded", serving(tmp_path, "<think>x</think>\\boxed{2}")))
    answerer = answerer_of(engine, tmp_path)
    with closing(engine):
        answerer.begin()
        assert [answerer.answer(problem_id=name, statement="1+1") for name in "ab"] == [2, 2]
    why = "only empty completions" if kind == "empty" else "must give a whole sample in 3 tries"
    assert why in str(left[0]["cause"])
    first, second = read_journal(tmp_path / "journal.jsonl")
    assert (why in first.why, second.why, first.fallback) == (True, "", False)


def test_failures_that_are_not_in_a_row_leave_no_step(tmp_path: Path) -> None:
    engine, left = ladder(("vllm", process(tmp_path, FAILS_SOME, "never", "2")), ("embedded", serving(tmp_path, "3")))
    with closing(engine):
        for name in ["bad", "good", "bad", "good", "bad", "bad"]:
            engine.start(timeout_s=10.0)
            assert not left
            # Whoever has enough closes the stream before its end.
            with closing(
                engine.stream(replace(PROBLEM, id=name), seeds={0: 1, 1: 2}, config=SamplingConfig())
            ) as drawn:
                if name == "bad":
                    with pytest.raises(EngineError, match="in 3 tries"):
                        next(drawn)
                else:
                    assert next(drawn).text == "2"
        engine.start(timeout_s=10.0)
    assert [fact["next"] for fact in left] == ["embedded"]


def test_a_question_that_is_too_long_is_asked_once_and_leaves_no_step(tmp_path: Path) -> None:
    first = process(tmp_path, TOO_LONG, "never", "")
    engine, left = ladder(("vllm", first), ("embedded", serving(tmp_path, "\\boxed{2}")))
    answerer = answerer_of(engine, tmp_path)
    with closing(engine):
        for name in "abc":
            answerer.answer(problem_id=name, statement="1+1")
        assert (first._requests, first.starts, left) == (3, 1, [])
    assert {line.why for line in read_journal(tmp_path / "journal.jsonl")} == {
        "the model's context has no room for the question"
    }


def test_a_process_that_no_signal_reaches_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mathlete.kernel.engine._DYING_S", 0.05)
    engine = serving(tmp_path, "2")
    engine.start(timeout_s=10.0)
    stuck = engine._process
    assert stuck is not None
    with monkeypatch.context() as patch:
        patch.setattr(os, "killpg", lambda *_: None)
        drawn = engine.stream(PROBLEM, seeds={}, config=SamplingConfig())
        assert "ended with code None (we ended it" in engine.cause_of_death()
        assert not engine.alive
        with pytest.raises(EngineError):
            next(drawn)
    with closing(engine):
        engine.start(timeout_s=10.0)
        assert (engine.starts, engine.alive) == (2, True)
    stuck.kill()
    stuck.wait()
    if stuck.stdin:
        stuck.stdin.close()


def test_the_engine_loads_before_the_first_question_which_finds_what_went_wrong(tmp_path: Path) -> None:
    engine, left = ladder(("vllm", process(tmp_path, OUT_OF_MEMORY)), ("embedded", serving(tmp_path, "\\boxed{2}")))
    answerer = answerer_of(engine, tmp_path)
    with closing(engine):
        answerer.begin()
        ends = time.monotonic() + 60
        while not (engine.step == "embedded" and engine._process.alive):
            assert time.monotonic() < ends
            time.sleep(0.02)
        assert left
        assert answerer.answer(problem_id="a", statement="1+1") == 2
    assert engine._process.starts == 1


def test_a_question_that_cannot_wait_leaves_a_long_start_to_the_next(tmp_path: Path) -> None:
    slow = SERVES.replace("sys.stdin.readline()", "sys.stdin.readline(); import time; time.sleep(3)")
    engine, _ = ladder(("embedded", process(tmp_path, slow, "never", "\\boxed{2}")))
    answerer = answerer_of(engine, tmp_path, deadline_s=1.0, question_max_s=0.8)
    with closing(engine):
        answerer._given["earlier"] = 0  # the first call alone has no deadline
        told = [answerer.answer(problem_id=str(number), statement="1+1") for number in range(12)]
    assert engine._process.starts == 1
    assert told[0] == 0
    assert 2 in told
    assert "it is loaded further" in read_journal(tmp_path / "journal.jsonl")[0].why


def test_the_last_step_is_tried_again_and_says_why_it_fails(tmp_path: Path) -> None:
    engine, left = ladder(("vllm", process(tmp_path, OUT_OF_MEMORY)), ("embedded", process(tmp_path, OUT_OF_MEMORY)))
    for _ in range(2):
        with closing(engine), pytest.raises(EngineError, match="GPU memory"):
            engine.start(timeout_s=10.0)
    assert len(left) == 1


def test_near_the_end_of_the_clock_the_last_step_gets_all_that_is_left(tmp_path: Path) -> None:
    engine, left = ladder(("vllm", process(tmp_path, HANGS)), ("embedded", serving(tmp_path, "embedded")))
    with closing(engine):
        engine.start(timeout_s=4.0)
        assert texts(engine) == ["embedded"] * 2
    assert left[0]["cause"] == "the clock: 4 s are left for loading"


def test_closing_ends_what_the_process_started(tmp_path: Path) -> None:
    """vLLM's own processes would keep the GPU's memory."""
    code = "import subprocess, sys, time; print(subprocess.Popen(['sleep', '60']).pid, file=sys.stderr, flush=True); "
    engine = process(tmp_path, code + "time.sleep(60)")
    with pytest.raises(EngineError, match="not loaded within"):
        engine.start(timeout_s=1.0)
    grandchild = int((tmp_path / "engine.log").read_text())
    for _ in range(50):
        stat = Path(f"/proc/{grandchild}/stat")
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.1)
    raise AssertionError("the grandchild lives")


def wheel_of(folder: Path, name: str) -> Path:
    """Make a wheel of one module that says what it is."""
    info = f"{name}-1.0.dist-info"
    files = {
        f"{name}.py": f"HERE = {name!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    listed = "".join(f"{file},,\n" for file in (*files, f"{info}/RECORD"))
    file = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        for path, text in {**files, f"{info}/RECORD": listed}.items():
            archive.writestr(path, text)
    return file


def test_only_the_engines_process_sees_its_packages(tmp_path: Path) -> None:
    wheels, model = tmp_path / "input" / "wheels", tmp_path / "model"
    wheels.mkdir(parents=True)
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"weights" * 1000)
    digest = sha256(wheel_of(wheels, "only_there").read_bytes()).hexdigest()
    (wheels / VLLM_LOCK).write_text(f"# a lock\nonly-there==1.0 --hash=sha256:{digest}  # 700 bytes\n")
    facts: list[Mapping[str, object]] = []
    log, folder = tmp_path / "install.log", tmp_path / "packages"
    world = InstalledWorld(wheels.parent, folder, model=model, log=log, on_done=facts.append)
    code = SERVES.replace("import json", "import only_there, json")
    engine, left = ladder(("vllm", process(tmp_path, code, "never", "there", world=world)))
    with closing(engine):
        engine.start(timeout_s=60.0)
        assert texts(engine) == ["there"] * 2
    assert left == []
    outside = subprocess.run([sys.executable, "-c", "import only_there"], capture_output=True, check=False)
    assert b"No module named 'only_there'" in outside.stderr
    assert str(folder) not in os.environ.get("PYTHONPATH", "")
    for _ in range(100):
        if facts:
            break
        time.sleep(0.05)
    assert set(facts[0]) == {"install_s", "read_s", "read_gib"}


@pytest.mark.parametrize("trouble", ["no wheels", "another wheel"])
def test_wheels_that_cannot_be_installed_leave_the_embedded_engine(tmp_path: Path, trouble: str) -> None:
    wheels = tmp_path / "wheels"
    if trouble == "another wheel":
        wheels.mkdir()
        wheel_of(wheels, "only_there")
        (wheels / VLLM_LOCK).write_text(f"only-there==1.0 --hash=sha256:{'0' * 64}  # 700 bytes\n")
    world = InstalledWorld(wheels, tmp_path / "packages", model=tmp_path, log=tmp_path / "install.log")
    steps = ("vllm", process(tmp_path, SERVES, "never", "x", world=world)), ("embedded", serving(tmp_path, "embedded"))
    engine, left = ladder(*steps)
    with closing(engine):
        engine.start(timeout_s=60.0)
        assert texts(engine) == ["embedded"] * 2
    cause = str(left[0]["cause"])
    assert cause.startswith("vLLM's packages cannot be installed: ")
    assert (VLLM_LOCK if trouble == "no wheels" else "HASH") in cause.replace("hash", "HASH").replace("Hash", "HASH")


def test_reading_ahead_counts_what_can_be_read(tmp_path: Path) -> None:
    sizes = (0, 1, 10, 12_345)
    files = [tmp_path / str(size) for size in sizes]
    for file, size in zip(files, sizes, strict=True):
        file.write_bytes(b"x" * size)
    assert read_into_cache(files) == sum(sizes)
    assert install(tmp_path / "none", tmp_path, log=tmp_path / "log").startswith(f"no {VLLM_LOCK}")


@pytest.mark.slow
def test_a_notebook_of_vllm_answers_without_its_wheels_and_the_journal_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "VLLM_PACKAGES", tmp_path / "packages")
    policy = Policy(n=1, sampling=SamplingConfig(max_tokens=8, temperature=0))
    config = KernelConfig(engine="vllm", policy=policy, problems=2)
    engine = server.make_engine(config, model=POCKET, vllm=None, working=tmp_path)
    answerer = Answerer(config, engine=engine, started=time.time(), journal=tmp_path / "journal.jsonl")
    with closing(engine):
        assert isinstance(answerer.answer(problem_id="a", statement="1+1"), int)
    facts = read_facts(tmp_path / "journal.jsonl")
    assert [step["step"] for step in facts.left] == ["vllm", "vllm with safer settings"]
    assert facts.engine["step"] == "embedded"
    assert "trouble" in facts.packages


def test_a_step_builds_on_the_one_that_was_left_and_one_passed_over_may_come_later(tmp_path: Path) -> None:
    def count(vllm: VllmSettings, cause: str) -> VllmSettings:
        return replace(vllm, at_once=vllm.at_once + 1)

    codes = {"vllm": OUT_OF_MEMORY, "joins": NCCL, "shrinks": NCCL, "embedded": NCCL}
    mends = {"joins": "NCCL", "shrinks": "GPU memory"}
    own: dict[str, Any] = {"vllm": None, "embedded": None, "idle": lambda vllm, cause: vllm}
    made: list[EngineStep] = []

    def make(step: EngineStep) -> EngineProcess:
        made.append(step)
        return process(tmp_path, codes[step.name])

    steps = [
        EngineStep(name=name, engine="any", mends=mends.get(name, ""), change=own.get(name, count))
        for name in ("vllm", "idle", "joins", "shrinks", "embedded")
    ]
    engine = Ladder(steps, make)
    with closing(engine), pytest.raises(EngineError, match="NCCL"):
        engine.start(timeout_s=60.0)
    assert [(step.name, step.vllm.at_once) for step in made] == [
        ("vllm", 256),
        ("shrinks", 257),
        ("joins", 258),
        ("embedded", 256),
    ]
