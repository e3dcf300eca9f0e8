import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import chdir
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import tyro

from eval.commands import COMMANDS, EVALUATE
from eval.replay import ReplaySettings
from eval.settings import EvalSettings
from mathlete.locks import hold
from mathlete.problems import Problem, read_problems, write_problems
from mathlete.replay import Wall
from mathlete.sampling.record import read_samples
from mathlete.solve.policy import Policy
from mathlete.solve.stopping import stopping_rule
from tests.conftest import POCKET, POCKET_VAL, CommandLine

POCKET_SHORT = ("--model", "pocket", "--sampling.max-tokens", 128)
"""A few samples of the pocket model go on to 256 tokens, and all others wait for them."""
SIX = ("six.jsonl", *POCKET_SHORT, "--n", 8, "--json")


@dataclass(frozen=True)
class Recorded:
    """A folder and what the commands that wrote runs into it said."""

    folder: Path
    first: dict[str, Any]
    other: dict[str, Any]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, evaluate: CommandLine) -> Recorded:
    """Six problems, half of them hard, and two runs over them that differ in the seed."""
    folder = tmp_path_factory.mktemp("recorded")
    problems = read_problems(POCKET_VAL)
    hard = [problem for problem in problems if problem.subset.startswith("hard")]
    easy = [problem for problem in problems if problem.subset.startswith("easy")]
    write_problems(folder / "six.jsonl", [*hard[:3], *easy[:3]])
    with chdir(folder):
        return Recorded(folder, evaluate(*SIX).result, evaluate(*SIX, "--seed", 1).result)


@pytest.fixture
def suite(recorded: Recorded, workdir: Path) -> Path:
    """The six problems in a file of the test's own folder."""
    return Path(shutil.copy(recorded.folder / "six.jsonl", workdir))


@pytest.fixture
def run(recorded: Recorded, suite: Path) -> Path:
    """The first of the runs, copied; `evaluate(*SIX)` is its command."""
    return Path(shutil.copytree(recorded.folder / recorded.first["run"], recorded.first["run"]))


def test_a_run_leaves_all_that_was_promised(recorded: Recorded) -> None:
    result = recorded.first
    folder = recorded.folder / result["run"]
    assert Path(result["run"]).parent == Path("runs")
    assert folder.name.startswith("eval-six-pocket-")
    assert {"results.json", "samples.jsonl", "problems.jsonl", "manifest.json"} <= {p.name for p in folder.iterdir()}
    written = json.loads((folder / "results.json").read_text())
    for key in ("suite", "suite_sha", "n", "policy", "pass_at_1", "pass_at_1_se", "maj_at_k", "maj_at_k_interval",
                "per_problem", "tokens", "seconds", "tokens_per_s", "fallbacks", "unknown", "engine", "model_sha",
                "prompt_sha", "commit", "dirty"):  # fmt: skip
        assert key in written
    assert (result["n"], result["problems"], result["samples"], result["k"]) == (8, 6, 48, 8)
    assert sorted(written["groups"]) == ["easy", "hard"]
    samples = read_samples(folder / "samples.jsonl")
    assert len(samples) == 48
    assert sum(sample.tokens for sample in samples) == result["tokens"]
    assert any(sample.finish == "boxed" and sample.text.endswith("}") for sample in samples)
    assert read_problems(folder / "problems.jsonl") == read_problems(recorded.folder / "six.jsonl")


def test_the_same_command_is_skipped_when_done(recorded: Recorded, run: Path, evaluate: CommandLine) -> None:
    assert evaluate(*SIX).result == {**recorded.first, "skipped": True}
    assert recorded.other["run"] != recorded.first["run"]


def test_a_policy_stops_early_and_is_told(suite: Path, evaluate: CommandLine) -> None:
    shown = evaluate(suite, *POCKET_SHORT, "--n", 8, "--policy", "votes2/logprob", "--run", "r", "--json")
    assert shown.code == 0
    result, written = shown.result, json.loads(Path("r/results.json").read_text())
    assert result["samples"] < 48
    assert f"{written['ended']['rule']} problems stopped early" in shown.stderr
    assert (written["policy"]["stop"], written["policy"]["vote"]) == ("votes2", "logprob")
    assert written["ended"]["rule"] >= 1
    assert sum(part["problems"] for part in written["calibration"]) == 6
    assert written["finish_order"] is None or 0 <= written["finish_order"]["value"] <= 1


