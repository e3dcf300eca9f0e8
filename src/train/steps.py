"""The steps of `python -m train math`: each a function from folders to a folder, skipped where nothing changed."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mathlete.command import busy, noting, progress
from mathlete.corpus import parse_source
from mathlete.errors import UserError
from mathlete.export import ANSWERS, EXPORT_FORMATS, TunedModel, export_model, measure_effect, merge_adapter
from mathlete.export.records import Hop
from mathlete.models import ModelSource
from mathlete.rows import FormatStep, RowFiles
from mathlete.runs import REPORT, Advance, Step, require_space, run_step, sha256_json
from mathlete.tune import AdapterFolder, Ranks, Recipe, train_adapter
from train.settings import MathSettings

_WEIGHT_FILES = ("config.json", ".safetensors", ".safetensors.index.json")
"""How the files end that hold what was trained: an adapter, or a whole model."""
_SPARE_BYTES = 64 * 2**20
"""Rows, adapter, checkpoints and logs of a small run."""


@dataclass(frozen=True, kw_only=True)
class MathRun:
    """One training run: its settings, the model it starts from, and the folders its steps write."""

    settings: MathSettings
    model: ModelSource
    say: Callable[[Any], None]
    """Prints a line or a table for a person."""

    @cached_property
    def folder(self) -> Path:
        """The run's folder; the default name is made of the settings, so that the same command goes on with it."""
        if self.settings.run is not None:
            return self.settings.run
        data, after = self.settings.data, self.settings.after
        # Where the data lie and how many processes read them changes no weight.
        corpus = {k: v for k, v in asdict(data.corpus).items() if k not in ("mirror", "num_proc", "ray")}
        key = {
            "model": asdict(self.model),
            "corpus": corpus,
            "rows": asdict(data.rows),
            "filters": asdict(data.filters),
            "recipe": asdict(self.settings.recipe),
            "merge_base": after.merge_base,
            "forgetting": asdict(after.forgetting),
            "survival": asdict(after.survival),
            "seed": self.settings.seed,
        }
        return Path("runs") / f"train-{Path(self.model.name).name}-{sha256_json(key)[:8]}"

    @cached_property
    def formatting(self) -> FormatStep:
        """The problems, traces and suites that the rows are made of."""
        data = self.settings.data
        return FormatStep(
            corpus=data.corpus, rows=data.rows, filters=data.filters, model=self.model, seed=self.settings.seed
        )

    @property
    def data(self) -> Path:
        """The folder of the rows."""
        return self.folder / "data"

    @property
    def rows(self) -> RowFiles:
        """The files in the folder of the rows."""
        return RowFiles(self.data)

    @property
    def adapter(self) -> Path:
        """The folder of what is trained: an adapter, or a whole model."""
        return self.folder / "adapter"

    @property
    def effect(self) -> Path:
        """The folder of the answers before and after training."""
        return self.folder / "effect"

    @property
    def merged(self) -> Path:
        """The folder of the merged model, 16 bit."""
        return self.folder / "merged"

    @property
    def tuned(self) -> TunedModel:
        """Base, rows and trained weights, as the steps after training read them."""
        base = self.settings.after.merge_base
        return TunedModel(source=self.model, data=self.data, adapter=self.adapter, base=base)

    @property
    def model_files(self) -> dict[str, Path]:
        """The base model's folder, as a step's input; none for a hub model."""
        return {"model": self.model.folder} if self.model.folder else {}

    @property
    def trained_files(self) -> dict[str, Path]:
        """Base, trained weights and held-out rows, as a step's inputs."""
        weights = {file.name: file for file in sorted(self.adapter.iterdir()) if file.name.endswith(_WEIGHT_FILES)}
        return {**self.model_files, **weights, "heldout": self.rows.heldout}


