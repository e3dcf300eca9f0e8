"""Spelling clean-up before the lexer: Unicode glyphs, spacing, fonts, colour, digit grouping.

It runs before the parser because 12\\,345 otherwise becomes twelve and a mixed number (peers read 357).
"""

import re
import unicodedata

from mathlete.answers.vocabulary import LETTER_UNITS, UNITS

_GLYPHS = {
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∗": "*",
    "÷": "/", "∕": "/", "⁄": "/", "≤": r"\le ", "≥": r"\ge ", "⩽": r"\le ", "⩾": r"\ge ", "≠": r"\ne ",
    "≈": r"\approx ", "≡": r"\equiv ", "∞": r"\infty ", "π": r"\pi ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ",
    "∅": r"\emptyset ", "⌀": r"\emptyset ", "±": r"\pm ", "∓": r"\mp ", "°": r"^\circ ", "º": r"^\circ ",
    "√": r"\sqrt ", "∛": r"\sqrt[3]", "∜": r"\sqrt[4]", "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ",
    "⌉": r"\rceil ", "⟨": r"\langle ", "⟩": r"\rangle ", "…": r"\ldots ", "⋯": r"\cdots ", "′": "'", "’": "'",
    "‘": "'", "“": '"', "”": '"', "，": ", ", "。": ".", "；": ";", "：": ":", "∣": "|", "ℝ": r"\R ",
    "→": r"\to ", "➡": r"\to ", "⟶": r"\to ", "➔": r"\to ", "⇒": r"\Rightarrow ", "⟹": r"\implies ",
    "⇔": r"\iff ", "⟺": r"\iff ", "🎉": "", "\ufe0f": "",
    "∨": r"\lor ", "∧": r"\land ", "¬": r"\neg ", "₋": "-", "元": " yuan ", "円": " yen ", "¢": " cents ",
    "«": " ", "»": " ", "「": " ", "」": " ", "【": " ", "】": " ", "『": " ", "』": " ",
    "∠": r"\angle ", "△": r"\triangle ", "∀": r"\forall ", "∉": r"\notin ", "∖": r"\setminus ", "ℤ": r"\Z ",
    "ℕ": r"\N ", "ℚ": r"\Q ", "∙": r"\cdot ", "î": r"\hat{i}", "ĵ": r"\hat{j}",
    "✓": "", "✔": "", "✅": "", "‖": r"\|", "∎": "", "∴": "", "☑": "", "■": "",
}  # fmt: skip
_GREEK_NAMES = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi psi omega"
)
_GREEK = dict(zip("αβγδεζηθικλμνξρστυφχψω", _GREEK_NAMES.split(), strict=True))
_GREEK |= {sign: _GREEK[sign.lower()].capitalize() for sign in "ΓΔΘΛΞΣΦΨΩ"}
_INVISIBLE = dict.fromkeys("\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\u2061\u2063\u2064\ufeff", "")
"""Signs without ink, which come with copied text."""
_TABLE = str.maketrans(_INVISIBLE | _GLYPHS | {k: f"\\{v} " for k, v in _GREEK.items()})
_SCRIPTS = [*"²³¹", *map(chr, (*range(0x2B0, 0x2E5), *range(0x1D2C, 0x1DC0), *range(0x2070, 0x20A0), 0x2C7C))]
_UP, _DOWN = ("".join(c for c in _SCRIPTS if kind in unicodedata.decomposition(c)) for kind in ("<super>", "<sub>"))
"""Signs that are raised or lowered: plain ones, which NFKC makes of them, would be factors, 2k for 2 to the k."""
_ACCENTS = {"\u0302": "hat", "\u0304": "bar", "\u0305": "overline", "\u20d7": "vec"}
_COMBINED = re.compile(f"(\\w)([{''.join(_ACCENTS)}])")
_VULGAR = re.compile("[¼½¾⅐-⅞]")
_NOISE = re.compile(
    r"\\[vh]?phantom\s*(?:\{[^{}]*\}|[^\\{\s])|\\bbox\s*\[[^\[\]]*\]|\\color\s*\[[^\[\]]*\]\{[^{}]*\}"
    r"|\\(?:displaystyle|textstyle|scriptstyle|limits|nolimits|mathstrut|strut"
    r"|qquad|quad|hfill|enspace|thinspace|medspace|thickspace|negthinspace|nonumber|relax"
    r"|tiny|scriptsize|footnotesize|small|normalsize|large|Large|LARGE|huge|Huge|it|sf|tt|cal|sl|em|bfseries|itshape"
    r"|rmfamily|sffamily|ttfamily|boldmath|mathnormal|mathstrut|therefore|because|checkmark|blacksquare|qed|qedhere"
    r"|upshape|scshape|mdseries|hline|pounds|euro|texteuro|textdollar|centering|noindent|square\s*\Z|Box\s*\Z|[hv]space\*?\{[^{}]*\}|mathversion\{[a-z]*\}|raisebox\{[^{}]*\}|label\{[^{}]*\}|tag\*?\{[^{}]*\})(?![a-zA-Z])\.?"
    r"|(?<!\\)\\[!;:> ,]|~"
)
_SIZE = re.compile(r"\\(?:left|right|[bB]igg?[lrm]?)(?![a-zA-Z])\.?")
_PRIME = re.compile(r"\^\s*(?:\{(?:\\prime\s*)+\}|\\prime(?![a-zA-Z]))")
_END_TOKENS = re.compile(r"<\|[^|<>]{1,40}\|>|</?(?:s|answer|think)>|<｜[^<>]{1,60}｜>")
_HTML = re.compile(r"</?(?:br?|strong|em|i|u)\s*/?>")
_HTML_SCRIPT = re.compile(r"<(su[pb])>([^<>]{1,20})</\1>")
_OHM = re.compile(
    r"(?<=[\d}])(?:\s|\\[,;! ]|~)*(?:\\(?:mathrm|text|rm) ?\{(?:~|\\ | )?[kM]? ?\\Omega ?\}"
    r"|(?:\\(?:mathrm|text|rm) ?\{\s*[kM]\s*\}\s*)?\\Omega)\s*\Z"
)
_GROUP = re.compile(
    r"(?<=\d)(?:'|\\_)(?=\d{3}(?!\d))|(?<=\d)\s*(?:\{\s*,\s*\}|,\\!|\\!,|\\[,;:! ]|~)\s*(?=\d{3}(?!\d))"
)
_FONT = re.compile(
    r"\\(?:color|textcolor|colorbox|enclose)\s*\{[^{}]*\}|\\fcolorbox\s*\{[^{}]*\}\s*\{[^{}]*\}|\\(?:underline|uline|boldsymbol|pmb|bm|ensuremath|fbox|boxed|framebox|ovalbox|smash|mathord|mathrel|mathbin|mathopen"
    r"|mathclose|mathinner)(?![a-zA-Z])"
    r"|\A(?:\s*\\(?:sim|bullet|diamond|to|rightarrow|blacktriangleright|Longrightarrow|longrightarrow|Rrightarrow"
    r"|leadsto)(?![a-zA-Z]))+"
    r"|\\star\s*\Z|\A\s*\{\s*\}(?=\s*\d)|(?<=[\w)}])\s*\{\s*\}(?=\s*\^\s*\{?\s*\\(?:circ|degree))"
)
_DIGIT_FONT = re.compile(
    r"(?<![a-zA-Z^_}])(?:\\(?:text(?:bf|rm|it|sf|tt|normal)?|math(?:rm|bf|it|sf|tt|cal|frak)|mbox|boldsymbol|bm|emph)\s*"
    r"(?:\{\s*[-+]?[\d.,]*\s*\}|(?=\d))|\{\s*\\(?:bf|rm|it|tt|sf)\s*[\d.]+\s*\})+"
)
"""Digits in a font: they stand beside other digits as if there were no font."""
_FONT_GROUP = re.compile(r"\{\s*\\(?:rm|bf|it|sf|tt)\s+([a-zA-Z]+)\s*\}")
_OPERATOR = re.compile(r"\\mathop\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_NORM = re.compile(r"\\[lr]?Vert(?![a-zA-Z])")
_DOLLARS = re.compile(r"(?<![A-Za-z])(?:US|USD|AU|CA|NZ|HK)\s*(?=\\?\$\s?\d)")
_MICRO = re.compile(r"\\mu\s*\\(?:mathrm|text|rm)\s*\{\s*(m|s|g|L|A|F|C)\s*\}\s*\Z")
_FRAC = re.compile(r"\\[dtc]frac(?![a-zA-Z])")
_ESCAPED = re.compile(r"\\\\(?=[a-zA-Z(\[{}!,;%$])")
_BRACKETS = {r"\lbrace": r"\{", r"\rbrace": r"\}", r"\lbrack": "[", r"\rbrack": "]"}
_NAMED_BRACKET = re.compile(r"\\[lr](?:brace|brack)(?![a-zA-Z])")
_LINE_BREAK = re.compile(r"\\\\(?=\s*[^\s$])")
_LINE_GOES_ON = re.compile(
    r"(?:[-+=<>*/]|\\(?:cdot|times|pm|leq?|geq?))\s*\\\\|\\\\(?=\s*(?:[+=<>*/]|\\(?:cdot|times|pm|leq?|geq?)(?![a-zA-Z])))"
)
"""A line that ends in a sign or begins with one: no line of a list."""
_LINES = re.compile(
    r"\\begin\{(aligned|align\*?|gathered|gather\*?|split|cases|equation\*?|displaymath|multline\*?|center)\}"
    r"(.*?)\\end\{\1\}",
    re.S,
)
_BRACED_ARRAY = re.compile(
    r"\\left\s*\\(?:\{|lbrace)\s*\\begin\{(array|aligned|matrix)\}\s*(?:(?<=array\})\{[^{}]*\})?"
    r"((?:(?!\\begin).)*?)\\end\{\1\}\s*\\right\s*\.",
    re.S,
)
"""The lines behind one brace, as texts from before `cases` write them."""
_ROW_SPACE = re.compile(r"(\\\\)\s*\[\s*-?[\d.]+\s*(?:pt|em|ex|mm|cm|in)\s*\]")
_ALIGNED_SIGN = re.compile(r"&\s*=|=\s*&")
_MAX_ENVIRONMENTS = 40
"""Environments in one answer whose lines are joined: for each that never ends, all of the text is looked through."""
_OPENING_QUOTES = re.compile(r"(?:\\?\"|[`'*_])+(?=.)", re.S)
_DELIMITERS = re.compile(r"\\[()\[\]]|(?<!\\)\$")
SIDE_BY_SIDE = re.compile(
    r"((?<![\w\\}])[a-zA-Z](?:_\w|_\{\w+\})?\s*=\s*-?\d+(?:\.\d+)?)(?:\\[ ,;:]|[ ~])+"
    r"(?![" + "".join(LETTER_UNITS) + r"]\s*=)(?=[a-zA-Z](?:_\w|_\{\w+\})?\s*=)"
)
"""Two values with nothing but space between them, `x = 6 y = 7`; a letter that may be a unit goes on with the chain."""
_LISTED_DOTS = re.compile(r"(?<=,)\s*\.\.\.(?=\s*,)")
_CODED_LETTERS = re.compile(r"\(([0-9A-Z]{2,})\)(?=_\{?(?:1[1-9]|[23]\d)(?!\d))|(?<![\w\\])([A-F]{2,})(?=_\{?16(?!\d))")
"""Digits of a base above ten that are letters, or stand in brackets: `(FF)_{16}`."""
_CUT_SHORT = re.compile(r"(?<=\.\d)\.\.\.|(?<=\.\d\d)\.\.\.|(?<=\.\d{3})\.\.\.|(?<=\d{4})\.\.\.")
_CHOOSE = re.compile(r"(?<=\d )choose (?=\d)")
_PLUS_MINUS = re.compile(r"\+\s?/\s?-|\A\s*\+-")
_ORDINAL = re.compile(r"(?<=\d)(?:\^\s*\{)?(?:\\(?:text|textrm|mathrm)\s*\{)?(?:st|nd|rd|th)\}{0,2}\Z")
_COUNTER = re.compile(r"(?<=[\d}])\s*(?![万亿百分角]|千(?![克米]))[一-鿿]{1,4}\Z")
"""A Chinese measure word or unit after a value; 万, 亿, 百 and 千 multiply, 分 and 角 divide."""
_WORD_OPENS, _WORD_CLOSES = r"\s*(?:\\(?:text|mbox|textrm|mathrm)\s*\{)?\s*\(?\s*", r"\s*\)?\s*\}?\s*\)?"
_BASE_IN_WORDS = re.compile(
    rf"(?<=[0-9A-F]){_WORD_OPENS}(?:in )?base\b\s*\}}?\s*\{{?"
    r"(\d+|two|three|four|five|six|seven|eight|nine|ten|twelve|sixteen)"
    rf"{_WORD_CLOSES}\Z"
)
"""A base behind its digits: `42 (base 5)`, `42\\text{ in base }5`."""
_MODULUS_IN_WORDS = re.compile(
    r"(?<=\d)\s*\\(?:text|mbox|textrm|mathrm)\s*\{\s*\(?\s*mod(?:ulo)?(?:\s+|\s*\}\s*)(\d+)\s*\)?\s*\}?\s*\)?\s*\Z"
)
_RATIONAL = re.compile(r"\bRational\(\s*(-?\d+)\s*,\s*(\d+)\s*\)")
"""A fraction as sympy prints it."""
_ALL_BUT = re.compile(
    r"\A(?:\\(?:text|mbox)\s*\{)?\s*(?:the set of )?all real numbers(?: x)? (?:except|other than|but)(?: for)?"
    r"(?: x =)?\s*\}?\s*(?:[a-z]\s*=)?(?=[-\d\\(][^\n]{0,60}\Z)"
)
_TIMES = re.compile(r"(?<=\d)(?:\s*[xX]\s*(?=10\s*\^)|\s+[xX]\s+(?=\d))")
_UNIT = "(?:" + "|".join(sorted(UNITS - {"in", "a"}, key=len, reverse=True)) + ")"
_LETTER = "(?:" + "|".join(sorted(LETTER_UNITS)) + ")"
_POWER = r"(?:\^\{?-?\d\}?)?"
_JOINED = rf"\s*(?:/|\\cdot|\*)\s*\(?\s*(?:{_UNIT}|{_LETTER}){_POWER}\)?"
_COMPOUND = re.compile(
    rf"(?<=[\d}}])\s+(?:{_UNIT}{_POWER}(?:{_JOINED})+|{_LETTER}{_POWER}(?:{_JOINED}){{2,}}"
    rf"|{_LETTER}{_POWER}\s*/\s*{_UNIT}{_POWER}|(?:ft|foot)-(?:lbs?|pounds?)"
    rf"|(?:m/s|N\s*\\cdot\s*m|g/L|N/m|J/K|J/g|W/m|V/m){_POWER})\Z"
)
"""Units joined by signs in plain letters; two single letters only where no two variables are likely."""
_PURE = re.compile(r"[A-Za-z0-9+\-*/^=.,;()\[\]<>! \n]*\Z")


def clean(text: str) -> str:
    """Return the text in the one spelling that the lexer reads.

    >>> clean(r"$12\\,345\\text{ cm}^2$.")
    '12345\\\\text{ cm}^2'
    >>> clean("２½")
    '2\\\\frac{1}{2}'
    """
    text = text[3:] if text.startswith("Rs.") else text
    # Most answers are plain ASCII without commands: nothing in them needs the passes over LaTeX and Unicode.
    text = _shorten_blanks(text)
    if not _PURE.match(text):
        text = _shorten_blanks(_simplify_latex(_spell_unicode(text)))
    if "</" in text or "<br" in text:
        text = _HTML.sub(" ", _END_TOKENS.sub(" ", text))
    if text.count("=") > 1:
        text = SIDE_BY_SIDE.sub(r"\1, ", text)
    if "..." in text:
        text = _LISTED_DOTS.sub(r" \\ldots", text)
    if "<s" in text:
        text = _HTML_SCRIPT.sub(lambda m: f"{'^' if m[1] == 'sup' else '_'}{{{m[2]}}}", text)
    text = _CUT_SHORT.sub(r"\\ldots ", text)
    text = _PLUS_MINUS.sub(r"\\pm ", _TIMES.sub(r"\\times ", text)).strip()
    if " choose " in text:
        text = _CHOOSE.sub(r"\\choose ", text)
    if "_" in text:
        text = _CODED_LETTERS.sub(r"\\text{\1\2}", text)
    if "base" in text or "mod" in text:
        text = _MODULUS_IN_WORDS.sub(r" \\pmod{\1}", _BASE_IN_WORDS.sub(r"_{\1}", text))
    if "Rational(" in text:
        text = _RATIONAL.sub(r"(\1/\2)", text)
    if "real numbers" in text:
        text = _ALL_BUT.sub(r"\\mathbb{R} \\setminus \\{", text) + r"\}" if _ALL_BUT.match(text) else text
    if "per cent" in text:
        text = text.replace("per cent", "percent")
    if text[-1:].isalnum() or text.endswith((")", "}")):
        text = _COUNTER.sub("", _COMPOUND.sub("", text))
    if text.endswith(("st", "nd", "rd", "th", "}")):
        text = _ORDINAL.sub("", text)
    # Quotes, stops and line breaks may be nested in any order, so they are taken off until nothing changes.
    while True:
        stripped = (
            (text if text.endswith("'") and r"\circ" in text else _strip_quotes(text))
            .removesuffix("\\\\")
            .strip(" \t\r\n&")
            .strip(":")
            .rstrip(".,;")
            .strip()
        )
        if stripped == text:
            return text.replace("**", "^")
        text = stripped


def _shorten_blanks(text: str) -> str:
    """Return the text with at most two blanks side by side: expressions for words would try thousands in all ways.

    Two are left, because 1 000 is a thousand with one.
    """
    if "   " not in text and "\n" not in text and "\t" not in text:
        return text
    return _EMPTY_LINES.sub("\n\n", _BLANKS.sub("  ", text))


_BLANKS = re.compile(r"[^\S\n]{3,}")
_EMPTY_LINES = re.compile(r"\n(?:[^\S\n]*\n){2,}")


def _strip_quotes(text: str) -> str:
    """Return the text without marks of quotation and emphasis around it; `'` ends it only behind a digit."""
    opening = _OPENING_QUOTES.match(text)
    text = text[opening.end() :] if opening else text
    while len(text) > 1 and (text[-1] in '*_`"' or (text[-1] == "'" and text[-2].isdecimal())):
        kept = text[:-1].rstrip("*_`") or text[:1]
        text = kept[:-1] if text[-1] == '"' and kept[-1] == "\\" and len(kept) > 1 else kept
    return text


def _spell_unicode(text: str) -> str:
    if text.isascii():
        return text
    text = re.sub(f"[{_UP}]+", lambda m: "^{" + unicodedata.normalize("NFKC", m[0]) + "}", text)
    text = re.sub(f"[{_DOWN}]+", lambda m: "_{" + unicodedata.normalize("NFKC", m[0]) + "}", text)
    text = _COMBINED.sub(lambda m: rf"\{_ACCENTS[m[2]]}{{{m[1]}}}", _VULGAR.sub(_spell_fraction, text))
    # Twice: NFKC turns full-width signs into ASCII and others into signs of the table.
    return unicodedata.normalize("NFKC", text.translate(_TABLE)).translate(_TABLE)


def _join_lines(match: re.Match[str]) -> str:
    r"""Return the lines of an environment separated by commas; `cases` with conditions stay as they are."""
    if match[1] == "cases" and "&" in match[2] and not _ALIGNED_SIGN.search(match[2]):
        return match[0]
    # A matrix inside has lines of its own.
    if r"\begin" in match[2] and match[1].startswith(("equation", "displaymath", "center")):
        return match[2]
    lines = match[2].replace("&", "").strip().removesuffix("\\\\")
    return _join_formula(lines).replace("\\\\", ", ")


def _join_formula(text: str) -> str:
    r"""Return the text without the line breaks inside a formula: `x = 3 + 4 \\ = 7`."""
    return _LINE_GOES_ON.sub(lambda match: match[0].replace("\\\\", " "), text)


_FONT_NAME = re.compile(r"\\[a-z]+|[{}\s]")


def _drop_font(match: re.Match[str]) -> str:
    return _FONT_NAME.sub("", match[0])


_SPACE_OF_ITEMS = re.compile(
    r"\\q?quad(?![a-zA-Z])\s*(?=(?:[a-zA-Z|]|\\(?:" + "|".join(_GREEK.values()) + r"|forall)(?![a-zA-Z]))"
    r"[^=<>≤≥∈]{0,40}?(?:[=<>≤≥∈]|\\(?:in|geq?|leq?|neq?|geqslant|leqslant)(?![a-zA-Z])))"
)
"""Wide space before a relation: what is spaced so stands beside the answer, as another value or a condition."""
_COMPLETE = re.compile(r"[\w})\]|'!%]\s*\Z")


def _separate_items(text: str) -> str:
    r"""Return the text with a comma for wide space between two items: `x = 1 \quad y = 2`."""
    pieces, at, braces, brackets = [], 0, 0, 0
    for match in _SPACE_OF_ITEMS.finditer(text):
        between = text[at : match.start()]
        # Counted on from the space before, so that the time stays linear.
        braces += between.count("{") - between.count("}")
        brackets += between.count("(") - between.count(")")
        before = _QUADS.sub("", text[max(0, match.start() - _LONGEST_WORD) : match.start()])
        # \text{for} \quad x > 0 goes on.
        last = _LAST_WORD.search(before)
        goes_on = last is not None and (last[0].startswith("\\") or len(last[0]) > 1) and last[0] not in _VALUES
        is_item = _COMPLETE.search(before) and not goes_on and braces <= 0 and brackets <= 0
        pieces += [between, ", " if is_item else " "]
        at = match.end()
    return "".join([*pieces, text[at:]])


_QUADS = re.compile(r"(?:\\q?quad\s*)+\Z")
_LONGEST_WORD = 60
"""Characters before wide space that are looked at."""
_LAST_WORD = re.compile(r"\\?[a-zA-Z]+(?=\s*\Z)|\\(?:text|mbox|textrm|mathrm)\s*\{[^{}]*\}(?=\s*\Z)")
_VALUES = frozenset(
    {f"\\{name}" for name in _GREEK.values()} | {r"\pi", r"\infty", r"\circ", r"\ldots", r"\dots", r"\cdots"}
)
"""Commands that end a value; another, such as `\\Rightarrow`, or a word, such as "for", goes on behind the space."""


_NOT_EQUAL = re.compile(r"\\not\s*=")
_NOT_IN = re.compile(r"\\not\s*\\in(?![a-zA-Z])")
_MAPS_TO = re.compile(r"\A\s*(?:[a-zA-Z]\s*:\s*)?[a-z]\s*\\mapsto(?![a-zA-Z])")
"""A function that is written as `f: x \\mapsto x^2`."""
_DECLARED = re.compile(
    r"\A\s*[a-zA-Z]\s*(?::|\\colon)[^,;:=]{1,40}\\(?:to|rightarrow)(?![a-zA-Z])[^,;:=]{1,40}[,;]"
    r"(?:\\[ ,;!]|\\q?quad|\s)*(?=[a-zA-Z]\s*(?:\\left)?\()"
)
"""What a function maps to what, before its formula: `f: \\mathbb{R} \\to \\mathbb{R}, f(x) = 2x`."""
_DOTTED_PERIOD = re.compile(r"(?<=[.\d])\\dot\s*\{?(\d)\}?(\d*)\\dot\s*\{?(\d)\}?")
_IN_FONT = r"\\(?:math(?:bf|rm)|boldsymbol|bm|pmb|vec|hat|widehat|overrightarrow)"
_IJK = r"(?:[ijk]|\\[ij]math)(?![a-zA-Z])"
_UNIT_VECTOR = re.compile(
    rf"{_IN_FONT}(?:\s*\{{\s*(?:{_IN_FONT}\s*(?:\{{\s*({_IJK})\s*\}}|({_IJK}))|({_IJK}))\s*\}}|\s+({_IJK})|(?=\\)({_IJK}))"
)


def _spell_unit_vectors(text: str) -> str:
    r"""Return the text with `\vec{i}` for unit vectors in any font, where it has two of i, j and k at least."""
    if not re.search(r"\\(?:hat|widehat|vec|overrightarrow|math|bold|bm|pmb)", text):
        return text
    names = {(match[match.lastindex or 0]).strip("\\")[0] for match in _UNIT_VECTOR.finditer(text)}
    if len(names) < 2:
        return text
    return _UNIT_VECTOR.sub(lambda match: rf"\vec{{{match[match.lastindex or 0].strip(chr(92))[0]}}}", text)


_INDEX = r" ?\{? ?(\d{1,4}) ?\}? ?"
_CHOICES = re.compile(
    rf"(?:\{{\s*\}}\s*|(?<![\w)}}]))[_^]{_INDEX}(?:\\(?:mathrm|text)\s*)?\{{?([CP])\}}?_{_INDEX}(?![\d^(])"
)
"""A number of choices or arrangements as `{}_{10}C_3`, `^{10}C_3` or `{}_{10}P_3`."""


def _spell_choices(match: re.Match[str]) -> str:
    choices = rf"\binom{{{match[1]}}}{{{match[3]}}}"
    return choices if match[2] == "C" else rf"({choices}\cdot {match[3]}!)"


def _spell_fraction(match: re.Match[str]) -> str:
    top, _, bottom = unicodedata.normalize("NFKC", match[0]).partition("⁄")
    return rf"\frac{{{top}}}{{{bottom}}}"


def _simplify_latex(text: str) -> str:
    text = _END_TOKENS.sub(" ", text)
    if 0 < text.count(r"\begin") <= _MAX_ENVIRONMENTS:
        text = _BRACED_ARRAY.sub(r"\\begin{cases}\2\\end{cases}", _ROW_SPACE.sub(r"\1", text))
        text = _LINES.sub(_join_lines, text)
    if r"\begin" not in text:
        # `\\frac` is a doubly escaped command. Where none is, `\\` breaks a line, and lines list items.
        unescaped = _ESCAPED.sub(r"\\", text)
        joined = _join_formula(unescaped) if unescaped == text else unescaped
        text = _LINE_BREAK.sub(", " if unescaped == text else " ", joined)
    if r"\not" in text:
        text = _NOT_IN.sub(r"\\notin ", _NOT_EQUAL.sub(r"\\ne ", text))
    if r"\dot" in text:
        text = _DOTTED_PERIOD.sub(r"\\overline{\1\2\3}", text)
    if "j" in text or "k" in text:
        text = _spell_unit_vectors(text)
    if r"\to" in text or r"\rightarrow" in text:
        text = _DECLARED.sub("", text)
    if r"\mapsto" in text:
        text = _MAPS_TO.sub("", text)
    if "C" in text or "P" in text:
        text = _CHOICES.sub(_spell_choices, text)
    if "quad" in text:
        text = _separate_items(text)
    text = _FRAC.sub(r"\\frac", text)
    if "\\math" in text or "\\text" in text or "\\bf" in text or "\\rm" in text or "\\mbox" in text:
        text = _FONT_GROUP.sub(r"\\mathrm{\1}", _OPERATOR.sub(r"\1", text))
        text = _MICRO.sub(r"\\text{ um}", _DIGIT_FONT.sub(_drop_font, text))
    text = _OHM.sub("", text) if r"\Omega" in text else text
    text = _NORM.sub(r"\\|", _DOLLARS.sub("", text))
    text = _GROUP.sub("", text)
    text = _FONT.sub("", text)
    text = _DELIMITERS.sub(" ", text)
    text = _NAMED_BRACKET.sub(lambda m: _BRACKETS[m[0]], text)
    if r"\prime" in text:
        text = _PRIME.sub(lambda m: "'" * m[0].count(r"\prime"), text)
    # A bracket's size goes without a trace, so that f\left(x\right) is still the function f.
    return _NOISE.sub(" ", _SIZE.sub("", text))
