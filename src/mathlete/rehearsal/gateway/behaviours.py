"""What was measured of each version of Kaggle's kaggle_evaluation, and what a competition's gateway adds to it.

1.4.0 was measured with AIMO-3's gateway on its templates. Of 1.7.0 only the text was read: what it says of ports,
nulls, types and folders is here, its standard gateway and its resets of containers are not.
"""

from dataclasses import dataclass
from typing import Literal

RESULT, SUBMISSION = "result.json", "submission.parquet"
"""Files that a gateway writes; the kernel has the second name too, but is not there where a notebook starts."""
FIRST_PORT = 50051
STARTUP_LIMIT_S = 900.0
"""Seconds in which the notebook's server must come up after the gateway starts."""
ROOM_S = 3600.0
"""Deadline of a call where the gateway sets none, seconds."""
_FALLBACK_PORTS = 5
_SPACED = tuple(range(60053, 60144, 10))
Listeners = Literal["any callable", "functions", "functions and methods"]
"""What a server takes as a listener; lambdas are refused by all."""
Gone = Literal["never started", "traceback", "died"]
"""A container that went away before it answered: SERVER_NEVER_STARTED (0.3.0, 0.7.0) · the traceback of the name that
no longer resolves (0.9.0) · SERVER_CONNECTION_FAILED where the name once resolved (from 1.4.0 on)."""


def next_ports(port: int) -> tuple[int, ...]:
    """Return the ports that a gateway from 1.4.0 on tries, where it knows one: that one and the five above.

    >>> next_ports(50051)
    (50051, 50052, 50053, 50054, 50055, 50056)
    """
    return tuple(range(port, port + _FALLBACK_PORTS + 1))


@dataclass(frozen=True, kw_only=True)
class Package:
    """One version of kaggle_evaluation."""

    version: str
    ports: tuple[int, ...] = (FIRST_PORT, *range(60053, 60063))
    """Ports that the notebook's server tries in turn; 0.3.0 knows only the first."""
    gateway_ports: tuple[int, ...] | None = None
    """Ports that a gateway in a rerun tries in turn; None: the server's."""
    listeners: Listeners = "any callable"
    deadline_error: bool = True
    """Whether an overrun deadline has an error of its own, as from 0.7.0 on."""
    checks_ids: bool = False
    """Whether each prediction must be a frame with the id that was asked, as in 0.3.0."""
    writes_own_ids: bool = False
    """Whether the gateway's ids replace those of the predictions in the file, as from 0.9.0 on."""
    gone: Gone = "never started"
    tells_port: bool = False
    """Whether the server has its `port`, which the commit run's gateway is given, and takes `allowed_modules`; the
    competition's modules lie in a sub-package then, and the commit run drops the gateway's own deadline (1.4.0)."""
    sends_models: bool = False
    """Whether Enum, dataclass and pydantic objects travel; a gateway rebuilds none of them (from 1.4.0 on)."""
    sends_sets: bool = False
    """Whether bytes, sets and columns of pl.Enum travel, and series as Arrow streams (from 1.7.0 on)."""
    refuses_nulls: bool = False
    """Whether a null in an answer is refused on its row (from 1.7.0 on)."""
    takes_folder: bool = False
    """Whether a local gateway takes the competition's folder, not a tuple of files (from 1.7.0 on)."""

    @property
    def rerun_ports(self) -> tuple[int, ...]:
        """Ports that a gateway in a rerun tries in turn."""
        return self.ports if self.gateway_ports is None else self.gateway_ports

    @property
    def finds_moved_server(self) -> bool:
        """Whether a rerun ends well where port 50051 was taken before the notebook made its server."""
        return len(self.ports) > 1 and self.ports[1] in self.rerun_ports


PACKAGES = {
    package.version: package
    for package in (
        Package(version="0.3.0", ports=(FIRST_PORT,), deadline_error=False, checks_ids=True),
        Package(version="0.7.0"),
        Package(version="0.9.0", listeners="functions", writes_own_ids=True, gone="traceback"),
        Package(
            version="1.4.0",
            ports=(FIRST_PORT, *_SPACED),
            gateway_ports=next_ports(FIRST_PORT),
            listeners="functions and methods",
            writes_own_ids=True,
            gone="died",
            tells_port=True,
            sends_models=True,
        ),
        Package(
            version="1.7.0",
            ports=(FIRST_PORT, *_SPACED),
            gateway_ports=(*next_ports(FIRST_PORT), *_SPACED),
            listeners="functions and methods",
            writes_own_ids=True,
            gone="died",
            tells_port=True,
            sends_models=True,
            sends_sets=True,
            refuses_nulls=True,
            takes_folder=True,
        ),
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
    target: str = ""
    """The submission's column of answers, where the gateway names it: then bare values may be answers."""
    deadline_s: float
    """Deadline of every call after the first, seconds."""
    startup_s: float = STARTUP_LIMIT_S
