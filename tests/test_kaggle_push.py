"""`mathlete kaggle push` with Kaggle's own clients, against the stand-in of its API on the loopback."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mathlete.delivery.uploads import UPLOADS
from tests.conftest import CommandLine, Done
from tests.kaggle_standin import Fault, Scenario, serve
from tests.test_hub_push import make_model

NAME = "alice/math-model/transformers/int8"


@pytest.fixture
def kaggle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Scenario]:
    with serve(tmp_path / "home", monkeypatch) as state:
        yield state


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_model(tmp_path / "math" / "export")


def push(run: Path, *words: str, model: str = NAME) -> Done:
    # In a thread, whose stack is short: kagglehub reads the source of every frame above it, for its user agent.
    every = ("push", run, "--model", model, "--licence", "MIT", "--wait-max-s", "2", "--json", *words)
    with ThreadPoolExecutor(1) as one:
        return one.submit(lambda: CommandLine("kaggle")(*every)).result()


def test_a_run_is_a_models_next_version_and_is_sent_once(kaggle: Scenario, run: Path) -> None:
    dry = push(run).result
    assert (dry["pushed"], dry["files"]) == (False, ["README.md", "config.json", "model.safetensors"])
    assert kaggle.calls == []
    first = push(run, "--yes").result
    assert (first["source"], first["sent"]) == (f"{NAME}/1", True)
    assert {blob["name"] for blob in kaggle.blobs.values()} == {*dry["files"]}
    assert dict(kaggle.calls)["CreateModelInstance"]["body"]["licenseName"] == "MIT"
    assert push(run, "--yes").result["sent"] is False
    assert kaggle.acts()["ModelInstance"] == 1
    again = push(make_model(run.parent / "better" / "export", model=b"other"), "--yes").result
    assert again["source"] == f"{NAME}/2"


def test_a_push_whose_answer_was_lost_makes_no_second_version(kaggle: Scenario, run: Path) -> None:
    kaggle.fail["CreateModelInstance"] = [Fault("503", after=True)]
    assert push(run, "--yes").result["source"] == f"{NAME}/1"
    assert kaggle.acts()["ModelInstance"] == 1


def test_a_push_that_was_killed_goes_on(kaggle: Scenario, run: Path) -> None:
    push(run, "--yes")
    record = json.loads((run / UPLOADS).read_text())
    record[NAME]["done"] = False
    (run / UPLOADS).write_text(json.dumps(record))
    assert push(run, "--yes").result["source"] == f"{NAME}/1"
    assert kaggle.acts()["ModelInstance"] == 1


@pytest.mark.parametrize(
    ("model", "words", "refusal"),
    [
        ("mathlete-model", (), "--model must be OWNER/MODEL"),
        (NAME, ("--licence", "WTFPL"), "a model's licence must be one by Kaggle's name, got 'WTFPL'"),
        (NAME, ("--part", "merged"), "a push needs a model that a run has finished"),
        ("bob/math-model", ("--yes", "--part", "export"), "the credentials must be those of the model's account"),
    ],
)
def test_what_is_no_model_of_this_account_is_refused(
    kaggle: Scenario, run: Path, model: str, words: tuple[str, ...], refusal: str
) -> None:
    assert refusal in push(run, *words, model=model).refusal
    assert not kaggle.blobs
