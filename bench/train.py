"""Training speed beside plain TRL: the same rows, base, adapter and rows a step, in fresh processes in turn.

    python bench/train.py                                   the pocket model on a CPU
    python bench/train.py --shapes r1-qwen-1.5b r1-llama-8b --tokenizer DIR     real shapes, random weights, on a GPU

`mathlete` is the trainer of `python -m train math` with the model's preset. `trl` is SFTTrainer on the same NF4 base,
with SFTConfig's defaults (bf16, activations computed twice, 8 rows a pass, shuffled) and room for the longest row;
`trl_fp32`, on a CPU, the same in fp32 with activations kept. On the pocket model all make one pass of 32 rows a step.
Counted are tokens of rows, never padding, a second of the steps after the first few; `ratio_trl_defaults` is the median
of mathlete's over the median of `trl`'s.
"""

import json
import random
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Literal

import tyro

from mathlete.models import ModelSource, load_model, load_tokenizer, model_source, quiet_libraries
from mathlete.tune.methods import peft_config
from mathlete.tune.recipe import Recipe
from mathlete.tune.settings import Lora, Tune

Who = Literal["mathlete", "trl", "trl_fp32", "compiled"]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One training in a process of its own."""

    who: Who
    """mathlete, the same with --tune.compile, TRL, or TRL in fp32."""
    shape: str
    """pocket, or a preset whose shape random weights get."""
    steps: int
    """Optimizer steps that count."""
    warm: int
    """Steps before."""
    data: str
    """Folder of the rows."""
    tokenizer: str = ""
    """Folder of tokenizer and config of a real shape."""
    batch: int = 8
    """Rows a pass of mathlete's at a real shape, of 16 a step."""


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """What is trained."""

    shapes: tuple[str, ...] = ("pocket",)
    """pocket, or presets whose shape random weights get; those need a GPU."""
    tokenizer: Path | None = None
    """Folder of the real shapes' tokenizer."""
    steps: int = 20
    """Optimizer steps that count."""
    warm: int = 4
    """Steps before them."""
    batch: int = 8
    """Rows a pass of mathlete's at a real shape, of 16 a step."""
    who: tuple[Who, ...] = ("mathlete", "trl", "trl_fp32")
    """What is compared; trl_fp32 on the pocket model alone."""
    repeats: int = 3
    """Runs of each, in turn."""
    case: str = ""
    """One case as JSON, in this process."""
    json: bool = False
    """End with one line of JSON."""


