"""The ledger: every build, rehearsal, push, submission and score, under the hash of what was submitted.

A line of JSON an event, on the disk before `append` returns (`mathlete.jsonl`).
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from itertools import accumulate
from math import comb, exp, lgamma
from pathlib import Path
from typing import Literal

from mathlete.competitions import competition
from mathlete.errors import UserError
from mathlete.jsonl import JsonLines
from mathlete.submission import Hashes

Kind = Literal["build", "rehearsal", "saving", "saved", "push", "submission", "score"]
"""`saving` is written before a notebook is saved, `saved` after it, `push` when its run on Kaggle was found good."""
_FILE = "ledger.jsonl"
_BEFORE = "aimo-3"
"""The competition of ledgers that were begun before a rehearsal said how many questions are asked."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """One thing that happened to a submission; fields that its kind lacks are None and are not written."""

    time: float
    """Seconds since 1970."""
    kind: Kind
    id: str
    """The submission, by its hashes."""
    hashes: Mapping[str, str]
    outcome: str | None = None
    """Of a rehearsal: valid or refused."""
    score: float | None = None
    """Of a rehearsal: by the competition's rule; of a score: Kaggle's."""
    problems: int | None = None
    """Of a rehearsal: its questions."""
    asked: int | None = None
    """Of a rehearsal: questions that the competition asks, of which the real score is."""
    wrong: float | None = None
    """Of a rehearsal: points of a wrong answer, where it costs any."""
    version: int | None = None
    """Kaggle's version of the notebook; of a save that has begun: the newest one before it."""
    url: str | None = None
    """Of a saved version."""
    dropped: str | None = None
    """Of a saved version: sources that Kaggle left out."""
    number: int | None = None
    """Of a submission or its score: Kaggle's number."""
    accept_refused: str | None = None
    """Of a build: why it was made though the gates of the model's training refused it."""
    run: Mapping[str, object] | None = None
    """Of a push: machine and speed of its run on Kaggle, and what fits the clock there (`mathlete.delivery.shown`)."""

    def to_json(self) -> dict[str, object]:
        """Return the event as JSON values; `from_json` reads them back."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, value: object, *, where: str) -> "Event":
        """Return the event in a parsed JSON value; keys of a later version are ignored.

        Raises:
            UserError: it holds no event; `where` is named.
        """
        if not isinstance(value, dict) or not {"time", "kind", "id"} <= value.keys():
            raise UserError(f"{where}: must be an event of the ledger", value=repr(value)[:80], cure="delete the line")
        known = {field.name: value[field.name] for field in fields(cls) if field.name in value}
        return cls(**{"hashes": {}, **known})


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A version of the notebook, saved on Kaggle."""

    version: int
    url: str
    dropped: str = ""
    """Sources that Kaggle left out: without them the version is worth nothing."""
    unknown_tags: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LedgerEntry:
    """One submission in the table."""

    id: str
    built: str
    """When it was first seen, UTC."""
    rehearsal: str
    """Outcome and score of its latest rehearsal, or –."""
    predicted: str
    """90% interval of the real score, as its latest rehearsal predicts it."""
    version: str
    """Kaggle's version of the notebook."""
    score: str
    """The real public scores, one a submission."""


