"""Facts of a run: what its scores depend on, and what it was made with."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

from mathlete.sampling import Sample
from mathlete.solve import BudgetSettings, Ended, Policy

MAY_DIFFER = frozenset(("suite", "suite_sha", "problems", "budget", "prompt", "n", "seed", "enough"))
"""Settings in which the slices of one recording may differ; a prompt's are in the prompt's own hash."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What the scores of a run depend on. Their hash names the run's folder and says whether it is finished."""

    suite: str
    suite_sha: str
    problems: int
    precision: str
    dtype: str = ""
    """What the embedded engine computed in, as torch names it; "" for other engines."""
    policy: Policy
    budget: BudgetSettings | None
    """One clock for all problems; None where each had all its samples."""
    tools: dict[str, object] | None
    """`mathlete.tir.ToolSettings` as JSON, which nothing reads again; None where the model had no tools."""
    prompt: dict[str, object] | None = None
    """`mathlete.prompts.PromptSettings` as JSON; None where the prompt is as the model's folder says."""
    opens_thoughts: str = "auto"
    """What `--servers.opens-thoughts` says of a server's own template; auto: nothing."""
    engine: str
    model_sha: str
    IMPORTED: ClassVar = "imported"
    """The engine of a run that is made of other tools' logs."""

    @property
    def fixed(self) -> dict[str, object]:
        """{name: value} of all settings that the slices of one recording have in common."""
        sampling = vars(self.policy.sampling)
        named = {
            **vars(self),
            **vars(self.policy),
            **sampling,
            "stop": self.policy.stop,
            "stop strings": sampling["stop"],
        }
        # A run without a word of its type was in float32, as `to_json` says. Dense weights are what auto makes of them.
        named |= {"dtype": self.dtype or "float32", "precision": self.precision.replace("dense", "auto")}
        return {name: value for name, value in named.items() if name not in MAY_DIFFER | {"policy", "sampling"}}

    def to_json(self) -> dict[str, Any]:
        """Return the settings in the order of results.json; budget, tools and prompt only where the run had them.

        A type only where it isn't float32, which runs without any word of it had on a CPU: they go on as they are.
        """
        return {
            "suite": self.suite,
            "suite_sha": self.suite_sha,
            "problems": self.problems,
            "precision": self.precision,
            **({"dtype": self.dtype} if self.dtype not in ("", "float32") else {}),
            "policy": self.policy.to_json(),
            **({"budget": asdict(self.budget)} if self.budget else {}),
            **({"tools": self.tools} if self.tools else {}),
            **({"prompt": self.prompt} if self.prompt else {}),
            **({"opens_thoughts": self.opens_thoughts} if self.opens_thoughts != "auto" else {}),
            "engine": self.engine,
            "model_sha": self.model_sha,
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Return the settings among the keys of results.json."""
        plain = ("suite", "suite_sha", "problems", "precision", "engine", "model_sha")
        return cls(
            **{name: row[name] for name in plain},
            dtype=row.get("dtype", ""),
            policy=Policy.from_json(row["policy"]),
            budget=_budget(row.get("budget")),
            tools=row.get("tools"),
            prompt=row.get("prompt"),
            opens_thoughts=row.get("opens_thoughts", "auto"),
        )


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What results.json says of a finished run beside its scores."""

    settings: RunSettings
    n: int
    """Number of samples drawn for each problem."""
    model: str
    engine_facts: dict[str, Any]
    """What the engine adds: its threads, version, servers, workers, or the layers of its sandbox."""
    prompt_sha: str
    commit: str
    """Of mathlete's checkout; "" for an installed wheel."""
    dirty: bool
    seconds: float
    """Wall time of drawing the samples."""
    tokens_per_s: float | None
    """None where no sample was drawn, because all were recorded before."""
    resumed_samples: int

    @property
    def missing(self) -> tuple[str, ...]:
        """What the log does not say that an imported run was made of: `seconds`, `tokens`, `text` and so on."""
        return tuple(self.engine_facts.get("missing", ()))

    def samples_asked(self, ended: Ended) -> int | None:
        """Return how many samples a problem would have had but for a clock; None where it has all it was to have.

        A shared clock also asks for fewer than n from the start; without one, an uneven log was uneven by itself.
        """
        return self.n if ended == "time" or (ended == "all" and self.settings.budget is not None) else None

    @staticmethod
    def count_gaps(samples: Iterable[Sample]) -> int:
        """Return how many samples the problems lack to have as many as the one with the most."""
        counts = Counter(sample.problem_id for sample in samples if sample.finish != "clock").values()
        return len(counts) * max(counts, default=0) - sum(counts)

    def to_json(self) -> dict[str, Any]:
        """Return the facts in the order of results.json."""
        return {
            **self.settings.to_json(),
            "n": self.n,
            "model": self.model,
            **self.engine_facts,
            "prompt_sha": self.prompt_sha,
            "commit": self.commit,
            "dirty": self.dirty,
            "seconds": self.seconds,
            "tokens_per_s": self.tokens_per_s,
            "resumed_samples": self.resumed_samples,
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Return the facts among the keys of results.json."""
        # Engines add facts of their own, so these have no fixed names: they are all that stands after the model.
        names = [*row]
        engine = names[names.index("model") + 1 : names.index("prompt_sha")]
        own = {name: row[name] for name in cls.__dataclass_fields__ if name not in ("settings", "engine_facts")}
        return cls(**own, settings=RunSettings.from_json(row), engine_facts={name: row[name] for name in engine})


def is_whole(
    ended: Mapping[str, int], settings: RunSettings | None, samples: Iterable[Sample], *, told: object
) -> bool | None:
    """Return whether no rule and no clock kept samples from a run; None where nobody knows.

    Args:
        ended: {why a problem ended: how many did}.
        settings: the run's; None where they are not known.
        samples: all that it has.
        told: what an import says in results.json of the logs that it was made of (`whole`).
    """
    if settings is None or settings.budget is not None or settings.policy.stop != "none":
        return False
    if ended.keys() & {"rule", "time"}:
        return False
    # Another tool's own rules and clock are in no log: its samples are all there, or it says what became of the others.
    known = settings.engine != RunSettings.IMPORTED or told is True or not RunFacts.count_gaps(samples)
    return known or None


def _budget(row: Mapping[str, Any] | None) -> BudgetSettings | None:
    if row is None:
        return None
    counts = row["questions"]
    # JSON has only strings as keys; a distribution over the number of questions has numbers.
    questions = counts if isinstance(counts, int) else {int(count): share for count, share in counts.items()}
    return BudgetSettings(**{**row, "questions": questions})
