"""Marks of a chat that stand in a text, such as `<|im_end|>` in a statement: they are tokenised as the text they are.

A tokenizer reads a mark wherever it meets one. In a statement, or in what a program printed, it is no mark: it would
end the turn, or open another speaker's.
"""

import re
from collections.abc import Callable, Mapping
from functools import cached_property

Encode = Callable[[str], list[int]]
"""Maps a text to its token ids, marks in it to theirs."""


class Marks:
    """The marks of one tokenizer.

    >>> ids = {"a": 1, "<": 2, "x>": 3, "<x>": 4}
    >>> marks = Marks({"<x>": 4}, encode=lambda text: [ids[text]])
    >>> marks.text_ids("a<x>a")
    [1, 2, 3, 1]
    >>> marks.break_up("a<x>a")
    'a< x>a'
    """

    def __init__(self, tokens: Mapping[str, int], *, encode: Encode) -> None:
        """Take {mark: id} of those that are to be text, and the tokenizer."""
        self.tokens = {text: index for text, index in tokens.items() if len(text) > 1}
        self._encode = encode

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        # Of marks that begin at the same place a tokenizer takes the longest.
        texts = sorted(self.tokens, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, texts)) or r"(?!)")

    def are_in(self, text: str) -> bool:
        """Return whether the text has any."""
        return self._pattern.search(text) is not None

    def break_up(self, text: str) -> str:
        """Return the text with a space in each mark, for a server that tokenises by itself."""
        return self._pattern.sub(lambda mark: f"{mark[0][0]} {mark[0][1:]}", text)

    def text_ids(self, text: str) -> list[int]:
        """Return the ids of a text in which nothing is a mark."""
        if not self.are_in(text):
            return self._encode(text) if text else []
        ids: list[int] = []
        at = 0
        for mark in self._pattern.finditer(text):
            between = text[at : mark.start()]
            ids += [*(self._encode(between) if between else []), *self._letters(mark[0])]
            at = mark.end()
        return ids + (self._encode(text[at:]) if text[at:] else [])

    def _letters(self, mark: str) -> list[int]:
        # Cut in two, no tokenizer knows it again; but a half may be a mark too.
        ids = self._encode(mark[0]) + self._encode(mark[1:])
        marks = {*self.tokens.values()}
        return ids if marks.isdisjoint(ids) else [one for letter in mark for one in self._encode(letter)]

    def rendered_ids(self, content: str, render: Callable[[str], str]) -> list[int]:
        """Return the ids of a template around a content: the template's marks are marks, the content's are text."""
        if not self.are_in(content):
            return self._encode(render(content))
        # Put in place of each mark, whatever the template then does with the content: a sign that the content has not.
        sign = next(one for one in map(chr, range(0xE000, 0xF8FF)) if one not in content)
        held: list[str] = []

        def hold(mark: re.Match[str]) -> str:
            held.append(mark[0])
            return f"{sign}{len(held) - 1}{sign}"

        parts = render(self._pattern.sub(hold, content)).split(sign)
        # Every second part is the number of a mark.
        pairs = [
            self._letters(held[int(part)]) if odd % 2 else self._encode(part) for odd, part in enumerate(parts) if part
        ]
        return [one for ids in pairs for one in ids]
