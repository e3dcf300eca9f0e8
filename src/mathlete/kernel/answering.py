"""An answer to every question, in time: `solve` under the day's clock, and a fallback for all that can go wrong.

Called from a gRPC worker thread: no signals, no event loop. Whatever happens inside, `answer` returns an integer of
the competition's range before the question's time is over.
"""

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from mathlete.competitions import Competition
from mathlete.jsonl import JsonLines
from mathlete.kernel.config import KernelConfig
from mathlete.kernel.journal import JournalLine
from mathlete.kernel.starting import BackgroundStart
from mathlete.losses import Cause, find_answer_cause, find_cause
from mathlete.problems import Problem
from mathlete.sampling import Sample, Sampler
from mathlete.solve import Budget, Ended, RealClock, solve

_GRACE_S = 5.0
"""From the end of sampling to the moment an attempt is given up; answers are read and votes counted in it. Never more
than half of what a call leaves of the gateway's deadline."""
_ERROR_CHARACTERS = 200
_JOURNALLED = 32
"""Votes of a question, and samples, that stand in its line of the journal."""
_RESTART_AFTER = 2
"""Questions in a row without any sample after which the engine is restarted."""
_TRIES = 3
"""Tries at a question of which nothing came, as long as the engine has another step to go."""
_WORTH_TRYING = 0.2
"""Share of a question's time below which no other try is begun."""


class RestartableSampler(Sampler, Protocol):
    """A sampler in a process of its own, which has to be started, and restarted after it died or was closed."""

    def start(self, *, timeout_s: float) -> None:
        """Return once it can sample; raise where it cannot within the time."""
        ...


@dataclass(kw_only=True)
class Attempt:
    """How far one question got."""

    samples: dict[int, Sample] = field(default_factory=dict)
    unfinished: dict[int, Sample] = field(default_factory=dict)
    """What others had said when the time was over, where forced answers are asked for."""
    answer: int | None = None
    votes: list[tuple[str, int]] = field(default_factory=list)
    sends: list[int | None] = field(default_factory=list)
    """What each vote sends; None where it is no integer of the competition's range."""
    selected: str | None = None
    """The answer that the model's own judgements chose; None where the policy asks for none, or they chose none."""
    ended: Ended | None = None
    """Why sampling ended; None where it broke off."""
    lost: Counter[Cause] = field(default_factory=Counter)
    """Samples that came and could not be right, by class."""
    trouble: str = ""
    """What went wrong, on one line; empty where nothing did."""

    @property
    def fruitless(self) -> bool:
        """Whether the engine said nothing in it, and neither the clock nor the question's length kept it from that."""
        told = any(sample.text.strip() or sample.lacks_room for sample in self.samples.values())
        return self.ended != "time" and not told

    def keep(self, sample: Sample) -> None:
        """Take a sample, or what one says that was made to answer."""
        (self.unfinished if sample.finish == "clock" else self.samples)[sample.index] = sample

    @property
    def voting(self) -> list[Sample]:
        """All samples that may vote."""
        return [*self.samples.values(), *self.unfinished.values()]

    def count_lost(self, n: int) -> dict[Cause, int]:
        """Return by class how many of n samples, drawn or not, could not be right."""
        missing = 0 if self.ended == "rule" else n - len(self.samples)
        # Nothing but the clock keeps a sample from being drawn, unless sampling broke off.
        never: Counter[Cause] = Counter({"cut_by_clock" if self.ended else "unknown": missing})
        return dict(+(self.lost + never))