def test_tools_change_the_prompt_and_are_told(run: Path, evaluate: CommandLine) -> None:
    words = ("six.jsonl", *POCKET_SHORT, "--n", 2, "--limit", 2, "--run", "tools", "--json")
    assert evaluate(*words, "--tools.turns", 2, "--tools.timeout-s", 3).result["samples"] == 4
    plain, tools = (json.loads((folder / "results.json").read_text()) for folder in (run, Path("tools")))
    assert (tools["tools"]["turns"], tools["tools"]["timeout_s"]) == (2, 3.0)
    assert tools["sandbox"]
    assert "tools" not in plain
    assert tools["prompt_sha"] != plain["prompt_sha"]
    assert evaluate(*words, "--tools.turns", -1).code == 2


def test_a_time_budget_holds_and_a_run_cut_short_does_not_start_it_anew(suite: Path, evaluate: CommandLine) -> None:
    words = (suite, "--model", "pocket", "--n", 8, "--budget", 0.6, "--run", "r", "--json")
    first, written = evaluate(*words).result, json.loads(Path("r/results.json").read_text())
    spent = [json.loads(line) for line in Path("r/spent.jsonl").read_text().splitlines()]
    assert [row["problem_id"] for row in spent] == [problem.id for problem in read_problems(suite)]
    assert sum(row["seconds"] for row in spent) < 0.6 + 1  # a step of a busy machine
    assert written["ended"].get("time", 0) >= 1
    assert sum(row["verdict"] == "none" for row in written["per_problem"]) == written["fallbacks"]
    for name in ("manifest.json", "results.json"):
        Path("r", name).unlink()
    again = evaluate(*words).result
    assert (again["samples"], again["pass_at_1"]) == (first["samples"], first["pass_at_1"])


def test_table_stands_on_stdout_without_json_and_on_stderr_with(suite: Path, evaluate: CommandLine) -> None:
    plain = evaluate(suite, *POCKET_SHORT, "--n", 1, "--limit", 2)
    assert plain.code == 0
    assert "pass@1 ± se" in plain.stdout
    assert "of 2 samples right" in plain.stdout
    both = evaluate(suite, *POCKET_SHORT, "--n", 1, "--limit", 2, "--json")
    assert both.code == 0
    assert len(both.stdout.splitlines()) == 1
    assert "pass@1 ± se" in both.stderr


def delete_manifest(run: Path) -> Path:
    """Return what a kill leaves is a folder without manifest."""
    for name in ("manifest.json", "results.json"):
        (run / name).unlink()
    return run / "samples.jsonl"


def test_unfinished_run_goes_on_without_losing_or_repeating(
    recorded: Recorded, run: Path, evaluate: CommandLine
) -> None:
    """The last line may be half-written."""
    samples = delete_manifest(run)
    lines = samples.read_bytes().splitlines(keepends=True)
    samples.write_bytes(b"".join(lines[:9]) + lines[9][:30])
    shown = evaluate(*SIX)
    assert shown.code == 0
    assert "dropped a half-written last line of samples.jsonl (30 bytes)" in shown.stderr
    assert "going on: 9 of 48 samples are there" in shown.stderr
    assert contents(run) == contents(recorded.folder / run)
    assert samples.read_bytes().splitlines(keepends=True)[:9] == lines[:9]


