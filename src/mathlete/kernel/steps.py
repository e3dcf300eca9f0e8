"""The steps of the ladder of engines: what each changes in the settings of the one that was left, and for which causes.

A step builds on the one before it, so that what mended one cause stays where the next is met; one that would change
nothing of what the cause is about, or leave the weights no room, costs a boot in vain, and is passed over.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial

from mathlete.kernel.causes import match_causes
from mathlete.kernel.config import KernelConfig
from mathlete.models import Shape
from mathlete.sampling.served import VllmSettings, VllmShape

_SAFE_ROWS = 64
"""Samples decoded together at most with safer settings: each needs memory of its own beside the cache."""
_SAFE_MEMORY, _LEAST_MEMORY = 0.8, 0.6
"""Shares of a GPU's memory with safer settings, and below them: what else is on the GPU, and the kernels' own
workspace, fits beside."""
_LESS = _SAFE_MEMORY / 0.9
"""Part of a share that is below these already: as much less as of vLLM's default."""
_MUCH_MEMORY = 0.95
"""Share where the weights leave too little for the cache."""
_SAFE_PROMPT = 2048
"""Tokens for a prompt beside half a completion: any competition's question fits."""
_SHORTER = 0.75
"""Part of a context that is shorter than that already."""
_NARROWEST = 32
"""Numbers of a head below which Triton's attention does not go (0.19.1, triton_attn.py)."""
_TRITON = {"plain": "TRITON_ATTN", "low rank": "TRITON_MLA"}
"""{kind of attention: its kernels in Triton}: nothing of them was compiled for the GPU beforehand, and they run from
compute capability 7.0 on, as vLLM does. Sparse attention of low rank has none."""
_NO_CUSTOM_REDUCE = {"disable_custom_all_reduce": "true"}
"""NCCL alone joins the GPUs then, without kernels that reach into each other's memory."""
_CACHES = "no memory for the cache", "a context that does not fit into the cache"
_CACHE, _MEMORIES = match_causes(*_CACHES), match_causes("GPU memory", *_CACHES)
_TOO_FEW = "fewer GPUs than it wants"
_JOINED = "NCCL, which joins the GPUs", "shared memory of the machine", _TOO_FEW
_FEWER, _JOINS = match_causes(_TOO_FEW), match_causes(*_JOINED)
_JOINING = match_causes(*_JOINED, "GPUs that do not join", "a worker that died")
_COMPILING = match_causes("compiling")
_NO_KERNEL = match_causes("a kernel that this GPU lacks", "a format of weights without a kernel")
_SPREAD = ("pipeline_parallel_size", "data_parallel_size")
"""Arguments that ask for GPUs, beside those that share each layer."""
_KEPT = {
    "quantization": _NO_KERNEL,
    "cpu_offload_gb": match_causes("main memory"),
    **dict.fromkeys(
        (*_SPREAD, "enable_expert_parallel", "load_format", "mamba_ssm_cache_dtype", *_NO_CUSTOM_REDUCE), r"(?!)"
    ),
}
"""{argument of vLLM's: pattern of causes for which a safer step goes without it}, of those by which the weights fit and
find their kernels, or what comes out is the model's; all others are for speed."""
_BESIDE = 7 * 2**28
"""Bytes of a GPU beside weights and cache: CUDA's context and activations, as `submission.vllm_memory` counts them."""
_CACHE_PART = 0.05
"""Of a GPU's memory for a context of a model that keeps other than all keys and values."""
_MEMORY = ("gpu_memory_utilization", "kv_gib", "max_model_len")
_ABOUT = (
    (_MEMORIES, _MEMORY),
    (_JOINS, ("tensor_parallel", "extra")),
    (_COMPILING, ("eager", "attention_backend", "extra")),
    (_NO_KERNEL, ("attention_backend", "eager", "kv_dtype", "extra")),
)
"""(Pattern of causes by `mathlete.kernel.causes`, settings that they are about)."""
_ALL = tuple(each.name for each in fields(VllmSettings))


