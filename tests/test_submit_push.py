"""The push against a stand-in of Kaggle's API on the loopback, with Kaggle's real clients; nothing else is asked."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import polars as pl
import pytest

from mathlete.delivery.kaggle_client import Kaggle
from mathlete.delivery.naming import next_model_version
from mathlete.delivery.push import Waiting, plan_push, push_build
from mathlete.delivery.uploads import UPLOADS
from mathlete.errors import UserError
from mathlete.rehearsal import check_output
from mathlete.runs import read_json
from mathlete.submission.build import Build
from mathlete.submission.metadata import INSTANCE_FILE, NOTEBOOK
from tests.conftest import NAMES

QUICK = Waiting(poll_s=0.01, upload_max_s=5, run_max_s=5)
Json = dict[str, Any]


@dataclass
class Scenario:
    """What the stand-in does, and what it saw."""

    save: Json = field(default_factory=dict)
    """More keys of SaveKernel's reply."""
    fail: dict[str, list[int]] = field(default_factory=dict)
    """{call: HTTP statuses of its first answers}."""
    statuses: list[str] = field(default_factory=lambda: ["QUEUED", "RUNNING", "COMPLETE"])
    cut_after: int | None = None
    """Bytes of the first upload of the weights that arrive before its connection is cut."""
    calls: list[tuple[str, Json]] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)
    blobs: dict[str, Json] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    output: dict[str, bytes] = field(default_factory=dict)

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]


def reply_of(state: Scenario, name: str, body: Json, base: str) -> Json:
    """Return what the API answers, in the shapes the real clients were recorded with."""
    if name == "SaveKernel":
        if len(body["text"].encode()) > 1_000_000:
            return {"code": 400, "message": "The kernel source must be less than 1 megabytes in size."}
        url = "https://www.kaggle.com/code/alice/mathlete-submission"
        return {"ref": body["slug"], "url": url, "versionNumber": 3, "invalidTags": [], **state.save}
    if name == "GetKernelSessionStatus":
        status = state.statuses.pop(0) if len(state.statuses) > 1 else state.statuses[0]
        return {"status": status, "failureMessage": "it ran out of memory" if status == "ERROR" else ""}
    if name == "ListKernelSessionOutput":
        return {"files": [{"url": f"{base}/output/{file}", "fileName": file} for file in state.output], "log": "[]"}
    if name == "StartBlobUpload":
        token = f"blob{len(state.blobs)}"
        state.blobs[token] = {"name": body["name"], "size": body.get("contentLength", 0), "data": b""}
        return {"token": token, "createUrl": f"{base}/upload/{token}"}
    if name in ("CreateDataset", "CreateModelInstance") and state.versions.get(name):
        return {"error": "already in use", "errorCode": 409}
    if name.startswith(("CreateDataset", "CreateModel")):
        kind = name.removesuffix("Version")
        state.versions[kind] = state.versions.get(kind, 0) + 1
        return {"id": 1, "ref": "r", "url": "u"}
    if name == "GetModelInstance":
        version = state.versions.get("CreateModelInstance", 0)
        return {"versionNumber": version} if version else {"code": 404, "message": "not found"}
    if name == "GetModel":
        return {"id": 1, "ref": "r"} if state.versions.get("CreateModel") else {"code": 404, "message": "not found"}
    fixed: dict[str, Json] = {
        "GetDatasetStatus": {"status": "READY"},
        "CreateCodeSubmission": {"message": "ok", "ref": 77},
        "GetSubmission": {"ref": 77, "status": "COMPLETE", "publicScore": "31"},
    }
    return fixed.get(name, {"code": 404, "message": f"the stand-in has no {name}"})


