"""The embedded engine: this project's own decode loop on a transformers causal model, shared by every solver thread.

Rows of many problems are decoded together: a prompt is read once for all its samples, finished and cancelled rows
leave at once, waiting ones take their place, and a row stops when its box closes after `</think>`. Works on CPU and
CUDA, with 16/32-bit, bitsandbytes int8 and NF4 weights.

One thread decodes one batch. A large model on a CPU has two, each with half of the cores: while one batch is at what
only one core can do, the other's products have both, and where other processes take a core, no thread waits for the one
that stands still.

The same seed gives the same sample whatever else is in the batch, as far as floating-point sums allow: where two tokens
are within rounding of each other, another batch shape may take the other one. With int8 weights rows also influence
each other through outliers: LLM.int8 treats a feature as one when any row of the batch has it above the threshold.
"""

import threading
from collections import deque
from collections.abc import Mapping
from queue import SimpleQueue
from typing import TYPE_CHECKING

from mathlete.errors import UserError
from mathlete.models import Device, ModelSource, Precision, Shape, load_model, load_prompt_format
from mathlete.problems import Problem
from mathlete.prompts import PromptFormat
from mathlete.sampling import CompletionReader, Continuing, Sample, SamplingConfig
from mathlete.sampling.box import opens_box
from mathlete.sampling.continuing import Cancel
from mathlete.sampling.embedded.coverage import check_covered, check_decodes

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    from mathlete.sampling.embedded.batch import Batch, SampleRequest

MAX_ROWS = 1024
"""Rows decoded together at most: the more, the less each costs, as long as memory holds them (bench/sampling.py)."""
_BATCHES = 2
"""Batches of a large model on a CPU that has so many cores. On a busy machine two of 32 rows draw three times as many
tokens a second as one of 64."""
_SMALL = Device.large_model
"""Parameters below which a second thread costs more than it gains (bench/sampling.py)."""


