r"""Laws of reading: a real gold, rewritten so that it means the same, is still the same answer, and no other one's.

Each rewrite is one of the ways in which models write an answer: other fonts, `\operatorname`, a line break where TeX
has white space, a label, a wrapper, a unit, named values, a condition behind the answer.
"""

import json
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from mathlete.answers import compare, extract, last_box, parse, read_integer
from mathlete.competitions import competition

AIMO_3 = competition("aimo-3")
LEAST_RIGHT = 0.995
Rewrite = Callable[[str, int], str | None]
"""Given a gold and its number, return it rewritten; None where the rewrite has no place in it."""


def read_golds(data: Path) -> Iterator[str]:
    for line in (data / "math_test" / "test.jsonl").read_text().splitlines():
        if box := last_box(json.loads(line)["solution"]):
            yield box.content
    for row in json.loads((data / "math_train" / "math.json").read_text()):
        yield str(row["answer"])
    for row in json.loads((data / "olympiadbench_rllm" / "olympiad_bench.json").read_text()):
        yield from row["answer"]
    for line in (data / "comp_math_24_25" / "test.jsonl").read_text().splitlines():
        yield json.loads(line)["expected_answer"]


@pytest.fixture(scope="module")
def golds(shared: Path) -> list[str]:
    """Return the golds that can be read at all, in a mixed order that is always the same."""
    distinct = sorted(dict.fromkeys(one.strip().strip("$.") for one in read_golds(shared / "data")), key=hash_of)
    return [gold for gold in distinct if parse(gold).node is not None and len(gold) < 200]


def hash_of(text: str) -> int:
    return sum((at + 7) * (at + 13) * ord(sign) for at, sign in enumerate(text)) * 7919 % 100_003


def is_formula(gold: str) -> bool:
    node = parse(gold).node
    assert node is not None
    words = re.search(r"\\text|\\mbox|\\textbf|[a-zA-Z]{4,}", re.sub(r"\\[a-zA-Z]+", "", gold)) or "\\text" in gold
    return node.op not in ("text", "letter", "eq", "chain", "rel") and not words and "=" not in gold


def is_number(gold: str) -> bool:
    node = parse(gold).node
    return (
        node is not None
        and node.op in ("num", "root", "add", "mul", "div", "neg", "pow")
        and (
            not re.search(r"[a-zA-Z]", re.sub(r"\\(?:[dt]?frac|sqrt|pi|cdot|left|right)", "", gold)) and "," not in gold
        )
    )


def break_line(gold: str, number: int) -> str | None:
    places = [m.end() for m in re.finditer(r"\\frac\{[^{}]*\}|[-+=](?=[^\s])|\\cdot|\\left|\(|\\sqrt|,|\\pi", gold)]
    places = [at for at in places if is_formula(gold) and 0 < at < len(gold) and gold[at : at + 1] not in ("\\", " ")]
    places = [at for at in places if not re.match(r",\s*\d{3}", gold[at - 1 :])]
    return f"{gold[: places[number % len(places)]]}\n {gold[places[number % len(places)] :]}" if places else None


def break_before(gold: str, number: int) -> str | None:
    places = [m.start() for m in re.finditer(r"(?<=[\w}) ])(?:[-+]|\\cdot|\\right|\\cup|,(?!\d{3}))", gold)]
    places = [at for at in places if at]
    return f"{gold[: places[number % len(places)]]}\n{gold[places[number % len(places)] :]}" if places else None


HAS_OPERATOR = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc|ln|log|arc)")


def name_operators(gold: str, number: int) -> str | None:
    command = (r"\\operatorname{\1}", r"\\mathrm{\1}", r"\\text{\1}")[number % 3]
    if not HAS_OPERATOR.search(gold):
        gold = rf"{gold}+\sin(1)" if is_formula(gold) and is_number(gold) else gold
    written = re.sub(r"\\(sin|cos|tan|cot|sec|csc|ln|log|arctan|arcsin|arccos)(?![a-z])", command, gold)
    return written if written != gold else None


