"""The engine that runs vLLM in child processes of its own: fast on GPUs, and on several of them together.

Every sample is a request of its own with its own seed, as token ids of this project's own prompt; vLLM's prefix cache
reads a prompt once for all its samples (in blocks: the part that fills no whole block is read again). Token ids are
streamed back, and a sample ends and is cut here as in the embedded engine; what is cancelled or done is aborted in vLLM
at once.

The same seed gives the same sample as far as floating-point sums allow: vLLM keeps a generator for each request, but
the shape of the batch can change the last bits of a logit, and so the token where two are within rounding of each
other. They are not the samples that the embedded engine draws: the seed feeds another generator. Below a temperature
of 0.01 vLLM draws at 0.01, and greedily at 0.
"""

import asyncio
import functools
import itertools
import multiprocessing
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, fields
from queue import SimpleQueue
from typing import TYPE_CHECKING
from uuid import uuid4

from mathlete.errors import UserError, nearest
from mathlete.lost import Lost, LostTry, OnLost
from mathlete.models import Device, ModelSource, Precision
from mathlete.problems import Problem
from mathlete.prompts import PromptFormat
from mathlete.sampling import CompletionReader, Continuing, Sample, SampleBuilder, SamplingConfig
from mathlete.sampling.box import opens_box
from mathlete.sampling.continuing import Cancel
from mathlete.sampling.served.loop import LoopThread
from mathlete.sampling.served.vllm_replies import NoFurtherTry, abort, client_errors, describe, next_reply
from mathlete.sampling.served.vllm_settings import PROMPT_ROOM, VllmSettings
from mathlete.sampling.served.vllm_shape import VllmShape
from mathlete.signals import Guard
from mathlete.temporary import TemporaryFolder
from mathlete.text import quote

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from vllm import SamplingParams
    from vllm.v1.engine.async_llm import AsyncLLM

_TRIES = 3
"""Tries at a sample: the same seed should give the same, so a third is for an engine that was disturbed."""
_SCORED = 2
"""Calls of which log-probabilities are asked for in any case: by them logits that are no numbers are found."""
_ABORT_S = 10.0
"""In which vLLM must take the news that a request is over."""
_VARIABLES = {
    # A child forked from a process that has threads may hang.
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    "VLLM_LOGGING_LEVEL": "ERROR",
    # Standard output belongs to --json.
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_NO_USAGE_STATS": "1",
}
"""Environment variables of vLLM, where the user has not set them: it reads these when it is imported."""
_EAGER = {"TORCH_COMPILE_DISABLE": "1"}
"""The same without compiling: vLLM's own switch leaves small functions that are compiled at the first sample (0.19.1,
v1/sample/ops/logprobs.py), for minutes on a CPU, and in vain where compiling is what fails."""


_SOCKET_BYTES = 107
"""Longest path of a socket, as unix(7) has it."""


@dataclass(frozen=True, kw_only=True)
class _SharedPrompt:
    """The common part of all samples of one call of `begin`."""

    problem_id: str
    prompt: list[int]
    config: SamplingConfig
    max_tokens: int
    """The config's cap, or what the model's context leaves."""
    until_code: bool
    answering: bool
    in_box: bool
    scored: bool
    """Whether log-probabilities are asked for."""
    drawing: dict[int, SampleBuilder] = field(default_factory=dict)
    """{index: the sample} of those that have begun and not ended."""


