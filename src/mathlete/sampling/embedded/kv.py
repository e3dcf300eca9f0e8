"""The KV cache of the decode loop: many rows of different lengths, stored so that a step reads little, in one stream.

Rows that join together form a segment with its own tensors, as wide as its longest row, so that a long row widens only
its own segment. The model's matrix products still run over all rows of all segments together; only attention goes
segment by segment. Within a segment, row r's tokens fill columns 0 … length-1 of slot r under a mask. Slots are dense:
a finished row's slot takes the last row's content. A step reads all columns, because reading a slice of a wider tensor
halves the speed on a CPU.

Attention may be full or see a sliding window, with or without a soft cap on its scores; sinks are not covered. Where a
row outgrows a window, its first tokens are kept all the same, and masked.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ATTENTION = "mathlete_rows"
"""Name under which `attend` is registered with transformers."""
_MAX_SEGMENTS = 4


class _Cache:
    """The part of transformers' cache interface beside `update`."""

    is_initialized = False
    """Whether it holds anything. transformers 5.0 asks to tell a prompt's images, which no prompt here has."""

    def get_seq_length(self, *unused: object) -> int:
        """Return 0. transformers 5.0 calls this even where position_ids are given, and then ignores the result."""
        return 0


@dataclass
class PromptKV(_Cache):
    """The KV cache of prompts, filled layer by layer while the model reads them."""

    keys: list[torch.Tensor] = field(default_factory=list)
    """One tensor a layer: (prompts, key heads, tokens, width)."""
    values: list[torch.Tensor] = field(default_factory=list)

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer: int, *unused: object, **ignored: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store a layer's keys and values, and return them; called by every attention layer."""
        self.keys.append(key)
        self.values.append(value)
        return key, value

    def row(self, index: int, length: int) -> "PromptKV":
        """Return one prompt's part, (1, key heads, length, width) a layer."""
        # Copies, so that the padded tensors of all prompts can be freed.
        return PromptKV(
            keys=[key[index : index + 1, :, :length].clone() for key in self.keys],
            values=[value[index : index + 1, :, :length].clone() for value in self.values],
        )

    @property
    def length(self) -> int:
        """Tokens held."""
        return self.keys[0].shape[2]


@dataclass(eq=False)
class _Segment:
    """Rows that share tensors: a list with one tensor a layer, whose first dimension is the row."""

    keys: list[torch.Tensor]
    """(slots, key heads, columns, width) a layer."""
    values: list[torch.Tensor]
    mask: torch.Tensor
    """(slots, 1, 1, columns): 0 where a row has a token, -inf elsewhere."""
    lengths: torch.Tensor
    """(slots,) tokens held."""
    longest: int
    """Tokens of the longest row; kept as a number, because reading it from `lengths` would wait for the GPU."""

    @staticmethod
    def of(prompts: Sequence[tuple[PromptKV, int]], *, device: torch.device) -> "_Segment":
        """Return a segment of (prompt, copies of it)."""
        longest = max(prompt.length for prompt, _ in prompts)
        rows = sum(copies for _, copies in prompts)
        columns = longest + _spare(longest)
        like = prompts[0][0]
        # Not `empty`: a masked weight is 0, and 0 times an uninitialised NaN is NaN.
        keys = [key.new_zeros((rows, key.shape[1], columns, key.shape[3])) for key in like.keys]
        values = [value.new_zeros((rows, value.shape[1], columns, value.shape[3])) for value in like.values]
        mask = torch.full((rows, 1, 1, columns), -torch.inf, device=device)
        lengths = torch.empty(rows, dtype=torch.long, device=device)
        first = 0
        for prompt, copies in prompts:
            part = slice(first, first := first + copies)
            for mine, given in ((keys, prompt.keys), (values, prompt.values)):
                for tensor, new in zip(mine, given, strict=True):
                    tensor[part, :, : prompt.length] = new
            mask[part, ..., : prompt.length] = 0
            lengths[part] = prompt.length
        return _Segment(keys=keys, values=values, mask=mask, lengths=lengths, longest=longest)

    @property
    def rows(self) -> int:
        return self.lengths.shape[0]

    @property
    def columns(self) -> int:
        return self.mask.shape[-1]

    def mask_within(self, window: int | None) -> torch.Tensor:
        """Return the mask for a token that sees so many, itself among them; None: all."""
        if window is None or self.longest < window:
            return self.mask
        columns = torch.arange(self.columns, device=self.lengths.device)
        return self.mask.masked_fill(columns <= self.lengths[:, None, None, None] - window, -torch.inf)

    def open_column(self, row_ids: torch.Tensor) -> None:
        # An eighth more at once: widening copies the whole segment.
        if self.longest >= self.columns:
            self.widen(self.longest + _spare(self.longest))
        self.mask[row_ids[: self.rows], 0, 0, self.lengths] = 0

    def widen(self, columns: int) -> None:
        more = columns - self.columns
        self.keys = [torch.nn.functional.pad(tensor, (0, 0, 0, more)) for tensor in self.keys]
        self.values = [torch.nn.functional.pad(tensor, (0, 0, 0, more)) for tensor in self.values]
        self.mask = torch.nn.functional.pad(self.mask, (0, more), value=-torch.inf)

    def keep(self, sources: Sequence[int], targets: Sequence[int], rows: int) -> None:
        """Move the slots `sources` to `targets`, then keep the first `rows` slots."""
        if sources:
            source = torch.tensor(sources, device=self.lengths.device)
            target = torch.tensor(targets, device=self.lengths.device)
            for tensor in (*self.keys, *self.values, self.mask, self.lengths):
                tensor[target] = tensor[source]
        self.keys = [tensor[:rows] for tensor in self.keys]
        self.values = [tensor[:rows] for tensor in self.values]
        self.mask, self.lengths = self.mask[:rows], self.lengths[:rows]

    def absorb(self, other: "_Segment") -> None:
        """Append the other's rows."""
        columns = max(self.columns, other.columns)
        self.widen(columns)
        other.widen(columns)
        self.keys = [torch.cat(pair) for pair in zip(self.keys, other.keys, strict=True)]
        self.values = [torch.cat(pair) for pair in zip(self.values, other.values, strict=True)]
        self.mask = torch.cat((self.mask, other.mask))
        self.lengths = torch.cat((self.lengths, other.lengths))
        self.longest = max(self.longest, other.longest)


