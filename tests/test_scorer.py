"""The organiser's scorer: its tables of cases, points for any text, and what it says beside mathlete's checker."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.evaluate import describe_conditions
from mathlete.answers import compare, read_answer
from mathlete.competitions import Competition, ScorerRules, competition
from mathlete.competitions.scorer import COMPARISONS, READINGS, AnswerType, BoxEnd, Reading
from mathlete.errors import UserError
from mathlete.folders import SCORER
from mathlete.organiser import BothJudged, ScorerResult, choose_sent, judge_both, organisers_gold
from mathlete.prompts import PromptSettings, SavedPrompt
from mathlete.rehearsal.adapter.draws import DrawnTexts
from mathlete.rehearsal.adapter.rehearsing import judge_texts
from mathlete.rehearsal.scorer import score_runs
from mathlete.report import write_report
from mathlete.report.html.tables import scorer_table
from mathlete.sampling import SamplingConfig
from mathlete.scoring import EvalRun
from mathlete.shipped import find_recording
from mathlete.solve import Policy
from tests.conftest import CHARACTERS, GOLDEN, CommandLine
from tests.recorded import answers, problem, record

NEMOTRON, AIMO_1, AIMO_3 = (competition(name) for name in ("nemotron-like", "aimo-1", "aimo-3"))
TABLES = {
    "integer": ScorerRules(rule="integer"),
    "last-box": NEMOTRON.scorer,
    "number": ScorerRules(rule="number", tolerance=0.001),
    "text": ScorerRules(rule="text"),
    # One point, minus one, nothing for a blank: AA-Omniscience, arXiv:2511.13029, section 2.
    "penalised": ScorerRules(rule="integer", wrong=-1.0),
}
"""{table: the rules that it was judged by hand against}."""


def read_table(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (GOLDEN / "scorers" / f"{name}.jsonl").read_text("utf-8").splitlines()]


def test_the_tables_hold_two_hundred_cases() -> None:
    counts = {name: len(read_table(name)) for name in (*TABLES, "two-runs")}
    assert sum(counts.values()) >= 200
    assert min(counts.values()) >= 20


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_scored_as_it_was_judged_by_hand(name: str) -> None:
    rows = read_table(name)
    judged = {row["id"]: TABLES[name].judge(row["text"], gold=row["gold"]) for row in rows}
    assert {row["id"]: (row["read"], row["points"]) for row in rows} == {
        name: (one.read, one.points) for name, one in judged.items()
    }
    assert all(one.right == (one.points == 1) for one in judged.values())


@pytest.mark.parametrize("name", TABLES)
def test_a_table_shows_what_the_own_checker_says(name: str) -> None:
    """So the tables are also the differences between the two."""
    rows = read_table(name)

    def judge(row: Mapping[str, Any]) -> str:
        text = row["text"] or ""
        answer = read_answer(text) if TABLES[name].reads_text else text.strip()
        return compare(answer=answer, gold=row["gold"]).outcome if answer else "none"

    assert {row["id"]: row["own"] for row in rows} == {row["id"]: judge(row) for row in rows}
    assert any(row["own"] == "equal" and row["points"] < 1 for row in rows)


def test_two_runs_give_half_points() -> None:
    rows = read_table("two-runs")

    def score(row: Mapping[str, Any]) -> float:
        runs = [{} if text is None else {"a": text} for text in row["texts"]]
        return score_runs(runs, golds={"a": row["gold"]}, rules=AIMO_3)

    assert {row["id"]: score(row) for row in rows} == {row["id"]: pytest.approx(row["points"]) for row in rows}


@pytest.mark.parametrize(
    ("texts", "points"),
    [
        (["7", "7"], 1),
        (["7", "8"], 0),
        (["7", None], 0.5),
        (["8", "8"], -1),
        (["8", None], -0.5),
        ([None, None], 0),
    ],
)
def test_runs_that_are_wrong_cost_and_blank_ones_do_not(texts: list[str | None], points: float) -> None:
    rules = replace(AIMO_3, scorer=TABLES["penalised"])
    runs = [{} if text is None else {"a": text} for text in texts]
    assert score_runs(runs, golds={"a": "7"}, rules=rules) == points


def test_each_way_to_read_and_to_compare_is_an_entry() -> None:
    assert [*READINGS] == [*get_args(Reading)]
    assert [*COMPARISONS] == [*get_args(AnswerType)]


TOLERANCE = st.sampled_from([0.0, 1e-5, 0.01, 2.0])
RULES = st.builds(
    ScorerRules,
    rule=st.sampled_from(get_args(AnswerType)),
    reads=st.one_of(st.just(("submission",)), st.permutations([one for one in READINGS if one != "submission"])),
    box_end=st.sampled_from(get_args(BoxEnd)),
    tolerance=TOLERANCE,
    relative_tolerance=TOLERANCE,
    binary_as_text=st.booleans(),
    case_matters=st.booleans(),
    wrong=st.sampled_from([0.0, -0.25, -1.0]),
    blank=st.sampled_from([0.0, 0.25]),
)
PIECES = [
    "\\boxed{",
    "{",
    "}",
    "Final answer:",
    "-",
    "1",
    "0",
    ".",
    "e",
    "nan",
    "inf",
    "\n",
    " ",
    "²",
    "٤",
    "\x00",
    "\ud800",
]
TEXTS = st.one_of(st.text(CHARACTERS, max_size=20), st.lists(st.sampled_from(PIECES), max_size=12).map("".join))


@given(rules=RULES, text=st.none() | TEXTS, gold=TEXTS)
def test_any_text_gets_points(rules: ScorerRules, text: str | None, gold: str) -> None:
    judged = rules.judge(text, gold=gold)
    assert judged == rules.judge(text, gold=gold)
    assert judged.points == (rules.blank if judged.read is None else 1.0 if judged.right else rules.wrong)
    assert judged.right is False or judged.read is not None
    # What is read stands in the text: no answer is invented.
    assert judged.read is None or judged.read in str(text)


@given(value=st.integers(-(10**30), 10**30), zeros=st.integers(0, 3))
def test_an_integer_is_right_however_many_zeros_stand_before_it(value: int, zeros: int) -> None:
    text = f"{'-' if value < 0 else ''}{'0' * zeros}{abs(value)}"
    judge = ScorerRules(rule="integer").judge
    assert judge(text, gold=str(value)).right
    assert not judge(text, gold=str(value + 1)).right


@given(value=st.floats(1e-300, 1e300), sign=st.sampled_from([1, -1]))
def test_a_number_equals_what_lies_within_the_tolerance(value: float, sign: int) -> None:
    judge = ScorerRules(rule="number", relative_tolerance=0.01).judge
    gold = repr(sign * value)
    assert [judge(repr(sign * value * part), gold=gold).right for part in (1, 1.009, 1.011, -1)] == [1, 1, 0, 0]


@pytest.mark.parametrize(
    ("end", "text", "read"),
    [
        ("balanced", r"\boxed{\frac{1}{2}} and {x}", r"\frac{1}{2}"),
        ("balanced", r"\boxed{7}. Then \boxed{8", "7"),
        ("balanced", r"\boxed{\boxed{7}}", "7"),
        ("balanced", r"\boxed{7", None),
        ("first-brace", r"\boxed{\frac{1}{2}}", r"\frac{1"),
        ("first-brace", r"\boxed{7", "7"),
        ("first-brace", r"\boxed{7 \boxed{8}", r"7 \boxed{8"),
        ("last-brace", r"\boxed{\frac{1}{2}} and {x}", r"\frac{1}{2}} and {x"),
    ],
)
def test_where_a_box_ends(end: BoxEnd, text: str, read: str | None) -> None:
    rules = ScorerRules(rule="text", reads=("last-box",), box_end=end)
    assert rules.judge(text, gold="7").read == read


def test_a_long_text_takes_no_longer_than_it_must() -> None:
    """Not timed: what takes the square of a hundred thousand takes minutes."""
    for piece in ("\\boxed{", "{", "}", "Final answer:", "final answer ", "1", "-", " ", "\n"):
        for end in get_args(BoxEnd):
            replace(NEMOTRON.scorer, box_end=end).judge(piece * 20_000, gold="7")


RECORDED = [("7", "7", 47), ("1/2", "0.5", 3)]
"""(answer, gold, problems with them): by the maths all are right, and the scorer takes no fraction for a number."""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Fifty problems with a sample each, all right, three of them written in a way that the scorer does not read."""
    rows = [(answer, gold) for answer, gold, count in RECORDED for _ in range(count)]
    drawn = [
        (problem(f"p{number}", gold=gold), answers(answer, text=r"So it is \boxed{{{}}}"))
        for number, (answer, gold) in enumerate(rows)
    ]
    return record(tmp_path / "run", drawn)


