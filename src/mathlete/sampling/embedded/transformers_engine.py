"""The embedded engine: a decode loop of our own on a transformers causal model, shared by every solver thread.

One thread owns the model and decodes rows of many problems together: a prompt is read once for all its samples,
finished and cancelled rows leave at once, waiting ones take their place, and a row stops when its box closes after
`</think>`. Works on CPU and CUDA, with 16/32-bit, bitsandbytes int8 and NF4 weights.

The same seed gives the same sample whatever else is in the batch, as far as floating-point sums allow: where two tokens
are within rounding of each other, another batch shape may take the other one. With int8 weights there is one more
coupling: LLM.int8 treats a feature as an outlier when any row of the batch has it above the threshold.
"""

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from mathlete.errors import UserError
from mathlete.models import ModelSource, Precision, load_model, load_prompt_format
from mathlete.problems import Problem
from mathlete.prompts import END_THINK, PromptFormat
from mathlete.sampling.completion import CompletionReader
from mathlete.sampling.samples import Continuing, Sample, SamplingConfig, no_room

if TYPE_CHECKING:
    from mathlete.sampling.embedded.batch import Request

MAX_ROWS = 1024
"""Rows decoded together: the more, the less each costs, up to what memory holds (bench/sampling.py)."""
_SMALL = 50_000_000
"""Parameters below which a second thread costs more than it brings (bench/sampling.py)."""


class TransformersSampler(Continuing):
    """A Sampler over a loaded model. `stream` may be called from many threads; close it to free the model."""

    name = "transformers"

    def __init__(
        self, model: Any, *, prompts: PromptFormat, max_rows: int = MAX_ROWS, threads: int | None = None
    ) -> None:
        """Takes the model over: its attention is replaced, and nothing else may call it until `close`.

        Args:
            model: a causal language model of transformers, in eval mode.
            prompts: how the model is asked.
            max_rows: samples decoded together at most; fewer where memory is short.
            threads: CPU threads of the decode loop; None takes 1 for a small model, else all cores.
        """
        if max_rows < 1:
            raise UserError("the batch needs at least one row", value=max_rows, cure=f"leave it at {MAX_ROWS}")
        _check_covered(model)
        self.prompts = prompts
        self.max_rows = max_rows
        self.threads = threads or _default_threads(model)
        self._model = model
        eos = model.generation_config.eos_token_id
        ids = {prompts.tokenizer.eos_token_id, *(eos if isinstance(eos, list) else [eos])} - {None}
        self._reader = CompletionReader(prompts.tokenizer, eos_ids=ids)
        self._context = _context(model.config)
        self._inbox: SimpleQueue[Request | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._open: set[Request] = set()
        self._ended = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._serve, name="mathlete-engine", daemon=True)
        self._thread.start()

    def begin(
        self,
        problem: Problem,
        *,
        seeds: Mapping[int, int],
        config: SamplingConfig,
        results: "SimpleQueue[Sample | Exception]",
        said: str = "",
        until_code: bool = False,
    ) -> Callable[[], object]:
        """Has the samples put into `results`; see `Continuing.begin`.

        Raises:
            UserError: the prompt leaves no room in the model's context.
            RuntimeError: the engine has failed (its error is the cause) or was closed.
        """
        config.check()
        prompt = prompt_going_on(problem, said, prompts=self.prompts, reader=self._reader, context=self._context)
        if len(prompt) >= self._context:
            for index, seed in seeds.items():
                results.put(no_room(problem.id, index, seed))
            return lambda: None
        request = self._request(problem, prompt, seeds, config, results)
        request.until_code, request.answering = until_code, END_THINK in said
        with self._lock:
            if self._ended:
                raise self._stopped()
            self._open.add(request)
            self._inbox.put(request)
        return lambda: self._cancel(request)

    def _cancel(self, request: "Request") -> None:
        request.cancelled = True
        with self._lock:
            self._open.discard(request)

    def close(self) -> None:
        """Stops the engine thread and lets the model go; streams still waiting raise."""
        self._inbox.put(None)
        self._thread.join()
        self._model = None

    def _request(
        self,
        problem: Problem,
        prompt: list[int],
        seeds: Mapping[int, int],
        config: SamplingConfig,
        results: "SimpleQueue[Sample | Exception]",
    ) -> "Request":
        from mathlete.sampling.embedded.batch import Request

        return Request(
            problem_id=problem.id,
            prompt=prompt,
            config=config,
            max_tokens=min(config.max_tokens, self._context - len(prompt)),
            waiting=deque(sorted(seeds.items())),
            results=results,
        )

    def _stopped(self) -> RuntimeError:
        error = RuntimeError(f"the sampling engine stopped: {self._error or 'it was closed'}")
        error.__cause__ = self._error
        return error

    def _serve(self) -> None:
        try:
            self._decode()
        except Exception as error:
            # Carried to the waiting streams, which raise it in their own threads.
            self._error = error
        finally:
            with self._lock:
                self._ended = True
                for request in self._open:
                    request.results.put(self._stopped())

    def _decode(self) -> None:
        import torch

        from mathlete.sampling.embedded.batch import Batch

        torch.set_num_threads(self.threads)
        queue: deque[Request] = deque()
        with torch.inference_mode():
            batch = Batch(
                self._model, reader=self._reader, max_rows=self.max_rows, max_tokens=_memory_tokens(self._model)
            )
            while self._collect(queue, wait=not queue and not len(batch)):
                batch.drop_cancelled()
                batch.admit(queue)
                if len(batch):
                    for request, sample in batch.step():
                        request.results.put(sample)

    def _collect(self, queue: "deque[Request]", *, wait: bool) -> bool:
        """Moves new requests into the queue and cancelled ones out; False once the engine is to stop."""
        while wait or not self._inbox.empty():
            request = self._inbox.get()
            if request is None:
                return False
            queue.append(request)
            wait = False
        for request in [request for request in queue if request.cancelled]:
            queue.remove(request)
        return True


