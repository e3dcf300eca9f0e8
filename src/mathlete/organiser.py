"""The organiser's scorer beside mathlete's own checker: what each says of the same answers.

Where the checker says equal and the scorer gives no point, the answer is lost to the scorer, not to the maths: it was
written in a way that the organiser does not read. `BothJudged` is one answer, `ScorerResult` those of a run.

>>> from mathlete.competitions import competition
>>> rules = competition("nemotron-like")
>>> judged = [
...     judge_both(rf"\\boxed{{{answer}}}", gold=gold, rules=rules, problem_id=name, answer=answer, own="equal")
...     for name, answer, gold in (("a", "1/2", "0.5"), ("b", "7", "7"))
... ]
>>> result = ScorerResult.of(judged, rules=rules)
>>> for line in result.describe():
...     print(line)
scorer of nemotron-like: 1 of 2 points; mathlete's checker: 2 of 2 right
you would lose 1 of 2 to the scorer, not to the maths: a (read 1/2, gold 0.5)
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from mathlete.answers import parse, read_integer
from mathlete.competitions import Competition
from mathlete.folders import SCORER
from mathlete.problems import Problem
from mathlete.runs import read_json, read_record, write_json
from mathlete.text import counted, quote

Grade = Literal["equal", "different", "unknown", "none"]
"""An answer against the gold: unknown where the checker cannot tell, none where there is no answer."""
_SHOWN = 5
"""Answers that are named on a line; the record names all."""
_SHOWN_CHARACTERS = 40


@dataclass(frozen=True, kw_only=True)
class BothJudged:
    """One answer, judged by the organiser's scorer and by mathlete's checker."""

    id: str
    """The problem's."""
    index: int | None = None
    """The sample's; None: the answer is the problem's own."""
    gold: str
    answer: str | None
    """As mathlete has read it."""
    own: Grade
    """Mathlete's verdict on it."""
    read: str | None
    """As the scorer has read what was handed in; None: nothing."""
    right: bool
    """Whether it is right for the scorer."""
    points: float

    @property
    def lost(self) -> bool:
        """Whether it is right by the maths, and not for the scorer."""
        return self.own == "equal" and not self.right

    @property
    def gained(self) -> bool:
        """Whether it is right for the scorer, and not known to be right by the maths."""
        return self.own != "equal" and self.right

    def describe(self) -> str:
        """Return it in a few words."""
        name = self.id if self.index is None else f"{self.id} sample {self.index}"
        read = "nothing" if self.read is None else _shorten(self.read)
        other = "" if self.answer in (self.read, None) else f", mathlete read {_shorten(str(self.answer))}"
        return f"{name} (read {read}, gold {_shorten(self.gold)}{other})"

    def to_json(self) -> dict[str, object]:
        """Return it as a JSON object; without an index it has no key for one."""
        return {name: value for name, value in vars(self).items() if name != "index" or value is not None}


def _shorten(text: str) -> str:
    return quote(text, most=_SHOWN_CHARACTERS)


def judge_both(
    text: str | None,
    *,
    gold: str,
    rules: Competition,
    problem_id: str,
    index: int | None = None,
    answer: str | None,
    own: Grade,
) -> BothJudged:
    """Have the competition's scorer judge what was handed in, and return that beside mathlete's verdict."""
    judged = rules.scorer.judge(text, gold=gold)
    said: Any = {"read": judged.read, "right": judged.right, "points": judged.points}
    return BothJudged(id=problem_id, index=index, gold=gold, answer=answer, own=own, **said)


def organisers_gold(gold: str, *, rules: Competition) -> str | None:
    r"""Return a suite's gold as the organiser would have it; None where it is no answer of this competition.

    >>> from mathlete.competitions import competition
    >>> [organisers_gold(gold, rules=competition("aimo-3")) for gold in (r"1{,}234", "042", r"\frac{1}{2}", "100000")]
    ['1234', '42', None, None]
    """
    if rules.integers is None:
        decimal = parse(gold).decimal if rules.answer_type == "number" else None
        return gold if decimal is None or _is_in_range(decimal, rules) else None
    value = read_integer(gold, competition=rules)
    return None if value is None else str(value)


def list_golds(problems: Iterable[Problem], *, rules: Competition) -> dict[str, str]:
    """Return {id: gold as the organiser would have it} of the problems whose gold is an answer of the competition."""
    golds = ((problem.id, organisers_gold(problem.gold, rules=rules)) for problem in problems)
    return {name: gold for name, gold in golds if gold is not None}


def choose_answer(answers: Iterable[str], *, rules: Competition | None) -> str | None:
    r"""Return what is handed in, given a problem's answers with most votes first; None where none may be.

    Of integers it is the first in range, as the notebook sends it, of numbers the first in digits. Texts, and answers
    without a competition, are handed in as the model wrote them.

    >>> from mathlete.competitions import competition
    >>> choose_answer([r"\frac{1}{2}", "0042"], rules=competition("aimo-3"))
    '42'
    >>> choose_answer([r"\frac{1}{2}", "0042"], rules=None)
    '\\frac{1}{2}'
    """
    return next((sent for one in answers if (sent := _read_sendable(one, rules)) is not None), None)


