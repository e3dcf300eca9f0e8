"""Drawing tokens: repetition penalty, temperature, min-p, top-k, nucleus, then the inverse CDF.

There is one counter-based uniform number for each (seed, position).

A token is a function of its row's logits, seed and position alone: neighbours in the batch, arrival order and restarts
change nothing beyond the floating-point noise of the logits themselves.
"""

from dataclasses import dataclass
from itertools import repeat

import torch

from mathlete.sampling.embedded.limits import Limits

_NUMBERS = 2**20
"""Logits worked on at a time, 4 MiB. Each of a dozen passes over 64 rows of a vocabulary of 150,000 at once would take
39 MiB afresh from the system, above malloc's largest threshold: a draw cost as much as the model's step."""


def slice_size(vocabulary: int) -> int:
    """Return how many of the largest logits are sorted first; the draw is exact for every size.

    A row whose nucleus does not fit into its slice is sorted in full. Measured on a CPU: for a small vocabulary a slice
    of 8 costs a fifth of one of 32, because torch sorts all where k > size / 64; a smaller slice sends flat rows of a
    large vocabulary to the full sort (bench/sampling.py).
    """
    return min(vocabulary, 8 if vocabulary < 8192 else 256)


def uniforms(seeds: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Return uniform float64 numbers in [0, 1) with 53 random bits, one for each (seed, position).

    SplitMix64 over the counter (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators", Fig. 15);
    int64 wraps around as uint64 does.

    >>> [round(u, 6) for u in uniforms(torch.tensor([7, 7, 8]), torch.tensor([0, 1, 0])).tolist()]
    [0.524346, 0.302139, 0.926151]
    """
    word = _mix(seeds) + (positions + 1) * -0x61C8864680B583EB
    return _shift(_mix(word), 11).double() * 2.0**-53


def _mix(word: torch.Tensor) -> torch.Tensor:
    # The multipliers 0xBF58476D1CE4E5B9 and 0x94D049BB133111EB, written as the int64 of the same bits.
    word = (word ^ _shift(word, 30)) * -0x40A7B892E31B1A47
    word = (word ^ _shift(word, 27)) * -0x6B2FB644ECCEEE15
    return word ^ _shift(word, 31)


def _shift(word: torch.Tensor, bits: int) -> torch.Tensor:
    return (word >> bits) & ((1 << (64 - bits)) - 1)


@dataclass(frozen=True, kw_only=True)
class DrawnTokens:
    """One token a row."""

    ids: torch.Tensor
    """(rows,), int64."""
    logprobs: torch.Tensor
    """(rows,), natural log of the token's probability before penalty, temperature and nucleus."""


def draw(
    logits: torch.Tensor,
    *,
    uniform: torch.Tensor,
    temperature: torch.Tensor,
    top_p: torch.Tensor,
    limits: Limits | None = None,
) -> DrawnTokens:
    """Draw one token a row.

    Args:
        logits: (rows, vocabulary), of any type; computed with in float32.
        uniform: (rows,) in [0, 1), float64.
        temperature: (rows,); 0 takes the likeliest token.
        top_p: (rows,); the nucleus is the shortest prefix of the sorted tokens whose mass reaches it
            (Holtzman et al. 2020, "The curious case of neural text degeneration").
        limits: what else keeps tokens from being drawn; None: nothing.
    """
    rows = max(1, _NUMBERS // logits.shape[-1])
    if logits.device.type == "cpu" and len(logits) > rows:
        parts = zip(*(torch.split(tensor, rows) for tensor in (logits, uniform, temperature, top_p)), strict=True)
        limited = repeat(None) if limits is None else limits.split(rows)
        drawn = [_draw(*part, limits=own) for part, own in zip(parts, limited, strict=False)]
        ids, logprobs = torch.cat([part.ids for part in drawn]), torch.cat([part.logprobs for part in drawn])
        return DrawnTokens(ids=ids, logprobs=logprobs)
    return _draw(logits, uniform, temperature, top_p, limits=limits)


def _draw(
    logits: torch.Tensor,
    uniform: torch.Tensor,
    temperature: torch.Tensor,
    top_p: torch.Tensor,
    *,
    limits: Limits | None,
) -> DrawnTokens:
    own = logits.float()
    logits = own if limits is None else limits.penalize(own)
    greedy = temperature <= 0
    ids = logits.argmax(-1) if bool(greedy.all()) else _nucleus(logits, uniform, temperature, top_p, limits)
    if bool(greedy.any()) and not bool(greedy.all()):
        ids = torch.where(greedy, logits.argmax(-1), ids)
    chosen = own.gather(-1, ids[:, None])[:, 0]
    return DrawnTokens(ids=ids, logprobs=chosen - torch.logsumexp(own, -1))


def _nucleus(
    logits: torch.Tensor, uniform: torch.Tensor, temperature: torch.Tensor, top_p: torch.Tensor, limits: Limits | None
) -> torch.Tensor:
    size, vocabulary = slice_size(logits.shape[-1]), logits.shape[-1]
    # Greedy rows of a mixed batch come through here too: 1 keeps them finite, and their draw is not used.
    scaled = logits / torch.where(temperature > 0, temperature, 1.0)[:, None]
    if limits is not None:
        scaled = limits.narrow(scaled)
    total = torch.logsumexp(scaled, -1, keepdim=True)
    top, tokens = scaled.topk(size, -1)
    ids, inside = _pick(top - total, tokens, uniform, top_p)
    if size < vocabulary and not bool(inside.all()):
        rows = (~inside).nonzero()[:, 0]
        top, tokens, scaled = top[rows], tokens[rows], scaled[rows]
        # The slice stays in front as it is: among equal logits a fresh sort could put other tokens there, and the
        # uniforms below and above the slice's mass would then speak of different orders.
        rest, others = scaled.scatter(-1, tokens, -torch.inf).sort(-1, descending=True)
        top = torch.cat((top, rest[:, : vocabulary - size]), -1)
        tokens = torch.cat((tokens, others[:, : vocabulary - size]), -1)
        ids[rows], _ = _pick(top - total[rows], tokens, uniform[rows], top_p[rows])
    return ids


def _pick(
    logprobs: torch.Tensor, tokens: torch.Tensor, uniform: torch.Tensor, top_p: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (one token a row, whether the given tokens were enough to decide); tokens come likeliest first."""
    # In double: a sum of 150,000 float32 probabilities is off by more than the smallest of them.
    mass = logprobs.double().exp()
    kept = torch.where(mass.cumsum(-1) - mass < top_p[:, None], mass, 0.0).cumsum(-1)
    # With top_p = 1 the nucleus is the whole vocabulary, whose mass is 1 without looking at it.
    target = uniform * torch.where(top_p < 1, kept[:, -1], 1.0)
    ranks = (kept <= target[:, None]).sum(-1)
    last = (kept < kept[:, -1:]).sum(-1)
    inside = torch.where(top_p < 1, kept[:, -1] >= top_p, target < kept[:, -1])
    return tokens.gather(-1, torch.minimum(ranks, last)[:, None])[:, 0], inside
