"""Other tools' logs become runs: one small set of sums in every layout, and what each layout does not say."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import pyarrow.parquet
import pytest
import tyro

from eval.imports import ImportSettings, write_imported
from mathlete.errors import UserError
from mathlete.logs import join_logs, parse_columns, read_log
from mathlete.logs.inspect import read_zip_json
from mathlete.problems import read_problems
from mathlete.runs import verify_outputs
from mathlete.sampling import Sample, read_samples
from mathlete.scoring import Pool
from tests.conftest import CommandLine

HERE = Path(__file__).parent / "logs"
SUMS: dict[str, Any] = json.loads((HERE / "sums.json").read_text())
"""Three problems with four answers each, as the make_*.py beside it had the tools log them."""
SAMPLES = [(problem, index, answer) for problem in SUMS["problems"]
           for index, answer in enumerate(SUMS["answers"][problem["id"]])]  # fmt: skip


def text(answer: str | None) -> str:
    return "I cannot say" if answer is None else f"So it is \\boxed{{{answer}}}"


def write_lines(name: str, rows: list[dict[str, Any]]) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def body(kind: str, name: str, choices: list[str | None]) -> dict[str, Any]:
    """A response as OpenAI's API and vLLM give it; every choice has its log-probabilities."""
    logprobs = [-0.5, -1.5]
    chat = {"logprobs": {"content": [{"token": "x", "logprob": value} for value in logprobs]}}
    return {
        "id": f"chatcmpl-{name}", "object": kind, "created": 1, "model": "pocket",
        "choices": [
            {"index": number, "finish_reason": "length" if answer is None else "stop",
             **({"text": text(answer), "logprobs": {"tokens": ["x", "y"], "token_logprobs": logprobs}}
                if kind == "text_completion" else
                {"message": {"role": "assistant", "content": text(answer), "reasoning_content": "Hm."}, **chat})}
            for number, answer in enumerate(choices)
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2 * len(choices), "total_tokens": 3 + 2 * len(choices)},
    }  # fmt: skip


def response_body(name: str, answer: str | None) -> dict[str, Any]:
    """A response of OpenAI's Responses API."""
    logprobs = [{"token": "x", "logprob": value} for value in (-0.5, -1.5)]
    said = {"type": "output_text", "text": text(answer), "annotations": [], "logprobs": logprobs}
    return {
        "id": f"resp_{name}", "object": "response", "model": "pocket", "error": None,
        "status": "incomplete" if answer is None else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if answer is None else None,
        "temperature": 0.6, "top_p": 0.95, "max_output_tokens": 64,
        "output": [
            {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
            {"type": "message", "role": "assistant", "status": "completed", "content": [said]},
        ],
        "usage": {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5},
    }  # fmt: skip


def problems_file() -> str:
    return write_lines("sums.jsonl", SUMS["problems"])


def batch() -> list[object]:
    rows = [{"id": f"batch-{problem['id']}-{index}", "custom_id": f"{problem['id']}-{index}", "error": None,
             "response": {"status_code": 200, "request_id": "r",
                          "body": body("chat.completion", f"{problem['id']}{index}", [answer])}}
            for problem, index, answer in SAMPLES]  # fmt: skip
    return [write_lines("batch.jsonl", rows), "--problems", problems_file()]


def responses() -> list[object]:
    rows = [{"custom_id": f"{problem['id']}-{index}", "error": None,
             "response": {"status_code": 200, "body": response_body(f"{problem['id']}{index}", answer)}}
            for problem, index, answer in SAMPLES]  # fmt: skip
    return [write_lines("responses.jsonl", rows), "--problems", problems_file()]


def bodies(kind: str) -> list[object]:
    rows = [{"asked": problem["id"], **body(kind, problem["id"], SUMS["answers"][problem["id"]])}
            for problem in SUMS["problems"]]  # fmt: skip
    return [write_lines("bodies.jsonl", rows), "--problems", problems_file(), "--columns", "problem_id=asked"]


def nemo() -> list[object]:
    """Four seeds, a file each."""
    return [
        write_lines(f"output-rs{seed}.jsonl", [
            {"problem": problem["statement"], "expected_answer": int(problem["gold"]), "generation": text(answer),
             "num_generated_tokens": 20 + index, "generation_start_time": 5.0, "generation_end_time": 7.0 + index,
             "generation_time": 2.0 + index, "finish_reason": "length" if answer is None else "stop",
             "predicted_answer": answer, "symbolic_correct": answer == problem["gold"]}
            for problem, index, answer in SAMPLES if index == seed
        ])
        for seed in range(4)
    ]  # fmt: skip


def lists() -> list[object]:
    """A parquet table with a row for each problem, as data sets of several generations are."""
    rows = [{"id": problem["id"], "question": problem["statement"], "gold": float(problem["gold"]),
             "runs": {"texts": [*map(text, SUMS["answers"][problem["id"]])]}, "lengths": [20, 21, 22, 23]}
            for problem in SUMS["problems"]]  # fmt: skip
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), "lists.parquet")
    return ["lists.parquet", "--columns", "problem_id=id", "gold=gold", "text=runs.texts", "tokens=lengths"]


