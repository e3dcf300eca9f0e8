"""The base that an adapter is served with: its layers by name and shape, from its config alone."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from mathlete.adapters.foreign import read_shapes
from mathlete.models import ModelSource

_EXPERT = re.compile(r"(.+\.experts)\.(\d+)\.(\w+)")
"""A layer of one expert, where its model may hold those of all experts in one tensor."""
_HALVES = {"gate_proj": "gate_up_proj", "up_proj": "gate_up_proj"}
"""Layers of an expert that a model may hold one upon the other."""


@dataclass(frozen=True, kw_only=True)
class ServedBase:
    """What vLLM would load an adapter beside."""

    architecture: str
    """As its config.json names it."""
    shapes: Mapping[str, tuple[int, ...]]
    """{name: shape} of its weights."""
    tied: bool = False
    """Whether its output layer is its embedding."""

    @classmethod
    def of(cls, source: ModelSource) -> Self:
        """Read a model's config; its weights need not be here."""
        config = source.load_config()
        named = getattr(config, "architectures", None) or [""]
        return cls(architecture=named[0], shapes=read_shapes(source), tied=bool(config.tie_word_embeddings))

    @cached_property
    def linears(self) -> Mapping[str, tuple[int, int]]:
        """{name: (outputs, inputs)} of what is a matrix."""
        ends = ".weight"
        return {
            name.removesuffix(ends): (shape[0], shape[1])
            for name, shape in self.shapes.items()
            if name.endswith(ends) and len(shape) == 2
        }

    def find_layer(self, name: str) -> tuple[int, int] | None:
        """Return (outputs, inputs) of a layer; None where the base has none of that name.

        A model's own code may call its layers otherwise than transformers: `backbone` is `model` for vLLM too, and one
        expert's layer is a part of the tensor that holds all experts.

        >>> base = ServedBase(architecture="X", shapes={"model.layers.0.mlp.experts.up_proj": (8, 64, 32)})
        >>> base.find_layer("backbone.layers.0.mlp.experts.7.up_proj"), base.find_layer("model.layers.0.up_proj")
        ((64, 32), None)
        """
        for called in dict.fromkeys((name, re.sub(r"^backbone\.", "model.", name))):
            if called in self.linears:
                return self.linears[called]
            if (expert := _EXPERT.fullmatch(called)) and (shape := self._find_expert(*expert.groups())):
                return shape
        return None

    def _find_expert(self, experts: str, number: str, part: str) -> tuple[int, int] | None:
        for held, share in ((part, 1), (_HALVES.get(part, ""), 2)):
            shape = self.shapes.get(f"{experts}.{held}", ())
            if len(shape) == 3 and int(number) < shape[0]:
                return shape[1] // share, shape[2]
        return None
