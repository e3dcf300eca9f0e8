r"""The one border for text from outside: what UTF-8 cannot hold becomes U+FFFD once, here, and is never met inside.

Python's strings can hold half a character (a lone surrogate): JSON spells one as `"\ud800"`, a program may print one.
Tokenizers and files refuse it. So everything that reads foreign text (tool output, a server's reply, files of problems
and samples) goes through `clean` or `parse_json`, and so does everything that writes a file. Bytes that are no UTF-8
become U+FFFD where a program or a server sent them; a file of them is refused by its reader, for it has another
encoding. NUL and other control characters are text like any other.

>>> clean("half \ud800, two halves \ud83d\ude00")
'half \ufffd, two halves 😀'
>>> parse_json(b'{"text": "\\ud800!"}')
{'text': '\ufffd!'}
"""

import ast
import json
import math
import re
import warnings
from codecs import BOM_UTF8

_HALF = re.compile("[\ud800-\udfff]")
_ESCAPED_HALF = re.compile(r"\\u[dD][89a-fA-F]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd]")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_BINARY_SHARE = 0.1
"""Share of control characters above which an output is no text, where it has eight or more."""


def clean(text: str) -> str:
    """Return the text as UTF-8 can hold it: halves that belong together joined, each other half as U+FFFD."""
    if text.isascii() or not _HALF.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def parse_json(data: str | bytes, *, halves: bool = False) -> object:
    """Return the value of a JSON text, with clean strings; `halves` leaves half characters in, to be joined later.

    A byte order mark before it, which editors of Windows write, says nothing.

    Raises:
        ValueError: it is not UTF-8, not JSON, or nested deeper than this interpreter can read.
    """
    text = data if isinstance(data, str) else data.removeprefix(BOM_UTF8).decode()
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError("JSON nested too deep") from error
    return value if halves or not _may_hold_half(text) else _clean_values(value)


def _may_hold_half(text: str) -> bool:
    # Two quick looks before the search of every character: samples are read by the hundred thousand.
    return bool("\\u" in text and _ESCAPED_HALF.search(text)) or (not text.isascii() and bool(_HALF.search(text)))


def _clean_values(value: object) -> object:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [_clean_values(item) for item in value]
    if isinstance(value, dict):
        return {clean(key): _clean_values(item) for key, item in value.items()}
    return value


def read_list(text: str) -> list[object] | None:
    """Return the list that a text is, in JSON or as Python shows it; None where it is no list of texts and numbers.

    Its texts are clean, and None stands for NaN.

    >>> read_list("['a', nan]"), read_list('["it\\'s", 2]'), read_list("[[1, 2]]"), read_list("['a' 'b']")
    (['a', None], ["it's", 2], None, None)
    """
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return None
    try:
        value = parse_json(text)
    except ValueError:
        value = _read_python(text)
    if not isinstance(value, list) or not all(one is None or isinstance(one, str | int | float) for one in value):
        return None
    return [None if isinstance(one, float) and math.isnan(one) else one for one in value]


def _read_python(text: str) -> list[object] | None:
    try:
        # An escape that is none is no text of Python's own.
        with warnings.catch_warnings(action="error"):
            body = ast.parse(text, mode="eval").body
        raw = text.encode()
        return [_read_member(node, raw) for node in body.elts] if isinstance(body, ast.List) else None
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def _read_member(node: ast.expr, raw: bytes) -> object:
    # numpy's numbers are shown as np.float64(0.5).
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and len(node.args) == 1:
        node = node.args[0]
    if isinstance(node, ast.Name) and node.id == "nan":
        return None
    value: object = ast.literal_eval(node)
    if not isinstance(value, str):
        return value
    # Python joins texts without a comma between them, as numpy writes them.
    if node.lineno > 1 or raw[node.col_offset : node.end_col_offset].decode() != repr(value):
        raise ValueError
    return clean(value)


def agree(number: float, one: str, many: str) -> str:
    """Return the word that goes with a number: of 1 the singular's, of all others the plural's.

    >>> agree(1, "has", "have"), agree(0, "has", "have")
    ('has', 'have')
    """
    return one if number == 1 else many


def counted(number: int, noun: str) -> str:
    """Return a number with its noun.

    >>> counted(1, "problem"), counted(2, "sample")
    ('1 problem', '2 samples')
    """
    return f"{number} {agree(number, noun, f'{noun}s')}"


def strict_json(value: object) -> str:
    """Return JSON that any reader takes: clean text, and null for NaN and infinities, which JSON has no word for."""
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError:
        text = json.dumps(_finite_values(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return clean(text)


def _finite_values(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [_finite_values(item) for item in value]
    if isinstance(value, dict):
        return {key: _finite_values(item) for key, item in value.items()}
    return value


def quote(text: str, *, most: int = 300) -> str:
    r"""Return foreign text for an error message: on one line, without control characters, cut at `most` characters.

    >>> quote("<html>\n  <b>Bad\x00 gateway</b>", most=15)
    '<html> <b>Bad\ufffd … (11 more characters)'
    """
    shown = _CONTROL.sub("\ufffd", " ".join(clean(text).split()))
    return shown if len(shown) <= most else f"{shown[:most].rstrip()} … ({len(shown) - most} more characters)"


def quote_markdown(text: str) -> str:
    r"""Return foreign text for a line of Markdown, in which none of it is markup.

    >>> quote_markdown("look:\n## *here*")
    'look: ## \\*here\\*'
    """
    return re.sub(r"([\\`*_\[\]<>&])", r"\\\1", " ".join(clean(text).split()))


def readable(text: str, *, most: int) -> str:
    r"""Return a program's output as a model may read it: clean, at most `most` characters, nothing binary.

    What is left out is said, as `[… characters left out]`.

    >>> readable("7\n", most=100), readable("\x00\x01\x02" * 5, most=100)
    ('7\n', '[15 characters of binary output left out]')
    """
    # Colours of a terminal are no output.
    text = _COLOUR.sub("", clean(text))
    if len(controls := _CONTROL.findall(text)) > _BINARY_SHARE * len(text) and len(controls) >= 8:
        return f"[{len(text)} characters of binary output left out]"
    if len(text) <= most:
        return text
    head = most // 2
    return f"{text[:head]}\n[{len(text) - most} characters left out]\n{text[len(text) - (most - head) :]}"