LABELS = (
    *(
        "f(x) = ",
        r"f\left(x\right) = ",
        "S(n)=",
        "y(x)=",
        "f^{-1}(x)=",
        r"\frac{dy}{dx}=",
        "T_n = ",
        "A = ",
        "g'(x) = ",
    ),
    *(r"\phi(t)=", "P(X>1) = ", r"\mathbb{P}(A) = ", r"\text{Area} = ", "u(x,t)=", "C(10,3) = ", r"\triangle ABC = "),
    *("(f+g)(x) = ", r"\hat{f}(t) = ", "E[X] = ", "[ABC] = ", r"\frac{d}{dt}\left[f(t)\right] = "),
)
NUMBER_LABELS = (
    *("100m+n = ", "|S| = ", r"|A \cup B| = ", r"N \bmod 1000 = ", r"\varphi(100) = ", "AB = ", "AB+CD = ", "abc = "),
    *(
        r"\nu_2(8) = ",
        "a^2+b^2 = ",
        r"\gcd(a,b) = ",
        r"\lim_{n\to\infty} a_n = ",
        r"\lfloor 100x \rfloor = ",
        "m - n =",
    ),
    *(r"\tau(12)=", r"\frac{AB}{CD} = ", r"\text{number of ways} = ", r"\max_{x} f(x) = "),
    *(r"\|v\|^2 = ", "C_{10}^{3} = "),
)


def label(gold: str, number: int) -> str | None:
    is_labelled = is_formula(gold) and not any(f in gold for f in ("f(", "S(", "y(", "g(", "P(", "A"))
    return LABELS[number % len(LABELS)] + gold if is_labelled and "," not in gold else None


def label_number(gold: str, number: int) -> str | None:
    is_zero = parse(gold).value == 0
    return NUMBER_LABELS[number % len(NUMBER_LABELS)] + gold if is_number(gold) and not is_zero else None


def change_font(gold: str, number: int) -> str | None:
    fonts = (r"\bf %s", r"\mathbf{%s}", r"{\bf %s}", r"\rm %s", r"\mathrm %s", r"\boldsymbol{%s}", r"\textbf{%s}")
    return fonts[number % len(fonts)] % gold if is_number(gold) and gold[0].isdigit() else None


def wrap(gold: str, number: int) -> str | None:
    wrappers = (
        *(
            r"\Large %s",
            r"{\huge %s}",
            r"\therefore %s",
            r"%s \checkmark",
            r"\boxed{%s}",
            r"$%s$",
            r"\(%s\)",
            r"\[%s\]",
        ),
        *(
            r"{%s}",
            r"\to %s",
            r"\text{Final answer}: %s",
            "\\begin{equation*}\n%s\n\\end{equation*}",
            r"\left. %s \right.",
            r"\displaystyle %s",
            r"\color{red}{%s}",
            r"%s.",
            r"\quad %s",
        ),
    )
    return wrappers[number % len(wrappers)] % gold if is_formula(gold) else None


UNITS = (
    *(
        r" \mathrm{km}/\mathrm{h}",
        r"\text{ cm}^2",
        r" \text{ ft/s}",
        r"\,\mathrm{m\,s^{-1}}",
        r" \mathrm{N}\cdot\mathrm{m}",
    ),
    *(r" \frac{\text{km}}{\text{h}}", r" \ (\text{units})", r"\text{ dollars}", r"\ \mathrm{mi} / \mathrm{hr}"),
)


def add_unit(gold: str, number: int) -> str | None:
    plain = is_number(gold) and gold[-1] in "0123456789}" and "^" not in gold
    return gold + UNITS[number % len(UNITS)] if plain else None


def add_condition(gold: str, number: int) -> str | None:
    conditions = (
        r", k\in\mathbb{Z}",
        r", \quad x>0",
        r" \quad (x > 0)",
        r" \text{ for } x > 0",
        r" \quad \forall x\in\mathbb{R}",
        r" \quad k\in\mathbb{Z}",
        r" \qquad x>0",
        r" \mid k\in\mathbb{Z}",
        r"\text{ at } x=1",
        r"\text{ when } a=b=1",
        r"\text{ (attained at } x=1)",
        r"\text{ at } (1,2)",
    )
    node = parse(gold).node
    is_value = node is not None and node.op in ("num", "add", "mul", "div", "pow", "root", "neg")
    return gold + conditions[number % len(conditions)] if is_formula(gold) and is_value and "," not in gold else None


