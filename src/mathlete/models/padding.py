"""The token that a model is padded with: one that neither a text nor a conversation has."""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

from mathlete.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PADS, _SPARES = (
    re.compile(r"pad\b|pad_|pad▁", re.I),
    re.compile(r"reserved|unused|extra|placeholder|control|spare|dummy|special_\d", re.I),
)
"""Names of special tokens that are for padding, and of those that are for nothing."""
_ENDS = re.compile(r"end|eo[stu]", re.I)
"""Names of special tokens that end a text or a turn, of this model or of the base that it was made from."""
_TURNS = re.compile(
    r"system|developer|user|human|assistant|model|tool|function|call|observation|ipython"
    r"|role|turn|header|message|channel|inst|im_|start|begin|think|reason",
    re.I,
)
"""Names of special tokens that shape a chat."""
_ROLES = ("user", "system", "developer", "tool", "function", "observation", "ipython")
"""Who else speaks in conversations."""
_USER: dict[str, object] = {"role": "user", "content": "What is 7919 + 6841?"}
_ASSISTANT: dict[str, object] = {"role": "assistant", "content": "14760"}
_CALL = {"name": "add", "arguments": {"a": 7919, "b": 6841}}
_SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
_TOOLS = [{"type": "function", "function": {"name": "add", "description": "Add.", "parameters": _SCHEMA}}]


def list_conversations(tokenizer: "PreTrainedTokenizerBase") -> Iterator[Callable[[], str]]:
    """Yield what renders one conversation each: of every role, with reasoning, calls and tools, begun and ended.

    Each raises whatever the template does where it takes no such conversation.
    """
    thought = _ASSISTANT | {"reasoning_content": "7919+6841=14760.", "thinking": "7919+6841=14760."}
    called = _ASSISTANT | {"tool_calls": [{"id": "call00001", "type": "function", "function": _CALL}]}
    talks: list[Sequence[dict[str, object]]] = [
        [_USER],
        [_USER, _ASSISTANT],
        [_USER, thought, _USER],
        [{"role": "system", "content": "Be exact."}, _USER, thought],
        *([_USER, called, _say(role), _ASSISTANT] for role in _ROLES),
    ]
    render = cast("Callable[..., str]", tokenizer.apply_chat_template)
    variants: list[dict[str, object]] = [{}, {"tools": _TOOLS}, {"enable_thinking": False}]
    for options in variants:
        for ended in (False, True):
            yield from (
                partial(render, talk, tokenize=False, add_generation_prompt=not ended, **options) for talk in talks
            )


def render_parts(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Return the question as a template writes it that takes a message's content as a list of parts.

    It raises whatever the template does where it takes none.
    """
    render = cast("Callable[..., str]", tokenizer.apply_chat_template)
    parts = [{"type": "text", "text": _USER["content"]}]
    return render([{"role": "user", "content": parts}], tokenize=False, add_generation_prompt=True)


def _say(role: str) -> dict[str, object]:
    return {"role": role, "content": "14760", "name": "add", "tool_call_id": "call00001"}


def read_template(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Return all that a chat template names, and all that it writes: a mark may be made of a turn's role."""
    return "\0".join([str(tokenizer.chat_template), *map(_try, list_conversations(tokenizer))])


def _try(render: Callable[[], str]) -> str:
    try:
        return render()
    except Exception:
        # The border to a stranger's program: a conversation that it does not take is none that a model is given.
        return ""


def set_padding(tokenizer: "PreTrainedTokenizerBase", *, size: int | None, where: str) -> str:
    """See to a padding token that is not eos and has an embedding; return a note where one was chosen.

    Raises:
        UserError: the vocabulary has no token to spare.
    """
    note, own = "", tokenizer.pad_token
    beyond = size is not None and tokenizer.pad_token_id is not None and tokenizer.pad_token_id >= size
    # Padding with eos would mask the label that teaches the model to stop.
    if beyond or tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        spare = _find_spare_token(tokenizer, size=size)
        if spare is None:
            raise UserError(
                "a tokenizer must have a padding token that is not its eos token",
                value=f"{own!r} in {where}, and no special token that the chat template does not use",
                cure='name an unused token as "pad_token" in its tokenizer_config.json',
            )
        tokenizer.pad_token = spare
        why = "has no embedding" if beyond else "is eos"
        note = f"padding: {spare}, a special token that no text has; " + (
            "the tokenizer names none" if own is None else f"the tokenizer's own, {own}, {why}"
        )
    tokenizer.padding_side = "left"
    return note


def _find_spare_token(tokenizer: "PreTrainedTokenizerBase", *, size: int | None) -> str | None:
    """Return a special token that no text has: one for padding, a reserved one, another unused one, or unk."""
    used = read_template(tokenizer)
    added = sorted(tokenizer.added_tokens_decoder.items())
    special = [str(token) for index, token in added if token.special and (size is None or index < size)]
    taken = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token)
    unused = [token for token in special if token not in taken and token not in used]
    unk = [tokenizer.unk_token] if tokenizer.unk_token in special else []
    # The last ones first: what a base was trained with comes first in a vocabulary.
    others = [token for token in reversed(unused) if not _ENDS.search(token)]
    ranks = (
        (token for token in unused if _PADS.search(token)),
        (token for token in unused if _SPARES.search(token)),
        (token for token in others if not _TURNS.search(token) and not _is_of_role(token, tokenizer)),
        # Vocabularies of bytes, as SentencePiece's with byte fallback, have it but never need it.
        (token for token in unk if token not in (tokenizer.eos_token, tokenizer.bos_token)),
        (token for token in others if not _is_of_role(token, tokenizer)),
    )
    return next((str(token) for rank in ranks for token in rank), None)


def _is_of_role(token: str, tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Return whether the template makes the token of a turn's role, whichever that is."""
    render = cast("Callable[..., str]", tokenizer.apply_chat_template)
    said = _say(re.sub(r"^\W+|\W+$", "", token))
    return any(token in _try(partial(render, talk, tokenize=False)) for talk in ([_USER, _ASSISTANT, said], [said]))
