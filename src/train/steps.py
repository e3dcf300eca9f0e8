"""The steps of `python -m train math`: each a function path in, path out, skipped where nothing changed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mathlete.adapters import ForeignAdapter
from mathlete.command import busy, note_on_stop
from mathlete.corpus import SourceSpec
from mathlete.errors import UserError
from mathlete.export import (
    EXPORT_FORMATS,
    GateTrial,
    TunedModel,
    measure_effect,
    merge_adapter,
)
from mathlete.export.records import Hop, SurvivalFigures
from mathlete.gates import GateOutcome
from mathlete.locks import hold
from mathlete.models import ModelSource
from mathlete.rows import FormatStep, RowFiles
from mathlete.runs import REPORT, Advance, Leftovers, Step, begin_step, require_space, sha256_json
from mathlete.sampling.embedded import check_covered
from mathlete.tune import AdapterFolder, Ranks, train_adapter
from train.exports import write_exports
from train.limits import differs_in_limits
from train.lines import describe_step
from train.session import SessionClock, SessionOver
from train.settings import MathSettings
from train.shown import bar, delete_if_bad_input
from train.starting import require_start, require_unpacked

_WEIGHT_FILES = ("config.json", ".safetensors", ".safetensors.index.json")
"""How the files end that hold what was trained: an adapter, or a whole model."""
WRITTEN = ("*.json", "*.jsonl", "*.safetensors", "*.gguf", ".*.gguf", "*.jinja", "*.model", "vocab.txt", "merges.txt",
           "README.md", "checkpoint*", ".checkpoint*", ".trial*", "logs", "trackio")  # fmt: skip
"""Names that steps and the libraries beneath them give to what they write: these `--overwrite` may delete."""
_SPARE_BYTES = 64 * 2**20
"""Rows, adapter, checkpoints and logs of a small run."""


@dataclass(frozen=True, kw_only=True)
class MathRun:
    """One training run: its settings, the model it starts from, its folder, and the steps that are done."""

    settings: MathSettings
    model: ModelSource
    say: Callable[[Any], None]
    """Prints a line or a table for a person."""
    clock: SessionClock = field(default_factory=SessionClock)
    steps: list[Step] = field(default_factory=list)
    """Those that are done."""

    @cached_property
    def folder(self) -> Path:
        """The run's folder; the default name is made of what is trained, so that the same training goes on in it.

        What is measured, merged or exported after it may be another: those steps say themselves what differs.
        """
        if self.settings.run is not None:
            return self.settings.run
        data, adapter = self.settings.data, self.settings.after.adapter
        # Where the data lie and how many processes read them changes no weight.
        corpus = {k: v for k, v in asdict(data.corpus).items() if k not in ("mirror", "num_proc", "ray")}
        key = {
            "model": self.model.identity,
            "corpus": corpus,
            "rows": asdict(data.rows),
            "filters": asdict(data.filters),
            "recipe": self.settings.recipe.weight_settings,
            "seed": self.settings.seed,
            **({"adapter": str(adapter.resolve())} if adapter else {}),
        }
        return Path("runs") / f"train-{Path(self.model.name).name}-{sha256_json(key)[:8]}"

    @cached_property
    def start(self) -> GateOutcome:
        """What gates said of what the run starts from, judged once: a source run may be extended while this one trains.

        Raises:
            UserError: as `require_start`.
        """
        return require_start(self.settings, self.model)

    @cached_property
    def formatting(self) -> FormatStep:
        """The problems, traces and suites that the rows are made of."""
        data = self.settings.data
        return FormatStep(
            corpus=data.corpus, rows=data.rows, filters=data.filters, model=self.model, seed=self.settings.seed
        )

    @property
    def model_files(self) -> dict[str, Path]:
        """The base model's folder, as a step's input; none for a hub model."""
        return {"model": self.model.folder} if self.model.folder else {}

    def files_of(self, tuned: TunedModel) -> dict[str, Path]:
        """Return base, trained weights and held-out rows, as a step's inputs."""
        weights = {file.name: file for file in sorted(tuned.adapter.iterdir()) if file.name.endswith(_WEIGHT_FILES)}
        return {**self.model_files, **weights, "heldout": RowFiles(tuned.data).heldout}

    def begin(self, name: str, folder: Path, *, inputs: Mapping[str, Path], settings: Mapping[str, object]) -> Step:
        """Begin a step of this run; a model in a folder is known by its files' hashes, a hub's by its commit."""
        self.clock.require_time(name, self.folder)
        own: dict[str, object] = {"prompt settings": prompt} if (prompt := self.model.prompt.to_json()) else {}
        if not self.model.folder:
            own |= {"model": f"{self.model.location}@{self.model.revision}"}
        return begin_step(
            name,
            folder=folder,
            inputs=inputs,
            settings={**settings, **own},
            leftovers=Leftovers(
                overwrite=self.settings.overwrite,
                extends=differs_in_limits,
                writes=("*", *RowFiles.hidden),
                deletes=(*WRITTEN, *RowFiles.names, *RowFiles.hidden),
            ),
        )

    def end(self, step: Step) -> Path:
        """Print a finished step's line and which broken limits were accepted, and remember it; return its folder."""
        self.say(f"{step.name}: nothing changed, skipped" if step.skipped else describe_step(step))
        for line in [] if step.skipped else GateOutcome.of_step(step.folder).describe():
            self.say(line)
        self.steps.append(step)
        return step.folder

    def train_in(self, folder: Path, data: Path, *, advance: Advance, say: Callable[[str], None]) -> dict[str, object]:
        """Train on the rows, into the folder; every process of a training on several GPUs calls it."""
        return train_adapter(
            folder,
            data=data,
            source=self.model,
            recipe=self.settings.recipe,
            seed=self.settings.seed,
            advance=advance,
            say=say,
            report_to=self.settings.staging.report_to,
            is_over=None if self.clock.minutes is None else self.clock.is_over,
        )

    def describe_tuned(self, adapter: Path) -> TunedModel:
        """Return the model that was trained, here or elsewhere; an adapter of a 16-bit base is merged into that."""
        after, data = self.settings.after, self.folder / "data"
        foreign = None if after.adapter is None else ForeignAdapter(after.adapter)
        on_16bit = foreign is not None and foreign.find_base(self.model, after.adapter_base) == "16bit"
        base = "original" if on_16bit else after.merge_base
        return TunedModel(source=self.model, data=data, adapter=adapter, base=base, on_16bit=on_16bit)

    def try_gates(self, folder: Path, data: Path, *, advance: Advance) -> dict[str, object]:
        """Try merge and formats, before the first step of a training that they follow; return what was found."""
        settings, after = self.settings, self.settings.after
        if settings.until == "tune" and after.survival.trial_rows and settings.recipe.spec.mergeable:
            self.say("merge and formats are not tried before a training with --until tune: they are judged after it")
        if settings.until not in ("merge", "export") or not after.survival.trial_rows:
            return {}
        trial = GateTrial(
            tuned=self.describe_tuned(folder),
            recipe=settings.recipe,
            limits=after.survival,
            formats=after.export,
            names=after.export.named if settings.until == "export" else (),
        )
        if AdapterFolder(folder).last_checkpoint() is not None:
            return {"trial": outcome} if (outcome := trial.read()) else {}
        return {"trial": trial.run(accept_refused=after.accept_refused, advance=advance, say=self.say)}

    def show_hops(self, hops: Sequence[Hop], figures: SurvivalFigures) -> None:
        """Print what each hop cost, and what it may cost."""
        from mathlete.report import survival_table

        self.say(survival_table(hops, tokens=figures.tokens))
        if figures.gates:
            self.say(figures.gates.describe())


