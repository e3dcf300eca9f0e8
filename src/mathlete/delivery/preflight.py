"""Preflight: all checks before a push. A model that never answers cannot pass them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mathlete.competitions import Competition, describe_changes
from mathlete.delivery.ledger import Ledger
from mathlete.delivery.shown import ClockFit, KaggleRun, fit_clock
from mathlete.delivery.uploads import require_few_files
from mathlete.errors import UserError
from mathlete.rehearsal import Thresholds, check_rehearsal
from mathlete.shipped import find_recording
from mathlete.submission import Build, Check, Hashes, Refusal, check_parts


@dataclass(frozen=True, kw_only=True)
class Preflight:
    """The outcome of all checks."""

    checks: tuple[Check, ...]
    hashes: Hashes
    """Of the build that was checked."""
    clock: ClockFit | None
    """Whether it fits the clock on Kaggle; None before the first run there of the same weights on the same machine."""

    @property
    def refusals(self) -> list[Refusal]:
        """Why the build must not be pushed; empty means go."""
        return [refusal for check in self.checks for refusal in check.refusals]


def check_before_push(
    build: Build,
    *,
    folder: Path,
    thresholds: Thresholds,
    released: str = "",
    recordings: Sequence[Path] = (),
    rules: Competition | None = None,
) -> Preflight:
    """Check a build and its rehearsal.

    Args:
        build: what would be pushed.
        folder: where its rehearsal's report is.
        thresholds: what the rehearsal must have shown.
        released: day the base model was released, YYYY-MM-DD; empty: known by its name.
        recordings: runs of `python -m eval` whose lengths are laid against the clock; none: those of the last push.
        rules: the competition's as its file has them now; None: as the build has them.

    Raises:
        UserError: a folder without a recording, or a broken file of the build.
    """
    hashes = build.hashes()
    rules = rules or build.config.competition
    as_now = Check(what="rules as they are now", refusals=tuple(_compare_with(rules, build)))
    rehearsal = check_rehearsal(hashes, folder=folder, thresholds=thresholds, rules=rules)
    files = Check(what="files to upload", refusals=tuple(_count_files(build)))
    checks = (*check_parts(build, released=released), as_now, files, rehearsal)
    return Preflight(checks=checks, hashes=hashes, clock=_fit(build, hashes, folder=folder, recordings=recordings))


def _compare_with(rules: Competition, build: Build) -> Iterator[Refusal]:
    if changes := describe_changes(build.config.competition, rules):
        rule = f"the build must be by the rules of {rules.name} as they are now"
        yield Refusal(rule=rule, value=changes, cure="run `python -m submit build` and rehearse again")


def _count_files(build: Build) -> Iterator[Refusal]:
    for folder in (build.wheels, *([build.model] if build.names.uploads_model else [])):
        try:
            require_few_files(folder)
        except UserError as error:
            yield Refusal(rule=error.rule, value=str(error.value), cure=error.cure)


def _fit(build: Build, hashes: Hashes, *, folder: Path, recordings: Sequence[Path]) -> ClockFit | None:
    event = Ledger(folder).run(hashes, shape=build.machine)
    if event is None or event.run is None:
        if recordings:
            # Refused here, where nothing has been sent yet.
            from mathlete.scoring import Pool

            Pool.read([find_recording(one) for one in recordings])
        return None
    kept = event.run.get("recordings")
    before = [Path(str(one)) for one in kept] if isinstance(kept, list) else []
    return fit_clock(
        KaggleRun.from_json(event.run),
        build.config,
        recordings=recordings or [one for one in before if find_recording(one).is_dir()],
    )
