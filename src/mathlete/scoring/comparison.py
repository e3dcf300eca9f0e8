"""Base against tuned: two finished runs on the same problems and the training between them, side by side."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from mathlete.errors import UserError
from mathlete.gates import find_run_export
from mathlete.metrics import (
    INFORMATIVE,
    Interval,
    format_interval,
    format_percent,
    format_with_error,
    judge_change,
    paired_difference,
)
from mathlete.runs import MANIFEST, read_manifest
from mathlete.scoring.facts import RunFacts
from mathlete.scoring.pool import verify_recording
from mathlete.scoring.results import RESULTS, Results
from mathlete.text import counted

if TYPE_CHECKING:
    from rich.table import Table

_K = 8
"""Samples of the vote that the table shows."""


@dataclass(frozen=True, kw_only=True)
class ModelScores:
    """One model's scores: on the hard problems where the suite has such a group, on all of them elsewhere."""

    pass_at_1: float
    pass_at_1_se: float | None
    maj_at_8: Interval
    easy_pass_at_1: float | None
    """pass@1 on the easy problems; None where the suite has no such group."""
    tokens_per_s: float | None
    seconds: float
    run: str
    """The evaluation's folder."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON; the interval as value and [lo, hi]."""
        return {
            "pass_at_1": self.pass_at_1,
            "pass_at_1_se": self.pass_at_1_se,
            "maj_at_8": self.maj_at_8.value,
            "maj_at_8_interval": [self.maj_at_8.lo, self.maj_at_8.hi],
            "easy_pass_at_1": self.easy_pass_at_1,
            "tokens_per_s": self.tokens_per_s,
            "seconds": self.seconds,
            "run": self.run,
        }

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Self:
        """Return the scores in their JSON."""
        lo, hi = row["maj_at_8_interval"]
        vote = Interval(value=row["maj_at_8"], lo=lo, hi=hi)
        plain = {key: value for key, value in row.items() if not key.startswith("maj_at_8")}
        return cls(**plain, maj_at_8=vote)


