"""Keys and values of many rows at once, kept so that one decode step reads them in one contiguous stream.

Row r's tokens fill columns 0 … length-1 of slot r; rows of different lengths share a step through a mask. Slots are
dense (0 … rows-1): a finished row's slot takes the last row's content. The columns are kept close to the longest row,
and a step reads all of them, because reading a slice of a wider tensor halves the speed of attention on a CPU.

Only full attention is covered: no sliding windows, soft caps or attention sinks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

ATTENTION = "mathlete_rows"
"""Name under which `attend` is registered with transformers."""


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **unused: object,
) -> tuple[torch.Tensor, None]:
    """Attention as transformers' AttentionInterface asks: causal over a prompt, masked for one new token a row.

    Args:
        module: the attention layer.
        query: (rows, heads, tokens, width); heads is a multiple of the key's heads (grouped-query attention).
        key: (rows, key heads, columns, width).
        value: as key.
        attention_mask: (rows, 1, 1, columns), additive; None over a prompt.
        scaling: factor on the scores; the default is width ** -0.5.
        unused: dropout and the like.
    """
    if any(unused.get(name) is not None for name in ("softcap", "s_aux", "sliding_window")):
        raise NotImplementedError("this engine covers plain full attention: no soft cap, sink or sliding window")
    if query.shape[2] > 1 or attention_mask is None:
        mixed = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scaling, enable_gqa=True
        )
        return mixed.transpose(1, 2), None
    rows, heads, _, width = query.shape
    # The query heads of one key head become one small matrix, so that keys and values are read once and never copied.
    grouped = query.reshape(rows, key.shape[1], heads // key.shape[1], width)
    scores = torch.matmul(grouped * (width**-0.5 if scaling is None else scaling), key.transpose(2, 3))
    weights = torch.softmax(scores.float().add_(attention_mask), -1).to(value.dtype)
    return torch.matmul(weights, value).reshape(rows, heads, 1, width).transpose(1, 2), None


def register_attention() -> None:
    """Makes `attend` known to transformers."""
    from transformers import AttentionInterface

    interface: Any = AttentionInterface
    interface.register(ATTENTION, attend)


@dataclass
class PromptKV:
    """Takes the keys and values of a prompt, layer by layer, while the model reads it."""

    keys: list[torch.Tensor] = field(default_factory=list)
    """A layer each: (prompts, key heads, tokens, width)."""
    values: list[torch.Tensor] = field(default_factory=list)

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer: int, *unused: object, **ignored: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Called by every attention layer."""
        self.keys.append(key)
        self.values.append(value)
        return key, value

    def row(self, index: int, length: int) -> "PromptKV":
        """One prompt's own part, as copies: (1, key heads, length, width) a layer."""
        return PromptKV(
            keys=[key[index : index + 1, :, :length].clone() for key in self.keys],
            values=[value[index : index + 1, :, :length].clone() for value in self.values],
        )


