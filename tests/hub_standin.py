"""A server on the loopback that speaks what huggingface_hub calls, and keeps repositories as the hub does.

It takes nothing on trust: contents must have the hash they were announced with, a commit may name no content that did
not come, and every request needs the token. `fail` says which requests go wrong, and whether they count all the same.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_" + "t" * 34
Json = dict[str, Any]


@dataclass
class Kept:
    """A repository."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=lambda: ["initial commit"])
    """Their messages."""


@dataclass
class HubServer:
    """What the server holds, and what it was asked."""

    repos: dict[str, Kept] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    """{SHA-256: a file's bytes}, of those that do not travel in a commit."""
    calls: list[str] = field(default_factory=list)
    fail: dict[str, list[tuple[int, bool]]] = field(default_factory=dict)
    """{call: (HTTP status, whether it counts all the same) of its first requests}."""
    url: str = ""

    def answer(self, method: str, path: str, body: bytes) -> tuple[str, int, Any]:
        """Return (the call's name, status, what is answered)."""
        for name, verb, pattern in CALLS:
            if verb == method and (match := re.fullmatch(pattern, path)):
                return name, *getattr(self, name)(body, *match.groups())
        return "unknown", 404, {"error": f"no such page: {method} {path}"}

    def whoami(self, body: bytes) -> tuple[int, Json]:
        return 200, {"type": "user", "name": "alice", "auth": {"type": "access_token"}}

    def create(self, body: bytes) -> tuple[int, Json]:
        asked = json.loads(body)
        repo = f"{asked.get('organization') or 'alice'}/{asked['name']}"
        if repo in self.repos:
            return 409, {"error": "You already created this model repo", "url": f"{self.url}/{repo}"}
        private = asked.get("private", False) or asked.get("visibility") == "private"
        self.repos[repo] = Kept(private=private, files={".gitattributes": b"*.safetensors filter=lfs\n"})
        return 200, {"url": f"{self.url}/{repo}", "id": "0" * 24}

    def info(self, body: bytes, repo: str) -> tuple[int, Json]:
        kept = self.repos[repo]
        return 200, {
            "id": repo,
            "modelId": repo,
            "private": kept.private,
            "sha": _oid(kept),
            "tags": [],
            "siblings": [],
        }

    def commits(self, body: bytes, repo: str) -> tuple[int, list[Json]]:
        kept = self.repos[repo]
        facts: Json = {"authors": [{"user": "alice"}], "date": "2026-11-01T00:00:00.000Z", "message": ""}
        return 200, [{"id": f"{at:040x}", "title": title, **facts} for at, title in enumerate(kept.commits)][::-1]

    def tree(self, body: bytes, repo: str) -> tuple[int, list[Json]]:
        files = self.repos[repo].files.items()
        return 200, [{"type": "file", "path": path, "size": len(data), "oid": _blob(data)} for path, data in files]

    def validate(self, body: bytes) -> tuple[int, Json]:
        content = json.loads(body)["content"]
        if not content.startswith("---\n") or "license: 7" in content:
            return 400, {"error": "invalid", "errors": [{"message": '"license" must be a string'}], "warnings": []}
        return 200, {"errors": [], "warnings": []}

    def preupload(self, body: bytes, repo: str) -> tuple[int, Json]:
        kept = self.repos[repo]
        return 200, {
            "files": [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                    "oid": _remote_oid(file["path"], kept),
                }
                for file in json.loads(body)["files"]
            ]
        }

    def batch(self, body: bytes, repo: str) -> tuple[int, Json]:
        objects = [
            {
                **one,
                "actions": {} if one["oid"] in self.contents else {"upload": {"href": f"{self.url}/lfs/{one['oid']}"}},
            }
            for one in json.loads(body)["objects"]
        ]
        return 200, {"transfer": "basic", "objects": [{k: v for k, v in one.items() if v != {}} for one in objects]}

    def put(self, body: bytes, oid: str) -> tuple[int, Json]:
        if hashlib.sha256(body).hexdigest() != oid:
            return 400, {"error": "the content has another hash"}
        self.contents[oid] = body
        return 200, {}

    def commit(self, body: bytes, repo: str) -> tuple[int, Json]:
        kept, title = self.repos[repo], ""
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            match line["key"]:
                case "header":
                    title = value["summary"]
                case "file":
                    kept.files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    kept.files[value["path"]] = self.contents[value["oid"]]
                case "deletedFile":
                    del kept.files[value["path"]]
                case other:
                    return 400, {"error": f"no such operation: {other}"}
        kept.commits.append(title)
        return 200, {"success": True, "commitOid": _oid(kept), "commitUrl": f"{self.url}/{repo}/commit/{_oid(kept)}"}


_REPO = r"([\w.-]+/[\w.-]+)"
CALLS = [
    ("whoami", "GET", "/api/whoami-v2"),
    ("create", "POST", "/api/repos/create"),
    ("validate", "POST", "/api/validate-yaml"),
    ("info", "GET", f"/api/models/{_REPO}(?:/revision/main)?"),
    ("commits", "GET", f"/api/models/{_REPO}/commits/main"),
    ("tree", "GET", f"/api/models/{_REPO}/tree/main"),
    ("preupload", "POST", f"/api/models/{_REPO}/preupload/main"),
    ("batch", "POST", rf"/{_REPO}\.git/info/lfs/objects/batch"),
    ("put", "PUT", r"/lfs/([0-9a-f]{64})"),
    ("commit", "POST", f"/api/models/{_REPO}/commit/main"),
]
"""(name, method, path) of what is answered."""


def _oid(kept: Kept) -> str:
    return f"{len(kept.commits) - 1:040x}"


def _blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _remote_oid(path: str, kept: Kept) -> str | None:
    if path not in kept.files:
        return None
    data = kept.files[path]
    return hashlib.sha256(data).hexdigest() if path.endswith(".safetensors") else _blob(data)


@contextmanager
def serve_hub() -> Iterator[HubServer]:
    """Serve an empty hub."""
    server = HubServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.partition("?")[0]
            # Contents go to an address that is signed by itself.
            if not path.startswith("/lfs/") and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self._send(401, {"error": "Invalid credentials in Authorization header"})
                return
            repo = re.match(rf"/(?:api/models/)?{_REPO}(?=[/.]|$)", path)
            if path.startswith("/api/models/") and repo and repo[1] not in server.repos:
                self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
                return
            name = next(
                (name for name, verb, pattern in CALLS if verb == self.command and re.fullmatch(pattern, path)), ""
            )
            server.calls.append(name or f"{self.command} {path}")
            wrong = server.fail[name].pop(0) if server.fail.get(name) else None
            if wrong and not wrong[1]:
                self._send(wrong[0], {"error": "not now"})
                return
            _, status, value = server.answer(self.command, path, body)
            self._send(*((wrong[0], {"error": "not now"}) if wrong else (status, value)))

        def _send(self, status: int, value: object, headers: dict[str, str] | None = None) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            for name, text in {"Content-Type": "application/json", **(headers or {})}.items():
                self.send_header(name, text)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = _serve

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{listening.server_address[1]}"
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()
