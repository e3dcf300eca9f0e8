r"""Requests for the form of an answer that data sets put around a problem: "put your final answer within \boxed{}".

There are as many wordings as sets, and in none of them is a word of mathematics. So a sentence is a request where each
of its words is one of those that such requests are made of; with one more ("as a fraction", "modulo 1000") it is the
problem's.
"""

import re

_BOX = re.compile(
    r"(?<!\\)\\+(?:boxed|fbox)(?:\s*\{+[\s$]*(?:(?:your|the|final|answer|solution|result|here|\.\.\.|\\[lc]?dots|…)\s*)*\}+"
    r"|(?=\s+[a-z]{2})|(?![\s{]*[{\w]))",
    re.I,
)
"""A box with nothing in it, or with words that stand for an answer."""
_TAG = re.compile(r"</?\s*answer\s*/?>", re.I)
_SENTENCE = re.compile(
    r"((?:(?<=[.!?])|(?<=\}:))(?:[\"'”]+(?=\s|$))?\s+|(?<=[。？！])|(?<!\n)\n+|(?:,|(?<![\s,])(?<!\band))\s+(?=please\b)|(?<!\s)\s*(?=请)"
    r"|(?<=\})\s+(?=[A-Z])|(?<!\s)\s+(?=(?:Please|Let's|Let’s|Put|Place|Reason|Think|Return|Make sure|Remember|Present"
    r"|Output|Enclose|Box|Solve|Answer (?:the|this)|You|Give|Provide|Write|Show|The (?:final )?answer)\b))"
)
"""What parts sentences; a problem may end without a full stop before the request."""
_WORD = re.compile(r"[\u4e00-\u9fff]|[^\W\u4e00-\u9fff]+|[^\s\w]")
_WORDS = frozenset(
    re.findall(
        r"\S+",
        r"""
    please let lets us s reason reasoning think solve show work explain answer answers answering step steps
    carefully clearly efficiently logically thoroughly first about process user you your yours and then also finally
    therefore thus put place present provide return respond response reply output write give state express conclude
    end finish box boxed boxes fbox enclose enclosed wrap wrapped make sure ensure remember must should need be is
    are given it do not to in into inside within with using use by at on of after before below as for example like
    only just solely the a an this that following final solution result problem question math maths mathematical
    mathematics latex format form command notation environment tag tags line last its own without quotes quotation
    marks where number or expression solves i hope correct
    请 逐 步 一 推 理 思 考 来 解 答 题 问 并 把 将 最 终 案 放 置 在 于 中 里 写 通 过 你 的 给 出 用 以 内 ， 。
    , . : ; ! ( ) * ` ' " ’ ‘ “ ” - – $ /
    """,
    )
)
_ASKED = re.compile(r"\b(?:answer|solution|result|response|output)s?\b|答案", re.I)
_HOW = re.compile(r"\b(?:think|reason|reasoning|steps?|explain|(?:your|the) work|problem|question)\b|[思推步题]", re.I)
"""What a request without a form asks: to reason, or to solve this problem. "Solve for $a$." is the problem's."""
_FORMULA = re.compile(r"\$(?!\s*(?:box|tag|answer)\b)[^$]*\w[^$]*\$|(?<![\w'’])(?!i hope\b)[b-z](?!\w)", re.I)
"""A formula, or a letter that stands for a number."""
_LINE = re.compile(r"\blast line of your response\b|\bon its own line after\b", re.I)
"""An answer's own line, "Answer: 7", as in DAPO's set and simple-evals."""


def drop_requests(statement: str) -> str:
    r"""Return a statement without its requests to reason and to give the answer in a box, in tags or on a line.

    A request without a form ("Let's think step by step.") goes with the one that it stands beside.

    >>> drop_requests("What is 2+2? Let's think step by step and output the final answer within \\boxed{}.")
    'What is 2+2?'
    >>> drop_requests("What is 2+2? Put your answer as a fraction within \\boxed{}.")
    'What is 2+2? Put your answer as a fraction within \\boxed{}.'
    """
    if not ("box" in statement or _TAG.search(statement) or _LINE.search(statement)):
        return statement.strip()
    parts = _SENTENCE.split(statement)  # sentences, and between them what parts them
    kinds = [_find_kind(part) for part in parts[::2]]
    kept: list[str] = []
    at = 0
    while at < len(kinds):
        until = at
        while until < len(kinds) and kinds[until] != "other":
            until += 1
        if "form" in kinds[at:until]:
            kept[-1:] = [*(sep.rstrip(" \t\n,") for sep in kept[-1:]), "\n"]
        else:
            until = max(until, at + 1)
            kept += parts[2 * at : 2 * until]
        at = until
    return "".join(kept).strip()


def _find_kind(sentence: str) -> str:
    """Return "form" for a request that names the answer's form, "request" for one without, "other" for the rest."""
    text, boxes = _BOX.subn(" box ", sentence)
    text, tags = _TAG.subn(" tag ", text)
    strange = not all(word.lower() in _WORDS for word in _WORD.findall(text))
    if strange or _FORMULA.search(text):
        return "other"
    if (bool(boxes or tags) and _ASKED.search(sentence)) or _LINE.search(text):
        return "form"
    return "request" if not text.strip() or _HOW.search(text) else "other"
