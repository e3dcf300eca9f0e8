import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.errors import UserError
from mathlete.problems import Problem, hash_problems, read_problems, write_problems
from tests.conftest import dear

# What str.isprintable takes: no control characters, of separators only the space.
printable = st.characters(exclude_categories=["C", "Z"]) | st.just(" ")
text = st.text(printable, min_size=1).filter(lambda words: bool(words.strip()))


@dear(20)
@given(st.lists(st.builds(Problem, id=text, statement=text, gold=text), min_size=1, unique_by=lambda p: p.id))
def test_written_problems_are_read_back(tmp_path_factory: pytest.TempPathFactory, problems: list[Problem]) -> None:
    file = tmp_path_factory.getbasetemp() / "problems.jsonl"
    write_problems(file, problems)
    assert read_problems(file) == problems


GOOD = '{"id": "424e18", "statement": "1+1?", "gold": "2"}'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"p\.jsonl:2: must be one line of JSON"),
        ("[1]", r"p\.jsonl:2: a problem must be a JSON object, got list"),
        ('{"id": "1", "statement": "x"}', r"p\.jsonl:2: a problem needs gold"),
        ('{"id": "1", "statement": "x", "gold": 7}', r"p\.jsonl:2: a problem's fields are strings, got \{'gold': 7\}"),
        ('{"id": "1", "statement": "x", "gold": "7", "level": "5"}', r"p\.jsonl:2: .*only the fields.*\['level'\]"),
        (GOOD, r"p\.jsonl:2: ids must be unique, got '424e18', first at .*p\.jsonl:1"),
    ],
)
def test_bad_line_is_named_with_rule_and_cure(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text(f"{GOOD}\n{line}\n")
    with pytest.raises(UserError, match=message) as caught:
        read_problems(file)
    assert "\n  Fix: " in str(caught.value)


def test_bytes_that_are_not_utf8_are_a_bad_line(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_bytes(b'{"id": "\xff"}\n')
    with pytest.raises(UserError, match=r"p\.jsonl:1: text must be UTF-8"):
        read_problems(tmp_path / "p.jsonl")


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_file_without_problems_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "p.jsonl").write_text(content)
    with pytest.raises(UserError, match="at least one problem"):
        read_problems(tmp_path / "p.jsonl")


def test_ids_that_look_like_floats_stay_strings(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text(GOOD)
    assert read_problems(tmp_path / "p.jsonl")[0].id == "424e18"


def test_hash_changes_with_content_and_order() -> None:
    one, two = (Problem(id=i, statement="x", gold="1") for i in "ab")
    hashes = {hash_problems(ps) for ps in ([one], [two], [one, two], [two, one])}
    assert len(hashes) == 4
    assert json.dumps(hash_problems([one])) == json.dumps(hash_problems([one]))
