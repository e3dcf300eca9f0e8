"""The prompts of a model of which nothing is on this machine: a chat server makes them of a conversation."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mathlete.marks import Marks
from mathlete.problems import Problem
from mathlete.prompts import PromptFormat
from mathlete.reasoning import THINK, ReasoningMarks
from mathlete.runs import sha256_json


@dataclass(frozen=True, kw_only=True)
class HostedPrompts(PromptFormat):
    """Conversations for such a model: without a tokenizer there are no ids, and no marks that are known to be some.

    >>> HostedPrompts(instruction="Box it.").messages("1 + 1?")
    [{'role': 'user', 'content': '1 + 1?\\nBox it.'}]
    """

    tokenizer: Any = None

    def render(self, statement: str) -> str:
        """Return what is sent: the server's template is its own."""
        return self._content(statement)

    def fit_prompt_ids(self, problem: Problem, *, context: int) -> list[int]:
        """Return no ids: how long the server's prompt is, the server says."""
        return []

    @cached_property
    def marks(self) -> Marks:
        """No marks."""
        return Marks({}, encode=lambda text: [])

    @cached_property
    def reasoning(self) -> ReasoningMarks:
        """The marks that most models reason between; a server that sends the reasoning apart has it put into them."""
        return THINK

    @cached_property
    def can_reason(self) -> bool:
        """Whether it may reason: nobody here knows that it doesn't."""
        return True

    @cached_property
    def marks_are_special(self) -> bool:
        """Whether a server would leave them out of the text; nobody here knows."""
        return False

    @cached_property
    def prefilled(self) -> bool:
        """Whether the prompt opens the reasoning; nobody here knows."""
        return False

    @cached_property
    def answers_at_once(self) -> bool:
        """Whether the prompt has closed the reasoning already; nobody here knows."""
        return False

    @cached_property
    def sha256(self) -> str:
        """Hash of instruction and arguments: the template is the server's."""
        return sha256_json({"template": "the server's own", **self.saved.to_json()})
