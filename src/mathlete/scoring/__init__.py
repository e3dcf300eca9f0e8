"""Scores: samples graded against gold answers, a run's results, and two runs compared problem by problem."""

from mathlete.scoring.grading import Graded, grade, judge
from mathlete.scoring.inspect_log import write_inspect_log
from mathlete.scoring.pairing import compare_runs
from mathlete.scoring.pool import Pool
from mathlete.scoring.recording import EvalRun

__all__ = ["EvalRun", "Graded", "Pool", "compare_runs", "grade", "judge", "write_inspect_log"]
