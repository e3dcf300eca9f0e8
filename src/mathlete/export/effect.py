"""Effect: what the tuning did, before anything is merged: the base and the trained model on the same problems.

On the held-out rows it should have gained; on problems of another kind, the general ones, it must not have forgotten
much (catastrophic forgetting: McCloskey, Cohen 1989; under LoRA: arXiv 2405.09673).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from mathlete.corpus import open_source
from mathlete.errors import UserError
from mathlete.export.distributions import kl_divergence, log_probabilities, row_losses, top1_agreement
from mathlete.export.exact import EXACT
from mathlete.export.greedy import Answers, Watch, compare_greedy
from mathlete.export.limits import find_kept_breaches
from mathlete.export.noise import Exact, measure_exactly, measure_noise
from mathlete.export.records.exports import Hop
from mathlete.export.records.tuning import ANSWERS, EFFECT, EffectFigures, TuningChange
from mathlete.export.reference import Heldout, Reference
from mathlete.export.settings import Forgetting
from mathlete.export.tuned import TunedModel
from mathlete.gates import judge_breaches, outcome_of
from mathlete.metrics import FEWEST_SIGNS, format_change, paired_change, to_points
from mathlete.models import Device, ModelSource
from mathlete.pocket import generate_items
from mathlete.prompts import PromptFormat
from mathlete.runs import Advance, read_json, write_json
from mathlete.text import counted
from mathlete.traces import TracedProblem

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedModel

UNSEEN = "pocket-easy"
"""The pocket generator's easy problems, of its test side: no training problem has their numbers."""


def measure_effect(
    output: Path,
    *,
    tuned: TunedModel,
    max_tokens: int,
    forgetting: Forgetting,
    accept_refused: str = "",
    mirror: Path | None,
    seed: int,
    advance: Advance,
    say: Callable[[str], None],
) -> dict[str, object]:
    """Write the greedy answers of base and trained model and what the tuning changed; return the main figures.

    Raises:
        Refused: it cost more of the general problems than it may, and there is no reason to accept that.
        UserError: they can't be read.
    """
    heldout = tuned.heldout(max_tokens)
    general = _load_general(forgetting, heldout, mirror=mirror, seed=seed)
    sets = [heldout, general] if general else [heldout]
    advance(0, 3, "the base model")
    before = _measure(tuned.load_base, sets, watch=lambda words: advance(0, 3, f"the base model: {words}"))
    advance(1, 3, "the trained model")
    is_exact = Device.current().dtype == EXACT
    after = _measure(
        tuned.load_answering, sets, exactly=is_exact, watch=lambda words: advance(1, 3, f"the trained model: {words}")
    )
    advance(2, 3, "the noise of computing")
    exact = after.exact or measure_exactly(tuned.load(dtype=EXACT), heldout.rows)
    noise, again = measure_noise(
        tuned,
        heldout,
        exact=exact,
        answers=after.answers[0],
        watch=lambda words: advance(2, 3, f"the noise of computing: {words}"),
    )
    write_json(output / ANSWERS, {"base": before.answers[0], "trained": after.answers[0], "again": again})
    sizes = tuned.source.weight_bytes, _bytes(tuned.adapter)
    change = _change(general, before, after, index=1, source=forgetting.source) if general else None
    breaches = [*find_kept_breaches(change, forgetting)] if change else []
    figures = EffectFigures(
        hops=_hops(heldout, before, after, exact=exact.log_probs, sizes=sizes),
        heldout=_change(heldout, before, after, index=0, source=None),
        general=change,
        noise=noise,
        outcome=outcome_of(breaches, reason=accept_refused),
    )
    # Written and said before the limit is kept: a breach is explained by the figures.
    write_json(output / EFFECT, figures.to_json())
    advance(3, 3, "")
    say(describe_effect(figures))
    judge_breaches(breaches, reason=accept_refused, folder=output)
    return {**figures.summary, **figures.outcome.to_json()}


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """One model's distributions, (tokens, vocabulary), and answers on each set of rows."""

    log_probs: "list[Tensor]"
    answers: list[Answers]
    seconds: float
    """To load the model and to measure these."""
    exact: Exact | None = None
    """The first set in fp32, where that was asked for."""


def _measure(
    load: "Callable[[], PreTrainedModel]", sets: Sequence[Heldout], *, watch: Watch, exactly: bool = False
) -> _Measured:
    """Measure a model on all sets; `exactly`: it computes in fp32, and how exactly on the first set is measured too."""
    started = time.monotonic()
    model = load()
    # All distributions first: drawing answers uses the model up.
    log_probs = [log_probabilities(model, heldout.rows) for heldout in sets]
    paused = time.monotonic()
    exact = measure_exactly(model, sets[0].rows, log_probs=log_probs[0]) if exactly else None
    started += time.monotonic() - paused
    answers = [heldout.draw_answers(model, watch=watch) for heldout in sets]
    return _Measured(log_probs=log_probs, answers=answers, seconds=time.monotonic() - started, exact=exact)


def _bytes(folder: Path) -> int:
    return ModelSource(name=folder.name, location=str(folder)).weight_bytes


