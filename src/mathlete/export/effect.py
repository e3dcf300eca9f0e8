"""Effect: what the tuning did, before anything is merged: the base and the trained model on the same problems.

On the held-out rows it should have gained; on problems of another kind, the general ones, it must not have forgotten
much (catastrophic forgetting: McCloskey, Cohen 1989; under LoRA: arXiv 2405.09673).
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathlete.corpus import open_source
from mathlete.errors import UserError
from mathlete.export.hops import Answers, Heldout, Reference
from mathlete.export.settings import Forgetting
from mathlete.export.survival import compare_greedy, kl, log_probabilities, row_losses, top1
from mathlete.export.tuned import TunedModel
from mathlete.metrics import Interval, paired_difference
from mathlete.models import ModelSource, Precision, load_model
from mathlete.pocket import generate_items
from mathlete.prompts import PromptFormat
from mathlete.runs import Advance, read_json, write_json
from mathlete.traces import TracedProblem

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor

ANSWERS, EFFECT = "answers.json", "effect.json"
UNSEEN = "pocket-easy"
"""The pocket generator's easy problems, of its test side: no training problem has their numbers."""


def measure_effect(
    output: Path,
    *,
    tuned: TunedModel,
    max_tokens: int,
    forgetting: Forgetting,
    mirror: Path | None,
    seed: int,
    advance: Advance,
    say: Callable[[Any], None],
) -> dict[str, object]:
    """Writes the greedy answers of base and trained model and what the tuning changed; returns the figures.

    Raises:
        UserError: it cost more of the general problems than it may, or they can't be read.
    """
    heldout = Heldout.of(tuned.data, source=tuned.source, max_tokens=max_tokens)
    general = _general(forgetting, heldout, mirror=mirror, seed=seed)
    both = [heldout, general] if general else [heldout]
    advance(0, 2, "the base model")
    precision: Precision = "nf4" if tuned.is_adapter else "dense"
    before = _Model.of(lambda: load_model(tuned.source, precision=precision), both)
    advance(1, 2, "the trained model")
    after = _Model.of(tuned.load, both)
    write_json(output / ANSWERS, {"base": before.answers[0], "trained": after.answers[0]})
    figures: dict[str, Any] = {
        "hops": _hops(heldout, before, after, sizes=(tuned.source.weight_bytes, _bytes(tuned.adapter))),
        "heldout": _change(heldout, before, after, place=0),
    }
    if general:
        figures["general"] = {"source": forgetting.source, **_change(general, before, after, place=1)}
    write_json(output / EFFECT, figures)
    advance(2, 2, "")
    say(_in_words(figures))
    if general:
        require_kept(figures["general"], forgetting)
    return {**{f"heldout_{key}": figures["heldout"][key] for key in ("loss", "accuracy")}, **_gate(figures)}


class _Model:
    """One model's distributions and answers on some sets of rows."""

    def __init__(self, found: "list[Tensor]", answers: list[Answers], seconds: float) -> None:
        self.found, self.answers, self.seconds = found, answers, seconds

    @staticmethod
    def of(load: Callable[[], Any], sets: Sequence[Heldout]) -> "_Model":
        started = time.monotonic()
        model = load()
        found = [log_probabilities(model, some.rows) for some in sets]
        answers = [some.answers(model) for some in sets]
        return _Model(found, answers, time.monotonic() - started)


def _bytes(folder: Path) -> int:
    return ModelSource(name=folder.name, location=str(folder)).weight_bytes


def _hops(heldout: Heldout, before: _Model, after: _Model, *, sizes: tuple[int, int]) -> list[dict[str, Any]]:
    """The base's and the trained model's figures, sizes those of the base's files and of what was trained."""
    reference = Reference(heldout=heldout, log_probabilities=after.found[0], answers=after.answers[0])
    return [
        reference.figures(
            name,
            "transformers",
            model.answers[0],
            kl=kl(after.found[0], model.found[0]),
            top1=top1(after.found[0], model.found[0]),
            size=size,
            seconds=model.seconds,
        )
        for name, model, size in (("base", before, sizes[0]), ("trained", after, sum(sizes)))
    ]


def _change(asked: Heldout, before: _Model, after: _Model, *, place: int) -> dict[str, Any]:
    """Loss and accuracy before and after, and their paired changes with 95% intervals."""
    losses = [row_losses(one.found[place], asked.rows) for one in (before, after)]
    greedy = compare_greedy(asked.problems, before=before.answers[place], after=after.answers[place])
    return {
        "problems": greedy.problems,
        "loss": [sum(some) / len(some) for some in losses],
        "loss_change": _listed(paired_difference(*losses)),
        "accuracy": [count / greedy.problems for count in (greedy.right_before, greedy.right_after)],
        "accuracy_change": _listed(greedy.change),
    }