class Ledger:
    """The ledger in a build's folder."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / _FILE
        self._lines = JsonLines(self.file, shared=True)

    def append(
        self,
        kind: Kind,
        hashes: Hashes,
        *,
        outcome: str | None = None,
        score: float | None = None,
        problems: int | None = None,
        asked: int | None = None,
        wrong: float | None = None,
        version: int | None = None,
        url: str | None = None,
        dropped: str | None = None,
        number: int | None = None,
        accept_refused: str | None = None,
        run: Mapping[str, object] | None = None,
    ) -> str:
        """Add an event, which is on the disk before this returns; return the submission's id."""
        event = Event(
            time=round(time.time(), 3),
            kind=kind,
            id=hashes.id,
            hashes=asdict(hashes),
            outcome=outcome,
            score=score,
            problems=problems,
            asked=asked,
            wrong=wrong,
            version=version,
            url=url,
            dropped=dropped,
            number=number,
            accept_refused=accept_refused,
            run=run,
        )
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self._lines.append(event.to_json())
        return hashes.id

    def events(self) -> list[Event]:
        """Read all events in their order, without a half-written last line.

        Raises:
            UserError: a line in the middle is no event.
        """
        return [Event.from_json(value, where=where) for where, value in self._lines.read()]

    def of(self, name: str, kind: Kind) -> list[Event]:
        """Return the events of a kind of a submission, by its id, oldest first."""
        return [event for event in self.events() if event.kind == kind and event.id == name]

    def versions(self, hashes: Hashes) -> list[int]:
        """Return Kaggle's versions of a build whose run was found good, in the order they were pushed."""
        events = [event for event in self.of(hashes.id, "push") if _is_of(event, hashes)]
        return [event.version for event in events if event.version is not None]

    def find_saved(self, hashes: Hashes) -> Saved | None:
        """Return the newest version that is saved of a build, its notebook included; None where none is."""
        # Earlier versions of this project wrote only pushes.
        events = [event for event in self.events() if event.kind in ("saved", "push") and _is_of(event, hashes)]
        versions = [event.version for event in events if event.version is not None]
        if not versions:
            return None
        of_newest = [event for event in events if event.version == versions[-1]]
        dropped = next((event.dropped for event in of_newest if event.dropped), "")
        return Saved(version=versions[-1], url=of_newest[-1].url or "", dropped=dropped or "")

    def run(self, hashes: Hashes, *, shape: str) -> Event | None:
        """Return the newest push of the same weights for the same machine whose run on Kaggle is known."""
        events = [event for event in self.events() if event.run and event.run.get("shape") == shape]
        return next((one for one in reversed(events) if one.hashes.get("weights") == hashes.weights), None)

    def find_begun(self, hashes: Hashes) -> int | None:
        """Return the version before a save that was begun and whose end is not known; None where there is none."""
        kinds = ("saving", "saved")
        events = [event for event in self.events() if event.kind in kinds and _is_of(event, hashes)]
        return events[-1].version if events and events[-1].kind == "saving" else None

    def entries(self) -> list[LedgerEntry]:
        """Return the submissions, oldest first."""
        by_id: dict[str, list[Event]] = {}
        for event in self.events():
            by_id.setdefault(event.id, []).append(event)
        return [_entry(name, events) for name, events in by_id.items()]


def _is_of(event: Event, hashes: Hashes) -> bool:
    return event.id == hashes.id and event.hashes.get("notebook") == hashes.notebook


def _entry(name: str, events: list[Event]) -> LedgerEntry:
    rehearsals = [event for event in events if event.kind == "rehearsal"]
    latest = rehearsals[-1] if rehearsals else None
    return LedgerEntry(
        id=name,
        built=datetime.fromtimestamp(events[0].time, UTC).isoformat(sep=" ", timespec="minutes")[:16],
        rehearsal=f"{latest.outcome} {latest.score:g}/{latest.problems}" if latest else "–",
        predicted=_describe_prediction(rehearsals),
        version=", ".join(dict.fromkeys(str(event.version) for event in events if event.kind in ("saved", "push")))
        or "–",
        score=", ".join(str(event.score) for event in events if event.kind == "score") or "–",
    )


def predicted_interval(score: float, asked: int, *, problems: int, wrong: float = 0.0) -> tuple[float, float]:
    """Return the 90% interval of the score of new problems of the same kind as those rehearsed.

    A right answer has one point and any other `wrong`; a score between, as of half points, counts as so many right.

    Both the share of right answers and the draw of new problems are uncertain: beta-binomial with Jeffreys' prior
    (Brown, Cai and DasGupta 2001, "Interval Estimation for a Binomial Proportion", section 4.1.2 for the prior).

    >>> predicted_interval(30, 50, problems=50), predicted_interval(10, 50, problems=50, wrong=-1.0)
    ((22, 38), (-6.0, 26.0))
    """
    right = (score - wrong * asked) / (1 - wrong)
    a, b = right + 0.5, asked - right + 0.5
    shares = [
        comb(problems, n) * exp(_log_beta(n + a, problems - n + b) - _log_beta(a, b)) for n in range(problems + 1)
    ]
    below = list(accumulate(shares))
    low, high = (next((n for n, total in enumerate(below) if total >= p), problems) for p in (0.05, 0.95))
    return (low + wrong * (problems - low), high + wrong * (problems - high)) if wrong else (low, high)


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def _describe_prediction(rehearsals: list[Event]) -> str:
    valid = [event for event in rehearsals if event.outcome == "valid"]
    if not valid or valid[-1].score is None or valid[-1].problems is None:
        return "–"
    asked = valid[-1].asked or competition(_BEFORE).problems
    low, high = predicted_interval(valid[-1].score, valid[-1].problems, problems=asked, wrong=valid[-1].wrong or 0.0)
    return f"{low:g} to {high:g} of {asked}"
