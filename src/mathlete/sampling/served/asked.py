"""What a server is asked: the prompt in the forms that servers take, and the settings that not every server knows."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import chain

from mathlete.problems import Problem
from mathlete.prompts import PromptFormat
from mathlete.reasoning import ReasoningMarks
from mathlete.sampling import SamplingConfig
from mathlete.sampling.box import opens_box


@dataclass(frozen=True, kw_only=True)
class ServerPrompt:
    """One problem's prompt in the forms that servers take."""

    problem_id: str
    ids: list[int]
    text: str
    """Text that the server's tokenizer turns into the ids."""
    messages: list[dict[str, str]] | None
    """The conversation for the chat endpoint, which needs neither; None uses the other two."""
    template_args: Mapping[str, object]
    """Arguments of the server's own template."""
    goes_on: bool
    """Whether the prompt ends in a partial completion."""
    answering: bool
    """Whether that holds the end of the reasoning."""
    in_box: bool
    """Whether it ends with a box that it begins."""
    until_code: bool
    marks: ReasoningMarks
    """Those of the model's reasoning."""
    marks_are_special: bool
    """Whether a server would leave them out of the text."""

    @staticmethod
    def of(
        problem: Problem, prompts: PromptFormat, *, chat: bool, said: str = "", until_code: bool = False
    ) -> "ServerPrompt":
        """Return the problem's prompt."""
        return ServerPrompt(
            problem_id=problem.id,
            ids=[] if chat else prompts.prompt_ids(problem.statement) + prompts.said_ids(said),
            text="" if chat else prompts.server_text(problem.statement) + said,
            messages=prompts.messages(problem.statement) if chat else None,
            template_args=prompts.template_args,
            goes_on=bool(said),
            answering=prompts.answers_at_once or prompts.reasoning.closing in said,
            in_box=opens_box(said),
            until_code=until_code,
            marks=prompts.reasoning,
            marks_are_special=prompts.marks_are_special,
        )


_SPARED = ("logprobs", "seed")
"""Settings without which a sample is as good: no vote weighs it by probabilities then, and no other run draws it."""
_USUAL = ("temperature", "top_p")
"""Settings that some models have at 1 and nowhere else."""
_RENAMED = {"max_tokens": "max_completion_tokens"}
"""Settings that hosted reasoning models know by another name (OpenAI's API reference, chat completions)."""


def find_refused(words: str, body: Mapping[str, object]) -> str | None:
    """Return the setting of a chat request that a refusal names and that can be left out or renamed; None for none.

    >>> body = {"max_tokens": 9, "logprobs": True, "temperature": 1.0, "top_p": 0.9}
    >>> find_refused("400: logprobs are not supported with this model", body)
    'logprobs'
    >>> find_refused("'max_tokens' is not supported. Use 'max_completion_tokens' instead", body)
    'max_tokens'
    >>> [find_refused(f"unsupported: {name}", body) for name in ("temperature", "top_p", "max_tokens", "model")]
    ['temperature', None, None, None]
    """
    names = [*_SPARED, *(name for name in _USUAL if body.get(name) == 1)]
    spared = (name for name in names if name in body and re.search(rf"\b{name}\b", words))
    renamed = (name for name, other in _RENAMED.items() if name in body and re.search(rf"\b{other}\b", words))
    return next(chain(renamed, spared), None)


def without_refused(body: Mapping[str, object], refused: Collection[str]) -> dict[str, object]:
    """Return a chat request without the settings that its server has refused, or with them under their other name.

    >>> without_refused({"max_tokens": 9, "seed": 1, "model": "m"}, {"max_tokens", "seed"})
    {'max_completion_tokens': 9, 'model': 'm'}
    """
    names = {name: _RENAMED.get(name) if name in refused else name for name in body}
    return {other: body[name] for name, other in names.items() if other is not None}


def further_words(config: SamplingConfig, owner: str) -> dict[str, object]:
    """Return the settings that not every server knows; only where they say something.

    A server that does not know one refuses the request, or says nothing: docs/solving.md tells which.
    """
    repetition: dict[str, object] = {"repetition_penalty": config.repetition_penalty}
    if owner == "llamacpp":
        # Its own words, and all of the context instead of the last 64 tokens.
        repetition = {"repeat_penalty": config.repetition_penalty, "repeat_last_n": -1}
    return {
        **({"min_p": config.min_p} if config.min_p else {}),
        **({"top_k": config.top_k} if config.top_k else {}),
        **(repetition if config.repetition_penalty != 1 else {}),
        **({"stop": [*config.stop]} if config.stop else {}),
    }
