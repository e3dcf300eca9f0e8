"""`python -m train math`: from problems with traces to an 8-bit model."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import is_dataclass, replace
from functools import partial
from pathlib import Path

from mathlete.command import Command, busy, console
from mathlete.errors import UserError
from mathlete.export.formats import DEFAULT_FORMAT, read_storage
from mathlete.foreign_flags import TRAINERS_FLAGS
from mathlete.mistakes import require_address_space
from mathlete.models import ModelSource, find_model, load_prompt_format, pick_default_model
from mathlete.reporters import check_reporters
from mathlete.runs import Step
from mathlete.settings import flatten
from mathlete.tune import Ranks, plan_training
from train.lines import describe_settings
from train.presets import LEADING_FLAGS, PRESETS, default_settings, preset, with_method
from train.session import SessionClock, SessionOver
from train.settings import MathSettings

MAIN_FLAGS = frozenset(
    {
        *(
            "--model",
            "--source",
            "--limit",
            "--mirror",
            "--run",
            "--until",
            "--overwrite",
            "--json",
            "--plan",
            "--device",
        ),
        *(
            "--method",
            "--rows.max-tokens",
            "--rows.policy",
            "--lora.rank",
            "--tune.rate",
            "--tune.epochs",
            "--tune.steps",
        ),
        *("--tune.batch", "--export.formats", "--seed"),
    }
)
"""The twenty that --help shows."""
_SMALL_BYTES = 200_000_000
"""Weights below which a second thread costs more than it brings."""
_LAST_WORDS = {
    "format": "the rows are in",
    "tune": "the adapter is",
    "merge": "the merged model is",
    "export": "the model to serve is",
}


def train_math(settings: MathSettings) -> dict[str, object]:
    """Train the model, or go on with a run that was stopped; print what each step gave and return the figures."""
    settings.check()
    session = settings.staging.session
    clock = SessionClock(minutes=session.minutes, grace_min=session.grace_min)
    require_no_training(settings)
    check_reporters(settings.staging.report_to)
    require_address_space()
    out = console(json=settings.json)
    ranks = Ranks.from_launcher()
    out.quiet = not ranks.is_first
    if settings.staging.plan:
        return print_plan(settings, say=out.print)
    with busy("loading the libraries") if ranks.is_first else nullcontext():
        from train.launch import require_launched
        from train.steps import MathRun, follow_first_rank, run_steps

        require_launched(settings.until, method=settings.recipe.method)
        model, reason = choose_model(settings)
    if settings.data.corpus.task == "chat":
        # A request to box an answer has no place in a chat: rows, exports and the model's own folder are without it.
        model = replace(model, prompt=replace(model.prompt, instruction=""))
    out.print(f"model {model.name} · {reason}")
    if settings.until != "format" and settings.after.adapter is None:
        # Devices of several processes may differ; all must take the same steps.
        settings = ranks.broadcast_from_first(split_batch(settings, model, say=out.print))
    stored = read_storage(model.read_config()) if settings.until != "format" else "dense"
    print_settings(settings, stored=stored, say=out.print)
    for note in load_prompt_format(model).notes:
        out.print(note)
    set_threads(settings.threads, model)
    run = MathRun(settings=settings, model=model, say=out.print, clock=clock)
    if not ranks.is_first:
        follow_first_rank(run)
        raise SystemExit(0)
    say = partial(out.print, markup=False)
    try:
        with session.open(run.folder, say=say), clock.stopping_late(say=say):
            steps = run_steps(run)
    except SessionOver as over:
        ranks.dismiss_others()
        say(str(over))
        return {"run": str(run.folder), "finished": False, **summarize(run.steps)}
    ranks.dismiss_others()
    # A run may have none of `export` itself, only those of other formats.
    last = next((step for step in steps if step.name == settings.until), steps[-1])
    out.print(f"{run.folder}: {_LAST_WORDS[settings.until]} {_tell_made(settings, run.folder, last)}")
    return {"run": str(run.folder), last.name: str(last.folder), **summarize(steps)}


def _tell_made(settings: MathSettings, run: Path, last: Step) -> str:
    """Return what the run made, in words: the formats that were asked for, and int8 beside them."""
    named = settings.after.export.named
    if settings.until != "export" or DEFAULT_FORMAT in named:
        return str(last.folder)
    made = " or ".join(str(run / f"export-{name}") for name in named)
    # A run may be finished without int8.
    return f"{made}; {DEFAULT_FORMAT}, which is always made, is {last.folder}" if last.name == "export" else made


def require_no_training(settings: MathSettings) -> None:
    """Check that settings of a training are not given for an adapter that was trained elsewhere.

    Raises:
        UserError: they are.
    """
    usual = preset(settings.model or pick_default_model()[0]).recipe
    if settings.after.adapter is not None and settings.recipe != usual:
        raise UserError(
            "--adapter was trained already: no setting of a training applies",
            value="another --method than the preset's, or another setting of lora, tune, dpo or grpo",
            cure="leave those out, or leave --adapter out and train",
        )


def choose_model(settings: MathSettings) -> tuple[ModelSource, str]:
    """Return (the model, why it is that one); of a model that only lends its tokenizer, the folder of that."""
    folder = settings.tokenizer
    if folder is None:
        name, reason = (settings.model, "named by --model") if settings.model else pick_default_model()
        source, commit = find_model(name).pin()
        return replace(source, prompt=settings.data.prompt), f"{reason}; {commit}"
    if settings.until != "format":
        value = f"--until {settings.until}"
        raise UserError("--tokenizer is for rows without a model", value=value, cure="use --until format")
    if not folder.is_dir():
        raise UserError("--tokenizer must be a folder", value=str(folder), cure="check the path")
    name = settings.model or folder.resolve().name
    source = ModelSource(name=name, location=str(folder), prompt=settings.data.prompt)
    return source, f"its tokenizer in {folder}, by --tokenizer"


def print_plan(settings: MathSettings, *, say: Callable[[object], None]) -> dict[str, object]:
    """Print the memory that training will need on the device, part by part; return it."""
    model = find_model(settings.model or pick_default_model()[0])
    settings = split_batch(settings, model, say=say)
    longest = settings.data.rows.max_tokens
    plan = plan_training(model, recipe=settings.recipe, longest=longest, gpu=settings.staging.planned.device)
    say(plan.table())
    return plan.to_json()


def split_batch(settings: MathSettings, model: ModelSource, *, say: Callable[[object], None]) -> MathSettings:
    """Return the settings with the preset's batch in passes that fit the device; a batch that was named is kept."""
    named, usual = settings.recipe.tune, preset(settings.model or "pocket").recipe.tune
    if (named.batch, named.accumulate) != (usual.batch, usual.accumulate):
        return settings
    longest = settings.data.rows.max_tokens
    plan = plan_training(
        model, recipe=settings.recipe, longest=longest, gpu=settings.staging.planned.device, split=True
    )
    recipe, device = plan.recipe, plan.device
    if recipe.tune.batch != named.batch:
        say(
            f"rows a pass: {recipe.tune.batch}, not {named.batch}, as many as fit of {longest} tokens in "
            f"{device.memory_gib:.0f} GiB of {device.name}; {recipe.tune.accumulate} passes a step"
        )
    return replace(settings, recipe=recipe)


