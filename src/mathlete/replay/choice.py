"""Choice: the policy that a replay found best, as a file that `python -m submit build` and `python -m eval` take."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from mathlete.errors import UserError
from mathlete.replay.outcomes import Outcome
from mathlete.runs import read_record, write_json


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

    def __post_init__(self) -> None:
        """Raise TypeError where a file has something else in a field."""
        for name, types in {"policy": (str,), "budget": (str,), "n": (int,), "max_tokens": (int, type(None))}.items():
            if type(getattr(self, name)) not in types:
                raise TypeError(f"{name} is {getattr(self, name)!r:.40}")

    @property
    def words(self) -> str:
        """The choice as words of `python -m eval` and `python -m submit build`."""
        cap = f" --sampling.max-tokens {self.max_tokens}" if self.max_tokens else ""
        return f"--policy {self.policy} --n {self.n} --budget {self.budget}{cap}"

    @classmethod
    def best(cls, outcomes: Sequence[Outcome], *, capped: bool, questions: int, recordings: Sequence[Path]) -> Self:
        """Choose the policy with the highest expected score; of equal ones the quickest.

        Args:
            outcomes: what was tried. A clock without allowances is passed over: no notebook has one.
            capped: whether caps were tried.
            questions: questions of a submission.
            recordings: the runs that were replayed.

        Raises:
            UserError: no policy is one that a notebook can have.
        """
        possible = [one for one in outcomes if one.wall is None or one.wall.floor_s is not None]
        if not possible:
            raise UserError(
                "a policy to hand on needs a clock with allowances, or none",
                value="only clocks of the form SECONDS:free",
                cure="try --budget SECONDS or SECONDS:FLOOR:CEILING too",
            )
        best = max(possible, key=lambda one: (round(one.score.new_set.value, 6), -one.submission_s))
        return cls(
            policy=f"{'all' if best.stop == 'none' else best.stop}/{best.vote}",
            n=best.n,
            max_tokens=best.max_tokens if capped else None,
            budget=best.wall.words if best.wall else "none",
            recordings=tuple(map(str, recordings)),
            questions=questions,
            score=best.score.new_set.value,
            lo=best.score.new_set.lo,
            hi=best.score.new_set.hi,
        )

    def write(self, file: Path) -> None:
        """Write the choice as JSON."""
        write_json(file, asdict(self))

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read a choice that was written.

        Raises:
            UserError: no such file, or another content.
        """
        return read_record(file, lambda row: cls(**{**row, "recordings": tuple(row["recordings"])}))