def test_more_samples_and_more_problems_are_added_to_a_finished_run(
    recorded: Recorded, suite: Path, evaluate: CommandLine
) -> None:
    """The samples that are there stay, line for line; in the end the run is that of one command."""
    words = (*POCKET_SHORT, "--run", "grown", "--json")
    lines = suite.read_text().splitlines(keepends=True)
    Path("four.jsonl").write_text("".join(lines[:4]))
    assert evaluate("four.jsonl", *words, "--n", 4).result["samples"] == 16
    before = Path("grown/samples.jsonl").read_bytes()
    for file, n, samples in (("four.jsonl", 8, 32), (suite, 8, 48)):
        grown = evaluate(file, *words, "--n", n)
        assert (grown.result["samples"], grown.result["skipped"]) == (samples, False)
        assert "going on: " in grown.stderr
        assert Path("grown/samples.jsonl").read_bytes().startswith(before)
        assert evaluate(file, *words, "--n", n).result["skipped"]
        before = Path("grown/samples.jsonl").read_bytes()
    assert contents(Path("grown")) == contents(recorded.folder / recorded.first["run"])
    for word in ("pass_at_1", "maj_at_k", "maj_at_k_interval", "tokens", "right"):
        assert grown.result[word] == recorded.first[word]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("six.jsonl", "--n", 4), "policy.n is 8 there, 4 here"),
        (
            ("six.jsonl", "--n", 8, "--dtype", "bfloat16"),
            'dtype is none said (float32 on a CPU) there, "bfloat16" here',
        ),
        (("six.jsonl", "--n", 8, "--limit", 5), "problems is 6 there, 5 here"),
        (("six.jsonl", "--n", 9, "--seed", 1), "policy.n is 8 there, 9 here; policy.seed is 0 there, 1 here"),
        (("six.jsonl", "--n", 9, "--sampling.temperature", 1), "policy.sampling.temperature is 0.6 there, 1.0 here"),
        (("six.jsonl", "--n", 9, "--sampling.min-p", 0.05), "policy.sampling.min_p is none there, 0.05 here"),
        (("six.jsonl", "--n", 9, "--prompt.instruction", ""), 'prompt is none there, {"instruction": ""} here'),
        (("six.jsonl", "--n", 9, "--time-budget", 60), 'budget is none there, {"wall_s": 60.0'),
        (("changed.jsonl", "--n", 9), "suite_sha is "),
    ],
)
def test_a_run_of_other_settings_is_refused_with_what_differs(
    run: Path, words: tuple[object, ...], told: str, evaluate: CommandLine
) -> None:
    first, *others = read_problems(Path("six.jsonl"))
    write_problems(Path("changed.jsonl"), [replace(first, gold="0"), *others])
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    refusal = evaluate(*words, *POCKET_SHORT, "--run", run).refusal
    assert told in refusal
    assert "--overwrite" in refusal
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before


def test_overwrite_deletes_a_run_of_other_settings_and_nothing_else(run: Path, evaluate: CommandLine) -> None:
    words = ("six.jsonl", *POCKET_SHORT, "--n", 1, "--limit", 2, "--run", run, "--overwrite", "--json")
    (run / "notes.txt").write_text("mine")
    assert "notes.txt, which the run did not write.\n  Fix: move it" in evaluate(*words).refusal
    assert len(read_samples(run / "samples.jsonl")) == 48
    (run / "notes.txt").rename("notes.txt")
    assert evaluate(*words).result["samples"] == 2
    assert len(read_samples(run / "samples.jsonl")) == 2


def test_a_second_process_on_one_run_is_told_who_holds_it(
    recorded: Recorded, suite: Path, evaluate: CommandLine
) -> None:
    with hold(Path("held")):
        refusal = evaluate(*SIX, "--run", "held").refusal
        assert "one process at a time writes into a folder, got held, held since 2" in refusal
        assert f" by process {os.getpid()} on " in refusal
    assert not Path("held").exists()


def contents(folder: Path) -> dict[tuple[str, int], tuple[str, int, int]]:
    return {(s.problem_id, s.index): (s.text, s.tokens, s.seed) for s in read_samples(folder / "samples.jsonl")}


def test_samples_of_another_run_are_refused(run: Path, evaluate: CommandLine) -> None:
    samples = delete_manifest(run)
    line = json.loads(samples.read_text().splitlines()[0])
    samples.write_text(json.dumps({**line, "seed": 3}) + "\n")
    assert "samples.jsonl must hold this run's samples only" in evaluate(*SIX).refusal


