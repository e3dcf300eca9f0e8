"""`python -m eval check`: a file of cases judged, beside math-verify in the same run; and the shared cases' floors."""

import json
from pathlib import Path

import pytest

from mathlete.answers import compare, extract
from mathlete.answers.check import (
    Case,
    check_file,
    judge,
    math_verify_verdict,
    measure,
    our_verdict,
    read_cases,
)
from tests.conftest import CommandLine

CASES: list[dict[str, object]] = [
    {"id": "a", "kind": "equiv", "gold": "1/2", "pred": "0.5", "expected": True, "source": "ours:1"},
    {"id": "b", "kind": "equiv", "gold": "2", "pred": "2t", "expected": False, "source": "ours:2"},
    {"id": "c", "kind": "extract", "gold": "42", "text": r"\boxed{10}, no: \boxed{42}", "expected": True},
    {"id": "d", "kind": "extract", "gold": "B", "text": "The answer is (B).", "expected": "B"},
    {"id": "e", "kind": "extract", "gold": "1,2", "text": r"\boxed{1} and \boxed{2}", "expected": True},
    {"id": "f", "kind": "equiv", "gold": "7", "pred": "8", "expected": True, "source": "https://example.org/a/b/c"},
]


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    file = tmp_path / "cases.jsonl"
    file.write_text("\n".join(json.dumps(case) for case in CASES) + "\n\n")
    return file


def test_the_report_counts_both_kinds_of_mistakes(cases: Path) -> None:
    figures = check_file(cases).as_json()
    assert list(figures) == [
        *("cases", "accuracy", "false_accepts", "false_rejects", "unknown", "cases_per_s"),
        *("p50_ms", "p95_ms", "max_ms", "by_kind", "by_source"),
    ]
    assert (figures["cases"], figures["accuracy"]) == (6, 0.8333)
    assert (figures["false_accepts"], figures["false_rejects"], figures["unknown"]) == (0, 1, 0)
    assert figures["by_kind"] == {"equiv": {"cases": 3, "accuracy": 0.6667}, "extract": {"cases": 3, "accuracy": 1.0}}
    assert figures["by_source"] == {
        "": {"cases": 3, "accuracy": 1.0},
        "a/b": {"cases": 1, "accuracy": 0.0},
        "ours": {"cases": 2, "accuracy": 1.0},
    }


@pytest.mark.filterwarnings("ignore")
def test_the_command_judges_beside_math_verify_and_writes_verdicts(
    cases: Path, tmp_path: Path, evaluate: CommandLine
) -> None:
    out = tmp_path / "new" / "verdicts.jsonl"
    printed = evaluate("check", cases, "--against", "math-verify", "--out", out, "--json")
    line = printed.result
    assert "math-verify" in printed.stderr
    assert line["against"]["math-verify"]["cases"] == line["cases"] == 6
    assert line["against"]["math-verify"]["false_accepts"] == 1  # 2t
    verdicts = [json.loads(verdict) for verdict in out.read_text().splitlines()]
    assert [verdict["id"] for verdict in verdicts] == list("abcdef")
    assert [verdict["right"] for verdict in verdicts] == [True] * 5 + [False]
    assert {"expected", "outcome", "reason", "answer", "ms", "against"} < set(verdicts[0])


@pytest.mark.filterwarnings("ignore")
def test_math_verify_reads_letters_as_its_page_says() -> None:
    rows = [
        ("B", "B", True),
        ("B", "The answer is B.", True),
        ("B", r"The answer is \boxed{B}", True),
        ("B", "C", False),
    ]
    for gold, given, right in rows:
        case = Case(id="", kind="extract", gold=gold, given=given, expected=right)
        assert (math_verify_verdict(case)[0].outcome == "equal") == right, given


def test_a_case_is_judged_by_its_suites_conventions(tmp_path: Path, evaluate: CommandLine) -> None:
    cases = [
        {"id": "a", "kind": "equiv", "gold": "50", "pred": r"50\%", "expected": True},
        {"id": "b", "kind": "equiv", "gold": "2", "pred": r"\log 100", "expected": True, "answers": "log=10"},
        {"id": "c", "kind": "extract", "gold": "50", "text": r"\boxed{50\%}", "expected": True},
    ]
    file = tmp_path / "cases.jsonl"
    file.write_text("".join(json.dumps(case) + "\n" for case in cases))
    assert evaluate("check", file, "--json").result["accuracy"] == 0.3333
    assert evaluate("check", file, "--answers", "percent=points", "--json").result["accuracy"] == 1.0
    refusal = evaluate("check", file, "--answers", "percent=half").refusal
    assert "the setting percent must be a known one" in refusal
    assert "hundredth or points" in refusal


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "cases.jsonl:2 must be JSON"),
        ("[]", "cases.jsonl:2 must have the kind equiv or extract, got None"),
        ('{"kind": "vote"}', "cases.jsonl:2 must have the kind equiv or extract, got 'vote'"),
        ('{"id": "a", "kind": "equiv", "gold": 1.5, "pred": "1", "expected": true}', "2: gold must be a string"),
        ('{"id": "a", "kind": "equiv", "gold": "1", "text": "1", "expected": true}', "2: pred must be a string"),
        ('{"id": "a", "kind": "equiv", "gold": "1", "pred": "1", "expected": "1"}', "2: expected must be"),
        ('{"id": 7.5, "kind": "equiv", "gold": "1", "pred": "1", "expected": true}', "2: id must be a string, got 7.5"),
    ],
)  # fmt: skip
def test_a_malformed_line_is_named(line: str, message: str, cases: Path, tmp_path: Path, evaluate: CommandLine) -> None:
    cases.write_text(json.dumps(CASES[0]) + "\n" + line + "\n")
    assert message in evaluate("check", cases, "--out", tmp_path / "verdicts.jsonl").refusal
    assert not (tmp_path / "verdicts.jsonl").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "the file must exist"), (b"\n", "the file must hold a case"), (b"\xff", "must be readable JSONL")],
)
def test_a_file_without_cases_is_refused(
    tmp_path: Path, content: bytes | None, message: str, evaluate: CommandLine
) -> None:
    if content is not None:
        (tmp_path / "cases.jsonl").write_bytes(content)
    assert message in evaluate("check", tmp_path / "cases.jsonl").refusal


@pytest.mark.parametrize(
    ("name", "accuracy", "false_accepts"), [("peers_dev", 0.97, 1), ("controls_dev", 1.0, 0), ("semantics", 0.976, 2)]
)
def test_the_shared_cases_reach_their_floors(shared: Path, name: str, accuracy: float, false_accepts: int) -> None:
    cases = read_cases(shared / "data" / "checker" / f"{name}.jsonl")
    figures = measure(cases, judge(cases, our_verdict))
    assert figures.accuracy >= accuracy
    assert figures.false_accepts <= false_accepts


def test_hostile_cases_are_never_falsely_accepted_nor_executed(shared: Path, workdir: Path) -> None:
    cases = read_cases(shared / "data" / "checker" / "hostile.jsonl")
    for case in cases:
        if not case.expected:
            given = case.given if case.kind == "equiv" else extract(case.given).string
            assert compare(answer=given, gold=case.gold, limit_s=0.1).outcome != "equal", case.id
    assert not list(workdir.iterdir())
