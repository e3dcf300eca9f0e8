"""The report: what it holds, that nothing in it comes alive, and how it behaves in a real browser."""

import json
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mathlete.problems import Problem
from mathlete.report import write_report
from mathlete.runs import write_json
from mathlete.scoring import EvalRun
from mathlete.solve.budget import Budget, BudgetSettings
from mathlete.solve.clock import VirtualClock
from tests.conftest import CommandLine, sample
from tests.recorded import EVIL, TOOL, answers, blocks, data, list_shown, problem, record, six, train_run

pytestmark = pytest.mark.usefixtures("lean")


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    return record(tmp_path / "base", six())


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
    keys = ["accuracy", "losses", "subsets", "trust", "votes", "tokens", "time"]
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
    assert "base (A) and tuned (B) on 6 problems: pass@1" in page
    assert (tmp_path / "plots" / "votes-2.png").is_file()
    assert not (run_folder / "report.html").exists()


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
        (["empty"], "needs problems.jsonl and samples.jsonl"),
        ([], "a report is of different runs, got no run"),
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
    assert told["charts"][0]["series"][0]["y"] == [2.0, 1.0]
    assert blocks(page)[0][0][8] == len("Q?<think>")
    for words in ("two boxes with different answers", "left out: two boxes", "2.8e-09", "99.5% of 200", "1e-03"):
        assert words in page
    for words in ("general: pocket-easy", "-0.250 [-0.300, -0.200]", "+10.0 [+5.0, +15.0]", "taken, better",
                  "llama.cpp", "+0.5 [-1.0, +2.0]", "left to q_proj.0: 90.0%"):  # fmt: skip
        assert words in page
    for name in ("loss", "layers"):
        assert (tmp_path / "t" / "plots" / f"{name}.png").is_file()


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


# ---- in a browser ----


def test_filters_order_and_search_work(run_folder: Path, open_report: Callable[..., Any]) -> None:
    page = open_report(write_report([run_folder], out=run_folder / "report.html"))
    for name, ids in (
        ("wrong", ["wrong", "outvoted", "silent"]),
        ("outvoted", ["outvoted"]),
        ("close", ["close"]),
        ("fallback", ["silent"]),
        ("cut", ["capped"]),
        ("all", ["sure", "wrong", "outvoted", "close", "silent", "capped"]),
    ):
        page.click(f'#filters [data-filter="{name}"]')
        assert list_shown(page, count=len(ids)) == ids
    page.select_option("#sort", "longest")
    page.wait_for_selector('#list > button:first-child[data-id="capped"]')
    page.fill("#search", "no box")
    assert list_shown(page, count=1) == ["silent"]
    assert "no box" in page.text_content('#list [data-id="silent"]')
    assert page.get_attribute("#chart-losses", "aria-label").startswith("Why problems were lost. Share of all problems")
    page.fill("#search", "needle")
    assert list_shown(page, count=0) == []
    page.check("#deep")
    assert list_shown(page, count=1) == ["silent"]
    page.click('#list [data-id="silent"]')
    assert page.text_content("#detail .trace mark") == "needle"


def test_the_reader_renders_maths_marks_the_box_and_folds_tools(
    run_folder: Path, open_report: Callable[..., Any]
) -> None:
    page = open_report(write_report([run_folder], out=run_folder / "report.html"))
    assert page.locator("#detail .statement .katex").count() == 1
    assert page.locator("#detail .trace .katex").count() == 2
    assert page.locator("#detail .trace .box .katex").count() == 1
    folds = page.locator("#detail .trace details.tool")
    assert folds.evaluate_all("all => all.map(one => [one.open, one.querySelector('summary').textContent])") == [
        [False, "Python run, 1 line"],
        [False, "its output, 1 line"],
    ]
    folds.first.locator("summary").click()
    assert folds.first.locator("pre").is_visible()
    page.click('#list [data-id="outvoted"]')
    page.click("#detail .samples button:nth-child(4)")
    assert "sample 3: answer 9, right" in page.text_content("#detail")
    assert page.locator("#detail .votes .won").count() == 1


def test_another_run_is_read_at_the_same_problem(
    run_folder: Path, tmp_path: Path, open_report: Callable[..., Any]
) -> None:
    other = record(tmp_path / "tuned", [(one, answers("9", "9", "9", "9")) for one, _ in six()])
    page = open_report(write_report([run_folder, other], out=tmp_path / "report.html"))
    page.click('#list [data-id="wrong"]')
    page.wait_for_selector("#detail:has-text('voted: 7 (wrong)')")
    page.select_option("#run", "1")
    page.wait_for_selector("#detail:has-text('voted: 9 (right)')")
    assert page.locator("#list [aria-current]").get_attribute("data-id") == "wrong"
    page.click('#filters [data-filter="gained"]')
    assert list_shown(page, count=3) == ["wrong", "outvoted", "silent"]
    assert page.locator('#list [data-id="wrong"] .bar').count() == 2


