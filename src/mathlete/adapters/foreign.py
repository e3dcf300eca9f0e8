"""An adapter that was made elsewhere, by peft or Unsloth: what it was trained on, and whether it fits a base.

What can be known without loading the base is checked before a run takes it: the base's name and shapes, rank, layers,
whole modules that come with it, and the numbers themselves.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mathlete.errors import UserError
from mathlete.files import choose_cure, is_folder
from mathlete.models import ModelSource
from mathlete.runs import read_json, sha256_tree

if TYPE_CHECKING:
    from torch import Tensor

ADAPTER_CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""peft's own names for them."""
AdapterBase = Literal["4bit", "16bit"]
"""How the base was held while an adapter was trained on it: in NF4 (Unsloth's load_in_4bit) · in 16 bits or more."""
FIRST_WEIGHTS = (True, False, "gaussian", "eva", "orthogonal", None)
"""peft's first weights that leave the base as it is; pissa, olora, corda and loftq change it."""
_4BIT_NAME = re.compile(r"(-unsloth)?(-bnb)?-4bit$")
"""How Unsloth's 4-bit copies of a model are called beside it."""
_TABLES = ("embed_tokens", "lm_head")


@dataclass(frozen=True)
class ForeignAdapter:
    """The folder of such an adapter."""

    path: Path

    @cached_property
    def config(self) -> Mapping[str, object]:
        """Its settings as peft wrote them.

        Raises:
            UserError: it is no adapter's folder, or not one with safetensors.
        """
        for name in (ADAPTER_CONFIG, WEIGHTS):
            if not (self.path / name).is_file():
                cure = "name the folder that peft's or Unsloth's save_pretrained wrote, with safe_serialization"
                raise UserError(f"--adapter must be a folder with {name}", value=str(self.path), cure=cure)
        config: Mapping[str, object] = read_json(self.path / ADAPTER_CONFIG)
        return config

    @property
    def files(self) -> dict[str, Path]:
        """Its files, as a step's inputs."""
        return {name: self.path / name for name in (ADAPTER_CONFIG, WEIGHTS)}

    def describe(self) -> dict[str, object]:
        """Return what is reported of it: the figures of its step."""
        tensors = [tensor for _, tensor in self._read_tensors()]
        flags = {"use_dora": "dora", "use_rslora": "rslora"}
        return {
            "method": next((word for flag, word in flags.items() if self.config.get(flag)), "lora"),
            "made": "elsewhere",
            "rank": self.config.get("r"),
            "alpha": self.config.get("lora_alpha"),
            "whole_modules": self.config.get("modules_to_save") or None,
            "trainable_parameters": sum(tensor.numel() for tensor in tensors),
            "adapter_dtype": ", ".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors})),
        }

    def require_base(self, source: ModelSource) -> None:
        """Check that it is a LoRA of this base and can be merged into it; nothing but the base's config is read.

        Raises:
            UserError: another kind of adapter or base, or numbers that are none.
        """
        self._require_kind()
        self._require_name(source)
        self._require_tensors(read_shapes(source), tied=bool(source.load_config().tie_word_embeddings))

    def find_base(self, source: ModelSource, said: AdapterBase | None) -> AdapterBase:
        """Return how its base was held while it was trained: as was said, or as a name ending in 4bit says.

        Raises:
            UserError: neither says it, or the base has no 16-bit weights.
        """
        if source.is_quantized():
            if said == "16bit":
                cure = "use --model with the original"
                raise UserError("--adapter-base 16bit needs the model's original weights", value="4 bits", cure=cure)
            return "4bit"
        if said is None and not _4BIT_NAME.search(self._base_name.lower()):
            raise UserError(
                "--adapter-base must say how the base was held while the adapter was trained",
                value=f"a base called {self._base_name}, which does not tell",
                cure="use --adapter-base 4bit for QLoRA (load_in_4bit), else --adapter-base 16bit",
            )
        return said or "4bit"

    def _list_ranks(self) -> list[object]:
        """List the ranks of layers that have one of their own."""
        own = self.config.get("rank_pattern")
        return list(own.values()) if isinstance(own, dict) else []

    @property
    def _base_name(self) -> str:
        return str(self.config.get("base_model_name_or_path") or "")

    def _require_kind(self) -> None:
        kind, first = self.config.get("peft_type"), self.config.get("init_lora_weights", True)
        if kind != "LORA":
            cure = "use peft with base and adapter, or train one here"
            raise UserError("an adapter that is taken in must be a LoRA", value=str(kind), cure=cure)
        if first not in FIRST_WEIGHTS:
            raise UserError(
                "an adapter must belong to its base as it is: this one's first weights changed the base",
                value=f"init_lora_weights {first}",
                cure="save it with peft's path_initial_model_for_weight_conversion, which makes a plain LoRA of it",
            )

    def _require_name(self, source: ModelSource) -> None:
        name, commit = self._base_name, str(self.config.get("revision") or "")
        same = is_same_base(name, source)
        if same and re.fullmatch("[0-9a-f]{40}", commit) and source.revision not in (None, commit):
            same, name = _4BIT_NAME.search(name.lower()) is not None, f"{name}@{commit}"
        if not same:
            raise UserError(
                f"an adapter must be merged into the base that it was trained on, here {name or 'one without a name'}",
                value=f"--model {source.name}",
                cure=f"use --model {name or 'BASE'}; where both are the same weights, name the folder as "
                f"base_model_name_or_path in {self.path / ADAPTER_CONFIG}",
            )

    def _require_tensors(self, shapes: Mapping[str, tuple[int, ...]], *, tied: bool) -> None:
        names, ranks = set(), {self.config.get("r"), *self._list_ranks()}
        for name, tensor in self._read_tensors():
            names.add(name)
            if (rank := _read_rank(name, tuple(tensor.shape))) is not None and rank not in ranks:
                raise UserError(f"an adapter must have the rank that {ADAPTER_CONFIG} says", value=rank, cure=_CURE)
            if problem := _find_misfit(name, tuple(tensor.shape), shapes=shapes, tied=tied):
                raise UserError(f"an adapter must fit its base: {problem}", value=name, cure=_CURE)
            # Integers would be those of a quantised adapter, which no merge reads.
            if not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
                value = f"{name}, {tensor.dtype}"
                raise UserError("an adapter must hold finite floating-point numbers", value=value, cure=_CURE)
        if missing := self._find_missing(names):
            value = f"without {', '.join(missing[:3])}"
            raise UserError(f"an adapter must hold all that {ADAPTER_CONFIG} names", value=value, cure=_CURE)

    def _find_missing(self, names: Collection[str]) -> list[str]:
        """List what it should hold beside these tensors: second matrices, and layers of the names it is for."""
        layers = {name.split(".lora_")[0].rpartition(".")[2] for name in names if ".lora_" in name}
        second = sorted(name.replace("lora_A", "lora_B") for name in names if "lora_A" in name)
        targets = self.config.get("target_modules")
        # A pattern, as Unsloth writes for models that see pictures, names no layer by itself.
        named = [str(one) for one in targets] if isinstance(targets, list) else []
        missing = [name for name in second if name not in names]
        return [*missing, *(one for one in named if one.rpartition(".")[2] not in layers)] or (
            [] if layers else ["any"]
        )

    def _read_tensors(self) -> Iterator[tuple[str, "Tensor"]]:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path / WEIGHTS, framework="pt") as file:
                yield from ((name, file.get_tensor(name)) for name in file.keys())  # noqa: SIM118 - no mapping
        except (SafetensorError, OSError) as error:
            cure = choose_cure(self.path / WEIGHTS, otherwise=_CURE)
            raise UserError("an adapter's weights must be whole", value=str(error), cure=cure) from error


