"""What each method of training does for the pocket model: trainable parameters, seconds, hard pass@1 before and after.

Supervised methods and GRPO train on the generator's hard problems. DPO's pairs are the base model's own samples on such
problems, right ones short and long, and wrong ones. Distillation needs `--teacher`.

Scored on hard problems whose numbers occur in no training problem, by the adapter as it was trained on the 4-bit base,
before any merge. One seed: differences of a few points are noise.
"""

import contextlib
import io
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from mathlete.answers import compare, read_answer
from mathlete.command import run_command_line
from mathlete.models import find_model, load_model, load_prompt_format
from mathlete.models.loading import quiet_libraries
from mathlete.pocket import PocketItem, generate_items
from mathlete.runs import read_json
from mathlete.tune import METHODS, AdapterFolder
from train.commands import COMMANDS


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """Sizes."""

    methods: tuple[str, ...] = tuple(name for name, method in METHODS.items() if not method.taught)
    """Which."""
    teacher: str = ""
    """The model that `distill` learns from."""
    rows: int | None = None
    """Problems to train on; None: as many as the steps have rows, 4,000 at most."""
    steps: int = 100
    """Optimizer steps of each."""
    batch: int = 32
    """Rows of a step."""
    problems: int = 200
    """Hard problems to score on."""
    samples: int = 4
    """Samples a problem, temperature 0.6, top-p 0.95."""
    threads: int = 1
    """CPU threads."""
    json: bool = False
    """End with one line of JSON."""


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """A sample."""

    text: str
    answer: str | None
    right: bool
    tokens: int


def sample_problems(model: Any, items: Sequence[PocketItem], *, samples: int) -> list[list[Sampled]]:
    """Return each problem's samples by transformers' generate; virtual tokens are no layers, which other loops need."""
    prompts = load_prompt_format(find_model("pocket"))
    tokenizer: Any = prompts.tokenizer
    torch.manual_seed(0)
    found = []
    for start in range(0, len(items), 50):
        some = items[start : start + 50]
        ids = {"input_ids": [prompts.prompt_ids(item.problem.statement) for item in some]}
        batch = tokenizer.pad(ids, return_tensors="pt")
        settings = {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "max_new_tokens": 160}
        pad = tokenizer.pad_token_id
        out = model.generate(**batch, **settings, num_return_sequences=samples, pad_token_id=pad)
        # peft's prompt tuning gives back only what is new.
        new = out[:, batch["input_ids"].shape[1] :] if out.shape[1] > batch["input_ids"].shape[1] else out
        found += [read(row, gold=some[index // samples].problem.gold, prompts=prompts) for index, row in enumerate(new)]
    return [found[at : at + samples] for at in range(0, len(found), samples)]


def read(row: torch.Tensor, *, gold: str, prompts: Any) -> Sampled:
    """Return a sample from its token ids."""
    ids = [int(token) for token in row if token != prompts.tokenizer.pad_token_id]
    text = prompts.tokenizer.decode(ids, skip_special_tokens=True)
    answer = read_answer(text, cut=prompts.tokenizer.eos_token_id not in ids, thinking=prompts.prefilled)
    right = answer is not None and compare(answer=answer, gold=gold).outcome == "equal"
    return Sampled(text=text, answer=answer, right=right, tokens=len(ids))


def traced_line(item: PocketItem, *, trace: str, answer: str) -> str:
    """Return a line of a file that `--source` reads."""
    problem = {"id": item.problem.id, "statement": item.problem.statement, "gold": item.problem.gold}
    return json.dumps({**problem, "trace": trace, "answer": answer}) + "\n"


def write_sources(folder: Path, rows: int, base: Any) -> None:
    """Write traces.jsonl: the generator's; samples.jsonl: the base model's own, right and wrong."""
    items = generate_items(families=("hard",), count=rows, seed=7, split="train", unique=True)
    lines = [traced_line(item, trace=item.trace, answer=item.problem.gold) for item in items]
    (folder / "traces.jsonl").write_text("".join(lines))
    own = items[: max(100, rows // 8)]
    with (folder / "samples.jsonl").open("w") as file:
        for item, some in zip(own, sample_problems(base, own, samples=8), strict=True):
            for sample in some:
                if sample.answer and "</think>" in sample.text:
                    file.write(traced_line(item, trace=sample.text.partition("</think>")[0], answer=sample.answer))


def row_of(method: str, folder: Path, tests: Sequence[PocketItem], settings: BenchSettings) -> dict[str, Any]:
    """Train by the method and score it."""
    run = folder / method
    source = folder / ("samples.jsonl" if method == "dpo" else "traces.jsonl")
    words = ["math", "--model", "pocket", "--source", source, "--method", method, "--until", "tune", "--run", run,
             "--tune.steps", settings.steps, "--tune.batch", settings.batch, "--grpo.max-tokens", 128]  # fmt: skip
    if METHODS[method].taught:
        words += ["--distill.teacher", settings.teacher, "--distill.max-tokens", 160]
    with contextlib.redirect_stdout(io.StringIO()):
        code = run_command_line([str(word) for word in words], prog="python -m train", commands=COMMANDS)
    assert code == 0, f"{method} ended with {code}"
    manifest = read_json(run / "adapter" / "manifest.json")
    figures: Any = manifest["figures"]
    found = score(AdapterFolder(run / "adapter").load(find_model("pocket")), tests, settings)
    return {"method": method, "trainable": figures["trainable_parameters"], "seconds": manifest["seconds"], **found}


def score(model: Any, tests: Sequence[PocketItem], settings: BenchSettings) -> dict[str, float]:
    """Return {"pass@1", "tokens"} of the samples on the test problems."""
    every = [one for some in sample_problems(model.eval(), tests, samples=settings.samples) for one in some]
    right = sum(one.right for one in every) / len(every)
    return {"pass@1": round(100 * right, 1), "tokens": round(sum(one.tokens for one in every) / len(every), 1)}


def main(settings: BenchSettings) -> None:
    """Print the table."""
    quiet_libraries()
    torch.set_num_threads(settings.threads)
    tests = generate_items(families=("hard",), count=settings.problems, seed=8, split="test", unique=True)
    console, started = Console(stderr=settings.json), time.monotonic()
    table = Table("method", "trainable", "seconds", "hard pass@1", "change", "tokens a sample", box=SIMPLE_HEAD)
    with tempfile.TemporaryDirectory() as name:
        base = load_model(find_model("pocket"), precision="nf4")
        before = score(base, tests, settings)
        table.add_row("base", "0", "0", f"{before['pass@1']}", "", f"{before['tokens']}")
        if settings.teacher:
            taught = score(load_model(find_model(settings.teacher)), tests, settings)
            table.add_row("the teacher", "", "", f"{taught['pass@1']}", "", f"{taught['tokens']}")
        write_sources(Path(name), settings.rows or min(4000, settings.steps * settings.batch), base)
        rows = [row_of(method, Path(name), tests, settings) for method in settings.methods]
    for row in rows:
        change = f"{row['pass@1'] - before['pass@1']:+.1f}"
        cells = (row["method"], f"{row['trainable']:,}", row["seconds"], row["pass@1"], change, row["tokens"])
        table.add_row(*map(str, cells))
    console.print(table)
    console.print(f"{time.monotonic() - started:.0f} s in all")
    if settings.json:
        print(json.dumps({"before": before, "rows": rows}))


if __name__ == "__main__":
    main(tyro.cli(BenchSettings))
