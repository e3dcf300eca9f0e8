"""`submit answer` from its command line: any engine, resumed where it stopped, refused where something changed."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mathlete.problems import read_problems, write_problems
from tests.conftest import POCKET, POCKET_VAL, CommandLine
from tests.loopback import DONE, HEAD, Behaviour, Loopback, Wire, answers, event

CUP = """
slug = "cup"
deliverable = "csv"
answer_min = 0
answer_max = 99
fallback = 3
problems = 4
columns = ["row", "text"]
submission_columns = ["row", "value"]
"""
ROWS = [("424e18", "1 + 1", "2"), (" b", "2 + 2", "4"), ("c", "30 * 30", "900"), ("d", "say nothing", "1")]
"""(id, question, gold): the third answer is outside of the cup's range, and the fourth is none."""


@pytest.fixture
def table(workdir: Path) -> Path:
    with Path("q.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("row", "text", "answer"), *ROWS])
    Path("cup.toml").write_text(CUP)
    return workdir / "q.csv"


async def calculate(wire: Wire) -> None:
    """Answer as a hosted model does: the reasoning apart, then a text with a box."""
    asked = wire.request["messages"][0]["content"]
    sum_of = re.match(r"(\d+) ([+*]) (\d+)\n", asked)
    said = "I had rather not."
    if sum_of:
        a, b = int(sum_of[1]), int(sum_of[3])
        said = f"So \\boxed{{{a + b if sum_of[2] == '+' else a * b}}}."
    parts: list[tuple[dict[str, str], str | None]] = [
        ({"reasoning_content": "Let me see."}, None),
        ({"content": said}, None),
        ({}, "stop"),
    ]
    events = [{"choices": [{"index": 0, "delta": delta, "finish_reason": end}]} for delta, end in parts]
    usage = event({"choices": [], "usage": {"completion_tokens": 12}})
    await wire.send(HEAD + b"".join(map(event, events)) + usage + DONE)


async def refuse_some(wire: Wire) -> None:
    """Answer as OpenAI's reasoning models do, which refuse what they do not know one by one."""
    asked = wire.request
    if "max_tokens" in asked:
        await refuse(wire, "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.")
    elif "logprobs" in asked:
        await refuse(wire, "logprobs are not supported with reasoning models.")
    elif asked["temperature"] != 1:
        await refuse(
            wire, "'temperature' does not support 0.6 with this model. Only the default (1) value is supported."
        )
    else:
        await calculate(wire)


async def refuse(wire: Wire, words: str) -> None:
    await answers("400 Bad Request", json.dumps({"error": {"message": words}}))(wire)


@pytest.fixture
def serve() -> Iterator[Callable[..., Loopback]]:
    pytest.importorskip("httpx2", reason="needs httpx2, the extra `openai`")
    servers: list[Loopback] = []

    def start(*first: Behaviour, then: Behaviour = calculate) -> Loopback:
        servers.append(Loopback(first=[*first], then=then))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def words_of(server: Loopback, *more: object, file: str = "q.csv") -> list[object]:
    hosted = ("--engine", "openai", "--servers.api", "chat", "--servers.urls", server.url)
    return ["answer", file, "--n", 4, "--competition", "cup.toml", *hosted, *more, "--json"]


def lines_of(file: str) -> list[str]:
    return Path(file).read_text().splitlines()


def asked_of(server: Loopback) -> Counter[str]:
    return Counter(request["messages"][0]["content"].partition("\n")[0] for request in server.requests)


def test_a_hosted_model_answers_a_competition_s_table(
    table: Path, serve: Callable[..., Loopback], submit: CommandLine
) -> None:
    """No file of the model is here: not its tokenizer, not its template."""
    done = submit(*words_of(server := serve(), "--out", "new/out.csv", "--score"))
    assert lines_of("new/out.csv") == ["row,value", "424e18,2", '" b",4', "c,3", "d,3"]
    assert lines_of("runs/answer-q/submission.csv") == lines_of("new/out.csv")
    result = done.result
    assert (result["questions"], result["answered"], result["fallbacks"]) == (4, 2, 2)
    assert result["without_answer"] == {"c": "no answer that the rules take", "d": "no sample has an answer"}
    # 900 is right, and out of the cup's range.
    assert (result["scored"], result["right"], result["scorer"]["points"], result["passed"]) == (4, 3, 2, True)
    assert "left out: 1 problem whose gold is no answer of cup: c" in done.stderr
    assert "2 got the fallback 3, which is no answer: c (no answer that the rules take), d (no sample" in done.stderr
    assert "integers from 0 to 99, without an answer 3; no clock" in done.stderr
    assert "q.csv: read row, text; not read: answer" in done.stderr
    assert asked_of(server).keys() == {text for _, text, _ in ROWS}
    # What the model was asked has no gold in it.
    assert "900" not in json.dumps(server.requests)
    assert json.loads(Path("runs/answer-q/summary.json").read_text())["fallbacks"] == 2


def test_the_same_command_does_nothing_and_another_file_or_setting_is_refused(
    table: Path, serve: Callable[..., Loopback], submit: CommandLine
) -> None:
    first = submit(*words_of(server := serve())).result
    asked = len(server.requests)
    again = submit(*words_of(server, "--out", "out.csv", "--fallbacks-max", 0.4))
    assert (again.code, len(server.requests)) == (1, asked)
    assert "nothing changed, skipped: out.csv" in again.stderr
    assert "more than 40% of the questions have no answer of the model" in again.stderr
    assert json.loads(again.stdout) == {**first, "out": "out.csv", "passed": False}

    for more, told in ((("--seed", 1), "policy.seed is 0 there, 1 here"), (("--budget", 60), "budget is none there")):
        refusal = submit(*words_of(server, *more)).refusal
        assert told in refusal
        assert "choose another --run, or delete what is there with --overwrite" in refusal
    Path("cup.toml").write_text(CUP.replace("99", "999"))
    assert "rules.answer_max is 99 there, 999 here" in submit(*words_of(server)).refusal
    assert lines_of("runs/answer-q/submission.csv")[3] == "c,3"
    assert submit(*words_of(server, "--overwrite")).result["answered"] == 3
    assert lines_of("runs/answer-q/submission.csv")[3] == "c,900"
    table.write_text(table.read_text().replace("2 + 2", "2 + 3"))
    assert "questions_sha is" in submit(*words_of(server)).refusal


def test_a_result_of_before_is_replaced_however_its_columns_are_called(
    table: Path, serve: Callable[..., Loopback], submit: CommandLine
) -> None:
    Path("cup.toml").write_text(CUP.replace('["row", "value"]', '["Übung, Nr.", "Wert"]'))
    server = serve()
    for answered in (0.5, 0.6):
        assert submit(*words_of(server, "--out", "out.csv", "--fallbacks-max", answered)).result["answered"] == 2
    assert lines_of("out.csv")[0] == '"Übung, Nr.",Wert'
    Path("out.csv").write_text("Übung, Nr.,Wert\n")
    assert "may only replace a file of its kind" in submit(*words_of(server, "--out", "out.csv")).refusal


def test_a_run_that_was_stopped_asks_no_answered_question_again(
    table: Path, serve: Callable[..., Loopback], submit: CommandLine
) -> None:
    busy = answers("503 Busy", "later")
    server = serve(*[calculate] * 4, then=busy)
    words = (*words_of(server, "--budget", "600:1:600", "--policy", "all"), "--servers.patience-s", 1)
    assert "503 Busy: later.\n  Fix: mend or start a server" in submit(*words).refusal
    answered = [json.loads(line) for line in lines_of("runs/answer-q/answers.jsonl")]
    assert [line["id"] for line in answered] == ["424e18"]
    assert not Path("runs/answer-q/submission.csv").exists()
    assert not Path("runs/answer-q/manifest.json").exists()

    server.then, server.requests[:] = calculate, []
    done = submit(*words)
    assert done.result["answered"] == 2
    assert "going on: 1 of 4 questions are done" in done.stderr
    assert asked_of(server) == {"2 + 2": 4, "30 * 30": 4, "say nothing": 4}
    assert lines_of("runs/answer-q/answers.jsonl")[0] == json.dumps(answered[0])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("answer", "none.csv"), "the file must exist, got none.csv"),
        (("answer", "q.csv", "--columns", "row"), "--columns must say which column is what, got row="),
        (("answer", "q.csv", "--columns", "problem=text"), "got problem=text"),
        (("answer", "q.csv"), "q.csv:2: a question needs its id, got columns row, text, answer"),
        (("answer", "q.csv", "--competition", "aimo-3"), "id that the rules of aimo-3 names must be there, 'id'"),
        (("answer", "q.csv", "--competition", "nemotron-like"), "whose deliverable is an adapter"),
        (
            ("answer", "q.csv", "--competition", "cup.toml", "--out", "q.csv"),
            "must not be written over what it is made",
        ),
        (("answer", "q.csv", "--competition", "cup.toml", "--out", "cup.toml"), "may only replace a file of its kind"),
        (("answer", "q.csv", "--competition", "cup.toml", "--fallbacks-max", "2"), "--fallbacks-max must be 0 to 1"),
        (("answer", "q.csv", "--competition", "cup.toml", "--score", "--columns", "gold=key"), "must be there, 'key'"),
        (("answer", "q.csv", "--competition", "cup.toml", "--engine", "openai"), "--engine openai without --model"),
    ],
)
def test_bad_input_is_exit_2_and_leaves_nothing(
    table: Path, submit: CommandLine, words: tuple[str, ...], message: str
) -> None:
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    assert message in submit(*words).refusal
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


