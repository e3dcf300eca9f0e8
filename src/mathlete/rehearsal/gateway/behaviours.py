"""What was measured of each version of Kaggle's kaggle_evaluation, and what a competition's gateway adds to it."""

from dataclasses import dataclass

from mathlete.competitions import Competition
from mathlete.errors import UserError, nearest

RESULT = "result.json"
_FIRST_PORT, _MORE_PORTS = 50051, tuple(range(60053, 60063))
STARTUP_LIMIT_S = 900.0
"""Seconds in which the notebook's server must come up after the gateway starts."""


@dataclass(frozen=True, kw_only=True)
class Package:
    """One version of kaggle_evaluation."""

    version: str
    ports: tuple[int, ...] = (_FIRST_PORT, *_MORE_PORTS)
    """Ports that both ends try in turn; 0.3.0 knows only the first."""
    functions_only: bool = False
    """Whether bound methods and callable objects are refused, as in 0.9.0."""
    deadline_error: bool = True
    """Whether an overrun deadline has an error of its own, as from 0.7.0 on."""
    checks_ids: bool = False
    """Whether each prediction must be a frame with the id that was asked, as in 0.3.0."""
    writes_own_ids: bool = False
    """Whether the gateway's ids replace those of the predictions in the file, as in 0.9.0."""
    gone_is_never_started: bool = True
    """Whether a container that went away is a SERVER_NEVER_STARTED, as in 0.3.0 and 0.7.0; 0.9.0 shows a traceback."""


PACKAGES = {
    package.version: package
    for package in (
        Package(version="0.3.0", ports=(_FIRST_PORT,), deadline_error=False, checks_ids=True),
        Package(version="0.7.0"),
        Package(version="0.9.0", functions_only=True, writes_own_ids=True, gone_is_never_started=False),
    )
}


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """A competition's gateway: its package's behaviour with the competition's columns and deadline."""

    package: Package
    id_column: str = "id"
    """The column of test.csv that holds the ids."""
    submission_id: str = "id"
    """The submission's column of ids."""
    deadline_s: float
    """Deadline of every call after the first, seconds."""
    startup_s: float = STARTUP_LIMIT_S

    @classmethod
    def of(cls, rules: Competition) -> "Behaviour":
        """Return the behaviour of a competition's gateway.

        Raises:
            UserError: its package was not measured.
        """
        version = str(rules.gateway.package)
        if version not in PACKAGES:
            raise UserError(
                f"gateway.package of {rules.name} must be a measured one for a rehearsal",
                value=repr(version),
                cure=f"{nearest(version, [*PACKAGES])}; or rehearse with --real-package",
            )
        return cls(
            package=PACKAGES[version],
            id_column=rules.columns[0],
            submission_id=rules.submission_columns[0],
            deadline_s=rules.predict_deadline_s,
        )
