"""Where a completion ends: by its tokens, for engines that see tokens, and by its text, for those that see text."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby

from mathlete.problems import Problem
from mathlete.prompts import PromptFormat
from mathlete.reasoning import THINK, ReasoningMarks
from mathlete.sampling.box import box_end
from mathlete.sampling.fence import code_end
from mathlete.sampling.harvest import Finish
from mathlete.sampling.samples import Sample
from mathlete.sampling.stops import StopFinder, find_stop

_TAIL = 16
"""Latest tokens, at least, that are searched for `</think>` where it is not one token: its characters take no more."""


@dataclass(frozen=True, kw_only=True)
class Ending:
    """Where a completion is cut."""

    text: str
    """The completion up to and with what ended it; a stop string is left out."""
    finish: Finish


def find_ending(
    text: str,
    *,
    answering: bool = False,
    in_box: bool = False,
    until_code: bool = False,
    stops: Sequence[str] = (),
    marks: ReasoningMarks = THINK,
) -> Ending | None:
    """Return the completion as it is cut at its end, None while it is open.

    Args:
        text: the completion so far.
        answering: whether the reasoning ended before it, so that a box counts from its start.
        in_box: whether a box was begun before it.
        until_code: whether a closed Python block ends it too, with finish `stop`.
        stops: texts before which it ends too, with finish `stop`.
        marks: those of the model's reasoning.
    """
    boxed = box_end(text, marks=marks, answering=answering, in_box=in_box)
    code = code_end(text) if until_code else None
    # Whichever closes first: a box before the program ends the sample.
    places = (boxed, code, find_stop(text, stops) if stops else None)
    end = min((place for place in places if place is not None), default=None)
    return None if end is None else Ending(text=text[:end], finish="boxed" if end == boxed else "stop")


class CompletionReader:
    """The tokenizer of a decode loop. Each token is looked up in small sets; text is decoded only on a hit."""

    def __init__(self, prompts: PromptFormat, *, eos_ids: set[int]) -> None:
        """Take the model's prompts, and the tokens that end a completion beside the tokenizer's own eos."""
        tokenizer = prompts.tokenizer
        self.eos_ids = frozenset({tokenizer.eos_token_id, *eos_ids} - {None})
        self._prompts, self.reasoning = prompts, prompts.reasoning
        # Where they are special tokens, the text would lack them.
        kept = {index: str(token) for index, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._kept = {index: text for index, text in kept.items() if text in self.reasoning.tokens}
        self._tail = max(_TAIL, len(self.reasoning.closing.encode()))
        # Tokenizers refuse to be used by two threads at the same moment ("Already borrowed").
        self.lock = threading.Lock()
        # Decoding every token of every row would cost more than the model: these sets say which tokens can matter.
        # <0x7D> and the like are the byte tokens of SentencePiece vocabularies.
        vocabulary = tokenizer.get_vocab()
        self.closers = frozenset(token for piece, token in vocabulary.items() if "}" in piece or piece == "<0x7D>")
        """Tokens that can close a box."""
        whole, last = vocabulary.get(self.reasoning.closing), self.reasoning.closing[-1]
        # A letter beyond ASCII may be in parts: its last byte is a token of SentencePiece, or in a piece of GPT-2's
        # vocabularies, which write a byte such as the last one of `▷` as the letter of that number.
        final = last.encode()[-1]
        ends = (last, chr(final))
        self.think_enders = (
            frozenset(
                token
                for piece, token in vocabulary.items()
                if piece == f"<0x{final:02X}>" or any(end in piece for end in ends)
            )
            if whole is None
            else frozenset({whole})
        )
        """Tokens that can end the reasoning."""
        self.fences = frozenset(token for piece, token in vocabulary.items() if "`" in piece or piece == "<0x60>")
        """Tokens that can close a block of code."""
        self.special = self.eos_ids | self.closers | self.think_enders
        """All tokens that the decode loop must stop at and decode, except fences."""

    def text(self, tokens: list[int]) -> str:
        """Return the tokens' text without special tokens; the marks of the reasoning stay, as `</think>` does."""
        if self._kept.keys().isdisjoint(tokens):
            return self._decode(tokens)
        runs = ((kept, [*group]) for kept, group in groupby(tokens, key=self._kept.get))
        return "".join(self._decode(run) if kept is None else kept * len(run) for kept, run in runs)

    def _decode(self, tokens: list[int]) -> str:
        with self.lock:
            text = self._prompts.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)

    def find_answer_start(self, tokens: list[int]) -> int | None:
        """Return a position at or just before the `</think>` in the last tokens; None where there is none."""
        start = max(0, len(tokens) - self._tail)
        return start if self.reasoning.closing in self.text(tokens[start:]) else None

    def boxed_text(
        self, tokens: list[int], *, answering_from: int, answering: bool = False, in_box: bool = False
    ) -> str | None:
        """Return the completion's text up to and with the brace that closes its box; None while it is open.

        `answering` says that the reasoning ended before these tokens, `in_box` that the box was begun there.
        """
        find_end = partial(box_end, marks=self.reasoning, answering=answering, in_box=in_box)
        # What follows the reasoning is short, the whole text may be long: decode it only when the box is closed.
        if find_end(self.text(tokens[answering_from:])) is None:
            return None
        text = self.text(tokens)
        return text[: find_end(text)]

    def is_answering(self, said: str) -> bool:
        """Return whether the reasoning is over after what a partial completion has said."""
        return self._prompts.answers_at_once or self.reasoning.closing in said

    def code_text(self, tokens: list[int]) -> str | None:
        """Return the text up to and with the fence that closes its first Python block; None while it is open."""
        text = self.text(tokens)
        end = code_end(text)
        return None if end is None else text[:end]

    def prompt_ids(self, problem: Problem, *, said: str, context: int) -> list[int]:
        """Return the problem's prompt ids, then those of `said`, what a partial completion has said so far.

        Raises:
            UserError: the prompt alone leaves no token of the model's context to answer in.
        """
        with self.lock:
            return self._prompts.fit_prompt_ids(problem, context=context) + self._prompts.said_ids(said)


