"""What `python -m train math` says in lines: what it is about to do, and what each step gave."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from mathlete.rows import explain_reason
from mathlete.runs import Step
from mathlete.settings import flatten
from train.settings import MathSettings

_Figures = Mapping[str, Any]
"""Of a step, as its manifest holds them."""
_PLACES = ("run", "overwrite", "plan", "device", "json", "show_settings", "threads", "model", "tokenizer", "until",
           "report_to", "session")  # fmt: skip
"""Settings that say where and how far, and change nothing that is trained."""
_IN_LINES = {
    *("source", "limit", "mirror", "rows.max_tokens", "rows.heldout", "method", "lora.rank"),
    *("lora.alpha", "tune.steps", "tune.epochs", "tune.batch", "tune.accumulate", "tune.rate", "export.formats"),
    *("seed", "merge_base", "adapter", "adapter_base"),
}
"""Settings that the two lines have anyhow."""


def describe_settings(settings: MathSettings, usual: MathSettings, *, stored: str = "dense") -> list[str]:
    """Return the settings in two lines for a person, as rich's markup; what differs from the preset is bold.

    Args:
        settings: of the run.
        usual: the preset's, of the same method.
        stored: how the model's weights are stored, by the word of `read_storage`.
    """
    from rich.markup import escape

    now, then = (_flatten(one) for one in (settings, usual))

    def show(words: str, *names: str) -> str:
        # A folder's name may have brackets, which would be a style.
        words = escape(words)
        return f"[bold]{words}[/]" if any(now[name] != then[name] for name in names) else words

    corpus, rows, recipe = settings.data.corpus, settings.data.rows, settings.recipe
    lora, tune = recipe.lora, recipe.tune
    problems = "all problems" if corpus.limit is None else f"{corpus.limit:,} problems"
    length = f"{tune.steps:,} steps" if tune.steps else f"{tune.epochs:g} epoch{'s' if tune.epochs != 1 else ''}"
    # How many problems there are is known when the rows are made; that step says how many are held out.
    data = (
        show(" ".join(corpus.source), "source"),
        show(problems, "limit"),
        show(f"rows of at most {rows.max_tokens:,} tokens", "rows.max_tokens"),
        show(f"a tenth of the problems held out, at most {rows.heldout:,}", "rows.heldout"),
    )
    # What is quantised already stays as it is; QLoRA's 4 bits are what all else gets.
    base = {"dense": "4-bit", "nf4": "4-bit", "int8": "8-bit"}.get(stored, stored)
    method = f"q{recipe.method}" if recipe.spec.quantized and base == "4-bit" else recipe.method
    has_rank = recipe.spec.takes_init
    taken = settings.after.adapter
    trained = (
        show(f"{method} r{lora.rank} α{lora.alpha}" if has_rank else method, "method", "lora.rank", "lora.alpha"),
        show(f"{length} × {tune.step_rows} rows", "tune.steps", "tune.epochs", "tune.batch", "tune.accumulate"),
        show(f"lr {_in_powers(tune.rate)}", "tune.rate"),
    )
    to_base = settings.after.merge_base == "dequant" and settings.after.adapter_base != "16bit"
    how = (
        *(trained if taken is None else [show(f"adapter {taken}, made elsewhere", "adapter", "adapter_base")]),
        show(f"seed {settings.seed}", "seed"),
        *([f"merged into the {base if to_base else 'original'} base"]
          if settings.until in ("merge", "export") and recipe.spec.quantized else []),
        *([show(", ".join(settings.after.export.written), "export.formats")]
          if settings.until == "export" else []),
    )  # fmt: skip
    others = [
        f"{name.replace('_', '-')} {value}"
        for name, value in now.items()
        if name not in _IN_LINES and value != then[name]
    ]
    lines = [" · ".join(data), " · ".join(how)]
    return [*lines, *([f"[bold]{escape(' · '.join(others))}[/]"] if others else [])]


def _flatten(settings: MathSettings) -> dict[str, object]:
    """Return {name: value} of the settings that change what is trained, named as their flags are."""
    parts = flatten(settings)
    flat: dict[str, object] = {}
    for name, value in parts.items():
        if name in _PLACES:
            continue
        flat |= {f"{name}.{key}": one for key, one in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def _in_powers(rate: float) -> str:
    """Return a learning rate.

    >>> _in_powers(0.002), _in_powers(2.5e-05)
    ('2e-3', '2.5e-5')
    """
    digits, _, power = f"{rate:.3e}".partition("e")
    return f"{float(digits):g}e{int(power)}"


def describe_step(step: Step) -> str:
    """Return what a finished step gave, in a line."""
    describe = _STEPS.get("export" if step.name.startswith("export") else step.name, _describe_others)
    figures, name = cast(_Figures, step.figures), step.name
    parts = [*describe(figures), in_short_time(float(str(step.manifest["seconds"])))]
    return f"{name} " + " · ".join(part for part in parts if part)


def _describe_rows(figures: _Figures) -> Iterator[str]:
    dropped: Mapping[str, int] = figures["drops"]
    out = f"{sum(dropped.values()):,} left out" if dropped else "none left out"
    yield (
        f"{figures['traces']:,} traces, {out} → {figures['rows']:,} to train on, {figures['heldout']:,} held out · "
        f"longest {figures['longest']:,} of {figures['packing']['budget']:,} tokens"
    )
    if dropped:
        reason, count = max(dropped.items(), key=lambda item: item[1])
        yield f"{count:,} of those left out: {explain_reason(reason)}"


def _describe_training(figures: _Figures) -> Iterator[str]:
    if "steps" not in figures:  # an adapter that was trained elsewhere
        yield from _describe_others(figures)
        return
    yield f"{figures['steps']:,} steps, {figures['rows_seen']:,} rows"
    yield f"loss {figures['first_loss']:.4f} → {figures['last_loss']:.4f}"
    yield f"{figures['trainable_parameters']:,} numbers trained"


def _describe_merge(figures: _Figures) -> Iterator[str]:
    yield f"{figures['parameters']:,} numbers in {figures['dtype']}"
    yield f"KL {figures['kl_merged']:.1e} over {figures['kl_tokens']:,} tokens"


def _describe_export(figures: _Figures) -> Iterator[str]:
    if figures["greedy_unchanged"] is None:
        yield "no greedy answer to compare"
    else:
        yield f"{figures['greedy_unchanged']:.1%} of {figures['greedy_answered']:,} greedy answers unchanged"
    yield f"{figures['bytes'] / 2**20:,.1f} MiB"


def _describe_others(figures: _Figures) -> Iterator[str]:
    for key, value in figures.items():
        if isinstance(value, int | float):
            yield (
                f"{key.replace('_', ' ')} {value:,}"
                if isinstance(value, int)
                else f"{key.replace('_', ' ')} {value:.3g}"
            )


_STEPS: dict[str, Callable[[_Figures], Iterator[str]]] = {
    "format": _describe_rows,
    "tune": _describe_training,
    "effect": lambda _: iter(("base and trained model measured",)),
    "merge": _describe_merge,
    "export": _describe_export,
}


def in_short_time(seconds: float) -> str:
    """Return a duration as people say it.

    >>> in_short_time(5.216), in_short_time(376.9), in_short_time(0.4), in_short_time(7300)
    ('5 s', '6 min 17 s', '0.4 s', '2 h 1 min')
    """
    if seconds < 1:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
