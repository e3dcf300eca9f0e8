"""Rows: a traced problem becomes the tokens a model is trained on, or the reason why it does not."""

import unicodedata
from functools import lru_cache
from typing import Any, TypedDict

from mathlete.corpus.filters import reason_against, shortened
from mathlete.corpus.programs import holds_output, served_form, written_by
from mathlete.corpus.selection import key_of, text_key
from mathlete.corpus.settings import Filters
from mathlete.prompts import END_THINK, THINK, PromptFormat
from mathlete.rows.encoding import encoder_of
from mathlete.rows.settings import Rows
from mathlete.traces import TracedProblem

IGNORED = -100
"""The label of a token without loss, as torch's cross_entropy has it."""


class Row(TypedDict):
    """One training row: what the served prompt is, and what the model must write after it."""

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
    """The same for statements that differ in typesetting only."""
    trace_key: str
    """The same for traces that differ in white space only."""
    input_ids: list[int]
    """Prompt, completion, eos."""
    labels: list[int]
    """IGNORED over the prompt and what a tool wrote, else the token's own id."""


def row_of(traced: TracedProblem, *, prompts: PromptFormat, rows: Rows, filters: Filters) -> Row | str:
    """The row, or the reason why there is none.

    Reasons: those of `reason_against`; marks (a token of the chat format within the trace), too short, too long, and
    parity (see `mismatch`).
    """
    if reason := reason_against(traced, filters):
        return reason
    problem = traced.problem
    # The tokenizer's own normal form (Qwen's is NFC): what is decoded must be what was written.
    trace, answer = (unicodedata.normalize("NFC", text) for text in (traced.trace.text, traced.trace.answer))
    trace = served_form(trace)
    prompt = prompts.prompt_ids(problem.statement)
    completion, labels = _completion(prompts, trace=trace, answer=answer)
    if chat_tokens(prompts.tokenizer) & {*completion[:-1]}:
        # Such a row would teach the model to stop, or to open another turn, in the middle of its reasoning.
        return "marks"
    if len(completion) < filters.min_tokens:
        return "too short"
    cut = len(prompt) + len(completion) > rows.max_tokens
    if cut:
        trace = shortened(trace, gold=problem.gold) if rows.shorten else ""
        completion, labels = _completion(prompts, trace=trace, answer=answer)
        if not trace or len(prompt) + len(completion) > rows.max_tokens:
            return "too long"
    row = Row(
        problem_id=problem.id,
        statement=problem.statement,
        gold=problem.gold,
        source=problem.source,
        subset=problem.subset,
        prompt_tokens=len(prompt),
        tokens=len(prompt) + len(completion),
        trained_tokens=len(labels) - labels.count(IGNORED),
        shortened=cut,
        problem_key=key_of(problem.statement),
        trace_key=text_key(trace),
        input_ids=prompt + completion,
        labels=[IGNORED] * len(prompt) + labels,
    )
    return (
        "parity" if mismatch(row, completion=prompts.completion(trace=trace, answer=answer), prompts=prompts) else row
    )


def _completion(prompts: PromptFormat, *, trace: str, answer: str) -> tuple[list[int], list[int]]:
    """(ids, labels) of what follows the prompt; what a tool wrote is tokenised apart, as it is served, without loss."""
    encode, eos = encoder_of(prompts.tokenizer), int(prompts.tokenizer.eos_token_id)
    text = prompts.completion(trace=trace, answer=answer)
    if not holds_output(trace):
        ids = [*encode(text), eos]
        return ids, ids
    ids, labels = [], []
    for piece, by_model in written_by(text):
        part = encode(piece)
        ids += part
        labels += part if by_model else [IGNORED] * len(part)
    return [*ids, eos], [*labels, eos]


@lru_cache(maxsize=4)
def chat_tokens(tokenizer: Any) -> frozenset[int]:
    """The ids of the tokens that shape a chat: all special ones, and what else was added but `<think>`."""
    added = {token: index for token, index in tokenizer.get_added_vocab().items() if token not in (THINK, END_THINK)}
    return frozenset({*added.values(), *tokenizer.all_special_ids})


def mismatch(row: Row, *, completion: str, prompts: PromptFormat) -> str:
    """Where the row differs from what is served and must be written; "" where it does not.

    The prompt is tokenised here as a chat server does it, by the template and the tokenizer in one call, and the
    completion is read back from its ids: neither is how the row was made.
    """
    tokenizer: Any = prompts.tokenizer
    at, ids = row["prompt_tokens"], row["input_ids"]
    served = tokenizer.apply_chat_template(
        prompts.messages(row["statement"]), tokenize=True, add_generation_prompt=True, return_dict=True
    )["input_ids"]
    bos = tokenizer.bos_token_id
    for name, holds in (
        ("prompt", ids[:at] == list(served)),
        ("completion", _decoded(tokenizer, ids[at:-1]) == completion),
        ("eos", ids[-1] == tokenizer.eos_token_id and tokenizer.eos_token_id not in ids[at:-1]),
        ("bos", bos in (None, tokenizer.eos_token_id) or ids.count(bos) <= 1),
        ("labels", row["labels"] == [IGNORED] * at + ids[at:] or _masked_rightly(row, completion, tokenizer)),
    ):
        if not holds:
            return name
    return ""


def _masked_rightly(row: Row, completion: str, tokenizer: Any) -> bool:
    """Whether nothing of the prompt has loss, and of the completion all that the model wrote and nothing else."""
    at, ids, labels = row["prompt_tokens"], row["input_ids"], row["labels"]
    trained = [label for label in labels[at:] if label != IGNORED]
    by_model = "".join(text for text, by_model in written_by(completion) if by_model)
    return (
        labels[:at] == [IGNORED] * at
        and all(label in (IGNORED, token) for label, token in zip(labels, ids, strict=True))
        and labels[-1] == ids[-1]
        and _decoded(tokenizer, trained[:-1]) == by_model
    )


def _decoded(tokenizer: Any, ids: list[int]) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:  # the same text; transformers looks at every id on its way there
        return str(backend.decode(ids, skip_special_tokens=False))
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
