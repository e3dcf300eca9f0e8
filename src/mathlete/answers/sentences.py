"""The value in a sentence or a formula: which of its numbers is meant, and what is only said about it."""

from __future__ import annotations

import re

from mathlete.answers.bare_maths import delimit_formulas
from mathlete.answers.vocabulary import CURRENCY, FUNCTIONS, MANY_ARGUMENTS, PLAIN_FUNCTIONS, UNITS

MATHS = re.compile(
    r"\$\$([^$]+)\$\$|(?<!\\)\$([^$\n]+)(?<!\\)\$|\\\(((?:(?!\\\)).){1,300})\\\)|\\\[((?:(?!\\\]).){1,300})\\\]", re.S
)
NUMBER = re.compile(
    r"(?<![A-Za-z\d_.\\])(?:[-−+](?=[\d.$€£]))?[$€£]?(?:\d{1,3}(?:(?:,|\{,\}|\\,|,\\!)\d{3})+(?!\d)|\d+)?(?:\.\d+|(?<=\d))(?:/\d+|(?::\d+)+)?"
    r"(?:\s?\\?%|\s?percent\b)?(?![A-Z\d_])"
)
PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}|[぀-ヿ一-鿿]{2,}")
_FUNCTION_WORDS = FUNCTIONS | MANY_ARGUMENTS | PLAIN_FUNCTIONS | {"mod", "and"}


def is_prose(text: str) -> bool:
    r"""Return whether a text has words that are neither functions nor inside a LaTeX command's braces."""
    bare = re.sub(r"\\(?:text|mbox|mathrm|textbf|operatorname|begin|end)\s*\{[^{}]*\}", " ", text)
    return any(word[0].lower() not in _FUNCTION_WORDS for word in PROSE.finditer(bare))


_NO_VALUE = re.compile(
    r"\\(?:blacksquare|square|Box|qed|checkmark)\Z|[a-zA-Z]'*\([a-z]\)\Z|\((?:[a-z]\s*,\s*)+[a-z]\)\Z"
)
"""A formula that is no answer where another stands before it: the end of a proof, the names of a pair."""


def find_formulas(text: str) -> list[str]:
    """Return the formulas of a text that may be answers, without their delimiters."""
    return [formula for formula, _ in place_formulas(text)]


def place_formulas(text: str) -> list[tuple[str, int]]:
    """Return the formulas of a text that may be answers, each with the place behind it."""
    placed = ((next(g for g in m.groups() if g is not None).strip(), m.end()) for m in MATHS.finditer(text))
    return [(one, end) for one, end in placed if one and not is_prose(one) and not _NO_VALUE.match(one)]


ENDS_IN_VALUE = re.compile(
    r"\b(?:is|are|be|equals?|becomes?|gives?|yields?)\s+(?:at (?:most|least) |exactly |thus |then )?"
    r"(?:\$[^$]+\$|\\\([^\n]+?\\\)|[-−]?\d[\d.,/]*)\s*[.!]?\s*\Z"
)
"""A clause that says a value in the end."""


def holds_value(text: str) -> bool:
    """Return whether a text has a number or a formula."""
    return bool(re.search(r"\d|\$|\\\(", text))


_SAID_NUMBER = re.compile(r"\b(?:is|are|equals)\s+(?:\w+\s+)?[-−]?\$?\d")
_LEAD = re.compile(
    r"\A\}?[,\s]*(?:(?:approximately|about|roughly|exactly|equal to|simply|just|therefore|thus|also|both"
    r"|either|donc|indeed|clearly|actually|in fact|of course|precisely|still|again|hence|now|then|definitely|really"
    r"|obviously|found to be|given by)[,\s]+)*",
    re.I,
)
_COPULA = re.compile(r"(?<=[\d$)}])\s*(?:です|になります|である|となる|이다|입니다)?[。.]*\Z")
_LEADING_FORMULA = re.compile(
    r"(?:\$[^$]{1,200}\$|\\\([^$]{1,200}?\\\))(?=\s*[,;(]\s*(?!(?:and|or)\b)(?:i\.e|[a-z]{2,}))"
)
_TAIL = re.compile(
    r"(?<=\S)(?:[,;]?\s+(?:because|since|where|which|as|so that|when|whenever|if|unless|due to|by|from|after"
    r"|according to|exceeding|occurring|for (?:each|every|all|any)|(?:on|over) (?:the|all|any|every|its|this) "
    r"(?:interval|domain|range|segment|region|set|line|circle|plane|real)"
    r"|with equality"
    r"|rather than|instead of|(?:and |but )?(?:not|never)|see|unlike"
    r"|attained|achieved|obtained|reached|as required|(?:for|in) (?:the|this|each) case"
    r"|and (?:the|this|that|it|we|I|its|not)\b)\b.*"
    r"|(?<=[\d$)}])[,;]\s+(?!(?:and|or|but|to|plus|minus|sqrt|pi|sin|cos|tan|ln|log|exp|infinity|oo|respectively)\b)[a-z]{2,}\b"
    r"(?![^,;.]{0,20}[=<>]).*"
    r"|[,;]?\s+(?:for|at|with)\s+(?:\$|\\\()?\s*\(?[a-zA-Z](?:,\s*[a-z])*\)?\s*"
    r"(?:[=<>≥≤]|\\(?:in|geq?|leq?|neq?|geqslant|leqslant)\b).*"
    r"|\s+[-–—]\s+(?=[a-z]{2,}).*|:\s+(?=[a-z]{2,}).*|;\s+(?=[^$]*(?<![\\a-zA-Z])[a-z]{4,}).*"
    r"|\s+\((?!mod\b)(?=[^()]*(?:(?<![\\a-z])[a-z]{3}|\b[a-z]\s?[=<>]))[^()]*\)\W*|\s+\([^()]{1,20}%\)\W*|\?)\Z",
    re.S,
)