@dataclass(frozen=True)
class _Layer:
    """One layer's keys and values, as `RowKV.update` hands them to `attend`."""

    segments: list[_Segment]
    index: int


class RowKV(_Cache):
    """The KV cache of the rows being decoded.

    A step is `open_column`, the model's forward pass (which calls `update` and `attend` in every layer), and
    `close_column`.
    """

    def __init__(self, *, device: torch.device) -> None:
        self._device = device
        self._segments: list[_Segment] = []
        self._row_ids = torch.empty(0, dtype=torch.long, device=device)
        self.lengths = torch.empty(0, dtype=torch.long, device=device)
        """(rows,) tokens held."""

    def add(self, prompts: Sequence[tuple[PromptKV, int]]) -> None:
        """Append, for each (prompt, copies), that many rows that begin with it."""
        if len(self._segments) == _MAX_SEGMENTS:
            self._merge()
        self._segments.append(_Segment.of(prompts, device=self._device))
        self._refresh()

    def open_column(self) -> None:
        """Make room for one more token a row."""
        for segment in self._segments:
            segment.open_column(self._row_ids)

    def close_column(self) -> None:
        """Count the token that every row has just written."""
        for segment in self._segments:
            segment.lengths += 1
            segment.longest += 1
        self.lengths = self.lengths + 1

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer: int, *unused: object, **ignored: object
    ) -> tuple["_Layer", "_Layer"]:
        """Write each row's new token; called by every attention layer. Only `attend` understands the result."""
        first = 0
        for segment in self._segments:
            part = slice(first, first := first + segment.rows)
            row_ids = self._row_ids[: segment.rows]
            segment.keys[layer][row_ids, :, segment.lengths] = key[part, :, 0]
            segment.values[layer][row_ids, :, segment.lengths] = value[part, :, 0]
        whole = _Layer(self._segments, layer)
        return whole, whole

    def remove(self, gone: Sequence[int]) -> list[int]:
        """Remove rows; return the former index of each row that is left, in the new order."""
        order: list[int] = []
        dead = set(gone)
        first = 0
        for segment in self._segments:
            before = segment.rows
            alive = [row for row in range(before) if first + row not in dead]
            # Only rows behind the new end move, each into a slot that is free: closing all gaps in order would copy
            # nearly the whole segment.
            targets = [row for row in range(len(alive)) if first + row in dead]
            sources = [row for row in alive if row >= len(alive)]
            if len(alive) < before:
                segment.keep(sources, targets, len(alive))
            # The caller's own lists are in the old order; it needs the old index of each row to follow.
            moved = dict(zip(targets, sources, strict=True))
            order += [first + moved.get(row, row) for row in range(len(alive))]
            first += before
        self._segments = [segment for segment in self._segments if segment.rows]
        self._refresh()
        return order

    def _merge(self) -> None:
        """Merge the two neighbours nearest in width, so that stragglers do not keep segments of their own."""
        # Neighbours only, so that the rows keep their order.
        gaps = [abs(a.columns - b.columns) for a, b in zip(self._segments, self._segments[1:], strict=False)]
        nearest = gaps.index(min(gaps))
        self._segments[nearest].absorb(self._segments.pop(nearest + 1))

    def _refresh(self) -> None:
        self.lengths = torch.cat([segment.lengths for segment in self._segments] or [self.lengths[:0]])
        self._row_ids = torch.arange(len(self.lengths), device=self._device)


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: "torch.Tensor | _Layer",
    value: "torch.Tensor | _Layer",
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **unused: object,
) -> tuple[torch.Tensor, None]:
    """Compute attention for transformers' AttentionInterface: causal over a prompt, or one new token a row of a RowKV.

    Args:
        module: the attention layer.
        query: (rows, heads, tokens, width); heads is a multiple of the key's heads (grouped-query attention).
        key: (rows, key heads, columns, width), or the result of `RowKV.update`.
        value: as key.
        attention_mask: ignored; segments have their own.
        scaling: factor on the scores; the default is width ** -0.5.
        sliding_window: tokens that a token sees, itself among them; None: all before it.
        softcap: what the scores stay below; None: no cap.
        unused: dropout and the like.
    """
    if unused.get("s_aux") is not None:
        raise NotImplementedError("this engine covers attention without sinks")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if isinstance(key, _Layer):
        return _attend_rows(query * scale, key, window=sliding_window, softcap=softcap), None
    assert isinstance(value, torch.Tensor)
    tokens = query.shape[2]
    if softcap is not None or (sliding_window is not None and sliding_window < tokens):
        mask = _mask_prompt(tokens, window=sliding_window, device=query.device)
        return _attend_prompt(query * scale, key, value, mask=mask, softcap=softcap), None
    mixed = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=scale, enable_gqa=True
    )
    # Some kinds of model view it in another shape, which takes it as it lies in memory.
    return mixed.transpose(1, 2).contiguous(), None


