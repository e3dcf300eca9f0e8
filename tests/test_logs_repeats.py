"""Samples that stand twice in one file: those that the log tells from others are taken once, the others are said."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mathlete.errors import UserError
from tests.test_logs import HERE, imported, join, logs, write_lines


@pytest.fixture(autouse=True)
def inside(workdir: Path) -> None:
    """Every test stands in a folder of its own."""


ROWS = [
    {"id": f"p{place}", "q": f"What is {place}?", "gold": str(place), "place": place,
     "said": f"\\boxed{{{place}}}", "number": number,
     "took": 1.25 + place + number / 7, "rounded": 1.5, "shared": 13.37219 / 12, "batch": (4 + place + number // 2) / 7,
     "of each": (5 + place) / 7}
    for place in range(3) for number in range(4)
]  # fmt: skip
"""Four samples of three problems, all of one text."""
TOLD: list[tuple[tuple[str, ...], int, int]] = [
    # (columns beside id and gold, samples of the file written behind itself, samples that are said to be alike)
    (("text=said", "seconds=took"), 12, 0),
    (("text=said", "index=number"), 12, 0),
    (("answer=gold", "seconds=took", "index=number"), 12, 0),
    # Rounded times are equal by chance, and answers are anyway.
    (("text=said", "seconds=rounded"), 24, 21),
    (("text=said",), 24, 21),
    (("answer=gold",), 24, 0),
    (("answer=gold", "index=number"), 24, 0),
    # Nor does a time tell anything that several samples of a problem share, or a number that is the problem's.
    (("text=said", "seconds=shared"), 24, 21),
    (("text=said", "seconds=batch"), 24, 18),
    (("text=said", "seconds=of each"), 24, 21),
    (("text=said", "index=place"), 24, 21),
]


@pytest.mark.parametrize(("columns", "samples", "alike"), TOLD)
def test_a_file_that_was_written_behind_itself(columns: tuple[str, ...], samples: int, alike: int) -> None:
    words = ("--columns", "problem_id=id", "gold=gold", *columns)
    imported("one", write_lines("one.jsonl", ROWS), *words)
    said = imported("r", write_lines("t.jsonl", ROWS * 2), *words)
    (told,) = [one for one in said if "stand twice" in one] or [""]
    assert told == ("12 samples stand twice and were taken once" if samples == 12 else "")
    assert len(Path("r/samples.jsonl").read_text().splitlines()) == samples
    (told,) = [one for one in said if "word for word" in one] or [""]
    assert told.startswith(f"t.jsonl: {alike} samples say word for word" if alike else "")
    assert bool(told) == bool(alike)


SHARED: dict[str, Callable[[int, int], float]] = {
    "all": lambda place, number: 13.37219 / 24,
    "a problem": lambda place, number: (13 + place) / 24,
    "a batch": lambda place, number: (13 + place + number // 3) / 24,
    "a pair": lambda place, number: (13 + place + number // 2) / 24,
}  # fmt: skip
"""{whose time is shared out: the seconds of a sample}."""


@pytest.mark.parametrize("by_problem", [True, False])
@pytest.mark.parametrize("of", SHARED)
@pytest.mark.parametrize("texts", [["7", "12"], ["7"], ["7", "7", "12", "5"]])
def test_no_sample_is_lost_where_a_batch_shares_its_time(texts: list[str], of: str, by_problem: bool) -> None:
    rows = [
        {"id": f"p{place}", "gold": "12", "took": SHARED[of](place, number), "said": texts[number % len(texts)]}
        for place in range(3)
        for number in range(8)
    ]
    ordered = rows if by_problem else [rows[8 * place + number] for number in range(8) for place in range(3)]
    columns = {"problem_id": "id", "gold": "gold", "text": "said", "seconds": "took"}
    kept = join(logs(write_lines("t.jsonl", ordered), columns=columns))
    # All that can be said of this one is that the file says the same eight times over.
    is_repeated = (of, texts, by_problem) == ("a problem", ["7"], False)
    assert len(kept) == (3 if is_repeated else 24)


def test_one_sample_of_each_problem_is_told_by_the_times_of_the_file() -> None:
    rows = [row for row in ROWS if row["number"] == 1]
    columns = {"problem_id": "id", "gold": "gold", "text": "said", "seconds": "took"}
    write_lines("t.jsonl", rows * 2)
    assert len(join(logs("t.jsonl", columns=columns))) == 3
    assert len(join(logs("t.jsonl", write_lines("part.jsonl", rows[1:2]), columns=columns))) == 3
    assert len(join(logs("t.jsonl", columns={**columns, "seconds": "shared"}))) == 6


@pytest.mark.parametrize("seconds", ["rounded", "shared"])
def test_two_seeds_of_equal_times_are_two(seconds: str) -> None:
    other = [{**row, "said": "Well, \\boxed{1}"} if row["number"] == 3 else row for row in ROWS]
    files = [write_lines("one.jsonl", ROWS), write_lines("two.jsonl", other)]
    columns = {"problem_id": "id", "gold": "gold", "text": "said", "seconds": seconds}
    assert len(join(logs(*files, columns=columns))) == 24
    assert len(join(logs(*files, files[0], columns=columns))) == 24


def test_a_numbered_request_tells_its_samples() -> None:
    rows = [
        {"custom_id": f"p{place}_{number}", "response": {"body": {"choices": [{"message": {"content": "\\boxed{7}"}}]}}}
        for place in range(3)
        for number in range(4)
    ]
    write_lines("suite.jsonl", [{"id": f"p{place}", "statement": f"{place}?", "gold": "7"} for place in range(3)])
    for name, content in (("one", rows), ("twice", rows * 2)):
        said = imported(name, write_lines(f"{name}.jsonl", content), "--problems", "suite.jsonl")
        assert not any("word for word" in one for one in said)
        assert len(Path(name, "samples.jsonl").read_text().splitlines()) == 12


def test_a_part_with_other_samples_is_of_another_seed() -> None:
    (file,) = HERE.glob("samples_*.jsonl")
    rows = file.read_text()
    Path("twice.jsonl").write_text(rows * 2)
    columns = {"problem_id": "doc_id"}
    assert len(join(logs("twice.jsonl", columns=columns))) == 12
    # Of two seeds in one file all samples count, also those that have the same text.
    Path("seeds.jsonl").write_text(rows + rows.replace("boxed{8}", "boxed{1}"))
    assert len(join(logs("seeds.jsonl", columns=columns))) == 24
    assert len(join(logs("seeds.jsonl", file, columns=columns))) == 24


def test_a_statement_that_a_data_set_has_twice_can_be_given_ids() -> None:
    row: dict[str, Any] = {"problem": "1 + 1?", "expected_answer": "2", "num_generated_tokens": 9}
    rows = [{**row, "generation": f"It is \\boxed{{{answer}}}", "number": answer} for answer in (2, 3)]
    write_lines("output-rs1.jsonl", rows)
    with pytest.raises(UserError, match="or, where they are of two problems, give each an id of its own"):
        join(logs("output-rs1.jsonl"))
    assert len(join(logs("output-rs1.jsonl", columns={"problem_id": "number"}))) == 2
