"""One model's prompts as tokens, and the tokens of what it must write behind them."""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mathlete.competitions import PromptRules
from mathlete.errors import UserError
from mathlete.marks import Marks
from mathlete.problems import Problem
from mathlete.prompts.settings import INSTRUCTION, PROMPT_FILE, SavedPrompt
from mathlete.reasoning import THINK, TOKENS, Opening, ReasoningMarks, close_text, find_marks, is_reasoning_model
from mathlete.runs import sha256_json, write_json
from mathlete.templates import SWITCHES
from mathlete.text import clean

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARK = re.compile(r"<[|｜].+[|｜]>")
"""How most vocabularies write the marks of a chat, in use or not: <|im_end|>, <｜User｜>."""
_SAID = "391"
"""What a model says where its turn is rendered to see what the template writes after it."""


def completion_text(*, trace: str, answer: str, opening: str = "", marks: ReasoningMarks = THINK) -> str:
    r"""Return the text that the model must write after the prompt, without eos: trace, `</think>`, boxed answer.

    `opening` is the part of `<think>` and its line break that the prompt leaves to the model; `marks` are those between
    which the model reasons.

    >>> completion_text(trace="2+2=4.", answer="4")
    '2+2=4.\n</think>\n\n\\boxed{4}'
    """
    return f"{opening}{trace}{marks.ending}\\boxed{{{answer}}}"


