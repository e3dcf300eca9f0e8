"""Settings of the vllm engine, and what they are called in vLLM: the same for evaluation, export checks and notebook.

>>> settings = VllmSettings(kv_dtype="fp8", extra={"block_size": "32"})
>>> chosen = settings.to_arguments(gpus=4, heads=28, context=131072, max_tokens=32768)
>>> chosen["tensor_parallel_size"], chosen["max_model_len"], chosen["kv_cache_dtype"], chosen["block_size"]
(4, 40960, 'fp8', 32)
"""

import re
from collections.abc import Container
from dataclasses import dataclass, field, replace

from mathlete.errors import UserError, parse_word, require

KV_DTYPES = ("auto", "fp8", "fp8_e4m3", "fp8_e5m2")
"""Types of keys and values in the cache, by vLLM's names; auto: the model's own. Its kernels declare float16 and
bfloat16 too, and then end the first step (0.19.1, triton_reshape_and_cache_flash; its pull request 38922)."""
PROMPT_ROOM = 8192
"""Tokens of a context beyond the cap on a completion: for the prompt, and what programs print."""
_KV_RULE = f"one of {', '.join(KV_DTYPES)}, of which auto is the model's own"
_CPU_KV_GIB = 2.0
_MOST_GIB = 2**20
"""Beyond any machine."""
_TOLD, _AT_ONCE = 20, 16
"""A sample's tokens are told in so many parts, and no more than so many at once: each part wakes this process once, and
what comes behind a box that has closed is drawn in vain."""
_LEAST_WORD = 3
_ANYWHERE = ("auto", "false", "none", "null", "true")
"""Values that many messages have, whatever they are about."""
_MOST_ROWS = 2**16
"""vLLM makes tables for so many when it boots."""
_NAMED = {
    "tensor_parallel_size": "tensor-parallel",
    "gpu_memory_utilization": "gpu-memory-utilization",
    "kv_cache_memory_bytes": "kv-gib",
    "kv_cache_dtype": "kv-dtype",
    "max_model_len": "max-model-len",
    "max_num_seqs": "at-once",
    "enable_prefix_caching": "prefix-caching",
    "enforce_eager": "eager",
    "attention_backend": "attention-backend",
    "attention_config": "attention-backend",
}
"""Arguments of vLLM that have a flag of their own: {argument: flag}."""
_SAID = {
    "tensor_parallel": ("world_size",),
    "pipeline_parallel_size": ("world_size",),
    "speculative_config": ("speculative", "speculators", "num_speculative_tokens", "draft_model"),
}
"""{setting: what vLLM calls it in messages, beside its name}."""
_SET_HERE = (
    *("model", "revision", "tokenizer", "dtype", "skip_tokenizer_init", "generation_config", "disable_log_stats"),
    *("language_model_only", "logprobs_mode"),
)
"""Arguments that the sampler itself relies on. A sample's log-probabilities are those of the model, before temperature
and nucleus: votes, and the look at logits that are no numbers, read them as such."""


