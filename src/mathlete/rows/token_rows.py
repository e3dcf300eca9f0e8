"""Token rows: a traced problem becomes the tokens a model is trained on, or the reason why it does not."""

import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypedDict

from mathlete.overlap import hash_statement
from mathlete.prompts import END_THINK, THINK, PromptFormat
from mathlete.rows.encoding import make_encoder
from mathlete.rows.filters import find_drop_reason, shorten_trace
from mathlete.rows.programs import holds_output, split_by_writer, to_served_form
from mathlete.rows.selection import hash_text
from mathlete.rows.settings import Filters, Rows
from mathlete.traces import TracedProblem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""Label of a token without loss, as in torch's cross_entropy."""


class TokenRow(TypedDict):
    """One training row: the served prompt, and what the model must write after it."""

    problem_id: str
    statement: str
    gold: str
    source: str
    subset: str
    prompt_tokens: int
    tokens: int
    """Of the whole row."""
    trained_tokens: int
    """Tokens with loss."""
    shortened: bool
    """Whether its trace was ended where it first boxes the right answer."""
    problem_key: str
    """Equal for statements that differ only in typesetting."""
    trace_key: str
    """Equal for traces that differ only in white space."""
    input_ids: list[int]
    """Prompt, completion, eos."""
    labels: list[int]
    """IGNORED over the prompt and what a tool wrote, else the token's own id."""


def make_row(traced: TracedProblem, *, prompts: PromptFormat, rows: Rows, filters: Filters) -> TokenRow | str:
    """Return the row, or the reason why the trace is dropped.

    Reasons are those of `find_drop_reason`; "marks", a token of the chat format within the trace; "too short"; "too
    long"; and "parity", see `find_mismatch`.
    """
    if reason := find_drop_reason(traced, filters):
        return reason
    problem = traced.problem
    # Tokenizers normalise text (Qwen's to NFC): written in that form, the ids decode to exactly this text.
    trace, answer = (unicodedata.normalize("NFC", text) for text in (traced.trace.text, traced.trace.answer))
    trace = to_served_form(trace)
    prompt = prompts.prompt_ids(problem.statement)
    completion, labels = _tokenise_completion(prompts, trace=trace, answer=answer)
    if find_chat_tokens(prompts.tokenizer) & {*completion[:-1]}:
        # Such a row would teach the model to stop, or to open another turn, in the middle of its reasoning.
        return "marks"
    if len(completion) < filters.min_tokens:
        return "too short"
    too_long = len(prompt) + len(completion) > rows.max_tokens
    if too_long:
        trace = shorten_trace(trace, gold=problem.gold) if rows.shorten else ""
        completion, labels = _tokenise_completion(prompts, trace=trace, answer=answer)
        if not trace or len(prompt) + len(completion) > rows.max_tokens:
            return "too long"
    row = TokenRow(
        problem_id=problem.id,
        statement=problem.statement,
        gold=problem.gold,
        source=problem.source,
        subset=problem.subset,
        prompt_tokens=len(prompt),
        tokens=len(prompt) + len(completion),
        trained_tokens=len(labels) - labels.count(IGNORED),
        shortened=too_long,
        problem_key=hash_statement(problem.statement),
        trace_key=hash_text(trace),
        input_ids=prompt + completion,
        labels=[IGNORED] * len(prompt) + labels,
    )
    text = prompts.completion(trace=trace, answer=answer)
    return "parity" if find_mismatch(row, completion=text, prompts=prompts) else row


def _tokenise_completion(prompts: PromptFormat, *, trace: str, answer: str) -> tuple[list[int], list[int]]:
    """Return (ids, labels) of the completion; a tool's output has no loss."""
    encode, eos = make_encoder(prompts.tokenizer), int(prompts.tokenizer.eos_token_id)
    text = prompts.completion(trace=trace, answer=answer)
    if not holds_output(trace):
        ids = [*encode(text), eos]
        return ids, ids
    ids, labels = [], []
    # When served, output is tokenised apart and put behind the program: no token may span the border here either.
    for piece, by_model in split_by_writer(text):
        part = encode(piece)
        ids += part
        labels += part if by_model else [IGNORED] * len(part)
    return [*ids, eos], [*labels, eos]


@lru_cache(maxsize=4)
def find_chat_tokens(tokenizer: "PreTrainedTokenizerBase") -> frozenset[int]:
    """Return the ids that shape a chat: special tokens, and all added ones except `<think>` and `</think>`."""
    added = {token: index for token, index in tokenizer.get_added_vocab().items() if token not in (THINK, END_THINK)}
    return frozenset({*added.values(), *tokenizer.all_special_ids})


def find_mismatch(row: TokenRow, *, completion: str, prompts: PromptFormat) -> str:
    """Return where the row differs from what is served and must be written, or "".

    This is a second, independent way: the prompt is tokenised as a chat server does it, by template and tokenizer in
    one call, and the completion is decoded from its ids.
    """
    tokenizer: Any = prompts.tokenizer
    start, ids = row["prompt_tokens"], row["input_ids"]
    served = tokenizer.apply_chat_template(
        prompts.messages(row["statement"]), tokenize=True, add_generation_prompt=True, return_dict=True
    )["input_ids"]
    bos = tokenizer.bos_token_id
    for name, holds in (
        ("prompt", ids[:start] == list(served)),
        ("completion", _decode(tokenizer, ids[start:-1]) == completion),
        ("eos", ids[-1] == tokenizer.eos_token_id and tokenizer.eos_token_id not in ids[start:-1]),
        ("bos", bos in (None, tokenizer.eos_token_id) or ids.count(bos) <= 1),
        ("labels", row["labels"] == [IGNORED] * start + ids[start:] or _is_masked_right(row, completion, tokenizer)),
    ):
        if not holds:
            return name
    return ""


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
