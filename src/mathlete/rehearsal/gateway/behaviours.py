"""The three gateways that were measured, and in what they differ."""

from dataclasses import dataclass
from typing import Literal

RESULT = "result.json"
_FIRST_PORT, _MORE_PORTS = 50051, tuple(range(60053, 60063))
STARTUP_LIMIT_S = 900.0
"""Time the notebook's server has to answer the gateway's first try."""


@dataclass(frozen=True, kw_only=True)
class Wire:
    """In what the packages' relays differ, and what a test may shorten."""

    ports: tuple[int, ...]
    """Tried in turn by both ends; 0.3.0 knows only the first."""
    functions_only: bool
    """0.9.0 refuses bound methods and callable objects."""
    deadline_error: bool
    """From 0.7.0 on an overrun deadline has an error of its own."""
    deadline_s: float
    """Of every call after the first."""
    startup_s: float = STARTUP_LIMIT_S


Version = Literal["0.3.0", "0.7.0", "0.9.0"]


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """One real gateway."""

    competition: str
    version: Version
    """Of its kaggle_evaluation package."""
    wire: Wire
    gone_is_never_started: bool
    """0.3.0 and 0.7.0 call a container that went away SERVER_NEVER_STARTED, 0.9.0 shows the traceback."""


BEHAVIOURS = {
    "aimo-2-0.3": Behaviour(
        competition="aimo-2",
        version="0.3.0",
        wire=Wire(ports=(_FIRST_PORT,), functions_only=False, deadline_error=False, deadline_s=30 * 60),
        gone_is_never_started=True,
    ),
    "aimo-2-0.7": Behaviour(
        competition="aimo-2",
        version="0.7.0",
        wire=Wire(ports=(_FIRST_PORT, *_MORE_PORTS), functions_only=False, deadline_error=True, deadline_s=30 * 60),
        gone_is_never_started=True,
    ),
    "aimo-3-0.9": Behaviour(
        competition="aimo-3",
        version="0.9.0",
        wire=Wire(ports=(_FIRST_PORT, *_MORE_PORTS), functions_only=True, deadline_error=True, deadline_s=9 * 3600),
        gone_is_never_started=False,
    ),
}