def align(gold: str, number: int) -> str | None:
    lines = (r"\begin{aligned} T &= %s \\ &= %s \end{aligned}", "T = %s \\\\ = %s", "T = %s\n= %s")
    return lines[number % len(lines)] % (gold, gold) if is_formula(gold) and "," not in gold else None


RAISED = dict(zip("0123456789+-nixkm", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿⁱˣᵏᵐ", strict=True))
SIGNS_OF_UNICODE = {
    r"\pi": "π", r"\infty": "∞", r"\cdot": "·", r"\times": "×", r"\cup": "∪", r"\theta": "θ", r"\pm": "±",
    r"\le": "≤", r"\leq": "≤", r"\ge": "≥", r"\{": "{", r"\}": "}", r"\left": "", r"\right": "", r"\,": "", r"\!": "",
}  # fmt: skip


def write_plainly(gold: str, number: int) -> str | None:
    r"""Return the gold as plain text with signs of Unicode: `2^{n+1}\sqrt{3}` is 2ⁿ⁺¹√(3)."""
    text = re.sub(r"\\[dtc]frac", r"\\frac", gold).replace(r"^\circ", "°").replace(r"^{\circ}", "°")
    text = re.sub(r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}", text)
    for _ in range(4):
        text = re.sub(r"\\frac\{([^{}]*)\}\{([^{}]*)\}", r"((\1)/(\2))", text)
        text = re.sub(r"\\sqrt\{([^{}]*)\}", r"√(\1)", text)
        text = re.sub(r"\^(?:\{([^{}]+)\}|(\w))", lambda m: raise_signs(m[1] or m[2]), text)
    text = re.sub(r"\\(?:[a-zA-Z]+|[{},!])", lambda m: SIGNS_OF_UNICODE.get(m[0], m[0]), text)
    # A fraction in brackets behind a number is a factor, and commas inside brackets list items.
    is_other = re.search(r"\d\s*\(\(\d+\)/|[\\$&]|,\s?\d{3}", text) or text == gold
    return None if is_other or not is_formula(gold) else text


def raise_signs(exponent: str) -> str:
    return "".join(map(RAISED.get, exponent)) if set(exponent) <= RAISED.keys() else f"^({exponent})"  # type: ignore[arg-type]


def put_behind_argument(gold: str, number: int) -> str | None:
    r"""Return a fraction behind an argument without braces, which takes one number: `10^2\frac14` is 25."""
    is_fraction = re.fullmatch(r"\\[dtc]?frac\s*\{?\d+\}?\s*\{?\d+\}?", gold)
    return (
        (r"1^2%s", r"\sqrt1%s", r"\frac11%s", r"\binom11%s", r"\log_22%s")[number % 4] % gold if is_fraction else None
    )


REWRITES: dict[str, Rewrite] = {
    "line break": break_line,
    "line break before a sign": break_before,
    "operatorname": name_operators,
    "label": label,
    "label of a number": label_number,
    "font": change_font,
    "wrapper": wrap,
    "unit": add_unit,
    "condition": add_condition,
    "lines of a chain": align,
    "plain text": write_plainly,
    "behind an argument": put_behind_argument,
}


def judge(rewrite: Rewrite, golds: list[str], most: int) -> tuple[int, list[str], list[str]]:
    """Return how many golds were rewritten, which were not recognised, and which were taken for another gold."""
    tried, lost, taken = 0, [], []
    other = golds[-1]
    # A second round writes each gold in the next way.
    for number, gold in enumerate([*golds, *golds]):
        written = rewrite(gold, number + number // len(golds))
        if written is None:
            continue
        meant = gold
        if rewrite is name_operators and not HAS_OPERATOR.search(gold):
            meant = rf"{gold}+\sin(1)"
        tried += 1
        if compare(answer=written, gold=meant, limit_s=10).outcome != "equal":
            lost.append(f"{written!r} for {meant!r}")
        is_other = compare(answer=meant, gold=other, limit_s=10).outcome != "equal"
        if is_other and compare(answer=written, gold=other, limit_s=10).outcome == "equal":
            taken.append(f"{written!r} for {other!r}")
        other = gold
        if tried == most:
            break
    return tried, lost, taken


@pytest.mark.parametrize("name", REWRITES)
@pytest.mark.parametrize("most", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_a_rewritten_gold_is_the_same_answer(golds: list[str], name: str, most: int) -> None:
    tried, lost, taken = judge(REWRITES[name], golds, most)
    assert tried >= min(most, 300), tried
    assert not taken
    assert len(lost) <= (1 - LEAST_RIGHT) * tried, (tried, lost[:40])


@pytest.mark.parametrize("most", [200, pytest.param(3000, marks=pytest.mark.slow)])
def test_a_labelled_integer_is_that_integer_in_aimo_3(most: int) -> None:
    labels = (
        *LABELS,
        *NUMBER_LABELS,
        "AB^2 = ",
        "x = ",
        "2x = ",
        "S = 2 + 3\n= ",
        "S &= T \\\\ &= ",
        r"\text{Answer} = ",
        "S = 1 + 2 = ",
        r"\Large ",
    )
    for number in range(most):
        value = number * 7919 % 100_000
        for text in (f"{labels[number % len(labels)]}{value}", f"{labels[number % len(labels)]} {value}."):
            assert read_integer(text, competition=AIMO_3) == value, text


@pytest.mark.parametrize("most", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_named_values_are_compared_by_name(golds: list[str], most: int) -> None:
    numbers = [gold for gold in golds if is_number(gold)]
    pairs = list(pairwise(numbers))
    pairs = (pairs * 20)[:most]
    for at, (a, b) in enumerate(pairs):
        p, q = (("AB", "BC"), ("a_1", "a_2"), (r"\alpha", r"\beta"), ("f(1)", "f(2)"), ("S_1", "S_2"), ("x", "y"))[
            at % 6
        ]
        written = f"{p}={a}, {q}={b}"
        assert compare(answer=written, gold=f"{q}={b}, {p}={a}", limit_s=10).outcome == "equal", written
        if compare(answer=a, gold=b, limit_s=10).outcome == "different":
            assert compare(answer=written, gold=f"{p}={b}, {q}={a}", limit_s=10).outcome == "different", written


AFTER = (
    r" \text{ at } x=3",
    r" \text{ when } a=b=2",
    r"\text{, since } 3+4=7",
    " for n=5",
    r",\text{ attained at }x=2",
    "",
)
BEFORE = (
    "",
    r"\text{Minimum}=",
    r"m=3,n=4 \implies m+n=",
    r"(3,4) \Rightarrow ",
    r"\to ",
    r"\text{Final answer}: ",
    r"x^2=9 \Rightarrow N=",
)


@pytest.mark.parametrize("most", [100, pytest.param(3000, marks=pytest.mark.slow)])
def test_an_integer_is_neither_what_it_follows_from_nor_where_it_is_taken(most: int) -> None:
    for number in range(most):
        value = number * 7919 % 100_000 + 10
        text = f"{BEFORE[number % len(BEFORE)]}{value}{AFTER[number // len(BEFORE) % len(AFTER)]}"
        assert read_integer(text, competition=AIMO_3) == (value if value < 100_000 else None), text


SENTENCES = (
    "The answer is %s%s.",
    "**Answer:** %s%s",
    "Thus the value is %s%s.",
    "Therefore, the answer is: %s%s.\n",
    "We conclude that the answer is %s%s. ∎",
)
REMARKS = (
    *("", " (by Lemma 2)", ", attained at $x = 3$", ", since $3 + 4 = 7$", " when n = 5", ", as required", ", not 7"),
    *(" rather than 7", " (2 marks)"),
)


@pytest.mark.parametrize("most", [60, pytest.param(2000, marks=pytest.mark.slow)])
def test_a_sentence_says_its_value_whatever_is_remarked_on_it(golds: list[str], most: int) -> None:
    tried, lost = 0, []
    for number, gold in enumerate([*golds, *golds]):
        written = f"${gold}$" if number % 2 else write_plainly(gold, number)
        if written is None or not is_formula(gold) or "$" in gold:
            continue
        tried += 1
        text = SENTENCES[number % 5] % (written, REMARKS[number // 5 % len(REMARKS)])
        answer = extract(text).string
        if compare(answer=answer, gold=gold, limit_s=10).outcome != "equal":
            lost.append((text, answer))
        if tried == most:
            break
    assert tried == most
    assert len(lost) <= (1 - LEAST_RIGHT) * tried, lost[:40]
