"""Which models the decode loop computes as transformers does."""

from typing import TYPE_CHECKING

from mathlete.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

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
        raise _explain(f"{', '.join(sorted(others))} in {own.model_type}", other=other)


def check_decodes(model: "PreTrainedModel") -> None:
    """Decode two tokens with a loaded model, as the decode loop does; some kinds keep no keys and values as it does.

    Raises:
        UserError: the installed transformers computes this kind of model in another way.
    """
    import torch

    from mathlete.sampling.embedded.kv import ATTENTION, PromptKV, RowKV, register_attention

    ids, prompt, rows = (
        torch.zeros((1, 1), dtype=torch.long, device=model.device),
        PromptKV(),
        RowKV(device=model.device),
    )
    try:
        register_attention()
        model.set_attn_implementation(ATTENTION)
        with torch.inference_mode():
            model(input_ids=ids, position_ids=ids, past_key_values=prompt, use_cache=True, logits_to_keep=1)
            rows.add([(prompt.row(0, 1), 1)])
            rows.open_column()
            model(input_ids=ids, position_ids=ids + 1, past_key_values=rows, use_cache=True, logits_to_keep=1)
    except (AttributeError, LookupError, NotImplementedError, TypeError, ValueError) as error:
        # What a model does with a cache that it does not know.
        raise _explain(
            f"{model.config.get_text_config().model_type}, computed another way ({error})", other=None
        ) from error


def _explain(value: str, *, other: str | None) -> UserError:
    other = "or train --until tune and serve with --engine vllm" if other is None else other
    return UserError(
        "the transformers engine covers models with full attention, or with a sliding window",
        value=value,
        cure=f"use a Qwen, Llama, Gemma, Phi or Mistral model of text alone{other and f'; {other}'}",
    )
