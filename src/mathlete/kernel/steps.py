"""The steps of the ladder of engines: what each changes in the settings of the one that was left, and for which causes.

A step builds on the one before it, so that what mended one cause stays where the next is met; one that would change
nothing of what the cause is about, or leave the weights no room, costs a boot in vain, and is passed over.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial

from mathlete.kernel.causes import match_causes
from mathlete.kernel.config import KernelConfig
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
_MEMORY = ("gpu_memory_utilization", "kv_gib", "max_model_len")
_ABOUT = (
    (_MEMORIES, _MEMORY),
    (_JOINS, ("tensor_parallel", "extra")),
    (_COMPILING, ("eager", "attention_backend", "extra")),
    (
        match_causes("a kernel that this GPU lacks", "a format of weights without a kernel"),
        ("attention_backend", "eager", "kv_dtype", "extra"),
    ),
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
    fits: Callable[[VllmSettings], bool] = lambda vllm: True
    """Whether the weights may fit into the machine's GPUs by settings that a change makes."""
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
        vllm = self.change(left.vllm, cause)
        about = next((names for said, names in self.about if re.search(said, cause)), _ALL)
        if not self.fits(vllm):
            vllm = replace(vllm, extra={**_keep_format(left.vllm, cause), **vllm.extra})
        differs = any(getattr(vllm, name) != getattr(left.vllm, name) for name in about)
        return replace(self, vllm=vllm) if differs and self.fits(vllm) else None

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
    shared = config.vllm.choose_parallel(gpus=gpus, heads=shape.shares)
    safer = partial(_make_safer, gpus=gpus, shape=shape)
    shorter = partial(_make_shorter, config=config, longest=shape.longest)
    # A CPU build has one choice of most settings, and rehearses what a GPU's does.
    step = partial(EngineStep, engine="vllm", about=_ABOUT if gpus else ())
    if memory:
        fits = partial(_may_hold, gpus=gpus, shape=shape, model=model, weights=weights, memory=memory)
        step = partial(step, fits=fits)
    return [
        step(name="vllm", vllm=config.vllm),
        step(name="vllm with safer settings", change=safer),
        *([step(name="vllm on one GPU", mends=_JOINING, change=_stay_alone)] if gpus > 1 and shared > 1 else ()),
        step(name="vllm with half the context", mends=_MEMORIES, change=shorter),
        embedded if config.embedded else step(name="vllm again", vllm=config.vllm, repeats=True),
    ]


def _may_hold(
    vllm: VllmSettings, *, gpus: int, shape: VllmShape, model: Mapping[str, object], weights: int, memory: int
) -> bool:
    """Return whether each GPU's share of its memory is as much as its part of the weights."""
    shared = vllm.choose_parallel(gpus=gpus, heads=shape.shares) * vllm.count_stages()
    # A cache whose size is said is beside the share, as in `_change_memory`.
    share = vllm.gpu_memory_utilization if vllm.kv_gib is None else 1.0
    held = VllmShape.count_held(weights, model=model, vllm=vllm)
    return held / shared - vllm.read_offloaded() <= share * memory


def _make_safer(vllm: VllmSettings, cause: str, *, gpus: int, shape: VllmShape) -> VllmSettings:
    asked, crowded = vllm.tensor_parallel, re.search(_CACHE, cause)
    gone = re.search(_FEWER, cause) or (asked is not None and 0 < gpus < asked)
    joined = vllm.choose_parallel(gpus=gpus, heads=shape.shares) > 1 and not gone and re.search(_JOINING, cause)
    return replace(
        _change_memory(vllm, cause, most=_SAFE_MEMORY),
        eager=True,
        # Of a machine that lost some of its GPUs those that are left.
        tensor_parallel=None if gone else asked,
        at_once=min(_SAFE_ROWS, vllm.at_once),
        # Keys and values of twice the bytes would need twice the cache; the kernels are not what failed.
        kv_dtype=vllm.kv_dtype if crowded else "auto",
        attention_backend=vllm.attention_backend if crowded else _choose_kernels(vllm, cause, gpus=gpus, shape=shape),
        extra={**_NO_CUSTOM_REDUCE} if joined else {},
    )


def _keep_format(vllm: VllmSettings, cause: str) -> dict[str, str]:
    """Return how vLLM makes dense weights smaller, without which they may not fit, where its kernels did not fail."""
    word = vllm.extra.get("quantization")
    return {} if word is None or re.search(_NO_KERNEL, cause) else {"quantization": word}


def _choose_kernels(vllm: VllmSettings, cause: str, *, gpus: int, shape: VllmShape) -> str:
    """Return vLLM's name of attention kernels that serve the model, and are not those that were asked for."""
    asked, triton = vllm.attention_backend, _TRITON.get(shape.attention, "auto")
    if not gpus or asked == triton or 0 < shape.width < _NARROWEST:
        # A CPU build has its own.
        return "auto"
    # Triton compiles too, when it is first asked.
    return asked if re.search(_COMPILING, cause) else triton


def _stay_alone(vllm: VllmSettings, cause: str) -> VllmSettings:
    return replace(vllm, tensor_parallel=1, extra={})


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
