"""The settings of `python -m train math`: one object, made of the command line and handed on as it is."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mathlete.adapters import AdapterBase
from mathlete.command import PlannedDevice
from mathlete.corpus import Corpus
from mathlete.errors import UserError, require
from mathlete.export import Export, Forgetting, MergeBase, Survival
from mathlete.prompts import PromptSettings
from mathlete.reporters import Reporter
from mathlete.rows import Filters, Rows
from mathlete.tune import Recipe
from train.session import SessionSettings

Until = Literal["format", "tune", "merge", "export"]
"""The last step of a run."""


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Which problems and traces, and which rows are made of them."""

    corpus: Annotated[Corpus, tyro.conf.arg(name="")]
    rows: Rows
    filters: Filters = field(default_factory=Filters)
    prompt: PromptSettings = field(default_factory=PromptSettings)

    def check(self) -> None:
        """Raise UserError where a value is out of its range."""
        for part in (self.corpus, self.rows, self.filters, self.prompt):
            part.check()


@dataclass(frozen=True, kw_only=True)
class AfterTraining:
    """What follows the training: measuring, merging, exporting, and the limits on what each may cost."""

    adapter: Path | None = None
    """Folder of a LoRA that peft or Unsloth made: it is taken in the place of a training, and the run goes on."""
    adapter_base: AdapterBase | None = None
    """How its base was held there: 4bit (QLoRA) or 16bit; None: as the base's name says, if that ends in 4bit."""
    merge_base: MergeBase = "dequant"
    """Merge into the 4-bit base the adapter was trained on, dequantised, or into the model's original weights."""
    forgetting: Forgetting
    survival: Survival
    export: Export = field(default_factory=Export)
    accept_refused: str = ""
    """Why the run may go on where a limit is broken or samples are no finished run's, for manifests and model card;
    empty: it ends there."""

    def check(self) -> None:
        """Raise UserError where a value is out of its range."""
        if self.adapter is None and self.adapter_base is not None:
            raise UserError("--adapter-base is for --adapter", value=self.adapter_base, cure="name its folder, too")
        for part in (self.forgetting, self.survival, self.export):
            part.check()


@dataclass(frozen=True, kw_only=True)
class Staging:
    """What is around the training and changes nothing of it: what is shown, when it stops, where a copy is kept."""

    plan: bool = False
    """Print the memory that training will need, part by part, and stop: nothing is loaded."""
    planned: Annotated[PlannedDevice, tyro.conf.arg(name="")] = field(default_factory=PlannedDevice)
    show_settings: bool = False
    """Print every setting that changes the result; the run's manifests have them anyhow."""
    report_to: tuple[Reporter, ...] = ()
    """Trackers that show the training as it runs, by transformers' own integrations; none: nowhere. Default: the curve
    is kept in the run for TensorBoard and trackio, where they are installed."""
    session: SessionSettings = field(default_factory=SessionSettings)


@dataclass(frozen=True, kw_only=True)
class MathSettings:
    """What to train on what. Defaults shown are those of the model that is named, else the pocket model's."""

    model: str | None = None
    """pocket, a preset, a folder or a hub id; default: what this machine can run."""
    tokenizer: Path | None = None
    """Folder of a tokenizer, to format for a model whose weights are elsewhere; with --until format."""
    until: Until = "export"
    """The last step to do."""
    run: Path | None = None
    """The run's folder; default: runs/train-MODEL-HASH, so that the same command goes on where it stopped."""
    staging: Annotated[Staging, tyro.conf.arg(name="")] = field(default_factory=Staging)
    data: Annotated[DataSettings, tyro.conf.arg(name="")]
    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    after: Annotated[AfterTraining, tyro.conf.arg(name="")]
    seed: int = 0
    """Chooses the pocket generator's problems, the held-out rows, the adapter's first weights and the order of rows."""
    threads: int | None = None
    """CPU threads; default: 1 for a small model, else all cores."""
    overwrite: bool = False
    """Delete the steps that were made with other settings in the folder, and do them again."""
    json: bool = False
    """End with one line of JSON on stdout."""

    def check(self) -> None:
        """Raise UserError where a value is out of its range."""
        self.staging.planned.check(plan=self.staging.plan)
        self.staging.session.check()
        require(
            ("threads", self.threads, self.threads is None or 1 <= self.threads <= 1024, "from 1 to 1024"),
            ("seed", self.seed, self.seed >= 0, "at least 0"),
            cure="leave it out",
        )
        if self.data.corpus.task == "chat" and (self.recipe.spec.wants_wrong_traces or self.recipe.spec.grouped):
            raise UserError(
                f"--method {self.recipe.method} needs answers that are right or wrong",
                value="--task chat",
                cure="use --method lora, or a corpus with golds",
            )
        untrained = "--until format" if self.until == "format" else "--adapter" if self.after.adapter else ""
        if self.staging.report_to and untrained:
            raise UserError("--report-to is for a training", value=untrained, cure="leave one of them out")
        for part in (self.data, self.recipe, self.after):
            part.check()