class VllmSampler(Continuing):
    """A Sampler over vLLM. `stream` may be called from many threads; close it to end vLLM's processes."""

    name = "vllm"

    def __init__(
        self,
        settings: VllmSettings,
        *,
        source: ModelSource,
        prompts: PromptFormat,
        precision: Precision = "auto",
        max_tokens: int | None = None,
        scores: bool = True,
        on_lost: OnLost = lambda one: None,
    ) -> None:
        """Load the model.

        Args:
            settings: how vLLM holds and draws it.
            source: the model.
            prompts: its prompts.
            precision: "auto", or "dense" for 16 bits.
            max_tokens: the longest completion that will be asked for, by which the context is chosen; None: any.
            scores: whether samples have log-probabilities, which costs a tenth of the speed and more.
            on_lost: called with each try at a sample that was lost, and is made again.

        Raises:
            UserError: vllm is missing, cannot load the model, or should quantise it itself.
        """
        settings.check()
        _check_precision(precision)
        self.prompts = prompts
        self._reader, self._on_lost = CompletionReader(prompts, eos_ids=source.eos_ids()), on_lost
        self._patience_s = settings.patience_s
        # In float16 numbers may overflow at any token.
        self._scores, self._asked = scores or Device.current().dtype == "float16", itertools.count()
        self._numbers, self._slots = itertools.count(), asyncio.Semaphore(settings.at_once)
        self._loop, self._guard = (
            LoopThread(name="mathlete-vllm"),
            Guard(),
        )  # vLLM's engine does not miss a killed parent
        # vLLM does not name its processes: they are the children that are there afterwards and were not before.
        others = multiprocessing.active_children()
        with ExitStack() as undo:
            # The thread would outlive a sampler that its caller never gets.
            undo.callback(self._guard.end)
            undo.callback(self._loop.close)
            # Before that, for it waits until vLLM has started: a stop would take as long as the loading.
            undo.callback(
                lambda: _end_children([one for one in multiprocessing.active_children() if one not in others])
            )
            self._engine = self._loop.run(_start_vllm(settings, source, max_tokens=max_tokens))
            self._context = int(self._engine.vllm_config.model_config.max_model_len)
            undo.pop_all()
        self._children = [child for child in multiprocessing.active_children() if child not in others]

    @property
    def version(self) -> str:
        """The installed vLLM version."""
        import vllm

        return str(vllm.__version__)

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
            UserError: the prompt leaves no room in the model's context, or vLLM has narrower limits for a setting.
            RuntimeError: the engine was closed.
        """
        config.check()
        prompt = self._reader.prompt_ids(problem, said=said, context=self._context)
        if len(prompt) >= self._context:
            for index, seed in seeds.items():
                results.put(Sample.without_room(problem_id=problem.id, index=index, seed=seed))
            return lambda: None
        shared = _SharedPrompt(
            problem_id=problem.id,
            prompt=prompt,
            config=config,
            max_tokens=min(config.max_tokens, self._context - len(prompt)),
            until_code=until_code,
            answering=self._reader.is_answering(said),
            in_box=opens_box(said),
            scored=self._scores or next(self._asked) < _SCORED,
        )
        refusals: tuple[type[Exception], ...] = (ValueError, *client_errors())
        try:
            _sampling_params(shared, seed=0, eos_ids=self._reader.eos_ids)
        except refusals as error:
            rule = "vLLM must take what --sampling.temperature, --sampling.top-p and the like say"
            raise UserError(rule, value=quote(str(error)), cure="give others, or draw with another --engine") from error
        return self._loop.begin(
            lambda index, seed: self._draw(shared, index, seed),
            seeds=seeds,
            results=results,
            unfinished=lambda: [one.cut() for one in [*shared.drawing.values()]],
        )

    def close(self) -> None:
        """End vLLM's processes, which frees their memory; streams still waiting raise."""
        self._loop.close(last=self._shut_down)
        self._engine = None
        # vLLM kills processes that do not end by themselves, but does not wait for their end.
        _end_children(self._children)
        self._guard.end()

    async def _shut_down(self) -> None:
        # The samples are drawn, and its processes are ended after it in any case.
        with suppress(Exception):
            self._engine.shutdown()

    async def _draw(self, shared: _SharedPrompt, index: int, seed: int) -> Sample:
        # No more than vLLM decodes together: a sample that waits here has not begun, and costs nothing to cancel.
        async with self._slots:
            for left in reversed(range(_TRIES)):
                builder = SampleBuilder(
                    reader=self._reader,
                    problem_id=shared.problem_id,
                    index=index,
                    seed=seed,
                    max_tokens=shared.max_tokens,
                    until_code=shared.until_code,
                    answering=shared.answering,
                    in_box=shared.in_box,
                    stops=shared.config.stop,
                )
                shared.drawing[index] = builder
                try:
                    return await self._read_tokens(builder, shared)
                except Lost as lost:
                    self._on_lost(
                        LostTry(
                            problem_id=shared.problem_id,
                            index=index,
                            seed=seed,
                            where="vllm",
                            reason=lost.reason,
                            text=builder.text,
                        )
                    )
                    if not left:
                        raise _no_sample(shared.problem_id, lost.reason) from lost
                finally:
                    shared.drawing.pop(index, None)
            raise AssertionError("a last try that is lost raises")

    async def _read_tokens(self, builder: SampleBuilder, shared: _SharedPrompt) -> Sample:
        params = _sampling_params(shared, seed=builder.seed, eos_ids=self._reader.eos_ids)
        replies = self._engine.generate({"prompt_token_ids": shared.prompt}, params, f"mathlete-{next(self._numbers)}")
        loop, patience_s, finish = asyncio.get_running_loop(), self._patience_s, None
        ends = loop.time() + patience_s
        try:
            while (
                reply := await next_reply(replies, ends=ends, patience_s=patience_s, scored=shared.scored)
            ) is not None:
                for token, logprob in reply.tokens:
                    ends = loop.time() + patience_s
                    if (sample := builder.add(token, logprob)) is not None:
                        return sample
                finish = reply.finish
        except NoFurtherTry as refused:
            raise _no_sample(shared.problem_id, str(refused), kind=refused.kind) from refused
        finally:
            await abort(replies, limit_s=_ABORT_S)
        raise Lost(f"vLLM ended a sample for another reason than eos or length: {finish}")