class TransformersSampler(Continuing):
    """A Sampler over a loaded model. `stream` may be called from many threads; close it to free the model."""

    name = "transformers"

    def __init__(
        self, model: "PreTrainedModel", *, prompts: PromptFormat, max_rows: int = MAX_ROWS, threads: int | None = None
    ) -> None:
        """Take the model over: its attention is replaced, and nothing else may call it until `close`.

        Args:
            model: a causal language model of transformers, in eval mode.
            prompts: the model's prompts.
            max_rows: samples decoded together at most; fewer where memory is short.
            threads: CPU threads of the decode loop; None takes 1 for a small model, else as many of all cores as make
                its steps soonest.
        """
        if max_rows < 1:
            raise UserError("the batch needs at least one row", value=max_rows, cure=f"leave it at {MAX_ROWS}")
        check_covered(model.config)
        check_decodes(model)
        self.prompts = prompts
        self.max_rows = max_rows
        self.threads = threads or _default_threads(model)
        eos = model.generation_config.eos_token_id
        self._reader = CompletionReader(prompts, eos_ids={*(eos if isinstance(eos, list) else [eos])} - {None})
        self._context = _context(model.config)
        self._inbox: SimpleQueue[SampleRequest | None] = SimpleQueue()
        self._queue: deque[SampleRequest] = deque()
        self._lock, self._queue_lock = threading.Lock(), threading.Lock()
        self._open: set[SampleRequest] = set()
        self._stopping = self._ended = False
        self._error: Exception | None = None
        self._workers = [
            threading.Thread(target=self._serve, args=(batch, count), name=f"mathlete-engine-{count}", daemon=True)
            for batch, count in self._make_batches(model, choose_threads=threads is None)
        ]
        for worker in self._workers:
            worker.start()

    def _make_batches(self, model: "PreTrainedModel", *, choose_threads: bool) -> "list[tuple[Batch, int]]":
        """Return the batches, each with its number of threads."""
        import torch

        from mathlete.sampling.embedded.batch import Batch
        from mathlete.sampling.embedded.pace import Pace, Threads
        from mathlete.sampling.embedded.packing import pack_linears

        # Steps of a small model cost the same however many rows they have, and a GPU's nearly so.
        paced = model.device.type == "cpu" and not _is_small(model)
        shares = min(_BATCHES, self.threads) if paced else 1
        # Before the packing, which takes the weights that are counted.
        tokens = _memory_tokens(model)
        batches = []
        with torch.inference_mode():
            if paced:
                pack_linears(model)
            for number in range(shares):
                count = (self.threads + number) // shares
                batch = Batch(
                    model,
                    reader=self._reader,
                    max_rows=-(-self.max_rows // shares),
                    max_tokens=tokens // shares,
                    pace=Pace(shares=shares) if paced else None,
                    threads=Threads(count) if paced and choose_threads and count > 1 else None,
                )
                batches.append((batch, count))
        return batches

    def begin(
        self,
        problem: Problem,
        *,
        seeds: Mapping[int, int],
        config: SamplingConfig,
        results: "SimpleQueue[Sample | Exception]",
        said: str = "",
        until_code: bool = False,
    ) -> Cancel:
        """Start the samples; see `Continuing.begin`.

        Raises:
            UserError: the prompt leaves no room in the model's context.
            RuntimeError: the engine has failed (its error is the cause) or was closed.
        """
        config.check()
        prompt = self._reader.prompt_ids(problem, said=said, context=self._context)
        if len(prompt) >= self._context:
            for index, seed in seeds.items():
                results.put(Sample.without_room(problem_id=problem.id, index=index, seed=seed))
            return lambda: None
        request = self._request(problem, prompt, seeds, config, results)
        request.until_code, request.answering = until_code, self._reader.is_answering(said)
        request.in_box = opens_box(said)
        with self._lock:
            if self._ended:
                raise self._stop_error()
            self._open.add(request)
            self._inbox.put(request)
        return lambda: self._cancel(request)

    def _cancel(self, request: "SampleRequest") -> list[Sample]:
        request.cancelled = True
        with self._lock:
            self._open.discard(request)
        # A copy at once: the engine's thread may end one meanwhile.
        return [sample.cut() for sample in [*request.drawing.values()]]

    def close(self) -> None:
        """Stop the engine's thread and free the model; streams still waiting raise."""
        self._inbox.put(None)
        for worker in self._workers:
            worker.join()

    def _request(
        self,
        problem: Problem,
        prompt: list[int],
        seeds: Mapping[int, int],
        config: SamplingConfig,
        results: "SimpleQueue[Sample | Exception]",
    ) -> "SampleRequest":
        from mathlete.sampling.embedded.batch import SampleRequest

        return SampleRequest(
            problem_id=problem.id,
            prompt=prompt,
            config=config,
            max_tokens=min(config.max_tokens, self._context - len(prompt)),
            waiting=deque(sorted(seeds.items())),
            results=results,
        )

    def _stop_error(self) -> Exception:
        if isinstance(self._error, UserError):
            return self._error
        error = RuntimeError(f"the sampling engine stopped: {self._error or 'it was closed'}")
        error.__cause__ = self._error
        return error

    def _serve(self, batch: "Batch", threads: int) -> None:
        try:
            self._decode(batch, threads)
        except Exception as error:
            # Passed to the waiting streams, which raise it in their own threads.
            self._error = self._error or error
        finally:
            self._stopping = True
            self._inbox.put(None)  # for another that waits there
            with self._lock:
                for request in () if self._ended else self._open:
                    request.results.put(self._stop_error())
                self._ended = True

    def _decode(self, batch: "Batch", threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        with torch.inference_mode():
            while self._admit(batch):
                if len(batch):
                    for request, sample in batch.step():
                        request.results.put(sample)

    def _admit(self, batch: "Batch") -> bool:
        """Let waiting samples join the batch; return False once the engine is to stop."""
        batch.drop_cancelled()
        # A batch that has rows goes on with them while another reads prompts, or waits for requests.
        if not self._queue_lock.acquire(blocking=not len(batch)):
            return not self._stopping
        try:
            if self._stopping or not self._collect(wait=not self._queue and not len(batch)):
                return False
            batch.admit(self._queue)
        finally:
            self._queue_lock.release()
        return True

    def _collect(self, *, wait: bool) -> bool:
        """Move new requests into the queue and cancelled ones out; return False once the engine is to stop."""
        # Blocks only while there is nothing to decode: an idle engine costs nothing.
        while wait or not self._inbox.empty():
            request = self._inbox.get()
            if request is None:
                return False
            self._queue.append(request)
            wait = False
        for request in [request for request in self._queue if request.cancelled]:
            self._queue.remove(request)
        return True


def open_transformers(
    source: ModelSource,
    *,
    precision: Precision = "auto",
    dtype: str = "auto",
    max_rows: int = MAX_ROWS,
    threads: int | None = None,
    prompts: PromptFormat | None = None,
) -> TransformersSampler:
    """Load a model and return the engine over it, with its own prompts where none are given.

    Raises:
        UserError: the model or its tokenizer cannot be loaded.
    """
    if prompts is None:
        prompts = load_prompt_format(source)
    model = load_model(source, precision=precision, dtype=choose_dtype(source, dtype)[0])
    return TransformersSampler(model, prompts=prompts, max_rows=max_rows, threads=threads)


def choose_dtype(source: ModelSource, asked: str = "auto") -> tuple[str, str]:
    """Return (the type that the engine computes in here, why): the one asked for, or for `auto` the machine's choice.

    Raises:
        UserError: the model is not on this machine nor on the hub.
    """
    if asked != "auto":
        return asked, "named by --dtype"
    try:
        parameters = Shape.of(source).parameters
    except UserError:
        parameters = None  # an architecture that is described otherwise
    return Device.current().choose_serving_dtype(parameters)


def _context(config: "PreTrainedConfig") -> int:
    return Shape.read_context(config.get_text_config().to_dict()) or 2**31


def _default_threads(model: "PreTrainedModel") -> int:
    import torch

    return 1 if _is_small(model) else torch.get_num_threads()


def _is_small(model: "PreTrainedModel") -> bool:
    return model.num_parameters() < _SMALL


def _memory_tokens(model: "PreTrainedModel") -> int:
    """Return how many tokens of the KV cache fit into 80% of the free GPU memory, or into 2 GiB on a CPU."""
    import torch

    from mathlete.sampling.embedded.kv import token_bytes

    free = 0.8 * torch.cuda.mem_get_info()[0] if model.device.type == "cuda" else 2 * 2**30
    return int(free // token_bytes(model, itemsize=model.dtype.itemsize))
