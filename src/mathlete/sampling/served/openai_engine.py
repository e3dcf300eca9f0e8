"""The engine over OpenAI-compatible servers: vLLM, SGLang, llama.cpp, `transformers serve`; one or several of them.

Every sample is a request of its own with its own seed, so that a fleet shares the samples of one problem. A server that
cannot be reached gets no requests for a while, and its samples move on to the others; a sample that takes far longer
than the rest is tried a second time on an idle server, and the first result counts. Closing a stream closes its
connections, which the servers take as a cancellation.

The prompt is this project's own, as token ids (or as text for servers that take nothing else): the model sees what it
was trained with, whatever template the server has. With `--servers.api chat` the server's template is used, and where a
server sends the reasoning apart, it is put back before the answer. The same seed gives the same sample as far as the
server keeps seeds: vLLM does for each request; `transformers serve` seeds one generator for all requests, and so keeps
seeds only with one request at a time (`--servers.at-once 1`).
"""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Literal

from mathlete.errors import UserError, require
from mathlete.problems import Problem
from mathlete.prompts import END_THINK, PromptFormat
from mathlete.sampling import Continuing, Sample, SamplingConfig
from mathlete.sampling.served.fleet import Fleet, Server
from mathlete.sampling.served.loop import LoopThread
from mathlete.sampling.served.reply import Reply

if TYPE_CHECKING:
    from openai import AsyncOpenAI, AsyncStream

_PROBE_S = 10.0
"""Seconds that a server has to list its models."""


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """The servers of the openai engine."""

    urls: tuple[str, ...] = ()
    """Base addresses, as in http://localhost:8000/v1."""
    api: Literal["completions", "chat"] = "completions"
    """completions: our prompt; chat: the server's chat template."""
    model: str | None = None
    """The model's name there; default: the only one the server lists, else --model."""
    at_once: int = 32
    """Requests to one server at a time."""
    patience_s: float = 60.0
    """A run stops when no server has answered for so long."""

    def check(self) -> None:
        """Raise UserError where a value is out of its range."""
        require(
            ("urls", self.urls, bool(self.urls), "at least one address"),
            ("at-once", self.at_once, self.at_once >= 1, "at least 1"),
            ("patience-s", self.patience_s, self.patience_s > 0, "above 0"),
            prefix="--servers.",
            cure="as in --servers.urls http://localhost:8000/v1",
        )


class OpenAISampler(Continuing):
    """A Sampler over servers. An event loop in a thread runs the requests; `stream` may be called from many threads."""

    name = "openai"

    def __init__(self, settings: ServerSettings, *, model: str, prompts: PromptFormat) -> None:
        """Ask the servers which models they have.

        Args:
            settings: their addresses and limits.
            model: the model's name where a server does not list exactly one.
            prompts: the model's prompts.

        Raises:
            UserError: the openai package is missing, or no server answers.
        """
        settings.check()
        self._prompts, self._settings = prompts, settings
        # Tokenizers fail where two threads use them at the same moment ("Already borrowed").
        self._lock = threading.Lock()
        self._loop = LoopThread(name="mathlete-openai")
        with ExitStack() as undo:
            # The thread would outlive a sampler that its caller never gets.
            undo.callback(self.close)
            self._fleet = self._loop.run(self._connect(model))
            undo.pop_all()

    async def _connect(self, model: str) -> Fleet:
        try:
            import openai
        except ImportError as error:
            raise UserError(
                "the openai engine needs the openai package", cure="pip install 'mathlete[openai]'"
            ) from error

        key = os.environ.get("OPENAI_API_KEY") or "none"
        clients = [openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0) for url in self._settings.urls]
        listings = await asyncio.gather(*(_list_models(client) for client in clients))
        if not any(isinstance(names, list) for names in listings):
            raise UserError(
                "one of the servers must answer",
                value="; ".join(f"{url}: {names}" for url, names in zip(self._settings.urls, listings, strict=True)),
                cure="start a server, as in `vllm serve MODEL`, and check --servers.urls",
            )
        servers = [
            Server(url=url, client=client, model=self._name(names, model), slots=self._settings.at_once)
            for url, client, names in zip(self._settings.urls, clients, listings, strict=True)
        ]
        for server, names in zip(servers, listings, strict=True):
            # One that is down now may come up while the run goes on.
            if not isinstance(names, list):
                server.record_failure()
        return Fleet(servers=servers, patience_s=self._settings.patience_s)

    def _name(self, listed: "list[str] | str", model: str) -> str:
        if self._settings.model:
            return self._settings.model
        return listed[0] if isinstance(listed, list) and len(listed) == 1 else model

    def begin(
        self,
        problem: Problem,
        *,
        seeds: Mapping[int, int],
        config: SamplingConfig,
        results: "SimpleQueue[Sample | Exception]",
        said: str = "",
        until_code: bool = False,
    ) -> Callable[[], object]:
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
            prompt = ServerPrompt.of(problem, self._prompts, chat=chat, said=said, until_code=until_code)

        async def draw(index: int, seed: int) -> Sample:
            return await _Job(self._fleet, prompt, index, seed, config).run()

        return self._loop.begin(draw, seeds=seeds, results=results)

    def close(self) -> None:
        """Cancel what is still running and end the event loop."""
        self._loop.close(last=self._disconnect)

    async def _disconnect(self) -> None:
        for server in self._fleet.servers if hasattr(self, "_fleet") else ():
            await server.client.close()


