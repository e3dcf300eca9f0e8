"""A competition is a file: the shipped ones, a made-up one, and files that are wrong."""

import importlib
import json
import re
import socket
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from datetime import date
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.competitions import (
    AdapterRules,
    Competition,
    GatewayRules,
    PromptRules,
    SamplingRules,
    ScorerRules,
    competition,
    competition_names,
)
from mathlete.competitions.files import read_competition
from mathlete.delivery import Ledger
from mathlete.errors import UserError
from mathlete.kernel import KernelConfig
from mathlete.kernel.server import answer_in_turn, make_predict
from mathlete.problems import Problem
from mathlete.rehearsal import choose_canaries
from mathlete.rehearsal.gateway.behaviours import PACKAGES
from mathlete.rehearsal.scorer import answers_in, score_file, score_runs
from mathlete.rehearsal.stand_in import choose_behaviour, write_stand_in
from mathlete.shipped import data_folder
from mathlete.submission.lint import lint_dataset, lint_kernel, lint_model
from tests.conftest import CommandLine

LEFT_OUT = {
    "scorer": {"wrong", "blank"},
    "prompt": {"system"},
    "sampling": {"top_k", "seed"},
    "adapter": {"targets", "dtypes", "max_mib"},
}
"""What no shipped competition says: tests/test_competition_files.py tries it."""
FILES = sorted((data_folder() / "competitions").glob("*.toml"))

CUP = """
slug = "some-cup-2027"
answer_min = 1
answer_max = 60
problems = 4
wall_s = 1800
columns = ["key", "text"]
submission_columns = ["key", "guess"]
predict_deadline_s = 600
runs = 3
points = [0, 0, 0.25, 1]
submissions_a_day = 2
machine = "NvidiaL4X1"

[gateway]
api = "inference-server"
module = "cup_7.cup_inference_server"
server = "CupInferenceServer"
package = "0.7.0"
"""
ITERATED = """
[gateway]
api = "iterator"
module = "cup_questions"
"""
"""Another gateway for it: the notebook iterates over the questions."""


@pytest.fixture
def cup(tmp_path: Path) -> Path:
    """A made-up competition's file."""
    file = tmp_path / "cup.toml"
    file.write_text(CUP)
    return file


def test_the_shipped_competitions() -> None:
    names = competition_names()
    assert names == ["aimo-1", "aimo-2", "aimo-3", "nemotron-like"]
    *rules, like = [competition(name) for name in names]
    assert [(one.answer_max, one.modulus) for one in rules] == [(999, 1000), (999, 1000), (99_999, None)]
    assert [one.released_before for one in rules] == [date(2024, 2, 23), None, date(2026, 3, 15)]
    assert [one.notebook.gateway.api for one in rules] == ["iterator", "inference-server", "inference-server"]
    assert (like.deliverable, like.answer_type, like.gateway, like.integers) == ("adapter", "text", None, None)


def test_every_key_of_the_rules_is_in_a_shipped_file() -> None:
    texts = [tomllib.loads(file.read_text()) for file in FILES]
    said = {key for text in texts for key in text}
    # What is left out: each competition's fallback is what follows from the rest, and none names licences.
    left_out = {"name", "fallback", "licences"}
    assert said == {field.name for field in fields(Competition)} - left_out
    tables = {"gateway": GatewayRules, "scorer": ScorerRules, "prompt": PromptRules}
    for name, kind in {**tables, "sampling": SamplingRules, "adapter": AdapterRules}.items():
        left_out = {field.name for field in fields(kind)} - {key for text in texts for key in text.get(name, ())}
        assert left_out == LEFT_OUT.get(name, set())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_value_has_its_source_beside_it(file: Path) -> None:
    lines = [line for line in file.read_text().splitlines() if re.match(r"[\w\[]", line)]
    assert lines
    tables = [f"[{name}]" for name in ("gateway", "scorer", "adapter")]
    assert [line for line in lines if not re.search(r"  # \S", line) and line not in tables] == []


@pytest.mark.parametrize("name", competition_names())
def test_rules_survive_json(name: str) -> None:
    rules = competition(name)
    assert Competition.from_json(json.loads(json.dumps(rules.to_json()))) == rules


