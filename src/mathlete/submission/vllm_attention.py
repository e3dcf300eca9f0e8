"""Whether vLLM has attention kernels for a model on a GPU: what each backend takes, as data/vllm.json has it.

The rules are those of `validate_configuration` in vLLM 0.19.1 (v1/attention/backend.py), without the types of numbers,
which all backends take that a GPU computes in.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from mathlete.errors import UserError, nearest
from mathlete.kaggle_image import VllmBackend, vllm_facts
from mathlete.models import Device, Shape
from mathlete.sampling.served import VllmSettings, VllmShape

_FP8 = 8.9
"""Compute capability from which a cache of 8-bit floating-point numbers has kernels: Ada, Hopper, Blackwell."""
_MLA = (
    *("AXK1", "deepseek_v2", "deepseek_v3", "deepseek_v32", "deepseek_mtp", "glm_moe_dsa", "glm4_moe_lite"),
    *("glm4_moe_lite_mtp", "kimi_k2", "kimi_linear", "longcat_flash", "pangu_ultra_moe", "pangu_ultra_moe_mtp"),
    "bailing_hybrid",
)
"""Kinds of model that keep keys and values of low rank, where they name it (`is_deepseek_mla`)."""
_SINKS = ("gpt_oss", "mimo_v2_flash")
"""Kinds of model whose heads have a sink of attention."""
_PREFIX = ("bagel", "gemma3", "molmo2", "paligemma")
"""Kinds of model that attend to a whole image at once (`is_mm_prefix_lm`)."""
_SCALED = ("fp8", "compressed-tensors")
"""Ways to store weights whose files may hold scales of keys and values (model_executor/layers/attention)."""
_CHOSEN = ("FLASH_ATTN", "FLASHINFER", "TRITON_ATTN", "FLEX_ATTENTION")
"""Of which vLLM itself takes one that fits (platforms/cuda.py); of keys and values of low rank any."""


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What a backend must take."""

    capability: float
    head: int | None
    """Numbers of a head, of keys and values of low rank those of both parts; None: not known."""
    nope: int | None
    """Numbers of a head without positions, of keys and values of low rank."""
    mla: bool
    sparse: bool
    sinks: bool
    prefix: bool
    kv: str
    per_head: bool
    """Whether the cache has scales of each head."""
    block: int | None
    """Tokens of a block of the cache, where they are said."""

    @classmethod
    def of(cls, vllm: VllmSettings, *, gpu: Device, model: Mapping[str, object]) -> Self:
        inner = model.get("text_config")
        text = inner if isinstance(inner, Mapping) else model
        kind = text.get("model_type")
        rank, rope, nope = (text.get(name) for name in ("kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim"))
        mla = kind in _MLA and isinstance(rank, int)
        whole = rank + rope if isinstance(rank, int) and isinstance(rope, int) else None
        block = vllm.read_extra().get("block_size")
        return cls(
            capability=gpu.capability or 0,
            head=whole if mla else VllmShape.of(model).width or None,
            nope=nope if isinstance(nope, int) else None,
            mla=mla,
            sparse=mla and "index_topk" in text,
            sinks=kind in _SINKS,
            prefix=model.get("model_type") in _PREFIX or model.get("is_mm_prefix_lm") is True,
            kv=choose_cache_type(vllm, model=model),
            per_head=_read_cache_scheme(model).get("strategy") == "attn_head",
            block=block if type(block) is int else None,
        )

    def list_wrong(self, backend: VllmBackend) -> Iterator[str]:
        """Yield why vLLM would not boot with a backend, nearest to the model first."""
        # In vLLM's order of asking it would be its size of heads that is named of a kernel that is for another model.
        if self.mla != backend.mla:
            yield "is for keys and values of low rank" if backend.mla else "has no kernels for those of low rank"
        if self.sparse != backend.sparse:
            yield f"is {'' if backend.sparse else 'not '}for sparse attention"
        if not _is_within(self.capability, backend.capability):
            yield f"has no kernels for compute capability {self.capability:g}"
        if self.head is not None and not backend.takes_head(self.head):
            yield f"takes no heads of {self.head} numbers"
        if self.nope is not None and backend.nope and self.nope not in backend.nope:
            yield f"takes no heads of {self.nope} numbers without positions"
        if self.sinks and not (backend.sinks and _is_within(self.capability, backend.sinks)):
            yield "has no sinks of attention there"
        if self.prefix and not backend.prefix:
            yield "cannot attend to a whole image"
        # A cache that the weights bring scales for is of 8 bits, whatever is said.
        if self.kv not in backend.kv or (self.kv.startswith("fp8") and not _is_within(self.capability, backend.fp8)):
            yield f"takes no cache of {self.kv} there"
        if self.per_head and not backend.per_head:
            yield "has no scales of each head in the cache"
        if self.block is not None and self.block % backend.block:
            yield f"takes no blocks of {self.block}, but of multiples of {backend.block}"


