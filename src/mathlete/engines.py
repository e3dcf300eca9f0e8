"""Engines by name: the one table from which evaluation, export checks and notebook open what draws their samples.

>>> [*ENGINES]
['transformers', 'vllm', 'openai', 'ray']
>>> from mathlete.models import find_model
>>> EngineSettings(name="vlm", source=find_model("pocket")).check()
Traceback (most recent call last):
    ...
mathlete.errors.UserError: --engine must be a known one, got 'vlm'.
  Fix: did you mean vllm? Known: transformers, vllm, openai, ray
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol, TypeVar

from mathlete.errors import UserError, nearest, require
from mathlete.lost import OnLost
from mathlete.models import ModelSource, Precision, load_prompt_format
from mathlete.prompts import PromptFormat
from mathlete.reasoning import Opening
from mathlete.sampling import Continuing, Sampler
from mathlete.sampling.served import RaySettings, ServerSettings, VllmSettings
from mathlete.tir import ToolSampler, ToolSettings

DTYPES = ("auto", "float32", "bfloat16", "float16")
"""Types that the embedded engine computes in. auto: the machine's, on a GPU as on a CPU."""
_EMBEDDED = ("transformers", "ray")


class OwnSettings(Protocol):
    """Settings that only one engine has: a dataclass with a default for every field."""

    def check(self) -> None:
        """Raise UserError where a value is out of its range."""
        ...


OwnT = TypeVar("OwnT", bound=OwnSettings)


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """Which engine draws the samples, from which model."""

    name: str = "transformers"
    """One of ENGINES."""
    source: ModelSource
    precision: Precision = "auto"
    dtype: str = "auto"
    """Type that the embedded engine computes in, one of DTYPES."""
    max_tokens: int | None = None
    """The longest completion that will be asked for, by which vLLM's context is chosen; None: any."""
    threads: int | None = None
    """CPU threads of the decode loop; None: 1 for a small model, else as many of all cores as are fastest."""
    scores: bool = True
    """Whether samples must have log-probabilities; vLLM is faster where they need none."""
    tools: ToolSettings = field(default_factory=ToolSettings)
    own: tuple[OwnSettings, ...] = ()
    """Settings of single engines; an engine without any here has its defaults."""
    on_lost: OnLost = lambda one: None
    """Called with each try at a sample that an engine lost, and makes again."""

    def of(self, kind: type[OwnT]) -> OwnT:
        """Return the settings of that type, or their defaults."""
        return next((one for one in self.own if isinstance(one, kind)), kind())

    def check(self) -> None:
        """Raise UserError where the engine is unknown or a value is out of its range."""
        if self.name not in ENGINES:
            raise UserError("--engine must be a known one", value=repr(self.name), cure=nearest(self.name, [*ENGINES]))
        if self.dtype != "auto" and self.name not in _EMBEDDED:
            rule = "--dtype is for the embedded engine"
            raise UserError(rule, value=f"--engine {self.name}", cure="leave --dtype out, or use --engine transformers")
        require(
            ("dtype", self.dtype, self.dtype in DTYPES, f"one of {', '.join(DTYPES)}"),
            cure="leave it out",
        )
        require(
            ("threads", self.threads, self.threads is None or 1 <= self.threads <= 1024, "from 1 to 1024"),
            cure="use 1, or leave it out",
        )
        for name, entry in ENGINES.items():
            # Servers have no default address, so their settings are right only where they are used.
            if entry.settings is not None and (name == self.name or entry.settings is not ServerSettings):
                self.of(entry.settings).check()
        self._refuse_idle()
        self.tools.check()

    def require_continuing(self) -> None:
        """Raise UserError where the engine can't go on from what a sample has said, as a forced answer needs."""
        if self.name == "openai" and self.of(ServerSettings).api == "chat":
            raise UserError(
                "--harvest needs an engine that can go on from what a sample has said",
                value="--servers.api chat",
                cure="use --servers.api completions, or leave --harvest out",
            )

    def _refuse_idle(self) -> None:
        """Raise UserError where settings of an engine are given that does not draw: they would change nothing."""
        for name, entry in ENGINES.items():
            if entry.settings is None or name == self.name:
                continue
            own, usual = vars(self.of(entry.settings)), vars(entry.settings())
            if idle := next((field for field in own if own[field] != usual[field]), None):
                flag = f"{entry.flags}{idle.replace('_', '-')}"
                cure = f"leave it out, or use --engine {name}"
                raise UserError(f"{flag} is for --engine {name}", value=f"--engine {self.name}", cure=cure)

    @cached_property
    def computing(self) -> tuple[str, str]:
        """(The type that samples are computed in, why): "" for an engine or a worker that chooses it by itself."""
        if self.name not in _EMBEDDED or (self.name == "ray" and self.dtype == "auto"):
            return "", "the engine's own choice"
        from mathlete.sampling.embedded import choose_dtype

        return choose_dtype(self.source, self.dtype)

    @cached_property
    def prompts(self) -> PromptFormat:
        """The model's prompts, with the instruction about Python where it has tools."""
        return self.tools.instruct(load_prompt_format(self.source))