_MAX_FORMULAS = 8
"""Formulas of a sentence whose words are stepped over."""
_DOLLAR = re.compile(r"(?<!\\)\$")


def _drop_tail(sentence: str) -> str:
    """Return a sentence without the reason or remark behind its value."""
    tail = _TAIL.search(sentence)
    # Words inside a formula, as in $x^2 \text{ if } x > 0$, belong to it.
    for _ in range(_MAX_FORMULAS):
        if not tail or len(_DOLLAR.findall(sentence, 0, tail.start())) % 2 == 0:
            break
        tail = _TAIL.search(sentence, sentence.find("$", tail.start()) + 1 or len(sentence))
    if tail is None:
        return sentence
    head = sentence[: tail.start()]
    # "is the number of games where both win, 20": what stands before "where" is no value.
    return head if holds_value(head) or not ENDS_IN_VALUE.search(tail[0]) else sentence


_LEADING_NUMBER = re.compile(r"(" + NUMBER.pattern + r")(?=\s*[,;(]|\s+[a-z]{2,}\b(?<!and)(?<!or))")
_PRICE = re.compile(
    r"\\?[$€£]\s?\d[\d,]*(?:\.\d+)?(?:\s+(?:thousand|million|billion)\b)?"
    r"|(?<![\d,.])\d[\d,]{0,30}(?:\.\d{1,30})?\s?\\?[$€£]"
)


_EXCLAMATION = re.compile(r"(?:(?<=[$*])|(?<=\\\))|(?<=[2-9]\d)|(?<=1[3-9])|(?<=\d{3}))![\s*_]*\Z")
"""The mark that ends a sentence such as "It is 72!"; with a small number, and inside a formula, it is a factorial."""


def read_sentence(sentence: str) -> str | None:
    r"""Return the value in one sentence that says the answer.

    >>> read_sentence("m+n = 256+37 = 293.")
    '293'
    >>> read_sentence(r"$\frac{1}{2}$ of the cake")
    '\\frac{1}{2}'
    """
    sentence = _EXCLAMATION.sub("", sentence.strip().strip("*_`").strip())
    if _SEVERAL.search(sentence):
        return sentence.rstrip(".;,")
    # Words before and reasons after the value go first: a number among them is not the answer.
    sentence = _LEAD.sub("", _drop_tail(_COPULA.sub("", sentence.replace("**", ""))))
    if leading_formula := _LEADING_FORMULA.match(sentence):
        return last_of_chain(find_formulas(leading_formula[0])[-1])
    sentence = re.split(r"(?<=[^\s.])[.。](?=\s+[A-Z\"(]|\s*\Z|\*)", sentence, maxsplit=1)[0].strip().strip("*").strip()
    if not is_prose(sentence):
        return last_of_chain(sentence.rstrip(".;,").strip(" *")) or None
    # In prose a formula is the value, unless a plain number is said after it: "for $n = 3$ the sum is 12".
    sentence = delimit_formulas(sentence)
    maths = find_formulas(sentence)
    if maths and not _SAID_NUMBER.search(sentence[sentence.rfind(maths[-1]) + len(maths[-1]) :]):
        return last_of_chain(maths[-1])
    priced = _PRICE.findall(sentence)
    if len(priced) == 1:
        return str(priced[0]).strip()
    if len(sentence.split()) <= 3 or not NUMBER.search(sentence):
        return sentence.rstrip(".;,") or None
    leading = _LEADING_NUMBER.match(sentence)
    if leading and any(c.isdigit() for c in leading[0]) and NUMBER.search(sentence[leading.end() :]):
        return leading[0]
    with_unit = re.match(r"[^A-Za-z]+[A-Za-z²³ ]{1,30}\Z", sentence)
    return sentence if with_unit else read_last_number(sentence)


