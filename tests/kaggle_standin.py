"""A stand-in of Kaggle's API on the loopback: every request of Kaggle's real clients ends here, and counts here.

Its replies have the shapes that the clients were recorded with. `Fault` says what goes wrong with a request, and
whether that is before or after the request has counted.
"""

import json
import os
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import polars as pl
import pytest

from mathlete.kernel import KernelConfig
from mathlete.submission.notebook import notebook_text
from mathlete.submission.stamps import read_stamp
from tests.conftest import NAMES

Json = dict[str, Any]
LONG_AGO = "Mon, 01 Jun 2026 00:00:00 GMT"
HANG_S = 1.0
"""Longer than the tests wait for an answer."""


@dataclass(frozen=True)
class Fault:
    """One answer that goes wrong."""

    kind: str
    """An HTTP status, `cut` (the connection), `hang` (no answer), `page` (no JSON), `empty` or `typed` (odd JSON)."""
    after: bool = False
    """Whether the request counts all the same."""
    retry_after: str = "0"


@dataclass
class Scenario:
    """What the stand-in does, and what it saw."""

    save: Json = field(default_factory=dict)
    """More keys of SaveKernel's reply."""
    fail: dict[str, list[Fault]] = field(default_factory=dict)
    """{call: what goes wrong with its first requests}."""
    statuses: list[str] = field(default_factory=lambda: ["QUEUED", "RUNNING", "COMPLETE"])
    scores: list[str] = field(default_factory=lambda: ["PENDING", "COMPLETE"])
    score: str = "31"
    wheels: list[str] = field(default_factory=lambda: ["READY"])
    """States of the data set, or an HTTP status."""
    full: int = 0
    """Saves that are refused because all GPU sessions are taken."""
    left: int = 1
    """Submissions left today."""
    cut_after: int | None = None
    """Bytes of the first upload of the weights that arrive before its connection is cut."""
    account: str = "alice"
    """Whose the tokens are."""
    calls: list[tuple[str, Json]] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)
    blobs: dict[str, Json] = field(default_factory=dict)
    versions: Counter[str] = field(default_factory=Counter)
    """{Dataset, Model, ModelInstance or Kernel: versions that counted}."""
    source: str = ""
    """Of the newest version of the notebook."""
    submitted: list[Json] = field(default_factory=list)
    output: dict[str, bytes] = field(default_factory=dict)
    downloads: dict[str, bytes] = field(default_factory=dict)
    outputs: list[dict[str, bytes]] = field(default_factory=list)
    """Outputs that are shown before `output`, one a listing."""

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def acts(self) -> dict[str, int]:
        """How often what counts has counted."""
        return {**self.versions, "Submission": len(self.submitted)}


def take(values: list[Any]) -> Any:
    """Take the first of several values; the last one stays."""
    return values.pop(0) if len(values) > 1 else values[0]


def not_there(name: str = "") -> Json:
    return {"code": 404, "message": f"not found {name}"}


def save(state: Scenario, body: Json) -> Json:
    if len(body["text"].encode()) > 1_000_000:
        return {"code": 400, "message": "The kernel source must be less than 1 megabytes in size."}
    if state.full > 0:
        state.full -= 1
        return {"error": "Maximum batch GPU session count of 2 reached."}
    if state.save.get("error"):
        return dict(state.save)
    state.versions["Kernel"] += 1
    state.source = body["text"]
    url = "https://www.kaggle.com/code/alice/mathlete-submission"
    return {"ref": body["slug"], "url": url, "versionNumber": state.versions["Kernel"], "invalidTags": [], **state.save}


def create(state: Scenario, name: str) -> Json:
    kind = name.removeprefix("Create").removesuffix("Version")
    if name in ("CreateDataset", "CreateModelInstance") and state.versions[kind]:
        return {"error": "already in use", "errorCode": 409}
    state.versions[kind] += 1
    return {"id": 1, "ref": "r", "url": "u"}


def wheels(state: Scenario) -> Json:
    word = take(state.wheels)
    return {"code": int(word), "message": "forbidden"} if word.isdigit() else {"status": word}


