"""`data show` and the dataset card: what a person reads of the rows, and that its numbers are the rows'."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

from mathlete.command import run_command_line
from mathlete.corpus.sources import find_source, load_sources
from mathlete.corpus.suites import load_suite
from mathlete.rows import RowFiles
from mathlete.rows.card import REASONS, explain_reason
from mathlete.shipped import data_folder
from train.__main__ import COMMANDS
from train.math_command import MATH_COMMAND


def run(*words: object) -> int:
    return run_command_line([str(word) for word in words], prog="python -m train", commands=COMMANDS)


def last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def formatted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over two files: 60 pocket problems, of which 40 fit, and three that must not become rows."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run("pocket-problems", "p.jsonl", "--families", "hard", "easy", "--count", 60) == 0
        leaked = load_suite("pocket_val").problems[0]
        rows: list[dict[str, Any]] = [
            {"problem": leaked.statement, "solution": f"\\boxed{{{leaked.gold}}}", "answer": leaked.gold},
            {"problem": "What is [bold]2+2[/bold]?", "solution": "\\boxed{5}", "answer": "4"},
            {"problem": "What is 2+3?", "solution": "<think> 2+3", "answer": "5"},
            {"problem": "What is 2+7?", "solution": "\\boxed{9}", "answer": ""},
        ]
        Path("more.json").write_text(json.dumps(rows))
        words = ["--source", "p.jsonl", "more.json", "--until", "format", "--on-bad", "skip", "--keep-dropped"]
        assert run("math", "--model", "pocket", *words, "--rows.max-tokens", 90, "--run", "r") == 0
    return folder / "r"


@pytest.mark.parametrize("inside", [".", "data"])
def test_show_counts_what_the_rows_are(formatted: Path, capsys: pytest.CaptureFixture[str], inside: str) -> None:
    assert run("data", "show", formatted / inside, "--json") == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out.splitlines()[-1])
    rows = datasets.load_from_disk(formatted / "data" / "train")
    trained = sorted(sum(label != -100 for label in row["labels"]) for row in rows)
    assert (found["trained_tokens"]["least"], found["trained_tokens"]["most"]) == (trained[0], trained[-1])
    assert found["levels"] == dict(Counter(rows["subset"]))
    assert found["sources"] == dict(Counter(rows["source"]))
    assert found["rows"] == len(rows)
    assert found["kept"] + sum(found["drops"].values()) == 63
    assert {reason: found["drops"][reason] for reason in ("in pocket_val", "wrong", "unclosed")} == {
        "in pocket_val": 1, "wrong": 1, "unclosed": 1,
    }  # fmt: skip
    bins = [int(count) for count in re.findall(r"^\s*\d+–\d+\s+(\d+)", shown.err, flags=re.M)]
    assert sum(bins) == 2 * len(rows)


def test_show_prints_rows_pairs_and_drops_without_reading_markup(
    formatted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("data", "show", formatted, "--rows", 1, "--dropped", 99) == 0
    shown = capsys.readouterr().out
    (head,) = RowFiles(formatted / "data").read_head(1)
    assert head.prompt + head.trained in shown
    statement = " ".join(load_suite("pocket_val").problems[0].statement.split())
    assert "exact 1.00 · more-0" in shown
    assert shown.count(statement) >= 2
    assert "left out: wrong · more-1 more.json[1] · gold 4 · … \\boxed{5}" in shown
    assert "left out: bad row · more.json[3]: answer must not be empty" in shown
    assert "bad rows 1 · parity" in shown


def test_the_loss_span_is_coloured(formatted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from io import StringIO

    from rich.console import Console

    from train import show as module

    (head,) = RowFiles(formatted / "data").read_head(1)
    out = Console(file=StringIO(), force_terminal=True, width=10_000, color_system="standard")
    module._print_row(out, head)
    written = out.file.getvalue()  # type: ignore[attr-defined]
    coloured = "".join(re.findall("\x1b\\[32m(.*?)\x1b\\[0m", written))
    assert coloured == head.trained.replace("\n", "")
    assert head.prompt.splitlines()[0] in "".join(re.findall("\x1b\\[2m(.*?)\x1b\\[0m", written))


def test_the_card_tells_what_the_rows_are_made_of(formatted: Path) -> None:
    card = (formatted / "data" / "README.md").read_text()
    figures = json.loads((formatted / "data" / "manifest.json").read_text())["figures"]
    assert card.startswith("---\npretty_name: ")
    assert f"{figures['rows']} rows to train on" in card
    assert "| p.jsonl | 60 |" in card
    assert "| wrong | 1 | the checker finds another answer than the gold |" in card
    assert "| in pocket_val | 1 | its problem is one of that suite's |" in card
    assert "Rows that could not be read: 1." in card
    assert str(formatted) not in card
    assert figures["packing"]["budget"] == 90


def test_the_docs_tables_are_true(root: Path) -> None:
    text = (root / "docs" / "data.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| `([a-z ]+)` \| ([^|]*) \|$", text, re.M))
    assert {reason: explain_reason(reason) for reason in told} == told
    assert told.keys() >= REASONS.keys()
    named = {
        name for line in text.splitlines() if line.count("|") == 4 for name in re.findall(r"`([a-z\d.:-]+)`", line)
    }
    with_traces = {name for name, src in load_sources().items() if src.trace}
    assert with_traces <= named


def test_the_card_tells_which_golds_are_no_check(tmp_path: Path) -> None:
    row = {"problem": "2+2?", "solution": "\\boxed{4}", "source": "olympiads"}
    file = find_source("numina-cot").mirrored(tmp_path)
    file.parent.mkdir(parents=True)
    file.write_text("".join(json.dumps(row | {"problem": f"{n}?"}) + "\n" for n in range(4)))
    given = ["--source", "numina-cot", "pocket", "--limit", 9, "--mirror", tmp_path, "--until", "format"]
    assert run("math", "--model", "pocket", *given, "--run", tmp_path / "r") == 0
    card = (tmp_path / "r" / "data" / "README.md").read_text()
    assert "| numina-cot | 4 | AI-MO/NuminaMath-CoT | from a mirror | read out of the trace | Apache-2.0 |" in card
    assert "| pocket | 5 |  |  | its own |  |" in card
    assert 'license_name: "Apache-2.0"' in card


@pytest.mark.parametrize("folder", [".", "nowhere", "r/adapter"])
def test_show_of_no_run_is_exit_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("data", "show", folder) == 2
    assert "RUN must be a run's folder, got no finished format step in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "limit"),
    [
        (["--source", "gsm8k"], 9_800),
        (["--source", "gsm8k", "a.csv"], None),
        (["--source", "a.jsonl=0.5", "gsm8k=1"], None),
        (["--source=a.parquet"], None),
        (["--source", "gsm8k", "--run", "a.json"], 9_800),
    ],
)
def test_a_file_is_read_to_its_end(words: list[str], limit: int | None) -> None:
    assert MATH_COMMAND.default_settings(["--model", "pocket", *words]).data.corpus.limit == limit


@pytest.mark.parametrize(
    ("words", "source", "epochs"),
    [
        ([], "pocket", 1.0),
        (["--help"], "pocket", 1.0),
        (["--model", "r1-qwen-7b"], "openr1", 2.0),
        (["--model=r1-llama-8b", "--seed", "3"], "openr1", 2.0),
        (["--model", "somebody/some-model"], "openr1", 2.0),
        (["--tokenizer", "somewhere"], "openr1", 2.0),
    ],
)
def test_defaults_follow_the_model(words: list[str], source: str, epochs: float) -> None:
    if not words and torch.cuda.is_available():
        pytest.skip("without a name the default depends on the GPU")
    settings = MATH_COMMAND.default_settings(words)
    assert (settings.data.corpus.source, settings.recipe.tune.epochs) == ((source,), epochs)


@pytest.mark.parametrize("words", [["--model", "pocket"], ["--tokenizer", str(data_folder() / "pocket" / "model")]])
def test_format_alone_for_a_model_or_its_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("pocket-problems", "p.jsonl", "--count", 30) == 0
    torn = Path("p.jsonl").read_text() + '{"id": '
    Path("p.jsonl").write_text(torn)
    given = ["--until", "format", "--source", "p.jsonl", "pocket-easy", "--limit", 40, "--run", "r", "--json", *words]
    assert run("math", *given) == 2
    assert "p.jsonl:31: must be one line of JSON" in capsys.readouterr().err
    assert not Path("r").exists()
    assert run("math", *given, "--on-bad", "skip") == 0
    found = last_line(capsys)
    assert (found["format"], found["kept"], found["parity"]) == ("r/data", 40, {"rows": 40, "mismatches": 0})
    assert sorted(path.name for path in Path("r").iterdir()) == ["data", "plots", "report.html"]
    figures = json.loads(Path("r/data/manifest.json").read_text())["figures"]
    assert figures["sources"] == {"p.jsonl": 30, "pocket-easy": 10}
    assert figures["bad_rows"]["rows"] == 1
    assert "p.jsonl:31" in figures["bad_rows"]["first"][0]
    assert figures["suites"] == ["pocket_val"]
    assert run("math", *given, "--on-bad", "skip", "--num-proc", 2) == 0
    assert last_line(capsys)["skipped"] == ["format"]


@pytest.mark.parametrize(
    ("row", "words", "message", "cure"),
    [
        ({"problem": "2+2?", "solution": "\\boxed{4}"}, [], "got no gold: 2", "--filters.unverified keep"),
        ({"problem": "2+2?", "solution": "\\boxed{4}", "answer": "5"}, [], "got wrong: 2", "with right traces"),
        (
            {"problem": "2+2?", "solution": "4 " * 999, "answer": "4"},
            ["--filters.repeats", 1],
            "too long: 2",
            "--rows.sho",
        ),
        (
            {"problem": "", "solution": "4", "answer": "4"},
            ["--on-bad", "skip"],
            "no problem at all",
            "give more problems",
        ),
    ],
)
def test_nothing_left_says_what_took_most(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], row: dict[str, str], words: list[str], message: str, cure: str
) -> None:
    file = tmp_path / "f.json"
    file.write_text(json.dumps([row, row]))
    given = ["--model", "pocket", "--source", file, "--until", "format", "--run", tmp_path / "r", *words]
    assert run("math", *given) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert cure in shown.err.partition("Fix: ")[2]
    assert ("skipped: " in shown.out) == ("skip" in words)
    assert not (tmp_path / "r").exists()
