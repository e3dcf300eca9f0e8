"""The proof that a row is what is served and must be written, and where it is not, the first difference."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from mathlete.prompts import PromptFormat
from mathlete.rows.programs import split_by_writer
from mathlete.rows.row import IGNORED, TokenRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PARITY = "parity: "
"""How the reasons to drop a row begin that is not what is served; the part that differs follows."""


Messages = Sequence[dict[str, str]]
"""A conversation, as a chat template takes it."""


def find_mismatch(row: TokenRow, *, completion: str, prompts: PromptFormat, messages: Messages | None = None) -> str:
    """Return the part in which the row differs from what is served and must be written, or "".

    This is a second, independent way: the prompt is tokenised as a chat server does it, by template and tokenizer in
    one call, and the completion is decoded from its ids. The parts:

    - "prompt": the tokens before the loss are the server's;
    - "completion": what follows reads as trace, `</think>` and boxed answer;
    - "eos": it ends with the tokenizer's eos, which is what the template ends a model's turn with, and only there;
    - "bos": it has bos as often as the template writes it, and never twice for one turn;
    - "labels": all that the model writes has loss, and nothing else.

    Where the prompt is an organiser's, the server is the organiser's vLLM: it makes tokens of the template's text, and
    its tokenizer adds bos as it does to any text, also where the template has written one.

    Args:
        row: the row.
        completion: the text that must have loss.
        prompts: what it is served with.
        messages: the conversation before a chat's reply; None for a problem's row.
    """
    tokenizer: Any = prompts.tokenizer
    start, ids, bos = row["prompt_tokens"], row["input_ids"], tokenizer.bos_token_id
    served = _serve(row, prompts, messages)
    for name, holds in (
        ("prompt", ids[:start] == served),
        ("completion", _decode(tokenizer, ids[start:-1]) == completion),
        ("eos", ids[-1] == _find_turn_end(prompts) == tokenizer.eos_token_id and ids[-1] not in ids[start:-1]),
        ("bos", bos is None or (ids[:-1].count(bos) == served.count(bos) and not _doubles_bos(served, prompts))),
        ("labels", row["labels"] == [IGNORED] * start + ids[start:] or _is_masked_right(row, completion, tokenizer)),
    ):
        if not holds:
            return name
    return ""


def describe_mismatch(
    row: TokenRow, *, completion: str, prompts: PromptFormat, messages: Messages | None = None
) -> str:
    """Describe the first difference of a row for which `find_mismatch` names a part; "" for any other.

    >>> from mathlete.models import find_model, load_prompt_format
    >>> prompts = load_prompt_format(find_model("pocket"))
    >>> ids = [*prompts.prompt_ids("2+2?"), *prompts.completion_ids(trace="4.", answer="5")]
    >>> start = len(prompts.prompt_ids("2+2?"))
    >>> row = TokenRow(statement="2+2?", prompt_tokens=start, input_ids=ids, labels=[IGNORED] * start + ids[start:])
    >>> describe_mismatch(row, completion=prompts.completion(trace="4.", answer="4"), prompts=prompts)
    "character 20 of the completion reads '5}', and must read '4}'"
    """
    tokenizer = prompts.tokenizer
    start, ids = row["prompt_tokens"], row["input_ids"]
    match find_mismatch(row, completion=completion, prompts=prompts, messages=messages):
        case "prompt":
            return _describe_tokens(ids[:start], _serve(row, prompts, messages), tokenizer)
        case "completion":
            return _describe_text(_decode(tokenizer, ids[start:-1]), completion)
        case "eos":
            return _describe_eos(ids[start:], prompts)
        case "bos":
            return _describe_bos(ids, _serve(row, prompts, messages), prompts)
        case "labels":
            return _describe_labels(row, completion, tokenizer)
    return ""


def _serve(row: TokenRow, prompts: PromptFormat, messages: Messages | None) -> list[int]:
    tokenizer: Any = prompts.tokenizer
    if prompts.organiser is not None and prompts.adds_bos and messages is None:
        return [*tokenizer(prompts.organiser.render(row["statement"], tokenizer=tokenizer))["input_ids"]]
    return [
        *tokenizer.apply_chat_template(
            [*(messages or prompts.messages(row["statement"]))],
            tokenize=True,
            add_generation_prompt=True,
            return_dict=True,
            **prompts.template_args,
        )["input_ids"]
    ]


def _find_turn_end(prompts: PromptFormat) -> int:
    """Return the token that ends a model's turn when served: the template's, else the tokenizer's eos."""
    return prompts.tokenizer.eos_token_id if prompts.turn_end is None else prompts.turn_end