def _read_sendable(answer: str, rules: Competition | None) -> str | None:
    if rules is None or rules.answer_type == "text":
        return answer.strip() or None
    if rules.answer_type == "integer":
        value = read_integer(answer, competition=rules)
        return None if value is None else str(value)
    decimal = parse(answer).decimal
    return None if decimal is None or not _is_in_range(decimal, rules) else decimal


def _is_in_range(decimal: str, rules: Competition) -> bool:
    low, high = rules.answer_min, rules.answer_max
    return (low is None or float(decimal) >= low) and (high is None or float(decimal) <= high)


def fallback_of(rules: Competition | None) -> str:
    """Return what the cell of a question gets that has no answer; "" for an empty cell.

    It is the competition's fallback. A notebook must send one; in a table the cell stays empty where a wrong answer
    costs more points than none.

    >>> from mathlete.competitions import competition
    >>> fallback_of(competition("aimo-3")), fallback_of(None)
    ('0', '')
    """
    if rules is None or rules.fallback is None:
        return ""
    spared = rules.deliverable != "notebook" and rules.scorer.wrong < rules.scorer.blank
    return "" if spared else str(rules.fallback)


def choose_sent(answers: Iterable[str], *, rules: Competition) -> str | None:
    """Return what is handed in for a problem, given its answers with most votes first; None: the cell stays empty.

    >>> from mathlete.competitions import competition
    >>> [choose_sent(answers, rules=competition("aimo-3")) for answers in (["1/2", "0042"], ["100000"], [])]
    ['42', '0', '0']
    """
    sent = choose_answer(answers, rules=rules)
    return sent if sent is not None else fallback_of(rules) or None


@dataclass(frozen=True, kw_only=True)
class ScorerResult:
    """What the organiser's scorer gives for the answers of a run, beside mathlete's checker."""

    competition: str
    judged: Sequence[BothJudged]
    left_out: Sequence[str] = ()
    """Ids of problems whose gold is no answer of the competition."""
    scorer: Mapping[str, object] = field(default_factory=dict)
    """The scorer's rules, as the competition's file says them."""

    @classmethod
    def of(cls, judged: Sequence[BothJudged], *, rules: Competition, left_out: Sequence[str] = ()) -> Self:
        """Return the result of a competition's scorer."""
        scorer: Any = rules.to_json()["scorer"]
        return cls(competition=rules.name, judged=judged, left_out=left_out, scorer=scorer)

    @property
    def points(self) -> float:
        """Points of all answers together."""
        return sum(one.points for one in self.judged)

    def to_json(self) -> dict[str, object]:
        """Return the counts, and every answer with both verdicts, as JSON; `from_json` reads them back."""
        return {
            "competition": self.competition,
            "scorer": self.scorer,
            **self.to_summary(),
            "left_out": [*self.left_out],
            "judged": [one.to_json() for one in self.judged],
        }

    def to_summary(self) -> dict[str, object]:
        """Return the counts as JSON, and the answers on which scorer and checker differ."""
        return {
            "answers": len(self.judged),
            "points": self.points,
            "right": sum(one.right for one in self.judged),
            "right_by_checker": sum(one.own == "equal" for one in self.judged),
            "lost_to_scorer": [one.to_json() for one in self.judged if one.lost],
            "gained_by_scorer": [one.to_json() for one in self.judged if one.gained],
            "words": [*self.describe()],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Return the result in a value that `to_json` made."""
        judged = [BothJudged(**row) for row in value["judged"]]
        said = {name: value[name] for name in ("competition", "left_out", "scorer")}
        return cls(**said, judged=judged)

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Return the result in a run's folder; None where it was judged by no competition.

        Raises:
            UserError: the file there is none.
        """
        file = folder / SCORER
        return read_record(file, cls.from_json) if file.is_file() else None

    def write(self, folder: Path) -> bool:
        """Write the result into a run's folder; return whether it is another than was there."""
        file, content = folder / SCORER, self.to_json()
        if file.is_file() and read_json(file) == content:
            return False
        write_json(file, content)
        return True

    def describe(self) -> Iterator[str]:
        """Yield what both say, in sentences: the points, and the answers on which they differ."""
        total, what = len(self.judged), self._unit
        if self.left_out:
            few, number = ", ".join(self.left_out[:_SHOWN]), counted(len(self.left_out), "problem")
            yield f"left out: {number} whose gold is no answer of {self.competition}: {few}"
        if not total:
            return
        right = sum(one.own == "equal" for one in self.judged)
        agree = "" if any(one.lost or one.gained for one in self.judged) else ", and they agree on each"
        yield (
            f"scorer of {self.competition}: {self.points:g} of {total} points; "
            f"mathlete's checker: {right} of {total} right{agree}"
        )
        yield from self._describe_difference(
            f"you would lose {{}} of {total}{what} to the scorer, not to the maths", lambda one: one.lost
        )
        yield from self._describe_difference(
            f"the scorer would give you {{}} of {total}{what} that mathlete's checker does not call equal",
            lambda one: one.gained,
        )

    @property
    def _unit(self) -> str:
        return " samples" if any(one.index is not None for one in self.judged) else ""

    def _describe_difference(self, words: str, differs: Callable[[BothJudged], bool]) -> Iterator[str]:
        some = [one for one in self.judged if differs(one)]
        if some:
            rest = f" and {len(some) - _SHOWN} more" if len(some) > _SHOWN else ""
            yield f"{words.format(len(some))}: {'; '.join(one.describe() for one in some[:_SHOWN])}{rest}"