def _end_children(children: "Sequence[BaseProcess]") -> None:
    for child in children:
        child.kill()
        child.join()


def _no_sample(problem_id: str, reason: str, *, kind: type[UserError] = UserError) -> UserError:
    return kind(
        f"vLLM must give a whole sample in {_TRIES} tries",
        value=f"for problem {problem_id}: {reason}",
        cure="see what it said above; the run goes on where it stopped",
    )


def _sampling_params(shared: _SharedPrompt, *, seed: int, eos_ids: frozenset[int]) -> "SamplingParams":
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=shared.config.temperature,
        top_p=shared.config.top_p,
        min_p=shared.config.min_p,
        top_k=shared.config.top_k,
        repetition_penalty=shared.config.repetition_penalty,
        seed=seed,
        max_tokens=shared.max_tokens,
        stop_token_ids=sorted(eos_ids),
        # 0: of the token drawn alone, before temperature and nucleus.
        logprobs=0 if shared.scored else None,
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
    )


@functools.cache
def _socket_folder() -> TemporaryFolder:
    return TemporaryFolder("vllm")


def _name_socket_folder() -> dict[str, str]:
    """Return vLLM's variable for the folder of its sockets, which it leaves there when it is killed."""
    folder = _socket_folder().path
    fits = len(os.fsencode(folder / str(uuid4()))) <= _SOCKET_BYTES
    return {"VLLM_RPC_BASE_PATH": str(folder)} if fits else {}