def _hops(
    heldout: Heldout, before: _Measured, after: _Measured, *, exact: "Tensor", sizes: tuple[int, int]
) -> tuple[Hop, Hop]:
    """Return the base's and the trained model's hops; `sizes`: bytes of the base's files and of what was trained."""
    reference = Reference(heldout=heldout, log_probabilities=exact, answers=after.answers[0])

    def hop(name: str, model: _Measured, size: int) -> Hop:
        return reference.compare(
            name,
            "transformers",
            model.answers[0],
            kl=kl_divergence(exact, model.log_probs[0]),
            top1=top1_agreement(exact, model.log_probs[0]),
            size=size,
            seconds=model.seconds,
        )

    return hop("base", before, sizes[0]), hop("trained", after, sum(sizes))


def _change(heldout: Heldout, before: _Measured, after: _Measured, *, index: int, source: str | None) -> TuningChange:
    """Return loss and accuracy before and after on the set of this index, and their paired changes."""
    losses = [row_losses(model.log_probs[index], heldout.rows) for model in (before, after)]
    greedy = compare_greedy(heldout.problems, before=before.answers[index], after=after.answers[index])
    old, new = (sum(some) / len(some) for some in losses)
    return TuningChange(
        source=source,
        problems=greedy.problems,
        loss=(old, new),
        loss_change=paired_change(*losses),
        accuracy=(greedy.right_before / greedy.problems, greedy.right_after / greedy.problems),
        accuracy_change=greedy.change,
    )


def describe_effect(figures: EffectFigures) -> str:
    """Describe what the training changed, a line for each set of problems."""
    lines = [_describe(figures.heldout, counted(figures.heldout.problems, "held-out problem"))]
    if figures.general is None:
        lines.append("forgetting: not measured; --forgetting.source SOURCE measures it (gsm8k, a file, …)")
    else:
        lines.append(_describe(figures.general, f"{figures.general.problems} general ones, {figures.general.source}"))
        if figures.general.problems < FEWEST_SIGNS:
            lines.append(
                f"forgetting: {counted(figures.general.problems, 'general problem')} can't show a loss of accuracy, "
                f"{FEWEST_SIGNS} can; --forgetting.problems takes more"
            )
    if figures.noise:
        lines.append(figures.noise.describe())
    return "\n".join(lines)


def _describe(change: TuningChange, problems: str) -> str:
    (loss, new_loss), (right, new_right) = change.loss, change.accuracy
    return (
        f"{problems}: loss {loss:.3f} → {new_loss:.3f}, greedy right {right:.1%} → {new_right:.1%} "
        f"({format_change(to_points(change.accuracy_change), problems=change.problems, unit=' points')})"
    )


def _load_general(forgetting: Forgetting, heldout: Heldout, *, mirror: Path | None, seed: int) -> Heldout | None:
    """Load the general problems as rows of the same prompts; None where no source of them is named."""
    if forgetting.source is None:
        return None
    traced = load_general_problems(forgetting.source, count=forgetting.problems, mirror=mirror, seed=seed)
    rows = rows_of_traces(traced, heldout.prompts)
    return Heldout(rows=rows, prompts=heldout.prompts, max_tokens=heldout.max_tokens)


def load_general_problems(source: str, *, count: int, mirror: Path | None, seed: int) -> list[TracedProblem]:
    """Read the first problems of the source, each with one trace.

    Raises:
        UserError: the source can't be read, or has no problem.
    """
    if source == UNSEEN:
        return [item.traced for item in generate_items(families=["easy"], count=count, seed=seed, split="test")]
    problems = [traces[0] for traces in open_source(source, mirror=mirror, limit=count, seed=seed) if traces]
    if not problems:
        raise UserError("--forgetting.source must have problems", value=source, cure="name another, or leave it out")
    return problems


def rows_of_traces(traced: Sequence[TracedProblem], prompts: PromptFormat) -> "Dataset":
    """Return problems with their traces as rows with the columns of a run's held-out rows."""
    import datasets

    rows = []
    for one in traced:
        prompt = prompts.prompt_ids(one.problem.statement)
        completion = prompts.completion_ids(trace=one.trace.text, answer=one.trace.answer)
        problem = one.problem
        columns = {"problem_id": problem.id, "statement": problem.statement, "gold": problem.gold}
        rows.append(
            {**columns, "answers": problem.answers, "input_ids": prompt + completion, "prompt_tokens": len(prompt)}
        )
    return datasets.Dataset.from_list(rows)


@dataclass(frozen=True, kw_only=True)
class MeasuredEffect:
    """An effect step's folder, read back."""

    figures: EffectFigures
    answers: Answers
    """The trained model's greedy answers."""
    again: Answers | None
    """Those that it gives in a 16-bit type; None in a folder of an earlier version."""

    @classmethod
    def read(cls, folder: Path) -> "MeasuredEffect":
        """Read an effect step's folder.

        Raises:
            UserError: a file is missing or can't be read.
        """
        figures, answers = EffectFigures.read(folder), cast("dict[str, Answers]", read_json(folder / ANSWERS))
        return cls(figures=figures, answers=answers["trained"], again=answers.get("again"))