async def _list_models(client: "AsyncOpenAI") -> "list[str] | str":
    """Return the models that a server lists, or why it does not answer."""
    import openai

    try:
        listed = await client.models.list(timeout=_PROBE_S)
    except openai.APIConnectionError as error:
        return str(error.__cause__ or error)
    except openai.APIStatusError as error:
        # It does answer. Some cannot list: `transformers serve` fails where there is no model cache.
        return f"{error.status_code} {error.message[:200]}" if error.status_code in (401, 403) else []
    return [entry.id for entry in listed.data or []]


@dataclass(frozen=True, kw_only=True)
class ServerPrompt:
    """One problem's prompt in the forms that servers take."""

    problem_id: str
    ids: list[int]
    text: str
    """Text that the server's tokenizer turns into the ids."""
    messages: list[dict[str, str]] | None
    """The conversation for the chat endpoint; None uses the other two."""
    goes_on: bool
    """Whether the prompt ends in a partial completion."""
    answering: bool
    """Whether that holds the end of the reasoning."""
    until_code: bool

    @staticmethod
    def of(
        problem: Problem, prompts: PromptFormat, *, chat: bool, said: str = "", until_code: bool = False
    ) -> "ServerPrompt":
        """Return the problem's prompt."""
        return ServerPrompt(
            problem_id=problem.id,
            ids=prompts.prompt_ids(problem.statement) + (prompts.ids(said) if said else []),
            text=prompts.server_text(problem.statement) + said,
            messages=prompts.messages(problem.statement) if chat else None,
            goes_on=bool(said),
            answering=END_THINK in said,
            until_code=until_code,
        )


class _Lost(Exception):
    """The connection ended before the sample did."""


@dataclass(eq=False)
class _Job:
    """One sample, in as many tries as it takes."""

    fleet: Fleet
    prompt: ServerPrompt
    index: int
    seed: int
    config: SamplingConfig
    server: Server | None = None
    """The server of the latest try."""
    started: float = 0.0
    """When the latest try got its slot."""

    async def run(self) -> Sample:
        """Return the sample of the first try that succeeds."""
        tries = {asyncio.create_task(self._try())}
        try:
            while True:
                done, tries = await asyncio.wait(tries, timeout=0.25, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    if (sample := task.result()) is not None:
                        return sample
                # All lost, or one that takes too long: a second try, never a third beside it.
                if not tries or (len(tries) == 1 and self._is_late()):
                    tries.add(asyncio.create_task(self._try()))
        finally:
            for task in tries:
                task.cancel()

    def _is_late(self) -> bool:
        limit = None if self.server is None else self.fleet.hedge_after_s(but=self.server)
        return limit is not None and time.monotonic() - self.started > limit

    async def _try(self) -> Sample | None:
        """Return the sample, or None where the server was lost."""
        async with self.fleet.slot(but=self.server) as server:
            self.server, self.started = server, time.monotonic()
            try:
                sample = await self._ask(server)
            except _Lost:
                server.record_failure()
                return None
            self.fleet.record_success(server, time.monotonic() - self.started)
            return sample

    async def _ask(self, server: Server) -> Sample:
        """Draw the sample on this server; raise _Lost where another should try, UserError where none can."""
        import httpx2
        import openai

        try:
            return await self._read_reply(server)
        except (openai.InternalServerError, openai.RateLimitError, httpx2.TransportError) as error:
            raise _Lost from error
        except openai.APIStatusError as error:
            if self.prompt.goes_on and error.status_code in (400, 413, 422):
                # The prompt was taken, so what is refused is its length.
                return Sample.without_room(problem_id=self.prompt.problem_id, index=self.index, seed=self.seed)
            raise UserError(
                f"{server.url} must take the request for problem {self.prompt.problem_id}",
                value=f"{error.status_code} {error.message[:300]}",
                cure="check the model's name (--servers.model), its context length and the key (OPENAI_API_KEY)",
            ) from error
        except openai.APIError as error:
            # No connection, or an error in the middle of a stream.
            raise _Lost from error

    async def _read_reply(self, server: Server) -> Sample:
        begun, reply = time.perf_counter(), Reply(until_code=self.prompt.until_code, answering=self.prompt.answering)
        stream = await self._request(server)
        async with stream:
            async for chunk in stream:
                reply.add(chunk)
                if reply.complete:
                    break
        if not reply.ended:
            raise _Lost
        return reply.sample(
            problem_id=self.prompt.problem_id,
            index=self.index,
            seed=self.seed,
            seconds=time.perf_counter() - begun,
        )

    async def _request(self, server: Server) -> "AsyncStream[Any]":
        import openai

        # Its types tell a stream from a whole reply by literals, which arguments in a dict are not.
        client: Any = server.client
        stream: AsyncStream[Any]
        shared = {
            "model": server.model,
            "temperature": self.config.temperature,
            "top_p": self.config.top_p,
            "max_tokens": self.config.max_tokens,
            # llama.cpp keeps 32 bits of a seed.
            "seed": self.seed % 2**31,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self.prompt.messages is not None:
            stream = await client.chat.completions.create(messages=self.prompt.messages, logprobs=True, **shared)
            return stream
        if not server.takes_text_only:
            try:
                stream = await client.completions.create(prompt=self.prompt.ids, logprobs=1, **shared)
            except (openai.BadRequestError, openai.UnprocessableEntityError):
                # Sent again as text; a request that is wrong for another reason is refused again.
                server.takes_text_only = True
            else:
                return stream
        stream = await client.completions.create(prompt=self.prompt.text, logprobs=1, **shared)
        return stream
