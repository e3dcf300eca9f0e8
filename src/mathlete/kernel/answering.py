"""Answers that are always given: the one solve under a clock, with everything that can go wrong inside turned into one.

Called from a gRPC worker thread: no signals, no event loop. Whatever happens inside, `answer` returns an integer of
the competition's range before the question's time is over.
"""

import json
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from mathlete.competitions import Competition
from mathlete.jsonl import JsonLines
from mathlete.kernel.config import KernelConfig
from mathlete.kernel.journal import JournalLine
from mathlete.problems import Problem
from mathlete.sampling import Sample, Sampler
from mathlete.solve import Budget, BudgetSettings, RealClock, solve

_GRACE_S = 5.0
"""Seconds between the end of sampling and the moment an attempt is given up: answers are read and votes counted."""
_ERROR_CHARACTERS = 200
_HOPELESS = 2
"""Questions in a row without any sample after which the engine is started anew."""


class Engine(Sampler, Protocol):
    """A Sampler that may have to be started, and started again."""

    def ready(self, *, timeout_s: float) -> None:
        """Returns once it can sample; raises where it cannot."""
        ...


@dataclass(kw_only=True)
class Attempt:
    """What one question came to, as far as it got."""

    samples: dict[int, Sample] = field(default_factory=dict)
    answer: int | None = None
    votes: list[tuple[str, int]] = field(default_factory=list)
    problem: str = ""
    """Why no answer came of it, on one line; empty where one did."""