async def _start_vllm(settings: VllmSettings, source: ModelSource, *, max_tokens: int | None) -> "AsyncLLM":
    for name, value in (_VARIABLES | _name_socket_folder() | (_EAGER if settings.eager else {})).items():
        os.environ.setdefault(name, value)
    try:
        from vllm import AsyncEngineArgs, __version__
        from vllm.v1.engine.async_llm import AsyncLLM
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "vllm":
            raise UserError("the vllm engine needs the vllm package", cure="pip install 'mathlete[vllm]'") from error
        rule = "the vllm package must be fit for this machine"
        cure = "install one that `python -c 'import vllm'` takes, in an environment of its own"
        raise UserError(rule, value=describe(error), cure=cure) from error

    await asyncio.sleep(0)  # the import takes long: where it was cancelled meanwhile, this ends here
    arguments = _engine_args(settings, source, max_tokens=max_tokens)
    _set_cpu_cache(arguments["kv_cache_memory_bytes"])
    known = [one.name for one in fields(AsyncEngineArgs)]
    if unknown := next((name for name in arguments if name not in known), None):
        cure = nearest(unknown, known)
        raise UserError(f"--vllm.extra must name arguments of vLLM {__version__}", value=unknown, cure=cure)
    try:
        return AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))
    except (Exception, SystemExit) as error:
        # It reads the model's files, and says in many ways what it cannot do with them.
        rule, cure = f"vLLM must be able to load {source.location}", _name_cure(str(error), settings, max_tokens)
        raise UserError(rule, value=describe(error), cure=cure) from error


def _name_cure(said: str, settings: VllmSettings, max_tokens: int | None) -> str:
    """Return what may help where vLLM did not come up and said so."""
    if "quantization" in said and "quantization" not in settings.extra:
        return "name a folder in a format this vLLM knows, such as the merged 16-bit one; docs/solving.md tells more"
    # Its core is a process of its own, whose error is printed and not handed on.
    if re.search(r"[Ee]ngine core|[Mm]emory|KV cache|seq(uence)? len", said):
        # A whole completion and a question have room in the least that is named.
        least = 16384 if max_tokens is None else max_tokens + PROMPT_ROOM // 4
        return (
            f"see what it said above; where memory is short: --vllm.max-model-len {least}, "
            "--vllm.gpu-memory-utilization 0.95, or --vllm.tensor-parallel 2 on two GPUs"
        )
    given = " ".join(settings.list_named(said))
    return f"see what it said above; give {given} otherwise, or leave it out" if given else "see what it said above"


def _engine_args(settings: VllmSettings, source: ModelSource, *, max_tokens: int | None) -> dict[str, object]:
    import torch

    gpus, shape = torch.cuda.device_count(), VllmShape.of(source.read_config())
    return {
        "model": source.location,
        "revision": source.revision,
        "dtype": Device.current().dtype,
        # After a prompt read in parts vLLM 0.32 rewinds the request's generator, which torch has on GPUs only.
        "enable_chunked_prefill": None if gpus else False,
        "skip_tokenizer_init": True,
        # Otherwise the folder's generation_config.json would add its own top_k and penalties.
        "generation_config": "vllm",
        "disable_log_stats": True,
        # A word for each file of the weights, to whom it says more than its errors.
        "use_tqdm_on_load": os.environ.get("VLLM_LOGGING_LEVEL") not in (None, "ERROR"),
        # Otherwise it would build what turns pictures and sounds into tokens, and that needs the tokenizer.
        **({"language_model_only": True} if shape.multimodal else {}),
        **settings.to_arguments(gpus=gpus, heads=shape.shares, context=source.context_tokens(), max_tokens=max_tokens),
    }


def _set_cpu_cache(size: object) -> None:
    """Tell a CPU build of vLLM 0.19 how large its cache is: in whole GiB, by a variable alone."""
    from vllm.config import CacheConfig

    # Later versions have no such field, and take the argument.
    if isinstance(size, int) and hasattr(CacheConfig, "cpu_kvcache_space_bytes"):
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(-(-size // 2**30)))


def _check_precision(precision: Precision) -> None:
    if precision in ("int8", "nf4"):
        raise UserError(
            "the vllm engine holds weights as the model's folder says",
            value=f"--precision {precision}",
            cure="leave --precision out, and name a folder of AWQ, GPTQ or FP8 weights with --model",
        )
