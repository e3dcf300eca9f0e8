"""Tables and progress on a terminal of 80 columns: no cell is cut, no word is broken, and what is left out is said."""

import ast
import json
import re
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.table import Table
from rich.text import Text

from eval.losses import losses_table
from mathlete.answers.check import Case, Judgement, Report
from mathlete.command.log_lines import Reached, describe
from mathlete.command.screen import Screen, StackedProgress, list_columns
from mathlete.competitions import compare_rules, competition
from mathlete.export.lab.figures import LabFigures, SchemeCost
from mathlete.export.lab.views import build_lab_table
from mathlete.export.records import Hop
from mathlete.metrics import Interval
from mathlete.models.hardware import GPUS
from mathlete.models.shapes import SHAPES
from mathlete.replay import Replay
from mathlete.replay.selection import Candidate, CandidateChoice
from mathlete.report.hops import survival_table
from mathlete.report.losses import read_losses
from mathlete.runs import Step
from mathlete.scoring import Results
from mathlete.scoring.comparison import ModelScores, TuningResult
from mathlete.scoring.pairing import Comparison, Paired
from mathlete.shipped import data_folder
from mathlete.tables import show_wide
from mathlete.tune import Recipe
from mathlete.tune.fitting import make_plan
from submit.matrix import draw_faults
from submit.pushing import ledger_table
from submit.rules import draw_table
from tests.conftest import GOLDEN
from train.lines import describe_settings, describe_step
from train.presets import POCKET, with_method
from train.show import _counts, _histogram, _table

BY = Interval(value=-0.1234, lo=-0.2345, hi=-0.0123)
SIDE = ModelScores(
    pass_at_1=0.678, pass_at_1_se=0.02, maj_at_8=Interval(value=0.708, lo=0.661, hi=0.75), easy_pass_at_1=0.971,
    tokens_per_s=13913.0, seconds=36101.0, run="runs/a-folder-with-a-name-that-is-longer-than-half-a-line/base",
)  # fmt: skip


def replayed() -> Replay:
    """A replay with the longest names and figures that a policy has."""
    content: dict[str, Any] = json.loads((GOLDEN / "replay.json").read_text())
    first = content["policies"][0]
    change = {"value": -19.51, "lo": -23.55, "hi": -15.32}
    clock = {"budget_s": 18000.0, "floor_s": 31.25, "ceiling_s": 93.75}
    long = {
        **first,
        "n": 64,
        "stop": "beta95+exact",
        "submission_s": 17846.9,
        "change": change,
        "max_tokens": 8192,
        **clock,
    }
    votes = [{**first, "n": n, "vote": "strength", "max_tokens": 9999, "change": change} for n in (4, 8, 16)]
    return Replay.from_json(
        {
            **content,
            "policies": [first, long, {**long, "p_overrun": 1.0}, *votes],
            "recording": "runs/budget",
            "longest": 9999,
        }
    )


def judged() -> Report:
    cases = [Case(id="a", kind="equiv", gold="1", given="1", expected=True, source="a-source-of-other-peoples-cases")]
    verdicts = [Judgement(id="a", expected=True, outcome="equal", reason="", answer="1", ms=1.5)]
    return Report(cases=cases, ours=verdicts, peer="math-verify", theirs=verdicts)


def hops() -> list[Hop]:
    row = {"engine": "transformers", "kl": 1e-5, "top1": 1.0, "problems": 200, "answered": 200, "unchanged": 1.0}
    more = {"right": 150, "change": [-0.075, -0.225, 0.075], "bytes": 15 * 2**30, "seconds": 3600.2}
    return [Hop.from_json({"hop": name, **row, **more}) for name in ("base", "trained", "merged", "int8")]


def select() -> CandidateChoice:
    one = Candidate(
        name="n=64 · beta95+exact · 18000 s 31.25–93.75", score=33.3, public=33.1, expected_maximum=35.2, selected=0.5
    )
    return CandidateChoice(select=5, by_replay=33.3, by_public=32.1, hindsight=34.0, candidates=[one], known=[])


def compared() -> Comparison:
    score = Paired(score="maj@64", a=0.678, b=0.781, difference=BY, p=0.0001, better="B", more_problems=0)
    return Comparison(problems=400, left_out=0, k=64, scores=[score], stopped_early=False)


def lost(runs: int) -> Table:
    recording = read_losses(data_folder() / "recordings" / "pocket", golds={})
    return losses_table([recording] * runs)


