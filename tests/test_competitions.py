"""A competition is a file: the shipped ones, a made-up one, and files that are wrong."""

import json
import tomllib
from dataclasses import fields
from datetime import date
from pathlib import Path

import pytest

from mathlete.competitions import Competition, competition, competition_names, read_competition
from mathlete.errors import UserError
from mathlete.shipped import data_folder
from mathlete.submission.lint import lint_dataset, lint_kernel, lint_model
from tests.conftest import CommandLine

CUP = """
slug = "some-cup-2027"
answer_min = -50
answer_max = 50
problems = 4
wall_s = 7200
columns = ["key", "text"]
predict_deadline_s = 600
runs = 3
machine = "NvidiaL4X1"

[gateway]
api = "inference-server"
module = "cup_inference_server"
server = "CupInferenceServer"
behaviour = "aimo-3-0.9"
"""


@pytest.fixture
def cup(tmp_path: Path) -> Path:
    """A made-up competition's file."""
    file = tmp_path / "cup.toml"
    file.write_text(CUP)
    return file


def test_the_shipped_competitions() -> None:
    names = competition_names()
    assert names == ["aimo-1", "aimo-2", "aimo-3"]
    rules = [competition(name) for name in names]
    assert [(one.answer_max, one.modulus) for one in rules] == [(999, 1000), (999, 1000), (99_999, None)]
    assert [one.released_before for one in rules] == [date(2024, 2, 23), None, date(2026, 3, 15)]
    assert [one.gateway.api for one in rules] == ["iterator", "inference-server", "inference-server"]


def test_every_key_of_the_rules_is_in_a_shipped_file() -> None:
    texts = [tomllib.loads(file.read_text()) for file in (data_folder() / "competitions").glob("*.toml")]
    said = {key for text in texts for key in text}
    assert said == {field.name for field in fields(Competition)} - {"name"}


@pytest.mark.parametrize("name", competition_names())
def test_rules_survive_json(name: str) -> None:
    rules = competition(name)
    assert Competition.from_json(json.loads(json.dumps(rules.to_json()))) == rules


def test_a_file_is_named_like_a_competition(cup: Path) -> None:
    rules = competition(str(cup))
    assert (rules.name, rules.slug, rules.columns, rules.runs) == ("cup", "some-cup-2027", ("key", "text"), 3)
    assert rules.modulus is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("slug =", "slugg =", "known keys only, got slugg.\n  Fix: did you mean slug?"),
        ('slug = "some-cup-2027"', "", "must say slug, got nothing"),
        ("problems = 4", 'problems = "4"', "problems must be an integer, got '4'"),
        ("runs = 3", "runs = true", "runs must be an integer, got True"),
        ("runs = 3", "runs = 0", "runs must be at least 1, got 0"),
        ("answer_min = -50", "answer_min = 51", "answer_max must be at least answer_min, got 50"),
        ('["key", "text"]', '["key"]', "columns must be two names"),
        ("[gateway]", "gateway = 1\n[other]", "gateway must be a table, got 1"),
        ('api = "inference-server"', 'api = "iterator"', "must be there for an inference-server"),
        ('api = "inference-server"', 'api = "carrier-pigeon"', "gateway.api must be inference-server or iterator"),
        ('module = "cup', 'modul = "cup', "known keys only, got gateway.modul"),
        ("wall_s = 7200", "wall_s = 7200 hours", "must be readable TOML"),
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
    assert submit("rules", "--competition", "cup.toml", "--json").result["columns"] == ["key", "text"]
    assert submit("build", "--competition", "cup.toml", "--names.owner", "alice").code == 0
    kaggle = workdir / "kaggle"
    assert [*lint_kernel(kaggle), *lint_model(kaggle), *lint_dataset(kaggle)] == []
    metadata = json.loads((kaggle / "kernel-metadata.json").read_text())
    assert (metadata["competition_sources"], metadata["machine_shape"]) == (["some-cup-2027"], "NvidiaL4X1")
    # The notebook carries the rules: on Kaggle there is no cup.toml.
    assert "CupInferenceServer" in (kaggle / "submission.ipynb").read_text()


@pytest.mark.slow
def test_a_made_up_competition_is_rehearsed(cup: Path, tmp_path: Path, submit: CommandLine) -> None:
    words = ("--competition", "cup.toml", "--names.owner", "alice", "--n", 1)
    assert submit.process("build", *words, folder=tmp_path).code == 0
    cup.unlink()
    report = submit.process("rehearse", "--questions", 4, "--image", "none", "--json", folder=tmp_path).result
    assert (report["competition"], len(report["runs"]), report["outcome"]) == ("cup", 3, "valid")
    assert all(run["fallbacks"] == 0 for run in report["runs"])
