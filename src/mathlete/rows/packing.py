"""Packing: short rows share one sequence, so that no computation goes into padding.

Rows stay separate: positions restart at each row, and from that transformers (5 and later) builds a mask in which no
token sees another row; FlashAttention's kernels take the same borders. With other attention the mask is quadratic in
the flattened batch, so that a packed batch is best one sequence.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mathlete.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset


def best_fit(lengths: Sequence[int], *, budget: int) -> list[list[int]]:
    """Return the rows' indices of each sequence of at most `budget` tokens: best-fit decreasing (arXiv 2404.10830).

    >>> best_fit([3, 5, 2, 6], budget=8)
    [[3, 2], [1, 0]]
    """
    sequences: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (tokens left, sequence), sorted
    # Longest first, each into the fullest sequence that has room for it.
    for row in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        at = bisect_left(free, (lengths[row], -1))
        if at == len(free):
            sequences.append([])
            left, sequence = budget, len(sequences) - 1
        else:
            left, sequence = free.pop(at)
        sequences[sequence].append(row)
        insort(free, (left - lengths[row], sequence))
    return sequences


def pack_rows(rows: "Dataset", *, budget: int) -> "Dataset":
    """Return the rows in sequences of at most `budget` tokens, with the `seq_lengths` that TRL's collator reads.

    Raises:
        UserError: a row is longer than the budget.
    """
    import datasets

    lengths = list(rows["tokens"])
    if max(lengths) > budget:
        cure = f"use --tune.pack {max(lengths)}, or shorter rows with --rows.max-tokens"
        raise UserError("--tune.pack must hold the longest row", value=f"{budget} for {max(lengths)}", cure=cure)

    def sequence(indices: list[int]) -> dict[str, list[int]]:
        batch = rows[indices]
        return {
            **{name: [token for row in batch[name] for token in row] for name in ("input_ids", "labels")},
            "seq_lengths": [lengths[index] for index in indices],
        }

    return datasets.Dataset.from_list([sequence(indices) for indices in best_fit(lengths, budget=budget)])
