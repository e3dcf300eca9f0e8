"""Measuring the noise of computing: the model as trained, computed again, in another batch, in a 16-bit type."""

from typing import TYPE_CHECKING

from mathlete.export.distributions import kl_divergence, log_probabilities
from mathlete.export.exact import EXACT
from mathlete.export.greedy import Answers, compare_greedy
from mathlete.export.reference import Heldout
from mathlete.export.tuned import TunedModel
from mathlete.gates import Noise
from mathlete.models import Device

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedModel

_AGAIN_ROWS = 8
"""Rows that are computed again: the noise of fp32 is nine orders of magnitude below what is looked for."""


def served_dtype() -> str:
    """Return the 16-bit type that noise is measured in: bfloat16, the coarser; float16 where this device is in that."""
    return "float16" if Device.current().has_bf16 else "bfloat16"


def measure_exact_noise(model: "PreTrainedModel", rows: "Dataset") -> tuple[float, float]:
    """Return the KLs (computed again, in a batch of another shape) of a model from itself, on the first rows."""
    some = rows.select(range(min(_AGAIN_ROWS, len(rows))))
    first = log_probabilities(model, some)
    again, batch = log_probabilities(model, some), log_probabilities(model, some, copies=3, padding=5)
    return kl_divergence(first, again), kl_divergence(first, batch)


def measure_noise(
    tuned: TunedModel, heldout: Heldout, *, reference: "Tensor", served: "Tensor", answers: Answers
) -> tuple[Noise, Answers]:
    """Measure the noise of the model as trained; return it with the greedy answers of the other type.

    Args:
        tuned: the model.
        heldout: the rows.
        reference: its log-probabilities in fp32, (tokens, vocabulary).
        served: those in this device's own type.
        answers: its greedy answers in this device's own type.
    """
    again, batch = measure_exact_noise(tuned.load(dtype=EXACT), heldout.rows)
    dtype = served_dtype()
    model = tuned.load(dtype=dtype)
    # On a bf16 GPU its own type is the coarser one: the noise is that of what is served there.
    kl = max(kl_divergence(reference, log_probabilities(model, heldout.rows)), kl_divergence(reference, served))
    drawn = heldout.draw_answers(model)
    compared = compare_greedy(heldout.problems, before=answers, after=drawn)
    changed = compared.answered - compared.unchanged
    noise = Noise(again=again, batch=batch, dtype=dtype, kl=kl, answered=compared.answered, changed=changed)
    return noise, drawn
