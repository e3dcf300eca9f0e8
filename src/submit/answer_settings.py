"""Settings of `submit answer`: the table, whose rules, which clock, and what of that the organiser fixes."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from mathlete.command import LeadingFlags
from mathlete.competitions import Competition, SamplingRules, competition
from mathlete.drawing import ModelSettings
from mathlete.errors import UserError, nearest, require, split_pairs
from mathlete.models import find_model, pick_default_model
from mathlete.prompts import PromptSettings
from mathlete.sampling import SamplingConfig
from mathlete.solve import BudgetSettings, Policy
from submit.building import Solving, draw_as_recorded, find_cap

if TYPE_CHECKING:
    from mathlete.corpus import Questions
    from mathlete.replay import Choice

_COLUMNS = ("id", "statement", "gold")
"""What --columns can name."""
_SERVED_CAP = 8192
"""Cap on a completion of a server's model of which nothing is known here, tokens: most hosted ones take as much."""


@dataclass(frozen=True, kw_only=True)
class AnswerSettings:
    """What to answer, with what, by whose rules."""

    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """Table of questions (CSV, JSONL, JSON, parquet), each with an id and its text."""
    competition: str | None = None
    """A competition's name, or a file of its rules, NAME.toml: columns, range, fallback, clock. Default: none, and
    answers are handed in as the model wrote them."""
    columns: tuple[str, ...] = ()
    """NAME=COLUMN where neither the rules nor the usual names say it: id, statement, gold."""
    out: Path | None = None
    """File to write the answers to, beside submission.csv in the run's folder."""
    score: bool = False
    """Read the right answers in the file, and say in the end how many of ours are right. They are ignored otherwise."""
    fallbacks_max: float = 0.5
    """Share of questions without an answer of the model above which the exit code is 1."""
    accept_refused: str = ""
    """Why to use a model that the gates of its training refused: for the run's manifest."""
    run: Path | None = None
    """The run's folder; default: runs/answer-FILE. The same command goes on there where it stopped."""
    overwrite: bool = False
    """Delete what a run of another file or of other settings left in the folder."""
    json: bool = False
    """End with one line of JSON on stdout."""
    model: Annotated[ModelSettings, tyro.conf.arg(name="")] = field(default_factory=ModelSettings)
    solving: Annotated[Solving, tyro.conf.arg(name="")] = field(default_factory=Solving)

    @cached_property
    def rules(self) -> Competition | None:
        """The competition's rules."""
        return competition(self.competition) if self.competition else None

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.run or Path("runs") / f"answer-{self.file.stem}"

    def read(self, *, golds: bool = False) -> "Questions":
        """Read the questions, from the columns that --columns names, or else the rules.

        Raises:
            UserError: a word that names no column, or what the file lacks.
        """
        from mathlete.corpus import Questions

        rule, cure = "--columns must say which column is what", "write --columns id=NAME statement=NAME"
        named = split_pairs(self.columns, rule=rule, cure=cure)
        if odd := next((name for name in named if name not in _COLUMNS), None):
            raise UserError(rule, value=f"{odd}={named[odd]}", cure=f"{cure}; {nearest(odd, _COLUMNS)}")
        ruled = dict(zip(_COLUMNS, self.rules.columns, strict=False)) if self.rules else {}
        whose = "--columns" if named or not self.rules else f"the rules of {self.rules.name}"
        return Questions.read(self.file, columns=ruled | named, whose=whose, golds=golds)

    def to_budget(self, *, questions: int) -> BudgetSettings | None:
        """Return the clock that the questions share: that of --budget, else the competition's; None: there is none.

        Raises:
            UserError: words that are no budget, or a clock longer than the competition's.
        """
        words, rules = self.solving.budget, self.rules
        if not words:
            return share_wall(rules, questions=questions) if rules else None
        try:
            # No gateway waits behind it: what is kept back is in the words, or nothing.
            budget = BudgetSettings.parse(words, questions=questions)
            if rules and rules.wall_s and (budget is None or budget.wall_s > rules.wall_s):
                raise UserError(
                    f"--budget must keep within the competition's {rules.wall_s} s",
                    value=words,
                    cure="leave it out for the competition's clock",
                )
        except UserError as error:
            if (file := self.solving.policy_file) and self._read_filed(file).budget == words:
                cure = f"add --budget SECONDS for these {questions} questions, in place of the file's"
                raise UserError(error.rule, value=f"{error.value}, by {file}", cure=cure) from error
            raise
        return budget

    @staticmethod
    def _read_filed(file: Path) -> "Choice":
        from mathlete.replay import Choice

        return Choice.read(file)

    def to_model(self, *, say: Callable[[str], None]) -> ModelSettings:
        """Return the model and its engine, with the organiser's prompt where there is one.

        Args:
            say: called with what a policy file says of the prompt in vain.

        Raises:
            UserError: it can't be built here, or a flag says something else of the prompt.
        """
        if not (self.competition and self.rules and self.rules.prompt):
            return self.model
        own, asked = PromptSettings(organiser=self.competition), self.model.prompt
        if asked not in (PromptSettings(), own):
            value = ", ".join(asked.to_json())
            if asked == self._read_filed_prompt():
                # Whoever names a competition is asked as its organiser asks.
                say(f"the prompt is the organiser's, by the rules of {self.rules.name}, not the policy file's: {value}")
            elif asked != PromptSettings(organiser=asked.organiser) or self._differs(asked.organiser):
                raise UserError("an organiser's prompt must be alone", value=value, cure="leave out all of --prompt.")
        return replace(self.model, prompt=own)

    def _read_filed_prompt(self) -> PromptSettings:
        file = self.solving.policy_file
        return self._read_filed(file).draw_prompt(PromptSettings()) if file else PromptSettings()

    def _differs(self, organiser: str) -> bool:
        return self.rules is None or competition(organiser).prompt != self.rules.prompt

    def to_policy(self) -> Policy:
        """Return the policy in words and numbers.

        Raises:
            UserError: an unknown word, a value out of its range, or another than the one that the organiser fixes.
        """
        policy = self.solving.to_policy()
        if self.rules and self.rules.sampling:
            file = self.solving.policy_file
            cure = f"leave it out, and --policy-file {file} where that says it" if file else "leave it out"
            require_fixed(policy, self.rules.sampling, cure=cure)
        return policy

    def check(self) -> None:
        """Raise UserError where a value is out of its range."""
        share = self.fallbacks_max
        require(("fallbacks-max", share, 0 <= share <= 1, "0 to 1"), cure="leave it out")