def ledger() -> Table:
    entry = {"id": "1a2b3c4d", "built": "2026-11-29 23:33", "rehearsal": "valid 33.5 of 50"}
    return ledger_table([{**entry, "predicted": "30.1–36.2", "version": "12", "score": "31, 33"}])


def rules() -> Table:
    one, other = (competition(name) for name in ("nemotron-like", "aimo-3"))
    return draw_table(compare_rules(one, other), (one.name, other.name))


def lab() -> Table:
    cost = SchemeCost(scheme="int4/group64/mse", bits=4.25, error=0.0123, kl=1.23e-3, top1=0.987, mib=7123.45)
    return build_lab_table(
        LabFigures(model="owner/a-model-of-the-hub", tokens=12345, layers=196, weights=9, schemes=(cost,))
    )


def pairs() -> Table:
    table = _table("problems of suites, left out", "row", "", "suite's problem")
    table.add_row(
        "near 0.91 · row-1\n" + "How many words fit into a cell of the terminal? " * 5, "", "aimo_val · x\nThe same"
    )
    return table


TABLES: dict[str, Callable[[], Table | None]] = {
    "mathlete.replay.replaying.to_table": lambda: replayed().to_table(),
    "mathlete.replay.replaying.to_votes_table": lambda: replayed().to_votes_table(),
    "mathlete.replay.selection.to_table": lambda: select().to_table(),
    "mathlete.report.hops.survival_table": lambda: survival_table(hops(), tokens=123456),
    "mathlete.scoring.pairing.to_table": lambda: compared().to_table(),
    "mathlete.scoring.results.to_table": lambda: Results.read(data_folder() / "recordings" / "pocket").to_table(),
    "mathlete.scoring.comparison.to_table": lambda: TuningResult(
        base=SIDE, tuned=SIDE, difference=BY, kl_merged=1e-5, kl_int8=None, seconds=9.0, train_run="runs/t"
    ).to_table(),
    "mathlete.answers.check.table": lambda: judged().table(),
    "mathlete.export.lab.views.build_lab_table": lab,
    "mathlete.tune.plan.table": lambda: make_plan(
        SHAPES["r1-qwen-7b"], device=GPUS["t4"], recipe=Recipe(), longest=8192
    ).table(),
    "eval.losses.losses_table": lambda: lost(3),
    "train.show._table": pairs,
    "submit.pushing.ledger_table": ledger,
    "submit.rules.draw_table": rules,
    "submit.matrix.draw_faults": lambda: draw_faults(version=None),
}
MORE: dict[str, Callable[[], Table | None]] = {
    "one run's losses": lambda: lost(1),
    "lengths": lambda: _histogram("tokens of a row", np.array([12, 900, 8191, 8191])),
    "sources": lambda: _counts("source", {"a-source-of-other-peoples-problems": 8191, "b": 2}),
}


def render(shown: object, *, width: int = 80) -> str:
    out = Screen(file=StringIO(), width=width, force_terminal=True, color_system=None, markup=False, emoji=False)
    out.print(shown)
    assert isinstance(out.file, StringIO)
    return out.file.getvalue()


def words_of(table: Table) -> set[str]:
    """The words of all cells, of the heads and of the title."""
    cells = [str(cell) for column in table.columns for cell in (column.header, *column.cells)]
    return {word for text in (*cells, str(table.title or ""), str(table.caption or "")) for word in text.split()}


@pytest.mark.parametrize("name", [*TABLES, *MORE])
def test_a_table_fits_80_columns_with_every_word_whole(name: str) -> None:
    table = {**TABLES, **MORE}[name]()
    assert table is not None
    text = render(table)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    note = re.search(r"(\d+) more columns? with --wide", text)
    known = words_of(table) | set((note[0] if note else "").split())
    broken = [word for word in text.split() if word not in known and not re.fullmatch(r"[─━]+", word)]
    assert not broken
    shown = len(table.columns) - (int(note[1]) if note else 0)
    figures = {cell for column in table.columns[:shown] for cell in column.cells if column.no_wrap}
    assert all(str(cell) in text for cell in figures)


def test_wide_shows_every_column_in_one_line_a_row() -> None:
    show_wide(True)
    try:
        text = render(replayed().to_table())
    finally:
        show_wide(False)
    head = next(line for line in text.splitlines() if line.split()[:1] == ["policy"])
    assert all(name in head for name in ("score", "change [95%]", "verdict", "new set", "saved", "all runs"))
    assert "--wide" not in text


