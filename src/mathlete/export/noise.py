"""Measuring the noise of computing: the model as trained, computed again, in another batch, and merged in 16 bits."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mathlete.export.distributions import kl_divergence, log_probabilities
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


@dataclass(frozen=True)
class Exact:
    """What a model that computes in fp32 says of rows."""

    log_probs: "Tensor"
    """Its log-probabilities, (tokens, vocabulary)."""
    noise: tuple[float, float]
    """Its KLs from itself on the first rows: computed again, in a batch of another shape."""


def measure_exactly(model: "PreTrainedModel", rows: "Dataset", *, log_probs: "Tensor | None" = None) -> Exact:
    """Measure a model that computes in fp32 on rows; `log_probs` is what it says of them, where that is known."""
    if log_probs is None:
        log_probs = log_probabilities(model, rows)
    some = rows.select(range(min(_AGAIN_ROWS, len(rows))))
    # Which tokens of a row are looked at depends on how many all rows have.
    first = log_probs if len(some) == len(rows) else log_probabilities(model, some)
    again, batch = log_probabilities(model, some), log_probabilities(model, some, copies=3, padding=5)
    return Exact(log_probs, noise=(kl_divergence(first, again), kl_divergence(first, batch)))


def measure_16bit(tuned: TunedModel, rows: "Dataset", *, reference: "Tensor") -> float:
    """Return what computing in a 16-bit type costs: KL from the model in fp32, of its merged weights, which are served.

    An adapter apart from a 16-bit base loses most of a small update in each layer's output, which would be no noise of
    any export: SmolLM2-135M's KL was 6.2e-3 after three steps of training, merged 1.6e-3, as before them.
    """
    return kl_divergence(reference, log_probabilities(tuned.load_served(dtype=NOISY), rows))


def measure_noise(
    tuned: TunedModel,
    heldout: Heldout,
    *,
    exact: Exact,
    answers: Answers,
    watch: Watch = lambda _: None,
) -> tuple[Noise, Answers]:
    """Measure the noise of the model as trained; return it with its greedy answers in another 16-bit type.

    Args:
        tuned: the model.
        heldout: the rows.
        exact: the model in fp32 on the same rows.
        answers: its greedy answers in this device's own type.
        watch: told how far it is.
    """
    again, batch = exact.noise
    kl = measure_16bit(tuned, heldout.rows, reference=exact.log_probs)
    drawn = heldout.draw_answers(tuned.load_served(dtype=other_dtype()), watch=watch)
    compared = compare_greedy(heldout.problems, before=answers, after=drawn)
    changed = compared.answered - compared.unchanged
    noise = Noise(again=again, batch=batch, dtype=NOISY, kl=kl, answered=compared.answered, changed=changed)
    return noise, drawn
