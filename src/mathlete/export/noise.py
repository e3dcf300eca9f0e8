"""Measuring the noise of computing: the model as trained, computed again, in another batch, in a 16-bit type."""

from typing import TYPE_CHECKING

from mathlete.export.distributions import kl_divergence, log_probabilities
from mathlete.export.exact import EXACT
from mathlete.export.greedy import Answers, Watch, compare_greedy
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


NOISY = "bfloat16"
"""The 16-bit type whose KL is the noise, on every device: most models are served in it, and it is the coarsest."""


def other_dtype() -> str:
    """Return a 16-bit type that this device does not compute in anyhow."""
    return "float16" if Device.current().has_bf16 else NOISY


def measure_exact_noise(model: "PreTrainedModel", rows: "Dataset") -> tuple[float, float]:
    """Return the KLs (computed again, in a batch of another shape) of a model from itself, on the first rows."""
    some = rows.select(range(min(_AGAIN_ROWS, len(rows))))
    first = log_probabilities(model, some)
    again, batch = log_probabilities(model, some), log_probabilities(model, some, copies=3, padding=5)
    return kl_divergence(first, again), kl_divergence(first, batch)


def measure_noise(
    tuned: TunedModel,
    heldout: Heldout,
    *,
    reference: "Tensor",
    served: "Tensor",
    answers: Answers,
    watch: Watch = lambda _: None,
) -> tuple[Noise, Answers]:
    """Measure the noise of the model as trained; return it with its greedy answers in another 16-bit type.

    Args:
        tuned: the model.
        heldout: the rows.
        reference: its log-probabilities in fp32, (tokens, vocabulary).
        served: those in this device's own type.
        answers: its greedy answers in this device's own type.
        watch: told how far it is.
    """
    again, batch = measure_exact_noise(tuned.load(dtype=EXACT), heldout.rows)
    model = tuned.load(dtype=other_dtype())
    kl = kl_divergence(reference, served if Device.current().has_bf16 else log_probabilities(model, heldout.rows))
    drawn = heldout.draw_answers(model, watch=watch)
    compared = compare_greedy(heldout.problems, before=answers, after=drawn)
    changed = compared.answered - compared.unchanged
    noise = Noise(again=again, batch=batch, dtype=NOISY, kl=kl, answered=compared.answered, changed=changed)
    return noise, drawn
