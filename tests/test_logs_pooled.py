"""Which recordings are one pool, which samples are the same, and who knows whether a recording stopped early."""

import json
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from mathlete.errors import UserError
from mathlete.sampling import read_samples
from mathlete.scoring import EvalRun, Pool
from mathlete.solve import BudgetSettings
from tests.conftest import CommandLine
from tests.test_logs import imported, write_lines
from tests.test_logs_kept import SAID, SETTINGS, forced_run, served, trim


@pytest.fixture(autouse=True)
def inside(workdir: Path) -> None:
    """Every test stands in a folder of its own."""


@pytest.mark.parametrize(("ended", "finish", "pooled"), [
    ("all", "stop", True), ("all", "cancelled", False), ("time", "stop", False),
])  # fmt: skip
def test_a_limit_in_time_tells_runs_apart_where_it_kept_a_sample(ended: str, finish: str, pooled: bool) -> None:
    # A clock's own words are left out: it is the limit alone that is looked at.
    for seed, timeout_s in enumerate((None, 900.0)):
        plain = replace(SETTINGS.policy, seed=seed, harvest=0.0)
        sampling = replace(plain.sampling, timeout_s=timeout_s)
        forced_run(str(seed), replace(SETTINGS, budget=None, policy=replace(plain, sampling=sampling)))
        results = Path(str(seed), "results.json")
        results.write_text(json.dumps({**json.loads(results.read_text()), "ended": {ended: 4}}))
        lines = [json.loads(line) for line in Path(str(seed), "samples.jsonl").read_text().splitlines()]
        write_lines(f"{seed}/samples.jsonl", [{**row, "finish": finish} for row in lines if row["finish"] != "clock"])
    if pooled:
        assert Pool.read(trim("0", "1")).fewest == 2
    else:
        with pytest.raises(UserError, match="pooled only with the same timeout_s, got"):
            Pool.read(trim("0", "1"))


def test_dense_weights_are_those_that_auto_holds() -> None:
    for seed, held in enumerate(("auto", "dense")):
        forced_run(held, replace(SETTINGS, precision=held, policy=replace(SETTINGS.policy, seed=seed)))
    imported("joined", "auto", "dense")
    assert len(read_samples(Path("joined/samples.jsonl"))) == 18
    assert Pool.read(trim("auto", "dense")).fewest == 2


@pytest.mark.parametrize("budget", [SETTINGS.budget, None])
def test_joined_runs_on_a_clock_stopped_early(budget: BudgetSettings | None, evaluate: CommandLine) -> None:
    settings = replace(SETTINGS, budget=budget)
    for seed, name in enumerate(("one", "other")):
        forced_run(name, replace(settings, policy=replace(settings.policy, seed=seed)))
    # Beside another tool's log the settings are nobody's.
    table = [{"id": "p9", "gold": "8", "answer": "8", "seed": 1}]
    imported("joined", "one", "other")
    imported("beside", "one", write_lines("t.jsonl", table), "--columns", "problem_id=id", "gold=gold", "answer=answer")
    # A clock that left a slice without any sample of a problem kept them from all.
    problem = Path("other/problems.jsonl").read_text().splitlines()[3]
    write_lines(
        "more.jsonl",
        [{"id": "p3", "gold": "8", "answer": "8", "seed": 1, "statement": json.loads(problem)["statement"]}],
    )
    imported("late", "one", "more.jsonl", "--columns", "problem_id=id", "gold=gold", "answer=answer")
    rows = json.loads(Path("late/results.json").read_text())["per_problem"]
    assert [row["ended"] for row in rows] == ["all", "time", "time", "time"]
    for name in ("joined", "beside", "late"):
        assert EvalRun.read(Path(name)).pool.whole is False
    told = evaluate("replay", *trim("joined"), "--n", 1, "--stop", "none", "--simulations", 20).stdout
    assert "the recording stopped early" in " ".join(told.split())


def test_an_unfinished_run_that_is_imported_may_have_stopped() -> None:
    forced_run("run", replace(SETTINGS, budget=None))
    Path("run/results.json").unlink()
    imported("joined", "run", "--accept-refused", "a try")
    pool = EvalRun.read(Path("joined")).pool
    assert (pool.whole, pool.stopped_early) == (None, True)


def test_the_cap_of_a_log_that_says_it_is_the_logs() -> None:
    rows = [{"id": "a", "gold": "1", "answer": "1", "n": n, "finish": "length", "tokens": 3990 + n} for n in range(2)]
    columns = ("problem_id=id", "gold=gold", "answer=answer", "index=n", "seed=n", "finish=finish", "tokens=tokens")
    for name, cap in (("said", {"max_tokens": 4096}), ("unsaid", {})):
        imported(name, write_lines(f"{name}.jsonl", [{**row, **cap} for row in rows]), "--columns", *columns)
    said, unsaid = Pool.read([Path("said")]), Pool.read([Path("unsaid")])
    assert (said.cut_at, unsaid.cut_at) == (4096, 3991)
    with pytest.raises(UserError, match="must be at most 3991") as refused:
        unsaid.require_cap(4096)
    assert "--sampling" not in refused.value.cure


