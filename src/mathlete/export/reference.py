"""What every hop is measured against: the model as it was trained, on rows that no model was trained on."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from mathlete.export.distributions import kl_divergence, log_probabilities, top1_agreement
from mathlete.export.greedy import Answers, Watch, compare_greedy, draw_greedy_answers, is_unchanged, list_problems
from mathlete.export.records.exports import Hop
from mathlete.metrics import PairedChange, paired_change
from mathlete.problems import Problem
from mathlete.prompts import PromptFormat

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class Heldout:
    """Rows that no model was trained on, and the prompts of their problems."""

    rows: "Dataset"
    prompts: PromptFormat
    max_tokens: int
    """Cap on a greedy completion, tokens."""

    @cached_property
    def problems(self) -> list[Problem]:
        """The problems of the rows, each once."""
        return list_problems(self.rows)

    def draw_answers(self, model: "PreTrainedModel", *, watch: Watch = lambda _: None) -> Answers:
        """Draw the model's greedy answers; it can't be used afterwards."""
        return draw_greedy_answers(
            model, prompts=self.prompts, problems=self.problems, max_tokens=self.max_tokens, watch=watch
        )


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The model as it was trained: its distributions, (tokens, vocabulary), and its answers on held-out rows."""

    heldout: Heldout
    log_probabilities: "Tensor"
    answers: Answers
    again: Answers | None = None
    """Those that it gives in another type: what noise alone changes; None where they were not drawn."""

    def measure(
        self, name: str, load: "Callable[[], PreTrainedModel]", *, size: int, watch: Watch = lambda _: None
    ) -> Hop:
        """Load a model of `size` bytes with transformers, and measure it against the trained one."""
        started = time.monotonic()
        model = load()
        log_probs = log_probabilities(model, self.heldout.rows)
        kl = kl_divergence(self.log_probabilities, log_probs)
        top1 = top1_agreement(self.log_probabilities, log_probs)
        # Up to a GiB, which the KV cache of the answers needs.
        del log_probs
        answers = self.heldout.draw_answers(model, watch=watch)
        seconds = time.monotonic() - started
        return self.compare(name, "transformers", answers, kl=kl, top1=top1, size=size, seconds=seconds)

    def compare(
        self,
        name: str,
        engine: str,
        answers: Answers,
        *,
        size: int,
        seconds: float,
        kl: float | None = None,
        top1: float | None = None,
    ) -> Hop:
        """Return the hop of a model that gave these answers, beside the trained model's."""
        greedy = compare_greedy(self.heldout.problems, before=self.answers, after=answers)
        return Hop(
            name=name,
            engine=engine,
            kl=kl,
            top1=top1,
            problems=greedy.problems,
            answered=greedy.answered,
            unchanged=greedy.share,
            right=greedy.right_after,
            change=greedy.change,
            bytes=size,
            seconds=round(seconds, 2),
            beyond_noise=None if self.again is None else self._beyond_noise(answers),
        )

    def _beyond_noise(self, answers: Answers) -> PairedChange | None:
        """Return how many more answers changed than by noise, by problem; None where nobody answers any."""
        again = self.again or {}
        some = [one for one in self.heldout.problems if any(of.get(one.id) for of in (self.answers, again, answers))]
        if not some:
            return None
        by_noise, by_model = (
            [float(not is_unchanged(self.answers[one.id], of[one.id], one.answers)) for one in some]
            for of in (again, answers)
        )
        return paired_change(by_noise, by_model)
