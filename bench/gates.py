"""What the gates of merge and export are calibrated on: KLs of each model, type and format, and of wrong merges.

    python bench/gates.py
    python bench/gates.py --models SmolLM2-135M=DIR --rows gsm8k --mirror DIR --table docs/training.md

Each model gets a random adapter of rank 16, as the trial before a training has it; its distributions in fp32 are the
reference. Every cell is a line of a file, so a run that was stopped goes on with those that are missing; the table is
made of all of them, and cells that were not measured say "not run".
"""

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import tyro

from mathlete.corpus import open_source
from mathlete.export import EXPORT_FORMATS, Export, TunedModel
from mathlete.export.distributions import kl_divergence, log_probabilities, top1_agreement
from mathlete.export.effect import rows_of_traces
from mathlete.export.exact import EXACT, store_in
from mathlete.export.formats.writing import write_format
from mathlete.export.merge import save_merged
from mathlete.jsonl import read_json_lines
from mathlete.models import ModelSource, find_model, load_model, load_prompt_format
from mathlete.rows import RowFiles
from mathlete.runs import write_atomically
from mathlete.sampling.embedded.packing import pack_linears
from mathlete.tune import AdapterFolder, Lora, Recipe

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor

COLUMNS = ("pocket", "SmolLM2-135M", "Qwen2.5-Coder-0.5B", "Qwen2.5-Coder-1.5B")
"""Models of the table; others that were measured come after them."""
CALIBRATED_ON = 32
"""Problems that calibrated formats are made for."""
START, END = "<!-- gates: begin, by bench/gates.py -->\n", "<!-- gates: end -->\n"


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """Which cells."""

    models: tuple[str, ...] = ("pocket",)
    """Models, each NAME=FOLDER, or a name that --model knows."""
    cells: tuple[str, ...] = ()
    """Cells to measure, by their first words; default: all."""
    rows: str = "pocket"
    """Source of traced problems: the text of the KL."""
    mirror: Path | None = None
    """Folder that stands in for the hub's data sets."""
    count: int = 4
    """Problems of it."""
    minutes: float = 1e9
    """No cell is begun after so many."""
    threads: int = 1
    """CPU threads."""
    out: Path = Path(".cache/gates/cells.jsonl")
    """File of the cells; models are written beside it while they are measured."""
    table: Path | None = None
    """Page whose table is written anew; default: the table is printed."""


