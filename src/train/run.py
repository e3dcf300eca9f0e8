"""One training run: format, tune, merge, export, each a folder with its manifest, skipped where nothing changed."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from mathlete.command import busy, noting, progress
from mathlete.corpus.settings import Corpus, Filters
from mathlete.corpus.stream import parse_spec
from mathlete.errors import UserError
from mathlete.export import (
    ANSWERS,
    EXPORT_FORMATS,
    Export,
    Forgetting,
    MergeBase,
    Survival,
    TunedModel,
    export_model,
    measure_effect,
    merge_adapter,
)
from mathlete.models import ModelSource, is_quantized, weight_bytes
from mathlete.rows.format import DROPPED, HELDOUT, TRAIN, parts_kept
from mathlete.rows.settings import Rows
from mathlete.runs import REPORT, Advance, Step, require_space, run_step, sha256_json
from mathlete.tune.ranks import join, shared
from mathlete.tune.recipe import Recipe
from mathlete.tune.training import last_whole_checkpoint, tune
from train.data import Data

Until = Literal["format", "tune", "merge", "export"]
STEPS: tuple[Until, ...] = get_args(Until)
_WEIGHTS = ("config.json", ".safetensors", ".safetensors.index.json")
"""How the files end that hold what was trained: an adapter, or a whole model."""
_SPARE_BYTES = 64 * 2**20
"""Rows, adapter, checkpoints and logs of a small run."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """What is trained on what, and how; only `folder`, `until`, `mirror`, `num_proc` and `ray` change no weight."""

    model: ModelSource
    corpus: Corpus
    rows: Rows
    filters: Filters
    recipe: Recipe
    merge_base: MergeBase
    forgetting: Forgetting
    survival: Survival
    export: Export
    seed: int
    until: Until = "export"
    """The last step to do."""
    folder: Path | None
    """None: a name made of the settings, so that the same command goes on where it stopped."""

    @property
    def run(self) -> Path:
        """The run's folder."""
        if self.folder is not None:
            return self.folder
        settings = {key: value for key, value in asdict(self).items() if key not in ("folder", "until", "export")}
        for where_and_how in ("mirror", "num_proc", "ray"):
            del settings["corpus"][where_and_how]
        return Path("runs") / f"train-{Path(self.model.name).name}-{sha256_json(settings)[:8]}"

    def carry_out(self, *, say: Callable[[Any], None]) -> list[Step]:
        """Runs the steps, goes on with them, or skips what is done; returns them.

        Raises:
            UserError: bad input, no room, a folder that is not this run's, or a hop that cost more than its limit.
        """
        self._check()
        steps: list[Step] = []
        for name in self._names:
            with noting(lambda: [f"{step.folder}, finished" for step in steps]):
                done = getattr(self, f"_{name}")(say)
            say(f"{done.name}: {'nothing changed, skipped' if done.skipped else in_words(done)}")
            steps.append(done)
        for other in self.export.others if self.until == "export" else ():
            steps.append(self._exported(other, say))
        self._report(steps, say=say)
        shared(False)  # the other processes end
        return steps

    @property
    def _names(self) -> list[str]:
        """The steps to do; what the training did is measured where a merge follows."""
        names: list[str] = [*STEPS[: STEPS.index(self.until) + 1]]
        return names if "merge" not in names else [*names[:2], "effect", *names[2:]]

    def _report(self, steps: Sequence[Step], *, say: Callable[[Any], None]) -> None:
        file = self.run / REPORT
        if not all(step.skipped for step in steps) or not file.exists():
            from mathlete.report import write_report

            with busy("report"):
                say(f"report: {write_report([self.run], out=file)}")

    @cached_property
    def _made(self) -> Data:
        return Data(corpus=self.corpus, rows=self.rows, filters=self.filters, model=self.model, seed=self.seed)

    def _check(self) -> None:
        # Before the run's folder is made: bad input must leave nothing half-written.
        self._made.check()
        if not self.recipe.mergeable and self.until in ("merge", "export"):
            value = f"--until {self.until}"
            cure = "use --until tune and load base and adapter with peft (docs/training.md), or another --method"
            raise UserError(
                f"--method {self.recipe.method} trains no weights that could be merged", value=value, cure=cure
            )
        if self.merge_base == "original" and self.until in ("merge", "export") and is_quantized(self.model):
            value = f"{self.model.location}, which is quantised"
            cure = "use --merge-base dequant, or --model with the original"
            raise UserError("--merge-base original needs the model's original weights", value=value, cure=cure)
        if self.forgetting.source:
            parse_spec(self.forgetting.source)
        for name in dict.fromkeys(self.export.formats) if self.until == "export" else ():
            EXPORT_FORMATS[name].require(self.export.gpu)
        weights = weight_bytes(self.model.folder) if self.model.folder else 0
        require_space(self.run, needed_bytes=2 * weights + _SPARE_BYTES)

    def _format(self, say: Callable[[Any], None]) -> Step:
        made = self._made

        def build(folder: Path, advance: Advance) -> dict[str, object]:
            with nothing_left_of_bad_input(folder), noting(lambda: [parts_kept(folder)]):
                return made.build(folder, advance, say=say)

        return self._step("format", self._data, inputs=made.inputs, settings=made.settings, build=build)

    def _tune(self, say: Callable[[Any], None]) -> Step:
        def build(folder: Path, advance: Advance) -> dict[str, object]:
            with noting(lambda: [str(last_whole_checkpoint(folder) or f"{folder}, without a checkpoint yet")]):
                shared(True)  # the other processes join
                return self._train(folder, advance=advance, say=say)

        settings = {"seed": self.seed, **recipe_settings(self.recipe)}
        inputs = {**self._model_files, "rows": self._data / TRAIN}
        if self.recipe.method == "dpo" and (self._data / DROPPED).is_file():
            inputs["wrong"] = self._data / DROPPED
        return self._step("tune", self._adapter, inputs=inputs, settings=settings, build=build)

    def _train(self, folder: Path, *, advance: Advance, say: Callable[[Any], None]) -> dict[str, object]:
        return tune(
            folder,
            data=self._data,
            source=self.model,
            recipe=self.recipe,
            seed=self.seed,
            advance=advance,
            say=say,
        )

    def follow(self) -> None:
        """What all processes but the first do: they wait, and join it in training."""
        join(lambda: self._train(self._adapter, advance=lambda *_: None, say=lambda _: None))

    def _effect(self, say: Callable[[Any], None]) -> Step:
        def build(folder: Path, advance: Advance) -> dict[str, object]:
            return measure_effect(
                folder,
                tuned=self._tuned,
                max_tokens=self.survival.max_tokens,
                forgetting=self.forgetting,
                mirror=self.corpus.mirror,
                seed=self.seed,
                advance=advance,
                say=say,
            )

        settings = {**asdict(self.forgetting), "max_tokens": self.survival.max_tokens, "seed": self.seed}
        files = parse_spec(self.forgetting.source).files(self.corpus.mirror) if self.forgetting.source else []
        inputs = {**self._trained_files, **{f"general {number}": file for number, file in enumerate(files)}}
        return self._step("effect", self.run / "effect", inputs=inputs, settings=settings, build=build)

    def _merge(self, say: Callable[[Any], None]) -> Step:
        def build(folder: Path, advance: Advance) -> dict[str, object]:
            return merge_adapter(folder, tuned=self._tuned, limits=self.survival, advance=advance, say=say)

        settings = {"base": self.merge_base, "kl_merged": self.survival.kl_merged}
        return self._step("merge", self._merged, inputs=self._trained_files, settings=settings, build=build)

    def _export(self, say: Callable[[Any], None]) -> Step:
        return self._exported("int8", say)

    def _exported(self, name: str, say: Callable[[Any], None]) -> Step:
        def show(hops: list[dict[str, Any]], tokens: int) -> None:
            from mathlete.report import survival_table

            say(survival_table(hops, tokens=tokens))

        def build(folder: Path, advance: Advance) -> dict[str, object]:
            return export_model(
                folder,
                name=name,
                tuned=self._tuned,
                effect=self.run / "effect",
                merged=self._merged,
                limits=self.survival,
                formats=self.export,
                advance=advance,
                show=show,
            )

        found = EXPORT_FORMATS[name].folder
        return self._step(found, self.run / found, inputs=self._merged_files, settings=self._limits, build=build)

    def _step(
        self,
        name: str,
        folder: Path,
        *,
        inputs: dict[str, Path],
        settings: Mapping[str, object],
        build: Callable[[Path, Advance], dict[str, object]],
    ) -> Step:
        def built(folder: Path) -> dict[str, object]:
            with bar(name) as advance:
                return build(folder, advance)

        # A folder's model is told by its files' hashes, a hub's by its commit.
        hub = {} if self.model.folder else {"model": f"{self.model.location}@{self.model.revision}"}
        return run_step(name, folder=folder, inputs=inputs, settings={**settings, **hub}, build=built)

    @property
    def _tuned(self) -> TunedModel:
        return TunedModel(source=self.model, data=self._data, adapter=self._adapter, base=self.merge_base)

    @property
    def _limits(self) -> dict[str, object]:
        how = {key: getattr(self.export, key) for key in ("gpu", "threshold", "engines")}
        return {**asdict(self.survival), **how}

    @property
    def _merged_files(self) -> dict[str, Path]:
        return {**self._trained_files, "merged": self._merged, "answers": self.run / "effect" / ANSWERS}

    @property
    def _data(self) -> Path:
        return self.run / "data"

    @property
    def _adapter(self) -> Path:
        return self.run / "adapter"

    @property
    def _merged(self) -> Path:
        return self.run / "merged"

    @property
    def _model_files(self) -> dict[str, Path]:
        return {"model": self.model.folder} if self.model.folder else {}

    @property
    def _trained_files(self) -> dict[str, Path]:
        files = {file.name: file for file in sorted(self._adapter.iterdir()) if file.name.endswith(_WEIGHTS)}
        return {**self._model_files, **files, "heldout": self._data / HELDOUT}


def recipe_settings(recipe: Recipe) -> dict[str, object]:
    """What of the recipe changes the weights: the settings of its own method."""
    own = {key: value for key, value in asdict(recipe).items() if key in ("method", "lora", "tune", recipe.method)}
    for neither in ("save_every", "checkpointing"):  # how often it is saved, where activations are while it runs
        del own["tune"][neither]
    return own


@contextmanager
def bar(title: str) -> Iterator[Advance]:
    """A progress bar for one step."""
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


def in_words(step: Step) -> str:
    """A finished step in a line: its seconds and figures."""
    shown = {key: f"{value:.3g}" if isinstance(value, float) else value for key, value in step.figures.items()}
    figures = ", ".join(
        f"{key} {value}" for key, value in shown.items() if not isinstance(value, str | list | None) and key != "bases"
    )
    return f"{step.manifest['seconds']} s, {figures}"
