"""Base against tuned: two finished runs on the same problems, side by side, with the paired difference."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathlete.errors import UserError
from mathlete.metrics import Interval, paired_difference, percent, plus_minus, with_interval
from mathlete.runs import MANIFEST, read_json

if TYPE_CHECKING:
    from rich.table import Table

_SHARED = ("suite", "suite_sha", "problems", "n")


def base_and_tuned(*, base: Path, tuned: Path, train: Path) -> dict[str, Any]:
    """{"base", "tuned", "paired", "kl_merged", "kl_int8", "seconds", "train_run"}: what `make demo` writes.

    Scores are over the suite's hard group where it has one; `paired` is tuned - base of their per-problem pass@1.
    `seconds` is all three runs' together.

    Raises:
        UserError: a run is unfinished, or the two are not of the same problems and n.
    """
    runs = {"base": _finished(base), "tuned": _finished(tuned)}
    for key in _SHARED:
        if runs["base"][key] != runs["tuned"][key]:
            raise UserError(
                f"two runs compare only with the same {key}",
                value=f"{runs['base'][key]} and {runs['tuned'][key]}",
                cure="evaluate both models with the same command but for --model and --run",
            )
    folders = {"base": base, "tuned": tuned}
    exported = _export_figures(train)
    found: dict[str, Any] = {name: _side(run, folders[name]) for name, run in runs.items()}
    difference = paired_difference(_hard_passes(runs["base"]), _hard_passes(runs["tuned"]))
    return {
        **found,
        "paired": _as_difference(difference),
        "kl_merged": exported.get("kl_merged"),
        "kl_int8": exported.get("kl_int8"),
        "seconds": round(sum(_step_seconds(folder) for folder in (base, tuned, train)), 1),
        "train_run": str(train),
    }


def comparison_table(found: dict[str, Any]) -> "Table":
    """The demo's table."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title="base and tuned on the same problems: hard ones, easy ones' pass@1 beside",
    )
    for name in ("", "pass@1 ± se", "maj@8 [95%]", "easy", "tokens/s", "seconds", "run"):
        table.add_column(name, justify="left" if name in ("", "run") else "right", no_wrap=True)
    for name in ("base", "tuned"):
        row = found[name]
        table.add_row(
            name,
            plus_minus(row["pass_at_1"], row["pass_at_1_se"]),
            with_interval(row["maj_at_8"], row["maj_at_8_interval"]),
            percent(row["easy_pass_at_1"]),
            "–" if row["tokens_per_s"] is None else f"{row['tokens_per_s']:.0f}",
            f"{row['seconds']:.0f}",
            row["run"],
        )
    return table


def difference_in_words(found: dict[str, Any]) -> str:
    """The paired difference, and whether it is one.

    >>> difference_in_words({"paired": {"difference": 0.123, "lo": 0.1, "hi": 0.15}})
    'pass@1 on hard problems: tuned is +12.3 points against base, paired 95% interval [+10.0, +15.0]: better'
    >>> difference_in_words({"paired": {"difference": 0.01, "lo": -0.02, "hi": 0.04}})
    'pass@1 on hard problems: tuned is +1.0 points against base, paired 95% interval [-2.0, +4.0]: no difference shown'
    """
    points = {key: f"{100 * value:+.1f}" for key, value in found["paired"].items()}
    lo, hi = found["paired"]["lo"], found["paired"]["hi"]
    verdict = "better" if lo > 0 else "worse" if hi < 0 else "no difference shown"
    return (
        f"pass@1 on hard problems: tuned is {points['difference']} points against base, "
        f"paired 95% interval [{points['lo']}, {points['hi']}]: {verdict}"
    )


def _finished(folder: Path) -> dict[str, Any]:
    for name in (MANIFEST, "results.json"):
        if not (folder / name).is_file():
            raise UserError(
                f"a finished run has its {name}",
                value=f"none in {folder}",
                cure="run `python -m eval` with that --run to its end first",
            )
    return read_json(folder / "results.json")


def _hard(run: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = run["groups"].get("hard", run)
    return found


def _hard_passes(run: dict[str, Any]) -> list[float]:
    rows = run["per_problem"]
    return [row["pass_at_1"] for row in rows if "hard" not in run["groups"] or row["subset"].split("/")[0] == "hard"]


def _side(run: dict[str, Any], folder: Path) -> dict[str, Any]:
    hard = _hard(run)
    majority = hard["maj_at"].get("8")
    if majority is None:
        raise UserError("maj@8 needs at least 8 samples a problem", value=hard["k"], cure="evaluate with --n 8 or more")
    return {
        "pass_at_1": hard["pass_at_1"],
        "pass_at_1_se": hard["pass_at_1_se"],
        "maj_at_8": majority["value"],
        "maj_at_8_interval": [majority["lo"], majority["hi"]],
        "easy_pass_at_1": run["groups"].get("easy", {}).get("pass_at_1"),
        "tokens_per_s": run["tokens_per_s"],
        "seconds": run["seconds"],
        "run": str(folder),
    }


def _as_difference(interval: Interval) -> dict[str, float]:
    values = asdict(interval)
    return {"difference": values["value"], "lo": values["lo"], "hi": values["hi"]}


def _export_figures(train: Path) -> dict[str, Any]:
    manifest = train / "export" / MANIFEST
    if not manifest.is_file():
        raise UserError(
            "--train must be a finished training run",
            value=f"no {manifest}",
            cure="run `python -m train math` with that --run to its end first",
        )
    figures = read_json(manifest).get("figures")
    return figures if isinstance(figures, dict) else {}


def _step_seconds(folder: Path) -> float:
    """Seconds of a step, or of all the steps of a run of several."""
    manifests = [folder / MANIFEST] if (folder / MANIFEST).is_file() else sorted(folder.glob(f"*/{MANIFEST}"))
    return sum(float(str(read_json(manifest).get("seconds", 0.0))) for manifest in manifests)
