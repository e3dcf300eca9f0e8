import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tyro

from eval.__main__ import COMMANDS, EVALUATE
from mathlete.command import run_command_line
from mathlete.problems import Problem, read_problems, write_problems
from mathlete.replay.outcomes import wall_from
from mathlete.sampling.record import read_samples
from mathlete.shipped import data_folder
from mathlete.solve.policy import Policy
from mathlete.solve.stopping import stopping_rule

GOLDEN = Path(__file__).parent / "golden"
POCKET = data_folder() / "pocket" / "model"


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six problems of pocket_val, half of them hard, in a file; the test stands in its own folder."""
    problems = read_problems(data_folder() / "pocket" / "pocket_val.jsonl")
    hard = [problem for problem in problems if problem.subset.startswith("hard")]
    easy = [problem for problem in problems if problem.subset.startswith("easy")]
    write_problems(tmp_path / "six.jsonl", [*hard[:3], *easy[:3]])
    monkeypatch.chdir(tmp_path)
    return tmp_path / "six.jsonl"


def run(*words: object) -> int:
    return run_command_line([str(word) for word in words], prog="python -m eval", commands=COMMANDS, otherwise=EVALUATE)


def last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def test_a_run_leaves_all_that_was_promised(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(suite, "--model", "pocket", "--n", 4, "--json") == 0
    found = last_line(capsys)
    folder = Path(found["run"])
    assert folder.parent == Path("runs")
    assert folder.name.startswith("eval-six-pocket-")
    assert {"results.json", "samples.jsonl", "problems.jsonl", "manifest.json"} <= {p.name for p in folder.iterdir()}
    written = json.loads((folder / "results.json").read_text())
    for key in ("suite", "suite_sha", "n", "policy", "pass_at_1", "pass_at_1_se", "maj_at_k", "maj_at_k_interval",
                "per_problem", "tokens", "seconds", "tokens_per_s", "fallbacks", "unknown", "engine", "model_sha",
                "prompt_sha", "commit", "dirty"):  # fmt: skip
        assert key in written
    assert (found["n"], found["problems"], found["samples"], found["k"]) == (4, 6, 24, 4)
    assert sorted(written["groups"]) == ["easy", "hard"]
    samples = read_samples(folder / "samples.jsonl")
    assert len(samples) == 24
    assert sum(sample.tokens for sample in samples) == found["tokens"]
    assert any(sample.finish == "boxed" and sample.text.endswith("}") for sample in samples)
    assert read_problems(folder / "problems.jsonl") == read_problems(suite)


def test_the_same_command_is_skipped_when_done(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(suite, "--model", "pocket", "--n", 1, "--json") == 0
    first = last_line(capsys)
    assert run(suite, "--model", "pocket", "--n", 1, "--json") == 0
    assert last_line(capsys) == {**first, "skipped": True}
    assert run(suite, "--model", "pocket", "--n", 1, "--seed", 1, "--json") == 0
    assert last_line(capsys)["run"] != first["run"]


def test_a_policy_stops_early_and_is_told(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(suite, "--model", "pocket", "--n", 8, "--policy", "votes2/logprob", "--run", "r", "--json") == 0
    shown = capsys.readouterr()
    found, written = json.loads(shown.out.splitlines()[-1]), json.loads(Path("r/results.json").read_text())
    assert found["samples"] < 48
    assert f"{written['ended']['rule']} problems stopped early" in shown.err
    assert (written["policy"]["stop"], written["policy"]["vote"]) == ("votes2", "logprob")
    assert written["ended"]["rule"] >= 1
    assert sum(part["problems"] for part in written["calibration"]) == 6
    assert written["finish_order"] is None or 0 <= written["finish_order"]["value"] <= 1


def test_tools_change_the_prompt_and_are_told(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (suite, "--model", "pocket", "--n", 2, "--limit", 2, "--json")
    assert run(*words, "--run", "plain") == 0
    assert run(*words, "--run", "tools", "--tools.turns", 2, "--tools.timeout-s", 3) == 0
    assert last_line(capsys)["samples"] == 4
    plain, tools = (json.loads(Path(folder, "results.json").read_text()) for folder in ("plain", "tools"))
    assert (tools["tools"]["turns"], tools["tools"]["timeout_s"]) == (2, 3.0)
    assert tools["sandbox"]
    assert "tools" not in plain
    assert tools["prompt_sha"] != plain["prompt_sha"]
    assert run(*words, "--tools.turns", -1) == 2


def test_a_time_budget_holds_and_a_run_cut_short_does_not_start_it_anew(
    suite: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (suite, "--model", "pocket", "--n", 8, "--time-budget", 0.6, "--run", "r", "--json")
    assert run(*words) == 0
    first, written = last_line(capsys), json.loads(Path("r/results.json").read_text())
    spent = [json.loads(line) for line in Path("r/spent.jsonl").read_text().splitlines()]
    assert [row["problem_id"] for row in spent] == [problem.id for problem in read_problems(suite)]
    assert sum(row["seconds"] for row in spent) < 0.6 + 1  # a step of a busy machine
    assert written["ended"].get("time", 0) >= 1
    assert sum(row["verdict"] == "none" for row in written["per_problem"]) == written["fallbacks"]
    for name in ("manifest.json", "results.json"):
        Path("r", name).unlink()
    assert run(*words) == 0
    again = last_line(capsys)
    assert (again["samples"], again["pass_at_1"]) == (first["samples"], first["pass_at_1"])


def test_table_stands_on_stdout_without_json_and_on_stderr_with(
    suite: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(suite, "--model", "pocket", "--n", 1, "--limit", 2) == 0
    plain = capsys.readouterr()
    assert "pass@1 ± se" in plain.out
    assert "of 2 samples right" in plain.out
    assert run(suite, "--model", "pocket", "--n", 1, "--limit", 2, "--json") == 0
    both = capsys.readouterr()
    assert len(both.out.splitlines()) == 1
    assert "pass@1 ± se" in both.err


def test_unfinished_run_goes_on_without_losing_or_repeating(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a kill leaves is a folder without manifest whose last line may be half-written."""
    assert run(suite, "--model", "pocket", "--n", 4, "--run", "whole", "--json") == 0
    assert run(suite, "--model", "pocket", "--n", 4, "--run", "cut", "--json") == 0
    capsys.readouterr()
    cut = Path("cut")
    for name in ("manifest.json", "results.json"):
        (cut / name).unlink()
    lines = (cut / "samples.jsonl").read_bytes().splitlines(keepends=True)
    (cut / "samples.jsonl").write_bytes(b"".join(lines[:9]) + lines[9][:30])
    assert run(suite, "--model", "pocket", "--n", 4, "--run", "cut", "--json") == 0
    shown = capsys.readouterr()
    assert "dropped a half-written last line of samples.jsonl (30 bytes)" in shown.err
    assert "going on: 9 of 24 samples are there" in shown.err
    assert contents(cut) == contents(Path("whole"))
    assert (cut / "samples.jsonl").read_bytes().splitlines(keepends=True)[:9] == lines[:9]


