"""The answer in a model's text: golden rows, bad input, and time that grows no faster than the text."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.answers import extract
from mathlete.answers.extraction import Kind
from tests.conftest import CHARACTERS

GOLDEN = Path(__file__).parent / "golden" / "answers_texts.jsonl"
ROWS = [json.loads(line) for line in GOLDEN.read_text().splitlines()]


@pytest.mark.parametrize("row", ROWS, ids=[f"{number}" for number in range(len(ROWS))])
def test_the_golden_text_gives_its_answer(row: dict[str, str]) -> None:
    kind: Kind = row["kind"]  # type: ignore[assignment]
    extracted = extract(row["text"], kind=kind)
    assert (extracted.string, extracted.provenance, extracted.strength) == (
        row["answer"],
        row["provenance"],
        row["strength"],
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "no text but NoneType"),
        (7, "no text but int"),
        ("", "empty text"),
        (" \n", "empty text"),
        (b"\xff\xfe\\boxed{7}", "bytes that are not UTF-8"),
        ("lorem ipsum " * 90_000, "no answer in the text"),
        ("\\boxed{", "no answer in the text"),
        ("\\boxed{}", "no answer in the text"),
        ("\\boxed{?}", "no answer in the text"),
        ("\\boxed{\\text{your answer here}}", "no answer in the text"),
        ("\\boxed{" * 20_000, "no answer in the text"),
        ("I could not solve it.", "no answer in the text"),
    ],
)
def test_no_answer_comes_with_its_reason(text: object, reason: str) -> None:
    extracted = extract(text)
    assert (extracted.string, extracted.provenance, extracted.strength) == (None, reason, "none")


def test_bytes_are_read_as_utf_8() -> None:
    assert extract("Ответ: \\boxed{7}".encode()).string == "7"


FILLERS = [
    "$ ",
    "(",
    "\\( ",
    " [ ",
    "1,",
    "answer ",
    "answer is ",
    "{",
    "\\boxed",
    "**",
    "= ",
    " ",
    ",\t",
    "####",
    "\n",
]


@pytest.mark.parametrize("filler", FILLERS)
def test_a_megabyte_of_anything_is_read_at_once(filler: str) -> None:
    prose = filler * (10**6 // len(filler))
    assert extract(f"{prose}\n\\boxed{{42}}").string == "42"
    extract(prose)


@given(st.text(CHARACTERS, max_size=200), st.integers(min_value=0, max_value=99999))
def test_the_last_box_wins_whatever_stands_before_it(prose: str, n: int) -> None:
    assert extract(f"{prose}\n\\boxed{{{n}}}").string == str(n)
    assert extract(f"<think>{prose}</think>\\boxed{{{n}}}.").string == str(n)


@given(st.text(alphabet="abc \\{}$()[]boxed0123.=*#\n<>/|,:", max_size=120))
def test_nothing_is_invented(text: str) -> None:
    extracted = extract(text)
    assert (extracted.string is None) == (extracted.strength == "none")
    assert set(extracted.string or "") <= set(text)


@given(st.integers(min_value=0, max_value=99999))
def test_integers_are_read_from_every_place(n: int) -> None:
    for text in (
        *(rf"So \boxed{{{n}}}.", rf"$\fbox{{{n}}}$", rf"\boxed {n}", rf"\boxed{{{n}", f"<answer>{n}</answer>"),
        *(f"#### {n}", f"The answer is {n}.", f"**Final Answer**\n\n${n}$", f"Answer: $1 + 2 = {n}$", f"So $x = {n}$."),
        *(f"The final answer is **{n}**.", f"```output\n{n}\n```", f"there are 12 cases, hence {n}", f"m+n={n}"),
    ):
        extracted = extract(text).string
        assert extracted is not None
        assert extracted.removeprefix("x = ").removeprefix("m+n=") == str(n), text
