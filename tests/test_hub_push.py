"""`mathlete hub push` with huggingface_hub's own client, against a server that speaks what it calls."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest

from mathlete.delivery.uploads import UPLOADS
from mathlete.gates import GateOutcome
from mathlete.runs import run_step, write_json
from tests.conftest import CommandLine, sample
from tests.hub_standin import TOKEN, HubServer, serve_hub

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
"""Of httpx: huggingface_hub 2.4.0 sends a file's content by another name."""
push = CommandLine("hub")
CARD = '---\nbase_model: "alice/base"\nlibrary_name: "transformers"\n---\n# A model\n'
QUICK = ("--wait-max-s", "1")


def make_model(folder: Path, **weights: bytes) -> Path:
    """What a step of a run leaves: a model with its card, its manifest, and what stays here."""

    def build(into: Path) -> dict[str, object]:
        for name, data in (weights or {"model": b"weights"}).items():
            (into / f"{name}.safetensors").write_bytes(data)
        (into / "README.md").write_text(CARD)
        (into / "config.json").write_text("{}")
        (into / "logs").mkdir()
        (into / "logs" / "events.out").write_text("of this machine")
        return {}

    run_step("export", folder=folder, inputs={}, settings={"weights": sorted(weights)}, build=build)
    return folder.parent


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_model(tmp_path / "math" / "export")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """The server, which the client of this process is told to take for the hub."""
    with serve_hub() as server:
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_OIDC_RESOURCE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        for name, value in {
            "HF_HUB_OFFLINE": False,
            "ENDPOINT": server.url,
            "HF_HUB_DISABLE_XET": True,
            "HF_TOKEN_PATH": str(tmp_path / "no-token"),
        }.items():
            monkeypatch.setattr(huggingface_hub.constants, name, value)
        yield server


SENT = {".gitattributes", "README.md", "config.json", "model.safetensors"}


def test_a_push_sends_the_model_once_into_a_private_repository(run: Path, hub: HubServer) -> None:
    dry = push("push", run, "--json").result
    assert (dry["pushed"], dry["files"]) == (False, ["README.md", "config.json", "model.safetensors"])
    assert hub.calls == []
    first = push("push", run, "--yes", "--json", *QUICK).result
    kept = hub.repos["alice/math"]
    assert (first["repo"], first["url"], first["sent"]) == ("alice/math", f"{hub.url}/alice/math", True)
    assert kept.private
    assert {*kept.files} == SENT
    assert kept.files["model.safetensors"] == b"weights"
    assert kept.commits == ["initial commit", f"export of math ({first['hash'][:12]})"]
    again = push("push", run, "--yes", "--json", *QUICK).result
    assert (again["sent"], again["commits"], len(kept.commits)) == (False, 2, 2)


def test_weights_that_are_not_replaced_are_deleted_by_overwrite_alone(
    run: Path, hub: HubServer, tmp_path: Path
) -> None:
    push("push", run, "--yes", "--repo", "alice/math", *QUICK)
    kept = hub.repos["alice/math"]
    kept.files |= {"notes.md": b"the user's own", "model-Q4_K_M.gguf": b"somebody's"}
    newer = make_model(tmp_path / "newer" / "export", **{"model-00001-of-00001": b"other"})
    before, commits = {**kept.files}, [*kept.commits]
    refusal = push("push", newer, "--yes", "--repo", "alice/math", *QUICK).refusal
    assert "got model-Q4_K_M.gguf, model.safetensors in alice/math" in refusal
    assert (kept.files, kept.commits) == (before, commits)
    done = push("push", newer, "--yes", "--repo", "alice/math", "--overwrite", *QUICK)
    assert "goes from alice/math with this push: model.safetensors" in done.stdout
    assert {*kept.files} == {*SENT, "notes.md", "model-00001-of-00001.safetensors"} - {"model.safetensors"}


def test_a_repository_that_others_see_needs_the_word_public(run: Path, hub: HubServer) -> None:
    assert push("push", run, "--yes", "--public", *QUICK).code == 0
    assert not hub.repos["alice/math"].private
    before = [*hub.repos["alice/math"].commits]
    refusal = push("push", run, "--yes", *QUICK).refusal
    assert "a push is for yourself alone unless --public says otherwise, got alice/math, which is public" in refusal
    assert hub.repos["alice/math"].commits == before


@pytest.mark.parametrize(
    ("call", "counts"),
    sample(
        ("commit", True), ("commit", False), slow=[(c, n) for c in ("create", "info", "whoami") for n in (True, False)]
    ),
)
def test_an_answer_that_is_lost_makes_no_second_commit(run: Path, hub: HubServer, call: str, counts: bool) -> None:
    hub.fail[call] = [(503, counts)]
    assert push("push", run, "--yes", *QUICK).code == 0
    assert len(hub.repos["alice/math"].commits) == 2
    assert {*hub.repos["alice/math"].files} == SENT


