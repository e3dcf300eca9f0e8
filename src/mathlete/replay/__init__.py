"""Replay: what recorded samples would have scored, and cost, under other policies, without the model.

A `Pool` of recorded samples (`mathlete.scoring`) holds more samples of each problem than a submission draws. The replay
draws n of them thousands of times, stops and votes as the solve loop does, and puts the problems together to
submissions with or without a clock. `Grid` names the policies to try, `Submissions` what to simulate; each policy's
`Outcome` has its score with intervals, its cost, and whether it is safe. A `Throughput`, measured on another machine,
says what fits its clock.

>>> from mathlete.competitions import competition
>>> from mathlete.problems import Problem
>>> from mathlete.sampling import Sample
>>> from mathlete.scoring import Pool
>>> samples = [
...     Sample(problem_id="a", index=i, seed=i, text="", answer="2", tokens=9, finish="stop", seconds=float(i))
...     for i in range(16)
... ]
>>> pool = Pool.of([Problem(id="a", statement="What is 1 + 1?", gold="2")], {"a": samples})
>>> grid = Grid(n=usual_n(pool), max_tokens=(9,), stop=("none", "votes2"), vote=("majority",), walls=(None,))
>>> submissions = Submissions(simulations=100, questions=1, rules=competition("aimo-3"), slots=None, seed=0)
>>> replay = replay_pool(pool, grid, submissions)
>>> [(one.n, one.stop, one.score.new_set.value, one.spent.arrivals) for one in replay.outcomes]
[(4, 'none', 1.0, 4.0), (4, 'votes2', 1.0, 2.0)]
"""

from mathlete.replay.choice import Choice
from mathlete.replay.forecast import Forecast, Throughput
from mathlete.replay.outcomes import Grid, Submissions
from mathlete.replay.policies import list_recorded_votes
from mathlete.replay.replaying import Replay, replay_pool, usual_n
from mathlete.replay.simulation import Wall

__all__ = [
    "Choice",
    "Forecast",
    "Grid",
    "Replay",
    "Submissions",
    "Throughput",
    "Wall",
    "list_recorded_votes",
    "replay_pool",
    "usual_n",
]