def csv_table() -> list[object]:
    cells = [[problem["id"], problem["statement"], problem["gold"], answer or "", str(20 + index), "1.5"]
             for problem, index, answer in SAMPLES]  # fmt: skip
    head = ["number", "question", "right", "said", "length", "took"]
    Path("table.csv").write_text("".join(",".join(row) + "\n" for row in [head, *cells]))
    return ["table.csv", "--columns", "problem_id=number", "gold=right", "answer=said", "tokens=length", "seconds=took"]


def lm_eval() -> list[object]:
    return [next(HERE.glob("samples_*.jsonl"))]


def inspect_json() -> list[object]:
    """The log once more as one JSON file, which is what Inspect writes with --log-format json, less the events."""
    log = HERE / "pocket-sums.eval"
    names = [name for name in ZipFile(log).namelist() if name.startswith("samples/")]
    content = {**read_zip_json(log, "header.json"), "samples": [read_zip_json(log, name) for name in names]}
    Path("log.json").write_text(json.dumps(content))
    return ["log.json"]


LAYOUTS: dict[str, tuple[Callable[[], list[object]], set[str]]] = {
    "batch": (batch, {"seconds", "seed", "temperature", "top_p", "max_tokens"}),
    "responses": (responses, {"seconds", "seed"}),
    "chat": (lambda: bodies("chat.completion"), {"seconds", "seed", "temperature", "top_p", "max_tokens"}),
    "completions": (lambda: bodies("text_completion"), {"seconds", "seed", "temperature", "top_p", "max_tokens"}),
    "lm-eval": (lm_eval, {"tokens", "seconds", "finish", "logprobs", "seed", "top_p"}),
    "inspect": (lambda: [HERE / "pocket-sums.eval"], {"logprobs", "seed"}),
    "inspect-json": (inspect_json, {"logprobs", "seed"}),
    "lighteval": (
        lambda: [*HERE.glob("details_*.parquet")],
        {"finish", "seconds", "logprobs", "seed", "temperature", "top_p", "max_tokens"},
    ),
    "nemo-skills": (nemo, {"logprobs", "temperature", "top_p", "max_tokens"}),
    "lists": (lists, {"seconds", "finish", "logprobs", "seed", "temperature", "top_p", "max_tokens"}),
    "columns": (csv_table, {"text", "finish", "logprobs", "seed", "temperature", "top_p", "max_tokens"}),
}
"""{layout: (words of the command, what it does not say)}."""


@pytest.fixture(autouse=True)
def inside(workdir: Path) -> None:
    """Every test stands in a folder of its own."""