def test_what_is_lost_to_the_scorer_is_told_with_ids_and_what_was_read(
    run: Path, tmp_path: Path, evaluate: CommandLine
) -> None:
    done = evaluate("losses", str(run), "--competition", "nemotron-like", "--out", str(tmp_path / "losses.json"))
    words = " ".join(done.stdout.split())
    assert "scorer of nemotron-like: 47 of 50 points; mathlete's checker: 50 of 50 right" in words
    assert (
        "you would lose 3 of 50 samples to the scorer, not to the maths: p47 sample 0 (read 1/2, gold 0.5); " in words
    )
    scorer = json.loads((tmp_path / "losses.json").read_text())["runs"][0]["scorer"]
    assert [row["id"] for row in scorer["lost_to_scorer"]] == ["p47", "p48", "p49"]
    # Both verdicts are kept for every answer.
    assert {(row["own"], row["right"]) for row in scorer["judged"]} == {("equal", True), ("equal", False)}
    assert len(scorer["judged"]) == 50


def test_a_run_that_was_sampled_otherwise_says_so() -> None:
    own, organisers = SavedPrompt(), SavedPrompt().with_settings(PromptSettings(organiser="nemotron-like"))
    assert [*describe_conditions(AIMO_3, Policy(), prompt=own)] == []
    (line,) = describe_conditions(NEMOTRON, Policy(), prompt=own)
    assert "temperature 0, here 0.6; top_p 1, here 0.95; max_tokens 7680, here 256; another prompt, which" in line
    sampled = Policy(sampling=SamplingConfig(temperature=0.0, top_p=1.0, max_tokens=7680))
    (line,) = describe_conditions(NEMOTRON, sampled, prompt=organisers)
    assert line.endswith("these are not quite its points: its samples go on behind a box, ours end there")


