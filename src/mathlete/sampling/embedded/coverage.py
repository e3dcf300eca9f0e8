"""Which models the decode loop computes as transformers does."""

from typing import TYPE_CHECKING

from mathlete.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_COVERED = {"full_attention", "sliding_attention"}
_OTHERWISE = {"gpt_oss": "attention with sinks", "phimoe": "attention that this loop computes wrongly"}
"""{kind of model: what its config does not tell}. `tests/embedded_kinds.py` holds each kind against transformers."""


def check_covered(config: "PreTrainedConfig", *, other: str | None = None) -> None:
    """Refuse a model whose attention is another than full or with a sliding window.

    Args:
        config: the model's.
        other: a cure beside another model, as the caller knows it, such as another engine; empty: there is none.

    Raises:
        UserError: attention of another kind.
    """
    own = config.get_text_config()
    others = {*(getattr(own, "layer_types", None) or ())} - _COVERED
    if own.model_type in _OTHERWISE:
        others.add(_OTHERWISE[own.model_type])
    if others:
        other = "or train --until tune and serve with --engine vllm" if other is None else other
        raise UserError(
            "the transformers engine covers models with full attention, or with a sliding window",
            value=f"{', '.join(sorted(others))} in {own.model_type}",
            cure=f"use a Qwen, Llama, Gemma, Phi or Mistral model of text alone{other and f'; {other}'}",
        )
