"""Export: the merged model in 8 bits, reloaded and compared with the trained one; int8 always, others on request."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mathlete.models import ModelSource, load_model, prompt_format, weight_bytes
from mathlete.runs import require_space, write_json
from mathlete.tune.formats import FORMATS, export_bytes, load_export, write_format
from mathlete.tune.methods import trained_model
from mathlete.tune.model_card import write_card
from mathlete.tune.settings import Advance, Export, FormatName, Survival
from mathlete.tune.survival import (
    compare_greedy,
    greedy_answers,
    heldout_problems,
    heldout_rows,
    kl,
    log_probabilities,
    require_survival,
    survival_table,
)

SURVIVAL = "survival.json"


def export(
    output: Path,
    *,
    merged: Path,
    adapter: Path,
    data: Path,
    source: ModelSource,
    limits: Survival,
    formats: Export,
    advance: Advance,
    say: Callable[[Any], None],
) -> dict[str, object]:
    """Writes the int8 model's folder, and what the hops to it cost as `survival.json`; returns that.

    Raises:
        UserError: a hop cost more than its limit.
    """
    advance(0, 4, "writing int8")
    _write(output, merged=merged, name="int8", settings=formats)
    figures = measure(output, merged=merged, adapter=adapter, data=data, source=source, limits=limits, advance=advance)
    write_json(output / SURVIVAL, figures)
    say(survival_table(figures, limits))
    require_survival(figures, limits)
    made_of = {"rows": data, "adapter": adapter, "merged": merged}
    write_card(output, words=FORMATS["int8"].words, name="int8", source=source, made_of=made_of, figures=figures)
    return figures


def _write(output: Path, *, merged: Path, name: FormatName, settings: Export) -> None:
    require_space(output, needed_bytes=weight_bytes(merged))
    write_format(output, merged=merged, name=name, settings=settings)


def export_other(
    output: Path,
    *,
    name: FormatName,
    merged: Path,
    adapter: Path,
    data: Path,
    source: ModelSource,
    limits: Survival,
    formats: Export,
    advance: Advance,
    say: Callable[[Any], None],
) -> dict[str, object]:
    """Writes the folder of a format beside int8, and what it cost as `survival.json`; returns that.

    Raises:
        UserError: the format can't hold the model or its GPU can't run it, or it cost more than int8 may.
    """
    advance(0, 3, f"writing {name}")
    _write(output, merged=merged, name=name, settings=formats)
    advance(1, 3, "the trained model")
    rows, prompts = heldout_rows(data), prompt_format(source)
    problems = heldout_problems(rows)
    model = trained_model(source, adapter)
    reference = log_probabilities(model, rows)
    before = greedy_answers(model, prompts=prompts, problems=problems, max_tokens=limits.max_tokens)
    advance(2, 3, f"the {name} model")
    model = load_export(output)
    found = log_probabilities(model, rows)
    after = greedy_answers(model, prompts=prompts, problems=problems, max_tokens=limits.max_tokens)
    greedy = compare_greedy(problems, before=before, after=after)
    figures: dict[str, object] = {
        "format": name,
        "kl": kl(reference, found),
        "top1": float((reference.argmax(1) == found.argmax(1)).double().mean()),
        "kl_tokens": len(reference),
        "greedy_answered": greedy.answered,
        "greedy_unchanged": greedy.share,
        "greedy_right_trained": greedy.right_before,
        "greedy_right": greedy.right_after,
        "bytes": export_bytes(output),
    }
    write_json(output / SURVIVAL, figures)
    say(f"{name}: KL {figures['kl']:.1e}, top-1 {figures['top1']:.2%}, {greedy.unchanged} of {greedy.answered} greedy "
        f"answers unchanged, {export_bytes(output):,} bytes")  # fmt: skip
    require_survival({"kl_int8": figures["kl"], "greedy_unchanged": greedy.share, "greedy_answered": greedy.answered},
                     limits)  # fmt: skip
    made_of = {"rows": data, "adapter": adapter, "merged": merged}
    write_card(output, words=FORMATS[name].words, name=name, source=source, made_of=made_of, figures=figures)
    advance(3, 3, "")
    return figures


def measure(
    output: Path,
    *,
    merged: Path,
    adapter: Path,
    data: Path,
    source: ModelSource,
    limits: Survival,
    advance: Advance,
) -> dict[str, Any]:
    """KL of the merged and of the reloaded int8 model against the trained one, and their greedy answers."""
    rows, prompts = heldout_rows(data), prompt_format(source)
    problems = heldout_problems(rows)

    def answers(model: Any) -> dict[str, str | None]:
        return greedy_answers(model, prompts=prompts, problems=problems, max_tokens=limits.max_tokens)

    advance(1, 4, "the trained model")
    model = trained_model(source, adapter)
    reference = log_probabilities(model, rows)
    before = answers(model)
    advance(2, 4, "the merged model")
    model = load_model(ModelSource(name="merged", location=str(merged)))
    kl_merged = kl(reference, log_probabilities(model, rows))
    advance(3, 4, "the int8 model")
    model = load_model(ModelSource(name="export", location=str(output)))
    kl_int8 = kl(reference, log_probabilities(model, rows))
    greedy = compare_greedy(problems, before=before, after=answers(model))
    advance(4, 4, "")
    return {
        "kl_merged": kl_merged,
        "kl_int8": kl_int8,
        "kl_tokens": len(reference),
        "greedy_problems": greedy.problems,
        "greedy_answered": greedy.answered,
        "greedy_unchanged": greedy.share,
        "greedy_right_trained": greedy.right_before,
        "greedy_right_int8": greedy.right_after,
        "int8_bytes": weight_bytes(output),
    }
