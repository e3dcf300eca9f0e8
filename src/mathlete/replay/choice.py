"""Choice: the policy that a replay found best, as a file that `python -m submit build` and `python -m eval` take."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Self

from mathlete.competitions import Competition
from mathlete.errors import UserError
from mathlete.folders import require_result_file
from mathlete.prompts import PromptSettings
from mathlete.replay.drawn import DrawnAs, is_sayable, list_words, require_types
from mathlete.replay.outcomes import Outcome
from mathlete.replay.simulation import Wall
from mathlete.runs import read_record, write_json
from mathlete.sampling import SamplingConfig
from mathlete.tir import ToolSettings

_TYPES = {
    "policy": (str,),
    "budget": (str,),
    "n": (int,),
    "max_tokens": (int, type(None)),
    "harvest": (int, float),
    "harvest_tokens": (int, type(None)),
    "questions": (int,),
    "competition": (str,),
}
_SELDOM = ("harvest", "harvest_tokens", "tools", "prompt", "competition")
"""Fields that stand in a file only where they say something."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One policy in the words of the command lines, and what the replay expects of it."""

    policy: str
    """STOP/VOTE, as for --policy."""
    n: int
    max_tokens: int | None
    """Cap on a sample, tokens: the one that was tried, else the recordings'; None where they do not say it."""
    budget: str
    """As for --budget; none: no clock was tried."""
    recordings: tuple[str, ...]
    """The runs that were replayed."""
    questions: int
    score: float
    """Expected right answers of so many questions."""
    lo: float
    hi: float
    """The score's 90% interval, against other questions."""
    harvest: float = 0.0
    """Weight of forced answers, as for --harvest; 0: none."""
    sampling: Mapping[str, object] = field(default_factory=dict)
    """How the samples were drawn, by SamplingConfig's names; empty where the recordings do not say, or differ."""
    harvest_tokens: int | None = None
    """Cap on what fills the box of a forced answer; None: not said, as the next two."""
    tools: Mapping[str, object] | None = None
    """Python that the model had, by ToolSettings' names; {}: none."""
    prompt: Mapping[str, object] | None = None
    """What the prompt had otherwise than the model's folder says, by PromptSettings' names; {}: nothing."""
    competition: str = ""
    """Name of the rules by which the clock was replayed; "": a file of a version that did not say it."""

    def __post_init__(self) -> None:
        """Raise TypeError where a file has something else in a field."""
        for name, types in _TYPES.items():
            if type(getattr(self, name)) not in types:
                raise TypeError(f"{name} is {getattr(self, name)!r:.40}")
        for name in ("n", "max_tokens", "harvest_tokens", "questions"):
            if (number := getattr(self, name)) is not None and number < 1:
                raise TypeError(f"{name} is {number}")
        sampling = SamplingConfig.from_json(self.sampling)
        for settings in (sampling, self.draw_tools(ToolSettings()), self.draw_prompt(PromptSettings())):
            require_types(settings)
            settings.check()

    @property
    def words(self) -> str:
        """The choice as words of `python -m eval` and `python -m submit build`, without what is `unsaid`."""
        cap = f" --sampling.max-tokens {self.max_tokens}" if self.max_tokens else ""
        drawn = list_words("--sampling.", self.sampling, SamplingConfig())
        drawn += list_words("--tools.", self.tools or {}, ToolSettings())
        drawn += list_words("--prompt.", self.prompt or {}, PromptSettings())
        forced = f" --harvest {self.harvest:g}" if self.harvest else ""
        forced += f" --harvest-tokens {self.harvest_tokens}" if self.harvest and self.harvest_tokens else ""
        return f"--policy {self.policy} --n {self.n}{forced}{cap}{drawn} --budget {self.budget}"

    @property
    def unsaid(self) -> dict[str, object]:
        """What no command line has words for: {flag: value}; only the file carries it."""
        groups = {"--sampling.": self.sampling, "--tools.": self.tools or {}, "--prompt.": self.prompt or {}}
        return {
            f"{group}{name.replace('_', '-')}": value
            for group, values in groups.items()
            for name, value in values.items()
            if not is_sayable(value)
        }

    @classmethod
    def of(
        cls,
        best: Outcome,
        *,
        capped: bool,
        questions: int,
        recordings: Sequence[Path],
        drawn: DrawnAs,
        rules: Competition,
    ) -> Self:
        """Return a policy that was replayed as a choice.

        Args:
            best: what it scored (`Replay.find_best`).
            capped: whether caps were tried.
            questions: questions of a submission.
            recordings: the runs that were replayed.
            drawn: how their samples were drawn.
            rules: those of the competition, by which the clocks were replayed.
        """
        return cls(
            policy=f"{'all' if best.stop == 'none' else best.stop}/{best.vote}",
            n=best.n,
            max_tokens=best.max_tokens if capped else drawn.max_tokens,
            budget=best.wall.words if best.wall else "none",
            harvest=best.harvest,
            recordings=tuple(map(str, recordings)),
            questions=questions,
            score=best.score.new_set.value,
            lo=best.score.new_set.lo,
            hi=best.score.new_set.hi,
            sampling=drawn.sampling or {},
            harvest_tokens=drawn.harvest_tokens if best.harvest else None,
            tools=drawn.tools,
            prompt=drawn.prompt,
            competition=rules.name,
        )

    def refuse_clock(self, rules: Competition) -> UserError | None:
        """Return why the clock, if there is one, can't be that of a competition's notebook; None where it can."""
        if self.budget == "none":
            return None
        if self.competition not in ("", rules.name):
            rule = "a policy file's clock must be one by the rules of the competition that is built"
            value = f"one by those of {self.competition}, not {rules.name}"
            cure = f"name --competition as in the replay, of {self.competition}"
            return UserError(rule, value=value, cure=cure)
        try:
            wall = Wall.parse(self.budget, questions=self.questions)
        except UserError as error:
            return error
        return wall.refuse(questions=self.questions, rules=rules) if wall else None

    def sample(self, usual: SamplingConfig) -> SamplingConfig:
        """Return how the notebook draws: as the recordings were, where they say it, with the cap of the choice."""
        drawn = SamplingConfig.from_json(self.sampling) if self.sampling else usual
        tokens = self.max_tokens or usual.max_tokens
        return replace(drawn, max_tokens=tokens, timeout_s=usual.timeout_s, enough=usual.enough)

    @staticmethod
    def read_drawn(folders: Sequence[Path]) -> DrawnAs:
        """Return how the samples of recorded runs were drawn, as far as they say it."""
        return DrawnAs.read(folders)

    def draw_tools(self, usual: ToolSettings) -> ToolSettings:
        """Return the tools that the recordings' model had, where they say it."""
        return usual if self.tools is None else ToolSettings(**{**self.tools})  # type: ignore[arg-type]

    def draw_prompt(self, usual: PromptSettings) -> PromptSettings:
        """Return the prompt of the recordings, where they say it."""
        return usual if self.prompt is None else PromptSettings.from_json(self.prompt)

    def write(self, file: Path) -> None:
        """Write the choice as JSON."""
        write_json(
            file, {name: value for name, value in asdict(self).items() if name not in _SELDOM or value not in (0, None)}
        )

    @classmethod
    def require_place(cls, file: Path) -> None:
        """Check that a choice may be written to the file, before the work for it is done.

        Raises:
            UserError: it is no place for a result (`require_result_file`), or another file, which would be lost.
        """
        require_result_file(file)
        if not file.is_file():
            return
        try:
            cls.read(file)
        except UserError as error:
            rule = "--write-policy may only replace a policy file"
            raise UserError(rule, value=str(file), cure="name another file, or delete it first") from error

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read a choice that was written.

        Raises:
            UserError: no such file, or another content.
        """
        if not file.is_file():
            rule = "--policy-file must be one that `python -m eval replay --write-policy` wrote"
            raise UserError(rule, value=str(file), cure="check the path")
        try:
            return read_record(file, lambda row: cls(**{**row, "recordings": tuple(row["recordings"])}))
        except UserError as error:
            if str(file) in error.rule:
                raise
            cure = "mend it there, or write the file again with `python -m eval replay --write-policy`"
            raise UserError(f"{file}: {error.rule}", value=error.value, cure=cure) from error
