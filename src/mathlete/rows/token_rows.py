"""Token rows: a traced problem becomes the tokens a model is trained on, or the reason why it does not."""

import unicodedata

from mathlete.overlap import hash_statement
from mathlete.prompts import PromptFormat
from mathlete.rows.chat_rows import encode_chat_row, messages_before_reply
from mathlete.rows.encoding import make_encoder
from mathlete.rows.filters import find_drop_reason, shorten_trace
from mathlete.rows.parity import PARITY, find_mismatch
from mathlete.rows.programs import holds_output, split_by_writer, to_served_form
from mathlete.rows.row import IGNORED, TokenRow
from mathlete.rows.selection import hash_text
from mathlete.rows.settings import Filters, Rows
from mathlete.traces import TracedProblem


def make_row(traced: TracedProblem, *, prompts: PromptFormat, rows: Rows, filters: Filters) -> TokenRow | str:
    """Return the row, or the reason why the trace is dropped.

    Reasons are those of `find_drop_reason`; "marks", a token of the chat format within the trace; "too short"; "too
    long"; and "parity: PART", where `find_mismatch` names a part.
    """
    row, completion = encode_row(traced, prompts=prompts, rows=rows, filters=filters)
    if isinstance(row, str):
        return row
    part = find_mismatch(row, completion=completion, prompts=prompts, messages=messages_of(traced))
    return f"{PARITY}{part}" if part else row


def messages_of(traced: TracedProblem) -> list[dict[str, str]] | None:
    """Return the conversation that a chat's row begins with; None for a problem, whose prompt is its statement's."""
    return messages_before_reply(traced.turns) if traced.turns else None


def encode_row(
    traced: TracedProblem, *, prompts: PromptFormat, rows: Rows, filters: Filters
) -> tuple[TokenRow | str, str]:
    """Return (the row before it is proved, or the reason why the trace is dropped; the text of its completion)."""
    if traced.turns:
        return encode_chat_row(traced, prompts=prompts, rows=rows, filters=filters)
    if reason := find_drop_reason(traced, filters):
        return reason, ""
    problem = traced.problem
    # Tokenizers normalise text (Qwen's to NFC): written in that form, the ids decode to exactly this text.
    trace, answer = (unicodedata.normalize("NFC", text) for text in (traced.trace.text, traced.trace.answer))
    if prompts.marks.are_in(problem.statement):
        # Served, they would be text; in a file, they are what is left of a prompt that was rendered, or a hidden turn.
        return "marks", ""
    trace = to_served_form(trace)
    prompt = prompts.prompt_ids(problem.statement)
    completion, labels = _tokenise_completion(prompts, trace=trace, answer=answer)
    if prompts.chat_tokens & {*completion[:-1]}:
        # Such a row would teach the model to stop, or to open another turn, in the middle of its reasoning.
        return "marks", ""
    if len(completion) < filters.min_tokens:
        return "too short", ""
    too_long = len(prompt) + len(completion) > rows.max_tokens
    if too_long:
        trace = shorten_trace(trace, gold=problem.gold, answers=problem.answers) if rows.shorten else ""
        completion, labels = _tokenise_completion(prompts, trace=trace, answer=answer)
        if not trace or len(prompt) + len(completion) > rows.max_tokens:
            return "too long", ""
    row = TokenRow(
        problem_id=problem.id,
        statement=problem.statement,
        gold=problem.gold,
        answers=problem.answers,
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
    return row, prompts.completion(trace=trace, answer=answer)


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
