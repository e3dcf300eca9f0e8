"""What a server may do instead of sending a completion, and what is said of it."""

from tests.conftest import sample
from tests.loopback import (
    BEGUN,
    CHUNKED_HEAD,
    DONE,
    GOOD,
    HEAD,
    HTML,
    SAID,
    WRONG,
    Behaviour,
    answers,
    babble,
    choice,
    chunked,
    die,
    die_after_the_end,
    die_midway,
    drip,
    drip_empty_events,
    drip_nothing,
    drip_one_event,
    event,
    good,
    hang,
    hang_after_head,
    hang_after_the_end,
    hang_midway,
    redirect_to_itself,
    says,
    scored,
    streams,
    talk_for_ever,
)

LOST: dict[str, tuple[Behaviour, str]] = {
    # bad JSON, bad UTF-8, events of another kind
    "half an event": (streams(BEGUN, b'data: {"choices": [{"te'), "an event must be JSON"),
    "an event that is no JSON": (streams(BEGUN, event(b"{nonsense}"), GOOD), "an event must be JSON: {nonsense}"),
    "a number too long": (streams(event(b"9" * 5000)), "an event must be JSON: 999"),
    "JSON nested too deep": (streams(event(b"[" * 100_000)), r"an event must be JSON: \[\["),
    "bytes that are no UTF-8": (
        streams(BEGUN, event(b'{"choices": [{"text": "\xff\xfe"}]}')),
        "an event must be UTF-8",
    ),
    "a surrogate as bytes": (streams(event(b'{"choices": [{"text": "\xed\xa0\x80"}]}')), "an event must be UTF-8"),
    "an event that is a list": (streams(event([1, 2])), f"{WRONG}, and has list instead of dict: .1, 2."),
    "an event that is null": (streams(event(None)), f"{WRONG}, and has NoneType"),
    "an event that is a word": (streams(event("hello")), f"{WRONG}, and has str"),
    "events without data": (streams(b"event: ping\n\n" * 3), "must end with a reason: what came was event: ping"),
    "an empty event": (streams(b"data:\n\ndata: \n\n"), "must end with a reason"),
    "an error in the stream": (
        streams(BEGUN, event({"error": {"message": "CUDA out of memory"}})),
        "CUDA out of memory",
    ),
    "an error that is a word": (streams(event({"error": "overloaded"})), "the server says: overloaded"),
    # wrong types
    "choices that are a dict": (streams(event({"choices": {"text": "7"}})), f"{WRONG}, and has dict instead of list"),
    "choices that are words": (streams(event({"choices": ["7"]})), f"{WRONG}, and has str instead of dict"),
    "text that is a number": (streams(choice(7)), f"{WRONG}, and has int instead of str"),
    "text that is a list": (streams(choice(["7"])), f"{WRONG}, and has list instead of str"),
    "a reason that is a number": (streams(BEGUN, choice("", 3)), f"{WRONG}, and has int instead of str"),
    "a reason that is true": (streams(BEGUN, choice("", True)), f"{WRONG}, and has bool instead of str"),
    "usage that is a list": (
        streams(BEGUN, event({"choices": [], "usage": [5]})),
        f"{WRONG}, and has list instead of dict",
    ),
    "a count in words": (streams(event({"usage": {"completion_tokens": "5"}})), f"{WRONG}, and has str instead of int"),
    "a count below nothing": (
        streams(event({"usage": {"completion_tokens": -5}})),
        f"{WRONG}, and has a number of tokens that none can be",
    ),
    "a count that is true": (streams(event({"usage": {"completion_tokens": True}})), f"{WRONG}, and has bool"),
    "logprobs that are a list": (streams(choice("7", logprobs=[-0.5])), f"{WRONG}, and has list instead of dict"),
    "logprobs of another shape": (streams(choice("7", logprobs={"content": [-0.5]})), f"{WRONG}, and has float"),
    # numbers that are none
    "a logprob of NaN": (streams(scored("7", float("nan"))), "log-probability must be a number, and was nan"),
    "a logprob of -Infinity": (streams(scored("7", float("-inf"))), "must be a number, and was -inf"),
    "a logprob of 1e999": (
        streams(event(b'{"choices": [{"text": "7", "logprobs": {"token_logprobs": [1e999]}}]}')),
        "was inf",
    ),
    "a logprob in words": (streams(scored("7", "-0.5")), "must be a number, and was -0.5"),
    "a logprob that is true": (streams(scored("7", True)), "must be a number, and was True"),
    "a logprob above 0": (streams(scored("7", 3.0)), "must be at most 0, and was 3.0"),
    # ends that are none
    "no reason": (streams(BEGUN, DONE), "must end with a reason: it broke off after … So 7"),
    "an unknown reason": (streams(BEGUN, choice("", "bored")), "must end by stop or length, and ended by bored"),
    "abort": (streams(BEGUN, choice("", "abort")), "and ended by abort"),
    "content_filter": (streams(BEGUN, choice("", "content_filter")), "and ended by content_filter"),
    "nothing at all": (says(), "RemoteProtocolError"),
    "an empty stream": (streams(), "what came was nothing"),
    "only [DONE]": (streams(DONE), "must end with a reason"),
    "a cut stream": (streams(BEGUN), "it broke off after … So 7"),
    "a cut chunk": (says(CHUNKED_HEAD, chunked(BEGUN)), "RemoteProtocolError"),
    "a chunk of no length": (says(CHUNKED_HEAD, b"zz\r\n"), "RemoteProtocolError"),
    "a length that is not reached": (
        says(HEAD.replace(b"Connection", b"Content-Length: 99999\r\nConnection"), BEGUN),
        "RemoteProtocolError",
    ),
    # completions that are none
    "text in another field": (
        streams(event({"choices": [{"message": {"content": "So 7."}, "finish_reason": "stop"}]}), DONE),
        "an empty completion must come with its text .*So 7",
    ),
    "text in another field, counted": (
        streams(
            event({"choices": [{"generated_text": "So 7.", "finish_reason": "eos"}], "usage": {"completion_tokens": 5}})
        ),
        "an empty completion must come with its text .*So 7",
    ),
    "text in another field, then death": (
        says(CHUNKED_HEAD, chunked(event({"choices": [{"output": "So 7.", "finish_reason": "stop"}]}))),
        "an empty completion must come with its text .*So 7",
    ),
    "nothing, cut at its length": (streams(choice("", "length"), DONE), "an empty completion .*length"),
    # more than was asked for
    "two choices in an event": (streams(event({"choices": [{"text": "7"}, {"text": "8"}]})), "several came"),
    "a second choice": (streams(BEGUN, event({"choices": [{"index": 1, "text": "8"}]})), "several came"),
    "more tokens than asked for": (streams(scored(" and") * 60, choice("", "stop")), "more came than the 40 tokens"),
    "a count above the cap": (streams(BEGUN, event({"usage": {"completion_tokens": 4000}})), "more came than the 40"),
    "a token as long as a book": (streams(choice("x" * 100_000)), "more came than the 40 tokens"),
    "tokens without end": (talk_for_ever, "more came than the 40 tokens"),
    "a line without end": (babble, "a line of more than 4000000 bytes|nothing came for"),
    # other answers
    "a page": (answers("200 OK", HTML, "Content-Type: text/html"), "what came was <!doctype html><html>"),
    "a whole reply in JSON": (answers("200 OK", '{"choices": [{"text": "7"}]}'), r"what came was \{.choices"),
    "no content": (says(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"), "204 No Content"),
    "408": (answers("408 Request Timeout", "too slow"), "408 Request Timeout: too slow"),
    "429": (
        answers("429 Too Many Requests", '{"error": {"message": "slow down"}}'),
        "429 Too Many Requests: slow down",
    ),
    "429 with a time": (answers("429 Too Many Requests", "later", "Retry-After: 0.05"), "to be asked again in 0.05 s"),
    "429 with nonsense": (answers("429 Too Many Requests", "later", "Retry-After: when you like"), "429 Too Many"),
    "429 with a date that is over": (
        answers("429 Too Many Requests", "x", "Retry-After: Thu, 01 Jan 1970 00:00:00 GMT"),
        "429",
    ),
    "500": (answers("500 Internal Server Error", HTML), "500 Internal Server Error: <!doctype html>"),
    "500 in bytes": (answers("500 Oops", b"\xff\xfe\x00"), "500 Oops: \ufffd"),
    "502": (answers("502 Bad Gateway", HTML, "Content-Type: text/html"), "502 Bad Gateway"),
    "503 with a time": (
        answers("503 Service Unavailable", "loading", "Retry-After: 0.05"),
        "503 Service Unavailable: loading",
    ),
    "503 with a length that is not reached": (
        says(b"HTTP/1.1 503 No\r\nContent-Length: 99\r\n\r\nlo"),
        "RemoteProtocolError",
    ),
    "a redirect to nowhere": (answers("302 Found"), "302 Found"),
    "a redirect to itself": (redirect_to_itself, "TooManyRedirects"),
    "a redirect to a file": (answers("307 Go", "", "Location: file:///etc/passwd"), "UnsupportedProtocol"),
    "a redirect to a port that is none": (answers("307 Go", "", "Location: http://127.0.0.1:99999/"), "OverflowError"),
    "a redirect to nonsense": (answers("307 Go", "", "Location: http://[x/"), "Error"),
    "no HTTP": (says(b"SSH-2.0-OpenSSH_9.6\r\n"), "RemoteProtocolError"),
    "bytes": (says(bytes(range(256)) * 20), "RemoteProtocolError"),
    "headers without end": (says(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000), "RemoteProtocolError"),
    "gzip that is none": (
        says(HEAD.replace(b"Connection", b"Content-Encoding: gzip\r\nConnection"), GOOD),
        "DecodingError",
    ),
    # silence and death
    "silence": (hang, "nothing came for"),
    "silence after the head": (hang_after_head, "nothing came for"),
    "silence midway": (hang_midway, "nothing came for .* after 4 characters"),
    "signs of life without a token": (drip_nothing, "nothing came for"),
    "an event drop by drop": (drip_one_event, "nothing came for"),
    "empty events": (drip_empty_events, "nothing came for"),
    "death": (die, "ReadError|RemoteProtocolError"),
    "death midway": (die_midway, "ReadError|RemoteProtocolError|it broke off after … So 7"),
}
"""{what a server does: (how, what is said of it)}: all of these are lost, and tried again."""
SOME = ("half an event", "a logprob of -Infinity", "429 with a time", "a page", "silence midway", "death midway")
ROWS = sample(*SOME, slow=[name for name in LOST if name not in SOME])
FINE: dict[str, Behaviour] = {
    "a server that does as it should": good,
    "a drip": drip,
    "silence after the end": hang_after_the_end,
    "death after the end": die_after_the_end,
    "carriage returns": streams(GOOD.replace(b"\n", b"\r\n")),
    "carriage returns alone": streams(GOOD.replace(b"\n", b"\r")),
    "comments and other fields": streams(b": hello\nid: 7\nretry: 5\nevent: x\n", GOOD.replace(b"\n\n", b"\n: x\n\n")),
    "a byte order mark": streams(b"\xef\xbb\xbf", GOOD),
    "data without a space": streams(GOOD.replace(b"data: ", b"data:")),
    "no empty line at the end": streams(b"".join(map(scored, SAID[:3])), choice("It is 7.", "stop").rstrip()),
    "no choices with the usage": streams(b"".join(map(scored, SAID[:3])), event({"usage": {"completion_tokens": 5}}),
                                         choice("It is 7.", "stop")),
    "a reason of another name": streams(b"".join(map(scored, SAID[:3])), choice("It is 7.", "eos_token"), DONE),
    "nonsense after the end": streams(b"".join(map(choice, SAID[:3])), choice("It is 7.", "stop"), event(b"{{{")),
    "a first token without a logprob": streams(scored(SAID[0], None), *map(scored, SAID[1:])),
}  # fmt: skip
EMPTY: dict[str, tuple[bytes, int, int]] = {
    "nothing counted": (choice("", "stop") + DONE, 0, 1),
    "nothing counted, null": (choice(None, "stop") + DONE, 0, 1),
    "nothing counted, chat": (event({"choices": [{"delta": {}, "finish_reason": "stop"}]}) + DONE, 0, 1),
    "one counted": (choice("", "stop") + event({"choices": [], "usage": {"completion_tokens": 1}}) + DONE, 1, 0),
    "none counted": (choice("", "stop") + event({"choices": [], "usage": {"completion_tokens": 0}}) + DONE, 0, 0),
    "a log-probability": (scored("") + choice("", "stop") + DONE, 1, 0),
    "hidden reasoning": (
        choice("", "length") + event({"choices": [], "usage": {"completion_tokens": 40}}) + DONE,
        40,
        0,
    ),
}
"""{an empty completion: (its events, its tokens, tries that are lost before it is believed)}."""
REFUSED = {
    "400": (
        answers("400 Bad Request", '{"error": {"message": "context length exceeded"}}'),
        "400 Bad Request: context length",
    ),
    "401": (answers("401 Unauthorized", '{"detail": "no key"}'), "401 Unauthorized: no key"),
    "404": (answers("404 Not Found", HTML, "Content-Type: text/html"), "404 Not Found: <!doctype html><html>"),
    "413": (answers("413 Too Large", "x" * 10_000), r"413 Too Large: x{300} … \(1700 more characters\)"),
    "418": (answers("418 I'm a teapot", b"\xff\x00"), "418 I'm a teapot: \ufffd\ufffd"),
}
"""What a server says of a request that is wrong: waiting would not mend it."""
LISTINGS: dict[str, tuple[Behaviour, str]] = {
    "one model": (answers("200 OK", '{"data": [{"id": "other"}]}'), "other"),
    "two models": (answers("200 OK", '{"data": [{"id": "a"}, {"id": "b"}]}'), "m"),
    "no JSON": (answers("200 OK", HTML), "m"),
    "null": (answers("200 OK", "null"), "m"),
    "data of null": (answers("200 OK", '{"data": null}'), "m"),
    "ids that are numbers": (answers("200 OK", '{"data": [{"id": 7}, "x", null]}'), "m"),
    "bytes": (answers("200 OK", b"\xff\xfe"), "m"),
    "500": (answers("500 No", "x"), "m"),
    "404": (answers("404 No", "x"), "m"),
}