def submission(state: Scenario, body: Json) -> Json:
    if body["ref"] not in [one["ref"] for one in state.submitted]:
        return not_there()
    status = take(state.scores)
    return {"ref": body["ref"], "status": status, "publicScore": state.score if status == "COMPLETE" else ""}


def submit(state: Scenario, body: Json) -> Json:
    if state.left <= 0:
        return {"code": 400, "message": "no submissions left today"}
    state.left -= 1
    state.submitted.insert(0, {"ref": 77 + len(state.submitted), **body})
    return {"message": "ok", "ref": state.submitted[0]["ref"]}


def kernel(state: Scenario) -> Json:
    version = state.versions["Kernel"]
    if not version:
        return {"code": 403, "message": "Permission 'kernels.get' was denied"}
    return {"metadata": {"currentVersionNumber": version}, "blob": {"source": state.source}}


def output(state: Scenario) -> Json:
    files = state.outputs.pop(0) if state.outputs else state.output
    listed = []
    for name, content in files.items():
        token = f"out{len(state.downloads)}"
        state.downloads[token] = content
        listed.append({"url": f"http://localhost/output/{token}", "fileName": name})
    return {"files": listed, "log": "[]"}


def session(state: Scenario) -> Json:
    status = take(state.statuses)
    # As protocol buffers do, a word that stands for 0 is left out.
    shown = {} if status == "QUEUED" else {"status": status}
    return {**shown, "failureMessage": "it ran out of memory" if status == "ERROR" else ""}


def reply_of(state: Scenario, name: str, body: Json) -> Json:
    """Return what the API answers, in the shapes the real clients were recorded with."""
    if name in ("StartBlobUpload", "StartSubmissionUpload"):
        token = f"blob{len(state.blobs)}"
        named = body.get("name") or body["fileName"]
        state.blobs[token] = {"name": named, "size": int(body.get("contentLength", 0)), "data": b""}
        return {"token": token, "createUrl": f"http://localhost/upload/{token}"}
    if name.startswith(("CreateDataset", "CreateModel")):
        return create(state, name)
    version = {"GetDataset": "Dataset", "GetModel": "Model", "GetModelInstance": "ModelInstance"}.get(name)
    if version:
        count = state.versions[version]
        return {"versionNumber": count, "currentVersionNumber": count, "id": 1, "ref": "r"} if count else not_there()
    replies: dict[str, Any] = {
        "SaveKernel": lambda: save(state, body),
        "GetKernel": lambda: kernel(state),
        "GetKernelSessionStatus": lambda: session(state),
        "ListKernelSessionOutput": lambda: output(state),
        "GetDatasetStatus": lambda: wheels(state),
        "CreateCodeSubmission": lambda: submit(state, body),
        "CreateSubmission": lambda: submit(state, body),
        "ListSubmissions": lambda: {
            "submissions": [
                {"ref": one["ref"], "description": one["submissionDescription"], "status": "PENDING"}
                for one in state.submitted
            ]
        },
        "GetSubmission": lambda: submission(state, body),
        "GetSubmissionLimits": lambda: {"numAllowedNow": state.left, "numToday": len(state.submitted)},
        "GetAcceleratorQuotaStatistics": lambda: {"gpuQuota": {"timeUsed": "3600s", "totalTimeAllowed": "108000s"}},
        "GenerateAccessToken": lambda: {"token": "good", "expiresIn": 3600},
        "IntrospectToken": lambda: {"active": body["token"] == "good", "username": state.account},
    }
    return dict(replies.get(name, lambda: not_there(f"the stand-in has no {name}"))())


