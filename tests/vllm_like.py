"""What vLLM gives, object by object as its own source has it, for tests where it is not installed.

Its output records, errors and the few names that an engine is opened with; no model and no processes. The engine behind
them is a script: a list of replies, errors and pauses for each request. `python -m tests.vllm_like` compares every name
and field with the vLLM that is installed (0.19.1 and 0.32.0 agree).
"""

import asyncio
import dataclasses
import inspect
import sys
import warnings
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from enum import Enum
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace
from typing import Any

CONTEXT = 1000
HERE = find_spec("vllm") is not None


@dataclass
class Logprob:
    """vllm/logprobs.py."""

    logprob: Any
    rank: int | None = None
    decoded_token: str | None = None


@dataclass
class CompletionOutput:
    """vllm/outputs.py."""

    index: int
    text: Any
    token_ids: Any
    cumulative_logprob: float | None
    logprobs: Any
    routed_experts: Any = None
    finish_reason: Any = None
    stop_reason: int | str | None = None
    lora_request: Any = None


class RequestOutput:
    """vllm/outputs.py."""

    def __init__(
        self,
        request_id: str,
        prompt: str | None,
        prompt_token_ids: list[int] | None,
        prompt_logprobs: Any,
        outputs: Any,
        finished: bool,
        metrics: Any = None,
        lora_request: Any = None,
        encoder_prompt: str | None = None,
        encoder_prompt_token_ids: list[int] | None = None,
        num_cached_tokens: int | None = None,
        *,
        kv_transfer_params: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.request_id, self.prompt, self.prompt_token_ids = request_id, prompt, prompt_token_ids
        self.prompt_logprobs, self.outputs, self.finished = prompt_logprobs, outputs, finished
        self.metrics, self.lora_request, self.num_cached_tokens = metrics, lora_request, num_cached_tokens
        self.encoder_prompt, self.encoder_prompt_token_ids = encoder_prompt, encoder_prompt_token_ids
        self.kv_transfer_params = kv_transfer_params


class VLLMError(Exception):
    """vllm/exceptions.py of 0.32, as those below."""


class VLLMClientError(VLLMError): ...


class VLLMServerError(VLLMError): ...


class VLLMValidationError(VLLMClientError):
    def __init__(self, message: str, *, parameter: str | None = None, value: Any = None) -> None:
        super().__init__(message)
        self.parameter, self.value = parameter, value


class GenerationError(VLLMServerError): ...


class EngineGenerateError(VLLMServerError):
    """vllm/v1/engine/exceptions.py."""


class EngineDeadError(VLLMServerError):
    """vllm/v1/engine/exceptions.py."""

    def __init__(self, *args: Any, suppress_context: bool = False, **kwargs: Any) -> None:
        words = "EngineCore encountered an issue. See stack trace (above) for the root cause."
        super().__init__(words, *args, **kwargs)


class RequestOutputKind(Enum):
    """vllm/sampling_params.py."""

    CUMULATIVE = 0
    DELTA = 1
    FINAL_ONLY = 2


@dataclass
class SamplingParams:
    """vllm/sampling_params.py: the fields that are set here, and the rule that a temperature breaks."""

    temperature: float = 1.0
    top_p: float = 1.0
    min_p: float = 0.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int | None = None
    max_tokens: int | None = 16
    stop_token_ids: list[int] | None = None
    logprobs: int | None = None
    detokenize: bool = True
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 2:
            raise VLLMValidationError(f"temperature must be in [0, 2], got {self.temperature}.")


@dataclass
class AsyncEngineArgs:
    """vllm/engine/arg_utils.py: the fields that are set here."""

    model: str
    revision: str | None = None
    dtype: str = "auto"
    enable_chunked_prefill: bool | None = None
    skip_tokenizer_init: bool = False
    generation_config: str = "auto"
    disable_log_stats: bool = False
    use_tqdm_on_load: bool = True
    language_model_only: bool = False
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    tensor_parallel_size: int = 1
    gpu_memory_utilization: float = 0.92
    kv_cache_memory_bytes: int | None = None
    kv_cache_dtype: str = "auto"
    enforce_eager: bool = False
    enable_prefix_caching: bool | None = None
    attention_config: Any = None
    stream_interval: int = 1


@dataclass
class CacheConfig:
    """vllm/config/cache.py."""


Request = list[Any] | Callable[[], AsyncGenerator[Any, None]]
"""What one request brings: replies, errors, seconds without a word; or the generator itself."""


@dataclass
class AsyncLLM:
    """vllm/v1/engine/async_llm.py: what is called of it, going by a script."""

    first: list[Request] = field(default_factory=list)
    """For its first requests."""
    then: Request = field(default_factory=list)
    """For all others."""
    begun: int = 0
    closed: int = 0
    vllm_config: Any = field(
        default_factory=lambda: SimpleNamespace(model_config=SimpleNamespace(max_model_len=CONTEXT))
    )

    async def generate(self, prompt: Any, sampling_params: Any, request_id: str) -> AsyncGenerator[Any, None]:
        self.begun += 1
        request = self.first.pop(0) if self.first else self.then
        try:
            if callable(request):
                async for one in request():
                    yield one
                return
            for one in request:
                if isinstance(one, BaseException):
                    raise one
                if isinstance(one, float):
                    await asyncio.sleep(one)
                else:
                    yield one
        finally:
            self.closed += 1

    def shutdown(self, timeout: float | None = None) -> None: ...

    @classmethod
    def from_engine_args(cls, engine_args: Any) -> "AsyncLLM":
        return cls()


NAMES: dict[str, tuple[type, ...]] = {
    "vllm": (AsyncEngineArgs, SamplingParams),
    "vllm.config": (CacheConfig,),
    "vllm.exceptions": (VLLMError, VLLMClientError, VLLMServerError, VLLMValidationError, GenerationError),
    "vllm.logprobs": (Logprob,),
    "vllm.outputs": (CompletionOutput, RequestOutput),
    "vllm.sampling_params": (SamplingParams, RequestOutputKind),
    "vllm.v1": (),
    "vllm.v1.engine": (),
    "vllm.v1.engine.async_llm": (AsyncLLM,),
    "vllm.v1.engine.exceptions": (EngineGenerateError, EngineDeadError),
}
LATER = {VLLMError, VLLMClientError, VLLMServerError, GenerationError}
"""vLLM 0.19 has no such errors."""


def modules() -> dict[str, ModuleType]:
    """Return {name: module}, to stand in `sys.modules`."""
    made = {}
    for name, kinds in NAMES.items():
        made[name] = ModuleType(name)
        made[name].__path__ = []
        vars(made[name]).update({kind.__name__: kind for kind in kinds})
    made["vllm"].__version__ = "0.32.0"  # type: ignore[attr-defined]
    return made


def differences() -> list[str]:
    """Return in what the installed vLLM differs from what stands here: names, fields, arguments, kinds of errors."""
    wrong: list[str] = []
    for module, kinds in NAMES.items():
        for kind in kinds:
            real = getattr(_import_real(module), kind.__name__, None)
            if real is None:
                wrong += [] if kind in LATER else [f"{module} has no {kind.__name__}"]
            elif issubclass(kind, Exception):
                own = {one.__name__ for one in kind.__mro__ if one not in LATER}
                wrong += [f"{kind.__name__} is no {name}" for name in own - {one.__name__ for one in real.__mro__}]
            elif issubclass(kind, Enum):
                wrong += [] if {*kind.__members__} == {*real.__members__} else [f"members of {kind.__name__}"]
            elif kind is AsyncLLM:
                calls = ("generate", "shutdown", "from_engine_args")
                wrong += [f"{call}{_arguments(getattr(real, call))}" for call in calls if not _takes(real, call)]
            else:
                have = [one.name for one in dataclasses.fields(real)] if dataclasses.is_dataclass(real) else []
                have = [*have, *_arguments(real)]
                wrong += [f"{kind.__name__} has no {name}" for name in _arguments(kind) if name not in have]
    return wrong


def _arguments(call: Any) -> list[str]:
    return [*inspect.signature(call).parameters]


def _takes(real: Any, call: str) -> bool:
    theirs = _arguments(getattr(real, call))
    return all(name in theirs for name in _arguments(getattr(AsyncLLM, call)))


def _import_real(name: str) -> ModuleType:
    # Its newer versions compile functions as they are imported, and torch then warns of its own old names.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_module(name)


def vllm_name(name: str) -> Any:
    """Return a class or an error of vLLM's by its name."""
    own = globals()[name]
    return getattr(_import_real(next(one for one in NAMES if own in NAMES[one])), name) if HERE else own


def wrap_error(error: Exception) -> Exception:
    """As vLLM passes on what went wrong with one request."""
    one: Exception = vllm_name("EngineGenerateError")()
    one.__cause__ = error
    return one


def stand_in(patch: Any) -> None:
    """Have vLLM's engine go by a script, and its other names be there."""
    if HERE:
        real: Any = _import_real("vllm.v1.engine.async_llm")
        # Looked up as it is called: a test may have put another in its place by then.
        patch.setattr(real.AsyncLLM, "from_engine_args", lambda given: AsyncLLM.from_engine_args(given))
        return
    for name, module in modules().items():
        patch.setitem(sys.modules, name, module)


if __name__ == "__main__":
    print("\n".join(differences()) or "no differences")
    sys.exit(bool(differences()))
