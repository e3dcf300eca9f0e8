"""Why samples and problems were lost: every class exactly, counts that add up, journals, and what the command shows."""

import json
import time
from collections import Counter
from collections.abc import Generator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.competitions import competition
from mathlete.kernel import JournalLine, KernelConfig, read_journal
from mathlete.kernel.answering import Answerer
from mathlete.kernel.config import NotebookClock
from mathlete.losses import CAUSES, Cause, Losses, ProblemLosses, find_cause
from mathlete.problems import Problem, write_problems
from mathlete.report import read_losses
from mathlete.sampling import Sample
from mathlete.sampling.harvest import Finish
from mathlete.sampling.record import SampleLog
from mathlete.sampling.samples import Sampler, SamplingConfig
from mathlete.scoring import EvalRun, Results, RunFacts, RunSettings, grade
from mathlete.solve import BudgetSettings, Ended, Policy, RealClock, Solution, solve
from tests.conftest import CHARACTERS, CommandLine

AIMO3 = competition("aimo-3")


def draw(index: int, answer: str | None, finish: Finish = "stop", text: str = "") -> Sample:
    return Sample(
        problem_id="a", index=index, seed=index, text=text, answer=answer, tokens=9, finish=finish, seconds=1.0
    )


def solved(gold: str, samples: list[Sample], *, ended: Ended = "all", answer: str | None = None) -> Any:
    """The graded problem whose vote these samples are; `answer` is what the model's own judgement took instead."""
    votes = Policy().count_votes(samples)
    voted = votes[0].answer if votes else None
    solution = Solution(problem_id="a", answer=answer or voted, votes=votes, samples=samples, seconds=1.0, ended=ended)
    return grade([Problem(id="a", statement="?", gold=gold)], [solution])[0]


def of(answers: list[str | None], finish: Finish = "stop") -> list[Sample]:
    return [draw(index, answer, finish) for index, answer in enumerate(answers)]