@dataclass(frozen=True, kw_only=True)
class Bed:
    """One model with its random adapter, and what is measured against it."""

    folder: Path
    tuned: TunedModel
    settings: BenchSettings

    @classmethod
    def make(cls, source: ModelSource, *, folder: Path, settings: BenchSettings) -> "Bed":
        """Write adapter and rows, where they are not there yet."""
        if not (folder / "made").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            AdapterFolder(folder / "adapter").fill_at_random(source, recipe=Recipe(lora=Lora(rank=16, alpha=32)))
            traced = [
                one for one, *_ in open_source(settings.rows, mirror=settings.mirror, limit=settings.count, seed=0)
            ]
            rows_of_traces(traced, load_prompt_format(source)).save_to_disk(RowFiles(folder / "data").heldout)
            (folder / "made").touch()
        tuned = TunedModel(source=source, data=folder / "data", adapter=folder / "adapter")
        return cls(folder=folder, tuned=tuned, settings=settings)

    @cached_property
    def rows(self) -> "Dataset":
        """The text of the KL."""
        return self.tuned.load_rows()

    @cached_property
    def reference(self) -> "Tensor":
        """The trained model's log-probabilities in fp32, (tokens, vocabulary)."""
        file = self.folder / "reference.pt"
        if not file.is_file():
            torch.save(log_probabilities(self.tuned.load(dtype=EXACT), self.rows), file)
        saved: Tensor = torch.load(file)
        return saved

    @cached_property
    def merged(self) -> Path:
        """The merged model in float16."""
        folder = self.folder / "merged"
        if not (folder / "tokenizer.json").is_file():
            save_merged(folder, self.tuned, dtype="float16")
        return folder

    @cached_property
    def calibration(self) -> Path:
        """Rows that calibrated formats are made for: problems after those of the text."""
        first = self.settings.count
        problems = open_source(self.settings.rows, mirror=self.settings.mirror, limit=first + CALIBRATED_ON, seed=0)
        traced = [one for one, *_ in problems][first:]
        rows = RowFiles(self.folder / "data").train
        rows_of_traces(traced, load_prompt_format(self.tuned.source)).save_to_disk(rows)
        return rows

    def compare(self, model: Any, **shape: int) -> tuple[float, float]:
        """Return (KL, top-1 agreement) of a model."""
        other = log_probabilities(model, self.rows, **shape)
        return kl_divergence(self.reference, other), top1_agreement(self.reference, other)

    def serve(self, *, dtype: str) -> tuple[float, float]:
        """Compute the merged model as the embedded engine computes a large one on a CPU."""
        source = ModelSource(name="merged", location=str(self.merged))
        model = load_model(source, precision="dense", dtype=dtype)
        pack_linears(model)
        return self.compare(model)

    def merge(self, *, dtype: str, **changed: Any) -> tuple[float, float]:
        """Merge in memory, through a 16-bit type; `changed` fields of the tuned model make it a wrong one."""
        model = replace(self.tuned, **changed).merge(dtype=dtype)
        return self.compare(store_in(store_in(model, dtype), EXACT))

    def export(self, name: str, **options: Any) -> tuple[float, float]:
        """Write a format and read it back."""
        folder = self.folder / "export"
        shutil.rmtree(folder, ignore_errors=True)
        formats = Export(**options)
        calibration = formats.calibrate(self.calibration, seed=0) if EXPORT_FORMATS[name].is_calibrated else None
        write_format(folder, merged=self.merged, name=name, settings=formats, calibration=calibration)
        try:
            return self.compare(EXPORT_FORMATS[name].load(folder))
        finally:
            shutil.rmtree(folder)

    def spoil(self, name: str, change: Callable[[Path], None]) -> tuple[float, float]:
        """Merge an adapter that was changed."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        change(Path(shutil.copytree(self.tuned.adapter, folder)))
        return self.merge(dtype="float16", adapter=folder)


def forget_a_layer(adapter: Path) -> None:
    """Forget the update of every linear layer in the middle block."""
    from safetensors.torch import load_file, save_file

    file = adapter / "adapter_model.safetensors"
    weights = load_file(file)
    blocks = sorted({int(name.split(".layers.")[1].split(".")[0]) for name in weights})
    middle = f".layers.{blocks[len(blocks) // 2]}."
    save_file({name: value * (middle not in name) for name, value in weights.items()}, file)


def halve_alpha(adapter: Path) -> None:
    """Write half of alpha into peft's configuration."""
    file = adapter / "adapter_config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "lora_alpha": config["lora_alpha"] // 2}))


CELLS: dict[str, Callable[[Bed], tuple[float, float]]] = {
    "noise: fp32 again": lambda bed: bed.compare(bed.tuned.load(dtype=EXACT)),
    "noise: fp32, another batch": lambda bed: bed.compare(bed.tuned.load(dtype=EXACT), copies=3, padding=5),
    "noise: bfloat16": lambda bed: bed.compare(bed.tuned.load_served(dtype="bfloat16")),
    "noise: float16": lambda bed: bed.compare(bed.tuned.load_served(dtype="float16")),
    "serving: fp32, weights packed": lambda bed: bed.serve(dtype=EXACT),
    "serving: bfloat16, weights packed": lambda bed: bed.serve(dtype="bfloat16"),
    "merge: float16": lambda bed: bed.merge(dtype="float16"),
    "merge: bfloat16": lambda bed: bed.merge(dtype="bfloat16"),
    "wrong merge: one layer skipped": lambda bed: bed.spoil("skipped", forget_a_layer),
    "wrong merge: alpha halved": lambda bed: bed.spoil("halved", halve_alpha),
    "wrong merge: the original base": lambda bed: bed.merge(dtype="float16", base="original"),
    "export: int8": lambda bed: bed.export("int8"),
    "export: int8, threshold 1": lambda bed: bed.export("int8", threshold=1.0),
    "export: w8a16": lambda bed: bed.export("w8a16"),
    "export: w8a16, groups of 64": lambda bed: bed.export("w8a16", group=64),
    "export: w8a16, groups of 32": lambda bed: bed.export("w8a16", group=32),
    "export: w8a16-gptq": lambda bed: bed.export("w8a16-gptq"),
    "export: w8a16-gptq, groups of 32": lambda bed: bed.export("w8a16-gptq", group=32),
    "export: w8a8": lambda bed: bed.export("w8a8"),
    "export: fp8": lambda bed: bed.export("fp8"),
    "export: w4a16": lambda bed: bed.export("w4a16"),
    "export: w4a16-gptq": lambda bed: bed.export("w4a16-gptq"),
    "export: w4a16-awq": lambda bed: bed.export("w4a16-awq"),
    "export: q8_0": lambda bed: bed.export("q8_0"),
    "export: q4_0": lambda bed: bed.export("q4_0"),
    "export: f16": lambda bed: bed.export("f16"),
}


