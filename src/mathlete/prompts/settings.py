"""What is free in a prompt: as it is to be, and as a model's folder keeps it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from mathlete.competitions import PromptRules, competition
from mathlete.errors import UserError, parse_word
from mathlete.runs import read_record
from mathlete.templates import SWITCHES

INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
"""DeepSeek's own advice for R1 on mathematics (README of deepseek-ai/DeepSeek-R1, "Usage Recommendations")."""
PROMPT_FILE = "mathlete_prompt.json"


@dataclass(frozen=True, kw_only=True)
class PromptSettings:
    """What stands in the prompt beside the problem, where it is to be other than the model's folder says."""

    instruction: str | None = None
    """What is asked behind the problem, "" for nothing; default: what the model was trained with, else R1's."""
    template_args: tuple[str, ...] = ()
    """Arguments of the chat template, KEY=VALUE, as in enable_thinking=false or reasoning_effort=high; default: those
    that the model was trained with."""

    organiser: str = ""
    """Competition, a name or a file of rules, whose organiser's prompt it is; every row is then proved against that."""

    def check(self) -> None:
        """Raise UserError where an argument is wrong, or something is said beside an organiser's prompt."""
        own = self.instruction is not None or bool(self.arguments)
        if self.organiser and own:
            cure = "leave --prompt.instruction and --prompt.template-args out"
            raise UserError("an organiser's prompt must be alone", value=self.organiser, cure=cure)

    @property
    def arguments(self) -> dict[str, object]:
        """The arguments by name; a value is JSON where it can be, else text.

        >>> PromptSettings(template_args=("enable_thinking=false", "reasoning_effort=high", "budget=512")).arguments
        {'enable_thinking': False, 'reasoning_effort': 'high', 'budget': 512}
        """
        pairs = [argument.partition("=") for argument in self.template_args]
        for argument, (name, sign, _) in zip(self.template_args, pairs, strict=True):
            if not sign or not name.isidentifier():
                cure = "write it as in --prompt.template-args enable_thinking=false"
                raise UserError("an argument of the chat template must be KEY=VALUE", value=repr(argument), cure=cure)
        if twice := [name for name, times in Counter(name for name, _, _ in pairs).items() if times > 1]:
            rule = "each argument of the chat template must be given once"
            raise UserError(rule, value=", ".join(twice), cure="leave the others out")
        return {name: _parse_value(name, word) for name, _, word in pairs}

    def to_json(self) -> dict[str, object]:
        """Return the settings as JSON values, which `from_json` reads; only what says something."""
        own = {"instruction": self.instruction, "template_args": [*self.template_args], "organiser": self.organiser}
        return {name: value for name, value in own.items() if value or (name, value) == ("instruction", "")}

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Return the settings in a JSON object.

        Raises:
            TypeError: no object, or an unknown key.
        """
        if not isinstance(value, Mapping):
            raise TypeError(f"a prompt's settings must be an object, and are {value!r}")
        return cls(**{**value, "template_args": tuple(value.get("template_args", ()))})


def _parse_value(name: str, word: str) -> object:
    named = f"--prompt.template-args {name}"
    value = parse_word(word, name=named)
    if name in SWITCHES and not isinstance(value, bool):
        raise UserError(f"{named} must be true or false", value=word, cure=f"write {name}=true or {name}=false")
    return value


@dataclass(frozen=True, kw_only=True)
class SavedPrompt:
    """What a model's folder says of its prompt."""

    instruction: str = INSTRUCTION
    """Second paragraph of the user's turn; of an organiser's prompt what follows the statement."""
    template_args: Mapping[str, object] = field(default_factory=dict)
    organiser: PromptRules | None = None
    """The organiser's prompt that it is, with the system's message and the very suffix; None: nobody's."""
    adds_bos: bool = False
    """Whether it is read by an organiser's vLLM, which puts a bos of its own before the text that it is given."""

    @classmethod
    def read(cls, model_folder: Path) -> Self:
        """Read the prompt file of a model's folder; where there is none, the instruction is R1's."""
        file = model_folder / PROMPT_FILE
        return read_record(file, cls._of_row) if file.is_file() else cls()

    @classmethod
    def _of_row(cls, row: Mapping[str, object]) -> Self:
        instruction, arguments = row["instruction"], row.get("template_args", {})
        if not isinstance(instruction, str):
            raise TypeError(f"the instruction must be a text, and is {instruction!r}")
        if not isinstance(arguments, dict):
            raise TypeError(f"the template's arguments must be an object, and are {arguments!r}")
        rules = row.get("organiser")
        if rules is not None and not isinstance(rules, dict):
            raise TypeError(f"the organiser's prompt must be an object, and is {rules!r}")
        organiser = None if rules is None else PromptRules(**rules)
        adds_bos = row.get("adds_bos") is True
        return cls(instruction=instruction, template_args=arguments, organiser=organiser, adds_bos=adds_bos)

    def with_settings(self, settings: PromptSettings) -> "SavedPrompt":
        """Return it with what the settings name in its place; arguments that they do not name stay.

        Where they name something, it is no organiser's prompt any more.
        """
        if settings.organiser:
            rules = competition(settings.organiser)
            prompt = rules.organisers_prompt
            return SavedPrompt(
                instruction=prompt.suffix.removeprefix("\n"),
                template_args=prompt.template or {},
                organiser=prompt,
                adds_bos=rules.deliverable == "adapter",
            )
        if settings.instruction is None and not settings.template_args:
            return self
        instruction = self.instruction if settings.instruction is None else settings.instruction
        return SavedPrompt(instruction=instruction, template_args={**self.template_args, **settings.arguments})

    def to_json(self) -> dict[str, object]:
        """Return the content of the prompt file, which is hashed too; of the rest only what says something."""
        arguments = {"template_args": dict(self.template_args)} if self.template_args else {}
        organiser = {"organiser": asdict(self.organiser)} if self.organiser else {}
        bos = {"adds_bos": True} if self.adds_bos else {}
        return {"instruction": self.instruction, **arguments, **organiser, **bos}