UNREADABLE = "(("
CLASSES: list[tuple[str, str, list[Sample], dict[str, Any], Cause, dict[Cause, int]]] = [
    ("all right", "7", of(["7", "7.0", "007"]), {}, "won", {"won": 3}),
    ("won beside wrong ones", "7", of(["7", "7", "8"]), {}, "won", {"won": 2, "no_right_answer": 1}),
    ("outvoted", "7", of(["8", "8", "7"]), {}, "outvoted", {"outvoted": 1, "no_right_answer": 2}),
    ("wrong", "7", of(["8", "9"]), {}, "no_right_answer", {"no_right_answer": 2}),
    ("no integer where the gold is one", "7", of(["1/2", "x+1"]), {}, "no_integer", {"no_integer": 2}),
    ("a fraction where the gold is one", "1/3", of(["1/2"]), {}, "no_right_answer", {"no_right_answer": 1}),
    ("without a competition there is no range", "7", of(["100000"]), {}, "no_right_answer", {"no_right_answer": 1}),
    ("out of range", "7", of(["100000", "-1"]), {"rules": AIMO3}, "out_of_range", {"out_of_range": 2}),
    ("a competition asks for integers whatever the gold", "1/3", of(["1/2"]), {"rules": AIMO3}, "no_integer",
     {"no_integer": 1}),
    ("reduced by the modulus", "7", of(["1008"]), {"rules": competition("aimo-1")}, "no_right_answer",
     {"no_right_answer": 1}),
    ("no box", "7", of([None, None]), {}, "no_box", {"no_box": 2}),
    ("a box that closed on nothing", "7", of([None], "boxed"), {}, "no_box", {"no_box": 1}),
    ("cut at the cap", "7", of([None, None], "length"), {}, "cut_at_cap", {"cut_at_cap": 2}),
    ("cut at the cap with an answer", "7", of(["8"], "length"), {}, "no_right_answer", {"no_right_answer": 1}),
    ("right though cut at the cap", "7", of(["7"], "length"), {}, "won", {"won": 1}),
    ("cancelled", "7", of([None], "cancelled"), {}, "cut_by_clock", {"cut_by_clock": 1}),
    ("never drawn: the time was over", "7", [], {"n": 4, "ended": "time"}, "cut_by_clock", {"cut_by_clock": 4}),
    ("never drawn: a shared clock asked for fewer", "7", of(["8"]), {"n": 4}, "cut_by_clock",
     {"no_right_answer": 1, "cut_by_clock": 3}),
    ("a rule that stopped needs no more", "7", of(["8", "8"]), {"n": 4, "ended": "rule"}, "no_right_answer",
     {"no_right_answer": 2}),
    ("a run that broke off", "7", of(["8"]), {"n": None}, "no_right_answer", {"no_right_answer": 1}),
    ("nothing at all", "7", [], {"n": None}, "unknown", {}),
    ("the checker cannot say", "x^2", of([UNREADABLE]), {}, "unknown", {"unknown": 1}),
    ("of most samples", "7", [*of(["8", "9"]), *(draw(index, None, "length") for index in (2, 3, 4))], {},
     "cut_at_cap", {"no_right_answer": 2, "cut_at_cap": 3}),
    ("of equally many, what is mended soonest", "7", [*of(["8", "9"]), draw(2, None), draw(3, None)], {}, "no_box",
     {"no_right_answer": 2, "no_box": 2}),
    ("judged right against the vote", "7", of(["8", "8", "7"]), {"answer": "7"}, "won",
     {"won": 1, "no_right_answer": 2}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("what", "gold", "samples", "how", "cause", "causes"), CLASSES, ids=[row[0] for row in CLASSES]
)
def test_each_class(
    what: str, gold: str, samples: list[Sample], how: dict[str, Any], cause: Cause, causes: dict[Cause, int]
) -> None:
    item = solved(gold, samples, ended=how.get("ended", "all"), answer=how.get("answer"))
    lost = item.find_losses(n=how.get("n", len(samples)), rules=how.get("rules"))
    assert (lost.cause, lost.samples) == (cause, causes)


def test_every_class_is_in_the_table_and_has_words() -> None:
    assert {row[4] for row in CLASSES} == {cause for row in CLASSES for cause in row[5]} == set(get_args(Cause))
    assert [*CAUSES] == [*get_args(Cause)]
    assert len({words.label for words in CAUSES.values()}) == len(CAUSES)
    assert all(bool(words.advice) == (cause != "won") for cause, words in CAUSES.items())


SAMPLES = st.lists(
    st.tuples(
        st.sampled_from(["7", "8", "1/2", "100000", "-3", UNREADABLE, None]),
        st.sampled_from(["stop", "boxed", "length", "cancelled"]),
    ),
    max_size=8,
)
DRAWN = st.lists(st.tuples(st.sampled_from(["7", "1/2", "x^2"]), SAMPLES, st.sampled_from(get_args(Ended))), max_size=6)


@given(drawn=DRAWN, extra=st.integers(0, 4), ranged=st.booleans())
def test_counts_add_up_and_agree_with_the_scores(drawn: Any, extra: int, ranged: bool) -> None:
    rules, rows, asked = AIMO3 if ranged else None, [], 0
    for gold, kinds, ended in drawn:
        samples = [draw(index, answer, finish) for index, (answer, finish) in enumerate(kinds)]
        item, n = solved(gold, samples, ended=ended), len(samples) + extra
        row = item.find_losses(n=n, rules=rules)
        rows.append(row)
        asked += len(samples) if ended == "rule" else n
        # Each sample is of one class, and the classes are those of the grades.
        causes: Counter[str] = Counter(row.samples)
        assert causes["won"] + causes["outvoted"] == item.right
        assert not (causes["won"] and causes["outvoted"])
        silent = sum(causes[cause] for cause in ("no_box", "cut_at_cap", "cut_by_clock"))
        assert silent == item.verdicts.count("none") + (0 if ended == "rule" else extra)
        assert causes["unknown"] <= item.verdicts.count("unknown")
        # The problem's class: won as graded; outvoted where a right sample lost; else one of its samples' classes.
        assert (row.cause == "won") == (item.verdict == "equal")
        assert (row.cause == "outvoted") == (item.verdict != "equal" and item.right > 0)
        assert row.cause in row.samples or (row.cause == "unknown" and not row.samples)
        if row.cause not in ("won", "outvoted"):
            assert not row.samples or row.samples[row.cause] == max(row.samples.values())
    losses = Losses.of(rows)
    assert sum(losses.problems.values()) == len(drawn)
    assert sum(losses.samples.values()) == asked
    assert Losses.from_json(json.loads(json.dumps(losses.to_json()))) == losses
    assert (losses.largest is None) == (losses.problems["won"] == len(drawn))


@given(answer=st.text(CHARACTERS, max_size=40), finish=st.sampled_from(get_args(Finish)))
def test_any_sample_is_of_one_class(answer: str, finish: Finish) -> None:
    for rules in (None, AIMO3):
        assert find_cause(draw(0, answer, finish), rules=rules) in (None, "no_integer", "out_of_range")
        assert find_cause(draw(0, None, finish), rules=rules) in ("no_box", "cut_at_cap", "cut_by_clock")


CLOCK = BudgetSettings.share_evenly(wall_s=100, questions=5)


def record(
    folder: Path,
    drawn: list[tuple[Problem, list[Sample]]],
    *,
    n: int,
    missing: tuple[str, ...] = (),
    budget: Any = CLOCK,
) -> Path:
    """A finished run of these samples under a shared clock."""
    folder.mkdir(parents=True)
    write_problems(folder / "problems.jsonl", [problem for problem, _ in drawn])
    with SampleLog(folder / "samples.jsonl") as log:
        for problem, samples in drawn:
            for sample in samples:
                log.append(replace(sample, problem_id=problem.id))
    settings = RunSettings(
        suite="five", suite_sha="5" * 64, problems=len(drawn), precision="dense", engine="transformers",
        policy=Policy(n=n, sampling=SamplingConfig(max_tokens=100)), budget=budget, tools=None, model_sha="m1",
    )  # fmt: skip
    facts = RunFacts(
        settings=settings, n=n, model="m", engine_facts={"missing": missing}, prompt_sha="p1", commit="c1", dirty=False,
        seconds=3.0, tokens_per_s=5.0, resumed_samples=0,
    )  # fmt: skip
    Results.of(EvalRun.read(folder).graded, facts).write(folder, began=0.0)
    return folder


def five() -> list[tuple[Problem, list[Sample]]]:
    def problem(name: str) -> Problem:
        return Problem(id=name, statement="What is 3 + 4?", gold="7")

    return [
        (problem("right"), of(["7", "7"])),
        (problem("outvoted"), of(["8", "8", "7"])),
        (problem("capped"), of([None, None, None], "length")),
        (problem("big"), of(["100000", "100000", "8"])),
        (problem("late"), []),
    ]


def test_results_say_it_for_the_run_and_for_each_problem(tmp_path: Path) -> None:
    folder = record(tmp_path / "run", five(), n=3)
    told = json.loads((folder / "results.json").read_text())
    assert told["losses"]["problems"]["cut_by_clock"] == 1
    assert told["losses"]["samples"]["cut_by_clock"] == 4
    assert {row["id"]: (row["cause"], row["causes"]) for row in told["per_problem"]} == {
        "right": ("won", {"won": 2, "cut_by_clock": 1}),
        "outvoted": ("outvoted", {"outvoted": 1, "no_right_answer": 2}),
        "capped": ("cut_at_cap", {"cut_at_cap": 3}),
        "big": ("no_right_answer", {"no_right_answer": 3}),
        "late": ("cut_by_clock", {"cut_by_clock": 3}),
    }
    run = EvalRun.read(folder)
    assert Results.read(folder) == run.results
    assert Losses.of(run.find_losses()) == run.losses


def test_a_file_that_does_not_say_it_is_counted_from_its_samples(tmp_path: Path) -> None:
    folder = record(tmp_path / "run", five(), n=3)
    said = EvalRun.read(folder).losses
    told = json.loads((folder / "results.json").read_text())
    del told["losses"]
    for row in told["per_problem"]:
        del row["cause"], row["causes"], row["ended"]
    (folder / "results.json").write_text(json.dumps(told))
    assert EvalRun.read(folder).losses == said
    assert Results.read(folder).losses is None


def test_a_log_is_not_charged_with_what_it_does_not_say(tmp_path: Path) -> None:
    """Another tool's log may be uneven without any clock, and need not say how a sample ended."""
    folder = record(tmp_path / "run", five(), n=3, missing=("finish",), budget=None)
    rows = {row.id: (row.cause, row.samples) for row in EvalRun.read(folder).find_losses()}
    assert rows["right"] == ("won", {"won": 2})
    assert rows["capped"] == ("unknown", {"unknown": 3})
    assert rows["late"] == ("unknown", {})


def test_runs_side_by_side_in_80_columns(
    tmp_path: Path, evaluate: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    runs = [record(tmp_path / f"{'x' * 90}{number}", five(), n=3) for number in range(4)]
    done = evaluate("losses", *runs, "--competition", "aimo-3", "--each", "--out", tmp_path / "lost.json")
    assert done.code == 0
    tables = [line for line in done.stdout.splitlines() if "out of range" in line and "(" not in line]
    assert [len(line.split()) for line in tables if "not right" not in line] == [3 + 6, 3 + 2]
    assert all(len(line) <= 80 for line in done.stdout.splitlines() if "─" in line or "problems" in line.split())
    heads = [line.split() for line in done.stdout.splitlines()]
    assert ["A", "B", "C"] in heads
    assert ["D"] in heads
    assert "big: out of range (1 no right answer, 2 out of range)" in done.stdout
    content = json.loads((tmp_path / "lost.json").read_text())
    assert [run["problems"]["out_of_range"] for run in content["runs"]] == [1] * 4
    assert all(sum(run["problems"].values()) == len(run["per_problem"]) == 5 for run in content["runs"])


def test_an_unfinished_run_counts_the_problems_that_were_begun(tmp_path: Path, evaluate: CommandLine) -> None:
    folder = record(tmp_path / "run", five(), n=3)
    (folder / "results.json").unlink()
    told = evaluate("losses", folder, "--json").result["runs"][0]
    assert sum(told["problems"].values()) == 4
    assert told["samples"]["cut_by_clock"] == 0
    assert "left out without samples: 1 problem" in told["notes"][0]


GOLDS = [Problem(id=name, statement="?", gold="7") for name in "abcdefgh"]
LINES: list[tuple[JournalLine, Cause, dict[Cause, int]]] = [
    (JournalLine(id="a", answer=7, fallback=False, why="", samples=3, answered=3, votes=(("7", 2), ("8", 1)),
                 sends=(7, 8), lost={}), "won", {"won": 2, "no_right_answer": 1}),
    (JournalLine(id="b", answer=8, fallback=False, why="", samples=4, answered=3, votes=(("1/2", 2), ("7", 1)),
                 sends=(None, 7), lost={"no_integer": 2, "cut_at_cap": 1}), "outvoted",
     {"outvoted": 1, "no_integer": 2, "cut_at_cap": 1}),
    (JournalLine(id="c", answer=0, fallback=True, why="the clock: no time is left", lost={"cut_by_clock": 8}),
     "cut_by_clock", {"cut_by_clock": 8}),
    (JournalLine(id="d", answer=0, fallback=True, why="EngineError: no such model", lost={"unknown": 8}), "unknown",
     {"unknown": 8}),
    (JournalLine(id="e", answer=3, fallback=False, why="", samples=3, answered=3, votes=(("3", 1),), sends=(3,),
                 lost={}), "unknown", {"no_right_answer": 1, "unknown": 2}),
    (JournalLine(id="no gold", answer=3, fallback=False, why="", samples=9, answered=3, votes=(("3", 3),), sends=(3,),
                 lost={"cut_at_cap": 6}), "unknown", {"cut_at_cap": 6, "unknown": 3}),
    # Lines of an earlier version: no `sends`, no `lost`.
    (JournalLine(id="f", answer=7, fallback=False, why="", samples=4, answered=3, votes=(("7", 2), ("1/2", 1))), "won",
     {"won": 2, "no_integer": 1, "unknown": 1}),
    (JournalLine(id="g", answer=0, fallback=True, why="only empty completions", samples=2, empty=2), "unknown",
     {"unknown": 2}),
]  # fmt: skip


def test_a_journal_gives_the_same_table(tmp_path: Path, evaluate: CommandLine) -> None:
    write_problems(tmp_path / "golds.jsonl", GOLDS)
    folder = tmp_path / "rehearsal-1" / "stage" / "notebook"
    folder.mkdir(parents=True)
    lines = [json.dumps(line.to_json()) for line, _, _ in LINES]
    (folder / "journal.jsonl").write_text("\n".join(lines) + "\n")
    log = [{"stream_name": "stderr", "time": 1.0, "data": f"{line}\n"} for line in ["loading", *lines]]
    (tmp_path / "kernel.log").write_text(json.dumps(log, indent=0))
    assert read_journal(tmp_path / "kernel.log") == [line for line, _, _ in LINES]
    (tmp_path / "plain.log").write_text("[INFO] loading\n" + "\n".join(lines) + "\n")
    assert read_journal(tmp_path / "plain.log") == [line for line, _, _ in LINES]
    (tmp_path / "cut.log").write_text((tmp_path / "kernel.log").read_text()[:-60])
    assert read_journal(tmp_path / "cut.log") == [line for line, _, _ in LINES[:-1]]
    words = [folder.parents[1], folder.parent, folder, folder / "journal.jsonl", tmp_path / "kernel.log"]
    told = evaluate("losses", *words, "--golds", tmp_path / "golds.jsonl", "--json").result["runs"]
    for run in told:
        assert [(row["cause"], row["causes"]) for row in run["per_problem"]] == [row[1:] for row in LINES]
        assert run["problems"] == {**dict.fromkeys(CAUSES, 0), **Counter(cause for _, cause, _ in LINES)}
        assert len(run["notes"]) == 2


class Scripted(Sampler):
    """An engine that gives these completions, and no more."""

    name = "scripted"

    def __init__(self, completions: list[tuple[str, Finish]]) -> None:
        self.completions = completions

    def start(self, *, timeout_s: float) -> None:
        pass

    def stream(self, problem: Problem, *, seeds: Mapping[int, int], config: SamplingConfig) -> Generator[Sample]:
        for index, (text, finish) in zip(seeds, self.completions, strict=False):
            yield draw(index, None, finish, text)

    def close(self) -> None:
        pass


COMPLETIONS = st.lists(
    st.tuples(
        st.sampled_from(
            [r"\boxed{7}", r"\boxed{7.0}", r"\boxed{8}", r"\boxed{1/2}", r"\boxed{100000}", r"\boxed{-1}", "", "hm ("]
        ),
        # Only an engine that is asked for it tells what the clock cut.
        st.sampled_from([finish for finish in get_args(Finish) if finish != "clock"]),
    ),
    max_size=6,
)


@given(completions=COMPLETIONS)
def test_the_notebook_counts_as_the_evaluation_does(
    completions: list[tuple[str, Finish]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The same completions in the notebook's journal, and in an evaluation under the same rules."""
    engine, problem, policy = Scripted(completions), Problem(id="a", statement="?", gold="7"), Policy(n=6)
    config = KernelConfig(
        policy=policy, clock=NotebookClock(wall_s=60, reserve_s=1, question_min_s=0, question_max_s=9), problems=2
    )
    journal = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    Answerer(config, engine=engine, started=time.time(), journal=journal).answer(problem_id="a", statement="?")
    row = read_losses(journal, golds={"a": "7"}).rows[0]
    solution = solve(problem, sampler=engine, clock=RealClock(), policy=policy)
    graded = grade([problem], [solution])[0].find_losses(n=6, rules=AIMO3)

    def unsigned(row: ProblemLosses) -> Counter[str]:
        # The notebook passes over answers out of range, so it may win what a plain vote loses.
        return Counter("right" if cause in ("won", "outvoted") else cause for cause in Counter(row.samples).elements())

    assert unsigned(row) == unsigned(graded)
    assert sum(row.samples.values()) == 6
    assert graded.cause == row.cause or (graded.cause, row.cause) == ("outvoted", "won")


def test_without_golds_nobody_says_what_was_right(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_text(json.dumps(LINES[0][0].to_json()) + "\n")
    run = read_losses(tmp_path, golds={})
    assert run.losses.problems["unknown"] == 1
    assert run.losses.describe().startswith('not known to be right: 1 of 1 problems, 1 of them "unknown"')


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "losses are those of a run, got no run"),
        (["empty"], "has problems.jsonl and samples.jsonl"),
        (["none.txt"], "a journal has a line a question, got none"),
    ],
)
def test_what_has_no_losses_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str, evaluate: CommandLine
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("none.txt").write_text("nothing\n")
    assert message in evaluate("losses", *words).refusal


def test_won_problems_lose_nothing() -> None:
    assert (
        Losses.of([ProblemLosses.of("a", won=True, samples={"won": 1})]).describe() == "not right: none of 1 problems"
    )