_CURE = "take the adapter's folder as its training wrote it, and the --model that it was trained on"


def _read_rank(name: str, shape: tuple[int, ...]) -> int | None:
    """Return the rank of a low-rank matrix; None for any other tensor."""
    if name.endswith(".lora_A.weight"):
        return shape[0]
    return shape[-1] if name.endswith(".lora_B.weight") else None


def _find_misfit(name: str, shape: tuple[int, ...], *, shapes: Mapping[str, tuple[int, ...]], tied: bool) -> str:
    """Say why a tensor does not fit a base of these weights; "" where it does."""
    path = name.removeprefix("base_model.model.").replace(".base_layer.", ".").replace(".modules_to_save.", ".")
    layer, _, part = path.partition(".lora_")
    if tied and any(table in path for table in _TABLES):
        return "the base's output layer is its embedding, which would be changed too"
    if not part:
        expected = shapes.get(path)
        return "" if shape == expected else f"{shape} there, {expected or 'no such weights'} in the base"
    weight = shapes.get(f"{layer}.weight")
    if weight is None or len(weight) != 2 or part.startswith("embedding"):
        return "no linear layer of the base is called so"
    outputs, inputs = weight
    fits = {"A": shape[-1] == inputs, "B": shape[0] == outputs, "magnitude_vector": shape[0] == outputs}
    kind = part.split(".")[0]
    return "" if fits.get(kind, False) else f"{shape} for a layer of {inputs} inputs and {outputs} outputs"


def read_shapes(source: ModelSource) -> dict[str, tuple[int, ...]]:
    """Return {name: shape} of the base's weights, from its config alone."""
    weights = source.build_empty().named_parameters(remove_duplicate=False)
    return {name: tuple(weight.shape) for name, weight in weights}


def is_same_base(name: str, source: ModelSource) -> bool:
    """Return whether what an adapter calls its base, a folder or a hub id, is this model."""
    return _is_same_folder(Path(name), source) if name and is_folder(name) else _is_same_name(name, source)


def _is_same_folder(folder: Path, source: ModelSource) -> bool:
    """Return whether a folder holds the source's very weights."""
    if source.folder is None:
        return False
    if folder.resolve() == source.folder.resolve():
        return True
    ours, theirs = (
        {name: digest for name, digest in sha256_tree(one).items() if name.endswith(".safetensors")}
        for one in (source.folder, folder)
    )
    return bool(ours) and ours == theirs


def _is_same_name(name: str, source: ModelSource) -> bool:
    """Return whether a hub id is the source's, or that of a 4-bit copy of it, or its name that of the source's folder.

    >>> _is_same_name("unsloth/qwen2.5-0.5b-unsloth-bnb-4bit", ModelSource(name="q", location="Qwen/Qwen2.5-0.5B"))
    True
    >>> _is_same_name("someone/Qwen2.5-0.5B", ModelSource(name="q", location="Qwen/Qwen2.5-0.5B"))
    False
    """
    owner, _, word = name.lower().rstrip("/").rpartition("/")
    bare = _4BIT_NAME.sub("", word)
    for ours in (source.name, source.location, *Path(source.location).parts):
        ours_owner, _, ours_word = ours.lower().replace("models--", "").replace("--", "/").rstrip("/").rpartition("/")
        if bare and bare == _4BIT_NAME.sub("", ours_word):
            copies = "unsloth" in (owner, ours_owner)
            return source.folder is not None or owner == ours_owner or copies
    return False