class Answerer:
    """Answers questions one after another under one global clock."""

    def __init__(self, config: KernelConfig, *, engine: Engine, started: float, journal: Path) -> None:
        """Takes the clock's start as a moment of `time.time()`: the notebook's first cell ran before this."""
        self._config, self._engine = config, engine
        self._journal = JsonLines(journal, sync_s=None)
        self._clock = RealClock()
        self._ends = self._clock.now() + config.wall_s - (time.time() - started)
        self._budget = self._share_of(self._ends - self._clock.now())
        self._given: dict[str, int] = {}
        self._without_sample = 0

    @property
    def fallback(self) -> int:
        """What is sent where there is no answer."""
        return self._config.fallback

    def answer(self, *, problem_id: str, statement: str) -> int:
        """An integer of the competition's range, always, before the question's time is over."""
        try:
            return self._answer(problem_id, statement)
        except BaseException as error:
            # The boundary of the day: a SystemExit that left predict would hang the gateway for ever.
            _say(f"{problem_id}: {one_line(error)}")
            return self.fallback

    def _share_of(self, left_s: float) -> Budget | None:
        config = self._config
        spare_s = left_s - config.reserve_s
        if spare_s <= 0:
            return None
        # A late start must not make the floors unkeepable.
        floor_s = min(config.question_min_s, spare_s / config.problems)
        # Nine tenths of the gateway's own deadline, so that it never comes first.
        ceiling_s = max(floor_s, min(config.question_max_s, 0.9 * config.deadline_s))
        settings = BudgetSettings(
            wall_s=left_s, reserve_s=config.reserve_s, floor_s=floor_s, ceiling_s=ceiling_s, questions=config.problems
        )
        return Budget(settings, clock=self._clock)

    def _answer(self, problem_id: str, statement: str) -> int:
        if problem_id in self._given:
            # gRPC may send a request again after a cut connection.
            return self._given[problem_id]
        began, attempt, load_s = self._clock.now(), Attempt(), 0.0
        limit_s = self._budget.next_question_s() if self._budget else 0.0
        if limit_s <= 0:
            attempt.problem = "the clock: no time is left"
        else:
            load_s = self._load(attempt, limit_s=limit_s)
        if not attempt.problem:
            self._attempt(attempt, Problem(id=problem_id, statement=statement, gold=""), limit_s=limit_s)
        given = self.fallback if attempt.answer is None else attempt.answer
        self._given[problem_id] = given
        self._write(problem_id, given, attempt, seconds=self._clock.now() - began, load_s=load_s, limit_s=limit_s)
        return given

    def _load(self, attempt: Attempt, *, limit_s: float) -> float:
        began = self._clock.now()
        allowed_s = min(self._config.load_max_s, self._ends - began)
        if self._given:
            # The first call has no deadline at the gateway; later ones must have time for the question as well.
            allowed_s = min(allowed_s, max(limit_s, 0.9 * self._config.deadline_s - limit_s))
        try:
            self._engine.ready(timeout_s=allowed_s)
        except BaseException as error:
            # See `answer`.
            attempt.problem = one_line(error)
        return self._clock.now() - began

    def _attempt(self, attempt: Attempt, problem: Problem, *, limit_s: float) -> None:
        done = threading.Event()
        body = (attempt, problem, limit_s, done)
        threading.Thread(target=self._solve, args=body, name="mathlete-solve", daemon=True).start()
        stuck = not done.wait(limit_s + _GRACE_S)
        if stuck:
            # What has arrived still votes; the thread is left to itself.
            attempt.problem = f"the clock: nothing came back within {limit_s:.0f} s"
            self._count(attempt)
        self._without_sample = 0 if attempt.samples else self._without_sample + 1
        if stuck or self._without_sample >= _HOPELESS:
            # It may hang: the next question starts a new one.
            self._engine.close()
            self._without_sample = 0

    def _solve(self, attempt: Attempt, problem: Problem, limit_s: float, done: threading.Event) -> None:
        def keep(sample: Sample) -> None:
            attempt.samples[sample.index] = sample

        try:
            solve(
                problem,
                sampler=self._engine,
                clock=self._clock,
                policy=self._config.policy,
                on_sample=keep,
                timeout_s=limit_s,
            )
        except BaseException as error:
            # See `answer`; samples that came before the error still vote.
            attempt.problem = one_line(error)
        try:
            self._count(attempt)
        finally:
            done.set()

    def _count(self, attempt: Attempt) -> None:
        votes = self._config.policy.count_votes(list(attempt.samples.values()))
        attempt.votes = [(vote.answer[:40], vote.count) for vote in votes]
        for vote in votes:
            # A class whose answer is no integer of the range cannot be sent: the next one is, never a clamped value.
            attempt.answer = integer_in_range(vote.answer, rules=self._config.competition)
            if attempt.answer is not None:
                return
        if not attempt.problem:
            attempt.problem = "no answer in range" if votes else _why_empty(attempt.samples)

    def _write(
        self, problem_id: str, given: int, attempt: Attempt, *, seconds: float, load_s: float, limit_s: float
    ) -> None:
        samples = list(attempt.samples.values())
        line = JournalLine(
            id=problem_id,
            answer=given,
            fallback=attempt.answer is None,
            why=attempt.problem,
            seconds=round(seconds, 3),
            load_s=round(load_s, 3),
            limit_s=round(limit_s, 3),
            left_s=round(self._ends - self._clock.now(), 3),
            samples=len(samples),
            empty=sum(not sample.text.strip() for sample in samples),
            answered=sum(sample.answer is not None for sample in samples),
            tokens=sum(sample.tokens for sample in samples),
            votes=tuple(attempt.votes[:8]),
        )
        try:
            self._journal.append(line.as_json())
        except OSError as error:
            # A full disk must not cost the answer; the line still goes to the notebook's log.
            _say(f"journal: {one_line(error)}")
        _say(json.dumps(line.as_json(), ensure_ascii=False))


def integer_in_range(answer: str, *, rules: Competition) -> int | None:
    """The integer that may be sent for an answer, or None where there is none: rejected, never clamped."""
    from mathlete.answers import read_integer

    return read_integer(answer, competition=rules)


def one_line(error: BaseException) -> str:
    r"""What an error says, short and on one line: longer texts are lost between the notebook and the gateway.

    >>> one_line(ValueError("first\nsecond"))
    'ValueError: first second'
    """
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= _ERROR_CHARACTERS else text[: _ERROR_CHARACTERS - 1] + "…"


def _why_empty(samples: Mapping[int, Sample]) -> str:
    if not samples:
        return "the clock: no sample was finished"
    if all(not sample.text.strip() for sample in samples.values()):
        return "only empty completions"
    return "no sample has an answer"


def _say(text: str) -> None:
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        # A closed or full stderr is no reason to lose a question.
        return
