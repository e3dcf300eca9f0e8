"""The notebook's settings: one JSON value in one of its cells."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from mathlete.competitions import Competition, competition
from mathlete.errors import UserError, require
from mathlete.models import Precision
from mathlete.prompts import PromptSettings
from mathlete.sampling.served import VllmSettings
from mathlete.settings import NAMELESS, flatten, nest
from mathlete.solve import BudgetSettings, Policy
from mathlete.tir import ToolSettings

ENGINES_THERE = ("transformers", "vllm")
"""Engines of `mathlete.engines` that a notebook can open: the embedded decode loop, and vLLM."""
_FROM_RULES: Any = None
"""Default of a field that follows the competition's rules."""
_CALL_SHARE = 0.9
"""Share of the gateway's deadline in which a call is answered."""


@dataclass(frozen=True, kw_only=True)
class NotebookClock:
    """How long what the notebook does may take; the settings' own JSON has these values beside the others."""

    wall_s: float = _FROM_RULES
    """The notebook's wall clock, seconds from its first cell."""
    reserve_s: float = _FROM_RULES
    """Left unused at the end, seconds: the gateway still has to write its file, and its clock may differ."""
    question_min_s: float = _FROM_RULES
    """Floor of a question, seconds: kept for every question still to come (`mathlete.solve.budget`)."""
    question_max_s: float = _FROM_RULES
    """Ceiling of one question, seconds."""
    load_max_s: float = 1200.0
    """Ceiling of one loading of the model, seconds."""
    deadline_s: float = _FROM_RULES
    """The gateway's own deadline of every call after the first, seconds."""

    def follow(self, rules: Competition) -> "NotebookClock":
        """Return the clock with what was left to the competition's rules, whose values were checked on reading."""
        own = rules.notebook
        share = BudgetSettings.share_evenly(wall_s=own.wall_s, questions=rules.problems)
        usual = {
            "wall_s": float(own.wall_s),
            "reserve_s": own.reserve_s,
            "question_min_s": share.floor_s if rules.question_min_s is None else rules.question_min_s,
            "question_max_s": share.ceiling_s if rules.question_max_s is None else rules.question_max_s,
            "deadline_s": float(own.predict_deadline_s),
        }
        return replace(self, **{name: value for name, value in usual.items() if getattr(self, name) is None})

    def check(self) -> None:
        """Raise UserError where a value is out of its range."""
        floor_s, ceiling_s, reserve_s = self.question_min_s, self.question_max_s, self.reserve_s
        clock = "leave out wall_s, reserve_s, question_min_s and question_max_s"
        require(
            ("reserve_s", reserve_s, reserve_s >= 0, "0 or more", "leave it out"),
            (
                "wall_s",
                self.wall_s,
                reserve_s < self.wall_s < math.inf,
                f"longer than the reserve of {reserve_s:g} s",
                clock,
            ),
            ("question_max_s", ceiling_s, 0 < ceiling_s < math.inf, "above 0", clock),
            ("question_min_s", floor_s, 0 <= floor_s <= ceiling_s, f"0 to the ceiling of {ceiling_s:g} s", clock),
            ("deadline_s", self.deadline_s, self.deadline_s > 0, "above 0", "leave it out"),
            ("load_max_s", self.load_max_s, self.load_max_s > 0, "above 0", "leave it out"),
            prefix="the notebook's ",
        )

    @property
    def call_s(self) -> float:
        """Seconds in which a call is answered: less than the gateway's deadline, which would end the whole run."""
        return _CALL_SHARE * self.deadline_s

    def share(self, left_s: float, *, problems: int) -> BudgetSettings | None:
        """Return how the questions share what is left of the wall; None where that is no more than the reserve."""
        spare_s = left_s - self.reserve_s
        if spare_s <= 0:
            return None
        # After a late start, full floors for all questions would no longer fit into what is left.
        floor_s = min(self.question_min_s, spare_s / problems, self.call_s)
        ceiling_s = max(floor_s, min(self.question_max_s, self.call_s))
        return BudgetSettings(
            wall_s=left_s, reserve_s=self.reserve_s, floor_s=floor_s, ceiling_s=ceiling_s, questions=problems
        )

    def speed_up(self, speed: float) -> "NotebookClock":
        """Return a clock that runs `speed` times as fast; what loads has as long as before."""
        names = ("wall_s", "reserve_s", "question_min_s", "question_max_s", "deadline_s")
        return replace(self, **{name: getattr(self, name) / speed for name in names})


