"""The engine over OpenAI-compatible servers: vLLM, SGLang, llama.cpp, `transformers serve`; one or several of them.

Every sample is a request of its own with its own seed, so that a fleet shares the samples of one problem. A server that
cannot be reached, or sends anything but a whole completion, gets no requests for a while: its samples are lost, noted,
and move on to the others, or back to it. A sample that takes far longer than the rest is tried a second time on an idle
server, and the first result counts. Closing a stream closes its connections, which the servers take as a cancellation.

The prompt is this project's own, as token ids (or as text for servers that take nothing else): the model sees what it
was trained with, whatever template the server has. With `--servers.api chat` the server's template is used, the server
is asked whether that opens the reasoning, and where it sends the reasoning apart, it is put back before the answer. The
same seed gives the same sample as far as the
server keeps seeds: vLLM does for each request; `transformers serve` seeds one generator for all requests, and so keeps
seeds only with one request at a time (`--servers.at-once 1`).
"""

import asyncio
import os
import re
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from mathlete.errors import UserError, require
from mathlete.lost import OnLost
from mathlete.problems import Problem
from mathlete.prompts import PromptFormat
from mathlete.reasoning import Opening, ends_in_opening
from mathlete.sampling import Continuing, Sample, SamplingConfig
from mathlete.sampling.continuing import Cancel
from mathlete.sampling.served.asked import ServerPrompt
from mathlete.sampling.served.fleet import Fleet, Server
from mathlete.sampling.served.loop import LoopThread
from mathlete.sampling.served.rendered import ask_rendered
from mathlete.sampling.served.tries import (
    LIBRARY_ERRORS,
    Job,
    describe_error,
    read_body,
    read_message,
)
from mathlete.text import parse_json, quote

if TYPE_CHECKING:
    from httpx2 import AsyncClient

_PROBE_S = 10.0
"""Seconds that a server has to list its models, or less where patience ends before."""
_LISTING_BYTES = 4_000_000
_ADDRESS = "addresses, http://HOST:PORT/v1, without a key in them (OPENAI_API_KEY is for that)"


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """The servers of the openai engine."""

    urls: tuple[str, ...] = ()
    """Base addresses, as in http://localhost:8000/v1."""
    api: Literal["completions", "chat"] = "completions"
    """completions: our prompt; chat: the server's chat template."""
    opens_thoughts: Literal["auto", "yes", "no"] = "auto"
    """Whether the server's own template ends in `<think>` or the like: then a text without its end is unfinished. auto:
    as the server says (vLLM's /tokenize, llama.cpp's /apply-template), else as the model's tokenizer shows."""
    model: str | None = None
    """The model's name there; default: the only one the server lists, else --model."""
    at_once: int = 32
    """Requests to one server at a time."""
    patience_s: float = 60.0
    """A run stops when no server has sent a token for so long; in half that time a silent request is made again."""

    def check(self) -> None:
        """Raise UserError where a value is out of its range."""
        odd = next((_without_key(url) for url in self.urls if not _is_address(url)), None)
        require(
            ("urls", self.urls, bool(self.urls), "at least one address"),
            ("urls", odd, odd is None, _ADDRESS),
            ("at-once", self.at_once, self.at_once >= 1, "at least 1"),
            ("patience-s", self.patience_s, self.patience_s > 0, "above 0"),
            prefix="--servers.",
            cure="as in --servers.urls http://localhost:8000/v1",
        )


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return (
            parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc and parts.port != 0
        )
    except ValueError:  # a port that is none, or half a bracket
        return False


def _without_key(url: str) -> str:
    """Return the address without a user's name and password: it stands in messages, logs and manifests."""
    return re.sub("//[^/]*@", "//…@", url)


def _read_key() -> str:
    key = os.environ.get("OPENAI_API_KEY") or "none"
    if not (key.isascii() and key.isprintable()):
        # Not quoted: it is a secret.
        raise UserError("OPENAI_API_KEY must be printable ASCII", cure="set it again, without line breaks")
    return key