def test_a_notebook_for_a_competition_that_takes_a_table_is_refused(table: Path, submit: CommandLine) -> None:
    refusal = submit("build", "--competition", "cup.toml").refusal
    assert "got cup, whose deliverable is csv.\n  Fix: answer its table with `python -m submit answer`" in refusal


def test_a_hosted_model_is_asked_without_what_it_refuses_and_can_be_spared(
    table: Path, serve: Callable[..., Loopback], submit: CommandLine
) -> None:
    server = serve(then=refuse_some)
    assert "'temperature' does not support 0.6" in submit(*words_of(server)).refusal
    done = submit(*words_of(server, "--sampling.temperature", 1, "--sampling.max-tokens", 50))
    assert done.result["answered"] == 2
    last = server.requests[-1]
    assert (last["max_completion_tokens"], "logprobs" in last, "seed" in last) == (50, False, True)
    reasons = {json.loads(line)["reason"].rpartition(": ")[2] for line in lines_of("runs/answer-q/lost.jsonl")}
    assert reasons == {"asked again without max_tokens", "asked again without logprobs"}


def test_what_the_organiser_fixes_is_the_default_and_nothing_else_is_taken(
    table: Path, serve: Callable[..., Loopback], submit: CommandLine
) -> None:
    Path("cup.toml").write_text(f"{CUP}\n[sampling]\ntemperature = 1.0\nmax_tokens = 77\nsamples = 2\n")
    server = serve()
    with Path("cup.toml").open("a") as rules:
        rules.write('[prompt]\nsuffix = "\\nBox it."\ntemplate = {effort = "high"}\n')
    words = [word for word in words_of(server) if word not in ("--n", 4)]
    refusal = submit(*words_of(server)).refusal
    assert "--n must be 2, as the organiser fixes it, got 4.\n  Fix: leave it out" in refusal
    assert "--sampling.top-p must be 1, as the organiser" in submit(*words, "--sampling.top-p", 0.9).refusal
    assert submit(*words).result["samples"] == 8
    assert {(one["temperature"], one["max_tokens"]) for one in server.requests} == {(1.0, 77)}
    assert {one["messages"][0]["content"].partition("\n")[2] for one in server.requests} == {"Box it."}
    assert server.requests[0]["chat_template_kwargs"] == {"effort": "high"}
    assert "an organiser's prompt must be alone" in submit(*words, "--prompt.instruction", "Box.").refusal
    # Rules are compared, not their spelling, and a policy file's prompt gives way.
    shutil.copy("cup.toml", "same.toml")
    assert submit(*words, "--prompt.organiser", "same.toml").result["samples"] == 8
    chosen = {"policy": "all/majority", "n": 2, "max_tokens": 77, "budget": "none", "recordings": [], "questions": 4}
    chosen |= {"score": 1, "lo": 1, "hi": 1, "sampling": {"temperature": 1.0, "top_p": 1.0}}
    for prompt in ({"instruction": "Box."}, {"organiser": "gone.toml"}):
        Path("p.json").write_text(json.dumps({**chosen, "prompt": prompt}))
        done = submit(*words, "--policy-file", "p.json", "--overwrite")
        assert done.code == 0, done.stderr
        assert "the prompt is the organiser's, by the rules of cup" in " ".join(done.stderr.split())
        refused = submit(*words, "--policy-file", "p.json", "--prompt.template-args", "a=b").refusal
        assert "an organiser's prompt must be alone" in refused
    Path("p.json").write_text(json.dumps({**chosen, "n": 3}))
    refused = " ".join(submit(*words, "--policy-file", "p.json").refusal.split())
    assert "--n must be 2, as the organiser fixes it, got 3. Fix: leave it out, and --policy-file p.json" in refused
    assert {one["messages"][0]["content"].partition("\n")[2] for one in server.requests} == {"Box it."}