class Answerer:
    """Answers one question after another on the clock of the whole notebook."""

    def __init__(self, config: KernelConfig, *, engine: RestartableSampler, started: float, journal: Path) -> None:
        """Start the clock.

        Args:
            config: how to answer.
            engine: what draws the samples; `begin` starts it, or else the first question.
            started: `time.time()` of the notebook's first cell, which ran before this.
            journal: the file that gets a line a question.
        """
        self._config, self._engine = config, engine
        self._journal = JsonLines(journal, sync_s=None)
        self._clock = RealClock()
        self._ends = self._clock.now() + config.clock.wall_s - (time.time() - started)
        settings = config.share_clock(self._ends - self._clock.now())
        self._budget = settings and Budget(settings, clock=self._clock)
        self._given: dict[str, int] = {}
        self._without_sample = 0
        self._start: BackgroundStart | None = None

    def begin(self) -> None:
        """Start the engine in the background: the server answers at once, and the first question finds it loaded."""
        self._start = self._begin_start()

    @property
    def fallback(self) -> int:
        """The integer that is sent where there is no answer."""
        return self._config.fallback

    def answer(self, *, problem_id: str, statement: str) -> int:
        """Return an integer of the competition's range before the question's time is over; never raise."""
        try:
            return self._answer(problem_id, statement)
        except BaseException as error:
            # Even SystemExit: one that left predict would hang the gateway for ever.
            say(f"{problem_id}: {one_line(error)}")
            return self._given.setdefault(problem_id, self.fallback)

    def _answer(self, problem_id: str, statement: str) -> int:
        if problem_id in self._given:
            # gRPC repeats a request after a cut connection.
            return self._given[problem_id]
        began, attempt, load_s = self._clock.now(), Attempt(), 0.0
        limit_s = self._budget.next_question_s() if self._budget else 0.0
        if limit_s <= 0:
            attempt.trouble, attempt.ended = "the clock: no time is left", "time"
        else:
            problem = Problem(id=problem_id, statement=statement, gold="")
            attempt, load_s = self._try(problem, limit_s=limit_s, ends=self._find_end(began))
        given = self.fallback if attempt.answer is None else attempt.answer
        self._given[problem_id] = given
        self._write(problem_id, given, attempt, seconds=self._clock.now() - began, load_s=load_s, limit_s=limit_s)
        return given

    def _find_end(self, began: float) -> float:
        """Return when a call that began then must be over, whatever its engines do."""
        wall = self._ends - self._config.clock.reserve_s
        # The gateway sets the first call no deadline.
        return min(wall, began + self._config.clock.call_s) if self._given else wall

    def _try(self, problem: Problem, *, limit_s: float, ends: float) -> tuple[Attempt, float]:
        """Return the last of the tries at a question, and the seconds in which engines were waited for."""
        left_s, load_s, troubles = limit_s, 0.0, list[str]()
        for tries in range(1, _TRIES + 1):
            attempt = Attempt()
            load_s += self._start_engine(attempt, left_s=left_s, ends=ends)
            up = not attempt.trouble
            if up:
                began = self._clock.now()
                self._attempt(attempt, problem, limit_s=max(0.0, min(left_s, ends - began)))
                left_s = min(left_s - (self._clock.now() - began), ends - self._clock.now())
            troubles += [attempt.trouble] if attempt.trouble else []
            # An engine that has another step to go gets a question again of which nothing came: the step that did not
            # come up was left, one of which nothing comes is left for the next.
            again = up and attempt.fruitless and getattr(self._engine, "goes_on", False) is True
            if tries == _TRIES or not again or left_s < _WORTH_TRYING * limit_s:
                break
        attempt.trouble = "; ".join(dict.fromkeys(troubles))[:_ERROR_CHARACTERS]
        return attempt, load_s

    def _start_engine(self, attempt: Attempt, *, left_s: float, ends: float) -> float:
        """Wait for an engine while what is left of the question still fits into the call; return the seconds."""
        began = self._clock.now()
        # A question that alone takes nearly all of its call gives up to half of that for an engine.
        spare_s = max(ends - began - left_s, (ends - began) / 2)
        allowed_s = max(0.0, min(self._config.clock.load_max_s, spare_s))
        try:
            if self._start is None or self._start.ended:
                # One that failed is tried again; an engine that is up is so at once.
                self._start = self._begin_start()
            self._start.wait(timeout_s=allowed_s)
        except BaseException as error:
            # For the reason given in `answer`.
            attempt.trouble = one_line(error)
        return self._clock.now() - began

    def _begin_start(self) -> BackgroundStart:
        return BackgroundStart(
            self._engine, timeout_s=min(self._config.clock.load_max_s, self._ends - self._clock.now())
        )

    def _attempt(self, attempt: Attempt, problem: Problem, *, limit_s: float) -> None:
        done = threading.Event()
        body = (attempt, problem, limit_s, done)
        threading.Thread(target=self._solve, args=body, name="mathlete-solve", daemon=True).start()
        # solve keeps the time limit itself, but whatever hangs inside it would take predict along.
        clock = self._config.clock
        stuck = not done.wait(limit_s + min(_GRACE_S, (clock.deadline_s - clock.call_s) / 2))
        if stuck:
            # Samples that arrived still vote. The thread can't be ended; it is left behind.
            attempt.trouble, attempt.ended = f"the clock: nothing came back within {limit_s:.0f} s", "time"
            self._count(attempt)
        self._without_sample = 0 if attempt.voting else self._without_sample + 1
        if stuck or self._without_sample >= _RESTART_AFTER:
            # It may hang, or be broken for good; the next question starts a new process.
            self._engine.close()
            self._without_sample = 0

    def _solve(self, attempt: Attempt, problem: Problem, limit_s: float, done: threading.Event) -> None:
        try:
            solution = solve(
                problem,
                sampler=self._engine,
                clock=self._clock,
                policy=self._config.policy,
                on_sample=attempt.keep,
                on_harvest=attempt.keep,
                timeout_s=limit_s,
                reserve=self._budget.reserve if self._budget else None,
                thinking=getattr(self._engine, "opens_thoughts", False) is True,
            )
            attempt.ended = solution.ended
            attempt.selected = solution.selection.answer if solution.selection else None
        except BaseException as error:
            # For the reason given in `answer`. Samples that arrived before the error still vote.
            attempt.trouble = one_line(error)
        try:
            self._count(attempt)
        finally:
            done.set()

    def _count(self, attempt: Attempt) -> None:
        samples, rules = list(attempt.samples.values()), self._config.competition
        votes = self._config.policy.count_votes(attempt.voting, settled=attempt.ended == "rule")
        attempt.votes = [(vote.answer[: JournalLine.VOTE_CHARACTERS], vote.count) for vote in votes]
        # An answer outside the range is not clamped to it: that would be invented. The next class is taken.
        answers = [vote.answer for vote in votes]
        # The model's own judgements, where the policy asks for them, go before the vote.
        chosen = answers if attempt.selected is None else [attempt.selected, *answers]
        sendable = (integer_in_range(answer, rules=rules) for answer in chosen)
        attempt.answer = next((sent for sent in sendable if sent is not None), None)
        if attempt.answer is None and not attempt.trouble:
            attempt.trouble = "no answer in range" if votes else _why_empty(attempt.samples)
        # Only the journal needs the rest, so nothing that goes wrong from here on costs the answer.
        attempt.sends = [integer_in_range(vote.answer, rules=rules) for vote in votes]
        causes = [find_cause(sample) for sample in samples]
        for vote in votes:
            causes += [find_answer_cause(vote.answer, integer=True, rules=rules)] * vote.count
        attempt.lost = Counter(cause for cause in causes if cause)

    def _write(
        self, problem_id: str, given: int, attempt: Attempt, *, seconds: float, load_s: float, limit_s: float
    ) -> None:
        samples = list(attempt.samples.values())
        forced = [one.harvest for one in attempt.voting if one.harvest]
        line = JournalLine(
            id=problem_id,
            answer=given,
            fallback=attempt.answer is None,
            why=attempt.trouble,
            seconds=round(seconds, 3),
            load_s=round(load_s, 3),
            limit_s=round(limit_s, 3),
            left_s=round(self._ends - self._clock.now(), 3),
            samples=len(samples),
            empty=sum(not sample.text.strip() for sample in samples),
            answered=sum(sample.answer is not None for sample in samples),
            tokens=sum(sample.tokens for sample in samples),
            drawn=tuple((sample.tokens, round(sample.seconds, 3)) for sample in samples[:_JOURNALLED]),
            votes=tuple(attempt.votes[:_JOURNALLED]),
            sends=tuple(attempt.sends[:_JOURNALLED]),
            lost=attempt.count_lost(self._config.policy.n),
            forced=len(forced),
            forced_answers=sum(one.answer is not None for one in forced),
            forced_s=round(max((one.seconds for one in forced), default=0.0), 3),
        )
        try:
            self._journal.append(line.to_json())
        except OSError as error:
            # A full disk must not cost the answer. The line still goes to the notebook's log.
            say(f"journal: {one_line(error)}")
        say(json.dumps(line.to_json(), ensure_ascii=False))


def integer_in_range(answer: str, *, rules: Competition) -> int | None:
    """Return the integer that may be sent for an answer; None where it is none or out of range."""
    from mathlete.answers import read_integer

    return read_integer(answer, competition=rules)


def one_line(error: BaseException) -> str:
    r"""Return an error's type and message, short and on one line: the gateway loses longer texts.

    >>> one_line(ValueError("first\nsecond"))
    'ValueError: first second'
    """
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= _ERROR_CHARACTERS else text[: _ERROR_CHARACTERS - 1] + "…"


def _why_empty(samples: Mapping[int, Sample]) -> str:
    if not samples:
        return "the clock: no sample was finished"
    if all(sample.lacks_room for sample in samples.values()):
        return "the model's context has no room for the question"
    if all(not sample.text.strip() for sample in samples.values()):
        return "only empty completions"
    return "no sample has an answer"


def say(text: str) -> None:
    """Print a line for the notebook's log; a log that can't be written costs no question."""
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        # stderr is closed or its disk full.
        return