def imported(folder: str, *words: object) -> list[str]:
    """Import into a folder as the command does, without its report; return what it says."""
    said: list[str] = []
    Path(folder).mkdir()
    settings = tyro.cli(ImportSettings, args=[*map(str, words), "--run", folder])
    write_imported(Path(folder), settings, say=said.append)
    return said


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_read_and_what_it_lacks_is_said(layout: str) -> None:
    make, missing = LAYOUTS[layout]
    said = " ".join(imported("r", *make()))
    result = json.loads(Path("r/results.json").read_text())
    figures = [result[key] for key in ("problems", "samples", "right", "unanswered", "k")]
    assert figures == [3, 12, 6, 1, 4]
    assert set(result["missing"]) == missing
    lacking = missing - {"temperature", "top_p", "max_tokens"}
    assert all(name in said.partition("not in the logs: ")[2].partition(";")[0] for name in lacking)
    problems, samples = read_problems(Path("r/problems.jsonl")), read_samples(Path("r/samples.jsonl"))
    assert [(problem.statement, problem.gold) for problem in problems] == [
        (one["statement"], one["gold"]) for one in SUMS["problems"]
    ]
    by_problem = {one.statement: one.id for one in problems}
    answers = {(sample.problem_id, sample.index): sample.answer for sample in samples}
    assert answers == {(by_problem[one["statement"]], index): answer for one, index, answer in SAMPLES}
    if "finish" not in missing:
        assert [sample.finish for sample in samples].count("length") == 1
    if "seconds" not in missing:
        assert all(sample.seconds > 0 for sample in samples)


def test_an_imported_run_is_a_run_like_any_other(evaluate: CommandLine) -> None:
    words = nemo()
    assert evaluate("import", *words, "--run", "a").code == 0
    assert evaluate("import", *words[:3], "--run", "b").code == 0
    assert verify_outputs(Path("a"))["step"] == "import"
    assert evaluate("import", *words, "--run", "a", "--json").result["skipped"]
    compared = evaluate("compare", "a", "b", "--json").result
    assert (compared["problems"], compared["k"]) == (3, 3)
    replayed = evaluate("replay", "a", "--n", 2, "--simulations", 50, "--stop", "none", "exact", "--json").result
    assert replayed["recorded_per_problem"] == 4
    assert evaluate("report", "a", "b", "--out", "both.html").code == 0
    assert Path("a/report.html").is_file()
    assert json.loads(Path("a/lm_eval.json").read_text())["results"]
    slices = json.loads(Path("a/slices.json").read_text())["slices"]
    assert [(one["layout"], one["samples"], one["right"]) for one in slices] == [
        ("nemo-skills", 3, 2), ("nemo-skills", 3, 2), ("nemo-skills", 3, 1), ("nemo-skills", 3, 1)
    ]  # fmt: skip
    Path("output-rs0.jsonl").write_text(Path("output-rs0.jsonl").read_text().replace("boxed{2}", "boxed{3}"))
    assert "only with the settings that it was begun with" in evaluate("import", *words, "--run", "a").refusal
    changed = evaluate("import", *words, "--run", "a", "--overwrite", "--json").result
    assert (changed["skipped"], changed["right"]) == (False, 5)


def test_the_logs_own_scorer_is_compared_with_the_checker() -> None:
    words = nemo()
    assert "agree with the checker on 12 of 12 samples" in " ".join(imported("a", *words))
    Path("output-rs0.jsonl").write_text(Path("output-rs0.jsonl").read_text().replace("true", "false", 1))
    told = " ".join(imported("b", *words))
    assert "on 11 of 12 samples; first difference: problem p-72f8917549 #0, wrong there, equal here" in told


REFUSED = [
    (("--stop", "exact"), "the stopping rule exact can be replayed only where every sample's seconds were recorded"),
    (("--budget", "60"), "a clock can be replayed only where every sample's seconds were recorded"),
    (("--slots", "2"), "2 slots can be replayed only where every sample's seconds"),
    (("--max-tokens", "9"), "a cap of 9 tokens can be replayed only where every sample's tokens"),
    (("--vote", "length"), "the vote length can be replayed only where every sample's tokens"),
    (("--vote", "logprob"), "the vote logprob can be replayed only where every sample's logprobs"),
]


