"""Questions in, a sheet out: what a stranger's table may be, what is handed in for it, and how it is written."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.settings import SolveSettings
from mathlete.answer_sheet import SheetLine, SheetLog, write_sheet
from mathlete.competitions import Competition, ScorerRules, competition
from mathlete.corpus import Questions
from mathlete.errors import UserError
from mathlete.kernel import KernelConfig
from mathlete.organiser import choose_answer, fallback_of
from mathlete.replay import Wall
from mathlete.sampling import Sample
from mathlete.solve import Policy, Solution
from submit.answer_settings import AnswerSettings, share_wall
from submit.building import Solving, require_clock
from tests.conftest import CHARACTERS, dear

IDS = ["424e18", " 7 ", "007", "1.0", 'a,"b"', "x;y"]
TEXTS = ["What is 1 + 1?", "Two\nlines", 'He said "2"', "5; 6?", "é?", "7?"]


def csv_of(*, delimiter: str = ",", end: str = "\n", quoting: Any = csv.QUOTE_MINIMAL, **more: str) -> str:
    written = io.StringIO()
    rows = csv.writer(written, delimiter=delimiter, lineterminator=end, quoting=quoting)
    rows.writerow(["id", "problem", *more])
    rows.writerows([name, text, *more.values()] for name, text in zip(IDS, TEXTS, strict=True))
    return written.getvalue()


FOREIGN: dict[str, tuple[str, bytes]] = {
    "plain": ("q.csv", csv_of().encode()),
    "BOM and CRLF, as Excel writes it": ("q.csv", csv_of(end="\r\n").encode("utf-8-sig")),
    "semicolons": ("q.csv", csv_of(delimiter=";").encode()),
    "tabs": ("q.tsv", csv_of(delimiter="\t").encode()),
    "everything quoted, no line break at the end": ("q.csv", csv_of(quoting=csv.QUOTE_ALL).rstrip().encode()),
    "blank lines between": ("q.csv", csv_of(end="\n\n").encode()),
    "a gold that is no answer, and more columns": ("q.csv", csv_of(answer="", note="easy").encode()),
    "JSONL": (
        "q.jsonl",
        "".join(json.dumps({"id": a, "problem": b}) + "\n" for a, b in zip(IDS, TEXTS, strict=True)).encode(),
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_table_gives_its_questions_and_ids_to_the_letter(workdir: Path, name: str) -> None:
    file, data = FOREIGN[name]
    Path(file).write_bytes(data)
    questions = Questions.read(Path(file), columns={}, whose="--columns")
    assert [problem.id for problem in questions.problems] == IDS
    assert [problem.statement for problem in questions.problems] == TEXTS
    assert {problem.gold for problem in questions.problems} == {""}
    assert (questions.id_column, questions.note.partition(";")[0]) == ("id", f"{file}: read id, problem")


def test_numbers_are_ids_and_golds_are_read_where_they_are_asked_for(workdir: Path) -> None:
    rows = [{"Row": 7, "Text": "1?", "Solution": "1"}, {"Row": 8, "Text": "2?", "Solution": None}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), "q.parquet")
    columns = {"id": "Row", "statement": "Text", "gold": "Solution"}
    questions = Questions.read(Path("q.parquet"), columns=columns, whose="--columns", golds=True)
    assert [(one.id, one.statement, one.gold) for one in questions.problems] == [("7", "1?", "1"), ("8", "2?", "")]
    assert questions.id_column == "Row"


@pytest.mark.parametrize(
    ("data", "columns", "message"),
    [
        (csv_of().encode("latin-1"), {}, r"q\.csv: must be CSV in UTF-8 .*\n.*iconv"),
        (csv_of().encode("utf-16"), {}, r"q\.csv: must be CSV in UTF-8"),
        (b"", {}, "needs at least one problem.*\n.*a row for each question"),
        (b"id,problem\n", {}, "needs at least one problem"),
        (b"id,problem\na,1?\nb,2?\na,3?\n", {}, r"q\.csv:4: ids must be unique, got 'a', first at q\.csv:2"),
        (b"id,problem\na,1?\n,2?\n", {}, r"q\.csv:3: a question needs its id in id.*got ''"),
        (b"id,problem\na,1?\n \t,2?\n", {}, r"q\.csv:3: a question needs its id in id"),
        (b"id,problem\na,1?\nb,\n", {}, r"q\.csv:3: a question needs its text in problem, got ''"),
        (b"problem\n1?\n", {}, r"q\.csv:2: a question needs its id, got columns problem.*\n.*--columns id=NAME"),
        (b"id,text\na,1?\n", {}, r"q\.csv:2: a question needs its statement, got columns id, text"),
        (
            b"id,problem\na,1?\n",
            {"statement": "problems"},
            "names must be there, 'problems'.*\n.*did you mean problem?",
        ),
        (b'id,problem\na,"1?\n', {}, r"q\.csv: must be CSV in UTF-8 .*unexpected end"),
        (b"id,problem\na,1?,2\n", {}, r"q\.csv:2: must have as many cells as the header"),
        (b"id,id\na,1?\n", {}, r"q\.csv:1: each column must have a name of its own"),
        (b"id,problem\na,\x001?\n", {}, r"q\.csv:2: problem must have no NUL"),
    ],
)
def test_a_table_that_cannot_be_answered_is_one_clear_error(
    workdir: Path, data: bytes, columns: dict[str, str], message: str
) -> None:
    Path("q.csv").write_bytes(data)
    with pytest.raises(UserError, match=message):
        Questions.read(Path("q.csv"), columns=columns, whose="--columns")


def test_an_id_whose_digits_are_lost_is_refused(workdir: Path) -> None:
    Path("q.jsonl").write_text('{"id": 424e18, "problem": "1?"}\n')
    with pytest.raises(UserError, match="an id must be text or a whole number"):
        Questions.read(Path("q.jsonl"), columns={}, whose="--columns")


CELLS = st.text(CHARACTERS.filter(lambda sign: sign != "\0"), min_size=1)


@dear(10)
@given(rows=st.dictionaries(CELLS, st.text(CHARACTERS.filter(lambda sign: sign != "\0"))))
def test_a_sheet_is_read_back_to_the_letter(tmp_path_factory: pytest.TempPathFactory, rows: dict[str, str]) -> None:
    file = tmp_path_factory.getbasetemp() / "sheet.csv"
    write_sheet(file, [SheetLine(id=a, answer=b, fallback=False) for a, b in rows.items()], columns=("row", "value"))
    with file.open(encoding="utf-8", newline="") as lines:
        assert [*csv.reader(lines, strict=True)] == [["row", "value"], *([a, b] for a, b in rows.items())]


def rules_of(**changes: Any) -> Competition:
    return replace(competition("aimo-3"), deliverable="csv", **changes)


NUMBERS: dict[str, Any] = {"answer_type": "number", "fallback": None}


@pytest.mark.parametrize(
    ("rules", "answers", "sent"),
    [
        (None, [" \\frac{1}{2} ", "3"], "\\frac{1}{2}"),
        (None, ["", "3"], "3"),
        (rules_of(), ["\\frac{1}{2}", "100000", "1{,}000"], "1000"),
        (rules_of(), ["1/2"], None),
        (rules_of(), [], None),
        (competition("aimo-1"), ["1007"], "7"),
        (rules_of(**NUMBERS, answer_min=None, answer_max=None), ["(1, 2)", "\\frac{7}{8}"], "0.875"),
        (rules_of(**NUMBERS, answer_min=0, answer_max=1), ["2", "\\frac{\\pi}{4}"], "0.7853981633974483"),
        (rules_of(**NUMBERS, answer_min=0, answer_max=1), ["-1"], None),
        (rules_of(**NUMBERS, answer_min=None, answer_max=None), ["011"], "011"),
        (rules_of(answer_type="text", fallback=None), ["x + 1"], "x + 1"),
    ],
)
def test_the_first_answer_that_the_rules_take_is_handed_in(
    rules: Competition | None, answers: list[str], sent: str | None
) -> None:
    assert choose_answer(answers, rules=rules) == sent


def test_a_cell_without_an_answer_follows_the_rules() -> None:
    penalised = ScorerRules(rule="integer", wrong=-1.0)
    rules = [None, rules_of(), rules_of(fallback=7), rules_of(**NUMBERS), rules_of(fallback=7, scorer=penalised)]
    assert [fallback_of(one) for one in rules] == ["", "0", "7", "", ""]


def solve_with(*answers: str | None, ended: Any = "all", text: str = "So?") -> Solution:
    samples = [
        Sample(problem_id="a", index=at, seed=at, text=text, answer=one, tokens=9, finish="stop", seconds=1.0)
        for at, one in enumerate(answers)
    ]
    votes = Policy().count_votes(samples)
    answer = votes[0].answer if votes else None
    return Solution(problem_id="a", answer=answer, votes=votes, samples=samples, seconds=2.0, ended=ended)


@pytest.mark.parametrize(
    ("solution", "cell", "why"),
    [
        (solve_with("7", "7", "8"), "7", ""),
        (solve_with("1/2", "1/2", "8"), "8", ""),
        (solve_with("1/2"), "0", "no answer that the rules take"),
        (solve_with(None, None), "0", "no sample has an answer"),
        (solve_with(None, text=" "), "0", "only empty completions"),
        (solve_with(ended="time"), "0", "the clock: no sample was finished"),
        # The model's own judgement goes before the vote.
        (replace(solve_with("7", "7", "8"), answer="8"), "8", ""),
    ],
)
def test_a_line_says_what_is_handed_in_and_why_there_is_no_answer(solution: Solution, cell: str, why: str) -> None:
    line = SheetLine.of(solution, rules=rules_of())
    assert (line.answer, line.why, line.fallback) == (cell, why, bool(why))


def test_lines_are_kept_as_they_come_and_read_in_the_questions_order(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    log = SheetLog(file, ids=["a", "b", "c"])
    lines = [SheetLine(id=name, answer="7", fallback=False, votes=(("7", 3),)) for name in ("c", "a")]
    for line in lines:
        log.append(line)
    with file.open("a") as half:
        half.write('{"id": "b", "ans')
    sheet = SheetLog(file, ids=["a", "b", "c"]).sheet
    assert (sheet.lines, sheet.questions) == ([lines[1], lines[0]], 3)
    with pytest.raises(UserError, match="must be of one of the file's questions, got 'c'"):
        SheetLog(file, ids=["a", "b"])
    file.write_text('{"id": "a", "answer": "7"}\n')
    with pytest.raises(UserError, match=r"answers.jsonl:1: must be as it was written"):
        SheetLog(file, ids=["a"])


@pytest.mark.parametrize("name", ["aimo-1", "aimo-2", "aimo-3"])
def test_questions_share_a_competition_s_clock_as_in_its_notebook(name: str) -> None:
    rules = competition(name)
    for questions in (1, 10, rules.problems, 300):
        config = KernelConfig(competition=rules, problems=questions)
        assert share_wall(rules, questions=questions) == config.share_clock(rules.notebook.wall_s)


def test_a_budget_keeps_back_what_it_says_alone_and_stays_within_the_rules() -> None:
    def shared(words: str) -> str:
        settings = AnswerSettings(file=Path("q.csv"), competition="aimo-3", solving=Solving(budget=words))
        budget = settings.to_budget(questions=6)
        return budget.words if budget else "none"

    assert [shared(words) for words in ("600", "600:60:90:30", "")] == [
        "600:83.3333333333:250",
        "600:60:90:30",
        "18000:300:900:600",
    ]
    for words in ("18001", "none"):
        with pytest.raises(UserError, match="--budget must keep within the competition's 18000 s"):
            shared(words)


@pytest.mark.parametrize(
    ("words", "rule", "cure"),
    [
        ("18000:0:0", "the time budget's ceiling must be above 0, got 0.0", "five hours are 18000"),
        ("5:0:0", "the time budget's ceiling must be above 0, got 0.0", "five hours are 18000"),
        ("5:00:00", "a budget must be none or SECONDS[:FLOOR:CEILING[:RESERVE]]", "--budget 18000 for 5:00:00"),
        ("4:05:30", "a budget must be none or SECONDS[:FLOOR:CEILING[:RESERVE]]", "--budget 14730 for 4:05:30"),
        ("5:00", "a budget must be none or SECONDS[:FLOOR:CEILING[:RESERVE]]", "--budget 18000 for five hours"),
        (
            "5:30:15",
            "the time budget's floor must be 0 or more and at most",
            "minutes and seconds, write --budget 19815",
        ),
        ("5:30:45", "must fit into the wall", "if 5:30:45 is hours, minutes and seconds, write --budget 19845"),
        (
            "18000:300:900:060",
            "a budget must be none or SECONDS",
            "leave out the zeros before a number: --budget 18000:300:900:60",
        ),
    ],
)
def test_a_clock_is_the_same_word_for_all_commands(words: str, rule: str, cure: str, workdir: Path) -> None:
    readers: list[Callable[[], object]] = [
        lambda: SolveSettings(budget=words).to_budget(questions=6),
        lambda: AnswerSettings(file=Path("q.csv"), solving=Solving(budget=words)).to_budget(questions=6),
        lambda: Wall.parse(words, questions=50, rules=competition("aimo-3")),
        lambda: KernelConfig().with_budget(words),
        lambda: require_clock(Solving(budget=words, policy_file=Path("p.json")), competition("aimo-3")),
    ]
    chosen = {"policy": "all/majority", "n": 2, "max_tokens": 77, "budget": words, "recordings": [], "questions": 50}
    Path("p.json").write_text(json.dumps(chosen | {"score": 1, "lo": 1, "hi": 1}))
    for read in readers:
        with pytest.raises(UserError) as caught:
            read()
        assert rule in str(caught.value)
        assert cure in caught.value.cure
