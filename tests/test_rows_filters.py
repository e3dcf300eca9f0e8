"""Filters: which traces are left out, for which reason, and that real reasoning is not among them."""

from itertools import chain
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.corpus import Corpus, open_source
from mathlete.errors import UserError
from mathlete.overlap import hash_statement
from mathlete.problems import Problem
from mathlete.rows.filters import boxes_differ, find_drop_reason, is_loop, share_of_foreign_letters, shorten_trace
from mathlete.rows.selection import choose_traces, mark_duplicates
from mathlete.rows.settings import Filters
from mathlete.traces import Flaw, Trace, TracedProblem
from tests.conftest import CHARACTERS

LOOP = "Wait, let me check the sum of the first ten terms again, as it may well be that I am off by one. "


def make_traced(
    *, text: str = "2+2=4", answer: str = "4", gold: str = "4", flaw: Flaw = "", ending: str = ""
) -> TracedProblem:
    problem = Problem(id="1", statement="What is 2+2?", gold=gold)
    trace = Trace(problem_id="1", text=text, answer=answer, generator="t", flaw=flaw, ending=ending)
    return TracedProblem(problem=problem, trace=trace)


@pytest.mark.parametrize(
    ("one", "filters", "reason"),
    [
        (make_traced(), {}, ""),
        (make_traced(answer=r"\frac{8}{2}"), {}, ""),
        (make_traced(answer="5"), {}, "wrong"),
        (make_traced(answer="see above", gold="x^2+\\int"), {}, "unknown"),
        (make_traced(flaw="unclosed"), {}, "unclosed"),
        (make_traced(flaw="no answer", answer=""), {"unverified": "keep"}, "no answer"),
        (make_traced(flaw="no gold", gold=""), {}, "no gold"),
        (make_traced(flaw="no gold", gold=""), {"unverified": "keep"}, ""),
        (make_traced(flaw="no gold", gold="", answer=""), {"unverified": "keep"}, "no gold"),
        (make_traced(text=" \n"), {}, "empty"),
        (make_traced(text="so </think> 4"), {}, "marks"),
        (make_traced(text="```python\nprint(4)\n```\n```output\n4\n```"), {}, "tool output"),
        (make_traced(text="```python\nprint(4)\n```\n```output\n4\n```"), {"tool_output": "mask"}, ""),
        (make_traced(text="<tool_response>4</tool_response>"), {"tool_output": "mask"}, "tool output"),
        (make_traced(ending=r"\boxed{3}, no: \boxed{4}"), {}, "two boxes"),
        (make_traced(ending=r"\boxed{3}, no: \boxed{4}"), {"two_boxes": "keep"}, ""),
        (make_traced(ending=r"\boxed{4.0}, that is \boxed{4}"), {}, ""),
        (make_traced(text="首先, 2+2=4, 所以答案是 4"), {}, "language"),
        (make_traced(text="首先, 2+2=4, 所以答案是 4"), {"foreign": 1.0}, ""),
        (make_traced(text="α + β ≤ ½·π, naïve façade, so it is 4"), {}, ""),
        (make_traced(text=LOOP * 9 + "4"), {}, "loop"),
        (make_traced(text=LOOP * 9 + "4"), {"repeats": 1.0}, ""),
        (make_traced(text="0.3333" * 900), {}, "loop"),
        (make_traced(text=LOOP + "Now 2+2=4. " + LOOP), {}, ""),
        (make_traced(text=LOOP + "Now 2+2=4. " + LOOP), {"repeats": 0.1}, "loop"),
    ],
)
def test_the_reason_against_a_trace(one: TracedProblem, filters: dict[str, Any], reason: str) -> None:
    assert find_drop_reason(one, Filters(**filters)) == reason


def test_statements_in_a_script_allow_traces_in_it() -> None:
    text = "首先, 2+2=4"
    assert share_of_foreign_letters(text, statement="求 2+2 的值") == 0
    assert share_of_foreign_letters(text, statement="What is 2+2?") == 1
    assert share_of_foreign_letters("so, давай: 4", statement="2+2?") == pytest.approx(5 / 7)


