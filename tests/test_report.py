"""The report: what it holds, that nothing in it comes alive, and how it behaves in a real browser."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mathlete.losses import CAUSES
from mathlete.problems import Problem
from mathlete.report import html, write_report
from mathlete.report.html.entries import list_entries
from mathlete.report.plots import RUN_COLOURS
from mathlete.runs import sha256_tree, write_json
from mathlete.scoring import EvalRun
from mathlete.scoring.known import CHECKER
from mathlete.solve.budget import Budget, BudgetSettings
from mathlete.solve.clock import VirtualClock
from tests.conftest import CommandLine, sample
from tests.recorded import TOOL, answers, blocks, data, problem, record, six, train_run

pytestmark = pytest.mark.usefixtures("lean")


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    return record(tmp_path / "base", six())


@pytest.mark.parametrize("sha256", [None, "another checker"])
def test_a_problem_is_lost_as_its_grades_beside_it_say(run_folder: Path, sha256: str | None) -> None:
    run = EvalRun.read(run_folder)
    stored = run.results.per_problem
    told = [replace(row, losses=row.losses and replace(row.losses, cause="cut_by_clock")) for row in stored]
    figures = {CHECKER: sha256} if sha256 else EvalRun.name_checker()
    changed = replace(run, results=replace(run.results, per_problem=told), manifest={"figures": figures})
    rows, _ = list_entries([changed], trace_bytes=1000)
    lost = [row["runs"][0]["lost"] for row in rows]
    of_stored = [CAUSES[row.losses.cause].label if row.losses else "" for row in told]
    of_grades = [one["runs"][0]["lost"] for one in list_entries([run], trace_bytes=1000)[0]]
    assert lost == (of_grades if sha256 else of_stored)
    assert of_grades != of_stored


@pytest.mark.usefixtures("in_full")
def test_a_run_is_shown_whole(run_folder: Path) -> None:
    page = write_report([run_folder], out=run_folder / "report.html").read_text()
    told = data(page)
    assert [entry["id"] for entry in told["problems"]] == ["sure", "wrong", "outvoted", "close", "silent", "capped"]
    outvoted = told["problems"][2]["runs"][0]
    assert outvoted["votes"] == [["7", 3, "different"], ["9", 1, "equal"]]
    assert (outvoted["verdict"], outvoted["right"], outvoted["n"]) == ("different", 1, 4)
    assert told["problems"][4]["runs"][0]["answer"] is None
    assert [len(traces) for traces in blocks(page)] == [4] * 6
    assert blocks(page)[0][0][9] == TOOL
    # Without a clock, the time of a question means nothing.
    keys = ["accuracy", "losses", "subsets", "trust", "votes", "tokens"]
    assert [chart["key"] for chart in told["charts"]] == keys
    for words in ("41.7", "50.0 [18.8, 81.2]", "geometry/2", "Environment and hashes", "3 (50.0%)"):
        assert words in page
    for key in keys:
        assert (run_folder / "plots" / f"{key}.png").read_bytes().startswith(b"\x89PNG")


def test_several_runs_stand_side_by_side(run_folder: Path, tmp_path: Path, evaluate: CommandLine) -> None:
    better = [(one, answers("9", "9", "9", "9")) for one, _ in six()]
    other = record(tmp_path / "tuned", better)
    done = evaluate("report", run_folder, other, "--out", tmp_path / "both.html", "--json")
    assert done.code == 0
    assert json.loads(done.stdout)["report"] == str(tmp_path / "both.html")
    page = (tmp_path / "both.html").read_text()
    told = data(page)
    assert len(told["problems"]) == 6
    assert all(None not in entry["runs"] for entry in told["problems"])
    for words in ("tuned against base", "3 gained", "0 lost", "on the 6 problems that both have, paired"):
        assert words in page
    assert (tmp_path / "plots" / "votes-2.png").is_file()
    assert not (run_folder / "report.html").exists()


def test_a_card_has_the_change_in_each_group_of_subsets(tmp_path: Path) -> None:
    asked = [problem(f"p{at}", subset="hard/a" if at < 12 else "easy/b") for at in range(22)]
    runs = [record(tmp_path / name, [(one, answers(*words)) for one, words in zip(asked, drawn, strict=True)])
            for name, drawn in (("base", ["77"] * 12 + ["97"] * 10), ("tuned", ["99"] * 12 + ["97"] * 10))]  # fmt: skip
    page = write_report(runs, out=tmp_path / "both.html").read_text()
    assert "pass@1, points: hard (12) +100.0 [+100.0, +100.0] · easy (10) +0.0 [+0.0, +0.0]" in page
    few = [(one, answers("9")) for one in asked[:20]]  # eight easy ones say too little
    page = write_report([record(tmp_path / name, few) for name in "ab"], out=tmp_path / "few.html").read_text()
    assert "pass@1, points: hard" not in page


def test_many_runs_are_compared_in_a_matrix(tmp_path: Path) -> None:
    asked = [problem(f"p{place}") for place in range(12)]
    # Run r answers the first 2 r problems right: each is sure to be better than one that is far enough behind.
    folders = [
        record(tmp_path / f"r{run}", [(one, answers("9" if at < 2 * run else "7")) for at, one in enumerate(asked)])
        for run in range(7)
    ]
    page = write_report(folders, out=tmp_path / "report.html").read_text()
    assert page.count('class="card ') == 0
    rows = re.findall(r'<tr><th class="word"><i class="run".*?</tr>', page)
    tones = [re.findall(r'<td class="(\w+)"', row) for row in rows]
    assert len(tones) == 7
    assert tones[6] == ["better"] * 4 + ["even"] * 3
    assert tones[0] == ["even"] * 3 + ["worse"] * 4
    assert "<b>+100.0</b><span>[+100.0, +100.0]</span>" in rows[6]
    # One sample has no vote to draw, and one k is no curve.
    assert [chart["key"] for chart in data(page)["charts"]] == [
        "losses",
        "subsets",
        *(f"tokens-{run}" for run in range(1, 8)),
    ]


def test_charts_of_several_runs_have_one_scale_and_the_same_round_bins(tmp_path: Path) -> None:
    lengths = {"short": [40, 55, 61, 80], "long": [333, 401, 512, 640]}
    folders = [
        record(tmp_path / name, [(problem("a"), [{"answer": "9", "tokens": tokens} for tokens in some])])
        for name, some in lengths.items()
    ]
    charts = [
        chart for chart in data(write_report(folders, out=tmp_path / "r.html").read_text())["charts"]
        if chart["key"].startswith("tokens")
    ]  # fmt: skip
    assert [(chart["x"][0], chart["x"][-1], chart["step"], chart["most"]) for chart in charts] == [
        (40, 640, 20, 0.5)
    ] * 2
    assert [round(sum(chart["series"][0]["y"]), 3) for chart in charts] == [1, 1]


def test_a_clock_and_no_other_run_has_a_chart_of_its_questions_times(tmp_path: Path) -> None:
    shape = BudgetSettings(wall_s=100, reserve_s=10, floor_s=10, ceiling_s=30, questions=6)
    folders = [record(tmp_path / "b", six(), budget=shape), record(tmp_path / "a", six())]
    charts = data(write_report(folders, out=tmp_path / "r.html").read_text())["charts"]
    (time,) = [chart for chart in charts if chart["key"].startswith("time")]
    assert (time["key"], time["link"], time["ids"][:2]) == ("time-1", "problem", ["sure", "wrong"])


def test_no_run_has_a_colour_of_right_or_wrong_and_both_pages_of_colours_agree() -> None:
    css = (Path(html.__file__).parent / "report.css").read_text()
    for mode in css.split("--page:")[1:4]:  # light, dark by the system, dark by the switch
        named = dict(re.findall(r"--([a-z]+|run-\d): (#\w+)", mode.split("color-scheme:")[0]))
        runs = [named[f"run-{run}"] for run in range(len(RUN_COLOURS))]
        assert not {*runs} & {named[name] for name in ("right", "wrong", "outvoted", "none", "accent")}
        assert len({*runs}) == len(runs)
    assert [*RUN_COLOURS] == re.findall(r"--run-\d: (#\w+)", css)[: len(RUN_COLOURS)]


def test_runs_of_other_problems_under_the_same_ids_are_shown_and_not_compared(tmp_path: Path) -> None:
    other = Problem(id="a", statement="Another question.", gold="9")
    folders = [record(tmp_path / "a", [(problem("a"), answers("9"))]), record(tmp_path / "b", [(other, answers("9"))])]
    page = write_report(folders, out=tmp_path / "r.html").read_text()
    assert "not compared" in page
    assert "equal ids must be equal problems" in page


def test_gates_are_told_of_the_model_that_was_evaluated(tmp_path: Path) -> None:
    model = tmp_path / "export"
    write_json(model / "survival.json", {"breaches": ["KL must be small, got 2"], "accept_refused": ""})
    write_json(model / "manifest.json", {"outputs": {"w": "1"}})
    folder = record(tmp_path / "run", six())
    told = json.loads((folder / "results.json").read_text())
    write_json(folder / "results.json", {**told, "model": str(model)})
    outputs = sha256_tree(folder)
    for sha, shown in (("1", True), ("2", False)):
        write_json(folder / "manifest.json", {"status": "done", "inputs": {"model": {"w": sha}}, "outputs": outputs})
        page = write_report([folder], out=tmp_path / "r.html").read_text()
        assert ("run: a gate is broken: KL must be small, got 2" in page) == shown


def test_a_run_that_was_killed_is_shown_as_far_as_it_came(run_folder: Path) -> None:
    (run_folder / "results.json").unlink()
    lines = (run_folder / "samples.jsonl").read_text().splitlines(keepends=True)
    (run_folder / "samples.jsonl").write_text("".join(lines[:6]))
    page = write_report([run_folder], out=run_folder / "report.html").read_text()
    assert "base (unfinished)" in page
    assert [entry["runs"][0]["n"] for entry in data(page)["problems"]] == [4, 2, 0, 0, 0, 0]


ODD_RUNS: dict[str, list[tuple[Problem, Sequence[dict[str, Any]]]]] = {
    "one": [(problem("a"), answers("9"))],
    "no subsets": [(problem("a", subset=""), answers("9", "8")), (problem("b", subset=""), answers(None, None))],
    "uneven": [(problem("a"), answers("9", "8", "9")), (problem("b"), answers("9"))],
    "no time at all": [(problem("a"), []), (problem("b"), [])],
    "odd names": [
        (problem("a", subset=r"$\frac{"), answers("9")),
        (problem("b", subset="二次/" + "x" * 300), answers("9")),
    ],
}


@pytest.mark.usefixtures("in_full")
@pytest.mark.parametrize("name", sample("no time at all", "odd names", slow=["one", "no subsets", "uneven"]))
def test_any_run_can_be_shown(tmp_path: Path, name: str) -> None:
    drawn = ODD_RUNS[name]
    folder = record(tmp_path / "$x_{", drawn)
    page = write_report([folder], out=folder / "report.html").read_text()
    assert [len(traces) for traces in blocks(page)] == [len(samples) for _, samples in drawn]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none"], "a run that is reported must be a folder, got none"),
        (["empty"], "has problems.jsonl and samples.jsonl"),
        ([], "a report is of one run or more, got none.\n  Fix: name the runs' folders\n"),
        (["base", "base"], "a report is of different runs, got base, base"),
    ],
)
def test_what_is_no_run_is_refused(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str, evaluate: CommandLine
) -> None:
    monkeypatch.chdir(run_folder.parent)
    Path("empty").mkdir()
    assert message in evaluate("report", *words, "--out", "r.html").refusal
    assert not Path("r.html").exists()


@pytest.mark.usefixtures("in_full")
def test_a_training_run_shows_curve_losses_and_drops(tmp_path: Path) -> None:
    page = write_report([train_run(tmp_path / "t")], out=tmp_path / "t" / "report.html").read_text()
    told = data(page)
    assert [chart["key"] for chart in told["charts"]] == ["loss", "rate", "layers"]
    losses, marks = told["charts"][0]["series"]
    assert (losses["y"], marks["y"], marks["marks"]) == ([None, 2.0, 1.0], [0.5, None, 0.25], True)
    assert told["charts"][2]["x"] == ["0.q_proj", "1.q_proj", "2.q_proj"]
    assert blocks(page)[0][0][8] == len("Q?<think>")
    for words in ("two boxes with different answers", "left out: two boxes", "2.8e-09", "99.5% of 200", "1e-03"):
        assert words in page
    for words in ("general: pocket-easy", "-0.250 [-0.300, -0.200]", "+10.0 [+5.0, +15.0]", "taken, better",
                  "llama.cpp", "+0.5 [-1.0, +2.0]", "left to model.layers.0.q_proj: 90.0%"):  # fmt: skip
        assert words in page
    for name in ("loss", "layers"):
        assert (tmp_path / "t" / "plots" / f"{name}.png").is_file()


@pytest.mark.usefixtures("in_full")
def test_a_training_whose_loss_is_no_number_can_be_shown(tmp_path: Path) -> None:
    folder = train_run(tmp_path / "t", losses=(2.0, float("nan"), float("inf")))
    page = write_report([folder], out=folder / "report.html")
    assert data(page.read_text())["charts"][0]["series"][0]["y"] == [None, 2.0, None, None]


def test_allowances_are_those_of_the_budget(tmp_path: Path) -> None:
    shape = BudgetSettings(wall_s=100, reserve_s=10, floor_s=10, ceiling_s=30, questions=6)
    folder = record(tmp_path / "b", six(), budget=shape)
    spent = [30.0, 20.0, 5.0, 9.0, 1.0, 2.0]
    told = json.loads((folder / "results.json").read_text())
    for row, seconds in zip(told["per_problem"], spent, strict=True):
        row["seconds"] = seconds
    write_json(folder / "results.json", told)
    clock = VirtualClock()
    budget, given = Budget(shape, clock=clock), []
    for seconds in spent:
        given.append(budget.next_question_s())
        clock.advance_to(clock.now() + seconds)
    assert EvalRun.read(folder).allowances_s == pytest.approx(given)
