"""Samples that stand twice in one file: those that the log tells from others are taken once, the others are said."""

from pathlib import Path
from typing import Any

import pytest

from mathlete.errors import UserError
from tests.test_logs import HERE, imported, join, logs, write_lines


@pytest.fixture(autouse=True)
def inside(workdir: Path) -> None:
    """Every test stands in a folder of its own."""


ROWS = [
    {"id": f"p{place}", "q": f"What is {place}?", "gold": str(place), "said": f"\\boxed{{{place}}}", "number": number,
     "took": 1.25 + place + number / 7, "rounded": 1.5}
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
