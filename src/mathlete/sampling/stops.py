"""Stop strings: texts that end a completion, found across the borders of its tokens, as vLLM finds them."""

from collections.abc import Callable, Sequence


def find_stop(text: str, stops: Sequence[str], *, fresh: int | None = None) -> int | None:
    """Return where the stop string begins that is complete first; None while none is.

    Of two that end at one place the first of the list counts (vLLM: `check_stop_strings` in v1/engine/detokenizer.py).

    Args:
        text: the completion so far.
        stops: the stop strings.
        fresh: characters at its end that were not looked at before; None: all.

    >>> find_stop("The answer is 7. User: and", ("User:", "er: "))
    17
    >>> find_stop("The answer", ("swers",)) is None
    True
    """
    looked = 0 if fresh is None else max(0, len(text) - fresh)
    places = ((text.find(stop, max(0, looked - len(stop) + 1)), len(stop)) for stop in stops)
    complete = [(place + length, place) for place, length in places if place >= 0]
    return min(complete, key=lambda each: each[0])[1] if complete else None


class StopFinder:
    """Looks for stop strings in one completion, token by token; each token is decoded with the few before it."""

    def __init__(self, stops: Sequence[str], *, decode: Callable[[list[int]], str]) -> None:
        """Take the stop strings, and what decodes tokens."""
        self._stops, self._decode = stops, decode
        self._text = ""
        self._tokens: list[int] = []
        """The latest tokens: those whose text is known, which the next ones are decoded with, then those without."""
        self._known = 0
        """How many of them have given their text."""

    def add(self, token: int) -> bool:
        """Add the next token; return whether a stop string is complete with it."""
        self._tokens.append(token)
        before, after = self._decode(self._tokens[: self._known]), self._decode(self._tokens)
        # Half a character is no text yet; its other half decodes both.
        if len(after) <= len(before) or after.endswith("\N{REPLACEMENT CHARACTER}"):
            return False
        fresh = after[len(before) :]
        # No stop string reaches further back than its own length.
        self._text = self._text[-max(map(len, self._stops)) :] + fresh
        self._tokens, self._known = self._tokens[self._known :], len(self._tokens) - self._known
        return find_stop(self._text, self._stops, fresh=len(fresh)) is not None
