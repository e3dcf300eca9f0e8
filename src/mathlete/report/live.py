"""Running runs as a page that follows them: samples, score with its band, time left, last traces; on this machine only.

The page is served on 127.0.0.1, to whoever asks for it by that name: a page of another site that has its own name
resolved to this machine gets nothing. It reads what runs append (`samples.jsonl`, `metrics.jsonl`) and writes nothing.
"""

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import fmean
from typing import Any

from mathlete.answers import compare
from mathlete.errors import UserError
from mathlete.folders import STARTED
from mathlete.jsonl import parse_json_lines
from mathlete.metrics import is_error_known, standard_error
from mathlete.problems import Problem, read_problems
from mathlete.report.html.pages import render
from mathlete.report.training import STEPS, is_train_run
from mathlete.runs import MANIFEST, read_json
from mathlete.sampling import Sample
from mathlete.text import strict_json

HOST = "127.0.0.1"
_LAST = 3
"""Traces shown of each run."""
_TAIL = 4000
"""Characters of them, of their end."""
_WINDOW_S = 600.0
"""Seconds over which the speed is taken."""
_POINTS = 400
"""Points of a loss curve that are drawn at most."""


@dataclass(frozen=True, kw_only=True)
class LiveTrace:
    """One of the last samples."""

    title: str
    right: bool
    text: str


@dataclass(frozen=True, kw_only=True)
class LiveState:
    """What the page shows of one run."""

    name: str
    done: int
    unit: str
    """What is counted: samples or steps."""
    total: int | None
    """None where it is not known."""
    finished: bool
    left_s: float | None
    """Seconds to go, at the speed of the last minutes; None before there is one."""
    figures: Sequence[tuple[str, str]]
    """(label, value), the first one large."""
    curve: Sequence[tuple[float, float]] = ()
    """(step, loss)."""
    traces: Sequence[LiveTrace] = ()


class _Growing:
    """A JSONL file that others append to: each look returns the whole lines that are new."""

    def __init__(self, path: Path) -> None:
        self.path, self._read = path, 0

    def read_new(self) -> list[object]:
        """Return the new lines' values; a file that became shorter is read anew by `was_cut`."""
        if not self.path.is_file():
            return []
        with self.path.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        # A line that is being mended elsewhere is no reason to stop following.
        return [value for _, value in parse_json_lines(whole.splitlines(), self.path, on_bad=lambda error: None)]

    @property
    def was_cut(self) -> bool:
        """Whether the file is shorter than what was read: another run has begun in the folder."""
        return self.path.is_file() and self.path.stat().st_size < self._read


@dataclass
class _Speed:
    """How fast a count grows."""

    seen: deque[tuple[float, int]] = field(default_factory=deque)

    def left_s(self, done: int, total: int | None, now: float) -> float | None:
        """Take one more look at the count; return the seconds until it is `total`."""
        self.seen.append((now, done))
        while self.seen[0][0] < now - _WINDOW_S:
            self.seen.popleft()
        began, before = self.seen[0]
        if total is None or done >= total or done <= before:
            return 0.0 if total is not None and done >= total else None
        return (total - done) * (now - began) / (done - before)


