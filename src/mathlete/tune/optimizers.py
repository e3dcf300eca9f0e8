"""The one table of optimizers, by transformers' own names, and the memory that each needs for what it remembers.

Each runs with the packages that a training needs anyway (torch, transformers, bitsandbytes).

>>> OPTIMIZERS["adamw_8bit"].moments, OPTIMIZERS["paged_adamw_8bit"].paged
(2, True)
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

_FEWEST_8BIT = 4096
"""Numbers in a tensor from which bitsandbytes 0.50 keeps its moments in 8 bits (`min_8bit_size`)."""
_BLOCK = 256
"""Moments of 8 bits that share a scale of 32 (bitsandbytes 0.50, `optim/optimizer.py`)."""
_CODE_BOOK = 256 * 4
"""Bytes of the numbers that the 8 bits of a moment stand for; all tensors share one."""
_FEWEST_PAGED = 100_000
"""Numbers in a tensor from which its moments may be paged out (bitsandbytes 0.50, `get_state_buffer`)."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Trained tensors of one shape."""

    number: int
    """How many of them."""
    rows: int
    columns: int | None = None
    """None: a vector."""
    embedding: bool = False
    """Whether it is looked up in, which 8-bit optimizers leave in 32 bits (transformers 5.23, `create_optimizer`)."""

    @property
    def size(self) -> int:
        """Numbers in one of them."""
        return self.rows * (self.columns or 1)


def count_parameters(tensors: Sequence[Trained]) -> int:
    """Return the numbers in all of them."""
    return sum(one.number * one.size for one in tensors)


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """What one optimizer keeps of each trained number."""

    moments: int = 2
    """Numbers."""
    bits: Literal[8, 32] = 32
    paged: bool = False
    """Whether CUDA moves the moments to main memory where a GPU is full (arXiv 2305.14314, section 3)."""
    factored: bool = False
    """Whether one moment is kept as a number a row and one a column (Adafactor, arXiv 1804.04235)."""
    shardable: bool = False
    """Whether FSDP can shard it: torch's own; bitsandbytes' kernels know nothing of shards."""

    def count_bytes(self, tensors: Sequence[Trained]) -> int:
        """Return the bytes of a GPU, or of main memory without one, that it takes for these tensors."""
        if self.factored:
            return sum(4 * one.number * (one.rows + one.columns if one.columns else one.rows) for one in tensors)
        kept = sum(one.number * self.moments * self._count_moment(one) for one in tensors)
        return kept + (self.moments * _CODE_BOOK if any(map(self._is_8bit, tensors)) else 0)

    def _is_8bit(self, one: Trained) -> bool:
        return self.bits == 8 and one.size >= _FEWEST_8BIT and not one.embedding

    def _count_moment(self, one: Trained) -> int:
        here = 0 if self.paged and one.size >= _FEWEST_PAGED else one.size
        return here + 4 * math.ceil(one.size / _BLOCK) if self._is_8bit(one) else 4 * here


OPTIMIZERS: Mapping[str, Optimizer] = {
    "adamw_torch_fused": Optimizer(shardable=True),
    "adamw_torch": Optimizer(shardable=True),
    "adamw_8bit": Optimizer(bits=8),
    "adamw_bnb_8bit": Optimizer(bits=8),
    "paged_adamw_8bit": Optimizer(bits=8, paged=True),
    "paged_adamw_32bit": Optimizer(paged=True),
    "lion_8bit": Optimizer(moments=1, bits=8),
    "lion_32bit": Optimizer(moments=1),
    "paged_lion_8bit": Optimizer(moments=1, bits=8, paged=True),
    "paged_lion_32bit": Optimizer(moments=1, paged=True),
    "adafactor": Optimizer(factored=True),
    "sgd": Optimizer(moments=0, shardable=True),
}

if TYPE_CHECKING:
    OptimizerName = str
else:
    # The command line's choices are the table's.
    OptimizerName = Literal[*OPTIMIZERS]
