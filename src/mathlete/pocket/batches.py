"""Batches for pretraining. They depend on seed and step alone, so that a resumed run trains on the same ones."""

from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import TYPE_CHECKING

from mathlete.pocket.training import generate_mix

if TYPE_CHECKING:
    import torch

    from mathlete.prompts import PromptFormat

_POOL = 16
"""Batches that are drawn together and sorted by length, so that each has little padding."""
_IGNORED = -100


@dataclass(frozen=True, eq=False)
class Batches:
    """An endless stream of batches, addressed by step."""

    prompts: "PromptFormat"
    size: int
    easy: float
    seed: int

    def at(self, step: int) -> "tuple[torch.Tensor, torch.Tensor]":
        """Return (token ids, labels) of a step, both of shape (size, longest); only completions have labels."""
        import torch

        pool, position = divmod(step, _POOL)
        rows = self._pool(pool)[position]
        longest = max(len(prompt) + len(answer) for prompt, answer in rows)
        padding = self.prompts.tokenizer.pad_token_id
        ids = [prompt + answer + [padding] * (longest - len(prompt) - len(answer)) for prompt, answer in rows]
        labels = [
            [_IGNORED] * len(prompt) + answer + [_IGNORED] * (longest - len(prompt) - len(answer))
            for prompt, answer in rows
        ]
        return torch.tensor(ids), torch.tensor(labels)

    @lru_cache(maxsize=2)  # noqa: B019  (the stream lives as long as its training)
    def _pool(self, pool: int) -> list[list[tuple[list[int], list[int]]]]:
        # Seeds are negative here and never in tuning, so that tuning draws no example of the pretraining.
        seed = -(self.seed * 10**6 + pool + 1)
        items = generate_mix(count=_POOL * self.size, easy=self.easy, seed=seed)
        rows = [
            (
                self.prompts.prompt_ids(item.problem.statement),
                self.prompts.completion_ids(trace=item.trace, answer=item.problem.gold),
            )
            for item in items
        ]
        rows.sort(key=lambda row: len(row[0]) + len(row[1]))
        batches = [rows[start : start + self.size] for start in range(0, len(rows), self.size)]
        Random(seed).shuffle(batches)
        return batches