def test_the_replay_refuses_by_name_what_it_lacks(evaluate: CommandLine) -> None:
    imported("r", *lm_eval())
    small = ("replay", "r", "--n", 2, "--simulations", 20)
    for words, message in REFUSED:
        assert message in evaluate(*small, *words).refusal
    told = evaluate(*small, "--vote", "majority", "strength")
    assert told.code == 0
    assert "no stopping rule is tried" in told.stdout
    assert "finish order: not known" in told.stdout
    # A vote that weighs texts has them here, and not where answers alone were imported.
    imported("t", *csv_table())
    assert "the vote strength can be replayed" in evaluate("replay", "t", "--vote", "strength").refusal


def test_seconds_can_be_made_of_tokens() -> None:
    imported("r", *LAYOUTS["lighteval"][0](), "--pace", 10)
    samples = read_samples(Path("r/samples.jsonl"))
    assert [sample.seconds for sample in samples] == [sample.tokens / 10 for sample in samples]
    results = json.loads(Path("r/results.json").read_text())
    assert results["assumed"] == {"seconds": "tokens / 10"}
    assert "seconds" not in results["missing"]
    assert "seconds" not in Pool.read([Path("r")]).missing


def logs(*files: object, columns: dict[str, str] | None = None) -> list[Any]:
    return [read_log(Path(str(file)), columns or {}) for file in files]


def join(read: list[Any]) -> list[Sample]:
    return join_logs(read, suite=None, pace=None, own_answers=False).samples


def test_a_sample_that_stands_twice_is_taken_once() -> None:
    files = nemo()
    assert len(join(logs(*files, files[0], files[2]))) == 12
    # The same seed with another text is two samples of one name.
    Path("again").mkdir()
    changed = Path("again/output-rs0.jsonl")
    changed.write_text(Path("output-rs0.jsonl").read_text().replace("boxed{2}", "boxed{9}"))
    with pytest.raises(
        UserError, match=r"a sample that stands twice must be the same both times(.|\n)*of the files out"
    ):
        join(logs(*files, changed))
    Path("joined").mkdir()
    both = Path("joined/output-rs0.jsonl")
    both.write_text(Path(str(files[0])).read_text() + changed.read_text())
    with pytest.raises(
        UserError, match=r"both times(.|\n)*Fix: delete one of the two, or.* give each an id of its own$"
    ):
        join(logs(both))
    both.write_text(Path(str(files[0])).read_text() * 2)
    assert "3 samples stand twice and were taken once" in imported("r", both)


def test_a_file_without_seeds_or_times_is_a_repetition_or_another_seed() -> None:
    (file,) = lm_eval()
    rows = Path(str(file)).read_text()
    Path("again.jsonl").write_text(rows)
    Path("other.jsonl").write_text(rows.replace("boxed{8}", "boxed{1}"))
    columns = {"problem_id": "doc_id"}
    assert len(join(logs(file, "again.jsonl", columns=columns))) == 12
    both = join(logs(file, "other.jsonl", columns=columns))
    # Of the other seed all samples count, also those that have the same text.
    assert len(both) == 24
    assert sorted(sample.index for sample in both if sample.problem_id == "0") == [*range(8)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ('temperature": 0.6', 'temperature": 0.9'),
            "only as slices of one run, with the same temperature, got 0.6 in",
        ),
        (("#### 2", "#### 3"), "equal ids must be equal problems, but the gold of 0 differs, got '2' and '3'"),
        (("1 + 1?", "1 + 2?"), "equal ids must be equal problems, but the statement of 0 differs"),
    ],
)
def test_what_is_no_slice_is_refused(change: tuple[str, str], message: str) -> None:
    (file,) = lm_eval()
    Path("other.jsonl").write_text(Path(str(file)).read_text().replace(*change))
    with pytest.raises(UserError, match=r"must be|only as") as refused:
        join(logs(file, "other.jsonl", columns={"problem_id": "doc_id"}))
    assert message in str(refused.value)