@dataclass(frozen=True, kw_only=True)
class TuningResult:
    """What a training run changed in the scores, and what its exports lost."""

    base: ModelScores
    tuned: ModelScores
    difference: Interval
    """tuned - base of the per-problem pass@1 on the hard problems, with its paired 95% interval."""
    differing: int | None = None
    """Of these problems, those on which they differ; None in a file that was written before they were counted."""
    kl_merged: float | None
    kl_int8: float | None
    """KL divergence from the trained model, nats a token; None where the training run did not measure it."""
    seconds: float
    """Of both evaluations and the training together."""
    train_run: str

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON."""
        by = self.difference
        return {
            "base": self.base.to_json(),
            "tuned": self.tuned.to_json(),
            "paired": {"difference": by.value, "lo": by.lo, "hi": by.hi, "differing": self.differing},
            "kl_merged": self.kl_merged,
            "kl_int8": self.kl_int8,
            "seconds": self.seconds,
            "train_run": self.train_run,
        }

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Self:
        """Return the result among the keys of a JSON object."""
        by = row["paired"]
        plain = {key: row[key] for key in ("kl_merged", "kl_int8", "seconds", "train_run")}
        return cls(
            **plain,
            base=ModelScores.from_json(row["base"]),
            tuned=ModelScores.from_json(row["tuned"]),
            difference=Interval(value=by["difference"], lo=by["lo"], hi=by["hi"]),
            differing=by.get("differing"),
        )

    def to_table(self) -> "Table":
        """Return both models for the terminal, a line each."""
        from mathlete.tables import FittingTable

        title = "base and tuned on the same problems: the hard ones, and pass@1 of the easy ones"
        table = FittingTable(
            title,
            columns=("", "pass@1 ± se", f"maj@{_K} [95%]", "easy", "tokens/s"),
            extra=("seconds", "run"),
            left=("", "run"),
        )
        for name, scores in (("base", self.base), ("tuned", self.tuned)):
            table.add_row(
                name,
                format_with_error(scores.pass_at_1, scores.pass_at_1_se),
                format_interval(scores.maj_at_8),
                format_percent(scores.easy_pass_at_1),
                "–" if scores.tokens_per_s is None else f"{scores.tokens_per_s:.0f}",
                f"{scores.seconds:.0f}",
                scores.run,
            )
        return table

    def describe(self) -> str:
        """Return the paired difference, and whether it shows anything."""
        return describe_difference(self.difference, differing=self.differing)


def describe_difference(by: Interval, *, differing: int | None = None) -> str:
    """Return a paired difference of pass@1 in a sentence.

    >>> describe_difference(Interval(value=0.123, lo=0.1, hi=0.15))
    'pass@1 on hard problems: tuned is +12.3 points against base, paired 95% interval [+10.0, +15.0]: better'
    >>> describe_difference(Interval(value=0.01, lo=-0.02, hi=0.04))
    'pass@1 on hard problems: tuned is +1.0 points against base, paired 95% interval [-2.0, +4.0]: no difference shown'
    >>> describe_difference(Interval(value=0.04, lo=0.01, hi=0.08), differing=4)[-56:]
    'too few to say: they differ on 4 problems, 10 are needed'
    """
    value, lo, hi = (f"{100 * share:+.1f}" for share in (by.value, by.lo, by.hi))
    shown = judge_change(by, differing=differing)
    verdict = {"better": "better", "worse": "worse"}.get(shown, "no difference shown")
    if differing is not None and differing < INFORMATIVE:
        verdict = f"too few to say: they differ on {counted(differing, 'problem')}, {INFORMATIVE} are needed"
    return f"pass@1 on hard problems: tuned is {value} points against base, paired 95% interval [{lo}, {hi}]: {verdict}"


def compare_tuned(*, base: Path, tuned: Path, train: Path) -> TuningResult:
    """Compare the evaluations of a model before and after a training run, given as folders.

    Raises:
        UserError: a run is unfinished, or the two are not of the same problems and n.
    """
    before, after = _read_finished(base), _read_finished(tuned)
    _check_comparable(before[1], after[1])
    exported = _read_export_figures(train)
    passes = _hard_passes(before[0]), _hard_passes(after[0])
    return TuningResult(
        base=_model_scores(*before, base),
        tuned=_model_scores(*after, tuned),
        difference=paired_difference(*passes),
        differing=sum(a != b for a, b in zip(*passes, strict=True)),
        kl_merged=exported.get("kl_merged"),
        kl_int8=exported.get("kl_int8"),
        seconds=round(sum(_step_seconds(folder) for folder in (base, tuned, train)), 1),
        train_run=str(train),
    )


def _read_finished(folder: Path) -> tuple[Results, RunFacts]:
    for name in (MANIFEST, RESULTS):
        if not (folder / name).is_file():
            raise UserError(
                f"a finished run has its {name}",
                value=f"none in {folder}",
                cure="run `python -m eval` with that --run to its end first",
            )
    verify_recording(folder)
    results = Results.read(folder)
    assert results.facts is not None  # only a run that is read from its samples has none
    return results, results.facts


def _check_comparable(base: RunFacts, tuned: RunFacts) -> None:
    for key, a, b in (
        ("suite", base.settings.suite, tuned.settings.suite),
        ("suite_sha", base.settings.suite_sha, tuned.settings.suite_sha),
        ("problems", base.settings.problems, tuned.settings.problems),
        ("n", base.n, tuned.n),
    ):
        if a != b:
            raise UserError(
                f"two runs compare only with the same {key}",
                value=f"{a} and {b}",
                cure="evaluate both models with the same command but for --model and --run",
            )


def _hard_passes(results: Results) -> list[float]:
    grouped = "hard" in results.groups
    rows = results.per_problem
    return [row.pass_at_1 for row in rows if not grouped or row.subset.split("/")[0] == "hard"]


def _model_scores(results: Results, facts: RunFacts, folder: Path) -> ModelScores:
    hard, easy = results.groups.get("hard", results.scores), results.groups.get("easy")
    if _K not in hard.maj_at:
        rule = f"maj@{_K} needs at least {_K} samples a problem"
        raise UserError(rule, value=hard.k, cure=f"evaluate with --n {_K} or more")
    return ModelScores(
        pass_at_1=hard.pass_at_1,
        pass_at_1_se=hard.pass_at_1_se,
        maj_at_8=hard.maj_at[_K],
        easy_pass_at_1=easy.pass_at_1 if easy else None,
        tokens_per_s=facts.tokens_per_s,
        seconds=facts.seconds,
        run=str(folder),
    )


def _read_export_figures(train: Path) -> dict[str, Any]:
    manifest = (find_run_export(train) or train / "export") / MANIFEST
    if not manifest.is_file():
        raise UserError(
            "--train must be a finished training run",
            value=f"no {manifest}",
            cure="run `python -m train math` with that --run to its end first",
        )
    figures = read_manifest(manifest.parent).get("figures")
    return figures if isinstance(figures, dict) else {}


def _step_seconds(folder: Path) -> float:
    """Return the seconds of a step, or of all the steps of a run of several."""
    manifests = [folder / MANIFEST] if (folder / MANIFEST).is_file() else sorted(folder.glob(f"*/{MANIFEST}"))
    return sum(float(str(read_manifest(manifest.parent).get("seconds", 0.0))) for manifest in manifests)
