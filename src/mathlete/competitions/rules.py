"""A competition's rules as a record, and what must hold of them."""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import date
from typing import Literal

from mathlete.competitions.keys import FOLLOWING, check_keys, make_defaults
from mathlete.competitions.reading import CURE, read_fields, with_lists, without_nulls
from mathlete.competitions.scorer import AnswerType, ScorerRules
from mathlete.competitions.tables import AdapterRules, GatewayRules, PromptRules, SamplingRules
from mathlete.errors import Rule, UserError, require

Deliverable = Literal["notebook", "adapter", "csv"]
"""What is handed in: a notebook that Kaggle runs again through its gateway · a LoRA adapter in a zip, which the
organiser serves · a table of ids and answers."""


@dataclass(frozen=True, kw_only=True)
class NotebookRules:
    """What the rules of every competition say whose deliverable is a notebook, as `Competition` explains it."""

    answers: range
    fallback: int
    wall_s: int
    reserve_s: float
    predict_deadline_s: int
    machine: str
    gateway: GatewayRules


@dataclass(frozen=True, kw_only=True)
class Competition:
    """One competition's rules, as its file says them; the sources stand in the file."""

    name: str
    """The file's name without its ending."""
    slug: str
    """Kaggle's competition slug."""
    deliverable: Deliverable = "notebook"
    """What is handed in."""
    answer_type: AnswerType = "integer"
    """What an answer is."""
    answer_min: int | float | None = None
    """Smallest answer that may be submitted; an integer's must be said, a number's may be."""
    answer_max: int | float | None = None
    """Largest answer that may be submitted."""
    modulus: int | None = None
    """What an integer outside the range is reduced by; None where the rules reduce nothing."""
    fallback: int | None
    """The integer that is sent where the model has none; left out: 0, or the end of the range that is nearest to it."""
    problems: int
    """Problems of the private set; of a notebook, served in one rerun."""
    wall_s: int | None = None
    """Notebook wall clock of a rerun, seconds."""
    reserve_s: float | None
    """Left unused at the end, seconds; left out: 600, of a short wall a tenth."""
    question_min_s: float | None = None
    """Floor of a question, seconds; None: five sixths of an even share of the wall."""
    question_max_s: float | None = None
    """Ceiling of a question, seconds; None: two and a half even shares."""
    columns: tuple[str, str]
    """Names of the two columns of test.csv, which `predict` receives: the id's and the statement's."""
    submission_columns: tuple[str, str]
    """Names of the submission's columns: the id's and the answer's; left out: the id's of `columns`, and answer. Of an
    adapter, those of the table that the organiser makes with it."""
    predict_deadline_s: int | None = None
    """Deadline of every `predict` call after the first, seconds."""
    runs: int
    """Runs of the private set; left out: 1."""
    points: tuple[float, ...]
    """Points of a problem that was right in none, one, two … of the runs; left out: the share of the runs."""
    submissions_a_day: int | None = None
    """Submissions that a team may make a day; None where it is not known."""
    machine: str | None
    """Kaggle's machine shape for the notebook; left out: the first of `machines`."""
    machines: tuple[str, ...] | None = None
    """All machine shapes that may be chosen; None where the rules do not list them."""
    released_before: date | None = None
    """Models must have been released before this day; None where the rules name no day."""
    licences: tuple[str, ...] | None = None
    """Licences that a model may have, by their names on Kaggle; None where the rules name none."""
    placeholders: Mapping[str, str]
    """{id: statement} of the test.csv that a notebook sees outside its rerun; left out: three easy sums."""
    gateway: GatewayRules | None = None
    """How a notebook is asked."""
    scorer: ScorerRules
    """How answers are read and compared; left out: by `answer_type`, in the submission's column."""
    prompt: PromptRules | None = None
    """What the organiser puts around a problem; None where competitors choose it."""
    sampling: SamplingRules | None = None
    """How the organiser samples; None where competitors choose it."""
    adapter: AdapterRules | None = None
    """What an adapter that is handed in must be."""

    @property
    def integers(self) -> range | None:
        """The integers that may be submitted; None where an answer may be something else."""
        low, high = self.answer_min, self.answer_max
        if self.answer_type != "integer" or low is None or high is None:
            return None
        return range(int(low), int(high) + 1)

    @property
    def notebook(self) -> NotebookRules:
        """What only the rules of a notebook say; they were checked when they were read.

        Raises:
            UserError: the competition takes something else.
        """
        if self.deliverable != "notebook":
            other = "answer its table with `python -m submit answer`, or " if self.deliverable == "csv" else ""
            raise UserError(
                "the competition must take a notebook",
                value=f"{self.name}, whose deliverable is {self.deliverable}",
                cure=f"{other}name another competition",
            )
        said = {field.name: getattr(self, field.name) for field in fields(NotebookRules) if field.name != "answers"}
        return NotebookRules(answers=self.integers or range(0), **said)

    @property
    def organisers_prompt(self) -> PromptRules:
        """What the organiser puts around a problem.

        Raises:
            UserError: competitors choose it themselves.
        """
        if self.prompt is None:
            cure = "name a competition with a table [prompt], or leave it out"
            raise UserError("the competition's organiser must choose the prompt", value=self.name, cure=cure)
        return self.prompt

    def score(self, right: int, *, runs: int, blank: int = 0) -> float:
        """Return the points of a problem that was right in so many of the runs, and had no answer in so many.

        With another number of runs than the competition's, what lies between two of its points is a straight line. What
        the scorer gives for an answer that is wrong, or missing, counts by its share of the runs.

        >>> from mathlete.competitions import competition
        >>> [competition("aimo-3").score(right, runs=2) for right in (0, 1, 2)]
        [0.0, 0.5, 1.0]
        """
        place = right * self.runs / runs
        below = min(int(place), self.runs - 1)
        low, high = self.points[below : below + 2]
        others = (runs - right - blank) * self.scorer.wrong + blank * self.scorer.blank
        return low + (high - low) * (place - below) + others / runs

    def list_points(self) -> list[float]:
        """Return the points of a problem that was right in none, one, two … of the runs, and wrong in the others."""
        return [self.score(right, runs=self.runs) for right in range(self.runs + 1)]

    def to_json(self) -> dict[str, object]:
        """Return the rules as JSON values; `from_json` reads them back."""
        return {key: with_lists(value) for key, value in asdict(self).items()}

    def flatten(self) -> dict[str, object]:
        """Return what the rules say, {key: JSON value}; a table's keys have its name before them.

        >>> from mathlete.competitions import competition
        >>> competition("aimo-3").flatten()["gateway.package"]
        '0.9.0'
        """
        # How a file is named is no rule.
        return dict(_list_leaves("", {key: part for key, part in self.to_json().items() if key != "name"}))

    def describe(self) -> dict[str, str]:
        """Return what the rules say in words on one line each, by the keys of `flatten`."""
        return {key: _write(value) for key, value in self.flatten().items()}

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> "Competition":
        """Return the rules in a value that `to_json` made.

        Raises:
            UserError: they are another version's.
        """
        said = without_nulls(value)
        name = str(said.pop("name", ""))
        # What is no day stays a text, which is refused below.
        with suppress(ValueError):
            if isinstance(day := said.get("released_before"), str):
                said["released_before"] = date.fromisoformat(day)
        try:
            return read_rules(said, name=name, where="a build's rules")
        except UserError as error:
            raise UserError(error.rule, value=error.value, cure="build it again") from error


