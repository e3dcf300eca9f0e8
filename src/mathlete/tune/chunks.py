"""How many logits are at hand at a time where there is no Triton: for the loss, and for the memory plan."""

CHUNK_BYTES = 64 * 2**20
"""Logits that are held at a time. Fewer make the matrix product slow, more no faster."""
BLOCK_BYTES = 4 * 2**20
"""What of them is turned into probabilities at a time, fp32: it should stay in the cache."""


def count_chunk_tokens(vocabulary: int, width: int) -> int:
    """Return how many tokens' logits are held at a time, for a vocabulary of so many entries of so many bytes.

    >>> count_chunk_tokens(151_936, 2), count_chunk_tokens(576, 4)
    (220, 29127)
    """
    return max(16, CHUNK_BYTES // (vocabulary * width))
