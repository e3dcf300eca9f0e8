"""The batch of the decode loop: rows of many problems join, draw one token a step, and leave when they are done."""

import math
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import itemgetter
from queue import SimpleQueue
from threading import Lock
from typing import TYPE_CHECKING

import torch

from mathlete.errors import UserError
from mathlete.sampling import CompletionReader, Sample, SampleBuilder, SamplingConfig
from mathlete.sampling.embedded.drawing import draw, uniforms
from mathlete.sampling.embedded.kv import ATTENTION, PromptKV, RowKV, register_attention
from mathlete.sampling.embedded.limits import RowLimits
from mathlete.sampling.embedded.pace import Pace, Threads

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_PREFILL_TOKENS = 8192
"""Prompt tokens read in one pass at most, padding counted."""
_PACED_PREFILL_TOKENS = 1024
"""The same for a large model on a CPU, which more tokens at once make no faster."""


@dataclass(eq=False)
class SampleRequest:
    """One problem's prompt and the samples wanted of it."""

    problem_id: str
    prompt: list[int]
    config: SamplingConfig
    max_tokens: int
    """The config's cap, or what the model's context leaves."""
    waiting: deque[tuple[int, int]]
    """(index, seed) of the samples not yet begun."""
    results: "SimpleQueue[Sample | Exception]" = field(default_factory=SimpleQueue)
    """Finished samples; an error once the engine has stopped."""
    until_code: bool = False
    """Whether a row also ends where its first Python block closes."""
    answering: bool = False
    """Whether the prompt holds the end of the reasoning, so that a box counts from the first token on."""
    in_box: bool = False
    """Whether the prompt ends with a box that it begins."""
    cancelled: bool = False
    drawing: dict[int, SampleBuilder] = field(default_factory=dict)
    """{index: the sample} of those that have begun and not ended."""
    ended: int = 0
    """Samples that are done."""
    _ending: Lock = field(default_factory=Lock)
    kv: PromptKV | None = None
    """All of the prompt but its last token, read once for all its samples."""

    def needs(self, index: int) -> bool:
        """Return whether the vote needs that sample for sure, as far as is known."""
        enough = self.config.enough
        return enough is None or index < enough or self.ended >= enough

    def end_one(self) -> None:
        """Count one more sample as done; batches of several threads may do so at once."""
        with self._ending:
            self.ended += 1

    @property
    def longest(self) -> int:
        """Tokens that a row of it may hold at its end."""
        return len(self.prompt) + self.max_tokens


@dataclass(eq=False)
class _Row:
    request: SampleRequest
    sample: SampleBuilder


