"""What keeps tokens from being drawn beside the nucleus: repetition penalty, min-p and top-k, each a row's own.

Each is what transformers' processor of that name computes (generation/logits_process.py), in vLLM's order
(v1/sample/sampler.py): penalty, temperature, min-p, top-k, nucleus. transformers' `generate` has min-p last: there the
nucleus is of all tokens, here, as in vLLM, of those that min-p leaves.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from mathlete.sampling import SamplingConfig


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of some rows."""

    min_p: torch.Tensor
    """(rows,), float32."""
    top_k: torch.Tensor
    """(rows,), int64; 0 is none."""
    penalty: torch.Tensor
    """(rows,), float32; 1 is none."""
    seen: torch.Tensor | None
    """(rows, vocabulary), whether prompt or completion have the token; None where no row has a penalty."""

    def split(self, rows: int) -> "Iterator[Limits]":
        """Yield the limits of so many rows at a time."""
        for start in range(0, len(self.min_p), rows):
            part = slice(start, start + rows)
            seen = None if self.seen is None else self.seen[part]
            yield Limits(min_p=self.min_p[part], top_k=self.top_k[part], penalty=self.penalty[part], seen=seen)

    def penalize(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the logits, those of tokens that were there divided by the penalty, or multiplied where negative."""
        if self.seen is None:
            return logits
        penalty = self.penalty[:, None]
        return torch.where(self.seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)

    def narrow(self, scaled: torch.Tensor) -> torch.Tensor:
        """Return the logits after temperature, those that min-p and top-k rule out at -inf."""
        probabilities = scaled.softmax(-1)
        out = probabilities < self.min_p[:, None] * probabilities.amax(-1, keepdim=True)
        most = min(int(self.top_k.max()), scaled.shape[-1])
        if most:
            # Tokens as likely as the last that is in are in too.
            largest, rank = scaled.topk(most, -1).values, self.top_k.clamp(1, most)[:, None] - 1
            out |= (self.top_k[:, None] > 0) & (scaled < largest.gather(-1, rank))
        return scaled.masked_fill(out, -torch.inf)


class RowLimits:
    """The limits of a batch's rows. Nothing is kept of what was seen before a row has a penalty."""

    def __init__(self, *, vocabulary: int, device: torch.device) -> None:
        self._vocabulary, self._device = vocabulary, device
        self._any: list[bool] = []
        """Of each row, whether it has any limit."""
        self._state = torch.empty(0, 3, dtype=torch.float64, device=device)
        self._seen: torch.Tensor | None = None

    def add(self, rows: Sequence[tuple[SamplingConfig, list[int]]]) -> None:
        """Add rows, each with how it is drawn and its prompt."""
        old = len(self._any)
        state = [(config.min_p, config.top_k, config.repetition_penalty) for config, _ in rows]
        self._any += [one != (0, 0, 1) for one in state]
        self._state = torch.cat((self._state, self._state.new_tensor(state)))
        penalized = [place for place, (_, _, penalty) in enumerate(state) if penalty != 1]
        if self._seen is None and not penalized:
            return
        seen = torch.zeros(old + len(rows), self._vocabulary, dtype=torch.bool, device=self._device)
        if self._seen is not None:
            seen[:old] = self._seen
        for place in penalized:
            prompt = torch.tensor(rows[place][1], device=self._device)
            # Some models have more tokens than they can say.
            seen[old + place, prompt[prompt < self._vocabulary]] = True
        self._seen = seen

    def tensors(self) -> Limits | None:
        """Return the limits; None where no row has any."""
        if not any(self._any):
            return None
        min_p, top_k, penalty = self._state.unbind(1)
        return Limits(min_p=min_p.float(), top_k=top_k.long(), penalty=penalty.float(), seen=self._seen)

    def note(self, ids: torch.Tensor) -> None:
        """Note the token that was drawn for each row."""
        if self._seen is not None:
            self._seen.scatter_(1, ids[:, None], True)

    def keep(self, order: Sequence[int], chosen: torch.Tensor) -> None:
        """Keep only these rows, in this order; both say the same."""
        self._any = [self._any[place] for place in order]
        self._state = self._state[chosen]
        penalized = self._seen is not None and bool((self._state[:, 2] != 1).any())
        self._seen = self._seen[chosen] if self._seen is not None and penalized else None
