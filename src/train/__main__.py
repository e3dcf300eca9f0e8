"""`python -m train`: from problems with traces to an 8-bit model, and the pocket model from nothing."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mathlete.command import Command, console, run_command_line
from mathlete.corpus.settings import Corpus, Filters
from mathlete.corpus.tables import FORMATS
from mathlete.errors import UserError
from mathlete.export import Export, Forgetting, MergeBase, Survival
from mathlete.models import DeviceName, ModelSource, default_model, model_source, pinned, weight_bytes
from mathlete.pocket.base import PocketBaseConfig
from mathlete.rows.settings import Rows
from mathlete.runs import Step, run_step, sha256_file
from mathlete.tune.ranks import first, leave, shared
from mathlete.tune.recipe import METHODS, UNMERGEABLE, Dpo, Grpo, Method, Recipe
from mathlete.tune.settings import Lora, Tune
from train.lab import LAB_COMMAND
from train.launch import LAUNCH_COMMAND
from train.overlap import OVERLAP_COMMAND
from train.presets import PRESETS, RATES, preset
from train.show import SHOW_COMMAND

_SMALL_BYTES = 200_000_000
"""Weights below which a second thread costs more than it brings."""


@dataclass(frozen=True, kw_only=True)
class MathSettings:
    """What to train on what. Defaults shown are those of the model that is named, else the pocket model's."""

    model: str | None = None
    """pocket, a preset, a folder or a hub id; default: what this machine can run."""
    tokenizer: Path | None = None
    """Folder of a tokenizer, to format for a model whose weights are elsewhere; with --until format."""
    until: Literal["format", "tune", "merge", "export"] = "export"
    """The last step to do."""
    corpus: Annotated[Corpus, tyro.conf.arg(name="")]
    run: Path | None = None
    """The run's folder; default: runs/train-MODEL-HASH, so that the same command goes on where it stopped."""
    rows: Rows
    filters: Filters = field(default_factory=Filters)
    method: Method = "lora"
    """What is trained: adapters by peft's names, every weight (full), a LoRA by preferences (dpo) or rewards (grpo)."""
    lora: Lora
    tune: Tune
    dpo: Dpo = field(default_factory=Dpo)
    grpo: Grpo = field(default_factory=Grpo)
    merge_base: MergeBase = "dequant"
    """Merge into the 4-bit base the adapter was trained on, dequantised, or into the model's original weights."""
    forgetting: Forgetting
    survival: Survival
    export: Export = field(default_factory=Export)
    seed: int = 0
    """Chooses the pocket generator's problems, the held-out rows, the adapter's first weights and the order of rows."""
    threads: int | None = None
    """CPU threads; default: 1 for a small model, else all cores."""
    plan: bool = False
    """Print the memory that training will need, part by part, and stop: nothing is loaded."""
    device: DeviceName | None = None
    """GPU to plan for, with --plan; default: this machine's device."""
    json: bool = False
    """End with one line of JSON on stdout."""

    def check(self) -> None:
        """Raises UserError where a value is out of its range."""
        if self.device is not None and not self.plan:
            raise UserError("--device is what to plan for", value=self.device, cure="add --plan, or leave it out")
        for flag, value, least in (("threads", self.threads, 1), ("seed", self.seed, 0)):
            if value is not None and value < least:
                raise UserError(f"--{flag} must be at least {least}", value=value, cure="leave it out")
        for part in (self.corpus, self.rows, self.filters, self.recipe, self.forgetting, self.survival, self.export):
            part.check()

    @property
    def recipe(self) -> Recipe:
        """How it is trained."""
        return Recipe(method=self.method, lora=self.lora, tune=self.tune, dpo=self.dpo, grpo=self.grpo)


def defaults(words: Sequence[str]) -> MathSettings:
    """The settings of the preset of the model that the words name, or of this machine's."""
    found = with_method(settings_of(_named(words, "--model") or _default_preset(words)), _named(words, "--method"))
    if _names_a_file(words):
        # The preset's limit is that of its own source: a user's file is read to its end.
        return replace(found, corpus=replace(found.corpus, limit=None))
    return found


def _named(words: Sequence[str], flag: str) -> str | None:
    named = [word.removeprefix(f"{flag}=") for word in words if word.startswith(f"{flag}=")]
    named += [value for name, value in pairwise(words) if name == flag]
    return named[-1] if named else None


def _default_preset(words: Sequence[str]) -> str:
    if any(word.partition("=")[0] == "--tokenizer" for word in words):
        return "a model that is not the pocket model"
    # Help must not wait for torch to look for a GPU.
    return "pocket" if {"-h", "--help"} & {*words} else default_model()[0]


def with_method(settings: MathSettings, method: str | None) -> MathSettings:
    """The preset's settings as the method needs them: its own rate, and traces to choose between for DPO."""
    if method not in METHODS:
        return settings
    tune = replace(settings.tune, rate=settings.tune.rate * RATES.get(method, 1.0))
    changed = replace(settings, method=method, tune=tune)
    if method == "dpo":
        corpus, rows = replace(settings.corpus, keep_dropped=True), replace(settings.rows, policy="all")
        return replace(changed, corpus=corpus, rows=rows)
    return replace(changed, until="tune") if method in UNMERGEABLE else changed


