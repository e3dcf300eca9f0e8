"""Next-token distributions of a model on held-out rows, and how far two models are apart in them.

KL(trained || other), nats a token, is the mean over the held-out completions' tokens of the Kullback-Leibler divergence
of the next-token distributions.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mathlete.rows import RowFiles

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedModel

_REFERENCE_BYTES = 2**30
"""Most memory that one model's log-probabilities take."""
_PART = 2**23
"""Numbers of them compared at a time, half a GiB with what is computed of them in double."""


def load_heldout_rows(data: Path) -> "Dataset":
    """Load the rows that were kept from training."""
    import datasets

    rows: Dataset = datasets.load_from_disk(RowFiles(data).heldout)
    return rows


def log_probabilities(model: "PreTrainedModel", rows: "Dataset", *, copies: int = 1, padding: int = 0) -> "Tensor":
    """Return next-token log-probabilities, (tokens, vocabulary), at the positions that predict completion tokens.

    All of them, or evenly spaced ones where all would need more than a GiB. `copies` of each row in a batch, with
    `padding` tokens behind, are the same in mathematics and another shape to the machine.
    """
    import torch

    parts = []
    vocabulary = int(model.config.get_text_config().vocab_size)
    with torch.inference_mode():
        for tokens, positions in completion_positions(rows, vocabulary=vocabulary):
            ids = torch.tensor([[*tokens, *tokens[:padding]]] * copies, device=model.device)
            # Logits at the looked-at positions only: those of a whole long row would be the largest tensor of all.
            kept = torch.tensor(positions, device=model.device)
            logits = model(input_ids=ids, logits_to_keep=kept, use_cache=False).logits[0]
            parts.append(torch.log_softmax(logits.float(), dim=-1).cpu())
    return torch.cat(parts)


def completion_positions(rows: "Dataset", *, vocabulary: int) -> Iterator[tuple[list[int], range]]:
    """Yield (token ids, positions whose next token is looked at) of each row that has any."""
    total = sum(len(ids) for ids in rows["input_ids"]) - sum(rows["prompt_tokens"])
    # Every n-th completion token of all rows, so that the fp32 log-probabilities (4 bytes) fit.
    every = -(-total * vocabulary * 4 // _REFERENCE_BYTES)
    seen = 0
    for row in rows:
        ids = row["input_ids"]
        # The last prompt token predicts the first completion token; the last token predicts nothing.
        first, last = row["prompt_tokens"] - 1, len(ids) - 1
        # The stride goes on from row to row: short rows would else be looked at too often.
        positions = range(first + (-seen) % every, last, every)
        seen += last - first
        if positions:
            yield ids, positions


def row_losses(log_probs: "Tensor", rows: "Dataset") -> list[float]:
    """Return the mean loss of each row, nats a token, by its log-probabilities (tokens, vocabulary)."""
    import torch

    losses, start = [], 0
    for ids, positions in completion_positions(rows, vocabulary=log_probs.shape[1]):
        part = log_probs[start : start + len(positions)]
        start += len(positions)
        targets = torch.tensor([ids[position + 1] for position in positions])
        losses.append(-float(part.gather(1, targets[:, None]).double().mean()))
    return losses


def top1_agreement(reference: "Tensor", other: "Tensor") -> float:
    """Return the share of tokens with the same likeliest next token, by log-probabilities (tokens, vocabulary)."""
    return float((reference.argmax(1) == other.argmax(1)).double().mean())


def kl_divergence(reference: "Tensor", other: "Tensor") -> float:
    """Return KL(reference || other) in nats a token, by log-probabilities (tokens, vocabulary).

    >>> import torch
    >>> half = torch.tensor([[0.5, 0.5]]).log()
    >>> round(kl_divergence(half, torch.tensor([[0.25, 0.75]]).log()), 4)
    0.1438
    """
    import torch

    total, tokens = 0.0, max(1, _PART // reference.shape[1])
    for a, b in zip(torch.split(reference, tokens), torch.split(other, tokens), strict=True):
        # In double, for the terms nearly cancel; with q - p, which sums to 0, no term is negative, so that rounded
        # probabilities cannot make the sum negative either.
        p, q = a.double().exp(), b.double().exp()
        total += float((p * (a.double() - b.double()) + q - p).sum())
    return total / len(reference)