@dataclass(frozen=True, kw_only=True)
class KernelConfig:
    """How the notebook answers."""

    competition: Competition = field(default_factory=lambda: competition("aimo-3"))
    """The competition's rules: the notebook carries them, so a file of one's own needs nothing on Kaggle."""
    policy: Policy = field(default_factory=Policy)
    """How one problem is solved."""
    engine: str = "transformers"
    """What draws the samples first: one of ENGINES_THERE."""
    embedded: bool = True
    """Whether the embedded engine can load the model, and so draws where vLLM does not come up; else vLLM is tried
    again. The build finds it out: the notebook has no table of formats."""
    vllm: VllmSettings = field(default_factory=VllmSettings)
    """Settings of vLLM, where that is the engine."""
    precision: Precision = "auto"
    """How weights are held; auto: as the model's folder says."""
    problems: int = _FROM_RULES
    """Questions to share the clock among."""
    clock: Annotated[NotebookClock, NAMELESS] = field(default_factory=NotebookClock)
    tools: ToolSettings = field(default_factory=ToolSettings)
    """Whether, and how, the model may run Python."""
    prompt: PromptSettings = field(default_factory=PromptSettings)
    """What stands in the model's prompt otherwise than its folder says."""
    fallback: int = _FROM_RULES
    """The integer sent where no sample has an answer. It is counted and journalled, never voted for."""

    def __post_init__(self) -> None:
        """Fill in what was left to the competition's rules."""
        rules = self.competition
        followed = {"clock": self.clock.follow(rules)}
        followed |= {name: getattr(rules, name) for name in ("problems", "fallback") if getattr(self, name) is None}
        for name, value in followed.items():
            object.__setattr__(self, name, value)

    def check(self) -> None:
        """Raise UserError where a value is out of its range."""
        self.policy.check()
        self.tools.check()
        self.prompt.check()
        self.vllm.check()
        self.clock.check()
        engines = f"one of {', '.join(ENGINES_THERE)}"
        answers = self.competition.notebook.answers
        require(
            ("engine", self.engine, self.engine in ENGINES_THERE, engines),
            ("problems", self.problems, self.problems >= 1, "at least 1"),
            ("fallback", self.fallback, self.fallback in answers, f"{answers[0]} to {answers[-1]}"),
            prefix="the notebook's ",
            cure="leave it out",
        )

    @staticmethod
    def read_budget(words: str, *, rules: Competition, questions: int) -> BudgetSettings | None:
        """Return the clock that a `--budget` word is in the competition's notebook, and so in a replay; None: none.

        Without RESERVE the seconds that the rules keep back are those of the competition's whole clock: a clock that
        leaves as many of it is taken as it is. No question gets more than the time in which a call is answered.

        Raises:
            UserError: words that are no budget, floors that do not fit, or a competition that takes no notebook.
        """
        budget, own = BudgetSettings.parse(words, questions=questions), rules.notebook
        if budget is None:
            return None
        kept_s = max(0.0, own.reserve_s - max(0.0, own.wall_s - budget.wall_s))
        try:
            budget = BudgetSettings.parse(words, questions=questions, reserve_s=kept_s) or budget
        except UserError as error:
            value = f"{error.value}, for the rules of {rules.name} keep {kept_s:g} s back"
            cure = "lower FLOOR, raise SECONDS, or write what is kept back: --budget SECONDS:FLOOR:CEILING:RESERVE"
            raise UserError(error.rule, value=value, cure=cure) from error
        call_s = _CALL_SHARE * own.predict_deadline_s
        return replace(budget, floor_s=min(budget.floor_s, call_s), ceiling_s=min(budget.ceiling_s, call_s))

    def with_budget(self, words: str) -> "KernelConfig":
        """Return the settings with the clock of a `--budget` word; "" and none are the competition's.

        Raises:
            UserError: as `read_budget`, or a clock longer than the competition's.
        """
        budget = self.read_budget(words or "none", rules=self.competition, questions=self.problems)
        if budget is None:
            return self
        rules = self.competition.notebook
        if budget.wall_s > rules.wall_s:
            raise UserError(
                f"--budget must keep within the competition's {rules.wall_s} s",
                value=words,
                cure="leave it out for the competition's clock",
            )
        clock = replace(
            self.clock,
            wall_s=budget.wall_s,
            reserve_s=budget.reserve_s,
            question_min_s=budget.floor_s,
            question_max_s=budget.ceiling_s,
        )
        return replace(self, clock=clock)

    def share_clock(self, left_s: float) -> BudgetSettings | None:
        """Return how the questions share what is left of the wall; None where that is no more than the reserve."""
        return self.clock.share(left_s, problems=self.problems)

    def speed_up(self, speed: float) -> "KernelConfig":
        """Return the settings for a clock that runs `speed` times as fast: every time limit is divided by it."""
        return replace(self, clock=self.clock.speed_up(speed))

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON values; `config_from` reads them back."""
        # Only what says something, so that a notebook of before is still the same.
        rules = {key: part for key, part in self.competition.to_json().items() if part is not None}
        value = {**flatten(self), "policy": self.policy.to_json(), "competition": rules}
        prompt = {"prompt": said} if (said := self.prompt.to_json()) else {}
        alone = {} if self.embedded else {"embedded": False}
        served = {"engine": self.engine, "vllm": value["vllm"], **alone} if self.engine == "vllm" else {}
        return {
            **{name: own for name, own in value.items() if name not in ("prompt", "engine", "vllm", "embedded")},
            **prompt,
            **served,
        }


def config_from(value: Mapping[str, Any]) -> KernelConfig:
    """Return the settings that a parsed JSON value holds.

    Raises:
        UserError: an unknown key or a value out of its range.
    """
    try:
        rules = value["competition"]
        read = {
            "policy": Policy.from_json(value["policy"]),
            "tools": ToolSettings(**value["tools"]),
            "prompt": PromptSettings.from_json(value.get("prompt", {})),
            "vllm": VllmSettings(**value.get("vllm", {})),
            # Older builds carry the name alone.
            "competition": competition(rules) if isinstance(rules, str) else Competition.from_json(rules),
        }
        nested = nest(KernelConfig, {**value, **read})
        config = KernelConfig(**{**nested, "clock": NotebookClock(**nested["clock"])})
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"the notebook's settings must be those of this version ({error})", cure="build the notebook again"
        ) from error
    config.check()
    return config