@pytest.mark.parametrize("logprobs", [True, False])
def test_a_copy_without_texts_is_the_same_recording(logprobs: bool) -> None:
    forced_run("run")
    file = Path("run/samples.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    # In the copy a hash stands for an answer in prose.
    rows = [{**row, "answer": "they all are " * 30} if logprobs and row["answer"] == "9" else row for row in rows]
    write_lines(str(file), [row if logprobs else {**row, "logprob_mean": None} for row in rows])
    imported("copy", "run", "--no-texts")
    with pytest.raises(UserError, match="only with different samples"):
        Pool.read(trim("run", "copy"))


UNEVEN: list[tuple[int, str, bool | None]] = [
    # (requests that ended in an error, how a sample ended, whether no rule and no clock kept samples)
    (0, "stop", None),
    (1, "stop", True),
    (2, "stop", None),
    (1, "length", True),
    (1, "cancelled", None),
]


@pytest.mark.parametrize(("errors", "finish", "whole"), UNEVEN)
def test_samples_of_another_tool_are_lost_only_where_errors_account_for_them(
    errors: int, finish: str, whole: bool | None, evaluate: CommandLine
) -> None:
    words = served("a.jsonl", [f"chatcmpl-{number}" for number in range(12)], SAID)
    rows = [json.loads(line) for line in Path("a.jsonl").read_text().splitlines()][:-1]
    rows[0]["choices"][0]["finish_reason"] = finish
    write_lines("a.jsonl", rows + [{"error": {"message": "overloaded"}, "problem_id": "x"}] * errors)
    imported("r", *words)
    # An import of the import knows as much.
    imported("again", "r")
    for name in ("r", "again"):
        pools = [Pool.read([Path(name)]), EvalRun.read(Path(name)).pool]
        assert [(pool.is_uneven, pool.whole, pool.stopped_early) for pool in pools] == [(True, whole, not whole)] * 2
    told = " ".join(evaluate("replay", "again", "--n", 1, "--stop", "none", "--simulations", 20).stdout.split())
    assert ("some were lost, and none to a rule or a clock" in told) == bool(whole)
    assert ("stopped early, or lost some, the log does not say which" in told) == (whole is None)


MORE: list[tuple[dict[str, Any], int]] = [
    # (what the second file says of the same responses, samples of both)
    ({"logprobs": {"content": [{"token": "x", "logprob": -0.5}]}}, 12),
    ({"finish_reason": None}, 12),
    ({"finish_reason": "length"}, 24),
]


@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize(("more", "number"), MORE)
def test_a_response_written_again_with_more_is_the_same(more: dict[str, Any], number: int, turned: bool) -> None:
    words = served("a.jsonl", [f"chatcmpl-{number}" for number in range(12)], SAID)
    rows = [json.loads(line) for line in Path("a.jsonl").read_text().splitlines()]
    for row in rows:
        row["choices"][0] |= more
    write_lines("b.jsonl", rows)
    imported("r", *(("b.jsonl", "a.jsonl") if turned else ("a.jsonl", "b.jsonl")), *words[1:])
    samples = read_samples(Path("r/samples.jsonl"))
    assert len(samples) == number
    if number == 12:
        assert {one.logprob_mean for one in samples} == {-0.5 if "logprobs" in more else None}


@pytest.mark.parametrize("order", ["".join(each) for each in permutations("abc")])
def test_ids_are_shared_in_whatever_order_the_files_are(order: str) -> None:
    """One file says nothing of the log-probabilities, and the two others contradict each other."""
    words = served("a.jsonl", [f"chatcmpl-{number}" for number in range(12)], SAID)
    rows = [json.loads(line) for line in Path("a.jsonl").read_text().splitlines()]
    for name, logprob in (("b", -0.5), ("c", -0.7)):
        for row in rows:
            row["choices"][0]["logprobs"] = {"content": [{"token": "x", "logprob": logprob}]}
        write_lines(f"{name}.jsonl", rows)
    said = " ".join(imported("r", *(f"{name}.jsonl" for name in order), *words[1:]))
    assert "the responses' ids name no samples" in said


@pytest.mark.parametrize("ended", [1733000000.5, None, "2026", {"all": 3}])
def test_another_programs_results_are_no_error_of_a_pool(ended: object) -> None:
    words = served("a.jsonl", [f"chatcmpl-{number}" for number in range(12)], SAID)
    imported("r", "a.jsonl", *words[1:])
    Path("r/manifest.json").unlink(missing_ok=True)
    Path("r/results.json").write_text(json.dumps({"started": 1.0, "ended": ended}))
    assert len(Pool.read([Path("r")]).problems) == 3