def contents(folder: Path) -> dict[tuple[str, int], tuple[str, int, int]]:
    return {(s.problem_id, s.index): (s.text, s.tokens, s.seed) for s in read_samples(folder / "samples.jsonl")}


def test_samples_of_another_run_are_refused(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(suite, "--model", "pocket", "--n", 1, "--run", "r") == 0
    for name in ("manifest.json", "results.json"):
        Path("r", name).unlink()
    line = json.loads(Path("r/samples.jsonl").read_text().splitlines()[0])
    Path("r/samples.jsonl").write_text(json.dumps({**line, "seed": 3}) + "\n")
    assert run(suite, "--model", "pocket", "--n", 1, "--run", "r") == 2
    assert "samples.jsonl must hold this run's samples only" in capsys.readouterr().err


def test_corrupted_sample_line_is_named(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(suite, "--model", "pocket", "--n", 1, "--run", "r") == 0
    Path("r/manifest.json").unlink()
    Path("r/samples.jsonl").write_text('{"problem_id": 3}\n')
    assert run(suite, "--model", "pocket", "--n", 1, "--run", "r") == 2
    assert "samples.jsonl:1: a sample needs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pocket_vall"], r"did you mean pocket_val?"),
        (["six.jsonl", "--n", "0"], "--n must be at least 1, got 0"),
        (["six.jsonl", "--limit", "0"], "--limit must be at least 1, got 0"),
        (["six.jsonl", "--threads", "0"], "--threads must be at least 1, got 0"),
        (["six.jsonl", "--model", "pockett"], "did you mean pocket?"),
        (["six.jsonl", "--model", "bare"], "a model folder needs its tokenizer"),
        (["six.jsonl", "--model", "short"], "must leave room in the model's context of 8 tokens"),
        (["bad.jsonl"], "bad.jsonl:1: a problem needs gold"),
        (["six.jsonl", "--policy", "bta95"], "a stopping rule must be a known one"),
        (["six.jsonl", "--policy", "exact/most"], "the vote must be a known one"),
        (["six.jsonl", "--engine", "vlm"], "did you mean vllm? Known: transformers, vllm, openai, ray"),
        (["six.jsonl", "--engine", "openai"], "--servers.urls must be at least one address"),
        (["six.jsonl", "--ray.workers", "0"], "--ray.workers must be at least 1, got 0"),
        (["six.jsonl", "--time-budget", "0"], "--time-budget must be above 0, got 0"),
        (["six.jsonl", "--sampling.top-p", "0"], "--sampling.top-p must be above 0"),
        (["six.jsonl", "--run", "mine"], "a step writes only into its own or an empty folder, got mine"),
    ],
)
def test_bad_input_is_exit_2_and_leaves_nothing(
    suite: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    shutil.copytree(POCKET, "bare", ignore=shutil.ignore_patterns("tokenizer*"))
    shutil.copytree(POCKET, "short")
    config = json.loads(Path("short/config.json").read_text())
    Path("short/config.json").write_text(json.dumps({**config, "max_position_embeddings": 8}))
    Path("bad.jsonl").write_text('{"id": "1", "statement": "s"}\n')
    Path("mine").mkdir()
    Path("mine/letter.txt").write_text("dear")
    before = sorted(Path().rglob("*"))
    assert run(*words, *([] if "--model" in words else ["--model", "pocket"])) == 2
    assert message in capsys.readouterr().err
    assert sorted(Path().rglob("*")) == before


def test_a_model_that_cannot_do_it_is_said_to_be_so(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_problems(suite, [Problem(id="1", statement="Prove the Riemann hypothesis.", gold="proved")])
    assert run(suite, "--model", "pocket", "--n", 2, "--sampling.max-tokens", 4) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert (
        "0 of 2 samples right; 2 ended without an answer; 2 were cut at 4 tokens; 1 of 1 problems have no answer"
        in shown
    )
    assert "This score says nothing but that the model cannot do these problems" in shown


def train_run(folder: Path) -> Path:
    export = folder / "export"
    export.mkdir(parents=True)
    figures = {"kl_merged": 1e-5, "kl_int8": 2e-4}
    (export / "manifest.json").write_text(json.dumps({"figures": figures, "seconds": 100.0}))
    return folder


def test_table_puts_base_beside_tuned(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, seed in (("base", 0), ("tuned", 1)):
        assert run(suite, "--model", "pocket", "--n", 8, "--run", name, "--seed", seed) == 0
    base, tuned = (json.loads(Path(name, "results.json").read_text()) for name in ("base", "tuned"))
    capsys.readouterr()
    assert run("table", "base", "tuned", "--train", train_run(Path("train")), "--out", "demo.json", "--json") == 0
    shown = capsys.readouterr()
    found = json.loads(Path("demo.json").read_text())
    assert json.loads(shown.out.splitlines()[-1]) == {"run": "tuned", **found}
    assert found["base"]["pass_at_1"] == base["groups"]["hard"]["pass_at_1"]
    assert found["tuned"]["maj_at_8"] == tuned["groups"]["hard"]["maj_at_k"]
    assert found["tuned"]["easy_pass_at_1"] == tuned["groups"]["easy"]["pass_at_1"]
    difference = found["tuned"]["pass_at_1"] - found["base"]["pass_at_1"]
    assert found["paired"]["difference"] == pytest.approx(difference)
    assert found["paired"]["lo"] <= difference <= found["paired"]["hi"]
    assert (found["kl_merged"], found["kl_int8"], found["train_run"]) == (1e-5, 2e-4, "train")
    assert found["seconds"] > 100
    assert set(found["base"]) == {"pass_at_1", "pass_at_1_se", "maj_at_8", "maj_at_8_interval", "easy_pass_at_1",
                                  "tokens_per_s", "seconds", "run"}  # fmt: skip
    assert "paired 95% interval" in " ".join(shown.err.split())


def test_table_refuses_what_does_not_compare(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(suite, "--model", "pocket", "--n", 1, "--run", "one") == 0
    assert run(suite, "--model", "pocket", "--n", 2, "--run", "two") == 0
    train_run(Path("train"))
    for words, message in (
        (["one", "two", "--train", "train"], "two runs compare only with the same n, got 1 and 2"),
        (["one", "one", "--train", "train"], "maj@8 needs at least 8 samples a problem, got 1"),
        (["one", "none", "--train", "train"], "a finished run has its manifest.json, got none in none"),
        (["one", "one", "--train", "none"], "--train must be a finished training run"),
    ):
        capsys.readouterr()
        assert run("table", *words, "--out", "demo.json") == 2
        assert message in capsys.readouterr().err
        assert not Path("demo.json").exists()


@pytest.mark.parametrize("words", [[], ["check"], ["compare"], ["inspect"], ["replay"], ["report"], ["table"]])
def test_help_is_golden(root: Path, words: list[str]) -> None:
    command = [sys.executable, "-m", "eval", *words, "--help"]
    variables = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    done = subprocess.run(command, cwd=root, env=variables, capture_output=True, text=True, check=True)
    golden = GOLDEN / f"help_eval{'_'.join(['', *words])}.txt"
    assert done.stdout == golden.read_text()
    assert done.stdout.count("python -m eval") >= 3


def test_every_command_of_the_solving_page_is_one_that_eval_takes(root: Path) -> None:
    lines = (root / "docs" / "solving.md").read_text().splitlines()
    commands = [line.split()[3:] for line in lines if line.startswith("python -m eval ")]
    assert len(commands) >= 8
    for words in commands:
        command = COMMANDS.get(words[0], EVALUATE)
        settings: Any = tyro.cli(command.settings, args=words[1:] if words[0] in COMMANDS else words)
        Policy().with_words(getattr(settings, "policy", "all"))
        for budget in getattr(settings, "budget", ()):
            wall_from(budget, questions=50)
        for stop in getattr(settings, "stop", ()):
            stopping_rule(stop)


@pytest.mark.slow
def test_kill_9_loses_and_repeats_no_sample(suite: Path) -> None:
    problems = read_problems(data_folder() / "pocket" / "pocket_val.jsonl")[:60]
    write_problems(suite, problems)
    command = [sys.executable, "-m", "eval", str(suite), "--model", "pocket", "--n", "8", "--json", "--run"]
    subprocess.run([*command, "whole"], capture_output=True, check=True)
    seen: list[int] = []
    for wanted in (5, 150, 300):
        with subprocess.Popen([*command, "cut"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as started:
            while lines(Path("cut/samples.jsonl")) < wanted and started.poll() is None:
                time.sleep(0.005)
            os.kill(started.pid, signal.SIGKILL)
        seen.append(lines(Path("cut/samples.jsonl")))
    assert not Path("cut/manifest.json").exists()
    assert seen == sorted(seen)
    assert 5 <= seen[0] < seen[1] < seen[2] < 480
    done = subprocess.run([*command, "cut"], capture_output=True, text=True, check=True)
    assert f"going on: {seen[2]} of 480 samples are there" in done.stderr
    assert contents(Path("cut")) == contents(Path("whole"))


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0
