"""The small files of the shared folder, each of them a case that was seen to go wrong: what becomes of it now."""

import struct
from pathlib import Path

import pytest

from mathlete.corpus import read_rows
from mathlete.corpus.stream import BadRows
from mathlete.errors import UserError
from mathlete.rows import RowFiles
from tests.conftest import CommandLine, sample

KEPT = {"alp_cot.jsonl": "First crate: 17. Second", "msg_parts.jsonl": "First crate: 17.", "msg_rc.jsonl": "I add: 46.",
        "pcr.jsonl": "First crate: 17. Second", "pts.jsonl": "I add both crates.", "rpn.jsonl": "First crate: 17.",
        "rtag.jsonl": "First crate: 17. Second",
        "sg_conv1.jsonl": "First crate: ", "sg_rc.jsonl": "First crate: 17.", "surr.jsonl": "First \ufffd crate: 17.",
        "surr2.jsonl": "First crate: 17."}  # fmt: skip
"""{file with eight problems that are all right: how the trace of its first row begins}."""
REFUSED = {
    "by2.parquet": "[0]: answer must be text or a number, got bytes",
    "da.parquet": "[0]: answer must be text or a number, got date",
    "flb.jsonl": ":1: answer must be a number whose digits are all there",
    "general_sharegpt.jsonl": "trained on with --task chat",
    "h.csv": ":1: each column must have a name of its own, got 'answer'",
    "hugeint.jsonl": ":1: must be one line of JSON",
    "nul.jsonl": ":1: solution must have no NUL in it",
    "seed_disk.jsonl": "trained on with --task chat",
}


def words(folder: Path, *names: str) -> list[object]:
    tokenizer = folder.parents[1] / "tokenizers" / "r1-distill-qwen"
    files = [folder / name for name in names]
    return [
        "math",
        "--tokenizer",
        tokenizer,
        "--until",
        "format",
        "--against",
        "pocket_val",
        "--run",
        "r",
        "--source",
        *files,
    ]


@pytest.fixture
def cases(shared: Path, workdir: Path) -> Path:
    folder = shared / "data" / "corpus_cases"
    if not folder.is_dir():
        pytest.skip("needs the folder of cases beside the checkout")
    return folder


@pytest.mark.parametrize("name", sample("pcr.jsonl", slow=[name for name in KEPT if name != "pcr.jsonl"]))
def test_a_case_is_read(cases: Path, name: str, train: CommandLine) -> None:
    result = train(*words(cases, name), "--json").result
    assert (result["kept"], result["drops"], result["parity"]["mismatches"]) == (8, {}, 0)
    head = RowFiles(Path("r/data")).read_head(9)
    first = next(row for row in head if "17 lamps" in row.prompt) if name != "sg_conv1.jsonl" else head[0]
    assert first.trained.startswith(KEPT[name])
    assert all(row.prompt.count("<｜User｜>") == row.prompt.count("<｜Assistant｜>") == 1 for row in head)


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_a_case_is_refused_with_its_cure(cases: Path, name: str, train: CommandLine) -> None:
    assert REFUSED[name] in train(*words(cases, name)).refusal
    if "trained on" not in REFUSED[name] and name != "h.csv":
        done = train(*words(cases, name), "--on-bad", "skip")
        assert done.code == (2 if name.endswith(".parquet") else 0)
        assert "could not be read; the first" in done.stderr or "skipped: " in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kept"), [("seed_disk.jsonl", 12), ("general_sharegpt.jsonl", 20)])
def test_a_case_is_a_chat(cases: Path, name: str, kept: int, train: CommandLine) -> None:
    result = train(*words(cases, name), "--task", "chat", "--json").result
    assert (result["kept"], result["unverified"], result["parity"]["mismatches"]) == (kept, kept, 0)


@pytest.mark.slow
def test_two_files_of_one_name_have_ids_of_their_own(cases: Path, train: CommandLine) -> None:
    import datasets

    assert train(*words(cases, "same_stem/sa/train.jsonl", "same_stem/sb/train.jsonl"), "--json").result["kept"] == 120
    ids = [one for side in ("train", "heldout") for one in datasets.load_from_disk(f"r/data/{side}")["problem_id"]]
    assert len(ids) == len(set(ids)) == 120


@pytest.mark.parametrize("kind", ["parquet", "arrow", "saved"])
def test_text_of_another_encoding_in_a_table_of_arrow_is_a_bad_row(tmp_path: Path, kind: str) -> None:
    import datasets
    import pyarrow
    import pyarrow.parquet

    # A writer in another language checks its text as little as Arrow does.
    places, letters = pyarrow.py_buffer(struct.pack("<3i", 0, 3, 6)), pyarrow.py_buffer(b"1+1a\xffb")
    table = pyarrow.table({"problem": pyarrow.Array.from_buffers(pyarrow.string(), 2, [None, places, letters])})
    file = tmp_path / f"t.{kind}"
    if kind == "parquet":
        pyarrow.parquet.write_table(table, file)
    elif kind == "arrow":
        with pyarrow.OSFile(str(file), "wb") as out, pyarrow.ipc.new_stream(out, table.schema) as stream:
            stream.write_table(table)
    else:
        datasets.Dataset(table).save_to_disk(str(file))
    with pytest.raises(UserError, match=rf"t\.{kind}: must be .*can't decode byte 0xff"):
        [*read_rows(file)]
    skipped = BadRows(skip=True)
    assert len([*read_rows(file, on_bad=skipped)]) <= 1
    assert skipped.count == 1
