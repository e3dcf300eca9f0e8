"""The loss over a large vocabulary where there is no Triton: the logits of a token with loss are computed once.

TRL never holds all logits: on a GPU its kernel, elsewhere plain torch computes log-probabilities tile by tile. Without
Triton it does so for every position, with loss or without, goes over a tile many times, and computes it again in the
backward pass. `score_labels_once` has a model take `LabelScores` there: positions with loss alone, some hundred at a
time, whose gradient is made while their logits are at hand (as in Liger's fused cross-entropy, arXiv 2410.10989,
section 3.2, which needs Triton itself, and which TRL 1.16 refuses beside its own kernel on a GPU).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import update_wrapper
from importlib import import_module
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from mathlete.tune.chunks import BLOCK_BYTES, count_chunk_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_FUNCTION, _HAS_KERNEL = "_ChunkedLogProbFunction", "_use_triton"
"""What TRL's forward pass of a model with a fused head calls (TRL 1.16, `trainer/utils.py`)."""


class TokenScores(NamedTuple):
    """What is known of each token's label, in the order of TRL's function."""

    log_probs: torch.Tensor
    entropy: torch.Tensor
    log_sum_sq_probs: None
    mean_logits: torch.Tensor
    is_top1: torch.Tensor

    @classmethod
    def allocate(cls, tokens: int, device: torch.device) -> "TokenScores":
        """Return room for so many tokens' scores."""
        log_probs, entropy, mean_logits = torch.empty(3, tokens, device=device)
        return cls(log_probs, entropy, None, mean_logits, torch.empty(tokens, dtype=torch.bool, device=device))