@dataclass(frozen=True, kw_only=True)
class EngineStep:
    """One way to draw samples."""

    name: str
    """In the journal."""
    engine: str
    """One of `mathlete.engines.ENGINES`."""
    vllm: VllmSettings = field(default_factory=VllmSettings)
    mends: str = ""
    """Pattern of the causes for which it is taken; empty: any."""
    change: Callable[[VllmSettings, str], VllmSettings] | None = None
    """Makes its settings of those that were left, and of the cause; None: it has its own."""
    about: Sequence[tuple[str, Sequence[str]]] = ()
    """(Pattern of causes, settings that they are about); any other is about all of them."""
    fit: Callable[[VllmSettings, VllmSettings], VllmSettings | None] = lambda vllm, left: vllm
    """Makes of settings that a change made, and of those that were left, ones that the model has room by; None: there
    are none."""
    repeats: bool = False
    """Whether it tries its own settings and those that were left by turns: nothing but them can answer."""
    left: VllmSettings | None = None
    """The latter, of one that was taken."""

    def follow(self, left: "EngineStep", cause: str, *, served: bool = False) -> "EngineStep | None":
        """Return it as the next after one that was left for this cause; None where it mends nothing of it.

        Args:
            left: the step that was left.
            cause: why, in words.
            served: whether samples came of its last process, which is not barren now.
        """
        if self.repeats:
            return self._take_turn(left, cause, served=served)
        if not re.search(self.mends, cause):
            return None
        if self.change is None:
            return self
        vllm = self.fit(self.change(left.vllm, cause), left.vllm)
        about = next((names for said, names in self.about if re.search(said, cause)), _ALL)
        if vllm is None or all(getattr(vllm, name) == getattr(left.vllm, name) for name in about):
            return None
        return replace(self, vllm=vllm)

    def _take_turn(self, left: "EngineStep", cause: str, *, served: bool) -> "EngineStep":
        if served:
            return replace(self, vllm=left.vllm, left=left.left or left.vllm)
        # What made a step necessary may have passed, and one that shrank may never load the model.
        shrank = left.vllm != self.vllm
        kept = left.vllm if shrank else left.left or self.vllm
        if re.search(_CACHE, cause):
            kept = _change_memory(kept, cause, most=_MUCH_MEMORY)
        return replace(self, vllm=self.vllm if shrank else kept, left=kept)


def plan_steps(
    config: KernelConfig, *, gpus: int, model: Mapping[str, object], weights: int = 0, memory: int = 0
) -> list[EngineStep]:
    """Return the steps of a notebook's ladder, first choice first; the last has no condition.

    Args:
        config: how it answers.
        gpus: the machine's.
        model: the model's config.json; empty where it cannot be read.
        weights: the bytes of its weights; 0 where they are not known.
        memory: the bytes of one GPU's memory; 0 where they are not known.

    >>> [step.name for step in plan_steps(KernelConfig(engine="vllm"), gpus=1, model={})]
    ['vllm', 'vllm with safer settings', 'vllm with half the context', 'embedded']
    >>> [step.name for step in plan_steps(KernelConfig(engine="vllm", embedded=False), gpus=1, model={})][-1]
    'vllm again'
    >>> [step.name for step in plan_steps(KernelConfig(), gpus=1, model={})]
    ['embedded']
    """
    embedded = EngineStep(name="embedded", engine="transformers")
    if config.engine != "vllm":
        return [embedded]
    shape = VllmShape.of(model)
    vllm = config.vllm
    shared = vllm.choose_parallel(gpus=gpus, heads=shape.shares) * vllm.count_stages() * vllm.count_replicas()
    safer = partial(_make_safer, gpus=gpus, shape=shape)
    shorter = partial(_make_shorter, config=config, longest=shape.longest)
    # A CPU build has one choice of most settings, and rehearses what a GPU's does.
    step = partial(EngineStep, engine="vllm", about=_ABOUT if gpus else ())
    if memory:
        room = _Room(gpus=gpus, model=model, weights=weights, memory=memory, tokens=config.policy.longest_tokens)
        step = partial(step, fit=room.fit)
    return [
        step(name="vllm", vllm=vllm),
        step(name="vllm with safer settings", change=safer),
        *([step(name="vllm on one GPU", mends=_JOINING, change=_stay_alone)] if gpus > 1 and shared > 1 else ()),
        step(name="vllm with half the context", mends=_MEMORIES, change=shorter),
        embedded if config.embedded else step(name="vllm again", vllm=vllm, repeats=True),
    ]


@dataclass(frozen=True, kw_only=True)
class _Room:
    """A machine's room for a model."""

    gpus: int
    model: Mapping[str, object]
    weights: int
    memory: int
    tokens: int
    """Those of the longest completion."""

    def fit(self, vllm: VllmSettings, left: VllmSettings) -> VllmSettings | None:
        """Return settings that leave a whole context room, where those that were left did; None: the weights have none.

        A context that has no room beside weights which are placed as they were is the engine's to say.
        """
        own, cache = self._count_own(vllm), self._count_cache(vllm)
        # Where each GPU has more of them than before, nothing but this says that there is room.
        beside = _BESIDE + cache if own > self._count_own(left) else 0.0
        if vllm.kv_gib is not None:
            # A cache whose size is said is beside the share, as in `_change_memory`.
            least, share = min(left.kv_gib or vllm.kv_gib, cache / 2**30), 1.0
            vllm = replace(vllm, kv_gib=max(vllm.kv_gib, least))
        else:
            least = min(left.gpu_memory_utilization, (own + _BESIDE + cache) / self.memory)
            share = max(vllm.gpu_memory_utilization, least)
            vllm = replace(vllm, gpu_memory_utilization=share)
        return vllm if own + beside <= share * self.memory else None

    def _count_own(self, vllm: VllmSettings) -> float:
        """Return the bytes of weights on each GPU."""
        held = VllmShape.count_held(self.weights, model=self.model, vllm=vllm)
        return max(0.0, held / self._count_shared(vllm) - vllm.read_offloaded())

    def _count_cache(self, vllm: VllmSettings) -> float:
        """Return the bytes of a context's keys and values on each GPU."""
        shape = VllmShape.of(self.model)
        short, whole = (
            each.choose_context(context=shape.longest or 2**31, max_tokens=self.tokens) or 1
            for each in (vllm, replace(vllm, max_model_len=None))
        )
        scheme = (Shape.read_quantization(self.model) or {}).get("kv_cache_scheme")
        number = 1 if scheme or vllm.kv_dtype.startswith("fp8") else 2
        known = shape.count_context_bytes(short, vllm=vllm, shared=self._count_shared(vllm), number=number)
        return _CACHE_PART * self.memory * min(1.0, short / whole) if known is None else known

    def _count_shared(self, vllm: VllmSettings) -> int:
        shares = VllmShape.of(self.model).shares
        return vllm.choose_parallel(gpus=self.gpus, heads=shares) * vllm.count_stages()