def check_run(run: MathRun) -> None:
    """Checks all that can be known before the run's folder is made: bad input must leave nothing half-written.

    Raises:
        UserError: bad input, a method or base that can't be merged, a format the GPU can't run, or no room.
    """
    recipe, after, until = run.settings.recipe, run.settings.after, run.settings.until
    run.formatting.check()
    if not recipe.spec.mergeable and until in ("merge", "export"):
        raise UserError(
            f"--method {recipe.method} trains no weights that could be merged",
            value=f"--until {until}",
            cure="use --until tune and load base and adapter with peft (docs/training.md), or another --method",
        )
    if after.merge_base == "original" and until in ("merge", "export") and run.model.is_quantized():
        raise UserError(
            "--merge-base original needs the model's original weights",
            value=f"{run.model.location}, which is quantised",
            cure="use --merge-base dequant, or --model with the original",
        )
    if after.forgetting.source:
        parse_source(after.forgetting.source)
    for name in dict.fromkeys(after.export.formats) if until == "export" else ():
        EXPORT_FORMATS[name].require(after.export.gpu)
    require_space(run.folder, needed_bytes=2 * run.model.weight_bytes + _SPARE_BYTES)


def run_steps(run: MathRun) -> list[Step]:
    """Runs the steps, goes on with them, or skips what is done; returns them.

    Raises:
        UserError: bad input, no room, a folder that is not this run's, or a hop that cost more than its limit.
    """
    check_run(run)
    done: list[Step] = []
    with noting(lambda: [f"{step.folder}, finished" for step in done]):
        for step in _steps(run):
            run.say(f"{step.name}: {'nothing changed, skipped' if step.skipped else describe_step(step)}")
            done.append(step)
        write_run_report(run, changed=not all(step.skipped for step in done))
    return done


def _steps(run: MathRun) -> Iterator[Step]:
    until = run.settings.until
    yield format_step(run)
    if until == "format":
        return
    yield tune_step(run)
    if until == "tune":
        return
    yield effect_step(run)
    yield merge_step(run)
    if until == "merge":
        return
    for name in ("int8", *run.settings.after.export.others):
        yield export_step(run, name)


def format_step(run: MathRun) -> Step:
    """Problems and traces to rows of tokens, in `data/`."""

    def build(folder: Path) -> dict[str, object]:
        with bar("format") as advance, nothing_left_of_bad_input(folder), noting(lambda: [run.rows.describe_parts()]):
            return run.formatting.build(folder, advance, say=run.say).to_json()

    return _step(run, "format", run.data, inputs=run.formatting.inputs, settings=run.formatting.settings, build=build)


def tune_step(run: MathRun) -> Step:
    """Rows to an adapter, or to a whole model, in `adapter/`."""

    def build(folder: Path) -> dict[str, object]:
        with (
            bar("tune") as advance,
            noting(lambda: [str(AdapterFolder(folder).last_checkpoint() or f"{folder}, without a checkpoint yet")]),
        ):
            return train_in(folder, run, advance=advance, say=run.say)

    inputs = {**run.model_files, "rows": run.rows.train}
    if run.settings.recipe.spec.wants_wrong_traces and run.rows.dropped.is_file():
        inputs["wrong"] = run.rows.dropped
    settings = {"seed": run.settings.seed, **recipe_settings(run.settings.recipe)}
    return _step(run, "tune", run.adapter, inputs=inputs, settings=settings, build=build)


def train_in(folder: Path, run: MathRun, *, advance: Advance, say: Callable[[str], None]) -> dict[str, object]:
    """Trains into the folder; every process of a training on several GPUs calls it."""
    return train_adapter(
        folder,
        data=run.data,
        source=run.model,
        recipe=run.settings.recipe,
        seed=run.settings.seed,
        advance=advance,
        say=say,
    )


def follow(run: MathRun) -> None:
    """Waits, and joins the first process in training: what all others do."""
    Ranks.launched().follow_first(lambda: train_in(run.adapter, run, advance=lambda *_: None, say=lambda _: None))


def effect_step(run: MathRun) -> Step:
    """Base and trained model to their answers and losses before and after training, in `effect/`."""
    after, seed, mirror = run.settings.after, run.settings.seed, run.settings.data.corpus.mirror

    def build(folder: Path) -> dict[str, object]:
        with bar("effect") as advance:
            return measure_effect(
                folder,
                tuned=run.tuned,
                max_tokens=after.survival.max_tokens,
                forgetting=after.forgetting,
                mirror=mirror,
                seed=seed,
                advance=advance,
                say=run.say,
            )

    files = parse_source(after.forgetting.source).files(mirror) if after.forgetting.source else []
    inputs = {**run.trained_files, **{f"general {number}": file for number, file in enumerate(files)}}
    settings = {**asdict(after.forgetting), "max_tokens": after.survival.max_tokens, "seed": seed}
    return _step(run, "effect", run.effect, inputs=inputs, settings=settings, build=build)


