"""The batch of a decode loop: rows of many problems that join, take one token a step, and leave when they are done."""

import time
from collections import deque
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import torch

from mathlete.sampling.completion import CompletionReader
from mathlete.sampling.drawing import draw, uniforms
from mathlete.sampling.kv import ATTENTION, PromptKV, RowKV, register_attention
from mathlete.sampling.samples import Finish, Sample, SamplingConfig

_PREFILL_TOKENS = 8192
"""Prompt tokens read in one pass at most, padding counted."""


@dataclass(eq=False)
class Request:
    """One problem's prompt and the samples asked of it."""

    problem_id: str
    prompt: list[int]
    config: SamplingConfig
    max_tokens: int
    """The config's cap, or what the model's context leaves."""
    waiting: deque[tuple[int, int]]
    """(index, seed) of the samples not yet begun."""
    results: "SimpleQueue[Sample | None]" = field(default_factory=SimpleQueue)
    """Finished samples; None once the engine has stopped."""
    cancelled: bool = False
    kv: PromptKV | None = None
    """All of the prompt but its last token, read once for all its samples."""

    @property
    def longest(self) -> int:
        """Tokens a row of it may come to hold."""
        return len(self.prompt) + self.max_tokens


@dataclass(eq=False)
class _Row:
    request: Request
    index: int
    seed: int
    started: float
    tokens: list[int] = field(default_factory=list)
    logprob: float = 0.0
    answering_from: int | None = None
    """Position in `tokens` at or before the end of the reasoning; None while the model still reasons."""


