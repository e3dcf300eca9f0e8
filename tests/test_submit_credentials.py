"""Kaggle credentials: `build` and `push` understand the same ones, and say the same of what is no good."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mathlete.accounts import find_credentials
from mathlete.delivery import Kaggle
from mathlete.delivery.naming import owner_of_credentials
from mathlete.errors import UserError
from mathlete.submission import Names
from tests.conftest import sample
from tests.kaggle_standin import Scenario, serve

KEY = json.dumps({"username": "alice", "key": "0" * 32})
LOGIN = json.dumps({"refresh_token": "r", "username": "alice", "access_token": "good"})
GOOD: list[tuple[dict[str, str], dict[str, str], str]] = [
    ({}, {".kaggle/kaggle.json": KEY}, "kaggle.json"),
    ({}, {".config/kaggle/kaggle.json": KEY}, "kaggle.json"),
    ({"KAGGLE_CONFIG_DIR": "elsewhere"}, {"elsewhere/kaggle.json": KEY}, "kaggle.json"),
    ({"KAGGLE_USERNAME": "alice", "KAGGLE_KEY": "0"}, {}, "KAGGLE_USERNAME and KAGGLE_KEY"),
    (
        {"KAGGLE_USERNAME": "alice"},
        {".kaggle/kaggle.json": KEY.replace("alice", "bob")},
        "KAGGLE_USERNAME with the key",
    ),
    ({}, {".kaggle/access_token": "good\n"}, "access_token"),
    ({}, {".kaggle/access_token.txt": "good"}, "access_token.txt"),
    ({"KAGGLE_API_TOKEN": "good"}, {}, "KAGGLE_API_TOKEN"),
    ({"KAGGLE_API_TOKEN": "token"}, {"token": "good"}, "KAGGLE_API_TOKEN, token"),
    ({"KAGGLE_API_TOKEN": "good", "KAGGLE_USERNAME": "bob", "KAGGLE_KEY": "0"}, {}, "KAGGLE_API_TOKEN"),
    ({}, {".kaggle/credentials.json": LOGIN}, "credentials.json"),
]
"""(variables, files in the home, what the message about them names)."""
BAD: list[tuple[dict[str, str], dict[str, str], str]] = [
    ({}, {}, "got none"),
    ({}, {".kaggle/kaggle.json": "no JSON"}, "no JSON object"),
    ({}, {".kaggle/kaggle.json": "[]"}, "no JSON object"),
    ({}, {".kaggle/kaggle.json": f"\ufeff{KEY}"}, "no JSON object (Unexpected UTF-8 BOM"),
    ({}, {".kaggle/kaggle.json": "{}"}, "without username and key"),
    ({}, {".kaggle/kaggle.json": '{"username": "alice"}'}, "without username and key"),
    ({"KAGGLE_API_TOKEN": "bad"}, {}, "KAGGLE_API_TOKEN, which Kaggle does not accept"),
    ({"KAGGLE_API_TOKEN": "bad"}, {".kaggle/kaggle.json": KEY}, "KAGGLE_API_TOKEN, which Kaggle does not accept"),
]


@pytest.fixture
def kaggle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Scenario]:
    """Kaggle without credentials for it."""
    with serve(tmp_path, monkeypatch) as state:
        for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_CONFIG_DIR", "XDG_CONFIG_HOME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.chdir(tmp_path)
        yield state


def put(variables: dict[str, str], files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for name, text in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)


def connect() -> subprocess.CompletedProcess[str]:
    """Connect in a process of its own: Kaggle's client looks for its folder when it is imported."""
    code = "from mathlete.delivery import Kaggle; one = Kaggle(); print(one.account, '|', one.credentials)"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ)


@pytest.mark.parametrize(("variables", "files", "where"), GOOD)
def test_a_build_knows_whose_they_are(
    variables: dict[str, str], files: dict[str, str], where: str, kaggle: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(variables, files, monkeypatch)
    owner, reason = owner_of_credentials()
    assert (owner, where in reason) == ("alice", True), reason


@pytest.mark.parametrize(("variables", "files", "where"), sample(GOOD[4], slow=[*GOOD[:4], *GOOD[5:]]))
def test_a_push_connects_with_them(
    variables: dict[str, str], files: dict[str, str], where: str, kaggle: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(variables, files, monkeypatch)
    done = connect()
    account, _, named = done.stdout.partition(" | ")
    assert (account, where in named) == ("alice", True), done.stderr


@pytest.mark.parametrize(("variables", "files", "says"), BAD)
def test_what_is_no_good_is_one_message_with_all_ways(
    variables: dict[str, str],
    files: dict[str, str],
    says: str,
    kaggle: Scenario,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    put(variables, files, monkeypatch)
    with pytest.raises(UserError, match="Kaggle credentials must be there") as caught:
        Kaggle()
    assert says in str(caught.value)
    assert all(way in caught.value.cure for way in ("KAGGLE_API_TOKEN", "access_token", "kaggle.json", "auth login"))
    assert capfd.readouterr().out == ""
    assert [name for name in kaggle.names() if name != "IntrospectToken"] == []


def test_a_build_goes_on_without_credentials_and_says_why(kaggle: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_credentials() is None
    assert owner_of_credentials() == (Names().owner, "no Kaggle credentials here; set it with --names.owner")
    monkeypatch.setenv("KAGGLE_USERNAME", "alice")
    assert owner_of_credentials() == ("alice", "KAGGLE_USERNAME")
    put({"KAGGLE_API_TOKEN": "bad"}, {}, monkeypatch)
    owner, reason = owner_of_credentials()
    assert owner == Names().owner
    assert "set it with --names.owner" in reason


@pytest.mark.parametrize("name", ["KAGGLE_USERNAME", "KAGGLE_KEY"])
def test_a_line_break_around_a_variable_is_named_and_not_shown(
    name: str, kaggle: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAGGLE_USERNAME", "alice")
    monkeypatch.setenv("KAGGLE_KEY", "secret")
    monkeypatch.setenv(name, f"{os.environ[name]}\n")
    for ask in (Kaggle, owner_of_credentials):
        with pytest.raises(UserError, match=f"{name} must have no blanks") as caught:
            ask()
        assert "secret" not in str(caught.value)
    assert kaggle.names() == []