def test_corrupted_sample_line_is_named(run: Path, evaluate: CommandLine) -> None:
    (run / "manifest.json").unlink()
    (run / "samples.jsonl").write_text('{"problem_id": 3}\n')
    assert "samples.jsonl:1: a sample needs" in evaluate(*SIX).refusal


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pocket_vall"], r"did you mean pocket_val?"),
        (["six.jsonl", "--n", "0"], "--n must be at least 1, got 0"),
        (["six.jsonl", "--limit", "0"], "--limit must be at least 1, got 0"),
        (["six.jsonl", "--threads", "0"], "--threads must be from 1 to 1024, got 0"),
        (["six.jsonl", "--model", "pockett"], "did you mean pocket?"),
        (["six.jsonl", "--model", "bare"], "a model folder needs its tokenizer"),
        (["six.jsonl", "--model", "short"], "must leave room in the model's context of 8 tokens"),
        (["bad.jsonl"], "bad.jsonl:1: a problem needs gold"),
        (["six.jsonl", "--policy", "bta95"], "a stopping rule must be a known one"),
        (["six.jsonl", "--policy", "exact/most"], "the vote must be a known one"),
        (["six.jsonl", "--engine", "vlm"], "did you mean vllm? Known: transformers, vllm, openai, ray"),
        (["six.jsonl", "--engine", "openai"], "--servers.urls must be at least one address"),
        (["six.jsonl", "--ray.workers", "0"], "--ray.workers must be at least 1, got 0"),
        (
            ["six.jsonl", "--time-budget", "0"],
            "SECONDS[:FLOOR:CEILING[:RESERVE]], finite, with SECONDS above 0, got '0'",
        ),
        (["six.jsonl", "--sampling.top-p", "0"], "--sampling.top-p must be above 0"),
        (["six.jsonl", "--run", "mine"], "a step writes only into its own or an empty folder, got mine"),
    ],
)
def test_bad_input_is_exit_2_and_leaves_nothing(
    suite: Path, words: list[str], message: str, evaluate: CommandLine
) -> None:
    shutil.copytree(POCKET, "bare", ignore=shutil.ignore_patterns("tokenizer*"))
    shutil.copytree(POCKET, "short")
    config = json.loads(Path("short/config.json").read_text())
    Path("short/config.json").write_text(json.dumps({**config, "max_position_embeddings": 8}))
    Path("bad.jsonl").write_text('{"id": "1", "statement": "s"}\n')
    Path("mine").mkdir()
    Path("mine/letter.txt").write_text("dear")
    before = sorted(Path().rglob("*"))
    assert message in evaluate(*words, *([] if "--model" in words else ["--model", "pocket"])).refusal
    assert sorted(Path().rglob("*")) == before


def test_a_model_that_cannot_do_it_is_said_to_be_so(suite: Path, evaluate: CommandLine) -> None:
    write_problems(suite, [Problem(id="1", statement="Prove the Riemann hypothesis.", gold="proved")])
    shown = " ".join(evaluate(suite, "--model", "pocket", "--n", 2, "--sampling.max-tokens", 4).stdout.split())
    assert (
        "0 of 2 samples right; 2 ended without an answer; 2 were cut at 4 tokens; 1 of 1 problem has no answer" in shown
    )
    assert "This score says nothing but that the model cannot do these problems" in shown


def train_run(folder: Path) -> Path:
    export = folder / "export"
    export.mkdir(parents=True)
    figures = {"kl_merged": 1e-5, "kl_int8": 2e-4}
    (export / "manifest.json").write_text(json.dumps({"figures": figures, "seconds": 100.0}))
    return folder


@pytest.mark.parametrize("name", ["compare", "table"])
def test_compare_puts_base_beside_tuned_by_its_old_name_too(
    recorded: Recorded, workdir: Path, evaluate: CommandLine, name: str
) -> None:
    for folder, told in (("base", recorded.first), ("tuned", recorded.other)):
        shutil.copytree(recorded.folder / told["run"], folder)
    base, tuned = (json.loads(Path(folder, "results.json").read_text()) for folder in ("base", "tuned"))
    shown = evaluate(name, "base", "tuned", "--train", train_run(Path("train")), "--out", "demo.json", "--json")
    assert shown.code == 0
    table = json.loads(Path("demo.json").read_text())
    assert shown.result == {"run": "tuned", **table}
    assert table["base"]["pass_at_1"] == base["groups"]["hard"]["pass_at_1"]
    assert table["tuned"]["maj_at_8"] == tuned["groups"]["hard"]["maj_at_k"]
    assert table["tuned"]["easy_pass_at_1"] == tuned["groups"]["easy"]["pass_at_1"]
    difference = table["tuned"]["pass_at_1"] - table["base"]["pass_at_1"]
    assert table["paired"]["difference"] == pytest.approx(difference)
    assert table["paired"]["lo"] <= difference <= table["paired"]["hi"]
    assert (table["kl_merged"], table["kl_int8"], table["train_run"]) == (1e-5, 2e-4, "train")
    assert table["seconds"] > 100
    assert set(table["base"]) == {"pass_at_1", "pass_at_1_se", "maj_at_8", "maj_at_8_interval", "easy_pass_at_1",
                                  "tokens_per_s", "seconds", "run"}  # fmt: skip
    assert "paired 95% interval" in " ".join(shown.stderr.split())
    assert [score["score"] for score in table["scores"]] == ["pass@1", "maj@8"]
    plain = evaluate("compare", "base", "tuned", "--json").result
    assert plain == {key: table[key] for key in plain}
    assert "base" not in plain