class RowKV:
    """The rows being decoded."""

    def __init__(self, *, device: torch.device) -> None:
        self._keys: list[torch.Tensor] = []
        self._values: list[torch.Tensor] = []
        self._mask = torch.empty(0, 1, 1, 0, device=device)
        self._row_ids = torch.empty(0, dtype=torch.long, device=device)
        self.lengths = torch.empty(0, dtype=torch.long, device=device)
        """(rows,) tokens held."""
        self.rows = 0

    @property
    def columns(self) -> int:
        """Tokens a slot can hold."""
        return self._mask.shape[-1]

    @property
    def mask(self) -> torch.Tensor:
        """(rows, 1, 1, columns): 0 where a row has a token, -inf elsewhere."""
        return self._mask[: self.rows]

    def add(self, prompt: PromptKV, *, copies: int, columns: int) -> None:
        """Appends `copies` rows that begin with the prompt; afterwards every slot holds at least `columns` tokens."""
        length = prompt.keys[0].shape[2]
        first, self.rows = self.rows, self.rows + copies
        self._reserve(prompt, columns=max(columns, length + 1))
        for mine, given in ((self._keys, prompt.keys), (self._values, prompt.values)):
            for tensor, new in zip(mine, given, strict=True):
                tensor[first : self.rows, :, :length] = new
        self._mask[first : self.rows] = -torch.inf
        self._mask[first : self.rows, ..., :length] = 0
        self.lengths = torch.cat((self.lengths, self.lengths.new_full((copies,), length)))
        self._row_ids = torch.arange(self.rows, device=self.lengths.device)

    def open_column(self, *, longest: int) -> None:
        """Makes room for one more token a row, where `longest` is the length of the longest row."""
        if longest >= self.columns:
            self._resize(slots=self._mask.shape[0], columns=longest + _spare(longest))
        self._mask[self._row_ids, 0, 0, self.lengths] = 0

    def close_column(self) -> None:
        """Counts the token that every row has just written."""
        self.lengths += 1

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer: int, *unused: object, **ignored: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Called by every attention layer: writes each row's new token, returns all the rows' keys and values."""
        keys, values = self._keys[layer], self._values[layer]
        keys[self._row_ids, :, self.lengths] = key[:, :, 0]
        values[self._row_ids, :, self.lengths] = value[:, :, 0]
        return keys[: self.rows], values[: self.rows]

    def move(self, *, sources: Sequence[int], targets: Sequence[int], rows: int) -> None:
        """Copies slots onto others and keeps the first `rows`."""
        if sources:
            source = torch.tensor(sources, device=self.lengths.device)
            target = torch.tensor(targets, device=self.lengths.device)
            for tensor in (*self._keys, *self._values, self._mask, self.lengths):
                tensor[target] = tensor[source]
        self.rows, self.lengths = rows, self.lengths[:rows]
        self._row_ids = self._row_ids[:rows]

    def fit(self, *, longest: int) -> None:
        """Gives memory back when the rows left are much shorter or fewer than the slots."""
        slots = self._mask.shape[0]
        if self.rows == 0:
            self._keys, self._values, self._mask = [], [], self._mask[:0, ..., :0]
        elif longest + _spare(longest) < self.columns // 2 or self.rows < slots // 4:
            self._resize(slots=self.rows, columns=longest + _spare(longest))

    def _reserve(self, prompt: PromptKV, *, columns: int) -> None:
        if not self._keys:
            self._keys = [key.new_zeros((0, key.shape[1], 0, key.shape[3])) for key in prompt.keys]
            self._values = [value.new_zeros((0, value.shape[1], 0, value.shape[3])) for value in prompt.values]
        slots = self._mask.shape[0]
        if self.rows > slots or columns > self.columns:
            self._resize(
                slots=max(slots, self.rows),
                columns=self.columns if columns <= self.columns else columns + _spare(columns),
            )

    def _resize(self, *, slots: int, columns: int) -> None:
        self._keys = [_resized(tensor, slots, columns) for tensor in self._keys]
        self._values = [_resized(tensor, slots, columns) for tensor in self._values]
        mask = self._mask.new_full((slots, 1, 1, columns), -torch.inf)
        kept, width = min(slots, self._mask.shape[0]), min(columns, self.columns)
        mask[:kept, ..., :width] = self._mask[:kept, ..., :width]
        self._mask = mask


def _spare(length: int) -> int:
    return max(16, length // 8)


def _resized(tensor: torch.Tensor, slots: int, columns: int) -> torch.Tensor:
    # Zeros, because a masked weight of 0 times an uninitialised NaN is NaN.
    wider = tensor.new_zeros((slots, tensor.shape[1], columns, tensor.shape[3]))
    kept, width = min(slots, tensor.shape[0]), min(columns, tensor.shape[2])
    wider[:kept, :, :width] = tensor[:kept, :, :width]
    return wider
