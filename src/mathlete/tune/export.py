"""Export: the merged model in bitsandbytes LLM.int8 (arXiv 2208.07339), reloaded and compared with the trained one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mathlete.models import ModelSource, load_model, prompt_format, weight_bytes
from mathlete.runs import read_json, require_space, write_json
from mathlete.tune.methods import trained_model
from mathlete.tune.settings import Advance, Survival
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
    advance: Advance,
    say: Callable[[Any], None],
) -> dict[str, object]:
    """Writes the int8 model's folder, and what the hops to it cost as `survival.json`; returns that.

    Raises:
        UserError: a hop cost more than its limit.
    """
    advance(0, 4, "writing int8")
    _save_int8(output, merged=merged)
    figures = measure(output, merged=merged, adapter=adapter, data=data, source=source, limits=limits, advance=advance)
    write_json(output / SURVIVAL, figures)
    say(survival_table(figures, limits))
    require_survival(figures, limits)
    return figures


def _save_int8(output: Path, *, merged: Path) -> None:
    from_merged = ModelSource(name="merged", location=str(merged))
    require_space(output, needed_bytes=weight_bytes(merged))
    model: Any = load_model(from_merged, precision="int8", dtype=str(read_json(merged / "config.json")["dtype"]))
    model.save_pretrained(output)
    prompts = prompt_format(from_merged)
    prompts.tokenizer.save_pretrained(output)
    prompts.save(output)


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
