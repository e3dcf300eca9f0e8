"""Choice: the policy that a replay found best, as a file that `python -m submit build` and `python -m eval` take."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Self

from mathlete.errors import UserError
from mathlete.replay.outcomes import Outcome
from mathlete.runs import read_json, read_record, write_json
from mathlete.sampling import SamplingConfig

_CARRIED = ("temperature", "top_p", "min_p", "top_k", "repetition_penalty", "stop")
"""Words of SamplingConfig that change what a sample says: what was replayed holds for these alone."""

_TYPES = {
    "policy": (str,),
    "budget": (str,),
    "n": (int,),
    "max_tokens": (int, type(None)),
    "harvest": (int, float),
}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One policy in the words of the command lines, and what the replay expects of it."""

    policy: str
    """STOP/VOTE, as for --policy."""
    n: int
    max_tokens: int | None
    """Cap on a sample, tokens; None where no cap was tried."""
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

    def __post_init__(self) -> None:
        """Raise TypeError where a file has something else in a field."""
        for name, types in _TYPES.items():
            if type(getattr(self, name)) not in types:
                raise TypeError(f"{name} is {getattr(self, name)!r:.40}")
        SamplingConfig.from_json(self.sampling).check()

    @property
    def words(self) -> str:
        """The choice as words of `python -m eval` and `python -m submit build`."""
        cap = f" --sampling.max-tokens {self.max_tokens}" if self.max_tokens else ""
        drawn = "".join(f" {word}" for word in self.sampling_words())
        forced = f" --harvest {self.harvest:g}" if self.harvest else ""
        return f"--policy {self.policy} --n {self.n}{forced}{drawn} --budget {self.budget}{cap}"

    @classmethod
    def best(
        cls,
        outcomes: Sequence[Outcome],
        *,
        capped: bool,
        questions: int,
        recordings: Sequence[Path],
        sampling: Mapping[str, object],
    ) -> Self:
        """Choose the policy with the highest expected score; of equal ones the quickest.

        A vote, or a weight of forced answers, that is not shown to beat majority is chosen only where nothing else was
        tried: the highest of several scores is high by luck too.

        Args:
            outcomes: what was tried. A clock without allowances is passed over: no notebook has one.
            capped: whether caps were tried.
            questions: questions of a submission.
            recordings: the runs that were replayed.
            sampling: how their samples were drawn (`Choice.read_sampling`).

        Raises:
            UserError: no policy is one that a notebook can have.
        """
        possible = cls.list_possible(outcomes)
        if not possible:
            raise UserError(
                "a policy to hand on needs a clock with allowances, or none",
                value="only clocks of the form SECONDS:free",
                cure="try --budget SECONDS or SECONDS:FLOOR:CEILING too",
            )
        shown = [one for one in possible if one.is_shown]
        best = max(shown or possible, key=lambda one: (round(one.score.new_set.value, 6), -one.submission_s))
        return cls(
            policy=f"{'all' if best.stop == 'none' else best.stop}/{best.vote}",
            n=best.n,
            max_tokens=best.max_tokens if capped else None,
            budget=best.wall.words if best.wall else "none",
            harvest=best.harvest,
            recordings=tuple(map(str, recordings)),
            questions=questions,
            score=best.score.new_set.value,
            lo=best.score.new_set.lo,
            hi=best.score.new_set.hi,
            sampling=sampling,
        )

    @staticmethod
    def list_possible(outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Return those that a notebook can have: none has a clock without allowances."""
        return [one for one in outcomes if one.wall is None or one.wall.floor_s is not None]

    def sample(self, usual: SamplingConfig) -> SamplingConfig:
        """Return how the notebook draws: as the recordings were, where they say it, with the cap of the choice."""
        drawn = SamplingConfig.from_json(self.sampling) if self.sampling else usual
        tokens = self.max_tokens or usual.max_tokens
        return replace(drawn, max_tokens=tokens, timeout_s=usual.timeout_s, enough=usual.enough)

    @staticmethod
    def read_sampling(folders: Sequence[Path]) -> dict[str, object]:
        """Return how samples of recorded runs were drawn, by SamplingConfig's names; {} where they differ or don't say.

        A run that was imported from another tool's log says it in part at most, so it counts as one that does not.
        """
        drawn = [_read_sampling(folder / "results.json") for folder in folders]
        return drawn[0] if drawn and all(one == drawn[0] for one in drawn) else {}

    def sampling_words(self) -> list[str]:
        """Return the flags of `--sampling.…` by which a command draws as the recordings were drawn."""
        usual = vars(SamplingConfig())
        drawn = {name: value for name, value in self.sampling.items() if value != usual[name]}
        return [
            f"--sampling.{name.replace('_', '-')} {shlex.join(map(str, value if isinstance(value, list) else [value]))}"
            for name, value in drawn.items()
        ]

    def write(self, file: Path) -> None:
        """Write the choice as JSON; a weight of forced answers only where there is one."""
        write_json(file, {name: value for name, value in asdict(self).items() if name != "harvest" or value})

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read a choice that was written.

        Raises:
            UserError: no such file, or another content.
        """
        return read_record(file, lambda row: cls(**{**row, "recordings": tuple(row["recordings"])}))


def _read_sampling(file: Path) -> dict[str, object]:
    row = read_json(file) if file.is_file() else {}
    policy = row.get("policy")
    sampling = policy.get("sampling") if isinstance(policy, dict) else None
    if "imported" in str(row.get("engine", "imported")) or not isinstance(sampling, dict):
        return {}
    return {name: value for name, value in sampling.items() if name in _CARRIED}
