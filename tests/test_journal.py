"""A notebook's journal, damaged or among other programs' lines: each line is read as it was written, or named."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from mathlete.errors import UserError
from mathlete.kernel import JournalLine, read_facts, read_journal

LINE = JournalLine(
    id="a",
    answer=7,
    fallback=False,
    why="",
    seconds=1.5,
    samples=4,
    answered=3,
    tokens=90,
    drawn=((30, 1.0),),
    votes=(("7", 2), ("1/2", 1)),
    sends=(7, None),
    lost={"cut_at_cap": 1},
)


def test_a_damaged_journal_is_read_whole_or_refused_with_its_line(tmp_path: Path) -> None:
    lines = [LINE, replace(LINE, id="b", lost=None, sends=()), replace(LINE, id="c", fallback=True, why="no time")]
    text = "".join(json.dumps(value) + "\n" for value in ({"build": "b"}, *(line.to_json() for line in lines)))
    (file := tmp_path / "journal.jsonl").write_text(text)
    assert read_journal(file) == lines
    draw = random.Random(3)
    told = list[str]()
    for _ in range(200):
        at = draw.randrange(len(text) - 1)
        file.write_text(text[:at] + chr(draw.randrange(32, 127)) + text[at + 1 :])
        try:
            # What is a digit still, or a letter of a text, nobody can tell.
            questions = read_journal(file)
            read_facts(file)
        except UserError as error:
            told.append(str(error))
        else:
            assert len(questions) == len(lines)
    assert len(told) > 60
    assert all("a journal's line must be as it was written" in words and "journal.jsonl:" in words for words in told)


@pytest.mark.parametrize(
    "line",
    [
        "[1]",
        '{"x": 1}',
        '{"id": 5, "fallback": false, "why": ""}',
        '{"id": "a", "answer": 1}',
        '{"id": "a", "fallback": false, "why": "", "seconds": 1e999}',
        '{"id": "a", "fallback": false, "why": "", "lost": {"fate": 1}}',
        '{"id": "a", "fallback": false, "why": "", "votes": [["7", 1]], "sends": [7, 8]}',
        '{"id": "a", "fallback": false, "why": "", "votes": 7}',
        '{"id": "\\q"}',
        "[" * 10**5,
    ],
)
def test_what_is_no_line_of_a_journal_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "journal.jsonl").write_text(f"{line}\n")
    with pytest.raises(UserError, match="a journal's line must be as it was written"):
        read_journal(tmp_path / "journal.jsonl")


def test_answers_may_hold_odd_ends_of_lines_and_logs_other_programs_lines(tmp_path: Path) -> None:
    line = replace(LINE, votes=(("1\u2028\x85\x0b2", 3),), sends=(None,))
    text = json.dumps(line.to_json(), ensure_ascii=False) + "\n"
    (tmp_path / "journal.jsonl").write_text(text)
    (tmp_path / "kernel.log").write_text(f'{{"id": 5, "name": "another"}}\nsaid {{"id": 6\n{text}{{"id": "half')
    assert read_journal(tmp_path / "journal.jsonl") == read_journal(tmp_path / "kernel.log") == [line]


def test_the_half_line_of_a_killed_notebook_is_none_wherever_it_ends(tmp_path: Path) -> None:
    text = json.dumps(LINE.to_json())
    for end in range(len(text)):
        (tmp_path / "journal.jsonl").write_text(f"{text}\n{text[:end]}")
        assert read_journal(tmp_path / "journal.jsonl") == [LINE]