def open_transformers(
    source: ModelSource,
    *,
    precision: Precision = "auto",
    max_rows: int = MAX_ROWS,
    threads: int | None = None,
    instruction: str | None = None,
) -> TransformersSampler:
    """The engine over a model loaded from its source, told `instruction` where it is given in place of its own.

    Raises:
        UserError: the model or its tokenizer cannot be loaded.
    """
    prompts = load_prompt_format(source)
    if instruction is not None:
        prompts = replace(prompts, instruction=instruction)
    return TransformersSampler(
        load_model(source, precision=precision), prompts=prompts, max_rows=max_rows, threads=threads
    )


def prompt_going_on(
    problem: Problem, said: str, *, prompts: PromptFormat, reader: CompletionReader, context: int
) -> list[int]:
    """The problem's prompt ids, then those of what has been said after it.

    Raises:
        UserError: the prompt alone leaves no token of the model's context to answer in.
    """
    with reader.lock:
        return prompt_that_fits(problem, prompts=prompts, context=context) + (reader.ids(said) if said else [])


def prompt_that_fits(problem: Problem, *, prompts: PromptFormat, context: int) -> list[int]:
    """The problem's prompt ids.

    Raises:
        UserError: they leave no token of the model's context to answer in.
    """
    prompt = prompts.prompt_ids(problem.statement)
    if not 2 <= len(prompt) < context:
        raise UserError(
            f"the prompt of problem {problem.id} must leave room in the model's context of {context} tokens",
            value=f"{len(prompt)} tokens",
            cure="use a model with a longer context, or take the problem out of the suite",
        )
    return prompt


def context_tokens(source: ModelSource) -> int:
    """Tokens the model can attend to, prompt and completion together, read from its configuration alone."""
    return _context(_config(source))


def eos_ids(source: ModelSource) -> set[int]:
    """Tokens that end a completion, read from the model's generation settings, or from its configuration alone."""
    from transformers import GenerationConfig

    try:
        found = GenerationConfig.from_pretrained(source.location, revision=source.revision or "main")
    except OSError:
        found = GenerationConfig.from_model_config(_config(source))
    eos = found.eos_token_id
    return {int(token) for token in (eos if isinstance(eos, list) else [eos]) if token is not None}


def hub_commit(source: ModelSource) -> str | None:
    """The commit of a hub model that was not pinned to one."""
    return source.revision or getattr(_config(source), "_commit_hash", None)


def _config(source: ModelSource) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(source.location, revision=source.revision)


def _context(config: Any) -> int:
    return int(getattr(config.get_text_config(), "max_position_embeddings", None) or 2**31)


def _check_covered(model: Any) -> None:
    kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        raise UserError(
            "the transformers engine covers models with full attention in every layer",
            value=", ".join(sorted(kinds)),
            cure="use a Qwen2 or Llama model, such as the R1 distillations",
        )


def _default_threads(model: Any) -> int:
    import torch

    return 1 if model.num_parameters() < _SMALL else torch.get_num_threads()


def _memory_tokens(model: Any) -> int:
    """Tokens of keys and values that fit: 80% of the free device memory, or 2 GiB of a CPU machine's."""
    import torch

    config = model.config.get_text_config()
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    token_bytes = 2 * config.num_hidden_layers * config.num_key_value_heads * width * model.dtype.itemsize
    free = 0.8 * torch.cuda.mem_get_info()[0] if model.device.type == "cuda" else 2 * 2**30
    return int(free // token_bytes)