def require_table(rules: Competition) -> None:
    """Raise UserError where a competition asks for more than a table."""
    if rules.deliverable == "adapter":
        value = f"{rules.name}, whose deliverable is an adapter"
        raise UserError("the competition must take answers", value=value, cure="name another competition, or none")


def require_fixed(policy: Policy, rules: SamplingRules, *, cure: str) -> None:
    """Raise UserError where a policy samples otherwise than the organiser fixes it."""
    own, top_k, fixed = policy.sampling, rules.top_k or 0, "as the organiser fixes it"
    temperature, top_p, cap = rules.temperature, rules.top_p, rules.max_tokens
    require(
        ("n", policy.n, policy.n == rules.samples, f"{rules.samples}, {fixed}"),
        ("sampling.temperature", own.temperature, own.temperature == temperature, f"{temperature:g}, {fixed}"),
        ("sampling.top-p", own.top_p, own.top_p == top_p, f"{top_p:g}, {fixed}"),
        ("sampling.top-k", own.top_k, own.top_k == top_k, f"{top_k}, {fixed}"),
        ("sampling.max-tokens", own.max_tokens, own.max_tokens == cap, f"{cap}, {fixed}"),
        cure=cure,
    )


def share_wall(rules: Competition, *, questions: int) -> BudgetSettings | None:
    """Return how so many questions share the competition's clock, as its notebook would; None where it has none.

    >>> share_wall(competition("aimo-3"), questions=50).words
    '18000:300:900:600'
    """
    if rules.wall_s is None:
        return None
    # By the competition's own count: who tries five questions gives each as long as it will have among all.
    even = BudgetSettings.share_evenly(wall_s=rules.wall_s, questions=rules.problems)
    reserve_s = rules.reserve_s or 0.0
    floor_s = even.floor_s if rules.question_min_s is None else rules.question_min_s
    floor_s = min(floor_s, (rules.wall_s - reserve_s) / questions)
    ceiling_s = even.ceiling_s if rules.question_max_s is None else rules.question_max_s
    ceiling_s = max(floor_s, ceiling_s)
    return replace(even, reserve_s=reserve_s, floor_s=floor_s, ceiling_s=ceiling_s, questions=questions)


LEADING_FLAGS = ("model", "engine", "policy-file", "competition")
"""Flags that the defaults of others depend on."""


def answer_defaults(flags: LeadingFlags) -> AnswerSettings:
    """Return the defaults: a cap for the model, what the organiser fixes, and what a policy file says."""
    model = flags.last("model")
    if model is None and flags.last("engine") != "openai":
        model = "pocket" if flags.asks_for_help else pick_default_model()[0]
    solving, fixed = Solving(sampling=SamplingConfig(max_tokens=_SERVED_CAP)), None
    # What cannot be read is told when it is used, in the place of its own among the mistakes.
    with suppress(UserError):
        if model:
            source = find_model(model)
            place = f"{source.location}@{source.revision}" if source.revision else source.location
            solving = Solving(sampling=SamplingConfig(max_tokens=find_cap(place, asks_hub=True)))
    with suppress(UserError):
        fixed = competition(name).sampling if (name := flags.last("competition")) else None
    if fixed:
        sampling = SamplingConfig(
            temperature=fixed.temperature, top_p=fixed.top_p, top_k=fixed.top_k or 0, max_tokens=fixed.max_tokens
        )
        solving = replace(solving, n=fixed.samples, sampling=sampling)
    drawn = ModelSettings()
    if chosen := flags.last("policy-file"):
        solving, drawn = solving.with_file(Path(chosen)), draw_as_recorded(drawn, Path(chosen))
    return AnswerSettings(file=tyro.MISSING, solving=solving, model=drawn)