def test_a_competition_judges_a_finished_run_by_its_scorer(run: Path, evaluate: CommandLine) -> None:
    result = evaluate(*SIX, "--competition", "aimo-3").result
    assert result["scorer"].items() <= json.loads((run / "scorer.json").read_text()).items()
    assert (result["skipped"], "scorer of aimo-3: " in (run / "report.html").read_text()) == (True, True)


@pytest.fixture(scope="module")
def two(recorded: Recorded, evaluate: CommandLine) -> Path:
    """A run over the same problems with two samples each."""
    with chdir(recorded.folder):
        assert evaluate("six.jsonl", *POCKET_SHORT, "--n", 2, "--run", "two").code == 0
    return recorded.folder / "two"


@pytest.mark.parametrize("name", ["compare", "table"])
def test_a_training_between_what_does_not_compare_is_refused(
    run: Path, two: Path, evaluate: CommandLine, name: str
) -> None:
    run.rename("eight")
    shutil.copytree(two, "two")
    train_run(Path("train"))
    for words, message in (
        (["eight", "two", "--train", "train"], "two runs compare only with the same n, got 8 and 2"),
        (["two", "two", "--train", "train"], "maj@8 needs at least 8 samples a problem, got 2"),
        (["eight", "none", "--train", "train"], "a finished run has its manifest.json, got none in none"),
        (["eight", "eight", "--train", "none"], "--train must be a finished training run"),
    ):
        assert message in evaluate(name, *words, "--out", "demo.json").refusal
        assert not Path("demo.json").exists()


def test_every_command_of_the_solving_page_is_one_that_eval_takes(root: Path) -> None:
    lines = (root / "docs" / "solving.md").read_text().splitlines()
    commands = [line.split()[3:] for line in lines if line.startswith("python -m eval ")]
    assert len(commands) >= 8
    for words in commands:
        command = COMMANDS.get(words[0], EVALUATE)
        settings: Any = tyro.cli(command.settings, args=words[1:] if words[0] in COMMANDS else words)
        if isinstance(settings, EvalSettings):
            Policy().with_words(settings.solving.policy)
        if isinstance(settings, ReplaySettings):
            for budget in settings.policies.budget:
                Wall.parse(budget, questions=50)
            for stop in settings.policies.stop:
                stopping_rule(stop)


@pytest.mark.slow
def test_kill_9_loses_and_repeats_no_sample(suite: Path, evaluate: CommandLine) -> None:
    problems = read_problems(POCKET_VAL)[:60]
    write_problems(suite, problems)
    words = (*SIX, "--run")
    assert evaluate.process(*words, "whole").code == 0
    seen: list[int] = []
    for wanted in (5, 150, 300):
        with subprocess.Popen(evaluate.argv(*words, "cut"), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as started:
            while lines(Path("cut/samples.jsonl")) < wanted and started.poll() is None:
                time.sleep(0.005)
            os.kill(started.pid, signal.SIGKILL)
        seen.append(lines(Path("cut/samples.jsonl")))
    assert not Path("cut/manifest.json").exists()
    assert seen == sorted(seen)
    assert 5 <= seen[0] < seen[1] < seen[2] < 480
    done = evaluate.process(*words, "cut")
    assert done.code == 0
    assert f"going on: {seen[2]} of 480 samples are there" in done.stderr
    assert contents(Path("cut")) == contents(Path("whole"))


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0