def test_the_report_shows_the_answers_on_which_both_differ(run: Path) -> None:
    assert EvalRun.read(run).judge_by(NEMOTRON).write(run)
    judged = EvalRun.read(run)
    page = write_report([run], out=run / "report.html").read_text()
    assert "you would lose 3 of 50 samples to the scorer, not to the maths" in page
    table = scorer_table([judged])
    assert table is not None
    assert table.rows[0] == ["p47 · sample 0", "0.5", "1/2", "wrong", "1/2", "equal", "0"]
    assert len(table.rows[0]) == len(table.head)
    assert len(table.rows) == 3


def test_a_recording_without_texts_is_not_read_for_a_box() -> None:
    run = EvalRun.read(find_recording(Path("qwen-coder-0.5b-gsm8k")))
    with pytest.raises(UserError, match="the recording must have kept it"):
        run.judge_by(NEMOTRON)
    assert len(run.judge_by(AIMO_3).judged) == 120


def test_what_an_adapter_would_lose_is_told_by_its_rehearsal() -> None:
    def draw(*texts: str) -> DrawnTexts:
        return DrawnTexts(prompt_ids=(1,), texts=texts, ids=((1,),) * len(texts), finish=("stop",) * len(texts))

    problems = [problem("a", gold="0.5"), problem("b", gold="7")]
    drawn = {"a": draw(r"\boxed{1/2}"), "b": draw(r"\boxed{7}", r"\boxed{7.01}")}
    result = judge_texts(drawn, problems, rules=NEMOTRON)
    assert [(one.id, one.index, one.own, one.right) for one in result.judged] == [
        *(("a", None, "equal", False), ("b", 0, "equal", True), ("b", 1, "different", True)),
    ]
    assert "you would lose 1 of 3 samples to the scorer" in [*result.describe()][1]


def test_a_result_survives_its_file(tmp_path: Path) -> None:
    one = judge_both(r"\boxed{a}", gold="A", rules=NEMOTRON, problem_id="p", index=3, answer="a", own="different")
    result = ScorerResult.of([one, replace(one, index=None)], rules=NEMOTRON, left_out=["q"])
    assert result.write(tmp_path)
    assert not result.write(tmp_path)
    assert ScorerResult.read(tmp_path) == result
    assert one.gained
    assert not one.lost
    (tmp_path / SCORER).unlink()
    assert ScorerResult.read(tmp_path) is None


@pytest.mark.parametrize(
    ("rules", "voted", "sent"),
    [
        (AIMO_3, ["1/2", "100000", "7"], "7"),
        (AIMO_1, ["1007"], "7"),
        (AIMO_3, ["1/2"], "0"),
        (replace(AIMO_3, deliverable="csv", fallback=None), ["1/2"], None),
        (NEMOTRON, ["1/2", "7"], "1/2"),
        (NEMOTRON, [], None),
    ],
)
def test_what_is_handed_in(rules: Competition, voted: list[str], sent: str | None) -> None:
    assert choose_sent(voted, rules=rules) == sent


def test_a_gold_that_is_no_answer_of_the_competition_is_left_out() -> None:
    assert organisers_gold("1/2", rules=AIMO_3) is None
    assert organisers_gold("1/2", rules=NEMOTRON) == "1/2"
    result = ScorerResult(competition="aimo-3", judged=[], left_out=["p"])
    assert [*result.describe()] == ["left out: 1 problem whose gold is no answer of aimo-3: p"]


def test_what_a_model_wrote_is_shown_on_one_line() -> None:
    fields: Any = {"id": "p", "own": "equal", "right": False, "points": 0.0}
    one = BothJudged(**fields, gold="7", answer="7", read="\x1b[31m7\n" + "8" * 99)
    assert "\n" not in one.describe()
    assert "\x1b" not in one.describe()
