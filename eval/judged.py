"""What the gates say of recorded runs: of each one's model, and of whether it was finished."""

from collections.abc import Callable, Iterable
from pathlib import Path

from mathlete.gates import ACCEPT, GateOutcome, Refused, require_run


def require_runs(runs: Iterable[Path], *, reason: str, say: Callable[[str], None]) -> GateOutcome:
    """Check that runs are finished and that the gates let their models pass, or that someone accepts that they did not.

    Args:
        runs: folders of recorded samples.
        reason: why they may be used all the same; empty: they may not.
        say: called with a line for each thing that was accepted, now or as the samples were drawn.

    Returns:
        All that was accepted: it is part of what is made of the runs.

    Raises:
        Refused: one must not be used, and there is no reason.
    """
    outcome = GateOutcome.join([require_run(run, reason=reason) for run in runs])
    for line in outcome.describe():
        say(line)
    return outcome


def require_finished(logs: Iterable[Path], *, reason: str, say: Callable[[str], None]) -> GateOutcome:
    """Check that other tools' logs are those of finished runs, as far as they say so, or that someone accepts a part.

    Args:
        logs: files.
        reason: why a part may be used all the same; empty: it may not.
        say: called with a line for each log that was accepted.

    Returns:
        What was accepted.

    Raises:
        Refused: one is that of a run that never ended, and there is no reason.
        UserError: one is damaged.
    """
    from mathlete.logs import find_unfinished

    reason = " ".join(reason.split())
    outcome = GateOutcome(breaches=tuple(words for log in logs if (words := find_unfinished(log))), reason=reason)
    if outcome.refused:
        raise Refused(
            "a run must be finished before its log is imported",
            value="; ".join(outcome.breaches),
            cure=f"let it go on to the end (`inspect eval-retry`), or {ACCEPT}",
        )
    for line in outcome.describe():
        say(line)
    return outcome