def test_the_span_with_loss_is_marked(tmp_path: Path, open_report: Callable[..., Any]) -> None:
    page = open_report(write_report([train_run(tmp_path / "t")], out=tmp_path / "t" / "report.html"))
    text = page.text_content("#detail .trace .loss")
    assert text.startswith("loss from hereso")
    assert "Q?" not in text


def test_nothing_of_a_model_comes_alive(tmp_path: Path, open_report: Callable[..., Any]) -> None:
    evil = Problem(id=EVIL, statement=EVIL, gold=EVIL, subset=EVIL)
    math = r"$\href{javascript:alive=4}{x}$ $\includegraphics{https://example.org/x.png}$ $\htmlStyle{color:red}{y}$"
    samples = [
        {
            "answer": EVIL,
            "text": EVIL + math + f"\n```python\n{EVIL}\n```\n" + "\ud800".encode("utf-8", "replace").decode(),
        }
    ]
    folder = record(tmp_path / "evil", [(evil, samples), (problem("tame"), answers("9"))])
    page = open_report(write_report([folder, train_run(tmp_path / "t")], out=tmp_path / "report.html"))
    assert page.evaluate("window.alive") is None
    assert page.locator("#reader img, #reader b > b, #facts img, #reader a, #reader script").count() == 0
    assert "<img src=x onerror=" in page.text_content("#detail .trace")
    assert "<img src=x onerror=" in page.text_content("#detail h3")
    page.select_option("#run", "1")
    page.click("#list button:has-text('left out')")
    page.wait_for_selector("#detail .trace:has-text('onerror')")
    assert page.evaluate("window.alive") is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_follow_the_system_and_the_switch(
    run_folder: Path, open_report: Callable[..., Any], scheme: str
) -> None:
    page = open_report(write_report([run_folder], out=run_folder / "report.html"), scheme=scheme)
    colour = "getComputedStyle(document.body).backgroundColor"
    shades = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}
    assert page.evaluate(colour) == shades[scheme]
    page.click("#theme")
    assert page.evaluate(colour) == shades["dark" if scheme == "light" else "light"]


def test_a_phone_needs_no_sideways_scrolling(run_folder: Path, open_report: Callable[..., Any]) -> None:
    page = open_report(write_report([run_folder], out=run_folder / "report.html"), width=360)
    assert page.evaluate("[document.documentElement.scrollWidth, scrollY]") == [360, 0]
    assert page.locator("canvas").evaluate_all("all => all.every(one => one.width > 200 && one.height > 100)")


@pytest.mark.slow
def test_a_thousand_problems_load_in_three_seconds_from_twenty_megabytes(
    tmp_path: Path, open_report: Callable[..., Any]
) -> None:
    draw = random.Random(0)
    words = ["".join(draw.choices("etaoinshrdlu", k=draw.randint(2, 9))) for _ in range(3000)]
    lines = [" ".join(draw.choices(words, k=12)) for _ in range(5000)]

    def sample() -> dict[str, Any]:
        answer = draw.choice(["9", "9", "7", "8", None])
        said = [f"{line} $x_{draw.randint(0, 9)} = {draw.random():.4f}$." for line in draw.choices(lines, k=60)]
        text = "\n".join([*said, "</think>", "" if answer is None else f"\\boxed{{{answer}}}"])
        return {"answer": answer, "text": text, "tokens": draw.randint(500, 8000), "seconds": draw.uniform(5, 90)}

    asked = [problem(f"p{number}", subset=f"level {number % 5}") for number in range(1000)]
    folder = record(tmp_path / "big", [(one, [sample() for _ in range(32)]) for one in asked])
    file = write_report([folder], out=folder / "report.html")
    assert file.stat().st_size <= 20_000_000
    tried = []
    for _ in range(3):
        started = time.monotonic()
        page = open_report(file)
        tried.append(time.monotonic() - started)
    seconds = min(tried)  # a busy machine is no fault of the page
    assert list_shown(page, count="1,000")[:2] == ["p0", "p1"]
    assert page.locator("#list > button").count() == 101
    page.click('#list [data-id="p7"]')
    page.wait_for_selector("#detail h3:text-is('p7')")
    assert page.locator("#detail .samples button").count() == 32
    assert seconds <= 3, f"{file.stat().st_size} bytes in {seconds:.2f} s"