def test_a_push_that_was_killed_after_its_commit_goes_on(run: Path, hub: HubServer) -> None:
    push("push", run, "--yes", *QUICK)
    record = json.loads((run / UPLOADS).read_text())
    record["hub:alice/math"]["done"] = False
    write_json(run / UPLOADS, record)
    done = push("push", run, "--yes", *QUICK)
    assert "found hub:alice/math, version 2" in done.stdout
    assert len(hub.repos["alice/math"].commits) == 2


def test_a_repository_that_was_deleted_gets_the_model_anew(run: Path, hub: HubServer) -> None:
    push("push", run, "--yes", *QUICK)
    del hub.repos["alice/math"]
    assert push("push", run, "--yes", "--json", *QUICK).result["sent"]
    assert {*hub.repos["alice/math"].files} == SENT


def test_what_the_hub_has_by_another_way_is_not_committed_twice(run: Path, hub: HubServer) -> None:
    push("push", run, "--yes", *QUICK)
    (run / UPLOADS).unlink()
    assert push("push", run, "--yes", "--json", *QUICK).result["commits"] == 2
    assert push("push", run, "--yes", "--json", *QUICK).result["sent"] is False


@pytest.mark.parametrize(
    ("call", "status", "words"),
    sample(
        ("whoami", 401, "make a new token"),
        slow=[
            ("create", 403, "use a token that may write"),
            ("commit", 413, "HTTP 413"),
            ("whoami", 503, "not within 1 s"),
        ],
    ),
)
def test_a_refusal_says_what_the_hub_said(run: Path, hub: HubServer, call: str, status: int, words: str) -> None:
    hub.fail[call] = [(status, False)] * 99
    assert words in push("push", run, "--yes", *QUICK).refusal


def test_a_card_that_the_hub_does_not_take_is_refused_before_a_file_is_sent(tmp_path: Path, hub: HubServer) -> None:
    folder = tmp_path / "math" / "export"
    make_model(folder)
    (folder / "README.md").write_text(CARD.replace("library_name", "license: 7\nlibrary_name"))
    assert "export/manifest.json must match the folder's files" in push("push", folder.parent, "--yes").refusal
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").unlink()
    (folder / "started.json").unlink()
    write_json(folder / "manifest.json", {"outputs": manifest["outputs"] | _hash(folder / "README.md"), "schema": 1})
    assert '"license" must be a string' in push("push", folder.parent, "--yes", *QUICK).refusal
    assert "commit" not in hub.calls


def _hash(file: Path) -> dict[str, str]:
    from mathlete.hashes import sha256_file

    return {file.name: sha256_file(file)}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{run}/export"], "name its run"),
        (["{run}", "--part", "merged"], "use --part with one of export"),
        (["{run}", "--part", "../math/export"], "use --part with one of export"),
        (["{run}/none"], "which is not there"),
        (["{run}/.."], "name the folder of a run of `mathlete train math`"),
        (["{run}", "--repo", "a/b/c"], "a repository must be NAME or OWNER/NAME"),
        (["{run}", "--repo", "x--y"], "a repository must be NAME or OWNER/NAME"),
        (["{run}", "--yes"], "unset HF_HUB_OFFLINE"),
        (["{run}", "--wait-max-s", "0"], "must be above 0"),
    ],
)
def test_bad_input_is_refused(words: list[str], message: str, run: Path) -> None:
    assert message in push("push", *(word.format(run=run) for word in words)).refusal


def test_a_model_that_its_gates_refused_needs_a_reason(tmp_path: Path, hub: HubServer) -> None:
    folder = tmp_path / "math" / "export"

    def build(into: Path) -> dict[str, object]:
        (into / "README.md").write_text(CARD)
        write_json(into / "survival.json", GateOutcome(breaches=("KL must be at most 0.001, got 1",)).to_json())
        return {}

    run_step("export", folder=folder, inputs={}, settings={}, build=build)
    assert "a model must have passed the gates of its run" in push("push", folder.parent).refusal
    done = push("push", folder.parent, "--accept-refused", "to look at it")
    assert "KL must be at most 0.001, got 1; accepted: to look at it" in done.stdout


def test_without_a_token_it_says_where_to_get_one(run: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert "a push needs a token of the hub, got none" in push("push", run, "--yes").refusal
    assert hub.calls == []


@pytest.mark.slow
def test_the_console_script_pushes_as_a_user_does(run: Path, tmp_path: Path) -> None:
    with serve_hub() as server:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
            **{
                "HF_ENDPOINT": server.url,
                "HF_TOKEN": TOKEN,
                "HF_HOME": str(tmp_path / "home"),
                "HF_HUB_DISABLE_XET": "1",
            },
        }
        command = [sys.executable, "-m", "mathlete", "hub", "push", str(run), "--yes", "--json"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert {*server.repos["alice/math"].files} == SENT
        assert TOKEN not in done.stdout + done.stderr