def test_answers_are_those_of_an_evaluation(workdir: Path, submit: CommandLine, evaluate: CommandLine) -> None:
    """One loop: the same questions, model, policy and seed give the same votes."""
    problems = [one for one in read_problems(POCKET_VAL) if one.subset.startswith("easy")][:3]
    write_problems(Path("three.jsonl"), problems)
    words = ("three.jsonl", "--model", "pocket", "--n", 2, "--policy", "all", "--sampling.max-tokens", 48, "--json")
    submit("answer", *words)
    evaluated = evaluate(*words).result["run"]
    rows = json.loads(Path(evaluated, "results.json").read_text())["per_problem"]
    with Path("runs/answer-three/submission.csv").open(newline="") as sheet:
        assert [*csv.reader(sheet)] == [["id", "answer"], *([row["id"], row["answer"] or ""] for row in rows)]


def test_a_question_that_is_too_long_does_not_stop_the_others(workdir: Path, submit: CommandLine) -> None:
    shutil.copytree(POCKET, "short")
    config = json.loads(Path("short/config.json").read_text())
    Path("short/config.json").write_text(json.dumps({**config, "max_position_embeddings": 90}))
    Path("q.csv").write_text(f"id,problem\nlong,{'1 + ' * 60}1?\nshort,Evaluate 2 + 3.\n")
    words = ("--model", "short", "--n", 1, "--sampling.max-tokens", 8, "--fallbacks-max", 1)
    done = submit("answer", "q.csv", *words, "--json")
    assert [*done.result["without_answer"]] == ["long", "short"]
    assert re.search(r"long \(its prompt has \d+ tokens, too many for the model\)", done.stderr)
    assert "not asked: the prompt of problem long must leave room in the model's context of 90 tokens" in done.stderr
    samples = [json.loads(line) for line in lines_of("runs/answer-q/samples.jsonl")]
    assert {one["problem_id"] for one in samples} == {"short"}


