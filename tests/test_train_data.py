"""`data show` and the dataset card: what a person reads of the rows, and that its numbers are the rows'."""

import json
import re
from collections import Counter
from contextlib import chdir
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

from mathlete.corpus.sources import find_source, load_sources
from mathlete.corpus.suites import load_suite
from mathlete.rows import RowFiles
from mathlete.rows.card import REASONS, find_cure
from mathlete.shipped import data_folder
from tests.conftest import CommandLine
from train.math_command import MATH_COMMAND


@pytest.fixture(scope="module")
def formatted(tmp_path_factory: pytest.TempPathFactory, train: CommandLine) -> Path:
    """A run over two files: 60 pocket problems, of which 40 fit, and three that must not become rows."""
    folder = tmp_path_factory.mktemp("data")
    with chdir(folder):
        assert train("pocket-problems", "p.jsonl", "--families", "hard", "easy", "--count", 60).code == 0
        leaked = load_suite("pocket_val").problems[0]
        rows: list[dict[str, Any]] = [
            {"problem": leaked.statement, "solution": f"\\boxed{{{leaked.gold}}}", "answer": leaked.gold},
            {"problem": "What is [bold]2+2[/bold]?", "solution": "\\boxed{5}", "answer": "4"},
            {"problem": "What is 2+3?", "solution": "<think> 2+3", "answer": "5"},
            {"problem": "What is 2+7?", "solution": "\\boxed{9}", "answer": ""},
        ]
        Path("more.json").write_text(json.dumps(rows))
        words = ["--source", "p.jsonl", "more.json", "--until", "format", "--on-bad", "skip", "--keep-dropped"]
        assert train("math", "--model", "pocket", *words, "--rows.max-tokens", 90, "--run", "r").code == 0
    return folder / "r"


@pytest.mark.parametrize("inside", [".", "data"])
def test_show_counts_what_the_rows_are(formatted: Path, inside: str, train: CommandLine) -> None:
    shown = train("data", "show", formatted / inside, "--json")
    figures = shown.result
    rows = datasets.load_from_disk(formatted / "data" / "train")
    trained = sorted(sum(label != -100 for label in row["labels"]) for row in rows)
    assert (figures["trained_tokens"]["least"], figures["trained_tokens"]["most"]) == (trained[0], trained[-1])
    assert figures["levels"] == dict(Counter(rows["subset"]))
    assert figures["sources"] == dict(Counter(rows["source"]))
    assert figures["rows"] == len(rows)
    assert figures["kept"] + sum(figures["drops"].values()) == 63
    assert {reason: figures["drops"][reason] for reason in ("in pocket_val", "wrong", "unclosed")} == {
        "in pocket_val": 1, "wrong": 1, "unclosed": 1,
    }  # fmt: skip
    bins = [int(count) for count in re.findall(r"^\s*\d+–\d+\s+(\d+)", shown.stderr, flags=re.M)]
    assert sum(bins) == 2 * len(rows)


def test_show_prints_rows_pairs_and_drops_without_reading_markup(formatted: Path, train: CommandLine) -> None:
    done = train("data", "show", formatted, "--rows", 1, "--dropped", 99)
    assert done.code == 0
    shown = done.stdout
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
    left_out = text.partition("## What is left out")[2].partition("## ")[0]
    told = {
        name: (means, cure) for name, means, cure in re.findall(r"^\| `([a-z: ]+)` \| (.*) \| (.*) \|$", left_out, re.M)
    }
    assert told == REASONS
    assert len({find_cure(reason) for reason in REASONS}) == len(REASONS)
    named = {
        name for line in text.splitlines() if line.count("|") == 4 for name in re.findall(r"`([a-z\d.:-]+)`", line)
    }
    with_traces = {name for name, src in load_sources().items() if src.trace}
    assert with_traces <= named


def test_the_card_tells_which_golds_are_no_check(tmp_path: Path, train: CommandLine) -> None:
    row = {"problem": "2+2?", "solution": "\\boxed{4}", "source": "olympiads"}
    file = find_source("numina-cot").mirror_path(tmp_path)
    file.parent.mkdir(parents=True)
    file.write_text("".join(json.dumps(row | {"problem": f"{n}?"}) + "\n" for n in range(4)))
    given = ["--source", "numina-cot", "pocket", "--limit", 9, "--mirror", tmp_path, "--until", "format"]
    assert train("math", "--model", "pocket", *given, "--run", tmp_path / "r").code == 0
    card = (tmp_path / "r" / "data" / "README.md").read_text()
    assert "| numina-cot | 4 | AI-MO/NuminaMath-CoT | from a mirror | read out of the trace | Apache-2.0 |" in card
    assert "| pocket | 5 |  |  | its own |  |" in card
    assert 'license_name: "Apache-2.0"' in card


@pytest.mark.parametrize(
    ("folder", "told"), [(".", "no finished format step in"), ("nowhere", "nowhere, which is not there.\n  Fix: check")]
)
def test_show_of_no_run_is_exit_2(workdir: Path, folder: str, told: str, train: CommandLine) -> None:
    assert f"RUN must be a run's folder, got {told}" in train("data", "show", folder).refusal


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
def test_format_alone_for_a_model_or_its_tokenizer(workdir: Path, words: list[str], train: CommandLine) -> None:
    assert train("pocket-problems", "p.jsonl", "--count", 30).code == 0
    torn = Path("p.jsonl").read_text() + '{"id": '
    Path("p.jsonl").write_text(torn)
    given = ["--until", "format", "--source", "p.jsonl", "pocket-easy", "--limit", 40, "--run", "r", "--json", *words]
    assert "p.jsonl:31: must be one line of JSON" in train("math", *given).refusal
    assert not Path("r").exists()
    result = train("math", *given, "--on-bad", "skip").result
    assert (result["format"], result["kept"], result["parity"]) == ("r/data", 40, {"rows": 40, "mismatches": 0})
    assert sorted(path.name for path in Path("r").iterdir()) == ["data", "plots", "report.html"]
    figures = json.loads(Path("r/data/manifest.json").read_text())["figures"]
    assert figures["sources"] == {"p.jsonl": 30, "pocket-easy": 10}
    assert figures["bad_rows"]["rows"] == 1
    assert "p.jsonl:31" in figures["bad_rows"]["first"][0]
    assert figures["suites"] == ["pocket_val"]
    assert train("math", *given, "--on-bad", "skip", "--num-proc", 2).result["skipped"] == ["format"]


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
            "2 rows could not be read; the first, ",
            "mend the rows",
        ),
    ],
)
def test_nothing_left_says_what_took_most(
    tmp_path: Path, row: dict[str, str], words: list[str], message: str, cure: str, train: CommandLine
) -> None:
    file = tmp_path / "f.json"
    file.write_text(json.dumps([row, row]))
    given = ["--model", "pocket", "--source", file, "--until", "format", "--run", tmp_path / "r", *words]
    shown = train("math", *given)
    assert message in shown.refusal
    assert cure in shown.refusal.partition("Fix: ")[2]
    assert ("skipped: " in shown.stdout) == ("skip" in words)
    assert not (tmp_path / "r").exists()
