"""The two kinds of failure: a UserError can be mended by the user (exit code 2), anything else is a bug (traceback)."""

import json
import shlex
from collections.abc import Callable, Iterator, Sequence


class UserError(Exception):
    """A mistake that the user can mend: the rule, the value that broke it, and the cure.

    >>> print(UserError("--n must be at least 1", value=0, cure="use --n 8"))
    --n must be at least 1, got 0.
      Fix: use --n 8
    """

    def __init__(self, rule: str, *, cure: str, value: object = None) -> None:
        self.rule, self.value, self.cure = rule, value, cure
        super().__init__(f"{rule}{'' if value is None else f', got {value}'}.\n  Fix: {cure}")

    def __reduce__(self) -> "tuple[Callable[..., UserError], tuple[str, str | None, str]]":
        """Let it be pickled on its way from another process, with its value as text."""
        return _restore, (self.rule, None if self.value is None else str(self.value), self.cure)


def _restore(rule: str, value: str | None, cure: str) -> UserError:
    return UserError(rule, value=value, cure=cure)


OnBad = Callable[[UserError], None]
"""Called with the error of a bad row: raises it, or notes it so that reading goes on."""


def stop(error: UserError) -> None:
    """Raise the error: a bad row ends the reading."""
    raise error


def split_pairs(words: Sequence[str], *, rule: str, cure: str) -> dict[str, str]:
    """Return {name: value} of words of the form NAME=VALUE; the value may hold further equals signs.

    >>> split_pairs(["gold=Final", "text=a=b"], rule="...", cure="...")
    {'gold': 'Final', 'text': 'a=b'}

    Raises:
        UserError: a word of another form, or a name that stands twice.
    """
    pairs: dict[str, str] = {}
    for word in words:
        name, _, value = word.partition("=")
        if not name or not value:
            raise UserError(rule, value=f"{name}={value}", cure=cure)
        if name in pairs:
            raise UserError(f"{rule}, each name once", value=f"{name}={pairs[name]} and {word}", cure="leave one out")
        pairs[name] = value
    return pairs


_FOREIGN = {"true": "true", "false": "false", "none": "null", "null": "null"}
"""{a value in Python's spelling or YAML's, in small letters: what JSON calls it}."""


_SWITCHES = {"true": ("true", "1", "on", "yes", "y"), "false": ("false", "0", "off", "no", "n")}


def spell_switch(word: str) -> str:
    """Return true or false, as JSON spells what people write for them; "" where a word is none of that.

    >>> spell_switch("Off"), spell_switch("1"), spell_switch("high")
    ('false', 'true', '')
    """
    return next((json_word for json_word, words in _SWITCHES.items() if word.lower() in words), "")


def parse_word(word: str, *, name: str) -> object:
    """Return the value that a word of a command line stands for: JSON where it is any, else the text itself.

    >>> [parse_word(word, name="--vllm.extra eager") for word in ("false", "high", "none")]
    [False, 'high', 'none']
    >>> parse_word("False", name="--vllm.extra eager")
    Traceback (most recent call last):
        ...
    mathlete.errors.UserError: --vllm.extra eager must be spelled as JSON spells it, got False.
      Fix: write false

    Raises:
        UserError: it is a value in another language's spelling, or broken JSON; taken for a text it would be true.
    """
    try:
        value: object = json.loads(word)
    except (ValueError, RecursionError):
        bare = word.strip()
        # In small letters it is a word of some templates: reasoning_effort=none.
        json_word = _FOREIGN.get(bare.lower(), "") if bare != "none" else ""
        if json_word or bare[:1] in ("{", "[", '"', "'"):
            cure = """write it as in '{"a": true}', or a text without quotes"""
            if bare[:1] == "[":
                cure = f"{cure}; a text that begins so is written {shlex.quote(json.dumps(word))}"
            if json_word:
                # A template that is given nothing may take it for a text.
                cure = "leave it out, or write null" if json_word == "null" else f"write {json_word}"
            raise UserError(f"{name} must be spelled as JSON spells it", value=word, cure=cure) from None
        return word
    return value


def nearest(word: str, known: list[str] | tuple[str, ...]) -> str:
    """Return the cure for an unknown name: known names that look like it, nearest first, and all known ones.

    >>> nearest("aimo_vall", ["aimo_val", "gsm8k"])
    'did you mean aimo_val? Known: aimo_val, gsm8k'
    """
    from difflib import get_close_matches

    close = get_close_matches(word, known, n=3)
    return (f"did you mean {' or '.join(close)}? " if close else "") + f"Known: {', '.join(known)}"


Rule = tuple[str, object, bool, str] | tuple[str, object, bool, str, str]
"""A setting's name, its value, whether that is good, what it must be and, where it is not the common one, the cure."""


def require(*rules: Rule, prefix: str = "--", cure: str = "leave it at the preset's value") -> None:
    """Check the rules in turn.

    >>> require(("n", 0, False, "at least 1"), cure="use --n 8")
    Traceback (most recent call last):
        ...
    mathlete.errors.UserError: --n must be at least 1, got 0.
      Fix: use --n 8

    Raises:
        UserError: the first that is not good.
    """
    for error in find_broken(*rules, prefix=prefix, cure=cure):
        raise error


def find_broken(*rules: Rule, prefix: str, cure: str) -> Iterator[UserError]:
    """Yield the error of each rule that is broken."""
    for name, value, good, rule, *own_cure in rules:
        if not good:
            yield UserError(f"{prefix}{name} must be {rule}", value=value, cure=own_cure[0] if own_cure else cure)
