"""Settings of an evaluation: on what, of which model, how problems are solved."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from mathlete.command import PlannedDevice
from mathlete.corpus import Suite, load_suite
from mathlete.drawing import ModelSettings
from mathlete.errors import require
from mathlete.sampling import SamplingConfig
from mathlete.solve import BudgetSettings, Policy


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
    competition: str | None = None
    """Whose scorer judges the answers beside mathlete's checker: a competition's name, or a file of rules, NAME.toml.
    A finished run is judged without drawing anything."""
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
        suite = load_suite(self.suite, mirror=self.mirror, limit=self.limit)
        return suite if self.limit is None else replace(suite, problems=suite.problems[: self.limit])
