"""The day that a chat template writes: one and the same, whenever and by whomever it is rendered."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_DAY = datetime(2024, 7, 26, tzinfo=UTC)
"""The day that Llama 3's templates write where there is no clock."""
_PLAIN, _UNPADDED = "aAbBcCdDeFfgGhHIjklmMnpPrRStTuUVwWxXyYzZ", "deHIjklmMSUVWy"
"""Directives of strftime, and those that a hyphen has without their zero."""
_CODES = {code: f"{_DAY:%{code}}" for code in (*_PLAIN, *(f"-{code}" for code in _UNPADDED))} | {":": "%"}
_CALENDAR = (
    f"{{% macro strftime_now(format) %}}{{% set day = {_CODES} %}}"
    "{% for part in format.replace('%%', '%:').split('%') %}{% if loop.first %}{{ part }}"
    "{% elif part[:2] in day %}{{ day[part[:2]] ~ part[2:] }}{% elif part[:1] in day %}{{ day[part[:1]] ~ part[1:] }}"
    "{% else %}{{ '%' ~ part }}{% endif %}{% endfor %}{% endmacro %}\n"
)
"""What hides the clock that transformers gives a template. The line break goes with the block before it."""


def fix_date(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Have templates that ask for the day's date, as Llama 3.2's, be told one day; return a note about it, or "".

    The prompt of another day is another prompt: it would not be the one that was trained. The template is saved so with
    every export, and whoever renders that is told the same day. `strftime_now` is all that a template has of a clock:
    a macro of that name stands before it, so that the way in which it is called, or its format made, does not matter.
    """
    templates: object = tokenizer.chat_template
    named: dict[str, str] = templates if isinstance(templates, dict) else {"default": str(templates)}
    told = {name: _CALENDAR + text for name, text in named.items() if _has_clock(text)}
    if not told:
        return ""
    tokenizer.chat_template = {**named, **told} if isinstance(templates, dict) else told["default"]
    return f"date: {_DAY:%d %B %Y} on every day, here and in every export, where the chat template asks for the day's"


def _has_clock(template: str) -> bool:
    return "strftime_now" in template and not template.startswith(_CALENDAR)
