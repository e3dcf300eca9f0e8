"""Rows of chats: a conversation as a server renders it, up to the reply that has loss.

Nothing is added and nothing is left out: the system turn, tools' turns and earlier replies stand in the prompt as the
model's own template has them, without loss. A conversation of several replies becomes a row for each, because only so
is every one of them learnt behind exactly the tokens that a server would make of what came before it: a template may
write a past reply in another way than the one that is being written.
"""

from typing import TYPE_CHECKING
from unicodedata import normalize

from mathlete.overlap import hash_statement
from mathlete.prompts import PromptFormat
from mathlete.renderings import holds_chat_marks
from mathlete.rows.encoding import make_encoder
from mathlete.rows.filters import is_loop
from mathlete.rows.row import IGNORED, TokenRow
from mathlete.rows.selection import hash_text
from mathlete.rows.settings import Filters, Rows
from mathlete.traces import TracedProblem, Turn

if TYPE_CHECKING:
    from collections.abc import Sequence


def messages_before_reply(turns: "Sequence[Turn]") -> list[dict[str, str]]:
    """Return the conversation before its last reply, as a chat template takes it."""
    return [{"role": turn.role, "content": turn.text} for turn in turns[:-1]]


def encode_chat_row(
    traced: TracedProblem, *, prompts: PromptFormat, rows: Rows, filters: Filters
) -> tuple[TokenRow | str, str]:
    """Return (the row before it is proved, or the reason why the reply is dropped; the text that has loss)."""
    from jinja2 import TemplateError

    if reason := _find_drop_reason(traced, prompts, filters):
        return reason, ""
    problem, reply = traced.problem, traced.turns[-1]
    try:
        prompt = prompts.conversation_ids(messages_before_reply(traced.turns))
    except TemplateError:
        return "template", ""
    completion = prompts.reply(thought=normalize("NFC", reply.thought), text=normalize("NFC", reply.text))
    if completion is None:
        return "template", ""
    ids = [*make_encoder(prompts.tokenizer)(completion), int(prompts.tokenizer.eos_token_id)]
    if len(ids) < filters.min_tokens:
        return "too short", ""
    if len(prompt) + len(ids) > rows.max_tokens:
        return "too long", ""
    row = TokenRow(
        problem_id=problem.id,
        statement=problem.statement,
        gold="",
        answers="",
        source=problem.source,
        subset=problem.subset,
        prompt_tokens=len(prompt),
        tokens=len(prompt) + len(ids),
        trained_tokens=len(ids),
        shortened=False,
        problem_key=hash_statement(problem.statement),
        # Equal where the whole conversation is: the same short reply may follow many questions.
        trace_key=hash_text(f"{prompt} {completion}"),
        input_ids=prompt + ids,
        labels=[IGNORED] * len(prompt) + ids,
    )
    return row, completion


def _find_drop_reason(traced: TracedProblem, prompts: PromptFormat, filters: Filters) -> str:
    if traced.trace.flaw:
        return traced.trace.flaw
    texts = [text for turn in traced.turns for text in (turn.text, turn.thought)]
    if any(prompts.marks.are_in(text) or holds_chat_marks(text) for text in texts):
        return "marks"
    return "loop" if is_loop(traced.turns[-1].completion, most=filters.repeats) else ""