class Handler(BaseHTTPRequestHandler):
    """Takes plain requests and a proxy's absolute ones."""

    protocol_version = "HTTP/1.1"
    state: Scenario
    lock: threading.Lock

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Say nothing."""

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        named = {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
        for name, value in named.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def cut(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def path_asked(self) -> str:
        self.state.hosts.add(urlsplit(self.path).hostname or self.headers["Host"].split(":")[0])
        return urlsplit(self.path).path

    def go_wrong(self, fault: Fault) -> None:
        if fault.kind == "cut":
            self.cut()
        elif fault.kind == "hang":
            time.sleep(HANG_S)
            self.cut()
        elif fault.kind in ("empty", "typed"):
            self.answer(200, b'{"versionNumber": "one", "ref": 7.5}' if fault.kind == "typed" else b"{}")
        elif fault.kind == "page":
            self.answer(200, b"<html>We are down for maintenance</html>", Content_Type="text/html")
        else:
            reply = {"code": int(fault.kind), "message": f"status {fault.kind}"}
            self.answer(int(fault.kind), json.dumps(reply).encode(), Retry_After=fault.retry_after)

    def fault_of(self, name: str) -> Fault | None:
        waiting = self.state.fail.get(name)
        return waiting.pop(0) if waiting else None

    def do_POST(self) -> None:
        name = self.path_asked().rpartition("/")[2]
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        with self.lock:
            self.state.calls.append((name, body))
            fault = self.fault_of(name)
            reply = reply_of(self.state, name, body) if fault is None or fault.after else {}
        if fault is not None:
            self.go_wrong(fault)
        else:
            self.answer(int(reply.get("code", 200)), json.dumps(reply).encode())

    def do_PUT(self) -> None:
        blob = self.state.blobs[self.path_asked().rpartition("/")[2]]
        length, asked = int(self.headers["Content-Length"] or 0), self.headers["Content-Range"] or ""
        if asked.startswith("bytes */"):
            have = len(blob["data"])
            self.answer(308, b"", **({"Range": f"bytes=0-{have - 1}"} if have else {}))
        elif self.state.cut_after is not None and blob["name"] == "model.safetensors":
            blob["data"], self.state.cut_after = self.rfile.read(self.state.cut_after), None
            self.cut()
        else:
            first = int(match[1]) if (match := re.match(r"bytes (\d+)-", asked)) else 0
            blob["data"] = blob["data"][:first] + self.rfile.read(length)
            self.answer(200, b"{}")

    def do_GET(self) -> None:
        if (fault := self.fault_of("GET")) is not None:
            self.go_wrong(fault)
        else:
            self.answer(200, self.state.downloads[self.path_asked().rpartition("/")[2]], Last_Modified=LONG_AGO)

    def do_CONNECT(self) -> None:
        self.state.hosts.add(self.path)
        self.answer(403, b"")


@contextmanager
def serve(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scenario]:
    """Be Kaggle, as far as the clients can tell; the folder is the home of who has credentials there."""
    state = Scenario()
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), type("Bound", (Handler,), {"state": state, "lock": threading.Lock()})
    )
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    for name in [name for name in os.environ if name.startswith("KAGGLE") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    proxy = f"http://127.0.0.1:{server.server_port}"
    for name, value in {
        "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
        "KAGGLE_USERNAME": "alice",
        "KAGGLE_KEY": "0" * 32,
        "KAGGLE_CONFIG_DIR": str(folder / "config"),
        "HOME": str(folder),
        "http_proxy": proxy,
        "https_proxy": proxy,
    }.items():
        monkeypatch.setenv(name, value)
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
    assert state.hosts <= {"localhost"}


def run_on_kaggle(
    folder: Path, *, answers: tuple[int, ...] = (0, 0, 0), fallback: bool = False, build: str | None = None
) -> dict[str, bytes]:
    """Return what a notebook writes in its run on Kaggle, with the hash of a build: by default that of the fixture."""
    build = read_stamp(notebook_text(KernelConfig(), NAMES)) if build is None else build
    ids = ["000aaa", "111bbb", "222ccc"]
    pl.DataFrame({"id": ids, "answer": answers}).write_parquet(folder / "made.parquet")
    lines = [json.dumps({"build": build})] if build else []
    lines += [json.dumps({"id": name, "fallback": fallback, "why": "the clock" * fallback}) for name in ids]
    return {
        "submission.parquet": (folder / "made.parquet").read_bytes(),
        "journal.jsonl": "\n".join(lines).encode() + b"\n",
    }
