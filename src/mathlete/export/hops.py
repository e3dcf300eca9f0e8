"""Hops from the 4-bit base to what serves: each measured against the model as it was trained, and what it may cost."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathlete.errors import UserError
from mathlete.export.settings import Survival
from mathlete.export.survival import (
    compare_greedy,
    greedy_answers,
    heldout_problems,
    heldout_rows,
    kl,
    log_probabilities,
)
from mathlete.export.survival import top1 as same_top1
from mathlete.models import ModelSource, load_prompt_format
from mathlete.problems import Problem
from mathlete.prompts import PromptFormat

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor

Answers = dict[str, str | None]
"""{problem id: greedy answer, or None}."""


@dataclass(frozen=True, kw_only=True)
class Heldout:
    """Rows that no model was trained on, and how their problems are asked."""

    rows: "Dataset"
    prompts: PromptFormat
    max_tokens: int

    @staticmethod
    def of(data: Path, *, source: ModelSource, max_tokens: int) -> "Heldout":
        """Those of a run's data folder."""
        return Heldout(rows=heldout_rows(data), prompts=load_prompt_format(source), max_tokens=max_tokens)

    @cached_property
    def problems(self) -> list[Problem]:
        """Each once."""
        return heldout_problems(self.rows)

    def answers(self, model: Any) -> Answers:
        """The model's greedy answers; it can't be used afterwards."""
        return greedy_answers(model, prompts=self.prompts, problems=self.problems, max_tokens=self.max_tokens)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The model as it was trained, on held-out rows."""

    heldout: Heldout
    log_probabilities: "Tensor"
    answers: Answers

    def hop(self, name: str, load: Callable[[], Any], *, size: int) -> dict[str, Any]:
        """The figures of a model that transformers loads (see `figures`), `size` bytes of weights."""
        started = time.monotonic()
        model = load()
        found = log_probabilities(model, self.heldout.rows)
        costs = {"kl": kl(self.log_probabilities, found), "top1": same_top1(self.log_probabilities, found)}
        del found
        answers = self.heldout.answers(model)
        return self.figures(name, "transformers", answers, **costs, size=size, seconds=time.monotonic() - started)

    def figures(
        self,
        name: str,
        engine: str,
        answers: Answers,
        *,
        size: int,
        seconds: float,
        kl: float | None = None,
        top1: float | None = None,
    ) -> dict[str, Any]:
        """What a hop cost.

        Returns:
            {"hop", "engine", "kl": KL(trained || it) in nats a token or None, "top1": share of tokens with the same
            likeliest one or None, "problems", "answered": by it or by the trained one, "unchanged": answers as a share
            of those or None, "right", "change": [right answers, it - trained, as a share of the problems, and its
            paired 95% interval], "bytes", "seconds": to load and to measure it}.
        """
        greedy = compare_greedy(self.heldout.problems, before=self.answers, after=answers)
        return {
            "hop": name,
            "engine": engine,
            "kl": kl,
            "top1": top1,
            "problems": greedy.problems,
            "answered": greedy.answered,
            "unchanged": greedy.share,
            "right": greedy.right_after,
            "change": [greedy.change.value, greedy.change.lo, greedy.change.hi],
            "bytes": size,
            "seconds": round(seconds, 2),
        }


def require_survival(hop: dict[str, Any], limits: Survival) -> None:
    """Checks a hop's figures against their limits.

    Raises:
        UserError: the first that is out of its limit.
    """
    name, share = hop["hop"], hop["unchanged"]
    if hop["kl"] is not None:
        require_kl(name, hop["kl"], limits)
    if name != "merged" and share is not None and share < limits.greedy:
        raise UserError(
            f"{name} must leave at least {limits.greedy:.0%} of greedy answers unchanged",
            value=f"{share:.1%} of {hop['answered']} by {hop['engine']}",
            cure="train with a lower --tune.rate, or accept the loss with --survival.greedy",
        )


def require_kl(hop: str, found: float, limits: Survival) -> None:
    """Raises UserError where a hop's KL is above its limit: the merge's, or that of 8 bits."""
    limit, flag = (limits.kl_merged, "kl-merged") if hop == "merged" else (limits.kl_int8, "kl-int8")
    if not found <= limit:  # a KL that is no number is a breach too
        raise UserError(
            f"KL(trained || {hop}) must be at most {limit:g} nats a token",
            value=f"{found:.2e}",
            cure="merge with --merge-base dequant, train with a lower --tune.rate, "
            f"or accept the loss with --survival.{flag}",
        )