class _FollowedEvaluation:
    """An evaluation's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._speed = folder, _Speed()
        self._start()

    def _start(self) -> None:
        self._samples = _Growing(self.folder / "samples.jsonl")
        self._problems: dict[str, Problem] = {}
        self._right: dict[str, list[bool]] = {}
        self._tokens = 0
        self._last: deque[LiveTrace] = deque(maxlen=_LAST)

    def look(self, now: float) -> LiveState:
        """Read what is new; return how far the run is."""
        if self._samples.was_cut:
            self._start()
        if not self._problems and (file := self.folder / "problems.jsonl").is_file():
            self._problems = {problem.id: problem for problem in read_problems(file)}
        if self._problems:
            for value in self._samples.read_new():
                self._add(Sample.from_json(value, where=str(self._samples.path)))
        done = sum(map(len, self._right.values()))
        total = self._count_total()
        finished = (self.folder / MANIFEST).is_file()
        return LiveState(
            name=self.folder.resolve().name,
            done=done,
            unit="samples",
            total=total,
            finished=finished,
            left_s=None if finished else self._speed.left_s(done, total, now),
            figures=self._figures(),
            traces=[*self._last][::-1],
        )

    def _add(self, sample: Sample) -> None:
        problem = self._problems.get(sample.problem_id)
        if problem is None:
            return
        answer, gold, settings = sample.answer, problem.gold, problem.answers
        right = answer is not None and compare(answer=answer, gold=gold, settings=settings).outcome == "equal"
        self._right.setdefault(problem.id, []).append(right)
        self._tokens += sample.tokens
        said = f"answer {answer}, gold {problem.gold}" if answer is not None else f"no answer, gold {problem.gold}"
        title = f"{problem.id} #{sample.index}: {said}; {sample.tokens:,} tokens, ended by {sample.finish}"
        cut = len(sample.text) - _TAIL
        text = sample.text if cut <= 0 else f"[… {cut:,} characters …]\n{sample.text[-_TAIL:]}"
        self._last.append(LiveTrace(title=title, right=right, text=text))

    def _count_total(self) -> int | None:
        policy = _read_settings(self.folder).get("policy")
        n = policy.get("n") if isinstance(policy, dict) else None
        return n * len(self._problems) if isinstance(n, int) and self._problems else None

    def _figures(self) -> list[tuple[str, str]]:
        if not self._right:
            return [("pass@1", "–")]
        shares = [fmean(some) for some in self._right.values()]
        mean = fmean(shares)
        band = f" ± {196 * standard_error(shares):.1f}" if is_error_known(shares) else ""
        return [
            ("pass@1 so far, % (95%)", f"{100 * mean:.1f}{band}"),
            ("problems begun", f"{len(shares):,} of {len(self._problems):,}"),
            ("tokens a sample", f"{self._tokens / sum(map(len, self._right.values())):,.0f}"),
        ]


class _FollowedTraining:
    """A training run's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._speed = folder, _Speed()
        self._start()

    def _start(self) -> None:
        self._metrics, self._points = _Growing(self.folder / "adapter" / "metrics.jsonl"), list[dict[str, Any]]()

    def look(self, now: float) -> LiveState:
        """Read what is new; return how far the run is."""
        if self._metrics.was_cut:
            self._start()
        self._points += [value for value in self._metrics.read_new() if isinstance(value, dict) and "step" in value]
        last = self._points[-1] if self._points else {}
        done = int(last.get("step", 0))
        finished = any((folder / MANIFEST).is_file() for folder in self.folder.glob("export*"))
        total = self._count_steps()
        curve = [(float(point["step"]), float(point["loss"])) for point in self._points if "loss" in point]
        steps = [step for step in STEPS if (self.folder / step / MANIFEST).is_file()]
        figures = [
            ("loss", f"{last['loss']:.4f}" if "loss" in last else "–"),
            ("steps done", ", ".join(steps) or "none yet"),
        ]
        figures += [("tokens/s", f"{last['tokens_per_s']:,.0f}")] if last.get("tokens_per_s") else []
        return LiveState(
            name=self.folder.resolve().name,
            done=done,
            unit="steps",
            total=None if total is None else max(done, total),
            finished=finished,
            left_s=None if finished else self._speed.left_s(done, total, now),
            figures=figures,
            curve=curve[:: max(1, -(-len(curve) // _POINTS))],
        )

    def _count_steps(self) -> int | None:
        """Return the steps of the training, where its settings and its rows say them."""
        tune = _read_settings(self.folder / "adapter").get("tune")
        if not isinstance(tune, dict):
            return None
        if isinstance(steps := tune.get("steps"), int):
            return steps
        data = self.folder / "data" / MANIFEST
        figures = read_json(data).get("figures") if data.is_file() else None
        if not isinstance(figures, dict) or tune.get("pack"):
            return None
        rows = float(figures.get("rows", 0)) * float(tune.get("epochs", 1))
        return -int(-rows // (int(tune.get("batch", 1)) * int(tune.get("accumulate", 1))))


def _read_settings(folder: Path) -> Mapping[str, Any]:
    """Return the settings of a step that has begun; empty before it has."""
    for name in (STARTED, MANIFEST):
        if (folder / name).is_file():
            settings = read_json(folder / name).get("settings")
            return settings if isinstance(settings, dict) else {}
    return {}


class LivePage:
    """The state of some runs, looked at no more than once a second however many pages ask."""

    def __init__(self, folders: Sequence[Path], *, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the runs' folders, which need not hold anything yet."""
        if not folders:
            raise UserError("the live page follows one run or more", value="none", cure="name the runs' folders")
        if missing := [str(folder) for folder in folders if not folder.is_dir()]:
            rule, cure = "a run that is followed must be a folder", "check the path, or start the run first"
            raise UserError(rule, value=", ".join(missing), cure=cure)
        self._runs: list[_FollowedEvaluation | _FollowedTraining] = [_follow(folder) for folder in folders]
        self._lock, self._clock = threading.Lock(), clock
        self._looked, self._state = -1.0, b""

    def read(self) -> bytes:
        """Return the state as JSON: a list of `LiveState`."""
        with self._lock:
            now = self._clock()
            if not self._state or now - self._looked >= 1:
                states = [asdict(run.look(now)) for run in self._runs]
                self._looked, self._state = now, strict_json(states).encode()
            return self._state


def _follow(folder: Path) -> _FollowedEvaluation | _FollowedTraining:
    return _FollowedTraining(folder) if is_train_run(folder) else _FollowedEvaluation(folder)


def open_server(folders: Sequence[Path], *, port: int = 0) -> ThreadingHTTPServer:
    """Return a server of the page on this machine's own address, which `serve_forever` runs.

    Args:
        folders: the runs.
        port: 0 is any free one.

    Raises:
        UserError: a folder is not there, or the port is taken.
    """
    live = LivePage(folders)
    title = " · ".join(folder.resolve().name for folder in folders)
    scripts = ("page.js", "charts.js", "live.js")
    text = render("live.html.j2", title=title, scripts=scripts, content={"charts": []}, live=True).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = {f"{name}:{server.server_port}" for name in (HOST, "localhost")}
            if self.headers.get("Host") not in known:
                self.send_error(HTTPStatus.FORBIDDEN)
            elif self.path == "/":
                self._send(text, "text/html; charset=utf-8")
            elif self.path == "/state.json":
                try:
                    state = live.read()
                except UserError as error:
                    state = json.dumps({"error": str(error)}).encode()
                self._send(state, "application/json")
            else:
                self.send_error(HTTPStatus.NOT_FOUND)

        def _send(self, body: bytes, kind: str) -> None:
            self.send_response(HTTPStatus.OK)
            for name, value in (
                ("Content-Type", kind),
                ("Content-Length", str(len(body))),
                ("Cache-Control", "no-store"),
                ("Cross-Origin-Resource-Policy", "same-origin"),
                ("X-Content-Type-Options", "nosniff"),
            ):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_words: object) -> None:
            """Say nothing: the page asks every two seconds."""

    try:
        server = ThreadingHTTPServer((HOST, port), Handler)
    except OSError as error:
        raise UserError(
            "the port of a live report must be free", value=f"{port} ({error.strerror})", cure="leave out --port"
        ) from error
    server.daemon_threads = True
    return server
