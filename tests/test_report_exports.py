"""A run in other programs' shapes: lm-evaluation-harness's result file, Inspect's eval log."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from mathlete.sampling.record import read_samples
from tests.conftest import POCKET_VAL, CommandLine, Extras


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory, evaluate: CommandLine, lean: Extras) -> Path:
    """A real run of the pocket model: four problems, four samples each, with all its pictures."""
    folder = tmp_path_factory.mktemp("exports") / "run"
    suite = folder.parent / "four.jsonl"
    lines = POCKET_VAL.read_text().splitlines(keepends=True)
    suite.write_text("".join(lines[:2] + lines[-2:]))
    with lean.put_back():
        assert evaluate(suite, "--model", "pocket", "--n", 4, "--run", folder).code == 0
    return folder


def test_a_run_ends_with_its_report_and_stays_whole_when_that_is_made_anew(
    run_folder: Path, evaluate: CommandLine
) -> None:
    assert (run_folder / "report.html").is_file()
    assert {path.suffix for path in (run_folder / "plots").iterdir()} == {".png"}
    (run_folder / "report.html").write_text("old")
    assert evaluate("report", run_folder).code == 0
    assert (run_folder / "report.html").stat().st_size > 500_000
    words = (run_folder.parent / "four.jsonl", "--model", "pocket", "--n", 4, "--run", run_folder, "--json")
    done = evaluate(*words)
    assert done.code == 0
    assert json.loads(done.stdout)["skipped"]
    (run_folder / "report.html").unlink()
    assert evaluate(*words).code == 0
    assert (run_folder / "report.html").is_file()


def test_scores_are_told_as_lm_evaluation_harness_tells_them(run_folder: Path) -> None:
    exported = json.loads((run_folder / "lm_eval.json").read_text())
    told: dict[str, Any] = json.loads((run_folder / "results.json").read_text())
    row = exported["results"]["four"]
    assert row["exact_match,none"] == told["pass_at_1"]
    assert (row["exact_match_stderr,none"], told["pass_at_1_se"]) == ("N/A", None)  # of four problems
    assert row["exact_match,maj@4"] == told["maj_at_k"]
    share = told["maj_at_k"]
    assert row["exact_match_stderr,maj@4"] == pytest.approx(math.sqrt(share * (1 - share) / 3))
    assert row["pass,pass@4"] == told["pass_at"]["4"]
    assert {f"exact_match,maj@{k}" for k in (1, 2, 4)} <= set(row)
    assert exported["n-samples"]["four"] == {"original": 4, "effective": 4}
    assert set(exported["group_subtasks"]["four"]) == set(exported["results"]) - {"four"}
    for key in ("versions", "n-shot", "higher_is_better", "n-samples"):
        assert set(exported[key]) == set(exported["results"])
    assert exported["task_hashes"] == {"four": told["suite_sha"]}
    assert exported["total_evaluation_time_seconds"] == str(told["seconds"])


def test_inspect_reads_the_log_back(run_folder: Path, evaluate: CommandLine) -> None:
    log = pytest.importorskip("inspect_ai.log", reason="needs inspect_ai, the extra `inspect`")
    assert evaluate("inspect", run_folder).code == 0
    read = log.read_eval_log(str(run_folder / "inspect" / "four.eval"))
    samples = {(one.problem_id, one.index): one for one in read_samples(run_folder / "samples.jsonl")}
    assert read.status == "success"
    assert {(one.id, one.epoch - 1) for one in read.samples} == set(samples)
    for one in read.samples:
        assert one.scores["mathlete"].answer == samples[one.id, one.epoch - 1].answer
        assert one.output.usage.output_tokens == samples[one.id, one.epoch - 1].tokens
    told = json.loads((run_folder / "results.json").read_text())
    right = [one for one in read.samples if one.scores["mathlete"].value == "C"]
    assert len(right) == told["right"]
    assert read.results.scores[0].metrics["pass@1"].value == told["pass_at_1"]


def test_without_inspect_the_cure_is_told(run_folder: Path, evaluate: CommandLine) -> None:
    try:
        import inspect_ai  # noqa: F401
    except ImportError:
        assert "pip install 'mathlete[inspect]'" in evaluate("inspect", run_folder).refusal
    else:
        assert (
            "a log's name ends in .eval or .json"
            in evaluate("inspect", run_folder, "--out", run_folder / "log.txt").refusal
        )


@pytest.mark.slow
def test_the_commands_of_the_report_page_run(root: Path, workdir: Path, evaluate: CommandLine) -> None:
    lines = (root / "docs" / "report.md").read_text().splitlines()
    commands = [line.split()[3:] for line in lines if line.startswith("python -m eval ") and "--live" not in line]
    assert len(commands) == 5
    for words in commands:
        done = evaluate(*words)
        assert done.code == 0 or (words[0] == "inspect" and "inspect_ai, which is not installed" in done.refusal)
    assert Path("compared.html").is_file()
    page = Path("compared.html").read_text()
    assert "second against first" in page
    assert "on the 20 problems that both have, paired" in page