def _doubles_bos(served: Sequence[int], prompts: PromptFormat) -> bool:
    """Return whether a prompt has more than the one bos of its beginning, or of a turn where bos marks turns."""
    bos = prompts.tokenizer.bos_token_id
    if prompts.adds_bos:
        return False
    repeated = any(first == second == bos for first, second in pairwise(served))
    return repeated or (served.count(bos) > 1 and not prompts.bos_marks_turns)


def _is_masked_right(row: TokenRow, completion: str, tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Return whether exactly those tokens of the completion have loss that the model wrote."""
    start, ids, labels = row["prompt_tokens"], row["input_ids"], row["labels"]
    trained = [label for label in labels[start:] if label != IGNORED]
    by_model = "".join(text for text, by_model in split_by_writer(completion) if by_model)
    return (
        labels[:start] == [IGNORED] * start
        and all(label in (IGNORED, token) for label, token in zip(labels, ids, strict=True))
        and labels[-1] == ids[-1]
        and _decode(tokenizer, trained[:-1]) == by_model
    )


def _decode(tokenizer: "PreTrainedTokenizerBase", ids: list[int]) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:  # the same text, faster: transformers looks at every id
        return str(backend.decode(ids, skip_special_tokens=False))
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _find_difference(first: Sequence[object], second: Sequence[object]) -> int:
    """Return the first place where two sequences differ, or where the shorter one ends."""
    places = enumerate(zip(first, second, strict=False))
    return next((place for place, (one, other) in places if one != other), min(len(first), len(second)))


def _name(tokens: Sequence[int], tokenizer: "PreTrainedTokenizerBase") -> str:
    """Name a token by id and text; of no token, say so."""
    return f"{tokens[0]} {tokenizer.decode([tokens[0]])!r}" if tokens else "none"


def _describe_tokens(ids: Sequence[int], served: Sequence[int], tokenizer: "PreTrainedTokenizerBase") -> str:
    at = _find_difference(ids, served)
    here, there = _name(ids[at:], tokenizer), _name(served[at:], tokenizer)
    return f"token {at} of the prompt is {here}, and a server's is {there}"


def _describe_text(text: str, wanted: str) -> str:
    at = _find_difference(text, wanted)
    return f"character {at} of the completion reads {text[at : at + 20]!r}, and must read {wanted[at : at + 20]!r}"


def _describe_eos(completion: Sequence[int], prompts: PromptFormat) -> str:
    tokenizer, wanted = prompts.tokenizer, _find_turn_end(prompts)
    if completion[-1] == wanted == tokenizer.eos_token_id:
        return f"{_name([wanted], tokenizer)}, which ends the turn, is token {completion.index(wanted)} of its inside"
    return f"the row ends with {_name(completion[-1:], tokenizer)}, and a turn ends with {_name([wanted], tokenizer)}"


def _describe_bos(ids: Sequence[int], served: Sequence[int], prompts: PromptFormat) -> str:
    bos = prompts.tokenizer.bos_token_id
    counts = f"{ids[:-1].count(bos)} times in the row, {served.count(bos)} times in the served prompt"
    return f"bos {_name([bos], prompts.tokenizer)} is there {counts}; a template writes it once, or once a turn"


def _describe_labels(row: TokenRow, completion: str, tokenizer: "PreTrainedTokenizerBase") -> str:
    start, ids, labels = row["prompt_tokens"], row["input_ids"], row["labels"]
    for at, (token, label) in enumerate(zip(ids, labels, strict=True)):
        if label not in (IGNORED, token):
            return f"token {at}, {_name([token], tokenizer)}, has the label of another token, {label}"
        if at < start and label != IGNORED:
            return f"token {at}, {_name([token], tokenizer)}, is of the prompt and has loss"
    if labels[-1] == IGNORED:
        return f"token {len(ids) - 1}, {_name(ids[-1:], tokenizer)}, ends the row and has no loss"
    trained = _decode(tokenizer, [label for label in labels[start:-1] if label != IGNORED])
    by_model = "".join(text for text, by_model in split_by_writer(completion) if by_model)
    at = _find_difference(trained, by_model)
    return (
        f"what has loss reads {trained[at : at + 20]!r} at character {at}, and the model writes {by_model[at:][:20]!r}"
    )
