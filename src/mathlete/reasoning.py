r"""The marks between which models write their reasoning: one table, for prompts, rows, engines, answers and corpus.

A model has one pair, which its chat template and its vocabulary name (`find_marks`). A text from anywhere may have any
of them (`split`, `find_unfinished`). Sources: vllm/reasoning/ of vLLM 0.32, where each parser names its model's marks;
the models' own chat templates; OpenAI's harmony format (github.com/openai/harmony, docs/format.md).

>>> split("<think>\n2+2=4\n</think>\n\nIt is 4.")
('<think>\n2+2=4\n', '\n\nIt is 4.')
>>> split("[THINK]2+2=4[/THINK]It is 4.")
('[THINK]2+2=4', 'It is 4.')
>>> find_unfinished("<reasoning>Suppose the answer is 35"), find_unfinished("It is 35.")
('Suppose the answer is 35', None)
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ReasoningMarks:
    r"""One pair of marks, and what stands beside them: f"{opening}{lead}REASONING{turn}{closing}{gap}ANSWER"."""

    opening: str
    closing: str
    lead: str = "\n"
    turn: str = "\n"
    gap: str = "\n\n"
    parts: tuple[str, ...] = ()
    """What the marks are made of, where they are more than one token of a vocabulary."""

    @property
    def tokens(self) -> tuple[str, ...]:
        """What a vocabulary may hold as tokens of their own."""
        return self.parts or (self.opening, self.closing)

    @property
    def ending(self) -> str:
        """What a model writes between its reasoning and its answer."""
        return f"{self.turn}{self.closing}{self.gap}"

    @property
    def before(self) -> str:
        """What a model writes before its reasoning."""
        return f"{self.opening}{self.lead}"


def _tag(opening: str, closing: str) -> ReasoningMarks:
    return ReasoningMarks(opening=opening, closing=closing)


@dataclass(frozen=True, kw_only=True)
class Opening:
    """Whether prompts open the reasoning, and how that is known."""

    thinking: bool | None
    """None: nobody knows, and a text without marks that was cut is taken for unfinished reasoning."""
    because: str

    def describe(self) -> str:
        """Return it in words, for results.json and for a person.

        >>> Opening(thinking=True, because="the prompt").describe()
        'opened: the prompt'
        """
        words = {True: "opened", False: "not opened", None: "taken as opened where a text was cut"}
        return f"{words[self.thinking]}: {self.because}"


MARKS: dict[str, ReasoningMarks] = {
    # R1, QwQ, Qwen3, Phi-4-reasoning, Nemotron, SmolLM3, GLM, MiniMax-M2, Ernie, Hunyuan, Olmo 3, this project's own.
    "think": _tag("<think>", "</think>"),
    "thinking": _tag("<thinking>", "</thinking>"),
    "thought": _tag("<thought>", "</thought>"),
    "reasoning": _tag("<reasoning>", "</reasoning>"),
    "magistral": ReasoningMarks(opening="[THINK]", closing="[/THINK]", lead="", turn="", gap=""),
    "kimi": ReasoningMarks(opening="◁think▷", closing="◁/think▷", lead="", turn="", gap=""),
    "seed-oss": _tag("<seed:think>", "</seed:think>"),
    "minimax-m3": _tag("<mm:think>", "</mm:think>"),
    "command": ReasoningMarks(opening="<|START_THINKING|>", closing="<|END_THINKING|>", lead="", turn="", gap=""),
    "apertus": ReasoningMarks(opening="<|inner_prefix|>", closing="<|inner_suffix|>", lead="", turn="", gap=""),
    # Sky-T1 and OpenThoughts: the answer stands between <|begin_of_solution|> and <|end_of_solution|>.
    "openthoughts": _tag("<|begin_of_thought|>", "<|end_of_thought|>"),
    "gemma": ReasoningMarks(
        opening="<|channel>thought", closing="<channel|>", turn="", gap="", parts=("<|channel>", "<channel|>")
    ),
    # gpt-oss: messages in channels, of which `final` is the answer.
    "harmony": ReasoningMarks(
        opening="<|channel|>analysis<|message|>",
        closing="<|channel|>final<|message|>",
        lead="",
        turn="<|end|><|start|>assistant",
        gap="",
        parts=("<|channel|>", "<|message|>", "<|start|>", "<|end|>"),
    ),
}
"""What a model writes around its reasoning, by a name for it; the first one that fits a model is its own."""
THINK = MARKS["think"]
TOKENS = frozenset(token for marks in MARKS.values() for token in marks.tokens)
"""What any pair is made of, as a vocabulary may hold it."""
_HINTS = ("think", "THINK", "thought>", "thought|", "reasoning>", "inner_", "channel|", "|channel", "assistantfinal")
"""One of these is in every mark. Most texts have none of them, and are not looked through for each."""
_OPENINGS = tuple(marks.opening for marks in MARKS.values())
_CLOSINGS = tuple(marks.closing for marks in MARKS.values())
_ANY = re.compile("|".join(map(re.escape, sorted({*_OPENINGS, *_CLOSINGS}, key=len, reverse=True))))
_BARE = re.compile(r"analysis(?=[A-Z\\$])")
"""How a completion in channels begins whose marks a server left out: `analysisWe need`, as vLLM's own text has it."""
_COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)
"""What of a template is never written."""
_BARE_CLOSING = "assistantfinal"
_PARTS = re.compile("|".join(map(re.escape, sorted({*TOKENS, *_OPENINGS}, key=len)[::-1])))