def test_every_table_of_the_code_is_tried(root: Path) -> None:
    """No table is made but here and with FittingTable, and each function that makes one is in the list."""
    made = set()
    for path in [*(root / "src").rglob("*.py"), *(root / "eval").rglob("*.py")]:
        relative = path.relative_to(root / "src") if path.is_relative_to(root / "src") else path.relative_to(root)
        module = ".".join(relative.with_suffix("").parts)
        written = path.read_text(encoding="utf-8")
        for function in ast.walk(ast.parse(written)) if "Table(" in written else ():
            if not isinstance(function, ast.FunctionDef) or module == "mathlete.tables":
                continue
            calls = {
                call.func.id
                for call in ast.walk(function)
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
            }
            assert "Table" not in calls, f"{module}.{function.name} makes a table that rich cuts: use FittingTable"
            made |= {f"{module}.{function.name}"} if "FittingTable" in calls else set()
    assert made == {*TABLES}


@pytest.mark.parametrize(
    "words",
    [
        "loss 0.0174 · 112.1 s/step · 12,406 tokens/s · 139.4 GiB",
        "the trained model: 199 of 240 answers",
        "trying the gates: a random adapter",
        "right 12 of 50, 3 fallback",
        "right 67.8%",
    ],
)
def test_a_progress_line_fits_80_columns(words: str) -> None:
    line = describe("export-w8a16", Reached(words=words, done=1234, total=12800), seconds=7325)
    assert len(line) <= 120
    out = Screen(file=StringIO(), width=80, force_terminal=True, color_system=None)
    bar = StackedProgress(*list_columns("export-w8a16"), console=out)
    bar.add_task(words, total=12800, completed=1234)
    text = render(bar.get_renderable())
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert set(words.split()) | {"export-w8a16", "ETA", "-:--:--"} <= set(text.split())


def test_the_lines_of_a_training_say_it_as_people_do() -> None:
    figures = (
        {
            "traces": 1200, "kept": 1200, "rows": 1160, "heldout": 40, "shortened": 0, "tokens": 136354, "drops": {},
            "trained_tokens": 103853, "longest": 258, "packing": {"budget": 512, "sequences": 270, "efficiency": 0.98},
            "parity": {"rows": 1200, "mismatches": 0}, "sources": {"pocket": 1200}, "ended_by": "", "commits": {},
            "suites": [], "bad_rows": {"rows": 0, "first": []},
        }
    )  # fmt: skip

    step = Step(folder=Path("run/data"), record={"step": "format"}, manifest={"seconds": 5.216, "figures": figures})
    assert describe_step(step) == (
        "format 1,200 traces, none left out → 1,160 to train on, 40 held out · longest 258 of 512 tokens · 5 s"
    )
    usual = with_method(POCKET, "lora")
    data, how = describe_settings(usual, usual)
    assert (
        data == "pocket · 9,800 problems · rows of at most 512 tokens · a tenth of the problems held out, at most 200"
    )
    assert how.startswith("qlora r16 α32 · 1 epoch × 32 rows · lr 2e-3 · seed 0 · merged into the 4-bit base · int8")
    _, how = describe_settings(usual, usual, stored="int8")
    assert how.startswith("lora r16 α32 · 1 epoch × 32 rows · lr 2e-3 · seed 0 · merged into the 8-bit base · int8")
    tune = replace(usual.recipe.tune, steps=30, clip=0.5)
    changed = replace(usual, recipe=replace(usual.recipe, tune=tune))
    _, how, others = describe_settings(changed, usual)
    assert "[bold]30 steps × 32 rows[/]" in how
    assert others == "[bold]tune.clip 0.5[/]"
    assert all("(" not in line for line in (data, how, others))
    assert render(Text.from_markup(how)).startswith("qlora r16 α32 · 30 steps × 32 rows · lr 2e-3")
    corpus = replace(usual.data.corpus, source=("runs/[x]/a.jsonl",))
    first, *_ = describe_settings(replace(usual, data=replace(usual.data, corpus=corpus)), usual)
    assert render(Text.from_markup(first)).startswith("runs/[x]/a.jsonl · 9,800 problems")


def test_a_terminal_that_is_too_narrow_for_figures_has_a_cell_a_line() -> None:
    table = replayed().to_table()
    text = render(table, width=44)
    assert max(map(len, text.splitlines())) <= 44
    assert "   change [95%]  -19.51 [-23.55, -15.32]" in text
    assert "questions" in text.splitlines()[0]
    assert "more columns with --wide" in text
