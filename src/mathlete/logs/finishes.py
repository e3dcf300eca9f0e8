"""Finishes: the words by which tools say why a sample ended."""

import re
from collections.abc import Mapping
from typing import Literal

Finish = Literal["stop", "length", "cancelled", "boxed", "clock"]
"""Why a sample ended, as `Sample.finish` says it."""
_WORDS: dict[Finish, str] = {
    "stop": "stop stopped stop_sequence stop_string stop_str stop_token stop_word stop_words word natural "
    "eos eos_id eos_token eos_token_id eot eot_id end end_id end_turn end_of_turn im_end endoftext end_of_text "
    "end_of_sentence complete completed done finished tool_calls tool_use function_call",
    "length": "length length_capped limit token_limit max_length max_tokens max_new_tokens max_output_tokens "
    "model_length context_length incomplete truncated",
    "cancelled": "abort aborted cancelled canceled clock error failed timeout timed_out content_filter "
    "content_filtered safety recitation refusal repetition",
    "boxed": "boxed",
}
"""Words of vLLM, SGLang, llama.cpp, TGI, TensorRT-LLM, OpenAI, Anthropic, Gemini and Cohere, and tables' own."""
_FINISHES: dict[str, Finish] = {word: finish for finish, words in _WORDS.items() for word in words.split()}
_OF_FINISH = re.compile(r"^(?:(?:finish_?reason|stop_?reason|request_?status|finished|finish|stop_type)_)+")
"""What stands before the word where it is a member of an enumeration, as in FinishReason.STOP."""


def as_finish(value: object) -> Finish | None:
    """Return why a sample ended, in this project's words; None where the word is not known, which then says nothing.

    >>> as_finish("FINISH_REASON_MAX_TOKENS"), as_finish("<|eot_id|>"), as_finish("content_filter"), as_finish("soon")
    ('length', 'stop', 'cancelled', None)
    """
    # SGLang gives an object with its type.
    value = value.get("type") if isinstance(value, Mapping) else value
    words = re.sub(r"[^a-z0-9]+", "_", value.lower()).strip("_") if isinstance(value, str) else ""
    return _FINISHES.get(words) or _FINISHES.get(_OF_FINISH.sub("", words))