class Batch:
    """The rows of one model. Not thread-safe: one thread owns it."""

    def __init__(
        self,
        model: "PreTrainedModel",
        *,
        reader: CompletionReader,
        max_rows: int,
        max_tokens: int,
        pace: Pace | None = None,
        threads: Threads | None = None,
    ) -> None:
        """Take the model over.

        A `pace` chooses fewer rows than `max_rows` where more would be slower, `threads` how many threads a step has.
        """
        register_attention()
        model.set_attn_implementation(ATTENTION)
        self._model, self._reader = model, reader
        self._device: torch.device = model.device
        self._max_rows, self._max_tokens = max_rows, max_tokens
        self._pace, self._threads = pace, threads
        self._rows: list[_Row] = []
        self._kv = RowKV(device=self._device)
        self._ids = torch.empty(0, dtype=torch.long, device=self._device)
        self._state = torch.empty(0, 3, dtype=torch.float64, device=self._device)
        self._seeds = torch.empty(0, dtype=torch.long, device=self._device)
        self._limits = RowLimits(vocabulary=model.config.get_text_config().vocab_size, device=self._device)

    def __len__(self) -> int:
        """Return the number of rows being decoded."""
        return len(self._rows)

    def admit(self, requests: deque[SampleRequest]) -> None:
        """Let waiting samples join; remove a request from the queue once all of its samples have."""
        most = self._most_rows(requests)
        turns = self._order(requests, most)
        # Each join costs a prefill and a segment, so they come in groups: a quarter of the batch where so many wait.
        if not turns or most - len(self) < min(len(turns), max(1, most // 4)):
            return
        joining: dict[SampleRequest, int] = {}
        rows, longest = len(self), max((row.request.longest for row in self._rows), default=0)
        for request in turns:
            # Memory is planned for the longest that every row may become: a running row cannot be evicted.
            longest = max(longest, request.longest)
            # One row always fits, or nothing would ever run.
            if rows >= max(min(most, self._max_tokens // longest), 1):
                break
            joining[request] = joining.get(request, 0) + 1
            rows += 1
        if not joining:
            return
        self._prefill([request for request in joining if request.kv is None])
        self._join(list(joining.items()))
        for request in [request for request in requests if not request.waiting]:
            requests.remove(request)
            # Its rows have copies; nobody else reads the prompt's.
            request.kv = None

    def _most_rows(self, requests: Iterable[SampleRequest]) -> int:
        if self._pace is None:
            return self._max_rows
        waiting = sum(len(request.waiting) for request in requests)
        return min(self._max_rows, self._pace.most_rows(waiting, len(self)))

    def _order(self, requests: Iterable[SampleRequest], most: int) -> list[SampleRequest]:
        """Return the request of each sample that may join, first samples of all problems before later ones.

        Samples that a vote may turn out not to need join only while a row costs little. So rows go to the problems
        that need them, and a problem that its first samples settle never begins the others.
        """
        waiting = [(index, place, request) for place, request in enumerate(requests) for index, _ in request.waiting]
        waiting.sort(key=itemgetter(0, 1))
        needed = [request for index, _, request in waiting if request.needs(index)]
        spare = [request for index, _, request in waiting if not request.needs(index)]
        # A GPU reads the weights once for all rows; on a CPU every further row soon costs as much as the first.
        cheap = most if self._device.type == "cuda" else max(1, most // 2)
        return needed + spare[: max(0, cheap - len(self) - len(needed))]

    def _prefill(self, requests: list[SampleRequest]) -> None:
        most = _PREFILL_TOKENS if self._pace is None else _PACED_PREFILL_TOKENS
        while requests:
            width = max(len(request.prompt) for request in requests) - 1
            part, requests = requests[: max(1, most // width)], requests[max(1, most // width) :]
            # Padding stands after the prompt, where causal attention never looks at it.
            ids = torch.zeros((len(part), width), dtype=torch.long)
            for position, request in enumerate(part):
                ids[position, : len(request.prompt) - 1] = torch.tensor(request.prompt[:-1])
            kv = PromptKV()
            self._forward(ids.to(self._device), kv=kv, positions=torch.arange(width)[None])
            for position, request in enumerate(part):
                request.kv = kv.row(position, len(request.prompt) - 1)

    def _forward(self, ids: torch.Tensor, *, kv: PromptKV | RowKV, positions: torch.Tensor) -> torch.Tensor:
        """Return the logits of each row's last token, (rows, vocabulary)."""
        logits: torch.Tensor = self._model(
            input_ids=ids,
            position_ids=positions.to(self._device),
            past_key_values=kv,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        return logits[:, -1]

    def _join(self, joining: list[tuple[SampleRequest, int]]) -> None:
        new: list[_Row] = []
        for request, count in joining:
            for index, seed in [request.waiting.popleft() for _ in range(count)]:
                request.drawing[index] = self._build(request, index, seed)
                new.append(_Row(request=request, sample=request.drawing[index]))
        self._kv.add([(request.kv, count) for request, count in joining if request.kv is not None])
        self._rows += new
        self._ids = torch.cat((self._ids, self._ids.new_tensor([row.request.prompt[-1] for row in new])))
        self._seeds = torch.cat((self._seeds, self._seeds.new_tensor([row.sample.seed for row in new])))
        state = [(row.request.config.temperature, row.request.config.top_p, len(row.request.prompt) - 1) for row in new]
        self._state = torch.cat((self._state, self._state.new_tensor(state)))
        self._limits.add([(row.request.config, row.request.prompt) for row in new])

    def _build(self, request: SampleRequest, index: int, seed: int) -> SampleBuilder:
        return SampleBuilder(
            reader=self._reader,
            problem_id=request.problem_id,
            index=index,
            seed=seed,
            max_tokens=request.max_tokens,
            until_code=request.until_code,
            answering=request.answering,
            in_box=request.in_box,
            stops=request.config.stop,
        )

    def step(self) -> list[tuple[SampleRequest, Sample]]:
        """Draw one token for every row; return the samples that this finished."""
        if self._threads is not None and self._threads.count != torch.get_num_threads():
            torch.set_num_threads(self._threads.count)
        started = time.perf_counter()
        self._kv.open_column()
        logits = self._forward(self._ids[:, None], kv=self._kv, positions=self._kv.lengths[:, None])
        temperature, top_p, begun = self._state.unbind(1)
        uniform = uniforms(self._seeds, self._kv.lengths - begun.long())
        drawn = draw(
            logits, uniform=uniform, temperature=temperature.float(), top_p=top_p, limits=self._limits.tensors()
        )
        self._limits.note(drawn.ids)
        self._kv.close_column()
        self._ids = drawn.ids
        seconds = time.perf_counter() - started
        if self._pace is not None:
            self._pace.add(len(self), seconds)
        if self._threads is not None:
            self._threads.add(len(self), seconds)
        done: list[int] = []
        finished: list[tuple[SampleRequest, Sample]] = []
        # Lists, because each single value read from a GPU tensor would wait for the GPU.
        both = (drawn.ids.tolist(), drawn.logprobs.tolist())
        for position, (row, token, logprob) in enumerate(zip(self._rows, *both, strict=True)):
            if math.isnan(logprob):
                dtype = str(logits.dtype).removeprefix("torch.")
                raise UserError(
                    "a model must compute numbers",
                    value=f"NaN for the next token of problem {row.request.problem_id}, in {dtype}",
                    cure="compute in another type (--dtype float32), or take a whole copy of the model",
                )
            if (sample := row.sample.add(token, logprob)) is not None:
                done.append(position)
                row.request.end_one()
                del row.request.drawing[sample.index]
                finished.append((row.request, sample))
        if self._pace is not None:
            for _, sample in finished:
                self._pace.finish(sample.tokens)
        self._remove(done)
        return finished

    def drop_cancelled(self) -> None:
        """Remove the rows of cancelled requests."""
        self._remove([position for position, row in enumerate(self._rows) if row.request.cancelled])

    def _remove(self, gone: list[int]) -> None:
        if not gone:
            return
        order = self._kv.remove(gone)
        self._rows = [self._rows[position] for position in order]
        chosen = torch.tensor(order, dtype=torch.long, device=self._device)
        self._ids, self._seeds, self._state = self._ids[chosen], self._seeds[chosen], self._state[chosen]
        self._limits.keep(order, chosen)