@dataclass(frozen=True, kw_only=True)
class PromptFormat:
    """One model's prompts: its tokenizer with its chat template, and the instruction after the statement."""

    tokenizer: "PreTrainedTokenizerBase"
    instruction: str = INSTRUCTION
    """Second paragraph of the user turn; "" for none."""
    template_args: Mapping[str, object] = field(default_factory=dict)
    """Arguments of the chat template, such as enable_thinking."""
    notes: tuple[str, ...] = ()
    """What was chosen for the tokenizer when it was loaded, and why, in lines for a person."""
    organiser: PromptRules | None = None
    """The organiser's prompt that it stands for; None: nobody's."""
    adds_bos: bool = False
    """Whether the organiser's vLLM puts a bos of its own before it."""

    def prompt_ids(self, statement: str) -> list[int]:
        """Return the served prompt's token ids: bos once, the reasoning opened where the template opens it.

        Raises:
            UserError: the tokenizer has no chat template, or one that takes no question on its own.
        """
        from jinja2 import TemplateError

        if not self.tokenizer.chat_template:
            raise UserError(
                "the model needs a chat template", value="none", cure="add chat_template.jinja to its folder"
            )
        try:
            return [*self._added, *self.marks.rendered_ids(self._content(statement), self._render_content)]
        except TemplateError as error:
            raise UserError(
                "the chat template must render a question on its own",
                value=str(error),
                cure="use the template that the model is served with",
            ) from error

    @cached_property
    def _added(self) -> list[int]:
        """What an organiser's vLLM puts before a prompt that it is given as text: a bos, though there may be one."""
        return [*self.tokenizer("")["input_ids"]] if self.adds_bos else []

    def _render(self, messages: Sequence[dict[str, str]], *, prompt: bool = True) -> str:
        """Render a conversation with the template; with `prompt`, up to where the model goes on."""
        from jinja2 import TemplateRuntimeError

        render: Callable[..., object] = self.tokenizer.apply_chat_template
        try:
            return str(render([*messages], tokenize=False, add_generation_prompt=prompt, **self.template_args))
        except (AttributeError, LookupError, TypeError, ValueError) as error:  # an expression's own, of Python
            raise TemplateRuntimeError(f"{type(error).__name__}: {error}") from error

    def _render_content(self, content: str) -> str:
        return self._render(self._turns(content))

    def render(self, statement: str) -> str:
        """Return the prompt as the template writes it, where marks of the statement and of the template look alike."""
        return self._render_content(self._content(statement))

    def render_turns(self, turns: Sequence[dict[str, str]]) -> str:
        """Return a conversation as the template writes it."""
        return self._render(turns, prompt=False)

    def conversation_ids(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Return the ids of a conversation without marks in its texts, up to where the model goes on.

        Raises:
            jinja2.TemplateError: the template does not take such turns.
        """
        return self.ids(self._render(messages))

    def reply(self, *, thought: str, text: str) -> str | None:
        """Return what the model must write in a chat's turn, without the turn's end; None where it can't think there.

        Where the prompt opens the reasoning, a reply without any closes it at once, as reasoning models do.
        """
        if thought and self.answers_at_once:
            return None
        if not thought and (self.answers_at_once or not self.prefilled):
            return text
        return f"{self.opening}{thought}{self.reasoning.ending}{text}"

    def said_ids(self, said: str) -> list[int]:
        """Return the ids of what a partial completion has said, with what programs printed.

        Of all marks only those around a reasoning can be the model's in there; those of a chat are text.
        """
        others = {text: index for text, index in self.marks.tokens.items() if index in self.chat_tokens}
        return Marks(others, encode=self.ids).text_ids(said)

    def closing(self, said: str) -> str:
        r"""Return what ends a completion that was cut, up to the `\boxed{` of the answer that it must give now."""
        return close_text(said, marks=self.reasoning, opened=self.prefilled)

    def fit_prompt_ids(self, problem: Problem, *, context: int) -> list[int]:
        """Return the problem's prompt ids, for a model that attends to `context` tokens.

        Raises:
            UserError: they leave no token of the context to answer in.
        """
        prompt = self.prompt_ids(problem.statement)
        if not 2 <= len(prompt) < context:
            raise UserError(
                f"the prompt of problem {problem.id} must leave room in the model's context of {context} tokens",
                value=f"{len(prompt)} tokens",
                cure="use a model with a longer context, or take the problem out of the suite",
            )
        return prompt

    def server_text(self, statement: str) -> str:
        """Return the text that a server's own tokenizer makes the prompt's ids of; the statement's marks are broken."""
        statement = self.marks.break_up(statement)
        # Rendered, not decoded: of a SentencePiece vocabulary decoding loses or adds blanks beside marks.
        ids, text, bos = self.prompt_ids(statement), self.render(statement), str(self.tokenizer.bos_token or "")
        # A tokenizer that adds bos by itself would double it.
        adds_bos = bos and text.startswith(bos) and [*self.tokenizer(text)["input_ids"]] != ids
        return text.removeprefix(bos) if adds_bos else text

    def messages(self, statement: str) -> list[dict[str, str]]:
        """Return the conversation for a chat server: the statement, and the instruction as its second paragraph.

        Marks in them are broken, for whoever renders the conversation would take them for marks.
        """
        return self._turns(self.marks.break_up(self._content(statement)))

    def _turns(self, content: str) -> list[dict[str, str]]:
        return [*_list_system(self.organiser), {"role": "user", "content": content}]

    def _content(self, statement: str) -> str:
        suffix = f"\n{self.instruction}" if self.instruction else ""
        return clean(f"{statement}{suffix if self.organiser is None else self.organiser.suffix}")

    def completion_ids(self, *, trace: str, answer: str) -> list[int]:
        """Return the token ids of trace, `</think>`, boxed answer and eos.

        They are tokenised apart from the prompt, because a served model too continues from the prompt's own ids.
        """
        return [*self.ids(self.completion(trace=trace, answer=answer)), int(self.tokenizer.eos_token_id)]

    def completion(self, *, trace: str, answer: str) -> str:
        """Return the text that the model must write after the prompt, without eos."""
        return completion_text(trace=trace, answer=answer, opening=self.opening, marks=self.reasoning)

    @cached_property
    def reasoning(self) -> ReasoningMarks:
        """The marks between which the model reasons."""
        template, added = str(self.tokenizer.chat_template), self._added_tokens
        return find_marks(prompt=self._plain_prompt, template=template, vocabulary=added)

    @cached_property
    def can_reason(self) -> bool:
        """Whether template or vocabulary has marks for reasoning; a model without any may still be taught them."""
        return is_reasoning_model(template=str(self.tokenizer.chat_template), vocabulary=self._added_tokens)

    @cached_property
    def _added_tokens(self) -> dict[str, int]:
        """The tokens that were added to the vocabulary, and their ids."""
        return {str(token): index for index, token in self.tokenizer.added_tokens_decoder.items()}

    @property
    def _plain_prompt(self) -> str:
        """A prompt as text, "" where the template renders none: its ids can't be told before the marks are."""
        from jinja2 import TemplateError

        try:
            # Without the instruction, whose marks are not the model's.
            return self._render_content("1") if self.tokenizer.chat_template else ""
        except TemplateError:
            return ""

    @cached_property
    def marks_are_special(self) -> bool:
        """Whether these are special tokens, which a tokenizer that skips those leaves out of a text."""
        special = {str(token) for token in self.tokenizer.added_tokens_decoder.values() if token.special}
        return not special.isdisjoint(self.reasoning.tokens)

    @cached_property
    def prefilled(self) -> bool:
        """Whether the prompt itself ends in `<think>` (the revised R1 template) or leaves that to the model."""
        return self._tail.rstrip().endswith(self.reasoning.opening)

    @property
    def thoughts(self) -> Opening:
        """Whether a prompt that is rendered here opens the reasoning."""
        return Opening(thinking=self.prefilled, because=f"the prompt {'ends' if self.prefilled else 'does not end'} so")

    @cached_property
    def answers_at_once(self) -> bool:
        """Whether the prompt has closed the reasoning already, as Qwen3's does where thinking is switched off."""
        return self._tail.rstrip().endswith(self.reasoning.closing)

    @cached_property
    def opening(self) -> str:
        r"""The text before the trace that the prompt leaves to the model: "", the line break, or all of `<think>\n`.

        Raises:
            UserError: the prompt has closed the reasoning already, as Qwen3's does where thinking is switched off.
        """
        if self.answers_at_once:
            switch = self._find_switch()
            raise UserError(
                "the chat template must leave the reasoning to the model",
                value=f"a prompt that ends in {self.reasoning.closing}",
                cure=f"use --prompt.template-args {switch}=true"
                if switch
                else "use the template, and the arguments of it, that the reasoning model is served with",
            )
        if not self.prefilled:
            return self.reasoning.before
        return "" if self._tail[-1].isspace() else self.reasoning.lead

    def _find_switch(self) -> str | None:
        """Return the argument with which the template leaves the reasoning to the model; None where it has none."""
        template = str(self.tokenizer.chat_template)
        for name in SWITCHES:
            if name in template and self.template_args.get(name) is not True:
                with suppress(UserError):
                    if not replace(self, template_args={**self.template_args, name: True}).answers_at_once:
                        return name
        return None

    @cached_property
    def _tail(self) -> str:
        return str(self.tokenizer.decode(self.prompt_ids("1"), skip_special_tokens=False))

    @cached_property
    def chat_tokens(self) -> frozenset[int]:
        """The ids that shape a chat: special tokens, and added ones that the template names or that look like marks.

        Other added tokens are text, such as `<think>`, or Gemma's line breaks, runs of spaces and HTML tags.
        """
        template, added = str(self.tokenizer.chat_template), self._added_tokens
        special = {index for index, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        named = {index for text, index in added.items() if _MARK.fullmatch(text) or (text.strip() and text in template)}
        text = {index for text, index in added.items() if text in self.reasoning.tokens}
        return frozenset({*special, *named, *self.tokenizer.all_special_ids} - text)

    @cached_property
    def marks(self) -> Marks:
        """What is text in a statement: the tokens that shape a chat, and those that open and end the reasoning."""
        shaping = {text: index for text, index in self._added_tokens.items() if index in self.chat_tokens}
        # Those of other pairs too: a tuned model still knows what the one that it was made of reasoned between.
        thoughts = {token: index for token, index in self._added_tokens.items() if token in TOKENS}
        return Marks(shaping | thoughts, encode=self.ids)

    @cached_property
    def turn_end(self) -> int | None:
        """The token with which the template ends a model's turn; None where it writes none, or renders no such turn."""
        from jinja2 import TemplateError

        turns = [*self.messages("1"), {"role": "assistant", "content": _SAID}]
        try:
            after = self._render(turns, prompt=False).rpartition(_SAID)[2].lstrip()
        except TemplateError:
            return None
        first = self.ids(after)[:1]
        # A text such as "### User:" ends no turn: it is the next one's heading.
        return first[0] if first and first[0] in self.chat_tokens else None

    @cached_property
    def bos_marks_turns(self) -> bool:
        """Whether the template writes bos before every turn, as ChatML's `<|im_start|>`, and not once."""
        from jinja2 import TemplateError

        turns = [*self.messages("1"), {"role": "assistant", "content": _SAID}, self.messages("1")[-1]]
        try:
            longer = self.ids(self._render(turns))
        except TemplateError:
            return False
        bos = self.tokenizer.bos_token_id
        return bos is not None and longer.count(bos) > self.prompt_ids("1").count(bos)

    @cached_property
    def sha256(self) -> str:
        """Hash of template, its arguments and instruction, which determine every prompt; it is in every manifest."""
        return sha256_json({"template": str(self.tokenizer.chat_template), **self.saved.to_json()})

    def save(self, folder: Path) -> None:
        """Write the instruction and the template's arguments into the model's folder."""
        write_json(folder / PROMPT_FILE, self.saved.to_json())

    @property
    def saved(self) -> SavedPrompt:
        """What is free in it, as a model's folder keeps it."""
        return SavedPrompt(
            instruction=self.instruction,
            template_args=self.template_args,
            organiser=self.organiser,
            adds_bos=self.adds_bos,
        )

    def with_saved(self, saved: SavedPrompt) -> "PromptFormat":
        """Return the prompts with what a folder's file says in place of their own."""
        return replace(self, **vars(saved))

    def with_further(self, instruction: str) -> "PromptFormat":
        """Return the prompts with a further sentence behind their instruction."""
        words = " ".join(part for part in (self.instruction, instruction) if part)
        organiser = self.organiser and replace(self.organiser, suffix=f"{self.organiser.suffix} {instruction}".rstrip())
        return replace(self, instruction=words, organiser=organiser)

    def ids(self, text: str) -> list[int]:
        """Return the token ids of a rendered text."""
        # A rendered template already holds bos: adding special tokens here would double it.
        ids: list[int] = self.tokenizer(clean(text), add_special_tokens=False)["input_ids"]
        return ids


def _list_system(organiser: PromptRules | None) -> list[dict[str, str]]:
    if organiser is None or organiser.system is None:
        return []
    return [{"role": "system", "content": organiser.system}]