def read_cells(file: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Return {(model, cell): line}; the last one counts."""
    lines: list[Any] = [value for _, value in read_json_lines(file)] if file.is_file() else []
    return {(line["model"], line["cell"]): line for line in lines}


def measure_cells(settings: BenchSettings) -> None:
    """Measure the cells that are missing."""
    from mathlete.errors import UserError

    started = time.monotonic()
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    for words in settings.models:
        name, _, where = words.partition("=")
        bed: Bed | None = None
        for cell, measure in CELLS.items():
            wanted = not settings.cells or cell.startswith(settings.cells)
            if (
                not wanted
                or (name, cell) in read_cells(settings.out)
                or time.monotonic() - started > 60 * settings.minutes
            ):
                continue
            bed = bed or Bed.make(find_model(where or name), folder=settings.out.parent / name, settings=settings)
            began = time.monotonic()
            try:
                kl, top1 = measure(bed)
                result: dict[str, object] = {"kl": kl, "top1": top1, "tokens": len(bed.reference)}
            except UserError as error:
                result = {"refused": error.rule}
            line = {"model": name, "cell": cell, **result, "seconds": round(time.monotonic() - began, 1)}
            with settings.out.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)


def table_of(cells: Mapping[tuple[str, str], Mapping[str, Any]]) -> str:
    """Return the table in Markdown, a column for each model.

    >>> cells = {("pocket", "noise: bfloat16"): {"kl": 1e-5, "top1": 0.9994, "tokens": 354}}
    >>> [line for line in table_of(cells).splitlines() if "bfloat16" in line][0]
    '| noise: bfloat16 | 1.0e-05, 99.9% | not run | not run | not run |'
    """
    models = dict.fromkeys([*COLUMNS, *(model for model, _ in cells)])
    tokens = {
        model: max((line.get("tokens", 0) for (of, _), line in cells.items() if of == model), default=0)
        for model in models
    }
    heads = [f"{model}, {count} tokens" if count else model for model, count in tokens.items()]
    lines = [f"| KL in nats a token, same likeliest token | {' | '.join(heads)} |", "|---" * (len(models) + 1) + "|"]
    for cell in CELLS:
        texts = [_text(cells.get((model, cell))) for model in models]
        lines.append(f"| {cell} | {' | '.join(texts)} |")
    return "\n".join(lines) + "\n"


def _text(line: Mapping[str, Any] | None) -> str:
    if line is None:
        return "not run"
    return "not written" if "refused" in line else f"{line['kl']:.1e}, {line['top1']:.1%}"


def main(settings: BenchSettings) -> None:
    """Measure, and print the table or write it into its page."""
    torch.set_num_threads(settings.threads)
    measure_cells(settings)
    table = table_of(read_cells(settings.out))
    if settings.table is None:
        print(table)
        return
    before, _, rest = settings.table.read_text(encoding="utf-8").partition(START)
    _, _, after = rest.partition(END)
    write_atomically(settings.table, f"{before}{START}{table}{END}{after}")


if __name__ == "__main__":
    main(tyro.cli(BenchSettings))
