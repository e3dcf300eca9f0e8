"""The three AI Mathematical Olympiad progress prizes: what an answer may be, and the clock it is given under."""

from dataclasses import dataclass

from mathlete.errors import UserError, nearest


@dataclass(frozen=True, kw_only=True)
class Competition:
    """One competition's rules. Sources: the competitions' own overview and evaluation pages."""

    slug: str
    """Kaggle's competition slug."""
    answer_min: int
    """Smallest answer that may be submitted."""
    answer_max: int
    """Largest answer that may be submitted."""
    modulus: int | None
    """What an integer outside the range is reduced by; None where the rules reduce nothing."""
    problems: int
    """Problems served in one rerun."""
    wall_s: int
    """Notebook wall clock of a rerun, seconds."""
    columns: tuple[str, str]
    """Names of the two columns `predict` receives."""
    predict_deadline_s: int
    """Deadline of every `predict` call after the first, seconds."""


AIMO_1 = Competition(
    slug="ai-mathematical-olympiad-prize",
    answer_min=0,
    answer_max=999,
    modulus=1000,
    problems=50,
    wall_s=9 * 3600,
    columns=("id", "problem"),
    predict_deadline_s=9 * 3600,
)
AIMO_2 = Competition(
    slug="ai-mathematical-olympiad-progress-prize-2",
    answer_min=0,
    answer_max=999,
    modulus=1000,
    problems=50,
    wall_s=5 * 3600,
    columns=("id", "question"),
    predict_deadline_s=30 * 60,
)
AIMO_3 = Competition(
    slug="ai-mathematical-olympiad-progress-prize-3",
    answer_min=0,
    answer_max=99_999,
    modulus=None,
    problems=50,
    wall_s=5 * 3600,
    columns=("id", "problem"),
    predict_deadline_s=9 * 3600,
)
COMPETITIONS = {"aimo-1": AIMO_1, "aimo-2": AIMO_2, "aimo-3": AIMO_3}


def competition(name: str) -> Competition:
    """The competition of that name.

    Raises:
        UserError: an unknown name, with the nearest known ones.
    """
    if name not in COMPETITIONS:
        raise UserError("the competition must be a known one", value=repr(name), cure=nearest(name, list(COMPETITIONS)))
    return COMPETITIONS[name]
