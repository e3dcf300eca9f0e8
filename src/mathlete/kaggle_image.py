"""Kaggle's GPU image as the project targets it: its Python, its wheel tags, the packages that it holds."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from mathlete.shipped import data_folder

PYTHON = "3.12"
GLIBC = 35
"""Minor version of the image's glibc 2.x (Ubuntu 22.04)."""

VOCABULARIES = "mathlete_vocabularies"
"""The package, in a wheel of its own, of vocabulary files that a model's library would else download."""
VLLM_LOCK = "vllm.lock"
"""The list of vLLM's wheels with their hashes, beside the wheels wherever they are."""
VLLM_KEPT = re.compile(r"torch(vision|audio)?|triton|nvidia-.*")
"""Packages of the image that vLLM's wheels must never bring in another version: its kernels are built for these."""


def platforms() -> list[str]:
    """Return the platform tags that the image takes, newest first; pip adds no older ones to those it is given."""
    modern = [f"manylinux_2_{minor}_x86_64" for minor in range(GLIBC, 4, -1)]
    return [*modern, "manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64"]


def constraints_file() -> Path:
    """Return the file of the image's packages, in the form of a constraints file."""
    return data_folder() / "kaggle-image.txt"


def image_packages() -> dict[str, str]:
    """Return {canonical name: version} of the image's packages.

    >>> image_packages()["transformers"].split(".")[0]
    '5'
    """
    from packaging.utils import canonicalize_name

    lines = constraints_file().read_text(encoding="utf-8").splitlines()
    pairs = (line.split("#")[0].strip().split("==") for line in lines if "==" in line.split("#")[0])
    return {canonicalize_name(name): version for name, version in pairs}


@dataclass(frozen=True, kw_only=True)
class VllmBackend:
    """What one of its attention kernels takes."""

    capability: Sequence[float | None]
    """Least and most; None: any."""
    heads: Mapping[str, int] | Sequence[int] = ()
    """Numbers of a head: some, or those from `least` to `most` in a `step`; empty: any."""
    kv: Collection[str]
    """Types of the cache."""
    fp8: Sequence[float | None] = (None, None)
    """Compute capability on which it has kernels for a cache of 8 bits."""
    block: int = 1
    """Of what the tokens of a block are a multiple."""
    mla: bool = False
    """Whether it is for keys and values of low rank, and for nothing else."""
    sparse: bool = False
    sinks: Sequence[float | None] = ()
    """Compute capability on which it has sinks of attention; empty: on none."""
    prefix: bool = False
    """Whether all tokens of an image may attend to each other."""
    per_head: bool = False
    """Whether the cache may have scales of each head."""
    nope: Collection[int] = ()
    """Numbers of a head without positions; empty: any."""

    def takes_head(self, size: int) -> bool:
        """Return whether it takes heads of so many numbers.

        >>> [vllm_facts().attention_backends["FLASH_ATTN"].takes_head(size) for size in (32, 36, 256, 512)]
        [True, False, True, False]
        """
        if not isinstance(self.heads, Mapping):
            return not self.heads or size in self.heads
        most = self.heads.get("most", size)
        return self.heads["least"] <= size <= most and size % self.heads.get("step", 1) == 0


@dataclass(frozen=True, kw_only=True)
class VllmFacts:
    """The vLLM that fits the image with its torch untouched."""

    version: str
    arguments: Collection[str]
    """Names of its engine's arguments."""
    values: Mapping[str, str | Sequence[object]]
    """{argument: bool, int or float, or the words that it may be}, of those that vLLM gives such a type."""
    offered: Mapping[str, Sequence[object] | None]
    """{argument that a notebook may name: the words that it may be}; None: as in `values`, or by a rule of its own."""
    refused: Mapping[str, Sequence[str]]
    """{why a notebook may not name them: all other arguments}."""
    bounds: Mapping[str, Sequence[float | None]]
    """{argument: least and most}; None: any."""
    quantizations: Mapping[str, float]
    """{how it can hold weights: compute capability from which it has kernels}."""
    attention_backends: Mapping[str, VllmBackend]
    """{its name of attention kernels: what they take}."""
    no_float16: Collection[str]
    """Kinds of model, by `model_type`, that it refuses in float16, which GPUs before 8.0 need."""
    architectures: Collection[str]
    """Kinds of model that it serves, by the word in their config.json."""
    multimodal: Collection[str]
    """Those of them that also see or hear."""
    not_as_text: Collection[str]
    """Those of these that it does not boot without what they see or hear with."""
    undivided: Collection[str]
    """Those of them all whose layers it does not cut into parts for several GPUs, one after the other."""
    adapted: Collection[str]
    """Those of them that it serves with a LoRA, of their linear layers."""
    adapted_tables: Collection[str]
    """Those whose embedding and output layer may have one too."""
    ignored: Mapping[str, Sequence[str]]
    """{kind: last words of linear layers that it leaves as they are without an error}."""


def vllm_facts() -> VllmFacts:
    """Read what this project knows of the image's vLLM, which need not be installed here.

    >>> vllm_facts().version, "Qwen2ForCausalLM" in vllm_facts().architectures
    ('0.19.1', True)
    """
    value = json.loads((data_folder() / "vllm.json").read_text(encoding="utf-8"))
    value["attention_backends"] = {name: VllmBackend(**one) for name, one in value["attention_backends"].items()}
    return VllmFacts(**{field.name: value[field.name] for field in fields(VllmFacts)})


def embedded_kinds() -> Collection[str]:
    """Return the kinds of model, by `model_type`, that the embedded engine draws from with the image's transformers.

    >>> [kind in embedded_kinds() for kind in ("qwen2", "gemma3", "mistral3")]
    [True, True, False]
    """
    kinds: list[str] = json.loads((data_folder() / "embedded.json").read_text(encoding="utf-8"))["kinds"]
    return kinds


def vllm_lock() -> Path:
    """Return the lock of vLLM's wheels for the image, in the form of a requirements file with hashes."""
    return data_folder() / VLLM_LOCK