def test_a_file_is_named_like_a_competition(cup: Path) -> None:
    rules = competition(str(cup))
    assert (rules.name, rules.slug, rules.columns, rules.runs) == ("cup", "some-cup-2027", ("key", "text"), 3)
    assert rules.modulus is None


def test_what_a_file_leaves_out_follows_from_what_it_says(cup: Path) -> None:
    rules = read_competition(cup)
    assert (rules.fallback, rules.reserve_s) == (1, 180.0)
    config = KernelConfig(competition=rules)
    assert (config.problems, config.clock.wall_s, config.clock.deadline_s, config.fallback) == (4, 1800.0, 600.0, 1)
    assert (config.clock.question_min_s, config.clock.question_max_s) == (375.0, 1125.0)
    config.check()
    less = CUP.replace('submission_columns = ["key", "guess"]', "").replace("points = [0, 0, 0.25, 1]", "runs = 2")
    cup.write_text(
        less.replace("runs = 3", "").replace("answer_max = 60", "answer_max = -7").replace("= 1\n", "= -9\n")
    )
    rules = read_competition(cup)
    assert (rules.submission_columns, rules.points, rules.fallback) == (("key", "answer"), (0.0, 0.5, 1.0), -7)


@given(
    low=st.integers(-1000, 1000),
    width=st.integers(0, 1000),
    wall_s=st.integers(1, 100_000),
    problems=st.integers(1, 200),
    runs=st.integers(1, 9),
)
def test_any_competition_of_integers_can_be_built(low: int, width: int, wall_s: int, problems: int, runs: int) -> None:
    said = {"answer_min": low, "answer_max": low + width, "wall_s": wall_s, "problems": problems, "runs": runs}
    base = {key: value for key, value in tomllib.loads(CUP).items() if key != "points"}
    rules = Competition.from_json({**base, "name": "any", **said})
    KernelConfig(competition=rules).check()
    assert rules.notebook.fallback in range(low, low + width + 1)
    assert rules.score(runs, runs=runs) == 1.0


def test_points_are_given_by_the_number_of_runs_that_were_right(cup: Path) -> None:
    rules = read_competition(cup)
    assert [rules.score(right, runs=3) for right in range(4)] == [0.0, 0.0, 0.25, 1.0]
    assert [rules.score(right, runs=1) for right in range(2)] == [0.0, 1.0]
    runs = [{"a": "1", "b": "2"}, {"a": "1", "b": "2"}, {"a": "9", "b": "2"}]
    assert score_runs(runs, golds={"a": "1", "b": "2"}, rules=rules) == 1.25


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("slug =", "slugg =", "known keys only, got slugg.\n  Fix: did you mean slug?"),
        ('slug = "some-cup-2027"', 'name = "cup"', "known keys only, got name"),
        ('slug = "some-cup-2027"', "", "must say slug, got nothing"),
        ('slug = "some-cup-2027"', 'slug = "Some Cup"', "slug must be of small letters, digits and hyphens"),
        ("problems = 4", 'problems = "4"', "problems must be an integer, got '4'"),
        ("problems = 4", "problems = 4.0", "problems must be an integer, got 4.0"),
        ("runs = 3", "runs = true", "runs must be an integer, got True"),
        ("runs = 3", "runs = 0", "runs must be 1 to 100, got 0"),
        ("runs = 3", "runs = 2", "points must be 3 numbers: of none to all of the runs right"),
        ("[0, 0, 0.25, 1]", "[0, 1, 0.25, 1]", "points must be from 0 to 1, ascending, got [0.0, 1.0, 0.25, 1.0]"),
        ("[0, 0, 0.25, 1]", '[0, 0, "half", 1]', "points must be a list of numbers"),
        ("answer_min = 1", "answer_min = 61", "answer_max must be at least answer_min, got 60"),
        ("answer_min = 1", "answer_min = 1\nmodulus = 1", "modulus must be above answer_min"),
        ("answer_min = 1", "answer_min = 1\nfallback = 0", "fallback must be 1 to 60, got 0.\n  Fix: leave it out"),
        ("wall_s = 1800", "wall_s = 1800\nreserve_s = 1800", "reserve_s must be 0 to less than wall_s, got 1800.0"),
        ("wall_s = 1800", "wall_s = 1800\nquestion_min_s = 500", "at most 405, an even share of wall_s less reserve_s"),
        ("wall_s = 1800", "wall_s = 9\nquestion_min_s = 2\nquestion_max_s = 1", "question_max_s must be above"),
        ("submissions_a_day = 2", "submissions_a_day = 0", "submissions_a_day must be at least 1"),
        ('["key", "text"]', '["key"]', "columns must be two names"),
        ('["key", "text"]', '["key", "key"]', "columns must be two names"),
        ('["key", "guess"]', '["key", 7]', "submission_columns must be two names"),
        ("[gateway]", "[placeholders]\n[gateway]", "placeholders must be a table of texts"),
        ("[gateway]", "gateway = 1\n[other]", "gateway must be a table, got 1"),
        ('api = "inference-server"', 'api = "iterator"', "must be there for an inference-server"),
        ('package = "0.7.0"', "", "must be there for an inference-server"),
        ('package = "0.7.0"', 'package = "newest"', "gateway.package must be a version, as 0.9.0"),
        ('package = "0.7.0"', 'package = "0.7.0"\nreal = "CupGateway"', "gateway.real must be MODULE:CLASS"),
        ('api = "inference-server"', 'api = "carrier-pigeon"', "gateway.api must be inference-server or iterator"),
        ('module = "cup', 'modul = "cup', "known keys only, got gateway.modul"),
        ('server = "Cup', 'server = "Cup();', "gateway.module and gateway.server must be names in Python"),
        ("wall_s = 1800", "wall_s = 7200 hours", "must be readable TOML"),
        ("runs = 3", "runs = 3\nreleased_before = 2027", "released_before must be a date, got 2027"),
    ],
)
def test_a_wrong_file_is_one_clear_error(cup: Path, old: str, new: str, message: str) -> None:
    assert old in CUP
    cup.write_text(CUP.replace(old, new, 1))
    with pytest.raises(UserError) as error:
        read_competition(cup)
    assert message in str(error.value)
    assert str(cup) in str(error.value)


