"""The prompt that a server's own template makes of a question, for servers that tell it.

llama.cpp renders it (`POST /apply-template` with `messages`, tools/server/README.md); vLLM returns its tokens as
strings (`POST /tokenize` with `messages` and `return_token_strs`, entrypoints/serve/tokenize). Both stand beside `/v1`,
not under it. Other servers have neither, and say 404.
"""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mathlete.prompts import PromptFormat
from mathlete.sampling.served.fleet import Server
from mathlete.sampling.served.tries import LIBRARY_ERRORS, read_body
from mathlete.text import parse_json

if TYPE_CHECKING:
    from httpx2 import AsyncClient

_QUESTION = "What is 1 + 1?"
_MOST_BYTES = 1_000_000


async def ask_rendered(server: Server, prompts: PromptFormat, *, limit_s: float) -> str | None:
    """Return how a server's prompt ends, as its template writes it; None where it does not tell.

    Args:
        server: one that answers.
        prompts: the model's prompts, for the instruction and the template's arguments.
        limit_s: seconds that it has for it.
    """
    root = server.url.rstrip("/").removesuffix("/v1")
    arguments = {"chat_template_kwargs": {**prompts.template_args}} if prompts.template_args else {}
    question = {"messages": prompts.messages(_QUESTION), **arguments}
    rendered = await _post(server.client, f"{root}/apply-template", question, limit_s=limit_s)
    if isinstance(text := rendered.get("prompt"), str):
        return text
    asked = {"model": server.model, **question, "add_generation_prompt": True, "return_token_strs": True}
    tokens = (await _post(server.client, f"{root}/tokenize", asked, limit_s=limit_s)).get("token_strs")
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        return None
    # Vocabularies of bytes write a blank as Ġ and a line break as Ċ, SentencePiece a blank as ▁.
    return "".join(tokens).replace("Ġ", " ").replace("Ċ", "\n").replace("▁", " ").replace("<0x0A>", "\n")


async def _post(client: "AsyncClient", url: str, body: Mapping[str, object], *, limit_s: float) -> dict[str, Any]:
    """Return the object that a server answers with; an empty one where it does not know the question."""
    import httpx2

    try:
        async with asyncio.timeout(limit_s), client.stream("POST", url, json=body) as response:
            if response.status_code != 200:
                return {}
            said = parse_json(await read_body(response, most=_MOST_BYTES))
    except (TimeoutError, ValueError, httpx2.HTTPError, httpx2.InvalidURL, *LIBRARY_ERRORS):
        # It is a question beside the run: a server that fails at it may draw samples very well.
        return {}
    return said if isinstance(said, dict) else {}