@dataclass(frozen=True, kw_only=True)
class VllmSettings:
    """The vllm engine. How weights are held (16-bit, AWQ, GPTQ, FP8, …) is read from the model's folder."""

    tensor_parallel: int | None = None
    """GPUs that share the model; default: as many of the machine's as divide its attention heads; bitsandbytes: 1."""
    gpu_memory_utilization: float = 0.9
    """Share of a GPU's memory for weights and KV cache together, (0, 1]."""
    kv_gib: float | None = None
    """Memory of the KV cache, GiB; default: what the share above leaves, on a CPU 2."""
    kv_dtype: str = "auto"
    """Type of keys and values: auto (the model's), fp8, fp8_e4m3 or fp8_e5m2."""
    max_model_len: int | None = None
    """Tokens of prompt and completion together; default: the cap on a completion and 8192, at most the model's own."""
    at_once: int = 256
    """Samples decoded together at most."""
    prefix_caching: bool = True
    """Read a prompt once for all its samples; not of models with linear attention, where vLLM does not by itself."""
    eager: bool = False
    """Without compiling and CUDA graphs: starts minutes sooner, decodes slower."""
    attention_backend: str = "auto"
    """vLLM's name of the attention kernels, such as FLASH_ATTN, FLASHINFER or TRITON_ATTN; auto: its own choice."""
    extra: dict[str, str] = field(default_factory=dict)
    """More arguments of vLLM's engine by name, NAME VALUE each, as its AsyncEngineArgs has them: block_size 32."""
    patience_s: float = 600.0
    """A sample that gets no token for so long is drawn again, twice at most; then the run stops."""

    def list_changed(self) -> list[str]:
        """Return the names of the settings that are not the defaults.

        >>> VllmSettings(eager=True, kv_gib=4.0).list_changed()
        ['kv_gib', 'eager']
        """
        usual = vars(VllmSettings())
        return [name for name, value in vars(self).items() if value != usual[name]]

    def list_flags(self, among: Container[str] | None = None) -> list[str]:
        """Return the flags of the settings that are not the defaults, of those that are named or of all.

        >>> VllmSettings(kv_gib=4.0, extra={"block_size": "32"}).list_flags()
        ['--vllm.kv-gib', '--vllm.extra']
        """
        names = (name for name in self.list_changed() if among is None or name in among)
        return [f"--vllm.{name.replace('_', '-')}" for name in names]

    def list_without(self) -> "list[tuple[str, VllmSettings]]":
        """Return (flag, the settings without it) of each that is not the default, and of each word of `extra`.

        >>> [flag for flag, _ in VllmSettings(kv_gib=4.0, extra={"block_size": "32"}).list_without()]
        ['--vllm.kv-gib', '--vllm.extra block_size']
        """
        usual = vars(VllmSettings())
        own = (
            (name, flag) for name, flag in zip(self.list_changed(), self.list_flags(), strict=True) if name != "extra"
        )
        less = [(flag, replace(self, **{name: usual[name]})) for name, flag in own]
        for name in self.extra:
            others = {other: value for other, value in self.extra.items() if other != name}
            less.append((f"--vllm.extra {name}", replace(self, extra=others)))
        return less

    def list_named(self, said: str) -> list[str]:
        """Return the flags that a message of vLLM's is about: of what was set, and is in it by name or by word.

        >>> settings = VllmSettings(eager=True, attention_backend="FLASHMLA", extra={"block_size": "24"})
        >>> settings.list_named("FLASHMLA takes no block size of 24")
        ['--vllm.attention-backend', '--vllm.extra block_size']
        """
        told = _fold(said)
        extra = [(f"--vllm.extra {name}", name, _list_words(value)) for name, value in self.read_extra().items()]
        own = [
            (flag, name, (*(word for word, own in _NAMED.items() if flag == f"--vllm.{own}"), vars(self)[name]))
            for name, flag in zip(self.list_changed(), self.list_flags(), strict=True)
            if name != "extra"
        ]
        return [
            flag
            for flag, name, words in (*own, *extra)
            if any(_is_in(word, told) for word in (name, *_SAID.get(name, ()), *words))
        ]

    def read_extra(self) -> dict[str, object]:
        """Return the values that the words of `extra` stand for: JSON where they are any, else text.

        Raises:
            UserError: one is spelled as another language spells it.

        >>> words = {"block_size": "32", "enable_expert_parallel": "true", "moe_backend": "triton"}
        >>> VllmSettings(extra=words).read_extra()
        {'block_size': 32, 'enable_expert_parallel': True, 'moe_backend': 'triton'}
        """
        return {name: parse_word(word, name=f"--vllm.extra {name}") for name, word in self.extra.items()}

    def check(self) -> None:
        """Raise UserError where a value is out of its range."""
        share, context = self.gpu_memory_utilization, self.max_model_len
        require(
            (
                "tensor-parallel",
                self.tensor_parallel,
                self.tensor_parallel is None or self.tensor_parallel >= 1,
                "at least 1",
            ),
            ("gpu-memory-utilization", share, 0 < share <= 1, "above 0, at most 1"),
            (
                "kv-gib",
                self.kv_gib,
                self.kv_gib is None or 0 < self.kv_gib <= _MOST_GIB,
                f"above 0, at most {_MOST_GIB}",
            ),
            ("kv-dtype", self.kv_dtype, self.kv_dtype in KV_DTYPES, _KV_RULE),
            ("max-model-len", context, context is None or context >= 2, "at least 2"),
            ("at-once", self.at_once, 1 <= self.at_once <= _MOST_ROWS, f"1 to {_MOST_ROWS}"),
            ("attention-backend", self.attention_backend, self.attention_backend.isidentifier(), "a name"),
            ("patience-s", self.patience_s, self.patience_s > 0, "above 0"),
            prefix="--vllm.",
            cure="leave it out",
        )
        for name in self.read_extra():
            if name in (*_NAMED, *_SET_HERE):
                flag = f"use --vllm.{_NAMED[name]}" if name in _NAMED else "leave it out: this project relies on it"
                raise UserError("--vllm.extra must not name what is set otherwise", value=name, cure=flag)

    def choose_parallel(self, *, gpus: int, heads: int | None) -> int:
        """Return how many GPUs share the model: as said, or the most that divide its attention heads.

        Args:
            gpus: the machine's; 0 is a CPU.
            heads: as `VllmShape.shares`; None: any number divides them.

        >>> VllmSettings().choose_parallel(gpus=4, heads=14), VllmSettings().choose_parallel(gpus=0, heads=14)
        (2, 1)
        """
        if self.tensor_parallel is not None:
            return self.tensor_parallel
        return next((count for count in range(gpus, 1, -1) if heads is None or heads % count == 0), 1)

    def choose_context(self, *, context: int, max_tokens: int | None) -> int | None:
        """Return the tokens of prompt and completion together; None: the model's own.

        Args:
            context: what the model attends to.
            max_tokens: the cap on a completion; None: not known.
        """
        if self.max_model_len is not None or max_tokens is None:
            return self.max_model_len
        return min(context, max_tokens + PROMPT_ROOM)

    def count_stages(self) -> int:
        """Return into how many parts, one after the other, the layers are cut; 1 where that is not said rightly."""
        return self._read_count("pipeline_parallel_size")

    def count_replicas(self) -> int:
        """Return how many times the whole model is loaded, side by side; 1 where that is not said rightly."""
        return self._read_count("data_parallel_size")

    def read_block(self) -> int:
        """Return the tokens of a block of the cache as they are said; 1 where that is not said rightly."""
        return self._read_count("block_size")

    def _read_count(self, name: str) -> int:
        count = self.read_extra().get(name, 1)
        return count if isinstance(count, int) and count >= 1 else 1

    def read_offloaded(self) -> float:
        """Return the bytes of weights that each GPU leaves in main memory; 0 where that is not said rightly."""
        size = self.read_extra().get("cpu_offload_gb", 0)
        return max(0.0, float(size)) * 2**30 if isinstance(size, int | float) else 0.0

    def to_arguments(self, *, gpus: int, heads: int | None, context: int, max_tokens: int | None) -> dict[str, object]:
        """Return the arguments of vLLM's AsyncEngineArgs that these settings are; the parameters as above."""
        kv_gib = self.kv_gib or (None if gpus else _CPU_KV_GIB)
        kernels = {} if self.attention_backend == "auto" else {"attention_config": {"backend": self.attention_backend}}
        return {
            "max_model_len": self.choose_context(context=context, max_tokens=max_tokens),
            "max_num_seqs": self.at_once,
            "tensor_parallel_size": self.choose_parallel(gpus=gpus, heads=heads),
            "gpu_memory_utilization": self.gpu_memory_utilization,
            "kv_cache_memory_bytes": None if kv_gib is None else int(kv_gib * 2**30),
            "kv_cache_dtype": self.kv_dtype,
            "enforce_eager": self.eager,
            # None: as vLLM does for the kind of model. Of linear attention it keeps no prefixes, unless it is asked to:
            # then prompts must be read in parts.
            "enable_prefix_caching": None if self.prefix_caching else False,
            "stream_interval": _AT_ONCE if max_tokens is None else max(1, min(_AT_ONCE, max_tokens // _TOLD)),
            **kernels,
            **self.read_extra(),
        }


def _fold(text: str) -> str:
    return re.sub(r"[\s-]", "_", text.lower())


def _list_words(value: object) -> list[object]:
    """Return a value's words by which a message may be about it: of JSON those in it, and keys of several words."""
    if isinstance(value, dict):
        return [*(key for key in value if "_" in key), *(word for one in value.values() for word in _list_words(one))]
    return [word for one in value for word in _list_words(one)] if isinstance(value, list) else [value]


def _is_in(word: object, told: str) -> bool:
    """Return whether a message has a whole word; numbers, shorter words and some more are in too many."""
    if not isinstance(word, str) or len(word) < _LEAST_WORD or word.lower() in _ANYWHERE:
        return False
    return re.search(rf"(?<![a-z0-9]){re.escape(_fold(word))}(?![a-z0-9])", told) is not None