def find_marks(*, prompt: str = "", template: str, vocabulary: Collection[str]) -> ReasoningMarks:
    r"""Return a model's own marks: those that its template writes, else those that its vocabulary has tokens for.

    A tuned model keeps the tokens of the one that it was made of, whatever its own template writes. So what a prompt
    ends in says most, then both marks in the template, then one of them. `<think>` is the pair of a model that names
    none: it is what this project teaches.

    >>> think = ("<think>", "</think>")
    >>> find_marks(prompt="1 + 1?<thought>\n", template="", vocabulary=think).closing
    '</thought>'
    >>> find_marks(template="{{ text.split('</reasoning>') }}", vocabulary=think).opening
    '<reasoning>'
    >>> find_marks(template="", vocabulary=MARKS["magistral"].tokens).opening
    '[THINK]'
    """
    ending, template = prompt.rstrip(), _COMMENT.sub("", template)

    def rank(marks: ReasoningMarks) -> tuple[bool, int, bool]:
        written = (marks.opening in template) + (marks.closing in template)
        return ending.endswith((marks.opening, marks.closing)), written, _is_in(vocabulary, marks)

    # Of pairs that rank alike, `max` returns the first: THINK, where nothing names any.
    return max(MARKS.values(), key=rank)


def is_reasoning_model(*, template: str, vocabulary: Collection[str]) -> bool:
    """Return whether a model's template or vocabulary has any pair of marks."""
    template = _COMMENT.sub("", template)
    return any(
        marks.opening in template or marks.closing in template or _is_in(vocabulary, marks) for marks in MARKS.values()
    )


def has_marks(text: str) -> bool:
    """Return whether a text has any mark, opening or closing."""
    return may_have_marks(text) and (_ANY.search(text) is not None or _closes_bare(text))


def may_have_marks(text: str) -> bool:
    """Return whether a text must be looked through for marks; most have none, which is quick to see."""
    ends = ">" in text or "THINK]" in text or "▷" in text
    return (ends and any(hint in text for hint in _HINTS)) or _BARE.match(text) is not None


def split(text: str) -> tuple[str, str] | None:
    """Return (what stands before the mark that ends the reasoning last, what stands behind it); None without one."""
    place = _last_closing(text)
    return None if place is None else (text[: place[0]], text[place[1] :])


def find_unfinished(text: str) -> str | None:
    """Return the reasoning that a text opens last and never closes; None where there is none."""
    if not may_have_marks(text):
        return None
    opened = max((text.rfind(mark) + len(mark) if mark in text else -1 for mark in _OPENINGS), default=-1)
    if opened < 0 and (bare := _BARE.match(text)):
        opened = bare.end()
    closed = _last_closing(text)
    return text[opened:] if opened > (closed[0] if closed else -1) else None