def recipe_of(shape: str, batch: int) -> Recipe:
    """The preset's; a step of 16 rows at the real shapes."""
    if shape == "pocket":
        return Recipe(lora=Lora(rank=16, alpha=32), tune=Tune(batch=32))
    lora = Lora(rank=32, alpha=32, dropout=0.05, targets=("all-linear",))
    return Recipe(lora=lora, tune=Tune(rate=2e-4, batch=batch, accumulate=16 // batch, clip=0.3))


def write_rows(shape: str, folder: Path, *, count: int) -> None:
    """Formatted rows: the pocket model's own, or random tokens as many as R1's traces have (lognormal, cut at 8192)."""
    if shape == "pocket":
        words = ["--model", "pocket", "--until", "format", "--limit", str(count + 200), "--run", str(folder)]
        subprocess.run([sys.executable, "-m", "train", "math", *words], check=True, capture_output=True)
        return
    import datasets

    chance, rows = random.Random(0), []
    for _ in range(count):
        tokens = min(8192, max(256, round(chance.lognormvariate(7.9, 0.7))))
        ids = [chance.randrange(1000, 100_000) for _ in range(tokens)]
        rows.append({"input_ids": ids, "labels": [-100] * 100 + ids[100:], "tokens": tokens, "prompt_tokens": 100})
    datasets.Dataset.from_list(rows).save_to_disk(folder / "data" / "train")


def source_of(case: Case, folder: Path) -> tuple[ModelSource, Any]:
    """(the model's files, its base in 4 bits); of a real shape the weights are random."""
    if case.shape == "pocket":
        return model_source("pocket"), None
    from transformers import AutoTokenizer

    from mathlete.tune.shapes import SHAPES

    tokenizer = AutoTokenizer.from_pretrained(case.tokenizer)
    # Its padding must lie within the vocabulary, also where the shape is another family's.
    shape = replace(SHAPES[case.shape], vocabulary=max(SHAPES[case.shape].vocabulary, len(tokenizer)))
    model = import_module("memory").random_model(case.shape, shape, quantized=True)
    model.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return ModelSource(name=case.shape, location=str(folder)), model


def trainer_of(case: Case, folder: Path) -> Any:
    """The trainer of either."""
    import datasets
    import torch

    recipe, steps = recipe_of(case.shape, case.batch), case.warm + case.steps
    source, base = source_of(case, folder)
    if not case.who.startswith("trl"):
        from mathlete.tune.trainers import prepared

        changed = replace(
            recipe, tune=replace(recipe.tune, steps=steps, save_every=10_000, compile=case.who == "compiled")
        )
        data = Path(case.data) / "data"
        return prepared(folder, data=data, source=source, recipe=changed, seed=0, say=print, base=base).trainer
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    rows = datasets.load_from_disk(Path(case.data) / "data" / "train").select_columns(["input_ids", "labels"])
    one_pass = 32 if case.shape == "pocket" else 8
    fp32: Any = {"bf16": False, "gradient_checkpointing": False} if case.who == "trl_fp32" else {}
    config = SFTConfig(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=one_pass,
        gradient_accumulation_steps=recipe.tune.batch * recipe.tune.accumulate // one_pass,
        max_length=8192,
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
        save_strategy="no",
        **fp32,
        report_to="none",
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    model = base if base is not None else load_model(source, precision="nf4")
    config._n_gpu = min(1, config.n_gpu)
    tokenizer = load_tokenizer(source)
    return SFTTrainer(
        model=model, args=config, train_dataset=rows, peft_config=peft_config(recipe), processing_class=tokenizer
    )


def timed(case: Case) -> dict[str, object]:
    """Trains; tokens a second after the first steps, and the peak of memory."""
    import torch
    from transformers import TrainerCallback

    quiet_libraries()
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    passes: list[int] = []
    marks: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            marks.append(time.monotonic())

    with TemporaryDirectory() as folder:
        trainer = trainer_of(case, Path(folder))
        collate = trainer.data_collator

        def counting(rows: list[dict[str, Any]]) -> Any:
            passes.append(sum(len(row["input_ids"]) for row in rows))
            return collate(rows)

        trainer.data_collator = counting
        trainer.add_callback(Clock())
        trainer.train()
    each = trainer.args.gradient_accumulation_steps
    tokens = sum(passes[case.warm * each : (case.warm + case.steps) * each])
    seconds = marks[-1] - marks[case.warm - 1]
    cuda = torch.cuda.is_available()
    peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "tokens_per_s": round(tokens / seconds, 1),
        "tokens": tokens,
        "seconds": round(seconds, 2),
        "peak_gib": round(peak / 2**30, 3),
        "checkpointing": trainer.args.gradient_checkpointing,
        "device": torch.cuda.get_device_name() if cuda else "cpu",
    }


def run(case: Case) -> dict[str, Any]:
    """One case in a process of its own; its error where it has one."""
    command = [sys.executable, __file__, "--case", json.dumps(asdict(case))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1][:300]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def compared(shape: str, settings: BenchSettings) -> dict[str, Any]:
    """The medians of both, and their ratio."""
    names = [name for name in settings.who if name != "trl_fp32" or shape == "pocket"]
    rows = (32 if shape == "pocket" else 16) * (settings.steps + settings.warm)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    with TemporaryDirectory() as folder:
        write_rows(shape, Path(folder), count=rows)
        for _ in range(settings.repeats):
            for name in names:
                case = Case(
                    who=name, shape=shape, steps=settings.steps, warm=settings.warm, data=folder,
                    tokenizer=str(settings.tokenizer or ""), batch=settings.batch,
                )  # fmt: skip
                found[name].append(run(case))
                print(f"{shape} {name}: {found[name][-1]}", flush=True)
    speeds = {
        name: median(one["tokens_per_s"] for one in ran)
        for name, ran in found.items()
        if all("error" not in one for one in ran)
    }
    ratios = {f"ratio_{name}": round(speed / speeds["trl"], 2) for name, speed in speeds.items() if "trl" in speeds}
    return {"shape": shape, "tokens_per_s": speeds, **ratios, "runs": found}


def torch_sees_a_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def main(settings: BenchSettings) -> dict[str, object]:
    """Compares at every shape."""
    if settings.shapes != ("pocket",) and (settings.tokenizer is None or not torch_sees_a_gpu()):
        raise SystemExit("real shapes need a CUDA device and --tokenizer DIR")
    shapes = [compared(shape, settings) for shape in settings.shapes]
    for one in shapes:
        print(f"{one['shape']}: {one['tokens_per_s']} tokens a second")
    unsloth = "installed" if find_spec("unsloth") else "not installed here"
    return {"ratio_trl_defaults": shapes[0].get("ratio_mathlete"), "unsloth": unsloth, "shapes": shapes}


if __name__ == "__main__":
    chosen = tyro.cli(BenchSettings, description=__doc__)
    if chosen.case:
        print(json.dumps(timed(Case(**json.loads(chosen.case)))))
    else:
        line = main(chosen)
        if chosen.json:
            print(json.dumps(line))
