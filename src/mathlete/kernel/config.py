"""The notebook's settings: one JSON value in one of its cells."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from mathlete.competitions import Competition, competition
from mathlete.errors import UserError, require
from mathlete.models import Precision
from mathlete.solve import Policy
from mathlete.tir import ToolSettings


@dataclass(frozen=True, kw_only=True)
class KernelConfig:
    """How the notebook answers."""

    competition: Competition = field(default_factory=lambda: competition("aimo-3"))
    """The competition's rules: the notebook carries them, so a file of one's own needs nothing on Kaggle."""
    policy: Policy = field(default_factory=Policy)
    """How one problem is solved."""
    precision: Precision = "auto"
    """How weights are held; auto: as the model's folder says."""
    problems: int = 50
    """Questions to share the clock among."""
    wall_s: float = 5 * 3600.0
    """The notebook's wall clock, seconds from its first cell."""
    reserve_s: float = 600.0
    """Left unused at the end, seconds: the gateway still has to write its file, and its clock may differ."""
    question_min_s: float = 300.0
    """Floor of a question, seconds: kept for every question still to come (`mathlete.solve.budget`)."""
    question_max_s: float = 900.0
    """Ceiling of one question, seconds. Floor and ceiling are those of AIMO-3's field."""
    load_max_s: float = 1200.0
    """Ceiling of one loading of the model, seconds."""
    deadline_s: float = 1800.0
    """The gateway's own deadline of every call after the first, seconds: 30 min in AIMO-2, 9 h in AIMO-3."""
    tools: ToolSettings = field(default_factory=ToolSettings)
    """Whether, and how, the model may run Python."""
    fallback: int = 0
    """The integer sent where no sample has an answer. It is counted and journalled, never voted for."""

    def check(self) -> None:
        """Raise UserError where a value is out of its range."""
        rules = self.competition
        self.policy.check()
        self.tools.check()
        low, high = rules.answer_min, rules.answer_max
        floor_s, ceiling_s = self.question_min_s, self.question_max_s
        require(
            ("problems", self.problems, self.problems >= 1, "at least 1", f"use {rules.problems}"),
            (
                "wall_s",
                self.wall_s,
                self.wall_s > self.reserve_s >= 0,
                "longer than the reserve",
                f"use {rules.wall_s}",
            ),
            ("question_min_s", floor_s, 0 <= floor_s <= ceiling_s, "0 to the ceiling", "use 300"),
            ("question_max_s", ceiling_s, ceiling_s > 0, "above 0", "use 900"),
            ("deadline_s", self.deadline_s, self.deadline_s > 0, "above 0", "use 1800"),
            ("load_max_s", self.load_max_s, self.load_max_s > 0, "above 0", "use 1200"),
            ("fallback", self.fallback, low <= self.fallback <= high, f"{low} to {high}", "use 0"),
            prefix="the notebook's ",
        )

    def speed_up(self, speed: float) -> "KernelConfig":
        """Return the settings for a clock that runs `speed` times as fast: every time limit is divided by it."""
        names = ("wall_s", "reserve_s", "question_min_s", "question_max_s", "deadline_s")
        return replace(self, **{name: getattr(self, name) / speed for name in names})

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON values; `config_from` reads them back."""
        return {**asdict(self), "policy": self.policy.to_json(), "competition": self.competition.to_json()}


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
            # Older builds carry the name alone.
            "competition": competition(rules) if isinstance(rules, str) else Competition.from_json(rules),
        }
        config = KernelConfig(**{**value, **read})
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"the notebook's settings must be those of this version ({error})", cure="build the notebook again"
        ) from error
    config.check()
    return config
