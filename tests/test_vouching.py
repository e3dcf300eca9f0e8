"""A finished run whose files changed: every command that reads it says so, or what changed means nothing."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from mathlete.errors import UserError
from mathlete.problems import read_problems, write_problems
from mathlete.scoring import EvalRun, Pool
from tests.conftest import POCKET_VAL, CommandLine

WORDS = ("few.jsonl", "--model", "pocket", "--n", 3, "--json", "--run")
FILES = ("samples.jsonl", "results.json", "manifest.json", "problems.jsonl", "started.json")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, evaluate: CommandLine) -> Path:
    """A finished run over three problems, and what it was made of, in one folder."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_problems(Path("few.jsonl"), read_problems(POCKET_VAL)[:3])
        assert evaluate(*WORDS, "run").code == 0
        shutil.copytree("run", "other")
    return folder


@pytest.fixture
def run(whole: Path, workdir: Path) -> Path:
    shutil.copytree(whole, workdir, dirs_exist_ok=True)
    return Path("run")


def spoil(file: Path, seed: int) -> str:
    """Replace one byte of a file by another; return which."""
    random_ = random.Random(f"{file.name} {seed}")
    data = bytearray(file.read_bytes())
    place = random_.randrange(len(data))
    new = random_.choice([byte for byte in range(256) if byte != data[place]])
    told = f"byte {place}: {data[place]:#x} became {new:#x}"
    data[place] = new
    file.write_bytes(data)
    return told


def read(folder: Path) -> list[Any]:
    """What the readers make of a run, without its name."""
    run, pool = EvalRun.read(folder), Pool.read([folder])
    return [run.graded, run.results, {**run.manifest, "sha256": ""}, pool.problems]


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte_is_told_or_means_nothing(whole: Path, run: Path, name: str, *, finished: bool) -> None:
    if not finished:
        (run / "manifest.json").unlink()
        if name == "manifest.json":
            return
    before, data, refused = read(run), (run / name).read_bytes(), 0
    for seed in range(40):
        told = spoil(run / name, seed)
        try:
            # An unfinished run has nobody to vouch for it: there it is enough that nothing breaks.
            assert read(run) == before or not finished, told
        except UserError as error:
            refused += name in str(error)
        (run / name).write_bytes(data)
    # JSON has spaces that mean nothing, and the mark is read by the command that goes on only.
    assert refused >= {"started.json": 0}.get(name, 25 if finished else 1)


COMMANDS: dict[str, tuple[object, ...]] = {
    "report": ("report", "run", "--out", "out/report.html"),
    "compare": ("compare", "run", "other"),
    "replay": ("replay", "run", "--n", 2, "--simulations", 50, "--run", "out/replay"),
    "losses": ("losses", "run"),
    "again": (*WORDS, "run"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_in_one_line_what_changed(run: Path, command: str, evaluate: CommandLine) -> None:
    line = (run / "samples.jsonl").read_text().splitlines()[0]
    tokens = json.loads(line)["tokens"]
    changed = (run / "samples.jsonl").read_text().replace(f'"tokens": {tokens},', f'"tokens": {tokens - 1},', 1)
    (run / "samples.jsonl").write_text(changed)
    told = [line for line in evaluate(*COMMANDS[command]).refusal.splitlines() if line.startswith("error")]
    assert told == ["error: run/manifest.json must match the folder's files, got samples.jsonl changed."]
    assert not Path("out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_200_changed_bytes_break_no_command(run: Path, command: str, evaluate: CommandLine) -> None:
    words = COMMANDS[command]

    def result() -> dict[str, Any] | None:
        shutil.rmtree("out", ignore_errors=True)
        done = evaluate(*words, *([] if "--json" in words else ["--json"]))
        assert done.code in (0, 2)
        if done.code == 2:
            assert "Traceback" not in done.stderr
            return None
        return {key: value for key, value in done.result.items() if "seconds" not in key and key != "bytes"}

    before = result()
    assert before is not None
    for seed in range(200):
        name = FILES[seed % 3]
        data = (run / name).read_bytes()
        told = spoil(run / name, seed)
        assert result() in (None, before), told
        (run / name).write_bytes(data)


def test_an_old_manifest_vouches_for_the_files_but_not_for_itself(run: Path) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    del manifest["sha256"]
    (run / "manifest.json").write_text(json.dumps({**manifest, "schema": 1, "seconds": 1.5}))
    assert EvalRun.read(run).manifest["seconds"] == 1.5
    (run / "results.json").write_text("{}")
    with pytest.raises(UserError, match=r"got results\.json changed"):
        EvalRun.read(run)


def test_a_manifest_of_another_program_vouches_for_nothing(run: Path) -> None:
    (run / "manifest.json").write_text('{"name": "my model", "version": 3}')
    assert EvalRun.read(run).graded