def test_an_unknown_name_is_told_the_nearest_and_that_a_file_will_do() -> None:
    with pytest.raises(UserError, match=r"did you mean aimo-3(.|\n)*NAME\.toml"):
        competition("aimo3")


def test_a_made_up_competition_is_built_and_linted_without_a_line_of_python(
    cup: Path, built_wheels: Path, workdir: Path, submit: CommandLine
) -> None:
    assert len(CUP.splitlines()) <= 60
    assert submit("rules", "--competition", "cup.toml", "--json").result["columns"] == ["key", "text"]
    assert submit("build", "--competition", "cup.toml", "--names.owner", "alice").code == 0
    kaggle = workdir / "kaggle"
    assert [*lint_kernel(kaggle), *lint_model(kaggle), *lint_dataset(kaggle)] == []
    metadata = json.loads((kaggle / "kernel-metadata.json").read_text())
    assert (metadata["competition_sources"], metadata["machine_shape"]) == (["some-cup-2027"], "NvidiaL4X1")
    # The notebook carries the rules: on Kaggle there is no cup.toml.
    assert "CupInferenceServer" in (kaggle / "submission.ipynb").read_text()


class Seven:
    """Answers 7 to every question, and notes what it was asked."""

    fallback = 1

    def __init__(self) -> None:
        self.questions: dict[str, str] = {}

    def answer(self, *, problem_id: str, statement: str) -> int:
        self.questions[problem_id] = statement
        return 7


@pytest.fixture
def import_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Competition], Any]]:
    """Writes a competition's stand-in and imports its module, as the notebook does."""
    monkeypatch.chdir(tmp_path)
    before = {*sys.modules}

    def load(rules: Competition) -> Any:
        write_stand_in(tmp_path / "data", rules)
        monkeypatch.syspath_prepend(str(tmp_path / "data"))
        inside = "kaggle_evaluation." if rules.notebook.gateway.server else ""
        return importlib.import_module(inside + rules.notebook.gateway.module)

    yield load
    for name in {*sys.modules} - before:
        if name.startswith(("kaggle_evaluation", "cup_questions")):
            del sys.modules[name]


