"""The ledger: every build, rehearsal, push and score of a submission, by the hash of what it was made of.

One JSON line an event, appended and flushed to disk; a line that a kill cut short is dropped at the next opening.
"""

import fcntl
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate
from math import comb, exp, lgamma
from pathlib import Path
from typing import Any, Literal

from mathlete.errors import UserError
from mathlete.jsonl import read_json_lines
from mathlete.runs import sha256_json

Kind = Literal["build", "rehearsal", "push", "submission", "score"]
LEDGER = "ledger.jsonl"
_PARTS = ("code", "weights", "wheels", "metadata", "image")


def submission_id(hashes: Mapping[str, str]) -> str:
    """Twelve hex digits of code, weights, wheels, metadata and image: two submissions with one id are the same."""
    return sha256_json({part: hashes[part] for part in _PARTS})[:12]


def append(file: Path, kind: Kind, hashes: Mapping[str, str], **facts: object) -> str:
    """Adds an event, on the disk before this returns; returns the submission's id."""
    name = submission_id(hashes)
    line = {"time": round(time.time(), 3), "kind": kind, "id": name, "hashes": dict(hashes), **facts}
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab+") as lines:
        fcntl.flock(lines, fcntl.LOCK_EX)
        _drop_half_line(lines)
        lines.write((json.dumps(line, ensure_ascii=False, default=str) + "\n").encode())
        lines.flush()
        os.fsync(lines.fileno())
    return name


def _drop_half_line(lines: Any) -> None:
    lines.seek(0)
    content = lines.read()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        lines.truncate(whole)


def events(file: Path) -> list[dict[str, Any]]:
    """All events in their order, without a half-written last line.

    Raises:
        UserError: a line in the middle that is no event.
    """
    if not file.is_file():
        return []
    whole = file.read_bytes().rfind(b"\n") + 1
    if whole == 0:
        return []
    found: list[dict[str, Any]] = []
    for where, row in read_json_lines(file) if whole == file.stat().st_size else _whole_lines(file, whole):
        if not isinstance(row, dict) or not {"time", "kind", "id"} <= row.keys():
            raise UserError(f"{where}: must be an event of the ledger", value=repr(row)[:80], cure="delete the line")
        found.append(row)
    return found


def _whole_lines(file: Path, whole: int) -> list[tuple[str, object]]:
    lines = file.read_bytes()[:whole].decode().splitlines()
    return [(f"{file}:{number}", json.loads(line)) for number, line in enumerate(lines, start=1) if line.strip()]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One submission in the table."""

    id: str
    built: str
    """When it was first seen, UTC."""
    rehearsal: str
    """Outcome and penalised score of its latest rehearsal, or –."""
    predicted: str
    """90% interval of the score that its rehearsals foretell, of the competition's number of problems."""
    version: str
    """Kaggle's version of the notebook."""
    score: str
    """The real public scores, one a submission."""


def table(file: Path, *, problems: int = 50) -> list[Row]:
    """The submissions, oldest first."""
    rows = []
    by_id: dict[str, list[dict[str, Any]]] = {}
    for event in events(file):
        by_id.setdefault(event["id"], []).append(event)
    for name, all_of_it in by_id.items():
        rehearsals = [event for event in all_of_it if event["kind"] == "rehearsal"]
        latest = rehearsals[-1] if rehearsals else None
        rows.append(
            Row(
                id=name,
                built=datetime.fromtimestamp(all_of_it[0]["time"], UTC).isoformat(sep=" ", timespec="minutes")[:16],
                rehearsal=f"{latest['outcome']} {latest['score']:g}/{latest['problems']}" if latest else "–",
                predicted=_predicted(rehearsals, problems),
                version=", ".join(str(event["version"]) for event in all_of_it if event["kind"] == "push") or "–",
                score=", ".join(str(event["score"]) for event in all_of_it if event["kind"] == "score") or "–",
            )
        )
    return rows


def predicted_interval(right: float, asked: int, *, problems: int) -> tuple[int, int]:
    """90% interval of the right answers among new problems of the same kind as those rehearsed.

    The share is uncertain by the problems asked, and the score again by those to come: beta-binomial with Jeffreys'
    prior (Brown, Cai and DasGupta 2001, "Interval Estimation for a Binomial Proportion", section 4.1.2 for the prior).

    >>> predicted_interval(30, 50, problems=50)
    (22, 38)
    """
    a, b = right + 0.5, asked - right + 0.5
    shares = [
        comb(problems, n) * exp(_log_beta(n + a, problems - n + b) - _log_beta(a, b)) for n in range(problems + 1)
    ]
    below = list(accumulate(shares))
    low, high = (next((n for n, total in enumerate(below) if total >= p), problems) for p in (0.05, 0.95))
    return low, high


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def _predicted(rehearsals: list[dict[str, Any]], problems: int) -> str:
    valid = [event for event in rehearsals if event["outcome"] == "valid"]
    if not valid:
        return "–"
    low, high = predicted_interval(valid[-1]["score"], valid[-1]["problems"], problems=problems)
    return f"{low} to {high} of {problems}"
