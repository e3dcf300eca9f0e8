"""The one solve loop: many samples of a problem, a rule that stops them early, a vote, and a clock for all problems.

`solve` is what evaluation, replay and notebook run: it draws the samples that a `Policy` asks for and gives back a
`Solution`. `solve_all` and `solve_in_turn` run it over many problems: at once, so that the engine's batch stays full,
or one after another on the clock of a `Budget`, as a competition serves them. `Course` is a problem's votes as they
arrived, which the stopping rules look at; the replay makes thousands of them at once.

>>> policy = Policy(n=16).with_words("beta95+exact/logprob")
>>> policy.stop, policy.vote, policy.fewest_samples
('beta95+exact', 'logprob', 4)
>>> policy.sample_seed(problem_id="424e18", index=3)
5434184233325401
>>> day = BudgetSettings.share_evenly(wall_s=18_000, questions=50)
>>> day.floor_s, day.ceiling_s, day.allowance_s(17_500, to_come=49)
(300.0, 900.0, 900.0)
"""

from mathlete.solve.budget import Budget, BudgetSettings
from mathlete.solve.clock import RealClock
from mathlete.solve.many import solve_all, solve_in_turn
from mathlete.solve.policy import Policy
from mathlete.solve.solver import Ended, Solution, solve
from mathlete.solve.stopping import Course

__all__ = [
    "Budget",
    "BudgetSettings",
    "Course",
    "Ended",
    "Policy",
    "RealClock",
    "Solution",
    "solve",
    "solve_all",
    "solve_in_turn",
]
