"""Finishes: the words by which tools say why a sample ended."""

import re
from collections.abc import Mapping
from typing import Literal

Finish = Literal["stop", "length", "cancelled", "boxed", "clock"]
"""Why a sample ended, as `Sample.finish` says it."""
_WORDS: dict[Finish, str] = {
    "stop": "stop stopped stop_sequence stop_string stop_str stop_token stop_word stop_words word natural "
    "eos eos_id eos_token eos_token_id eot eot_id end end_id end_turn end_of_turn im_end endoftext end_of_text "
    "end_of_sentence complete completed done finish finished tool_calls tool_use function_call s return",
    "length": "incomplete",
    "cancelled": "abort aborted cancelled canceled clock error failed timeout timed_out content_filter "
    "content_filtered safety recitation refusal repetition user_cancel error_toxic "
    "guardrail_intervened pause_turn time_limit max_time rate_limit",
    "boxed": "boxed",
}
"""Words of vLLM, SGLang, llama.cpp, TGI, TensorRT-LLM, OpenAI, Anthropic, Bedrock, Gemini, Cohere and of tables."""
_CUT = {"length", "limit", "context", "max", "maximum", "truncated"}
"""Words by any of which a tool says that a text was cut: each has its own name for it."""
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_FINISHES: dict[str, Finish] = {word: finish for finish, words in _WORDS.items() for word in words.split()}
_OF_FINISH = re.compile(r"^(?:(?:finish_?reason|stop_?reason|request_?status|finished|finish|stop_type)_)+")
"""What stands before the word where it is a member of an enumeration, as in FinishReason.STOP."""


def as_finish(value: object) -> Finish | None:
    """Return why a sample ended, in this project's words; None where the word is not known, which then says nothing.

    >>> as_finish("FINISH_REASON_MAX_TOKENS"), as_finish("<|eot_id|>"), as_finish("content_filter"), as_finish("soon")
    ('length', 'stop', 'cancelled', None)
    >>> as_finish("model_context_window_exceeded"), as_finish("EndTurn"), as_finish("</s>")
    ('length', 'stop', 'stop')
    """
    # SGLang gives an object with its type.
    value = value.get("type") if isinstance(value, Mapping) else value
    text = value if isinstance(value, str) else ""
    spellings = [re.sub(r"[^a-z0-9]+", "_", one.lower()).strip("_") for one in (text, _CAMEL.sub("_", text))]
    names = [name for words in spellings for name in (words, _OF_FINISH.sub("", words))]
    told = next((_FINISHES[name] for name in names if name in _FINISHES), None)
    return told or ("length" if _CUT & {*spellings[-1].split("_")} else None)