class OpenAISampler(Continuing):
    """A Sampler over servers. An event loop in a thread runs the requests; `stream` may be called from many threads."""

    name = "openai"

    def __init__(
        self, settings: ServerSettings, *, model: str, prompts: PromptFormat, on_lost: OnLost = lambda lost: None
    ) -> None:
        """Ask the servers which models they have.

        Args:
            settings: their addresses and limits.
            model: the model's name where a server does not list exactly one.
            prompts: the model's prompts.
            on_lost: called with each try at a sample that was lost, and is made again.

        Raises:
            UserError: the httpx2 package is missing, or no server answers.
        """
        settings.check()
        self.prompts, self._settings, self._on_lost = prompts, settings, on_lost
        self._clients: list[AsyncClient] = []
        # Tokenizers fail where two threads use them at the same moment ("Already borrowed").
        self._lock = threading.Lock()
        self._loop = LoopThread(name="mathlete-openai")
        self.opening = prompts.thoughts
        with ExitStack() as undo:
            # The thread would outlive a sampler that its caller never gets.
            undo.callback(self.close)
            self._fleet = self._loop.run(self._connect(model))
            if settings.api == "chat":
                self.opening = self._loop.run(self._find_opening())
            undo.pop_all()

    async def _connect(self, model: str) -> Fleet:
        try:
            import httpx2
        except ImportError as error:
            raise UserError(
                "the openai engine needs the httpx2 package", cure="pip install 'mathlete[openai]'"
            ) from error

        try:
            clients = [_open_client() for _ in self._settings.urls]
        except (ImportError, httpx2.InvalidURL, OSError, ValueError) as error:
            raise UserError(
                "the proxy and the certificates that the environment names must be usable",
                value=describe_error(error),
                cure="mend or unset ALL_PROXY, HTTP_PROXY, HTTPS_PROXY and SSL_CERT_FILE",
            ) from error
        self._clients += clients
        limit_s = min(_PROBE_S, self._settings.patience_s)
        pairs = zip(clients, self._settings.urls, strict=True)
        asked = await asyncio.gather(*(_ask_for_models(client, url, limit_s=limit_s) for client, url in pairs))
        urls, listings = [url for url, _ in asked], [listing for _, listing in asked]
        if not any(isinstance(listing, _Listing) for listing in listings):
            # A server that wants another key is running.
            locked = any(str(trouble).startswith(("401", "403")) for trouble in listings)
            raise UserError(
                "one of the servers must answer",
                value="; ".join(f"{url}: {trouble}" for url, trouble in zip(urls, listings, strict=True)),
                cure="set the key that it takes as OPENAI_API_KEY"
                if locked
                else "start a server, as in `vllm serve MODEL`, and check --servers.urls",
            )
        servers = [
            Server(
                url=url,
                client=client,
                model=self._name(listing, model),
                slots=self._settings.at_once,
                owner=listing.owner if isinstance(listing, _Listing) else "",
            )
            for url, client, listing in zip(urls, clients, listings, strict=True)
        ]
        for server, listing in zip(servers, listings, strict=True):
            # One that is down now may come up while the run goes on.
            if not isinstance(listing, _Listing):
                server.record_failure(listing, patience_s=self._settings.patience_s)
        return Fleet(servers=servers, patience_s=self._settings.patience_s)

    async def _find_opening(self) -> Opening:
        """Return whether the prompts that the servers' template makes open the reasoning."""
        told, prompts = self._settings.opens_thoughts, self.prompts
        if told != "auto":
            return Opening(thinking=told == "yes", because=f"--servers.opens-thoughts {told}")
        limit_s = min(_PROBE_S, self._settings.patience_s)
        said = [await ask_rendered(server, prompts, limit_s=limit_s) for server in self._fleet.servers if server.alive]
        known = [ends_in_opening(text) for text in said if text is not None]
        if known and len(set(known)) == 1:
            return Opening(thinking=known[0], because="the server's template, as it renders a question")
        if prompts.prefilled:
            return Opening(thinking=True, because="the model's own template; the server does not tell its own")
        if prompts.can_reason:
            return Opening(thinking=None, because="the model reasons, and the server does not tell its template")
        return Opening(thinking=False, because="the model's tokenizer has no marks of reasoning")

    def _name(self, listed: "_Listing | str", model: str) -> str:
        if self._settings.model:
            return self._settings.model
        if isinstance(listed, _Listing) and len(listed.names) == 1:
            return listed.names[0]
        if not model:
            names = ", ".join(listed.names[:5]) if isinstance(listed, _Listing) else ""
            rule = "--servers.model must say which of the server's models it is"
            raise UserError(rule, value=names or "a server that lists none", cure="name one with --servers.model")
        return model

    def begin(
        self,
        problem: Problem,
        *,
        seeds: Mapping[int, int],
        config: SamplingConfig,
        results: "SimpleQueue[Sample | Exception]",
        said: str = "",
        until_code: bool = False,
    ) -> Cancel:
        """Start the samples; see `Continuing.begin`.

        Raises:
            UserError: the chat endpoint cannot go on from what a sample has said.
        """
        config.check()
        chat = self._settings.api == "chat"
        if chat and (said or until_code):
            raise UserError(
                "a model can only use tools where the engine can go on from its words",
                value="--servers.api chat",
                cure="use --servers.api completions",
            )
        with self._lock:
            prompt = ServerPrompt.of(problem, self.prompts, chat=chat, said=said, until_code=until_code)

        jobs: dict[int, Job] = {}

        async def draw(index: int, seed: int) -> Sample:
            jobs[index] = Job(self._fleet, prompt, index, seed, config, self._on_lost)
            sample = await jobs[index].run()
            del jobs[index]
            return sample

        def cut() -> list[Sample]:
            return [sample for job in [*jobs.values()] if (sample := job.cut()) is not None]

        return self._loop.begin(draw, seeds=seeds, results=results, unfinished=cut)

    def close(self) -> None:
        """Cancel what is still running and end the event loop."""
        self._loop.close(last=self._disconnect)

    async def _disconnect(self) -> None:
        for client in self._clients:
            await client.aclose()


