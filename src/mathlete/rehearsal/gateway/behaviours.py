"""The three gateways that were measured, and how they differ."""

from dataclasses import dataclass
from typing import Literal

RESULT = "result.json"
_FIRST_PORT, _MORE_PORTS = 50051, tuple(range(60053, 60063))
STARTUP_LIMIT_S = 900.0
"""Seconds in which the notebook's server must come up after the gateway starts."""


@dataclass(frozen=True, kw_only=True)
class Wire:
    """How the packages' relays differ, and the limits that a test may shorten."""

    ports: tuple[int, ...]
    """Ports that both ends try in turn; 0.3.0 knows only the first."""
    functions_only: bool
    """Whether bound methods and callable objects are refused, as in 0.9.0."""
    deadline_error: bool
    """Whether an overrun deadline has an error of its own, as from 0.7.0 on."""
    deadline_s: float
    """Deadline of every call after the first, seconds."""
    startup_s: float = STARTUP_LIMIT_S


Version = Literal["0.3.0", "0.7.0", "0.9.0"]


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """One real gateway."""

    competition: str
    version: Version
    """Version of its kaggle_evaluation package."""
    wire: Wire
    gone_is_never_started: bool
    """Whether a container that went away is a SERVER_NEVER_STARTED, as in 0.3.0 and 0.7.0; 0.9.0 shows a traceback."""


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