def test_failed_requests_are_counted_and_left_out() -> None:
    words = batch()
    failed = {"id": "x", "custom_id": "c-9", "response": None, "error": {"code": "batch_expired"}}
    response = {"status_code": 400, "body": {"error": "too long"}}
    refused = {"id": "y", "custom_id": "c-8", "response": response, "error": None}
    given_up = {
        "custom_id": "c-7",
        "response": {"body": {**response_body("x", "2"), "status": "failed"}},
        "error": None,
    }
    with Path("batch.jsonl").open("a") as file:
        file.write("".join(json.dumps(row) + "\n" for row in (failed, refused, given_up)))
    said = " ".join(imported("r", *words))
    assert len(read_samples(Path("r/samples.jsonl"))) == 12
    told = "requests ended in an error or without an answer and have no sample, first batch.jsonl:"
    assert f"batch.jsonl: 3 {told}13" in said
    write_lines("batch.jsonl", [failed, refused])
    with pytest.raises(UserError, match=f"at least one sample, got none; batch.jsonl: 2 {told}1"):
        imported("s", *words)


def test_problems_without_a_sample_are_named() -> None:
    words = batch()
    rows = [*SUMS["problems"], {"id": "d", "statement": "What is 0?", "gold": "0"}]
    write_lines("sums.jsonl", rows)
    assert "1 of 4 problems of sums has no sample, and is left out" in " ".join(imported("r", *words))
    write_lines("sums.jsonl", rows[1:])
    with pytest.raises(UserError, match="a sample must be of a problem of sums, by its id or its statement, got a-0"):
        imported("s", *words)


def test_a_damaged_entry_of_a_log_is_named() -> None:
    content = (HERE / "pocket-sums.eval").read_bytes()
    with ZipFile(HERE / "pocket-sums.eval") as archive:
        info = archive.getinfo("header.json")
    assert read_zip_json(HERE / "pocket-sums.eval", "header.json")["status"] == "success"
    for at in (content.rindex(info.CRC.to_bytes(4, "little")), info.header_offset + 60):
        damaged = bytearray(content)
        damaged[at] ^= 255
        Path("damaged.eval").write_bytes(damaged)
        with pytest.raises(UserError, match=r"header\.json must be whole"):
            read_zip_json(Path("damaged.eval"), "header.json")


def test_a_long_text_that_inspect_stores_apart_is_put_back() -> None:
    row: dict[str, Any] = read_zip_json(HERE / "pocket-sums.eval", "samples/a_epoch_1.json")
    row["output"]["choices"][0]["message"]["content"] = "attachment://abc"
    row["attachments"] = {"abc": "It is \\boxed{2}"}
    content = {**read_zip_json(HERE / "pocket-sums.eval", "header.json"), "samples": [row]}
    Path("log.json").write_text(json.dumps(content))
    (sample,) = join(logs("log.json"))
    assert (sample.text, sample.answer) == ("It is \\boxed{2}", "2")


def test_ids_of_inspect_may_have_slashes_and_entries_may_be_deflated() -> None:
    log = HERE / "pocket-sums.eval"
    row: dict[str, Any] = read_zip_json(log, "samples/a_epoch_1.json")
    with ZipFile("log.eval", "w", ZIP_DEFLATED) as archive:
        archive.writestr("header.json", json.dumps(read_zip_json(log, "header.json")))
        archive.writestr("samples/algebra/7_epoch_1.json", json.dumps({**row, "id": "algebra/7"}))
    assert [(one.problem_id, one.answer) for one in join(logs("log.eval"))] == [("algebra/7", "2")]


def test_columns_are_words() -> None:
    assert parse_columns([]) == {}
    with pytest.raises(UserError, match="did you mean problem_id"):
        parse_columns(["problemid=x"])