@dataclass(frozen=True, kw_only=True)
class Head:
    """What makes logits of hidden states: a linear layer, and how its outputs are scaled."""

    weight: torch.Tensor
    """In the type that is computed in."""
    bias: torch.Tensor | None
    scale: float
    """Factor of the logits (Cohere, Granite)."""
    softcap: float | None
    """Then they become softcap · tanh(logits / softcap) (Gemma)."""
    temperature: float
    """Then they are divided by it."""

    def score(
        self, hidden: torch.Tensor, targets: torch.Tensor, scores: TokenScores
    ) -> Iterator[tuple[slice, torch.Tensor]]:
        """Fill in the scores, some tokens at a time.

        Yields (which tokens, the derivative of their negative log-probabilities by what the linear layer gives); the
        next one overwrites it.
        """
        tokens, entries = len(hidden), len(self.weight)
        chunks = -(-tokens // count_chunk_tokens(entries, self.weight.itemsize))
        # All of one size: a last one of a few tokens would read the whole weight for them.
        each = -(-tokens // max(1, chunks))
        buffer = self.weight.new_empty(each, entries)
        rows = max(1, BLOCK_BYTES // (4 * entries))
        for start in range(0, tokens, max(1, each)):
            chunk = slice(start, min(start + each, tokens))
            logits = torch.mm(hidden[chunk], self.weight.t(), out=buffer[: chunk.stop - start])
            if self.bias is not None:
                logits.add_(self.bias)
            for first in range(start, chunk.stop, rows):
                block = slice(first, min(first + rows, chunk.stop))
                self._score_block(logits[first - start : block.stop - start], targets[block, None], scores, block)
            yield chunk, logits

    def _score_block(self, logits: torch.Tensor, label: torch.Tensor, scores: TokenScores, block: slice) -> None:
        """Fill in the scores of some tokens, and turn their logits into the derivative."""
        scaled = logits.float()
        slope = self._scale_logits(scaled)
        best, probs = scaled.argmax(-1, keepdim=True), torch.softmax(scaled, -1)
        log_total = scaled.gather(-1, best) - probs.gather(-1, best).log()
        scores.log_probs[block] = (scaled.gather(-1, label) - log_total)[:, 0]
        scores.entropy[block] = log_total[:, 0] - torch.linalg.vecdot(probs, scaled)
        scores.mean_logits[block] = scaled.mean(-1)
        scores.is_top1[block] = (best == label)[:, 0]
        probs.scatter_add_(-1, label, probs.new_full(label.shape, -1.0))
        logits.copy_(probs if slope is None else probs.mul_(slope))

    def _scale_logits(self, logits: torch.Tensor) -> torch.Tensor | float | None:
        """Scale logits in place; return the derivative of that, None where nothing is scaled."""
        slope = self.scale / self.temperature
        if self.softcap is not None:
            logits.mul_(self.scale / self.softcap).tanh_()
            derivative = logits.square().neg_().add_(1.0).mul_(slope)
            logits.mul_(self.softcap / self.temperature)
            return derivative
        if slope == 1.0:
            return None
        logits.mul_(slope)
        return slope


class LabelScores(torch.autograd.Function):
    """TRL's `ChunkedLogProbFunction`: the same arguments, results and gradients, but none of the entropy."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        temperature: float,
        _chunk_size: int,
        softcap: float | None,
        scale: float,
        _outputs: tuple[str, ...],
    ) -> TokenScores:
        """Score the labels `targets` of hidden states, a row each."""
        ctx.set_materialize_grads(False)
        kind = hidden.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
        ctx.head = Head(
            weight=weight.detach().to(dtype),
            bias=None if bias is None else bias.detach().to(dtype),
            scale=scale,
            softcap=softcap,
            temperature=temperature,
        )
        ctx.types = [None if given is None else given.dtype for given in (hidden, weight, bias)]
        scores, narrow = TokenScores.allocate(len(hidden), hidden.device), hidden.to(dtype)
        wants_hidden, *wants_head = ctx.needs_input_grad[:3]
        # What the head's own gradient weighs each token with is known in the backward pass only.
        ctx.again = any(wants_head)
        derivative = torch.empty_like(narrow) if wants_hidden and not ctx.again else None
        with torch.autocast(kind, enabled=False):
            for chunk, by_logits in ctx.head.score(narrow, targets, scores):
                if derivative is not None:
                    torch.mm(by_logits, ctx.head.weight, out=derivative[chunk])
        ctx.save_for_backward(*((narrow, targets) if ctx.again else (derivative,)))
        ctx.mark_non_differentiable(scores.entropy, scores.mean_logits, scores.is_top1)
        return scores

    @staticmethod
    def backward(ctx: Any, by_log_probs: torch.Tensor | None, *_: object) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of hidden states, weight and bias."""
        if by_log_probs is None:
            return (None,) * 9
        weighed, saved = by_log_probs.neg()[:, None], ctx.saved_tensors
        gradients = _score_again(ctx.head, saved, weighed) if ctx.again else [saved[0] * weighed, None, None]
        typed = [None if one is None else one.to(dtype) for one, dtype in zip(gradients, ctx.types, strict=True)]
        return (*typed, *(None,) * 6)


def _score_again(head: Head, saved: Sequence[torch.Tensor], weighed: torch.Tensor) -> list[torch.Tensor | None]:
    """Return the gradients of hidden states, weight and bias, fp32, of a head that is trained."""
    hidden, targets = saved
    scores = TokenScores.allocate(len(hidden), hidden.device)
    by_hidden = torch.empty(hidden.shape, device=hidden.device)
    by_weight = torch.zeros(head.weight.shape, device=hidden.device)
    by_bias = None if head.bias is None else torch.zeros(head.bias.shape, device=hidden.device)
    with torch.autocast(hidden.device.type, enabled=False):
        for chunk, by_logits in head.score(hidden, targets, scores):
            by_logits.mul_(weighed[chunk])
            by_hidden[chunk] = by_logits @ head.weight
            by_weight += by_logits.t() @ hidden[chunk]
            if by_bias is not None:
                by_bias += by_logits.sum(0, dtype=torch.float32)
    return [by_hidden, by_weight, by_bias]


def score_labels_once(model: "PreTrainedModel") -> bool:
    """Have a model that TRL gave a fused head take `LabelScores` where there is no kernel; return whether it is known.

    The forward pass stays TRL's: a copy of it calls the one function by the name of the other, and leaves out positions
    without loss, as it does by itself where there is a kernel.
    """
    trl = import_module("trl.trainer.utils")
    # With an adapter, peft's model holds the one that was given the head.
    inner = getattr(model, "get_base_model", lambda: model)()
    fused = getattr(vars(inner).get("forward"), "__func__", None)
    if fused is None or not {_FUNCTION, _HAS_KERNEL} <= {*fused.__code__.co_names}:
        return False
    if not getattr(trl, _HAS_KERNEL)(inner.device):
        names = {**vars(trl), _FUNCTION: LabelScores, _HAS_KERNEL: lambda _: True}
        copy = FunctionType(fused.__code__, names, fused.__name__, fused.__defaults__, fused.__closure__)
        copy.__kwdefaults__ = fused.__kwdefaults__
        # `generate` reads the model's own signature off it.
        inner.forward = MethodType(update_wrapper(copy, fused), inner)
    return True