def _mask_prompt(tokens: int, *, window: int | None, device: torch.device) -> torch.Tensor:
    """Return (tokens, tokens): 0 where a token of a prompt sees another, -inf elsewhere."""
    ages = torch.arange(tokens, device=device)[:, None] - torch.arange(tokens, device=device)
    hidden = (ages < 0) if window is None else (ages < 0) | (ages >= window)
    return torch.zeros((tokens, tokens), device=device).masked_fill_(hidden, -torch.inf)


def _attend_prompt(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, mask: torch.Tensor, softcap: float | None
) -> torch.Tensor:
    rows, heads, tokens, width = query.shape
    part = query.reshape(rows, key.shape[1], -1, tokens, width)
    scores = _cap(torch.matmul(part, key[:, :, None].transpose(3, 4)).float(), softcap).add_(mask)
    mixed = torch.matmul(torch.softmax(scores, -1).to(value.dtype), value[:, :, None])
    return mixed.reshape(rows, heads, tokens, -1).transpose(1, 2).contiguous()


def _cap(scores: torch.Tensor, softcap: float | None) -> torch.Tensor:
    """Return the scores, bent to stay below the cap (Gemma 2, arXiv 2408.00118, section 2)."""
    return scores if softcap is None else torch.tanh(scores / softcap) * softcap


def _attend_rows(query: torch.Tensor, layer: _Layer, *, window: int | None, softcap: float | None) -> torch.Tensor:
    rows, heads, _, width = query.shape
    mixed = []
    first = 0
    for segment in layer.segments:
        keys, values = segment.keys[layer.index], segment.values[layer.index]
        # The query heads of one key head become one small matrix, so that keys and values are read once, never copied.
        part = query[first : first + segment.rows].reshape(segment.rows, keys.shape[1], -1, width)
        scores = _cap(torch.matmul(part, keys.transpose(2, 3)).float(), softcap).add_(segment.mask_within(window))
        mixed.append(torch.matmul(torch.softmax(scores, -1).to(values.dtype), values))
        first += segment.rows
    whole = mixed[0] if len(mixed) == 1 else torch.cat(mixed)
    return whole.reshape(rows, 1, heads, -1)  # values may be narrower than keys


def register_attention() -> None:
    """Register `attend` with transformers."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, attend)


def token_bytes(model: "PreTrainedModel", *, itemsize: int) -> int:
    """Return the bytes of one token's keys and values in all layers, with `itemsize` bytes a number."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = 2 * (getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
    if getattr(config, "kv_lora_rank", None):
        # Keys and values of low rank are held unfolded, and the values' width is another than the keys'.
        width = config.qk_nope_head_dim + config.qk_rope_head_dim + config.v_head_dim
    return int(config.num_hidden_layers * heads * width * itemsize)


def _spare(length: int) -> int:
    return max(16, length // 8)