def test_its_gateway_asks_by_its_columns_and_the_scorer_reads_them(
    cup: Path, tmp_path: Path, import_stand_in: Callable[[Competition], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        ports = (free.getsockname()[1],)
    monkeypatch.setitem(PACKAGES, "0.7.0", replace(PACKAGES["0.7.0"], ports=ports))
    rules, solver = read_competition(cup), Seven()
    server = import_stand_in(rules).CupInferenceServer(make_predict(cast("Any", solver), rules))
    behaviour = server.behaviour
    assert (behaviour.package.version, behaviour.deadline_s, behaviour.id_column) == ("0.7.0", 600, "key")
    server.run_local_gateway((str(tmp_path / "data" / "test.csv"),))
    assert solver.questions == rules.placeholders
    assert rules.placeholders["000aaa"] == "What is $2-1$?"
    file = tmp_path / "submission.parquet"
    assert score_file(file, ids=[*rules.placeholders], rules=rules) is None
    assert answers_in(file) == dict.fromkeys(rules.placeholders, 7)
    assert score_file(file, ids=["000aaa"], rules=rules) == "ids 1/1 covered, 3 rows"
    assert score_file(file, ids=[*rules.placeholders], rules=competition("aimo-3")) == "columns ['key', 'guess']"


def test_its_questions_are_iterated_over_by_its_columns(
    cup: Path, tmp_path: Path, import_stand_in: Callable[[Competition], Any]
) -> None:
    cup.write_text(CUP[: CUP.index("[gateway]")] + ITERATED)
    rules, solver = read_competition(cup), Seven()
    answer_in_turn(import_stand_in(rules).make_env(), cast("Any", solver), rules=rules)
    assert solver.questions == rules.placeholders
    assert answers_in(tmp_path / "submission.parquet") == dict.fromkeys(rules.placeholders, 7)
    assert score_file(tmp_path / "submission.parquet", ids=[*rules.placeholders], rules=rules) is None


def test_a_package_that_was_not_measured_is_refused_with_a_way_on(cup: Path) -> None:
    cup.write_text(CUP.replace("0.7.0", "1.5.0"))
    with pytest.raises(UserError, match=r"must be a measured one(.|\n)*Known: 0\.3\.0.*--real-package"):
        choose_behaviour(read_competition(cup))


def test_canaries_are_right_only_by_the_model(cup: Path) -> None:
    problems = [Problem(id=gold, statement="?", gold=gold) for gold in ("1", "0", "07", "61", "60", "-2", "x", "2")]
    rules = read_competition(cup)
    assert [problem.gold for problem in choose_canaries(problems, count=2, rules=rules)] == ["60", "2"]
    with pytest.raises(UserError, match="from 1 to 60, neither 0 nor the fallback 1, got 2 of 3"):
        choose_canaries(problems, count=3, rules=rules)


@pytest.mark.slow
@pytest.mark.parametrize("api", ["inference-server", "iterator"])
def test_a_made_up_competition_is_rehearsed(api: str, cup: Path, tmp_path: Path, submit: CommandLine) -> None:
    if api == "iterator":
        cup.write_text(CUP[: CUP.index("[gateway]")] + ITERATED)
    words = ("--competition", "cup.toml", "--names.owner", "alice", "--n", 1)
    assert submit.process("build", *words, folder=tmp_path).code == 0
    cup.unlink()
    # All runs once, one in the other layout; each rerun serves as many questions as the competition.
    for layout, more, reruns in (("new", (), 3), ("old", ("--runs", 1), 1), ("old", ("--commit",), 0)):
        # At real speed a busy machine has time for every question.
        words = ("rehearse", "--image", "none", "--speed", 1, "--layout", layout, *more, "--json")
        done = submit.process(*words, folder=tmp_path)
        report = done.result
        assert "rules as the build has them: cup.toml is not there\n" in done.stderr
        assert (report["competition"], report["outcome"]) == ("cup", "valid")
        assert [run["questions"] for run in report["runs"]] == [3, *[4] * reruns]
        assert [one["points"] for one in report["scorer"]] == [run["right"] for run in report["runs"][1:]]
        assert done.stderr.count("scorer of cup: ") == reruns
        if not more:
            # The same seed gives the same samples, so a problem is right in all three runs or in none.
            assert report["penalised_score"] == report["runs"][1]["right"] > 0
    (event,) = Ledger(tmp_path / "runs" / "submit").entries()
    assert event.predicted.endswith("of 4")
