"""Settings of an evaluation: on what, of which model, how problems are solved."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mathlete.command import PlannedDevice
from mathlete.corpus import Suite, load_suite
from mathlete.engines import EngineSettings
from mathlete.errors import require
from mathlete.models import Precision, find_model, pick_default_model
from mathlete.prompts import PromptSettings
from mathlete.sampling import SamplingConfig
from mathlete.sampling.served import RaySettings, ServerSettings, VllmSettings
from mathlete.solve import BudgetSettings, Policy
from mathlete.tir import ToolSettings


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The model, and the engine that draws its samples."""

    model: str | None = None
    """pocket, a preset, a folder or a hub id; default: what this machine can run."""
    precision: Precision = "auto"
    """How weights are held; auto: as the model's folder says."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """What the embedded engine computes in; auto: what the GPU is made for, on a CPU float32, or bfloat16 where the CPU
    has instructions for it and the model 50 million parameters or more."""
    engine: str = "transformers"
    """What draws the samples: transformers, vllm, openai or ray."""
    threads: int | None = None
    """CPU threads; default: 1 for a small model, else as many as are fastest."""
    prompt: PromptSettings = field(default_factory=PromptSettings)
    vllm: VllmSettings = field(default_factory=VllmSettings)
    servers: ServerSettings = field(default_factory=ServerSettings)
    ray: RaySettings = field(default_factory=RaySettings)
    tools: ToolSettings = field(default_factory=ToolSettings)

    def choose(self, *, max_tokens: int) -> tuple[EngineSettings, str]:
        """Return (the engine's settings, which model it is and why); completions have so many tokens at most.

        Raises:
            UserError: the model or the engine is unknown, or a value is out of its range.
        """
        self.prompt.check()
        name, reason = (self.model, "named by --model") if self.model else pick_default_model()
        engine = EngineSettings(
            name=self.engine,
            source=replace(find_model(name), prompt=self.prompt),
            precision=self.precision,
            dtype=self.dtype,
            max_tokens=max_tokens,
            threads=self.threads,
            tools=self.tools,
            own=(self.vllm, self.servers, self.ray),
        )
        engine.check()
        return engine, f"model {name}: {reason}"


@dataclass(frozen=True, kw_only=True)
class SolveSettings:
    """How each problem is solved."""

    n: int = 8
    """Number of samples drawn for each problem."""
    policy: str = "all"
    """When a problem ends, how votes count, and how often the model judges between the answers:
    STOP[/VOTE][/selectN], as in beta95+exact/logprob/select4. all: all n samples; clock: beta95+exact. With n = 16 no
    vote beats majority at 95% on the pocket model's recording (docs/solving.md)."""
    budget: Annotated[str, tyro.conf.arg(aliases=["--time-budget"])] = "none"
    """A clock that all problems share, which then come one after another with an allowance each: none, or
    SECONDS[:FLOOR:CEILING[:RESERVE]] as for `python -m eval replay`."""
    seed: int = 0
    """Another seed gives other samples."""
    harvest: float = 0.0
    """Weight of a forced answer beside a sample's own, 0 to 1; 0: none is asked for. A sample that was cut without an
    answer is closed and made to fill a box, with the most likely tokens. A finished run is extended by them alone."""
    harvest_tokens: int = 32
    """Cap on what fills that box, tokens."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def to_policy(self) -> Policy:
        """Return the policy in words and numbers.

        Raises:
            UserError: an unknown stop or vote, or a value out of its range.
        """
        return Policy(
            n=self.n,
            seed=self.seed,
            sampling=self.sampling,
            harvest=self.harvest,
            harvest_tokens=self.harvest_tokens,
        ).with_words(self.policy)

    def to_budget(self, *, questions: int) -> BudgetSettings | None:
        """Return the clock that so many questions share; None where there is none.

        Raises:
            UserError: words that are no budget, or floors that do not fit.
        """
        return BudgetSettings.parse(self.budget, questions=questions)


@dataclass(frozen=True, kw_only=True)
class EvalSettings:
    """What to run on what."""

    suite: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SUITE")]
    """A suite's name, a file of problems (.jsonl, .json, .csv, .parquet), or source:NAME, the problems of a training
    source or file."""
    mirror: Path | None = None
    """Folder that stands in for the hub's data sets."""
    limit: int | None = None
    """Use only the first so many problems."""
    planned: Annotated[PlannedDevice, tyro.conf.arg(name="")] = field(default_factory=PlannedDevice)
    model: Annotated[ModelSettings, tyro.conf.arg(name="")] = field(default_factory=ModelSettings)
    solving: Annotated[SolveSettings, tyro.conf.arg(name="")] = field(default_factory=SolveSettings)
    accept_refused: str = ""
    """Why to evaluate a model that the gates of its training refused: for the run's manifest."""
    run: Path | None = None
    """The run's folder; default: runs/eval-SUITE-MODEL-HASH, so that the same command goes on where it stopped."""
    overwrite: bool = False
    """Delete what a run of other settings left in the folder. More samples or problems of the same seed need it not:
    they are added to what is there."""
    plan: bool = False
    """Print what weights and KV cache need on the device, for the embedded engine and vLLM, and stop."""
    json: bool = False
    """End with one line of JSON on stdout."""

    def load_problems(self) -> Suite:
        """Return the suite, as far as the limit goes.

        Raises:
            UserError: an unknown suite, a file that holds no problems, or a limit below 1.
        """
        good = self.limit is None or self.limit >= 1
        require(("limit", self.limit, good, "at least 1"), cure="use --limit 1, or leave it out")
        suite = load_suite(self.suite, mirror=self.mirror)
        return suite if self.limit is None else replace(suite, problems=suite.problems[: self.limit])