class Batch:
    """The rows of one model. Not thread-safe: one thread owns it."""

    def __init__(self, model: Any, *, reader: CompletionReader, max_rows: int, max_tokens: int) -> None:
        register_attention()
        model.set_attn_implementation(ATTENTION)
        self._model, self._reader = model, reader
        self._device: torch.device = model.device
        self._max_rows, self._max_tokens = max_rows, max_tokens
        self._rows: list[_Row] = []
        self._kv = RowKV(device=self._device)
        self._ids = torch.empty(0, dtype=torch.long, device=self._device)
        self._state = torch.empty(0, 4, dtype=torch.float64, device=self._device)
        self._seeds = torch.empty(0, dtype=torch.long, device=self._device)

    def __len__(self) -> int:
        """Rows being decoded."""
        return len(self._rows)

    def admit(self, requests: deque[Request]) -> None:
        """Lets waiting samples join, first come first served; takes requests off the queue once all of theirs have.

        Joins come in groups of an eighth of the batch where so many wait, because each costs a prefill and a resize.
        """
        waiting = sum(len(request.waiting) for request in requests)
        if not waiting or self._max_rows - len(self) < min(waiting, max(1, self._max_rows // 8)):
            return
        joining: list[tuple[Request, int]] = []
        rows, longest = len(self), max((row.request.longest for row in self._rows), default=0)
        for request in requests:
            longest = max(longest, request.longest)
            # One row always fits, or nothing would ever run.
            room = max(min(self._max_rows, self._max_tokens // longest), 1) - rows
            if (count := min(room, len(request.waiting))) <= 0:
                break
            joining.append((request, count))
            rows += count
        self._prefill([request for request, _ in joining if request.kv is None])
        for request, count in joining:
            self._join(request, count)
        while requests and not requests[0].waiting:
            requests.popleft().kv = None

    def _prefill(self, requests: list[Request]) -> None:
        while requests:
            width = max(len(request.prompt) for request in requests) - 1
            part, requests = requests[: max(1, _PREFILL_TOKENS // width)], requests[max(1, _PREFILL_TOKENS // width) :]
            # Padding stands after the prompt, where causal attention never looks at it.
            ids = torch.zeros((len(part), width), dtype=torch.long)
            for position, request in enumerate(part):
                ids[position, : len(request.prompt) - 1] = torch.tensor(request.prompt[:-1])
            kv = PromptKV()
            self._forward(ids.to(self._device), kv=kv, positions=torch.arange(width)[None], mask=None)
            for position, request in enumerate(part):
                request.kv = kv.row(position, len(request.prompt) - 1)

    def _forward(self, ids: torch.Tensor, *, kv: Any, positions: torch.Tensor, mask: torch.Tensor | None) -> Any:
        return self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions.to(self._device),
            past_key_values=kv,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]

    def _join(self, request: Request, count: int) -> None:
        assert request.kv is not None
        started = time.perf_counter()
        for _ in range(count):
            index, seed = request.waiting.popleft()
            self._rows.append(_Row(request=request, index=index, seed=seed, started=started))
        longest = max(len(row.request.prompt) + len(row.tokens) for row in self._rows)
        self._kv.add(request.kv, copies=count, columns=longest)
        seeds = [row.seed for row in self._rows[-count:]]
        config = request.config
        self._ids = torch.cat((self._ids, self._ids.new_full((count,), request.prompt[-1])))
        self._seeds = torch.cat((self._seeds, torch.tensor(seeds, dtype=torch.long, device=self._device)))
        row = [config.temperature, config.top_p, float(len(request.prompt) - 1), 0.0]
        self._state = torch.cat((self._state, self._state.new_tensor([row] * count)))

    def step(self) -> list[tuple[Request, Sample]]:
        """Draws one token for every row; returns the samples that this finished."""
        self._kv.open_column(longest=max(len(row.request.prompt) + len(row.tokens) for row in self._rows))
        logits = self._forward(
            self._ids[:, None], kv=self._kv, positions=self._kv.lengths[:, None], mask=self._kv.mask
        ).float()
        temperature, top_p, begun, _ = self._state.unbind(1)
        uniform = uniforms(self._seeds, self._kv.lengths - begun.long())
        drawn = draw(logits, uniform=uniform, temperature=temperature.float(), top_p=top_p)
        self._kv.close_column()
        self._ids = drawn.ids
        done: list[int] = []
        finished: list[tuple[Request, Sample]] = []
        both = torch.stack((drawn.ids.double(), drawn.logprobs.double())).tolist()
        for position, (row, token, logprob) in enumerate(zip(self._rows, *both, strict=True)):
            if (sample := self._take(row, int(token), logprob)) is not None:
                done.append(position)
                finished.append((row.request, sample))
        self._remove(done)
        return finished

    def _take(self, row: _Row, token: int, logprob: float) -> Sample | None:
        row.tokens.append(token)
        row.logprob += logprob
        reader = self._reader
        if token in reader.eos_ids:
            return self._sample(row, "stop", reader.text(row.tokens[:-1]))
        if token in reader.think_enders and row.answering_from is None:
            row.answering_from = reader.answering_from(row.tokens)
        elif token in reader.closers and row.answering_from is not None:
            text = reader.boxed_text(row.tokens, answering_from=row.answering_from)
            if text is not None:
                return self._sample(row, "boxed", text)
        if len(row.tokens) >= row.request.max_tokens:
            return self._sample(row, "length", reader.text(row.tokens))
        return None

    def _sample(self, row: _Row, finish: Finish, text: str) -> Sample:
        return Sample(
            problem_id=row.request.problem_id,
            index=row.index,
            seed=row.seed,
            text=text,
            tokens=len(row.tokens),
            finish=finish,
            seconds=round(time.perf_counter() - row.started, 6),
            logprob_mean=round(row.logprob / len(row.tokens), 6),
        )

    def drop_cancelled(self) -> None:
        """Takes the rows of cancelled requests out."""
        self._remove([position for position, row in enumerate(self._rows) if row.request.cancelled])

    def _remove(self, gone: list[int]) -> None:
        if not gone:
            return
        left = len(self._rows) - len(gone)
        dead = set(gone)
        sources = [position for position in range(left, len(self._rows)) if position not in dead]
        targets = [position for position in gone if position < left]
        for tensor in (self._ids, self._seeds, self._state):
            tensor[targets] = tensor[sources]
        self._ids, self._seeds, self._state = self._ids[:left], self._seeds[:left], self._state[:left]
        for source, target in zip(sources, targets, strict=True):
            self._rows[target] = self._rows[source]
        del self._rows[left:]
        self._kv.move(sources=sources, targets=targets, rows=left)
        self._kv.fit(longest=max((len(row.request.prompt) + len(row.tokens) for row in self._rows), default=0))
