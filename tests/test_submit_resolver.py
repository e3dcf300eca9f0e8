"""uv looks for wheels: it never downloads a Python, says why there is no solution, and an old one is none."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mathlete.errors import UserError
from mathlete.submission.wheelhouse import resolve
from tests.test_submit_build import wheel

WHEELS = {
    "fresh-1.0": ("2016-01-01", ""),
    "fresh-2.0": ("2026-01-01", ""),
    "stale-1.0": ("2016-01-01", ""),
    # The image has another numpy.
    "stale-2.0": ("2018-01-01", "numpy==0.1"),
    "blocked-1.0": ("2026-01-01", "numpy==0.1"),
}
"""{name-version: (day of its upload, what it requires)}."""


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A package index on the loopback, which uv asks, and for Pythons too; yield the paths that were asked for."""
    asked: list[str] = []
    files = {name: wheel(tmp_path, name, requires=requires) for name, (_, requires) in WHEELS.items()}

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            """Say nothing."""

        def do_GET(self) -> None:
            asked.append(self.path)
            kind, name, *_ = *self.path.strip("/").split("/"), ""
            listed = [
                {
                    "filename": file.name,
                    "url": f"/files/{file.name}",
                    "hashes": {},
                    "upload-time": f"{WHEELS[one][0]}T00:00:00Z",
                }
                for one, file in files.items()
                if kind == "simple" and one.startswith(f"{name}-")
            ]
            file = tmp_path / name
            if kind == "files" and file.is_file():
                self.reply(200, file.read_bytes(), "application/octet-stream")
            elif listed:
                page = {"meta": {"api-version": "1.1"}, "name": name, "files": listed}
                self.reply(200, json.dumps(page).encode(), "application/vnd.pypi.simple.v1+json")
            else:
                self.reply(404, b"", "text/plain")

        do_HEAD = do_GET

        def reply(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}"
    for name, value in {
        "UV_DEFAULT_INDEX": f"{base}/simple/",
        "UV_PYTHON_INSTALL_MIRROR": f"{base}/pythons",
        "UV_CACHE_DIR": str(tmp_path / "cache"),
        "UV_NO_CONFIG": "1",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    yield asked
    server.shutdown()
    server.server_close()
    assert not [path for path in asked if "python" in path]


def test_a_solution_of_today_is_one_and_an_ancient_one_only_by_name(index: list[str]) -> None:
    assert resolve(["fresh"]) == ["fresh==2.0"]
    with pytest.raises(UserError, match=r"stale 1\.0, older than 2\.0") as caught:
        resolve(["stale"])
    assert '"stale==1.0"' in caught.value.cure
    assert resolve(["stale==1.0"]) == ["stale==1.0"]


REASONS = [
    ("blocked", "all versions of blocked depend on numpy==0.1 and numpy=="),
    ("absent", "absent was not found in the package registry and you require absent"),
    ("fresh>=3", "only fresh<=2.0 is available and you require fresh>=3"),
]


@pytest.mark.parametrize(("requirement", "reason"), REASONS)
def test_without_a_solution_uvs_reason_is_told(requirement: str, reason: str, index: list[str]) -> None:
    with pytest.raises(UserError, match="must have a solution") as caught:
        resolve([requirement])
    assert str(caught.value.value).startswith(reason)


def test_an_index_that_does_not_answer_is_no_missing_solution(
    index: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple/")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(UserError, match="uv must be able to look for the wheels") as caught:
        resolve(["fresh"])
    assert "127.0.0.1:9" in str(caught.value.value)