@dataclass(frozen=True, kw_only=True)
class OpenEngine:
    """An engine that is ready to draw."""

    sampler: Sampler
    rows: int
    """Samples it draws at once."""
    facts: Mapping[str, object]
    """What results.json says of it."""
    opening: Opening | None = None
    """Whether its prompts open the reasoning: then a text without its end is of unfinished thoughts."""

    @property
    def opens_thoughts(self) -> bool | None:
        """What `solve` is told of that; None where nobody knows."""
        return self.opening.thinking if self.opening else False


@dataclass(frozen=True, kw_only=True)
class EngineEntry:
    """One engine of the table."""

    open: Callable[[EngineSettings], OpenEngine]
    """Opens it; raises UserError where it cannot be opened."""
    settings: type[OwnSettings] | None = None
    """The type of the settings that are its own."""
    flags: str = ""
    """What their flags begin with."""


def open_engine(settings: EngineSettings) -> OpenEngine:
    """Open the engine, with tools around it where the settings ask for them.

    Raises:
        UserError: it cannot be opened.
    """
    engine = ENGINES[settings.name].open(settings)
    # An engine that has asked for the prompts builds them here; another's server has a template of its own.
    opening = engine.opening or (settings.prompts.thoughts if "prompts" in vars(settings) else None)
    if opening is not None:
        engine = replace(engine, opening=opening, facts={**engine.facts, "thoughts": opening.describe()})
    if not settings.tools.turns:
        return engine
    with ExitStack() as undo:
        undo.callback(engine.sampler.close)
        if not isinstance(engine.sampler, Continuing):
            rule = "--tools.turns needs an engine that can go on from what a sample has said"
            raise UserError(rule, value=f"--engine {settings.name}", cure="use --engine transformers, or no tools")
        tools = ToolSampler(engine.sampler, settings.tools)
        undo.pop_all()
    return replace(engine, sampler=tools, facts={**engine.facts, "sandbox": tools.layers})


def _open_transformers(settings: EngineSettings) -> OpenEngine:
    from mathlete.sampling.embedded import open_transformers

    sampler = open_transformers(
        settings.source,
        precision=settings.precision,
        dtype=settings.computing[0],
        threads=settings.threads,
        prompts=settings.prompts,
    )
    return OpenEngine(sampler=sampler, rows=sampler.max_rows, facts={"threads": sampler.threads})


def _open_vllm(settings: EngineSettings) -> OpenEngine:
    from mathlete.sampling.served import VllmSampler

    own = settings.of(VllmSettings)
    sampler = VllmSampler(
        own,
        source=settings.source,
        prompts=settings.prompts,
        precision=settings.precision,
        max_tokens=settings.max_tokens,
        scores=settings.scores,
        on_lost=settings.on_lost,
    )
    return OpenEngine(sampler=sampler, rows=own.at_once, facts={"vllm": sampler.version})


def _open_servers(settings: EngineSettings) -> OpenEngine:
    from mathlete.sampling.served import OpenAISampler

    own = settings.of(ServerSettings)
    sampler = OpenAISampler(own, model=settings.source.location, prompts=settings.prompts, on_lost=settings.on_lost)
    rows, facts = own.at_once * len(own.urls), {"servers": len(own.urls)}
    return OpenEngine(sampler=sampler, rows=rows, facts=facts, opening=sampler.opening)


def _open_ray(settings: EngineSettings) -> OpenEngine:
    from mathlete.sampling.served import RaySampler

    own = settings.of(RaySettings)
    sampler = RaySampler(
        own,
        source=settings.source,
        precision=settings.precision,
        dtype=settings.dtype,
        threads=settings.threads,
        prompts=settings.prompts,
        on_lost=settings.on_lost,
    )
    return OpenEngine(sampler=sampler, rows=own.at_once * own.workers, facts={"workers": own.workers})


ENGINES: dict[str, EngineEntry] = {
    "transformers": EngineEntry(open=_open_transformers),
    "vllm": EngineEntry(open=_open_vllm, settings=VllmSettings, flags="--vllm."),
    "openai": EngineEntry(open=_open_servers, settings=ServerSettings, flags="--servers."),
    "ray": EngineEntry(open=_open_ray, settings=RaySettings, flags="--ray."),
}
"""What `--engine` knows: the embedded decode loop, vLLM started here, servers (--servers.urls), a cluster's workers."""
