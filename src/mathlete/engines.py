"""Engines by name, as `--engine` opens them."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Generic, TypeVar

from mathlete.errors import UserError, nearest
from mathlete.models import ModelSource, Precision, load_prompt_format
from mathlete.prompts import PromptFormat
from mathlete.sampling.samples import Continuing, Sampler
from mathlete.sampling.served.openai_engine import ServerSettings
from mathlete.sampling.served.ray_engine import RaySettings
from mathlete.sampling.served.vllm_engine import VllmSettings
from mathlete.tir.tools import ToolSampler, ToolSettings


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """Which engine draws the samples."""

    name: str
    """One of ENGINES."""
    source: ModelSource
    precision: Precision
    threads: int | None
    vllm: VllmSettings
    servers: ServerSettings
    ray: RaySettings
    tools: ToolSettings

    def check(self) -> None:
        """Raises UserError where the engine is unknown or a value is out of its range."""
        if self.name not in ENGINES:
            raise UserError("--engine must be a known one", value=repr(self.name), cure=nearest(self.name, [*ENGINES]))
        if self.threads is not None and self.threads < 1:
            raise UserError("--threads must be at least 1", value=self.threads, cure="use 1, or leave it out")
        if self.name == "openai":
            self.servers.check()
        self.vllm.check()
        self.ray.check()
        self.tools.check()

    @property
    def prompts(self) -> PromptFormat:
        """How the model is asked, tools told of where it has any."""
        return self.tools.told(load_prompt_format(self.source))


SamplerT = TypeVar("SamplerT", bound=Sampler, covariant=True)


@dataclass(frozen=True, kw_only=True)
class Engine(Generic[SamplerT]):
    """An open engine."""

    sampler: SamplerT
    rows: int
    """Samples it draws at once."""
    facts: Mapping[str, object]
    """What results.json tells of it."""


def open_engine(settings: EngineSettings) -> Engine[Sampler]:
    """The engine, ready to draw.

    Raises:
        UserError: it cannot be opened.
    """
    engine = ENGINES[settings.name](settings)
    if not settings.tools.turns:
        return engine
    with ExitStack() as undo:
        undo.callback(engine.sampler.close)
        if not isinstance(engine.sampler, Continuing):
            rule = "--tools.turns needs an engine that can go on from what a sample has said"
            raise UserError(rule, value=f"--engine {settings.name}", cure="use --engine transformers, or no tools")
        tools = ToolSampler(engine.sampler, settings.tools)
        undo.pop_all()
    return Engine(sampler=tools, rows=engine.rows, facts={**engine.facts, "sandbox": tools.layers})


def _transformers(settings: EngineSettings) -> Engine[Continuing]:
    from mathlete.sampling.embedded.transformers_engine import open_transformers

    sampler = open_transformers(
        settings.source,
        precision=settings.precision,
        threads=settings.threads,
        instruction=settings.prompts.instruction,
    )
    return Engine(sampler=sampler, rows=sampler.max_rows, facts={"threads": sampler.threads})


def _vllm(settings: EngineSettings) -> Engine[Continuing]:
    from mathlete.sampling.served.vllm_engine import VllmSampler

    sampler = VllmSampler(settings.vllm, source=settings.source, prompts=settings.prompts, precision=settings.precision)
    return Engine(sampler=sampler, rows=settings.vllm.at_once, facts={"vllm": sampler.version})


def _openai(settings: EngineSettings) -> Engine[Continuing]:
    from mathlete.sampling.served.openai_engine import OpenAISampler

    servers = settings.servers
    sampler = OpenAISampler(servers, model=settings.source.location, prompts=settings.prompts)
    return Engine(sampler=sampler, rows=servers.at_once * len(servers.urls), facts={"servers": len(servers.urls)})


def _ray(settings: EngineSettings) -> Engine[Continuing]:
    from mathlete.sampling.served.ray_engine import RaySampler

    sampler = RaySampler(
        settings.ray,
        source=settings.source,
        precision=settings.precision,
        threads=settings.threads,
        instruction=settings.prompts.instruction,
    )
    workers = settings.ray.workers
    return Engine(sampler=sampler, rows=settings.ray.at_once * workers, facts={"workers": workers})


ENGINES: dict[str, Callable[[EngineSettings], Engine[Sampler]]] = {
    "transformers": _transformers,
    "vllm": _vllm,
    "openai": _openai,
    "ray": _ray,
}
"""What `--engine` knows: the embedded decode loop, vLLM started here, servers (--servers.urls), a cluster's workers."""
