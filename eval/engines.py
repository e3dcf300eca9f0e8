"""Engines by name, as `--engine` opens them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from mathlete.models import ModelSource, Precision
from mathlete.sampling.samples import Sampler

EngineName = Literal["transformers"]
"""`transformers`: the embedded decode loop."""


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """Which engine draws the samples."""

    engine: EngineName
    source: ModelSource
    precision: Precision
    threads: int | None


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


_OPENERS: dict[EngineName, Callable[[EngineSettings], Engine]] = {"transformers": _transformers}