@pytest.mark.parametrize(
    ("text", "differ"),
    [
        ("none", False),
        (r"\boxed{7}", False),
        (r"$\boxed{\frac12}$ or $\boxed{0.5}$", False),
        (r"\boxed{1} and \boxed{2}", True),
        (r"\boxed{1}, \boxed{1}, \boxed{2}, \boxed{1}", True),
        (r"\boxed{} then \boxed{3}", False),
    ],
)
def test_boxes_differ(text: str, differ: bool) -> None:
    assert boxes_differ(text) == differ


def test_a_shortened_trace_ends_where_it_first_boxes_the_gold() -> None:
    text = "a \\boxed{3}\nb $\\boxed{\\frac{8}{2}}$. So\nc \\boxed{4}\nd"
    assert shorten_trace(text, gold="4") == "a \\boxed{3}\nb $\\boxed{\\frac{8}{2}}$. So"
    assert shorten_trace(text, gold="5") == ""


def test_no_pocket_trace_and_no_real_one_is_taken_for_a_loop(shared: Any) -> None:
    mirror = shared / "data" / "hub"
    result = [
        reason
        for name, limit in (("gsm8k", 2000), ("openr1", None), ("pocket", 500))
        for one in chain.from_iterable(open_source(name, mirror=mirror, limit=limit))
        if (reason := find_drop_reason(one, Filters()))
    ]
    assert not result


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Filters(min_tokens=0), "--filters.min-tokens must be at least 1, got 0"),
        (Filters(foreign=2), "--filters.foreign must be 0 to 1, got 2"),
        (Filters(repeats=-1), "--filters.repeats must be 0 to 1, got -1"),
        (Corpus(source=(), limit=None), "--source must name a source"),
        (Corpus(source=("pocket",), limit=1), "--limit must be at least 2, got 1"),
        (Corpus(source=("pocket",), limit=None, num_proc=0), "--num-proc must be at least 1, got 0"),
    ],
)
def test_settings_out_of_range(settings: Filters | Corpus, message: str) -> None:
    with pytest.raises(UserError) as error:
        settings.check()
    assert message in str(error.value)


ROWS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9)), max_size=30)


@given(rows=ROWS, count=st.integers(1, 4), limit=st.integers(1, 10))
def test_policies_keep_what_their_names_say(rows: list[tuple[str, int]], count: int, limit: int) -> None:
    problems, lengths = [name for name, _ in rows], [size for _, size in rows]
    assert choose_traces(problems, lengths).all()
    shortest = choose_traces(problems, lengths, shortest=count)
    longest = choose_traces(problems, lengths, longest_under=limit)
    for name in set(problems):
        own = [index for index, other in enumerate(problems) if other == name]
        assert [i for i in own if shortest[i]] == sorted(sorted(own, key=lambda i: lengths[i])[:count])
        under = [i for i in own if lengths[i] < limit]
        assert [i for i in own if longest[i]] == ([max(under, key=lambda i: lengths[i])] if under else [])


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"))))
def test_of_duplicates_the_first_stays(rows: list[tuple[str, str]]) -> None:
    result = mark_duplicates([name for name, _ in rows], [text for _, text in rows])
    assert [row for row, twice in zip(rows, result, strict=True) if not twice] == list(dict.fromkeys(rows))


def test_typesetting_makes_no_other_problem() -> None:
    assert hash_statement("Find $x$.") == hash_statement(r"  find \(x\)")
    assert hash_statement("Find $x+1$.") != hash_statement("Find $x+2$.")
    assert hash_statement("?") != hash_statement("!")


@given(st.text(CHARACTERS, max_size=200), st.floats(0, 1))
def test_short_texts_are_no_loops(text: str, most: float) -> None:
    assert not is_loop(" ".join(text.split()[:20]), most=most)