def is_within_thoughts(text: str, *, cut: bool, thinking: bool | None) -> bool:
    """Return whether a text without any mark stands in thoughts that its prompt opened and nothing ended.

    Where nobody knows whether the prompt did (`thinking` is None), a text that was cut counts as such: taken for an
    answer, an idea in the middle would vote. A text that ended by itself is an answer then.

    >>> [is_within_thoughts("Maybe 7? No", cut=True, thinking=known) for known in (True, None, False)]
    [True, True, False]
    >>> is_within_thoughts("It is 7.", cut=False, thinking=None)
    False
    >>> is_within_thoughts("</think>It is 7.", cut=True, thinking=None)
    False
    """
    return (cut if thinking is None else thinking) and not has_marks(text)


def ends_in_opening(prompt: str) -> bool:
    r"""Return whether a prompt ends with a mark that opens the reasoning.

    >>> ends_in_opening("1 + 1?<|Assistant|><think>\n"), ends_in_opening("1 + 1?<think>\n\n</think>\n\n")
    (True, False)
    """
    return prompt.rstrip().endswith(_OPENINGS)


def closes_unopened(text: str) -> bool:
    """Return whether a text ends a reasoning that it has not opened itself: its prompt did.

    The final channel of gpt-oss is opened for a message of its own, also where there was no reasoning.

    >>> closes_unopened("2+2=4</think>4"), closes_unopened("<think>2+2=4</think>4"), closes_unopened("4")
    (True, False, False)
    """
    first = _ANY.search(text) if may_have_marks(text) else None
    return first is not None and first[0] in _CLOSINGS and first[0] != MARKS["harmony"].closing


def close_text(said: str, *, marks: ReasoningMarks, opened: bool) -> str:
    r"""Return what closes a text that was cut and begins the box of the answer that it must give now.

    Args:
        said: the text.
        marks: those of the model.
        opened: whether the prompt opens the reasoning.

    >>> close_text("2+2", marks=THINK, opened=True), close_text("2+2", marks=THINK, opened=False)
    ('\n</think>\n\n\\boxed{', '\n\nThe final answer is \\boxed{')
    """
    ended = split(said)
    if find_unfinished(said) is not None or (opened and ended is None):
        return f"{marks.ending}\\boxed{{"
    # What stands in a program that was not closed would be a part of it.
    fence = "\n```" if (ended[1] if ended else said).count("```") % 2 else ""
    return f"{fence}\n\nThe final answer is \\boxed{{"


def strip_opening(thought: str) -> str:
    """Return the reasoning without the mark that opens it, what stands before that, and a channel's own end."""
    openings = [(thought.find(mark), len(mark)) for mark in _OPENINGS if mark in thought]
    if openings:
        place, length = min(openings)
        thought = thought[place + length :]
    elif bare := _BARE.match(thought):
        thought = thought[bare.end() :]
    # A channel may have several messages.
    harmony = MARKS["harmony"]
    return thought.removesuffix(harmony.turn).replace(f"{harmony.turn}{harmony.opening}", "\n\n").strip()


def blank_marks(text: str) -> str:
    """Return the text with a space in place of each mark."""
    return _ANY.sub(" ", text)


def remove_marks(text: str) -> str:
    """Return a text that neither opens nor ends any reasoning: marks and their parts are removed until none is left.

    >>> remove_marks("</th</think>ink>5")
    '5'
    """
    while (shorter := _PARTS.sub("", text)) != text:
        text = shorter
    return text


def _is_in(vocabulary: Collection[str], marks: ReasoningMarks) -> bool:
    return all(token in vocabulary for token in marks.tokens)


def _closes_bare(text: str) -> bool:
    return _BARE_CLOSING in text and _BARE.match(text) is not None


def _last_closing(text: str) -> tuple[int, int] | None:
    """Return where the last closing mark begins and ends; None where there is none."""
    return max(_closings(text), default=None) if may_have_marks(text) else None


def _closings(text: str) -> Iterator[tuple[int, int]]:
    for mark in _CLOSINGS:
        if (place := text.rfind(mark)) >= 0:
            yield place, place + len(mark)
    if _closes_bare(text):
        place = text.rfind(_BARE_CLOSING)
        yield place, place + len(_BARE_CLOSING)
