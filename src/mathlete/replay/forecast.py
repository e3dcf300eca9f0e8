"""A forecast: whether so many samples of so many questions fit a clock, at a speed that was measured elsewhere.

Samples take the tokens that were recorded and the seconds of the measured speed; questions then go through the same
draws, stops and allowances as in a replay. Fewer samples at once are taken to be no faster each, more of them to share
what the machine drew in all: the truth is the measured speed or better. Not modelled: judgements by the model itself,
and programs that it runs.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from mathlete.errors import UserError
from mathlete.problems import Problem
from mathlete.replay.questions import draw_question_sets
from mathlete.replay.simulation import (
    Wall,
    draw_samples,
    replay_draws,
    rows_per_problem,
    simulate,
)
from mathlete.sampling import Sample
from mathlete.scoring import Pool
from mathlete.solve import Policy

_SUBMISSIONS = 400
"""Simulated for each n: a chance is known to some 0.1%, for every question is a draw of its own."""
_SEED = 0
"""Of the draws: the same figures whenever they are asked for."""
_SPREAD = 4
"""A problem's samples are repeated until there are so many for each drawn: without them each draw would be the same."""


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """How fast a machine drew."""

    token_s: float
    """Seconds of one token of one sample, while `rows` were drawn side by side."""
    rows: int
    waits: bool = False
    """Whether further samples waited until one had ended; else all are drawn at once."""

    @property
    def tokens_per_s(self) -> float:
        """Tokens a second of all rows together."""
        return self.rows / self.token_s

    def stretch(self, n: int) -> float:
        """Return by what factor a token takes longer where n samples are asked for.

        >>> [Throughput(token_s=0.02, rows=8).stretch(n) for n in (4, 8, 16)]
        [1.0, 1.0, 2.0]
        >>> Throughput(token_s=0.02, rows=8, waits=True).stretch(16)
        1.0
        """
        return 1.0 if self.waits else max(1.0, n / self.rows)

    def forecast(
        self, samples: Pool | Sequence[int], *, policy: Policy, wall: Wall, questions: int, n: Sequence[int]
    ) -> "list[Forecast]":
        """Return what each n would come to.

        Args:
            samples: what lengths and answers are drawn from, or lengths alone, tokens; seconds that were recorded do
                not count.
            policy: cap, stop and vote.
            wall: the clock of the questions, less what passes before the first of them.
            questions: of a submission.
            n: samples a question, to try.

        Raises:
            UserError: a recording without tokens.
        """
        pool = samples if isinstance(samples, Pool) else _pool_lengths(samples)
        if "tokens" in pool.missing:
            rule = "lengths can be taken only from a recording with tokens"
            raise UserError(rule, value=pool.name, cure="record with `python -m eval`, or leave it out")
        return [_forecast(pool, replace(policy, n=each), pace=self, wall=wall, questions=questions) for each in n]


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What to expect of a submission with n samples a question."""

    n: int
    mean_tokens: float
    """Of a sample, under the cap."""
    tokens: int
    """Of all samples of all questions, none stopped early."""
    hours: float
    """To draw them at the measured speed."""
    fits: bool
    """Whether that is within the clock."""
    samples: float
    """A question's that finish in its time, or until the stopping rule ends it; on average."""
    p_out_of_time: float
    """Chance that a question's time is over before its first sample has finished."""
    submission_h: float
    """All questions, each within its allowance; on average."""

    def to_json(self) -> dict[str, object]:
        """Return the forecast as JSON values."""
        return asdict(self)


def _pool_lengths(tokens: Sequence[int]) -> Pool:
    """Return a pool of one problem whose samples have these lengths and no answers, so that no rule stops it."""
    samples = [
        Sample(problem_id="", index=i, seed=i, text="", tokens=length, finish="stop", seconds=0.0)
        for i, length in enumerate(tokens)
    ]
    return Pool.of([Problem(id="", statement="", gold="")], {"": samples})


def _forecast(pool: Pool, policy: Policy, *, pace: Throughput, wall: Wall, questions: int) -> Forecast:
    import numpy as np

    token_s, n, cap = pace.token_s * pace.stretch(policy.n), policy.n, policy.sampling.max_tokens
    timed = _time_samples(pool, token_s=token_s, at_least=_SPREAD * n)
    problems = len(timed.problems)
    # Where all samples are as long as the cap, the first draw says it all.
    rows = rows_per_problem(timed, n=n, wanted=_SUBMISSIONS * questions) if _draws_differ(timed, cap=cap) else 1
    drawn = draw_samples(timed, n=n, rows=rows, seed=_SEED)
    slots = pace.rows if pace.waits else None
    bank = replay_draws(timed, drawn, policy=policy, stops=[policy.stop], slots=slots)[policy.stop]
    random = np.random.default_rng(_SEED + 1)
    sets = draw_question_sets(
        problems=problems, questions=questions, submissions=_SUBMISSIONS, replacing=True, random=random
    )
    seen = simulate(bank, sets, random.integers(0, bank.rows, (_SUBMISSIONS, questions)), wall=wall)
    lengths = [min(sample.tokens, cap) for item in pool.problems for sample in item.samples]
    mean = sum(lengths) / len(lengths)
    tokens = n * questions * mean
    seconds = tokens * token_s / min(n, pace.rows if pace.waits else n)
    return Forecast(
        n=n,
        mean_tokens=round(mean, 1),
        tokens=round(tokens),
        hours=round(seconds / 3600, 3),
        fits=seconds <= wall.wall_s - wall.reserve_s,
        samples=round(float(seen.arrivals.mean()), 2),
        p_out_of_time=round(float((seen.arrivals == 0).mean()), 4),
        submission_h=round(float(seen.seconds.sum(1).mean()) / 3600, 3),
    )


def _draws_differ(pool: Pool, *, cap: int) -> bool:
    """Return whether draws of a problem's samples can differ: by an answer, or by a length under the cap."""
    return any(
        {*item.labels} != {-1} or len({min(sample.tokens, cap) for sample in item.samples}) > 1
        for item in pool.problems
    )


def _time_samples(pool: Pool, *, token_s: float, at_least: int) -> Pool:
    """Return the pool with every sample's seconds at this speed, its samples repeated until there are so many."""
    problems = []
    for item in pool.problems:
        times = math.ceil(at_least / len(item.samples))
        samples = [replace(sample, seconds=sample.tokens * token_s) for sample in item.samples] * times
        problems.append(
            replace(
                item,
                samples=samples,
                labels=item.labels * times,
                verdicts=item.verdicts * times,
                forced=item.forced * times,
            )
        )
    return replace(pool, problems=problems)
