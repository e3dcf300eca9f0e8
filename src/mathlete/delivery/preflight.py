"""Preflight: all checks before a push. A model that never answers cannot pass them."""

from dataclasses import dataclass
from pathlib import Path

from mathlete.rehearsal import Thresholds, check_rehearsal
from mathlete.submission import Build, Check, Hashes, Refusal, check_parts


@dataclass(frozen=True, kw_only=True)
class Preflight:
    """The outcome of all checks."""

    checks: tuple[Check, ...]
    hashes: Hashes
    """Of the build that was checked."""

    @property
    def refusals(self) -> list[Refusal]:
        """Why the build must not be pushed; empty means go."""
        return [refusal for check in self.checks for refusal in check.refusals]


def check_before_push(build: Build, *, folder: Path, thresholds: Thresholds, released: str = "") -> Preflight:
    """Check a build and its rehearsal.

    Args:
        build: what would be pushed.
        folder: where its rehearsal's report is.
        thresholds: what the rehearsal must have shown.
        released: day the base model was released, YYYY-MM-DD; empty: known by its name.
    """
    hashes = build.hashes()
    rehearsal = check_rehearsal(hashes, folder=folder, thresholds=thresholds)
    return Preflight(checks=(*check_parts(build, released=released), rehearsal), hashes=hashes)