def choose_cache_type(vllm: VllmSettings, *, model: Mapping[str, object]) -> str:
    """Return vLLM's name of the type of the cache: what the weights bring scales for, else as it is said.

    >>> choose_cache_type(VllmSettings(), model={"quantization_config": {"kv_cache_scheme": {"num_bits": 8}}})
    'fp8'
    """
    return "fp8" if _read_cache_scheme(model) else vllm.kv_dtype


def find_wrong_attention(vllm: VllmSettings, *, gpu: Device, model: Mapping[str, object]) -> Iterator[UserError]:
    """Yield why vLLM could not attend with its settings, on a GPU and for a model."""
    facts, asked = vllm_facts(), _Asked.of(vllm, gpu=gpu, model=model)
    if asked.kv.startswith("fp8") and asked.capability < _FP8:
        own = asked.kv == vllm.kv_dtype
        rule = f"{'--vllm.kv-dtype' if own else 'a cache of'} {asked.kv} needs compute capability {_FP8:g} or later"
        cure = "leave it out" if own else "take weights without a kv_cache_scheme, or another machine"
        yield UserError(rule, value=f"{asked.capability:g}", cure=cure)
    stored = Shape.read_quantization(model) or {}
    if asked.kv == "fp8_e5m2" and stored.get("quant_method") in _SCALED:
        rule = "--vllm.kv-dtype fp8_e5m2 is not for weights that may bring scales of the cache"
        yield UserError(rule, value=str(stored["quant_method"]), cure="use --vllm.kv-dtype fp8")
    wrong = {name: next(asked.list_wrong(one), "") for name, one in facts.attention_backends.items()}
    serving, name = [name for name, why in wrong.items() if not why], vllm.attention_backend
    there = f"on compute capability {asked.capability:g}"
    if name == "auto":
        yield from _check_choice(asked, wrong)
    elif name not in serving:
        rule = f"--vllm.attention-backend must be one of vLLM {facts.version}'s that serve the model {there}"
        why = f", which {wrong[name]}" if name in wrong else ""
        cure = nearest(name, serving) if serving else "leave it out, and --vllm.kv-dtype and block_size"
        yield UserError(rule, value=f"{name}{why}", cure=cure)


def _check_choice(asked: _Asked, wrong: Mapping[str, str]) -> Iterator[UserError]:
    """Yield why vLLM's own choice ends in an error; nothing where some backend serves."""
    # Of FLASH_ATTN vLLM asks only whether the cache is of any 8-bit kind, chooses it, and does not know this one.
    if asked.kv == "fp8_e5m2" and asked.capability // 1 == 9 and not asked.mla:
        cure = "use --vllm.kv-dtype fp8, or --vllm.attention-backend TRITON_ATTN"
        yield UserError("FLASH_ATTN, which vLLM chooses there, has no such cache", value=asked.kv, cure=cure)
    names = [name for name, backend in vllm_facts().attention_backends.items() if backend.mla] if asked.mla else _CHOSEN
    if all(wrong[name] for name in names):
        rule = f"vLLM {vllm_facts().version} must have attention kernels for the model there"
        value = "; ".join(f"{name} {wrong[name]}" for name in names)
        yield UserError(rule, value=value, cure="leave --vllm.kv-dtype and --vllm.extra block_size out")


def _is_within(capability: float, span: Sequence[float | None]) -> bool:
    least, most = span
    return (least is None or capability >= least) and (most is None or capability <= most)


def _read_cache_scheme(model: Mapping[str, object]) -> Mapping[str, object]:
    """Return how the files of compressed-tensors say that keys and values are held; {} where they do not."""
    scheme = (Shape.read_quantization(model) or {}).get("kv_cache_scheme")
    return scheme if isinstance(scheme, Mapping) else {}
