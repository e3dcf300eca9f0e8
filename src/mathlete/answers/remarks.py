"""What is said behind a value, at the end of a text: when it is taken, why, that the work is done, its decimal."""

from __future__ import annotations

import re

from mathlete.answers.sentences import ENDS_IN_VALUE, MATHS, holds_value

_AFTERTHOUGHT = re.compile(
    r"(?<=[\w$)}]),?[ \t]+(?:where|attained|achieved|obtained|reached|occurring|for (?:all|every|any|each))\b[^\n]*\Z"
)


_VALUE_SAID = r"(?:\*\*)?(?:\$(?:\\\$)?[^$]{1,200}\$|\\\([^$]{1,200}?\\\)|[-−]?\d[\d.,/]{0,40}(?<!,))(?:\*\*)?"
_SAID_WHEN = re.compile(
    rf"(?P<value>(?:\b(?:is|are|equals?|get|gives?|have|becomes?|exactly|that|find|obtain|of|yields?)\s+|=\s*){_VALUE_SAID}(?:\s+[a-z]{{1,12}})?)"
    r"(?:,?[ \t]+(?:when(?:ever)?|iff|if|with equality|namely|valid for|as\s(?=[$\\(]{0,2}[a-z]\b)|because|since"
    r"|provided|as long as|as (?:there|the|we|it|this|that|they|each|all)\b|in (?:all|both|any|either)|given that"
    r"|which (?:happens|occurs|is (?:attained|achieved|reached))"
    r"|and (?:it |this )?(?:is |are )?(?:occurs?|attained|achieved|reached))\b"
    r"|,?[ \t]+(?:at|for)\s+(?:[$]|\\\()?[a-z]\s*=|,[ \t]+(?:by|using|from(?! wh)|via|after|according to)\b"
    r"|,?[ \t]+(?:and |but )?(?:not|rather than|instead of|unlike)\b|[ \t]+\((?=[^()]*(?:(?<![\\a-z])[a-z]{3}|[=<>])))"
    r"[^\n.!?]*[.!?)]*\s*\Z"
)
"""A value that is said, and behind it, to the end of the text, when it is taken, or its parts."""
_GIVES = re.compile(r",[^\n]*\b(?:is|are|get|have)\b.*\d", re.S)
_REASON = re.compile(r",?[ \t]+(?:because|since|as)\b")
_CONCLUDES = re.compile(
    r"\b(?:giving|gives?|yields?|yielding|so|total|thus|hence|then|therefore|answer"
    r"|(?:we|I) (?:find|get|obtain|have|see))\b.*(?:\d|\$)",
    re.S,
)
_DENIAL = re.compile(
    rf"(?<!\S){_VALUE_SAID} (?:is|are|was|were|can)(?: ?not|n't) (?:be )?(?:the|an|my|our) "
    rf"(?:final |correct |right )?answer\b|\banswer (?:is|was|can)(?: ?not|n't) (?:be )?{_VALUE_SAID}"
)
_SAYS_VALUE = re.compile(r"\b(?:is|are|was|be|equals?|becomes?|gives?|yields?)\b|=")


_DONE = re.compile(
    r"(?:(?<=[.!])\s+Done|(?:[,;.]|(?<=[\w$)}]))\s+(?:(?:and|so|thus|hence|which means)\s+)?(?:that\s+)?(?:now\s+)?"
    r"(?:(?:we|I)(?:'re|'ve| are| have| am)\s+(?:now |all )?(?:done|finished|through|completed|checked|verified|proved)"
    r"|(?:completing|finishing|concluding)|(?:which|the proof|this|that) (?:completes|finishes|concludes|ends|settles)"
    r"|(?:it|this|that|which|the proof|everything) (?:is (?:done|complete|finished|checked|verified)|checks out)"
    r"|(?:all|both|the)(?: (?:the|of|these|those|other))* (?:\d+ |[a-z]+ )?(?:conditions|cases|checks|steps|constraints"
    r"|requirements|equations) (?:hold|are (?:met|satisfied|done|true|checked|covered)|work|check out)))\b"
    r"[^\n.!?]*[.!?]?\s*\Z",
    re.I,
)
"""What says that the work is over: no number in it is the answer."""
_ASIDE = re.compile(
    r"(?<=[\w$)}\].!])(?<!\bat)(?<!\bis)(?<!\bare)(?<!point)\s+\((?!\s*mod\b)"
    r"(?:(?=[^()\n]*(?<![\\a-zA-Z])[a-zA-Z]{3})(?![^()\n,]{1,12},[^()\n,]{1,12}\))[^()\n]{1,150}|\d+(?:\s*[-+*/×·=]\s*\d+)+)\)[\s.!]*\Z"
)
"""A bracket with words, or with a sum, that ends a text: `8 days (5 + 3).` and `12. (3 rows of 4)`."""
_ROUGHLY = re.compile(
    r",?\s+\(?(?:or|i\.e\.,?|that is,?|which is)\s+"
    r"(?:about|approximately|approx\.?|roughly|around|nearly|almost|≈|\$?\\approx)"
    r"[^\n;]{1,60}\Z|(?<=[\d$)}])\s*(?:≈|\\approx)\s*(?:\$\d[\d.,]*\$|\d[\d.,]*)[\s.)]*\Z"
)
"""The value once more, rounded."""
_LONGEST_REMARK = 200
"""Characters of a remark at the end of a text."""


def drop_afterthought(window: str) -> str:
    """Return the text without the remarks that end it, if the value stands before them."""
    for at_end in (_DONE, _ASIDE, _ROUGHLY):
        window = _drop_remark(window, at_end)
    window = _DENIAL.sub("", window) if " not " in window or "n't " in window else window
    remark = _AFTERTHOUGHT.search(window)
    return _drop_when(window) if remark is None else _drop_where(window, remark)


def _drop_remark(window: str, remark: re.Pattern[str]) -> str:
    last = remark.search(window, max(0, len(window) - _LONGEST_REMARK))
    if last is None or _CONCLUDES.search(last[0], 4):
        return window
    before = window[window.rfind("\n", 0, last.start()) + 1 : last.start()]
    return window[: last.start()] if holds_value(before) else window


def _drop_when(window: str) -> str:
    """Return the text without the clause that ends its last line and says when or why the value holds."""
    remark = _SAID_WHEN.search(window, window.rstrip().rfind("\n") + 1)
    if remark is None:
        return window
    clause = remark[0][remark.end("value") - remark.start() :]
    # "There are 3 cases when n = 4, giving 20": the value stands behind the clause.
    goes_on = _CONCLUDES.search(clause) or (not _REASON.match(clause) and _GIVES.search(clause))
    return window if goes_on else window[: remark.end("value")]


def _drop_where(window: str, remark: re.Match[str]) -> str:
    ends = [match.end() for match in _SENTENCE_END.finditer(window, 0, remark.start())]
    head = window[ends[-1] if ends else 0 : remark.start()]
    # "The number of games where both win is 20": nothing was said before "where".
    said = ENDS_IN_VALUE.search(remark[0])
    # "The maximum, attained at x = 3, is 12": the value stands behind the remark, whose numbers are not it.
    if said and not holds_value(head):
        return f"{window[: remark.start()]} {said[0]}"
    if not holds_value(head) or (said and not _SAYS_VALUE.search(_outside_maths(head))):
        return window
    return window[: remark.start()]


_SENTENCE_END = re.compile(r"\n|[.!?](?=\s)")


def _outside_maths(text: str) -> str:
    return MATHS.sub(" ", text)
