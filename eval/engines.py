"""Engines by name, as `--engine` opens them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from mathlete.models import ModelSource, Precision, prompt_format
from mathlete.sampling.openai_engine import ServerSettings
from mathlete.sampling.ray_engine import RaySettings
from mathlete.sampling.samples import Sampler

EngineName = Literal["transformers", "openai", "ray"]
"""`transformers`: the embedded decode loop · `openai`: servers, by --servers.urls · `ray`: workers of a cluster."""


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """Which engine draws the samples."""

    engine: EngineName
    source: ModelSource
    precision: Precision
    threads: int | None
    servers: ServerSettings
    ray: RaySettings


@dataclass(frozen=True, kw_only=True)
class Engine:
    """An open engine."""

    sampler: Sampler
    rows: int
    """Samples it draws at once."""
    facts: Mapping[str, object]
    """What results.json tells of it."""


def open_engine(settings: EngineSettings) -> Engine:
    """The engine, ready to draw.

    Raises:
        UserError: it cannot be opened.
    """
    return _OPENERS[settings.engine](settings)


def _transformers(settings: EngineSettings) -> Engine:
    from mathlete.sampling.transformers_engine import open_transformers

    sampler = open_transformers(settings.source, precision=settings.precision, threads=settings.threads)
    return Engine(sampler=sampler, rows=sampler.max_rows, facts={"threads": sampler.threads})


def _openai(settings: EngineSettings) -> Engine:
    from mathlete.sampling.openai_engine import OpenAISampler

    servers = settings.servers
    sampler = OpenAISampler(servers, model=settings.source.location, prompts=prompt_format(settings.source))
    return Engine(sampler=sampler, rows=servers.at_once * len(servers.urls), facts={"servers": len(servers.urls)})


def _ray(settings: EngineSettings) -> Engine:
    from mathlete.sampling.ray_engine import RaySampler

    sampler = RaySampler(settings.ray, source=settings.source, precision=settings.precision, threads=settings.threads)
    workers = settings.ray.workers
    return Engine(sampler=sampler, rows=settings.ray.at_once * workers, facts={"workers": workers})


_OPENERS: dict[EngineName, Callable[[EngineSettings], Engine]] = {
    "transformers": _transformers,
    "openai": _openai,
    "ray": _ray,
}