def _make_safer(vllm: VllmSettings, cause: str, *, gpus: int, shape: VllmShape) -> VllmSettings:
    asked, crowded = vllm.tensor_parallel, re.search(_CACHE, cause)
    wanted = (asked or 1) * vllm.count_stages() * vllm.count_replicas()
    gone = re.search(_FEWER, cause) or 0 < gpus < wanted
    joined = vllm.choose_parallel(gpus=gpus, heads=shape.shares) > 1 and not gone and re.search(_JOINING, cause)
    # Replicas of a mixture share its experts.
    less = _SPREAD if gone else () if shape.experts else ("data_parallel_size",)
    return replace(
        _change_memory(vllm, cause, most=_SAFE_MEMORY),
        eager=True,
        # Of a machine that lost some of its GPUs those that are left.
        tensor_parallel=None if gone else asked,
        at_once=min(_SAFE_ROWS, vllm.at_once),
        # Keys and values of twice the bytes would need twice the cache; the kernels are not what failed.
        kv_dtype=vllm.kv_dtype if crowded else "auto",
        attention_backend=vllm.attention_backend if crowded else _choose_kernels(vllm, cause, gpus=gpus, shape=shape),
        extra={**_keep_extra(vllm, cause, less=less), **(_NO_CUSTOM_REDUCE if joined else {})},
    )


def _keep_extra(vllm: VllmSettings, cause: str, *, less: Collection[str]) -> dict[str, str]:
    """Return the arguments that a safer step keeps, but for some."""
    kept = {name: word for name, word in vllm.extra.items() if name in _KEPT and name not in less}
    return {name: word for name, word in kept.items() if not re.search(_KEPT[name], cause)}


def _choose_kernels(vllm: VllmSettings, cause: str, *, gpus: int, shape: VllmShape) -> str:
    """Return vLLM's name of attention kernels that serve the model, and are not those that were asked for."""
    asked, triton = vllm.attention_backend, _TRITON.get(shape.attention, "auto")
    if not gpus or asked == triton or 0 < shape.width < _NARROWEST:
        # A CPU build has its own.
        return "auto"
    # Triton compiles too, when it is first asked.
    return asked if re.search(_COMPILING, cause) else triton


def _stay_alone(vllm: VllmSettings, cause: str) -> VllmSettings:
    extra = _keep_extra(vllm, cause, less=(*_SPREAD, *_NO_CUSTOM_REDUCE))
    return replace(vllm, tensor_parallel=1, extra=extra)


def _make_shorter(vllm: VllmSettings, cause: str, *, config: KernelConfig, longest: int | None) -> VllmSettings:
    half = config.policy.sampling.max_tokens // 2 + _SAFE_PROMPT
    whole = vllm.choose_context(context=longest or 2 * half, max_tokens=config.policy.longest_tokens) or half
    return replace(
        _change_memory(vllm, cause, most=_LEAST_MEMORY),
        eager=True,
        at_once=min(_SAFE_ROWS, vllm.at_once),
        max_model_len=max(2, min(half, int(whole * _SHORTER))),
    )


def _change_memory(vllm: VllmSettings, cause: str, *, most: float) -> VllmSettings:
    """Return settings with less of a GPU's memory; where it is the cache that has too little, with more."""
    share = vllm.gpu_memory_utilization
    if re.search(_CACHE, cause):
        return replace(vllm, gpu_memory_utilization=max(_MUCH_MEMORY, share), kv_gib=None)
    less = min(most, share * _LESS)
    # A cache whose size is said takes that, whatever the share (0.19.1, v1/worker/gpu_worker.py).
    kv_gib = vllm.kv_gib and vllm.kv_gib * less / share
    return replace(vllm, gpu_memory_utilization=less, kv_gib=kv_gib)
