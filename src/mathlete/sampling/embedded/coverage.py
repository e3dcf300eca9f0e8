"""Which models the decode loop computes as transformers does."""

from typing import TYPE_CHECKING

from mathlete.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_COVERED = {"full_attention", "sliding_attention"}
_WITH_SINKS = ("gpt_oss",)
"""Architectures whose attention has sinks, which their configs do not tell."""


def check_covered(config: "PreTrainedConfig") -> None:
    """Refuse a model whose attention is another than full or with a sliding window.

    Raises:
        UserError: attention of another kind.
    """
    own = config.get_text_config()
    others = {*(getattr(own, "layer_types", None) or ())} - _COVERED
    if own.model_type in _WITH_SINKS:
        others.add("attention with sinks")
    if others:
        raise UserError(
            "the transformers engine covers models with full attention, or with a sliding window",
            value=f"{', '.join(sorted(others))} in {own.model_type}",
            cure="use a Qwen, Llama, Gemma, Phi or Mistral model, or train --until tune and serve with --engine vllm",
        )