def merge_step(run: MathRun) -> Step:
    """Base and adapter to one 16-bit model, in `merged/`."""
    after = run.settings.after

    def build(folder: Path) -> dict[str, object]:
        with bar("merge") as advance:
            return merge_adapter(folder, tuned=run.tuned, limits=after.survival, advance=advance, say=run.say)

    settings = {"base": after.merge_base, "kl_merged": after.survival.kl_merged}
    return _step(run, "merge", run.merged, inputs=run.trained_files, settings=settings, build=build)


def export_step(run: MathRun, name: str) -> Step:
    """The merged model to one 8-bit format, in `export/` (int8) or `export-FORMAT/`."""
    after = run.settings.after
    title = EXPORT_FORMATS[name].folder

    def build(folder: Path) -> dict[str, object]:
        with bar(title) as advance:
            return export_model(
                folder,
                name=name,
                tuned=run.tuned,
                effect=run.effect,
                merged=run.merged,
                limits=after.survival,
                formats=after.export,
                advance=advance,
                show=lambda hops, tokens: _show_hops(hops, tokens, say=run.say),
            )

    inputs = {**run.trained_files, "merged": run.merged, "answers": run.effect / ANSWERS}
    settings = {
        **asdict(after.survival),
        "gpu": after.export.gpu,
        "threshold": after.export.threshold,
        "engines": after.export.engines,
    }
    return _step(run, title, run.folder / title, inputs=inputs, settings=settings, build=build)


def _show_hops(hops: Sequence[Hop], tokens: int, *, say: Callable[[Any], None]) -> None:
    from mathlete.report import survival_table

    say(survival_table(hops, tokens=tokens))


def write_run_report(run: MathRun, *, changed: bool) -> None:
    """Writes the run's report page, where a step changed or the page is missing."""
    file = run.folder / REPORT
    if changed or not file.exists():
        from mathlete.report import write_report

        with busy("report"):
            run.say(f"report: {write_report([run.folder], out=file)}")


def _step(
    run: MathRun,
    name: str,
    folder: Path,
    *,
    inputs: Mapping[str, Path],
    settings: Mapping[str, object],
    build: Callable[[Path], dict[str, object]],
) -> Step:
    """A step of this run; a model in a folder is known by its files' hashes, a hub's by its commit."""
    hub = {} if run.model.folder else {"model": f"{run.model.location}@{run.model.revision}"}
    return run_step(name, folder=folder, inputs=inputs, settings={**settings, **hub}, build=build)


def recipe_settings(recipe: Recipe) -> dict[str, object]:
    """The settings of the recipe that change the weights: those of its own method."""
    own = {key: value for key, value in asdict(recipe).items() if key in ("method", "lora", "tune", recipe.method)}
    # How often it is saved, and where activations are kept, changes no weight.
    for key in ("save_every", "checkpointing"):
        del own["tune"][key]
    return own


@contextmanager
def bar(title: str) -> Iterator[Advance]:
    """Shows a progress bar for one step."""
    with progress(title) as shown:
        task = shown.add_task("", total=None)

        def advance(done: int, total: int | None, words: str) -> None:
            shown.update(task, completed=done, total=total, description=words)

        yield advance


@contextmanager
def nothing_left_of_bad_input(folder: Path) -> Iterator[None]:
    """Deletes a step's folder where its input proves bad midway, and the folders above that are empty then."""
    try:
        yield
    except UserError:
        shutil.rmtree(folder)
        with suppress(OSError):  # not empty
            for above in folder.parents[:2]:
                above.rmdir()
        raise


def describe_step(step: Step) -> str:
    """A finished step in a line: its seconds and figures."""
    shown = {key: f"{value:.3g}" if isinstance(value, float) else value for key, value in step.figures.items()}
    figures = ", ".join(
        f"{key} {value}" for key, value in shown.items() if not isinstance(value, str | list | None) and key != "bases"
    )
    return f"{step.manifest['seconds']} s, {figures}"
