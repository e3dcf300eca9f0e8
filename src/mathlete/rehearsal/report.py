"""The report of a rehearsal: what preflight reads before a push."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from mathlete.organiser import list_golds
from mathlete.problems import Problem
from mathlete.rehearsal.draft import RehearsalSettings
from mathlete.rehearsal.scorer import score_runs
from mathlete.rehearsal.speed import FASTEST
from mathlete.rehearsal.verdict import Rehearsed, RunFigures
from mathlete.runs import read_record, write_json
from mathlete.submission import Build, Hashes

_SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """The settings and packages that the notebook was rehearsed with."""

    layout: str = ""
    order: str = ""
    speed: float = FASTEST
    """What every limit was divided by."""
    stand_in: bool = False
    """Whether another model stood in for the build's: only the wiring was rehearsed."""
    skips_vllm: bool = False
    """Whether the wheels of vLLM, the build's engine, were not mounted: nothing is known of it."""
    image: tuple[str, ...] = ()
    """The image's packages that were used, NAME==VERSION; empty: this machine's."""
    changes: tuple[str, ...] = ()
    """In words, how the notebook that ran differs from the one in kaggle/."""


@dataclass(frozen=True, kw_only=True)
class RehearsalReport:
    """The runs of one build, and the hashes of what was rehearsed."""

    file_name: ClassVar[str] = "rehearsal.json"
    """In the build's folder."""
    written: float = 0.0
    """Seconds since 1970."""
    competition: str = ""
    rules: Mapping[str, object] = field(default_factory=dict)
    """The competition's, under which it was rehearsed; none in reports of before."""
    hashes: Mapping[str, str]
    """SHA-256 of each part of the build."""
    runs: tuple[RunFigures, ...]
    outcome: str
    """valid, or refused where any run was."""
    penalised_score: float = 0.0
    """The competition's score of the runs together, whatever its rule."""
    scorer: tuple[Mapping[str, Any], ...] = ()
    """What the competition's scorer and mathlete's checker said of each rerun; earlier versions wrote nothing."""
    problems: int = 0
    commit: bool = False
    """Whether the commit run alone was rehearsed, with its three placeholder questions."""
    settings: Conditions = Conditions()

    def to_json(self) -> dict[str, object]:
        """Return the report as JSON values; `from_json` reads them back."""
        return {"schema": _SCHEMA, **asdict(self)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "RehearsalReport":
        """Return the report in a value that `to_json` made, perhaps of an earlier version, which wrote no image."""
        figures = [_select_known(RunFigures, run) for run in value["runs"]]
        runs = tuple(RunFigures(**{**run, "left": tuple(run.get("left", ()))}) for run in figures)
        settings = _select_known(Conditions, value.get("settings", {}))
        for name in ("image", "changes"):
            settings[name] = tuple(settings.get(name, ()))
        conditions = Conditions(**settings)
        said = tuple(value.get("scorer", ()))
        return cls(**{**_select_known(cls, value), "runs": runs, "scorer": said, "settings": conditions})


def write_report(
    build: Build,
    runs: Sequence[Rehearsed],
    problems: Sequence[Problem],
    settings: RehearsalSettings,
    *,
    image: Sequence[str],
    hashes: Hashes,
    folder: Path,
) -> RehearsalReport:
    """Sum up the runs of one build in rehearsal.json, which preflight reads.

    Args:
        build: what was rehearsed.
        runs: all, in their order.
        problems: the questions, with their golds.
        settings: how it was rehearsed.
        image: packages of the image that were used, NAME==VERSION each.
        hashes: of the build, taken before the first run: what is edited while it runs is another build.
        folder: the build's.
    """
    rules = build.config.competition
    golds = list_golds(problems, rules=rules)
    reruns = [run for run in runs if not run.commit]
    sent = [{name: str(answer) for name, answer in run.answers.items()} for run in reruns] or [{}]
    report = RehearsalReport(
        written=time.time(),
        competition=rules.name,
        rules=rules.to_json(),
        hashes=asdict(hashes),
        runs=tuple(run.figures() for run in runs),
        outcome="refused" if any(run.refusal for run in runs) else "valid",
        penalised_score=score_runs(sent, golds=golds, rules=rules),
        scorer=tuple(one.to_summary() for run in reruns if (one := run.explain(golds=golds, rules=rules).scorer)),
        problems=len(problems),
        commit=not settings.rerun,
        settings=Conditions(
            layout=settings.layout,
            order=settings.order,
            speed=settings.speed,
            stand_in=settings.stand_in is not None,
            skips_vllm=settings.skips_vllm(build),
            image=tuple(image),
            changes=runs[-1].changes,
        ),
    )
    write_json(folder / RehearsalReport.file_name, report.to_json())
    return report


def load_report(folder: Path) -> RehearsalReport | None:
    """Read the report in a build's folder; None where there is none.

    Raises:
        UserError: the file is no report.
    """
    file = folder / RehearsalReport.file_name
    return read_record(file, RehearsalReport.from_json) if file.is_file() else None


def _select_known(kind: type, value: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    return {name: part for name, part in value.items() if name in names}