_MOST_PROBLEMS = 1_000_000
"""Problems of a private set that a file may say: simulations have a number for each."""
_SCORED_AS: dict[str, tuple[str, ...]] = {
    "integer": ("integer", "number"),
    "number": ("number",),
    "text": ("text", "number"),
}
"""By which rules answers of a type can be compared."""


def read_rules(value: Mapping[str, object], *, name: str, where: str) -> Competition:
    """Return the rules that a table of TOML or JSON values holds.

    Args:
        value: the table.
        name: the competition's.
        where: what holds it, for the errors.

    Raises:
        UserError: a key that is missing, unknown, wrong or contradicts another.
    """
    # Types first: the defaults are computed from what the file says.
    said = read_fields(Competition, value, where=where, optional=FOLLOWING, unsaid=("name",))
    said = {"deliverable": Competition.deliverable, "answer_type": Competition.answer_type, **said}
    check_keys(said, where=where)
    rules = Competition(name=name, **{**make_defaults(said), **said})
    require(*_list_rules(rules), prefix=f"{where}: ", cure=CURE)
    return rules


def _list_leaves(name: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _list_leaves(f"{name}.{key}" if name else str(key), part)
    elif value is not None:
        yield name, value


def _write(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value).replace("\n", "\\n")


def _list_rules(rules: Competition) -> Iterator[Rule]:
    """Yield what must hold of the values, each in its range and none against another."""
    yield "slug", rules.slug, bool(re.fullmatch("[a-z0-9-]+", rules.slug)), "of small letters, digits and hyphens"
    yield from _list_answer_rules(rules)
    yield "problems", rules.problems, 1 <= rules.problems <= _MOST_PROBLEMS, f"1 to {_MOST_PROBLEMS:,}"
    yield from _list_clock_rules(rules)
    yield from _list_point_rules(rules)
    daily, machines = rules.submissions_a_day, rules.machines
    yield "submissions_a_day", daily, daily is None or daily >= 1, "at least 1"
    if machines is not None:
        yield "machine", rules.machine, rules.machine in machines, f"one of machines, {', '.join(machines)}"
    for table in (rules.gateway, rules.scorer, rules.prompt, rules.sampling, rules.adapter):
        yield from table.list_rules() if table else ()


def _list_answer_rules(rules: Competition) -> Iterator[Rule]:
    low, high, modulus, fallback = rules.answer_min, rules.answer_max, rules.modulus, rules.fallback
    kind = rules.answer_type
    yield (
        "answer_type",
        kind,
        rules.deliverable != "notebook" or kind == "integer",
        "integer where deliverable is notebook: the kernel sends nothing else",
    )
    yield "answer_max", high, low is None or high is None or high >= low, "at least answer_min"
    yield "modulus", modulus, modulus is None or modulus >= 1, "at least 1"
    yield (
        "modulus",
        modulus,
        modulus is None or low is None or modulus > low,
        "above answer_min: what it leaves is below it",
    )
    yield (
        "modulus",
        modulus,
        modulus is None or high is None or modulus <= high + 1,
        "at most answer_max + 1: what it leaves would not be an answer",
    )
    answers = rules.integers
    yield "fallback", fallback, answers is None or fallback in answers, f"{low} to {high}", "leave it out"
    rule = rules.scorer.rule
    yield "scorer.rule", rule, rule in _SCORED_AS[kind], f"{' or '.join(_SCORED_AS[kind])} where answer_type is {kind}"
    reads = [*rules.scorer.reads]
    if rules.deliverable == "adapter":
        yield "scorer.reads", reads, rules.scorer.reads_text, "places in the model's text where deliverable is adapter"
    else:
        words = f"submission alone where deliverable is {rules.deliverable}"
        yield "scorer.reads", reads, not rules.scorer.reads_text, words


def _list_clock_rules(rules: Competition) -> Iterator[Rule]:
    wall_s, reserve_s, deadline_s = rules.wall_s, rules.reserve_s, rules.predict_deadline_s
    floor_s, ceiling_s = rules.question_min_s, rules.question_max_s
    yield "wall_s", wall_s, wall_s is None or wall_s >= 1, "at least 1"
    yield (
        "reserve_s",
        reserve_s,
        reserve_s is None or (wall_s is not None and 0 <= reserve_s < wall_s),
        "0 to less than wall_s",
        "leave it out",
    )
    yield "question_min_s", floor_s, (floor_s or 0) >= 0, "0 or more"
    yield "question_max_s", ceiling_s, ceiling_s is None or ceiling_s > (floor_s or 0), "above question_min_s"
    spare_s = (wall_s or 0) - (reserve_s or 0)
    yield (
        "question_min_s",
        floor_s,
        (floor_s or 0) * rules.problems <= spare_s,
        f"at most {spare_s / max(1, rules.problems):g}, an even share of wall_s less reserve_s",
        "leave it out",
    )
    yield "predict_deadline_s", deadline_s, deadline_s is None or deadline_s >= 1, "at least 1"


def _list_point_rules(rules: Competition) -> Iterator[Rule]:
    points, scorer = [*rules.points], rules.scorer
    once = "1 where deliverable is csv: a table is handed in once"
    yield "runs", rules.runs, rules.runs == 1 or rules.deliverable != "csv", once
    yield (
        "points",
        points,
        len(points) == rules.runs + 1,
        f"{rules.runs + 1} numbers: of none to all of the runs right",
    )
    yield "points", points, points == sorted(points) and 0 <= points[0] < points[-1] <= 1, "from 0 to 1, ascending"
    for name, value in (("wrong", scorer.wrong), ("blank", scorer.blank)):
        yield (
            f"scorer.{name}",
            value,
            not value or rules.runs == 1,
            "0 where runs is above 1: points say what each earns",
        )
