"""How Kaggle is asked. A look changes nothing, so it is repeated until its limit; an act counts, so it happens once.

An act is a new version, a saved notebook, a submission. When its answer is lost (a 5xx, a timeout, a cut connection),
it may have counted all the same. So Kaggle is looked at before the act is done again.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from mathlete.errors import UserError, require

Seen = TypeVar("Seen")
Say = Callable[[str], None]
_ACT_TRIES = 5
"""Tries at an act that may have counted each time, though Kaggle never showed it."""
_SOON, _LATE = 1 / 8, 10
"""Times the poll interval: the wait after the first look without an answer, doubled up to the longest one."""


class Unanswered(UserError):
    """Kaggle gave no answer, or says that it is too early: a look may be repeated, an act may have counted."""

    def __init__(self, rule: str, *, value: object, cure: str, wait_s: float = 0.0, may_count: bool = True) -> None:
        """Take the parts of a user's error, the seconds Kaggle asks to wait, and whether an act may have counted."""
        super().__init__(rule, value=value, cure=cure)
        self.wait_s, self.may_count = wait_s, may_count


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """How long to wait for Kaggle."""

    poll_s: float = 30.0
    """Seconds between two requests for Kaggle's status."""
    upload_max_s: float = 3600.0
    """Seconds until uploads can be mounted, and until a request that gets no answer is given up."""
    run_max_s: float = 12 * 3600.0
    """Seconds until the notebook's own run is over; Kaggle's longest session."""
    settle_s: float = 60.0
    """Seconds in which Kaggle must show an act whose answer was lost, before it counts as not done."""
    answer_max_s: float = 60.0
    """Seconds without a byte after which a request counts as unanswered."""

    def check(self) -> None:
        """Raise UserError where a value is out of its range."""
        require(
            ("poll-s", self.poll_s, self.poll_s > 0, "above 0"),
            ("upload-max-s", self.upload_max_s, self.upload_max_s > 0, "above 0"),
            ("run-max-s", self.run_max_s, self.run_max_s > 0, "above 0"),
            ("settle-s", self.settle_s, self.settle_s > 0, "above 0"),
            ("answer-max-s", self.answer_max_s, self.answer_max_s > 0, "above 0"),
            prefix="--waiting.",
            cure="use the default",
        )


def print_to_stderr(text: str) -> None:
    """Print a line for people."""
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True, kw_only=True)
class Asking:
    """Asks with patience, and says what it waits for."""

    waiting: Waiting = Waiting()
    say: Say = print_to_stderr

    def until(self, look: Callable[[], Seen | None], *, limit_s: float, rule: str, cure: str = "") -> Seen:
        """Look again and again until something is there, and return it; None and False mean not yet.

        A look that gets no answer is repeated, first soon and then ever later, never before Kaggle's Retry-After.
        A `cure` is what else may help where it is not there within the limit.

        Raises:
            UserError: it is not there within the limit.
        """
        ends, unanswered, why = time.monotonic() + limit_s, 0, ""
        while True:
            wait_s, last = self.waiting.poll_s, why
            try:
                seen = look()
                unanswered, why = 0, ""
            except Unanswered as trouble:
                seen, why = None, str(trouble.value)
                wait_s = max(trouble.wait_s, self._backoff_s(unanswered))
                unanswered += 1
            if seen is not None and seen is not False:
                return seen
            left_s = ends - time.monotonic()
            if why and why != last:
                self.say(f"{rule}: {why}; asked again, for {max(left_s, 0):.0f} s at most")
            if left_s <= 0:
                value = f"not within {limit_s:g} s{f': {why}' if why else ''}"
                later = "run the same command again later; it goes on from here"
                raise UserError(rule, value=value, cure=f"{later}. {cure}" if cure else later)
            time.sleep(min(wait_s, left_s))

    def once(self, look: Callable[[], Seen], *, rule: str) -> Seen:
        """Return what one look shows, whatever it is; repeat it only where it gets no answer.

        Raises:
            UserError: no answer within the limit, or Kaggle's refusal.
        """
        return self.until(lambda: (look(),), limit_s=self.waiting.upload_max_s, rule=rule)[0]

    def act(
        self, do: Callable[[], Seen], counted: Callable[[], Seen | None], *, rule: str, repeats: bool = True
    ) -> Seen:
        """Do once what counts, and return its result.

        Args:
            do: the act. `Unanswered` means that it may have counted, or that Kaggle has surely not done it yet.
            counted: a look for its result; None where Kaggle does not show it.
            rule: what must come of it, for messages.
            repeats: whether an act that may have counted is done again where Kaggle does not show it.

        Raises:
            UserError: Kaggle's refusal, or no answer that says whether it counted.
        """
        ends, may_have_counted = time.monotonic() + self.waiting.run_max_s, 0
        tries = 0
        while True:
            try:
                return do()
            except Unanswered as trouble:
                missed = trouble
            may_have_counted += missed.may_count
            what = "it may have counted, so Kaggle is looked at first" if missed.may_count else "it is tried again"
            self.say(f"{rule}: {missed.value}; {what}")
            left_s = max(ends - time.monotonic(), 0)
            time.sleep(min(max(missed.wait_s, self._backoff_s(tries)), left_s))
            tries += 1
            seen = self._look_for(counted, seconds=self.waiting.settle_s if missed.may_count else 0, rule=rule)
            if seen is not None:
                self.say(f"{rule}: it had counted, nothing is repeated")
                return seen
            over = may_have_counted >= (_ACT_TRIES if repeats else 1) or time.monotonic() >= ends
            if over:
                raise _unknown_end(rule, missed)
            if missed.may_count:
                self.say(f"{rule}: Kaggle shows nothing of it, so it is done again")

    def _look_for(self, counted: Callable[[], Seen | None], *, seconds: float, rule: str) -> Seen | None:
        ends = time.monotonic() + seconds
        while True:
            seen = self.once(counted, rule=f"Kaggle must show whether it counted ({rule})")
            left_s = ends - time.monotonic()
            if seen is not None or left_s <= 0:
                return seen
            time.sleep(min(self.waiting.poll_s, seconds / 4, left_s))

    def _backoff_s(self, unanswered: int) -> float:
        return self.waiting.poll_s * min(_SOON * 2.0 ** min(unanswered, 20), _LATE)


def _unknown_end(rule: str, missed: Unanswered) -> UserError:
    if not missed.may_count:
        return UserError(rule, value=missed.value, cure=missed.cure)
    value = f"{missed.value}; it may have counted, though Kaggle shows nothing of it"
    return UserError(
        rule, value=value, cure="run the same command again: it looks first, and repeats only what is missing"
    )