def check_run(run: MathRun) -> None:
    """Check all that can be known before the run's folder is made: bad input must leave nothing half-written.

    Raises:
        UserError: bad input, a method or base that can't be merged, attention that can't be measured, a format the GPU
            can't run, or no room.
    """
    recipe, after, until = run.settings.recipe, run.settings.after, run.settings.until
    _ = run.start
    if until != "format":
        require_unpacked(run.model)
    if until != "format" and after.adapter is None:
        recipe.require_layers(run.model)
        recipe.require_servable(run.model)
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
    if until in ("merge", "export"):  # both are measured by the own decode loop
        check_covered(run.model.load_config())
    if after.forgetting.source:
        SourceSpec.parse(after.forgetting.source)
    for name in dict.fromkeys(after.export.formats) if until == "export" else ():
        EXPORT_FORMATS[name].require(after.export.gpu)
        EXPORT_FORMATS[name].require_model(run.model)
    if until != "format":
        recipe.require_device()
        recipe.require_teacher(run.model)
        run.model.require_weights()
        with busy("weights"):
            run.model.require_finite()
        if (foreign := after.adapter) is not None:
            ForeignAdapter(foreign).require_base(run.model)
            ForeignAdapter(foreign).find_base(run.model, after.adapter_base)
    require_space(run.folder, needed_bytes=2 * run.model.weight_bytes + _SPARE_BYTES)


def run_steps(run: MathRun) -> list[Step]:
    """Run the steps, go on with them, or skip what is done; return them.

    Raises:
        UserError: bad input, no room, a folder that is not this run's, or a hop that cost more than its limit.
    """
    check_run(run)
    with hold(run.folder), note_on_stop(lambda: [f"{step.folder}, finished" for step in run.steps]):
        take_steps(run)
        write_run_report(run, changed=not all(step.skipped for step in run.steps))
    return run.steps


def take_steps(run: MathRun) -> None:
    """Take each step up to the last that is wanted, from the folder that the one before it made."""
    until = run.settings.until
    data = make_rows(run)
    if until == "format":
        return
    adapter = train(run, data) if (foreign := run.settings.after.adapter) is None else take(run, foreign)
    if until == "tune":
        return
    tuned = run.describe_tuned(adapter)
    effect = measure(run, tuned)
    merged = merge(run, tuned)
    if until == "merge":
        return
    write_exports(run, tuned, effect=effect, merged=merged)