_UNIT = "(?:" + "|".join(sorted(UNITS | CURRENCY | {"cents"}, key=len, reverse=True)) + r")\b"
_SAID = r"(?:\$[^$]{1,100}\$|[-−]?\d[\d.,/]*)"
_COMPARED = r"(?:more|less|fewer|greater|larger|smaller|higher|lower) than"
_SEVERAL = re.compile(
    rf"\A(?:between|from)\s+{_SAID}\s+(?:and|to)\s+{_SAID}|\A(?:strictly )?{_COMPARED}\b|\Aat (?:least|most)\b"
    rf"|\A\d+ {_COMPARED} \d|\A\d+ {_UNIT},?(?: and| by)? \d+ {_UNIT}|\A\d+ by \d+"
    rf"|\A\d+ [a-z]+(?:,| and|, and) \d+ [a-z]+\W*\Z|\A{_SAID} \([^()]*\),? (?:and|or) {_SAID}"
    rf"|\b(?:if|when|for)\b.*(?:[,;]|\b(?:and|or|but)\b)\s+(?:it )?(?:is )?{_SAID},?\s+"
    r"(?:if|when|for|otherwise|else)\b",
    re.S,
)
"""Values of which none is the answer: ends of a range, 5 feet 6 inches, "3 if n is even, 4 if odd", 5 more than 9."""
_AND_OR = re.compile(r"\s(?:and|or)\s")


def last_of_chain(maths: str) -> str:
    """Return what stands after the last = of a chain of equalities or of a labelled number; else all of it."""
    bare = maths.strip().strip("$").strip()
    parts = [part.strip() for part in re.split(r"(?<![<>!:\\])=(?!=)", bare)]
    # x = 2 or x = 3 are two values, not the chain's end 3.
    if _AND_OR.search(bare) and all(part.count("=") == 1 for part in _AND_OR.split(bare)):
        return bare
    if len(parts) < 2 or not parts[-1] or "," in bare or r"\begin" in bare:
        return bare
    if len(parts) > 2 and not re.search(r"[<>]", bare):
        return parts[-1]
    # m+n = 33 is a labelled number; y = 2x + 1 and x + y = 1 are equations, and stay.
    letters = re.sub(r"\\(?:[dt]?frac|sqrt|pi|cdot|times|left|right)", "", parts[-1])
    return parts[-1] if not re.search(r"[A-Za-z]", letters) and not re.search(r"[-+*/]?\d*[xyz]\b", parts[0]) else bare


def read_last_number(window: str) -> str | None:
    """Return the last number of a text; the 2 of "Lemma 2" only where there is no other."""
    numbers = [m[0] for m in NUMBER.finditer(drop_references(window)) if any(c.isdigit() for c in m[0])]
    numbers = numbers or [m[0] for m in NUMBER.finditer(window) if any(c.isdigit() for c in m[0])]
    return numbers[-1].strip() if numbers else None


def drop_references(text: str) -> str:
    """Return the text without the numbers of lemmas, steps, cases and competitions that it refers to."""
    return _REFERENCE.sub(" ", text)


_REFERENCE = re.compile(
    r"\b(?:Lemma|Theorem|Proposition|Corollary|Claim|Step|Case|Section|Chapter|Equation|Exercise|Example|Method|Appendix"
    r"|Problem|Note|Fact)\s?[#(]?\d+(?:\.\d+)*\)?|(?:\b\d{4} )?\b(?:AIME|AMC|HMMT|IMO|USAMO|Putnam)\b[ #\dABI]*"
)


def is_supposed(text: str, at: int) -> bool:
    """Return whether "the answer is" at a place of a text is only thought of: suppose, if, maybe, I guess."""
    return _SUPPOSED.search(text, max(0, at - 60), at) is not None


_SUPPOSED = re.compile(
    r"\b(?:suppos(?:e|ing)|assum(?:e|ing)|if|maybe|perhaps|whether|unless|guess|say|imagine|claim)\s+(?:that\s+)?"
    r"(?:(?:the|my|our|its|true|final|correct|right)\s+){0,3}\Z",
    re.I,
)