def _names_a_file(words: Sequence[str]) -> bool:
    flag = ""
    for word in words:
        flag, _, given = word.partition("=") if word.startswith("--") else (flag, "", word)
        path = given if Path(given).suffix in FORMATS else given.rpartition("=")[0]
        if flag == "--source" and Path(path).suffix in FORMATS:
            return True
    return False


def settings_of(model: str) -> MathSettings:
    """The settings of a model's preset."""
    found = preset(model)
    return MathSettings(
        corpus=found.corpus,
        rows=found.rows,
        filters=found.filters,
        lora=found.lora,
        tune=found.tune,
        forgetting=found.forgetting,
        survival=found.survival,
    )


def math(settings: MathSettings) -> dict[str, object]:
    """Trains the model, or goes on with a run that was stopped; prints what each step gave and returns the figures."""
    from train.launch import require_launched
    from train.run import Training

    settings.check()
    out = console(json=settings.json)
    out.quiet = not first()
    if settings.plan:
        return _plan(settings, say=out.print)
    require_launched(settings.until, method=settings.method)
    source, reason = _model(settings)
    out.print(f"model {source.name}: {reason}")
    if settings.until != "format":
        # What is free differs from device to device; all must take the same steps.
        settings = shared(_split(settings, source, device=None, say=out.print))
    training = Training(
        model=source,
        corpus=settings.corpus,
        rows=settings.rows,
        filters=settings.filters,
        recipe=settings.recipe,
        merge_base=settings.merge_base,
        forgetting=settings.forgetting,
        survival=settings.survival,
        export=settings.export,
        seed=settings.seed,
        until=settings.until,
        folder=settings.run,
    )
    own = (settings.method,) if settings.method in ("dpo", "grpo") else ()
    for group in (
        "corpus",
        "rows",
        "filters",
        "method",
        "lora",
        "tune",
        *own,
        "merge_base",
        "forgetting",
        "survival",
        "export",
        "seed",
    ):
        out.print(f"{group}: {getattr(settings, group)}")
    _set_threads(settings.threads, source)
    if not first():
        training.follow()
        leave()
        raise SystemExit(0)
    steps = training.carry_out(say=out.print)
    leave()
    made = next(step.folder for step in steps if step.name == settings.until)
    out.print(f"{training.run}: {_MADE[settings.until]} {made}")
    others = {step.name: step.figures for step in steps if step.name.startswith("export-")}
    return {
        "run": str(training.run),
        settings.until: str(made),
        **_line(steps),
        **({"exports": others} if others else {}),
    }


def _plan(settings: MathSettings, *, say: Callable[[object], None]) -> dict[str, object]:
    from mathlete.models.shapes import shape_of
    from mathlete.tune.devices import device_named
    from mathlete.tune.plan import plan_for, plan_line, plan_table

    source = model_source(settings.model or default_model()[0])
    settings = _split(settings, source, device=settings.device, say=say)
    plan = plan_for(
        shape_of(source),
        device=device_named(settings.device),
        recipe=settings.recipe,
        longest=settings.rows.max_tokens,
    )
    say(plan_table(plan))
    return plan_line(plan)


def _split(
    settings: MathSettings, source: ModelSource, *, device: DeviceName | None, say: Callable[[object], None]
) -> MathSettings:
    """The settings with the preset's rows a step in passes that fit the device; a split that was named is kept."""
    from mathlete.models.shapes import shape_of
    from mathlete.tune.devices import device_named, gib, this_device
    from mathlete.tune.plan import split_to_fit

    usual, named = settings_of(settings.model or "pocket").tune, settings.tune
    if (named.batch, named.accumulate) != (usual.batch, usual.accumulate) or settings.method == "grpo":
        return settings
    place = device_named(device) if device else this_device(whole=True)
    tune = split_to_fit(settings.recipe, shape_of(source), device=place, longest=settings.rows.max_tokens).tune
    if tune.batch != named.batch:
        most = f"{settings.rows.max_tokens} tokens in {gib(place.memory):.0f} GiB of {place.name}"
        say(f"rows a pass: {tune.batch}, not {named.batch}, as many as fit of {most}; {tune.accumulate} passes a step")
    return replace(settings, tune=tune)


_MADE = {
    "format": "the rows are in",
    "tune": "the adapter is",
    "merge": "the merged model is",
    "export": "the model to serve is",
}


def _model(settings: MathSettings) -> tuple[ModelSource, str]:
    """(the model, why it is that one); of a model that only lends its tokenizer, the folder of that."""
    folder = settings.tokenizer
    if folder is None:
        name, reason = (settings.model, "named by --model") if settings.model else default_model()
        source, commit = pinned(model_source(name))
        return source, f"{reason}; {commit}"
    if settings.until != "format":
        value = f"--until {settings.until}"
        raise UserError("--tokenizer is for rows without a model", value=value, cure="use --until format")
    if not folder.is_dir():
        raise UserError("--tokenizer must be a folder", value=str(folder), cure="check the path")
    name = settings.model or folder.resolve().name
    return ModelSource(name=name, location=str(folder)), f"its tokenizer in {folder}, by --tokenizer"