def _listed(found: Interval) -> list[float]:
    return [found.value, found.lo, found.hi]


def _gate(figures: dict[str, Any]) -> dict[str, object]:
    general = figures.get("general")
    return {f"general_{key}": general[key] for key in ("loss", "accuracy")} if general else {}


def _in_words(figures: dict[str, Any]) -> str:
    lines = []
    for name in ("heldout", "general"):
        if (part := figures.get(name)) is None:
            lines.append("forgetting: not measured; --forgetting.source SOURCE measures it (gsm8k, a file, …)")
            continue
        of = f"{part['problems']} {'held-out problems' if name == 'heldout' else 'general ones, ' + part['source']}"
        (loss, new), (right, now), points = part["loss"], part["accuracy"], part["accuracy_change"]
        value, low, high = (100 * number for number in points)
        lines.append(
            f"{of}: loss {loss:.3f} → {new:.3f}, greedy right {right:.1%} → {now:.1%} "
            f"({value:+.1f} points [{low:+.1f}, {high:+.1f}])"
        )
    return "\n".join(lines)


def require_kept(general: dict[str, Any], limits: Forgetting) -> None:
    """Checks what the tuning cost of the general problems; a cost counts where its 95% interval leaves out none.

    Raises:
        UserError: accuracy fell, or the loss rose, by more than it may.
    """
    value, _, high = general["accuracy_change"]
    if -value > limits.accuracy and high < 0:
        raise _forgot(general, f"{limits.accuracy:.0%} of the accuracy", "accuracy", f"{-value:.1%}")
    value, low, _ = general["loss_change"]
    if not value <= limits.loss and not low <= 0:
        raise _forgot(general, f"{limits.loss:g} nats a token of loss", "loss", f"{value:.3f}")


def _forgot(general: dict[str, Any], most: str, flag: str, value: str) -> UserError:
    return UserError(
        f"tuning may cost at most {most} on {general['source']}",
        value=value,
        cure=f"mix such problems into the rows (--source … {general['source']}=1), train with a lower --tune.rate or "
        f"fewer --tune.epochs, or accept it with --forgetting.{flag}",
    )


def _general(forgetting: Forgetting, heldout: Heldout, *, mirror: Path | None, seed: int) -> Heldout | None:
    if forgetting.source is None:
        return None
    traced = general_problems(forgetting, mirror=mirror, seed=seed)
    rows = rows_of_traces(traced, heldout.prompts)
    return Heldout(rows=rows, prompts=heldout.prompts, max_tokens=heldout.max_tokens)


def general_problems(forgetting: Forgetting, *, mirror: Path | None, seed: int) -> list[TracedProblem]:
    """The first problems of the source, each with one trace.

    Raises:
        UserError: the source can't be read, or has no problem.
    """
    assert forgetting.source is not None
    if forgetting.source == UNSEEN:
        return [
            item.traced
            for item in generate_items(families=["easy"], count=forgetting.problems, seed=seed, split="test")
        ]
    rows = open_source(forgetting.source, mirror=mirror, limit=forgetting.problems, seed=seed)
    traced = [traces[0] for traces in rows if traces]
    if not traced:
        raise UserError(
            "--forgetting.source must have problems", value=forgetting.source, cure="name another, or leave it out"
        )
    return traced


def rows_of_traces(traced: Sequence[TracedProblem], prompts: PromptFormat) -> "Dataset":
    """Rows of problems with their traces, as those of a run's held-out side."""
    import datasets

    found = []
    for one in traced:
        prompt = prompts.prompt_ids(one.problem.statement)
        completion = prompts.completion_ids(trace=one.trace.text, answer=one.trace.answer)
        shown = {"problem_id": one.problem.id, "statement": one.problem.statement, "gold": one.problem.gold}
        found.append({**shown, "input_ids": prompt + completion, "prompt_tokens": len(prompt)})
    return datasets.Dataset.from_list(found)


def read_effect(folder: Path) -> tuple[dict[str, Any], Answers]:
    """(figures, the trained model's greedy answers) of an effect folder."""
    answers: dict[str, Any] = read_json(folder / ANSWERS)
    return read_json(folder / EFFECT), answers["trained"]