@pytest.mark.slow
def test_kill_9_loses_no_answer_and_answers_no_question_twice(workdir: Path, submit: CommandLine) -> None:
    problems = read_problems(POCKET_VAL)[:60]
    write_problems(Path("sixty.jsonl"), problems)
    # All samples: under a stopping rule the machine's load decides how many are drawn.
    drawn = ("--n", 8, "--policy", "all", "--sampling.max-tokens", 128)
    words = ("answer", "sixty.jsonl", "--model", "pocket", *drawn, "--json", "--run")
    whole = submit.process(*words, "whole").result
    seen: list[list[str]] = []
    for wanted in (1, 15, 35):
        with subprocess.Popen(submit.argv(*words, "cut"), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as started:
            while len(answered := lines_in("cut/answers.jsonl")) < wanted and started.poll() is None:
                time.sleep(0.005)
            os.kill(started.pid, signal.SIGKILL)
        seen.append(lines_in("cut/answers.jsonl"))
        assert len(seen[-1]) >= len(answered)
    assert not Path("cut/submission.csv").exists()
    assert 1 <= len(seen[0]) < len(seen[1]) < len(seen[2]) < 60
    assert seen[2][: len(seen[1])] == seen[1]
    done = submit.process(*words, "cut")
    assert f"going on: {len(seen[2])} of 60 questions are done" in done.stderr
    assert {**done.result, "run": "", "out": "", "longest_s": 0} == {**whole, "run": "", "out": "", "longest_s": 0}
    ids = [json.loads(line)["id"] for line in lines_in("cut/answers.jsonl")]
    assert sorted(ids) == sorted(problem.id for problem in problems)
    assert lines_in("cut/answers.jsonl")[: len(seen[2])] == seen[2]
    assert Path("cut/submission.csv").read_bytes() == Path("whole/submission.csv").read_bytes()
    samples = [json.loads(line) for line in lines_in("cut/samples.jsonl")]
    keys = Counter((one["problem_id"], one["index"]) for one in samples)
    assert set(keys.values()) == {1}


def lines_in(file: str) -> list[str]:
    """Whole lines of a file that another process may be writing."""
    return Path(file).read_text().split("\n")[:-1] if Path(file).exists() else []