def make_rows(run: MathRun) -> Path:
    """Make rows of tokens from problems and traces; return their folder, `data/`."""
    rows, folder = run.formatting, run.folder / "data"
    step = run.begin("format", folder, inputs=rows.inputs, settings=rows.settings)
    if not step.skipped:
        with (
            bar("format") as advance,
            delete_if_bad_input(RowFiles(folder)),
            step.noting_unfinished(),
            note_on_stop(lambda: [RowFiles(folder).describe_parts()]),
        ):
            step.finish(rows.build(folder, advance, say=run.say).to_json())
    return run.end(step)


def take(run: MathRun, adapter: Path) -> Path:
    """Take an adapter that was made elsewhere; return its folder, `adapter/`."""
    folder = run.folder / "adapter"
    step = run.begin("tune", folder, inputs={**run.model_files, **ForeignAdapter(adapter).files}, settings={})
    if not step.skipped:
        with step.noting_unfinished():
            taken = AdapterFolder(folder).take(adapter, source=run.model)
            step.finish({**taken, **run.start.to_json()})
    return run.end(step)


def train(run: MathRun, data: Path) -> Path:
    """Train on the rows; return the folder of the adapter, or of the whole model, `adapter/`."""
    recipe, folder, rows = run.settings.recipe, run.folder / "adapter", RowFiles(data)
    inputs = {**run.model_files, "rows": rows.train}
    if recipe.spec.wants_wrong_traces and rows.dropped.is_file():
        inputs["wrong"] = rows.dropped
    if recipe.teacher is not None and recipe.teacher.folder is not None:
        inputs["teacher"] = recipe.teacher.folder
    settings = {"seed": run.settings.seed, **recipe.weight_settings}
    step = run.begin("tune", folder, inputs=inputs, settings=settings)
    if not step.skipped:
        with (
            bar("tune") as advance,
            step.noting_unfinished(),
            note_on_stop(
                lambda: [str(AdapterFolder(folder).last_checkpoint() or f"{folder}, without a checkpoint yet")]
            ),
        ):
            trial = run.try_gates(folder, data, advance=advance)
            figures = run.train_in(folder, data, advance=advance, say=run.say)
            if (stopped := figures.get("stopped")) is not None:
                kept = f"{AdapterFolder(folder).last_checkpoint()} is kept"
                raise SessionOver(f"the session's time is over at step {stopped}: {kept}, the same command goes on")
            run.describe_tuned(folder).write_adapter_card()
            with GateTrial.handing_on(folder):
                step.finish({**figures, **trial, **run.start.to_json()})
    return run.end(step)


def measure(run: MathRun, tuned: TunedModel) -> Path:
    """Measure answers and losses before and after training; return their folder, `effect/`."""
    after, seed, mirror = run.settings.after, run.settings.seed, run.settings.data.corpus.mirror
    files = SourceSpec.parse(after.forgetting.source).files(mirror) if after.forgetting.source else []
    inputs = {**run.files_of(tuned), **{f"general {number}": file for number, file in enumerate(files)}}
    settings = {**asdict(after.forgetting), "max_tokens": after.survival.max_tokens, "seed": seed}
    step = run.begin("effect", run.folder / "effect", inputs=inputs, settings=settings)
    if not step.skipped:
        with bar("effect") as advance, step.noting_unfinished():
            figures = measure_effect(
                step.folder,
                tuned=tuned,
                max_tokens=after.survival.max_tokens,
                forgetting=after.forgetting,
                accept_refused=after.accept_refused,
                mirror=mirror,
                seed=seed,
                advance=advance,
                say=run.say,
            )
            step.finish(figures)
    return run.end(step)


def merge(run: MathRun, tuned: TunedModel) -> Path:
    """Merge base and adapter to one 16-bit model; return its folder, `merged/`."""
    after = run.settings.after
    # What was trained on 16 bits is merged into them, whatever the setting says.
    base = "dequant" if tuned.on_16bit or not tuned.is_adapter else after.merge_base
    settings = {"base": base, "kl_merged": after.survival.kl_merged}
    step = run.begin("merge", run.folder / "merged", inputs=run.files_of(tuned), settings=settings)
    if not step.skipped:
        with bar("merge") as advance, step.noting_unfinished():
            figures = merge_adapter(
                step.folder,
                tuned=tuned,
                limits=after.survival,
                accept_refused=after.accept_refused,
                advance=advance,
                say=run.say,
            )
            step.finish(figures)
    return run.end(step)


def follow_first_rank(run: MathRun) -> None:
    """Wait, and join the first process in training: what all others do."""
    folder, data = run.folder / "adapter", run.folder / "data"
    Ranks.from_launcher().follow_first(lambda: run.train_in(folder, data, advance=lambda *_: None, say=lambda _: None))


def write_run_report(run: MathRun, *, changed: bool) -> None:
    """Write the run's report page, where a step changed or the page is missing."""
    file = run.folder / REPORT
    if changed or not file.exists():
        from mathlete.report import write_report

        with busy("report"):
            run.say(f"report: {write_report([run.folder], out=file)}")
