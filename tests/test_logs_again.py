"""Imports of imports: what a log lacks, and what fills it, is the same however often it was imported before."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mathlete.problems import read_problems, write_problems
from mathlete.sampling import read_samples
from mathlete.scoring import Pool
from tests.conftest import CommandLine
from tests.test_logs import imported, lm_eval, write_lines

COLUMNS = {"statement": "q", "text": "said", "tokens": "length", "seconds": "took", "finish": "end",
           "logprob_mean": "sure", "seed": "seed"}  # fmt: skip
SETTINGS = {"temperature": 0.5, "top_p": 0.5, "max_tokens": 64}
LACKS = (*COLUMNS, *SETTINGS)
ROWS: list[dict[str, Any]] = [
    {"id": f"p{place}", "gold": "7", "q": f"{place} + 7?", "answer": "7", "said": f"\\boxed{{{7 + number % 2}}}",
     "length": 20 + number, "took": 1.25 + place + number / 7, "end": "stop", "sure": -0.25 - number / 8,
     "seed": 10 + number, **SETTINGS}
    for place in range(2) for number in range(2)
]  # fmt: skip


@pytest.fixture(autouse=True)
def inside(workdir: Path) -> None:
    """Every test stands in a folder of its own."""


def log_without(name: str, lacking: Sequence[str], *, rows: list[dict[str, Any]] = ROWS) -> list[str]:
    """Write a log without some things; returns how it is imported."""
    left_out = {COLUMNS.get(one, one) for one in lacking}
    file = write_lines(name, [{key: cell for key, cell in row.items() if key not in left_out} for row in rows])
    named = [f"{one}={column}" for one, column in COLUMNS.items() if one not in lacking]
    return [file, "--columns", "problem_id=id", "gold=gold", *(["answer=answer"] if "text" in lacking else []), *named]


def results(run: str) -> dict[str, Any]:
    content = json.loads(Path(run, "results.json").read_text())
    return {key: content.get(key) for key in ("missing", "assumed", "policy", "n", "right", "per_problem")}


FILLS: dict[str, list[str]] = {"seconds": ["--pace", "10"], "statement": ["--problems", "suite.jsonl"]}


@pytest.mark.parametrize("lacks", [(), *[(one,) for one in LACKS], ("seconds", "tokens"), ("seconds", "seed"), LACKS])
def test_what_an_import_of_an_import_lacks_is_what_the_log_lacks(lacks: tuple[str, ...]) -> None:
    write_lines("suite.jsonl", [{"id": f"p{at}", "statement": f"{at} + 7?", "gold": "7"} for at in range(2)])
    words = log_without("t.jsonl", lacks)
    imported("once", *words)
    imported("again", "once")
    assert results("again") == results("once")
    named = {"logprob_mean": "logprobs"}
    assert set(results("once")["missing"] or ()) == {named.get(one, one) for one in lacks}
    for name, fill in FILLS.items():
        if not lacks or name in lacks:
            imported(f"{name} once", *words, *fill)
            imported(f"{name} again", "once", *fill)
            imported(f"{name} at last", "again", *fill)
            assert results(f"{name} once") == results(f"{name} again") == results(f"{name} at last")
            assert results(f"{name} again")["assumed"] == (
                {"seconds": "tokens / 10"} if name == "seconds" in lacks and "tokens" not in lacks else None
            )


def test_seconds_that_were_made_of_tokens_are_enough_for_the_replay(evaluate: CommandLine) -> None:
    imported("once", *log_without("t.jsonl", ["seconds"]))
    small = ("--n", 2, "--stop", "exact", "--simulations", 20)
    assert "--pace" in evaluate("replay", "once", *small).refusal
    imported("paced", "once", "--pace", 10)
    assert evaluate("replay", "paced", *small).code == 0
    assert Pool.read([Path("paced")]).missing == Pool.read([Path("once")]).missing - {"seconds"}


def test_what_slices_say_and_assume_holds_for_them_all_in_whatever_order() -> None:
    slices = [[{**row, "id": f"{row['id']} of {name}"} for row in ROWS] for name in "ab"]
    imported("a", *log_without("a.jsonl", ["temperature", "seconds"], rows=slices[0]), "--pace", 10)
    imported("b", *log_without("b.jsonl", ["seconds", "max_tokens"], rows=slices[1]), "--pace", 20)
    for name, runs in (("ab", "ab"), ("ba", "ba")):
        imported(name, *runs)
        told = results(name)
        sampling = told["policy"]["sampling"]
        assert [sampling[one] for one in SETTINGS] == [*SETTINGS.values()]
        assert told["missing"] is None
        assert sorted(told["assumed"]["seconds"].split(", ")) == ["tokens / 10", "tokens / 20"]


def percent_log(name: str, task: str) -> str:
    """Write a log of lm-evaluation-harness in which an answer is a percentage."""
    row = json.loads(Path(str(lm_eval()[0])).read_text().splitlines()[0])
    row |= {"doc": {"question": "What percentage?"}, "target": "#### 50", "resps": [["It is \\boxed{50\\%}"]]}
    return write_lines(f"samples_{task}_{name}.jsonl", [row])


DAY = "2026-11-29T14-48-34.027010"


@pytest.mark.parametrize(
    ("task", "right"),
    [("gsm8k", 1), ("gsm8k_cot", 1), ("GSM8K", 1), ("hendrycks_math_500", 1), ("math500", 1), ("mgsm", 0), ("sums", 0)],
)
def test_a_log_of_a_known_set_is_judged_by_its_conventions(task: str, right: int) -> None:
    said = imported("r", percent_log(DAY, task))
    assert results("r")["right"] == right
    assert any("percent=points" in words for words in said) == bool(right)
    imported("again", "r")
    assert results("again")["right"] == right
    assert [one.answers for one in read_problems(Path("again/problems.jsonl"))] == ["percent=points" if right else ""]


def test_runs_that_are_judged_by_two_conventions_are_compared_and_pooled_by_none(evaluate: CommandLine) -> None:
    imported("r", percent_log(DAY, "gsm8k"))
    Path("plain").mkdir()
    write_problems(
        Path("plain/problems.jsonl"), [replace(one, answers="") for one in read_problems(Path("r/problems.jsonl"))]
    )
    write_lines(
        "plain/samples.jsonl", [replace(one, seed=5).to_json() for one in read_samples(Path("r/samples.jsonl"))]
    )
    for runs in (["r", "plain"], ["plain", "r"]):
        for command in ("compare", "replay"):
            refusal = evaluate(command, *runs).refusal
            assert "the convention of its answers" in refusal
            assert "percent=points" in refusal
            assert "import the older log again, into another --run" in refusal