def print_settings(settings: MathSettings, *, stored: str, say: Callable[[object], None]) -> None:
    """Print what decides the result in a few lines; with --show-settings every setting that changes it.

    `stored` says how the model's weights are stored, by the word of `read_storage`.
    """
    usual = with_method(preset(settings.model or "pocket"), settings.recipe.method)
    from rich.text import Text

    for line in describe_settings(settings, usual, stored=stored):
        say(Text.from_markup(line))
    if not settings.staging.show_settings:
        return
    data, recipe, after = settings.data, settings.recipe, settings.after
    training = {"method": recipe.method, **recipe.groups}
    values = {
        "corpus": data.corpus,
        "rows": data.rows,
        "filters": data.filters,
        **(training if after.adapter is None else {"adapter": f"{after.adapter}, made elsewhere"}),
        "merge-base": after.merge_base,
        "forgetting": after.forgetting,
        "survival": after.survival,
        "export": after.export,
        "seed": settings.seed,
    }
    for name, value in values.items():
        say(f"{name}: {_in_words(value)}")


def _in_words(value: object) -> str:
    """Return a group of settings, or a single one, as a line has it."""
    if not is_dataclass(value):
        return str(value)
    return " · ".join(f"{name.replace('_', '-')} {own}" for name, own in flatten(value).items())


def set_threads(threads: int | None, model: ModelSource) -> None:
    """Set torch's threads: those that were named, else 1 for a small model."""
    import torch

    small = model.folder is not None and model.weight_bytes < _SMALL_BYTES
    if threads or small:
        torch.set_num_threads(threads or 1)


_SUMMARY = (
    "rows",
    "kept",
    "unverified",
    "drops",
    "parity",
    "steps",
    "last_loss",
    "dtype",
    "kl_merged",
    f"kl_{DEFAULT_FORMAT}",
    "greedy_unchanged",
)
"""Figures of the steps that the line of JSON repeats."""


def summarize(steps: Sequence[Step]) -> dict[str, object]:
    """Return the figures of all steps that the line of JSON has."""
    figures = {key: step.figures[key] for step in steps for key in _SUMMARY if key in step.figures}
    if "drops" in figures:
        figures["dropped"] = figures["drops"]
    exports = {step.name: step.figures for step in steps if step.name.startswith("export-")}
    seconds = sum(float(str(step.manifest["seconds"])) for step in steps)
    skipped = [step.name for step in steps if step.skipped]
    line = {**figures, "seconds": round(seconds, 1), "skipped": skipped}
    return {**line, "exports": exports} if exports else line


MATH_COMMAND = Command(
    settings=MathSettings,
    run=train_math,
    fails=lambda result: result.get("fits") is False,
    leading_flags=LEADING_FLAGS,
    main_flags=MAIN_FLAGS,
    foreign_flags=TRAINERS_FLAGS,
    defaults=default_settings,
    help="Tunes a model on problems with traces: format, QLoRA, merge, 8-bit export, each measured.\n\n"
    f"Presets: {', '.join(name for name in PRESETS if not name.endswith('-4bit'))}; with -4bit the R1 models' "
    "smaller downloads.\n\n"
    "Examples:\n\npython -m train math\n\npython -m train math --model r1-qwen-1.5b --source openr1 --limit 2000",
)
