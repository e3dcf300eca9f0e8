"""Matching: the problem of a suite that a log's sample is of, by what the log says of it and not by its number alone.

Tools number what they are given: Inspect from 1, the harness from 0, a table as its maker liked. So an id counts where
nothing in the log contradicts it: the statement, or the gold answer where the log has no statement.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import lru_cache

from mathlete.answers import compare
from mathlete.corpus import Suite
from mathlete.errors import UserError
from mathlete.logs.entries import NO_STATEMENT, Entry, find_numbered
from mathlete.overlap import hash_statement, is_stated_in
from mathlete.problems import Problem
from mathlete.text import counted

_CURE = "give the suite that was asked, or name another column, --columns problem_id=… statement=…"


def make_finder(suite: Suite) -> Callable[[Entry], Problem]:
    """Return a function that finds an entry's problem in a suite.

    A statement that the suite has word for word decides; then an id, or an id with a number behind it, that nothing
    contradicts; then a statement that differs in its typesetting alone. Of two such statements the gold answer tells
    whose it is. Where none fits, the function raises UserError.
    """
    by_id = {problem.id: problem for problem in suite.problems}
    # Recordings without texts have a hash of the statement in its place.
    written = _index(suite, lambda problem: (" ".join(problem.statement.split()), problem.fingerprint))
    typeset = _index(suite, lambda problem: (hash_statement(problem.statement),))
    key_of = lru_cache(maxsize=8192)(hash_statement)

    def find(entry: Entry) -> Problem:
        name, statement = entry.problem_id or "", " ".join((entry.statement or "").split())
        named = by_id.get(name) or by_id.get(find_numbered(name) or "")
        if same := written.get(statement):
            return named if named in same else same[-1]
        alike = typeset.get(key_of(statement), []) if statement else []
        if len(alike) > 1:
            alike = [one for one in alike if not _is_other_gold(entry.gold, one)]
        if named and _fits(named, entry) and (named in alike or len(alike) != 1):
            return named
        if len(alike) == 1:
            return alike[0]
        raise _explain(suite, entry, named)

    return find


def describe_golds(suite: Suite, asked: Iterable[tuple[Entry, Problem]]) -> list[str]:
    """Return a sentence on the samples whose gold answer in the log is surely another one than the suite's; none where
    there are none."""
    replaced = [(entry, problem) for entry, problem in asked if _is_other_gold(entry.gold, problem)]
    if not replaced:
        return []
    entry, problem = replaced[0]
    return [
        f"the gold answers are those of {suite.name}; {counted(len(replaced), 'sample')} had another one in the log, "
        f"first {entry.where}: {entry.gold!r}, and {problem.gold!r} in problem {problem.id}"
    ]


@lru_cache(maxsize=8192)
def _is_other_gold(gold: str | None, problem: Problem) -> bool:
    return gold is not None and compare(answer=gold, gold=problem.gold, settings=problem.answers).outcome == "different"


@lru_cache(maxsize=8192)
def _is_stated(problem: Problem, statement: str) -> bool:
    return is_stated_in(problem.statement, statement)


def is_hidden(statement: str) -> bool:
    """Return whether something stands in a statement's place: one that no hash is equal to says nothing."""
    return statement == NO_STATEMENT or statement.startswith("sha256:")


def _has_both(problem: Problem, entry: Entry) -> bool:
    return bool(entry.statement) and not is_hidden(entry.statement or "") and not is_hidden(problem.statement)


def _fits(problem: Problem, entry: Entry) -> bool:
    """Return whether the log does not contradict the statement, or, where one of the two has none, the gold answer."""
    if _has_both(problem, entry):
        return _is_stated(problem, entry.statement or "")
    return not _is_other_gold(entry.gold, problem)


def _index(suite: Suite, keys: Callable[[Problem], tuple[str, ...]]) -> dict[str, list[Problem]]:
    index: defaultdict[str, list[Problem]] = defaultdict(list)
    for problem in suite.problems:
        for key in keys(problem):
            index[key].append(problem)
    return dict(index)


def _explain(suite: Suite, entry: Entry, named: Problem | None) -> UserError:
    """Return the error of a sample of which the suite has no problem, or has another one under its id."""
    if named is None:
        return UserError(
            f"{entry.where}: a sample must be of a problem of {suite.name}, by its id or its statement",
            value=entry.problem_id or (entry.statement or "")[:60] or "no id and no statement",
            cure=_CURE,
        )
    what = "statement" if _has_both(named, entry) else "gold"
    return UserError(
        f"{entry.where}: equal ids must be equal problems, but the {what} of {named.id} is another one in {suite.name}",
        value=f"{(getattr(entry, what) or '')[:60]!r} and {getattr(named, what)[:60]!r}",
        cure=_CURE,
    )