@dataclass(eq=False, kw_only=True)
class SampleBuilder:
    """One sample under way, token by token: so every engine that sees tokens ends and cuts a sample alike."""

    reader: CompletionReader
    problem_id: str
    index: int
    seed: int
    max_tokens: int
    until_code: bool = False
    """Whether it also ends where its first Python block closes."""
    answering: bool = False
    """Whether the reasoning ended before its first token, so that a box counts from there on."""
    in_box: bool = False
    """Whether a box was begun before its first token, which ends it."""
    stops: tuple[str, ...] = ()
    """Texts that end it, and are cut off."""
    started: float = field(default_factory=time.perf_counter)
    _tokens: list[int] = field(default_factory=list)
    _logprobs: list[float] = field(default_factory=list)
    _answering_from: int | None = None
    """Position in `_tokens` at or before the end of the reasoning; None while the model still reasons."""
    _finder: StopFinder | None = None

    def __post_init__(self) -> None:
        """Look for stop strings where there are any: that takes decoding every token."""
        if self.stops:
            self._finder = StopFinder(self.stops, decode=self.reader.text)

    @property
    def text(self) -> str:
        """The completion so far, without special tokens."""
        return self.reader.text(self._tokens)

    def add(self, token: int, logprob: float | None) -> Sample | None:
        """Add the next token, with its log-probability where that is known; return the sample if that ends it."""
        self._tokens.append(token)
        if logprob is not None:
            self._logprobs.append(logprob)
        full = len(self._tokens) >= self.max_tokens
        if self._finder is not None and token not in self.reader.eos_ids and self._finder.add(token):
            return self._stop(full=full)
        if token in self.reader.special or full or (self.until_code and token in self.reader.fences):
            return self._end(token, full=full)
        return None

    def cut(self) -> Sample:
        """Return what has come so far, cut by the clock; another thread may add the next token meanwhile."""
        tokens, logprobs = [*self._tokens], [*self._logprobs]
        return Sample.of_tokens(
            problem_id=self.problem_id,
            index=self.index,
            seed=self.seed,
            text=self.reader.text(tokens),
            tokens=len(tokens),
            finish="clock",
            seconds=time.perf_counter() - self.started,
            logprobs=logprobs,
        )

    def _end(self, token: int, *, full: bool) -> Sample | None:
        reader = self.reader
        if token in reader.eos_ids:
            return self._sample("stop", reader.text(self._tokens[:-1]))
        # A program is run before the model can make up its output, so it is looked for first.
        if self.until_code and token in reader.fences and (code := reader.code_text(self._tokens)) is not None:
            return self._sample("stop", code)
        # A box inside the reasoning is a draft: braces count only from `</think>` on, and only from there on is text
        # decoded again with each brace.
        start = 0 if self.answering or self.in_box else self._answering_from
        if token in reader.think_enders and start is None:
            self._answering_from = reader.find_answer_start(self._tokens)
        elif token in reader.closers and start is not None:
            text = reader.boxed_text(self._tokens, answering_from=start, answering=self.answering, in_box=self.in_box)
            if text is not None:
                return self._sample("boxed", text)
        return self._sample("length", reader.text(self._tokens)) if full else None

    def _stop(self, *, full: bool) -> Sample | None:
        """Return the sample as it is cut at a stop string, or at what ends it before that."""
        text = self.text
        ending = find_ending(
            text,
            answering=self.answering,
            in_box=self.in_box,
            until_code=self.until_code,
            stops=self.stops,
            marks=self.reader.reasoning,
        )
        # Decoded together the latest tokens may give another text than one by one: then it goes on.
        if ending is None:
            return self._sample("length", text) if full else None
        return self._sample(ending.finish, ending.text)

    def _sample(self, finish: Finish, text: str) -> Sample:
        return Sample.of_tokens(
            problem_id=self.problem_id,
            index=self.index,
            seed=self.seed,
            text=text,
            tokens=len(self._tokens),
            finish=finish,
            seconds=time.perf_counter() - self.started,
            logprobs=self._logprobs,
        )
