"""The files of the format step: their records are read back as they were written, and a made run has all of them."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.corpus import Corpus
from mathlete.models import find_model, load_prompt_format
from mathlete.overlap import RepeatedProblem
from mathlete.problems import Problem
from mathlete.rows import DroppedTrace, Filters, FormatFigures, FormatStep, RowFiles, Rows, RowText
from tests.conftest import CHARACTERS

TEXT = st.text(CHARACTERS, max_size=20)
MAYBE = st.none() | TEXT
PROBLEMS = st.builds(Problem, id=TEXT, statement=TEXT, gold=TEXT)
RECORDS = st.one_of(
    st.builds(
        DroppedTrace,
        reason=TEXT,
        **dict.fromkeys(("where", "id", "statement", "gold", "source", "subset", "licence"), MAYBE),
        **dict.fromkeys(("trace", "answer", "error"), MAYBE),
    ),
    st.builds(
        RowText,
        **dict.fromkeys(("problem_id", "gold", "prompt", "trained"), TEXT),
        **dict.fromkeys(("prompt_tokens", "trained_tokens"), st.integers(0)),
        spans=st.lists(st.tuples(TEXT, st.booleans()), max_size=4),
    ),
    st.builds(
        RepeatedProblem,
        row=PROBLEMS,
        suite=PROBLEMS,
        kind=st.sampled_from(["exact", "ngram", "near"]),
        similarity=st.integers(0, 10_000).map(lambda number: number / 10_000),
        suite_name=TEXT,
    ),
)


@given(record=RECORDS)
def test_a_record_is_read_back_from_its_line(record: Any) -> None:
    line = json.loads(json.dumps(record.to_json(), ensure_ascii=False))
    assert type(record).from_json(line) == record
    assert None not in line.values()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FormatFigures]:
    """The rows of 40 good traces and one wrong one, with the suite's problems left out."""
    folder = tmp_path_factory.mktemp("rows")
    lines = [{"id": str(n), "statement": f"{n}+1?", "gold": str(n + 1), "trace": f"{n}+1={n + 1}"} for n in range(41)]
    answers = [{**line, "answer": line["gold"]} for line in lines]
    answers[7]["answer"] = "0"
    file, out = folder / "some.jsonl", folder / "data"
    file.write_text("".join(json.dumps(line) + "\n" for line in answers))
    out.mkdir()
    corpus = Corpus(source=(str(file),), limit=None, against=(), keep_dropped=True)
    step = FormatStep(corpus=corpus, rows=Rows(), filters=Filters(), model=find_model("pocket"), seed=0)
    return out, step.build(out, lambda *_: None, say=lambda _: None)


def test_figures_are_read_back_from_a_manifest(made: tuple[Path, FormatFigures]) -> None:
    _, figures = made
    assert (figures.traces, figures.kept, figures.rows, figures.heldout) == (41, 40, 36, 4)
    assert FormatFigures.from_json(json.loads(json.dumps(figures.to_json()))) == figures


def test_every_file_is_where_its_path_says(made: tuple[Path, FormatFigures]) -> None:
    folder, _ = made
    files = RowFiles(folder)
    assert {path.name for path in folder.iterdir()} == {
        path.name for path in (files.train, files.heldout, files.head, files.dropped, files.overlap, files.card)
    }
    assert not files.parts.exists()
    assert [len(files.read_head(count)) for count in (0, 3, 100)] == [0, 3, 20]
    assert all("".join(text for text, _ in row.spans) == row.prompt + row.trained for row in files.read_head(20))


def test_wrong_completions_are_those_of_dropped_traces(made: tuple[Path, FormatFigures]) -> None:
    files, prompts = RowFiles(made[0]), load_prompt_format(find_model("pocket"))
    (dropped,) = files.read_dropped()
    assert (dropped.reason, dropped.id, dropped.answer, dropped.gold) == ("wrong", "7", "0", "8")
    ids = prompts.completion_ids(trace="7+1=8", answer="0")
    assert list(files.wrong_completions(prompts)) == [("7+1?", ids)]


def test_files_that_are_not_there_have_no_lines(tmp_path: Path) -> None:
    files = RowFiles(tmp_path)
    assert (files.read_head(5), files.read_dropped(), files.read_overlap(5)) == ([], [], [])
    assert files.describe_parts() == f"{tmp_path}/.parts, 0 finished parts"
