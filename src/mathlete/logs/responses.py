"""Responses of OpenAI's API, as vLLM and others give them: one body a line, or the lines of a batch's output.

Layouts: OpenAI's `chat.completion` and `text_completion` objects, the `response` object of its Responses API (output:
items of type message and reasoning with their parts; status, incomplete_details, usage.output_tokens) and the batch
API's output file, which `vllm run-batch` writes too (vLLM 0.32, entrypoints/launchers/run_batch.py,
`BatchRequestOutput`: id, custom_id, response {status_code, request_id, body}, error). A reasoning model's thoughts are
in `reasoning_content`, in newer servers in `reasoning`. A response says neither what was asked nor how long it took;
one of the Responses API repeats the settings.
"""

from collections.abc import Iterator, Mapping

from mathlete.logs.entries import (
    WHOLE,
    Entry,
    Facts,
    LogRow,
    Place,
    as_count,
    as_text,
    dig,
    fail,
    find_statement,
    mean_logprob,
    sampling_of,
)
from mathlete.logs.finishes import as_finish
from mathlete.logs.reasoned import join_parts, opens_thoughts, shows_opening
from mathlete.sampling import Sample

_FAILED = ("failed", "cancelled", "queued", "in_progress")
"""Of a response's status those that have no answer."""
_WHOLE_KINDS = ("chat.completion", "response")
"""Objects that no piece of a streamed response is."""


def is_response(row: LogRow) -> bool:
    """Return whether a row is a response, or a line of a batch's output."""
    return _is_body(row) or ("custom_id" in row and ("response" in row or "error" in row))


def response_facts(row: LogRow) -> Facts:
    """Return the model's name; settings where a response repeats them or the row holds the request beside it."""
    body = _body(row) or row
    sampling = sampling_of(body, max_tokens="max_output_tokens") if "output" in body else {}
    for cap in ("max_output_tokens", "max_completion_tokens", "max_tokens"):
        sampling |= sampling_of(row.get("request"), max_tokens=cap)
    return Facts(model=as_text(body.get("model")), sampling=sampling)


def read_response(row: LogRow, place: Place) -> Iterator[Entry]:
    """Yield a sample for each choice."""
    body = _body(row)
    if body is None:
        return
    if str(body.get("object")).endswith(".chunk") or any(map(_is_piece, body["choices"])):
        raise fail(
            place,
            "a response must be whole, not a piece of one that was streamed",
            value=as_text(body.get("object")) or "a choice with a delta",
            cure=WHOLE,
        )
    # The response's own id names it, not what was asked.
    choices = body["choices"]
    name = next((as_text(row.get(key)) for key in ("problem_id", "custom_id") if row.get(key) is not None), None)
    for position, choice in enumerate(choices):
        logprobs = _logprobs(choice)
        message = choice.get("message") or {}
        text = choice.get("text")
        if isinstance(message, Mapping) and message:
            text = join_parts(message.get("content"), message.get("reasoning_content") or message.get("reasoning"))
        # With several choices, the usage is that of all of them together.
        counted = as_count(dig(body, "usage.completion_tokens")) if len(choices) == 1 else None
        counted = len(choice["token_ids"]) if counted is None and choice.get("token_ids") else counted
        yield Entry(
            where=place.where,
            problem_id=name,
            statement=find_statement(row),
            text=text,
            tokens=len(logprobs) if counted is None and logprobs else counted,
            finish=as_finish(choice.get("finish_reason")),
            ended=as_text(choice.get("finish_reason")),
            logprob_mean=mean_logprob(logprobs),
            logprob_tail=mean_logprob(logprobs, last=Sample.TAIL_TOKENS),
            # A chat's server renders another prompt, and may keep the reasoning apart.
            thinking=(None if message else shows_opening(row)) or opens_thoughts(dig(row, "request.prompt")),
            may_be_piece=not message and body.get("object") not in _WHOLE_KINDS,
            uid=f"{body['id']}/{choice.get('index', position)}" if body.get("id") else None,
        )


def _is_piece(choice: LogRow) -> bool:
    # Some servers write all fields of a piece into a whole response too, as null.
    return isinstance(choice.get("delta"), Mapping) and not choice.get("message") and not choice.get("text")


def _is_body(value: object) -> bool:
    if not isinstance(value, Mapping):
        return False
    return isinstance(value.get("choices"), list) or (value.get("object") == "response" and "output" in value)


def _body(row: LogRow) -> LogRow | None:
    """Return the response itself, with choices; None where the request failed."""
    body = row if _is_body(row) else dig(row, "response.body")
    if not _is_body(body) or row.get("error") or body.get("status") in _FAILED:
        return None
    return body if isinstance(body.get("choices"), list) else _as_chat(body)


def _as_chat(body: LogRow) -> LogRow:
    """Return a response of the Responses API in the words of a chat's, with its settings."""
    items = body["output"] or ()
    said, thought = (
        [part for item in items if item.get("type") == kind for part in item.get("content") or ()]
        for kind in ("message", "reasoning")
    )
    logprobs = [token for part in said for token in part.get("logprobs") or ()]
    message = {
        "content": "".join(part["text"] for part in said if part.get("type") == "output_text") or None,
        "reasoning_content": "\n".join(part["text"] for part in thought),
    }
    finish = dig(body, "incomplete_details.reason") or body.get("status")
    choice = {"message": message, "finish_reason": finish, "logprobs": {"content": logprobs} if logprobs else None}
    return {**body, "choices": [choice], "usage": {"completion_tokens": dig(body, "usage.output_tokens")}}


def _logprobs(choice: LogRow) -> list[object]:
    chat, completion = dig(choice, "logprobs.content"), dig(choice, "logprobs.token_logprobs")
    if isinstance(chat, list):
        return [token.get("logprob") for token in chat]
    return completion if isinstance(completion, list) else []