def _set_threads(threads: int | None, source: ModelSource) -> None:
    import torch

    small = source.folder is not None and weight_bytes(source.folder) < _SMALL_BYTES
    if threads or small:
        torch.set_num_threads(threads or 1)


def _line(steps: Sequence[Step]) -> dict[str, object]:
    keys = (
        "rows",
        "kept",
        "drops",
        "parity",
        "steps",
        "last_loss",
        "dtype",
        "kl_merged",
        "kl_int8",
        "greedy_unchanged",
    )
    found = {key: step.figures[key] for step in steps for key in keys if key in step.figures}
    found["dropped"] = found["drops"]
    seconds = sum(float(str(step.manifest["seconds"])) for step in steps)
    return {**found, "seconds": round(seconds, 1), "skipped": [step.name for step in steps if step.skipped]}


@dataclass(frozen=True, kw_only=True)
class PocketBaseSettings:
    """How the pocket model is pretrained."""

    base: Annotated[PocketBaseConfig, tyro.conf.arg(name="")] = field(default_factory=PocketBaseConfig)
    run: Path = Path("runs/pocket-base")
    """The run's folder; the model is in its folder `model`."""
    json: bool = False
    """End with one line of JSON on stdout."""


def pocket_base(settings: PocketBaseSettings) -> dict[str, object]:
    """Pretrains the pocket model, or goes on with a run that was stopped; returns where it is and its figures."""
    from mathlete.pocket.base import build_pocket_base
    from train.run import in_words

    settings.base.check()
    out = console(json=settings.json)
    step = run_step(
        "pocket-base",
        folder=settings.run / "model",
        inputs={},
        settings=asdict(settings.base),
        build=lambda folder: build_pocket_base(folder, settings.base),
    )
    out.print(f"{step.folder}: {'nothing changed, skipped' if step.skipped else in_words(step)}")
    return {"run": str(settings.run), "model": str(step.folder), **step.figures, "skipped": step.skipped}


@dataclass(frozen=True, kw_only=True)
class PocketProblemsSettings:
    """Which problems of the pocket generator."""

    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """JSONL file to write."""
    families: tuple[str, ...] = ("hard",)
    """easy, hard, or families such as hard/power; they take turns."""
    count: int = 1000
    """Problems in all."""
    seed: int = 0
    """Another seed gives other problems, the same one the same bytes."""
    split: Literal["train", "test"] = "train"
    """No problem of one side has the numbers of any problem of the other."""
    unique: bool = False
    """No two problems of a family with the same numbers."""
    traces: bool = True
    """With the trace that solves each, as `python -m train math --source FILE` reads them."""
    json: bool = False
    """End with one line of JSON on stdout."""


def pocket_problems(settings: PocketProblemsSettings) -> dict[str, object]:
    """Writes generated problems into a file; returns their count and the file's hash."""
    from mathlete.pocket import generate
    from mathlete.pocket.suite import write_items

    if settings.count < 1:
        raise UserError("--count must be at least 1", value=settings.count, cure="use --count 1000")
    items = generate(
        families=settings.families,
        count=settings.count,
        seed=settings.seed,
        split=settings.split,
        unique=settings.unique,
    )
    write_items(settings.file, items, traces=settings.traces)
    found = {"file": str(settings.file), "problems": len(items), "sha256": sha256_file(settings.file)}
    console(json=settings.json).print(f"{found['problems']} problems: {settings.file}, sha256 {found['sha256']}")
    return found


COMMANDS = {
    "math": Command(
        settings=MathSettings,
        run=math,
        defaults=defaults,
        help="Tunes a model on problems with traces: format, QLoRA, merge, 8-bit export, each measured.\n\n"
        f"Presets: {', '.join(name for name in PRESETS if not name.endswith('-4bit'))}; with -4bit the R1 models' "
        "smaller downloads.\n\n"
        "Examples:\n\npython -m train math\n\npython -m train math --model r1-qwen-1.5b --source openr1 --limit 2000",
    ),
    "pocket-base": Command(
        settings=PocketBaseSettings,
        run=pocket_base,
        help="Pretrains the pocket model from nothing; the defaults rebuild the shipped one.\n\n"
        "Examples:\n\npython -m train pocket-base\n\npython -m train pocket-base --steps 300 --run runs/small-base",
    ),
    "pocket-problems": Command(
        settings=PocketProblemsSettings,
        run=pocket_problems,
        help="Writes problems of the pocket generator, any number of them, byte-identical for the same arguments.\n\n"
        "Examples:\n\npython -m train pocket-problems hard.jsonl --count 5000 --seed 7\n\n"
        "python -m train pocket-problems suite.jsonl --families hard/power easy/gcd --split test --no-traces",
    ),
    "quantize-lab": LAB_COMMAND,
    "launch-config": LAUNCH_COMMAND,
    "data show": SHOW_COMMAND,
    "data overlap": OVERLAP_COMMAND,
}

if __name__ == "__main__":
    sys.exit(run_command_line(sys.argv[1:], prog="python -m train", commands=COMMANDS))