def _open_client() -> "AsyncClient":
    import httpx2

    # Time limits are the fleet's: it knows which silence matters.
    return httpx2.AsyncClient(
        headers={"Authorization": f"Bearer {_read_key()}", "Accept-Encoding": "identity"},
        timeout=None,
        follow_redirects=True,
        max_redirects=5,
        limits=httpx2.Limits(max_connections=None),
    )


@dataclass(frozen=True, kw_only=True)
class _Listing:
    """What a server that answers says of itself."""

    names: tuple[str, ...] = ()
    """Of its models."""
    owner: str = ""
    """What it names as their owner: itself, as in "vllm" and "llamacpp"."""


async def _ask_for_models(client: "AsyncClient", url: str, *, limit_s: float) -> "tuple[str, _Listing | str]":
    """Return (base address, models that the server lists there, or why it does not answer).

    An address without a path is often meant to end in /v1: that is asked where the address itself lists nothing.
    """
    listed = await _list_models(client, url, limit_s=limit_s)
    if isinstance(listed, _Listing) and not listed.names and urlsplit(url).path in ("", "/"):
        longer = f"{url.rstrip('/')}/v1"
        also = await _list_models(client, longer, limit_s=limit_s)
        if isinstance(also, _Listing) and also.names:
            return longer, also
    return url, listed


async def _list_models(client: "AsyncClient", url: str, *, limit_s: float) -> "_Listing | str":
    """Return the models that a server lists, or why it does not answer."""
    import httpx2

    try:
        async with (
            asyncio.timeout(limit_s),
            client.stream("GET", f"{url.rstrip('/')}/models", headers={"Accept": "application/json"}) as response,
        ):
            if response.status_code in (401, 403):
                return f"{response.status_code} {quote(await read_message(response), most=200)}"
            # It does answer. Some cannot list: `transformers serve` fails where there is no model cache.
            return _read_listing(await read_body(response, most=_LISTING_BYTES) if response.status_code == 200 else b"")
    except TimeoutError:
        return f"nothing within {limit_s:g} s"
    except (httpx2.HTTPError, httpx2.InvalidURL, *LIBRARY_ERRORS) as error:
        return describe_error(error)


def _read_listing(body: bytes) -> _Listing:
    """Return the names in a list of models; none where it is no such list."""
    try:
        listed: Any = parse_json(body)
    except ValueError:
        return _Listing()
    entries = listed.get("data") if isinstance(listed, dict) else None
    models = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    names = tuple(name for model in models if isinstance(name := model.get("id"), str))
    return _Listing(names=names, owner=str(models[0].get("owned_by", "")) if models else "")