class Handler(BaseHTTPRequestHandler):
    """Takes plain requests and a proxy's absolute ones."""

    protocol_version = "HTTP/1.1"
    state: Scenario

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Say nothing."""

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        named = {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
        for name, value in named.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def path_asked(self) -> str:
        self.state.hosts.add(urlsplit(self.path).hostname or self.headers["Host"].split(":")[0])
        return urlsplit(self.path).path

    def do_POST(self) -> None:
        name = self.path_asked().rpartition("/")[2]
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        self.state.calls.append((name, body))
        reply = reply_of(self.state, name, body, "http://localhost")
        if waiting := self.state.fail.get(name):
            status = waiting.pop(0)
            reply = {"code": status, "message": f"status {status}"}
        self.answer(int(reply.get("code", 200)), json.dumps(reply).encode(), Retry_After="0")

    def do_PUT(self) -> None:
        blob = self.state.blobs[self.path_asked().rpartition("/")[2]]
        length, asked = int(self.headers["Content-Length"] or 0), self.headers["Content-Range"] or ""
        if asked.startswith("bytes */"):
            have = len(blob["data"])
            self.answer(308, b"", **({"Range": f"bytes=0-{have - 1}"} if have else {}))
        elif self.state.cut_after is not None and blob["name"] == "model.safetensors":
            blob["data"], self.state.cut_after = self.rfile.read(self.state.cut_after), None
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            first = int(match[1]) if (match := re.match(r"bytes (\d+)-", asked)) else 0
            blob["data"] = blob["data"][:first] + self.rfile.read(length)
            self.answer(200, b"{}")

    def do_GET(self) -> None:
        self.answer(200, self.state.output[self.path_asked().removeprefix("/output/")], Last_Modified=LONG_AGO)

    def do_CONNECT(self) -> None:
        self.state.hosts.add(self.path)
        self.answer(403, b"")


LONG_AGO = "Mon, 01 Jun 2026 00:00:00 GMT"


@pytest.fixture
def kaggle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Scenario]:
    """Kaggle, as far as the clients can tell: every request of theirs ends here."""
    state = Scenario()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"state": state}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in [name for name in os.environ if name.startswith("KAGGLE") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    proxy = f"http://127.0.0.1:{server.server_port}"
    for name, value in {
        "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
        "KAGGLE_USERNAME": "alice",
        "KAGGLE_KEY": "0" * 32,
        "KAGGLE_CONFIG_DIR": str(tmp_path / "config"),
        "HOME": str(tmp_path),
        "http_proxy": proxy,
        "https_proxy": proxy,
    }.items():
        monkeypatch.setenv(name, value)
    state.output = run_on_kaggle(tmp_path)
    yield state
    server.shutdown()
    server.server_close()
    assert state.hosts <= {"localhost"}


def run_on_kaggle(folder: Path, *, answers: tuple[int, ...] = (0, 0, 0), fallback: bool = False) -> dict[str, bytes]:
    ids = ["000aaa", "111bbb", "222ccc"]
    pl.DataFrame({"id": ids, "answer": answers}).write_parquet(folder / "made.parquet")
    lines = [json.dumps({"id": name, "fallback": fallback, "why": "the clock" * fallback}) for name in ids]
    return {
        "submission.parquet": (folder / "made.parquet").read_bytes(),
        "journal.jsonl": "\n".join(lines).encode() + b"\n",
    }


@pytest.fixture
def build(build: Build) -> Build:
    """A build with weights of a megabyte: what is in its files does not matter to a push."""
    (build.model / "model.safetensors").write_bytes(bytes(range(256)) * 4000)
    (build.wheels / "manifest.json").write_text("{}")
    return build


def push_in_thread(build: Build, folder: Path) -> Any:
    # In a thread, whose stack is short: kagglehub reads the source of every frame above it, for its user agent.
    with ThreadPoolExecutor(1) as one:
        work = one.submit(lambda: push_build(build, Kaggle(), folder=folder, waiting=QUICK, say=lambda text: None))
        return work.result()


def test_a_push_uploads_saves_waits_and_checks(kaggle: Scenario, build: Build, tmp_path: Path) -> None:
    assert push_in_thread(build, tmp_path).version == 3
    names = kaggle.names()
    assert [name for name in names if name.startswith(("Create", "Save"))] == [
        "CreateDataset",
        "CreateModel",
        "CreateModelInstance",
        "SaveKernel",
    ]
    assert {blob["name"] for blob in kaggle.blobs.values()} == {
        "mathlete-0.1.0-py3-none-any.whl",
        "model.safetensors",
        "config.json",
    }
    assert all(len(blob["data"]) == blob["size"] for blob in kaggle.blobs.values())
    sent = dict(kaggle.calls)["SaveKernel"]
    assert sent["enableInternet"] is False
    assert sent["machineShape"] == "NvidiaH100"
    assert sent["modelDataSources"] == ["alice/mathlete-model/transformers/int8/1"]
    assert dict(kaggle.calls)["CreateModelInstance"]["body"]["licenseName"] == "Apache 2.0"


def test_what_did_not_change_is_not_sent_again(kaggle: Scenario, build: Build, tmp_path: Path) -> None:
    push_in_thread(build, tmp_path)
    assert sum("unchanged" in line for line in plan_push(build, folder=tmp_path)) == 2
    kaggle.calls.clear()
    push_in_thread(build, tmp_path)
    assert "StartBlobUpload" not in kaggle.names()
    assert "SaveKernel" in kaggle.names()


def test_changed_weights_need_the_next_version_and_are_refused_before_anything_is_sent(
    kaggle: Scenario, build: Build, tmp_path: Path
) -> None:
    push_in_thread(build, tmp_path)
    (build.model / "config.json").write_text('{"changed": true}')
    (build.wheels / "more-1-py3-none-any.whl").write_bytes(b"more")
    kaggle.calls.clear()
    with pytest.raises(UserError, match="the next one on Kaggle is 2"):
        push_in_thread(build, tmp_path)
    assert kaggle.names() == ["GetModelInstance"]
    assert next_model_version(NAMES, weights=build.hashes().weights, folder=tmp_path) == 2
    second = replace(build, names=replace(NAMES, model_version=2))
    assert push_in_thread(second, tmp_path).version == 3
    assert {"CreateDatasetVersion", "CreateModelInstanceVersion"} <= set(kaggle.names())


def test_a_push_killed_after_the_upload_goes_on_with_the_version_it_made(
    kaggle: Scenario, build: Build, tmp_path: Path
) -> None:
    push_in_thread(build, tmp_path)
    uploads = read_json(tmp_path / UPLOADS)
    uploads["alice/mathlete-model/transformers/int8"]["done"] = False  # type: ignore[index]
    (tmp_path / UPLOADS).write_text(json.dumps(uploads))
    kaggle.calls.clear()
    push_in_thread(build, tmp_path)
    assert "StartBlobUpload" not in kaggle.names()


REFUSALS = [
    ({"save": {"error": "Maximum batch GPU session count reached"}}, "batch GPU session"),
    ({"save": {"invalidModelSources": ["alice/mathlete-model/transformers/int8/1"]}}, "model_sources alice/math"),
    ({"save": {"invalidDatasetSources": ["alice/mathlete-wheels"]}}, "dataset_sources alice/mathlete-wheels"),
    ({"save": {"invalidCompetitionSources": ["x"]}}, "competition_sources x"),
    ({"save": {"invalidTags": ["gpu"]}}, "tags gpu"),
    ({"statuses": ["RUNNING", "ERROR"]}, "ERROR it ran out of memory"),
    ({"statuses": ["CANCEL_ACKNOWLEDGED"]}, "CANCEL_ACKNOWLEDGED"),
    ({"fail": {"SaveKernel": [401]}}, "HTTP 401"),
    ({"fail": {"SaveKernel": [429] * 9}}, "HTTP 429"),
    ({"fail": {"StartBlobUpload": [401]}}, "HTTP 401"),
    ({"fail": {"GetModelInstance": [401]}}, "HTTP 401"),
]


@pytest.mark.parametrize(("scenario", "says"), REFUSALS)
def test_what_kaggle_refuses_or_drops_stops_the_push(
    scenario: Json, says: str, kaggle: Scenario, build: Build, tmp_path: Path
) -> None:
    for name, value in scenario.items():
        setattr(kaggle, name, value)
    with pytest.raises(UserError, match=says) as caught:
        push_in_thread(build, tmp_path)
    assert caught.value.cure


def test_kaggle_asking_to_wait_is_waited_for(kaggle: Scenario, build: Build, tmp_path: Path) -> None:
    kaggle.fail = {"SaveKernel": [429], "CreateDataset": [429]}
    assert push_in_thread(build, tmp_path).version == 3


def test_a_cut_upload_goes_on_where_it_was_cut(kaggle: Scenario, build: Build, tmp_path: Path) -> None:
    kaggle.cut_after = 300_000
    push_in_thread(build, tmp_path)
    (weights,) = [blob for blob in kaggle.blobs.values() if blob["name"] == "model.safetensors"]
    assert weights["data"] == (build.model / "model.safetensors").read_bytes()
    assert kaggle.names().count("CreateModelInstance") == 1


def test_a_notebook_above_1_mb_is_refused_with_kaggles_words(kaggle: Scenario, build: Build, tmp_path: Path) -> None:
    notebook = read_json(build.kaggle / NOTEBOOK)
    notebook["cells"][0]["source"] = "x" * 1_100_000  # type: ignore[index]
    (build.kaggle / NOTEBOOK).write_text(json.dumps(notebook))
    with pytest.raises(UserError, match="less than 1 megabytes"):
        push_in_thread(build, tmp_path)


OUTPUTS = [
    (run_on_kaggle, {"answers": (0, 0, -1)}, "out of range"),
    (run_on_kaggle, {"fallback": True}, "the model must answer on Kaggle"),
]


@pytest.mark.parametrize(("make", "how", "says"), OUTPUTS)
def test_an_output_that_would_score_nothing_is_refused(
    make: Any, how: Json, says: str, build: Build, tmp_path: Path
) -> None:
    for name, content in make(tmp_path, **how).items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=says):
        check_output(tmp_path, build)


def test_an_output_without_a_file_is_refused(build: Build, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"must write submission\.parquet"):
        check_output(tmp_path, build)


def test_more_than_50_files_are_not_uploaded_as_one_archive(kaggle: Scenario, build: Build, tmp_path: Path) -> None:
    for number in range(51):
        (build.wheels / f"w{number}-1-py3-none-any.whl").write_bytes(b"w")
    with pytest.raises(UserError, match="at most 50 files"):
        push_in_thread(build, tmp_path)


def test_without_credentials_nothing_is_asked(kaggle: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAGGLE_KEY")
    with pytest.raises(UserError, match="credentials"):
        Kaggle()
    assert not kaggle.calls


def test_a_redirection_the_client_would_ignore_is_refused(kaggle: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "TEST")
    with pytest.raises(UserError, match="ignores other values"):
        Kaggle()


def test_a_version_is_submitted_and_its_score_read(kaggle: Scenario) -> None:
    client = Kaggle()
    slug = "ai-mathematical-olympiad-progress-prize-3"
    number = client.submit(NAMES, competition_slug=slug, version=3, file_name="submission.parquet", message="first")
    assert client.score(number) == 31
    sent = dict(kaggle.calls)["CreateCodeSubmission"]
    assert (sent["kernelSlug"], sent["kernelVersion"]) == ("mathlete-submission", 3)


def test_kaggles_own_command_pushes_the_same_folder(kaggle: Scenario, build: Build, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("kaggle")), "kernels", "push", "-p", str(build.kaggle)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "version 3 successfully pushed" in done.stdout, done.stdout + done.stderr
    Kaggle().save_kernel(build.kaggle)
    first, second = (body for name, body in kaggle.calls if name == "SaveKernel")
    assert first == second
    assert read_json(build.kaggle / INSTANCE_FILE)["framework"] == "transformers"
