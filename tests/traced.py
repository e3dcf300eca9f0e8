"""Made-up problems with traces, and the rows they become."""

from mathlete.problems import Problem
from mathlete.prompts import PromptFormat
from mathlete.rows.row import TokenRow
from mathlete.rows.settings import Filters, Rows
from mathlete.rows.token_rows import make_row
from mathlete.traces import Trace, TracedProblem


def make_traced(
    *, text: str = "2+2=4.", answer: str = "4", gold: str = "4", name: str = "1", asked: str = "What is 2+2?"
) -> TracedProblem:
    """Return a problem with its trace, right unless told otherwise."""
    problem = Problem(id=name, statement=asked, gold=gold)
    return TracedProblem(problem=problem, trace=Trace(problem_id=name, text=text, answer=answer, generator="test"))


def row(one: TracedProblem, prompts: PromptFormat) -> TokenRow:
    """Return the row of a problem that is fit for training, however long."""
    result = make_row(one, prompts=prompts, rows=Rows(max_tokens=10_000), filters=Filters())
    assert not isinstance(result, str), result
    return result
