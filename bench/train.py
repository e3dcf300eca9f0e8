"""Training speed beside plain TRL: the same rows, base, adapter and rows a step, in fresh processes in turn.

    python bench/train.py                                   the pocket model on a CPU
    python bench/train.py --shapes r1-qwen-1.5b r1-llama-8b --tokenizer DIR     real shapes, random weights, on a GPU
    python bench/train.py --shapes r1-llama-8b --tokenizer DIR --shrink 16      the same command tried on a CPU
    python bench/train.py --models DIR --rows gsm8k         real weights on a CPU, 2 rows a step
    python bench/train.py --unsloth U/bin/python            Unsloth too, from an environment of its own

`mathlete` is the trainer of `python -m train math` with the model's preset. `trl` is SFTTrainer on the same NF4 base,
with SFTConfig's defaults (bf16, activations computed twice, 8 rows a pass, shuffled) and room for the longest row;
`trl_fp32`, on a CPU, the same in fp32 with activations kept. `unsloth` is bench/peers/unsloth_sft.py: its own loader,
adapter and SFTTrainer, as many rows a pass as `trl`; `unsloth_kept` the same with activations kept. On the pocket model
all make one pass of 32 rows a step, on real weights one of 2, where each row is trained on once to warm up and once
to be counted. Counted are tokens of rows, never padding, a second of the steps that count; `ratio_trl_defaults` is the
median of mathlete's over the median of `trl`'s, `ratio_over_unsloth` over that of the faster of Unsloth's two.
`ratios_per_cpu_s` are the same for tokens a CPU second of the process (one thread on a CPU), which other work on the
machine changes little.
"""

import json
import os
import random
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

import tyro

from mathlete.errors import UserError
from mathlete.models import ModelSource, Shape, find_model, load_model
from mathlete.models.loading import quiet_libraries
from mathlete.models.tokenizers import load_tokenizer
from mathlete.tune import Lora, Recipe, Tune

Who = Literal["mathlete", "trl", "trl_fp32", "compiled", "unsloth", "unsloth_kept"]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One training in a process of its own."""

    who: Who
    """mathlete, the same with --tune.compile, TRL, TRL in fp32, or Unsloth."""
    shape: str
    """pocket, a preset whose shape random weights get, or the folder of a model."""
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
    unsloth: str = ""
    """The Python that has Unsloth."""
    shrink: int = 1
    """Divides a real shape's widths and layers, and its rows' lengths."""


@dataclass(frozen=True, kw_only=True)
class TrainedModels:
    """What is trained."""

    shapes: tuple[str, ...] = ("pocket",)
    """pocket, or presets whose shape random weights get; those need a GPU."""
    models: tuple[Path, ...] = ()
    """Folders of models to train in place of shapes."""
    rows: str = "pocket"
    """Source of the models' rows, as --source of train math."""
    mirror: Path | None = None
    """Folder that stands in for the hub's data sets."""
    tokenizer: Path | None = None
    """Folder of the real shapes' tokenizer."""


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """What is trained, and for how long."""

    steps: int = 20
    """Optimizer steps that count."""
    warm: int = 4
    """Steps before them; with real weights as many as count, so that all trainers are counted on the same rows."""
    batch: int = 8
    """Rows a pass of mathlete's at a real shape, of 16 a step."""
    shrink: int = 1
    """Divides a real shape's widths and layers, and its rows' lengths, so that a CPU can try the command; no figure."""
    who: tuple[Who, ...] = ("mathlete", "trl", "trl_fp32")
    """What is compared, beside Unsloth; trl_fp32 not at random weights' shapes."""
    unsloth: Path | None = None
    """The Python that has Unsloth (default: this one, if it has)."""
    repeats: int = 3
    """Runs of each, in turn."""
    case: str = ""
    """One case as JSON, in this process."""
    json: bool = False
    """End with one line of JSON."""
    trained: Annotated[TrainedModels, tyro.conf.arg(name="")] = field(default_factory=TrainedModels)


def is_folder(shape: str) -> bool:
    """Return whether real weights are trained."""
    return Path(shape).is_dir()


def rows_a_step(shape: str) -> int:
    return 32 if shape == "pocket" else 2 if is_folder(shape) else 16


def recipe_of(shape: str, batch: int) -> Recipe:
    """Return the preset's; a step of 16 rows at the real shapes, of 2 with real weights."""
    if shape == "pocket":
        return Recipe(lora=Lora(rank=16, alpha=32), tune=Tune(batch=32))
    lora = Lora(rank=32, alpha=32, dropout=0.05, targets=("all-linear",))
    if is_folder(shape):
        return Recipe(lora=lora, tune=Tune(rate=2e-4, batch=2, clip=0.3))
    return Recipe(lora=lora, tune=Tune(rate=2e-4, batch=batch, accumulate=16 // batch, clip=0.3))


def write_rows(shape: str, folder: Path, *, count: int, settings: BenchSettings) -> None:
    """Write formatted rows: of a source, or random tokens as many as R1's traces have (lognormal, cut at 8192)."""
    if shape == "pocket" or is_folder(shape):
        words = ["--model", shape, "--until", "format", "--limit", str(count + 200), "--run", str(folder)]
        words += ["--source", settings.trained.rows] if is_folder(shape) else []
        words += ["--mirror", str(settings.trained.mirror)] if settings.trained.mirror else []
        subprocess.run([sys.executable, "-m", "train", "math", *words], check=True, capture_output=True)
        if is_folder(shape):
            keep_rows(folder / "data" / "train", count)
        return
    import datasets

    chance, rows = random.Random(0), []
    for _ in range(count):
        tokens = min(8192, max(256, round(chance.lognormvariate(7.9, 0.7)))) // settings.shrink
        ids, prompt = [chance.randrange(1000, 100_000) for _ in range(tokens)], min(100, tokens // 2)
        labels = [-100] * prompt + ids[prompt:]
        rows.append({"input_ids": ids, "labels": labels, "tokens": tokens, "prompt_tokens": prompt})
    datasets.Dataset.from_list(rows).save_to_disk(folder / "data" / "train")


def keep_rows(folder: Path, count: int) -> None:
    """Keep so many rows of a data set, the first: each trainer passes over all of them, in an order of its own.

    Raises:
        UserError: it has fewer.
    """
    import datasets

    saved = datasets.load_from_disk(folder)
    if len(saved) < count:
        raise UserError(
            f"the source must leave {count} rows to train on, after all filters",
            value=f"{len(saved)} rows",
            cure="name a larger source, --rows, or train fewer steps, --steps",
        )
    rows = saved.select(range(count)).to_list()
    shutil.rmtree(folder)
    datasets.Dataset.from_list(rows).save_to_disk(folder)


def random_base(case: Case, folder: Path, *, quantized: bool) -> Any:
    """Return a model of a real shape with random weights; its config and tokenizer are in `folder`."""
    from transformers import AutoTokenizer

    from mathlete.models.shapes import SHAPES

    tokenizer = AutoTokenizer.from_pretrained(case.tokenizer)
    full, by = SHAPES[case.shape], case.shrink
    shape = replace(
        full,
        # The tokenizer's padding must lie within it, also where the shape is another family's.
        vocabulary=max(full.vocabulary, len(tokenizer)),
        head_width=full.head_width // by,
        hidden=full.hidden // by,
        intermediate=full.intermediate // by,
        layers=max(1, full.layers // by),
    )
    model = import_module("memory").random_model(case.shape, shape, quantized=quantized)
    model.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def source_of(case: Case, folder: Path) -> tuple[ModelSource, Any]:
    """Return (the model's files, its base in 4 bits); of a real shape the weights are random."""
    if case.shape == "pocket" or is_folder(case.shape):
        return find_model(case.shape), None
    model = random_base(case, folder, quantized=True)
    return ModelSource(name=case.shape, location=str(folder)), model


def training_rows(case: Case) -> Any:
    """Return input_ids and labels of every row."""
    import datasets

    return datasets.load_from_disk(Path(case.data) / "data" / "train").select_columns(["input_ids", "labels"])


def passes_of(case: Case) -> tuple[int, int]:
    """Return (rows a pass, passes a step) of the peers, for as many rows a step as mathlete's."""
    tune, one_pass = recipe_of(case.shape, case.batch).tune, min(rows_a_step(case.shape), 8)
    one_pass = 32 if case.shape == "pocket" else one_pass
    return one_pass, tune.batch * tune.accumulate // one_pass


def become_unsloth(case: Case) -> None:
    """Write the base and the rows, then goes on as Unsloth's Python: it frees the GPU, and its last line is ours."""
    import torch

    folder = Path(case.data) / "unsloth"
    folder.mkdir(exist_ok=True)
    os.chdir(folder)  # Unsloth writes what it compiles where it runs
    training_rows(case).to_parquet("rows.parquet")
    if case.shape == "pocket" or is_folder(case.shape):
        base = find_model(case.shape).location
    else:
        random_base(case, folder, quantized=False).to(torch.bfloat16).save_pretrained(folder)
        base = str(folder)
    lora, (batch, accumulate) = recipe_of(case.shape, case.batch).lora, passes_of(case)
    told = {
        "base": base, "rows": "rows.parquet", "rank": lora.rank, "alpha": lora.alpha, "batch": batch,
        "accumulate": accumulate, "steps": case.warm + case.steps, "warm": case.warm,
        "longest": 1024 if case.shape == "pocket" or is_folder(case.shape) else 8192,
        "recompute": case.who == "unsloth",
    }  # fmt: skip
    script = Path(__file__).resolve().parent / "peers" / "unsloth_sft.py"
    os.execv(case.unsloth, [case.unsloth, str(script), json.dumps(told)])


def trainer_of(case: Case, folder: Path) -> Any:
    """Return the trainer of mathlete or of TRL."""
    import torch

    recipe, steps = recipe_of(case.shape, case.batch), case.warm + case.steps
    source, base = source_of(case, folder)
    if not case.who.startswith("trl"):
        from mathlete.tune.trainers import prepare_trainer

        changed = replace(
            recipe, tune=replace(recipe.tune, steps=steps, save_every=10_000, compile=case.who == "compiled")
        )
        data = Path(case.data) / "data"
        return prepare_trainer(folder, data=data, source=source, recipe=changed, seed=0, say=print, base=base).trainer
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    batch, accumulate = passes_of(case)
    fp32: Any = {"bf16": False, "gradient_checkpointing": False} if case.who == "trl_fp32" else {}
    config = SFTConfig(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulate,
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
        model=model,
        args=config,
        train_dataset=training_rows(case),
        peft_config=recipe.spec.configure(recipe.lora, Shape.of(source)),
        processing_class=tokenizer,
    )


def time_case(case: Case) -> dict[str, object]:
    """Train; return what peers/speed.py prints of it."""
    import torch

    quiet_libraries()
    if case.who.startswith("unsloth"):
        become_unsloth(case)
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        speed: dict[str, object] = import_module("peers.speed").time_training(
            trainer_of(case, Path(folder)), warm=case.warm
        )
    return speed


def run(case: Case) -> dict[str, Any]:
    """Return one case in a process of its own; its error where it has one."""
    command = [sys.executable, __file__, "--case", json.dumps(asdict(case))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1][:300]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(shape: str, settings: BenchSettings) -> dict[str, Any]:
    """Return the medians of each, and their ratio to TRL's."""
    names = [name for name in settings.who if name != "trl_fp32" or shape == "pocket" or is_folder(shape)]
    peer, tokenizer = (
        unsloth_python(settings),
        str(settings.trained.tokenizer.absolute()) if settings.trained.tokenizer else "",
    )
    names += ["unsloth", "unsloth_kept"] if peer else []
    warm = settings.steps if is_folder(shape) else settings.warm
    rows = rows_a_step(shape) * (settings.steps if is_folder(shape) else settings.steps + warm)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    with TemporaryDirectory() as folder:
        write_rows(shape, Path(folder), count=rows, settings=settings)
        for _ in range(settings.repeats):
            for name in names:
                case = Case(
                    who=name, shape=shape, steps=settings.steps, warm=warm, data=folder, tokenizer=tokenizer,
                    batch=settings.batch, unsloth=peer, shrink=settings.shrink,
                )  # fmt: skip
                found[name].append(run(case))
                print(f"{shape} {name}: {found[name][-1]}", flush=True)
    speeds, per_cpu_s = (medians(found, figure) for figure in ("tokens_per_s", "tokens_per_cpu_s"))
    ratios = {f"ratio_{name}": round(speed / speeds["trl"], 2) for name, speed in speeds.items() if "trl" in speeds}
    ahead = {"ratio_over_unsloth": compare_with_unsloth(speeds), "ratios_per_cpu_s": {
        "trl": round(per_cpu_s["mathlete"] / per_cpu_s["trl"], 2) if {"mathlete", "trl"} <= per_cpu_s.keys() else None,
        "unsloth": compare_with_unsloth(per_cpu_s),
    }}  # fmt: skip
    return {"shape": shape, "tokens_per_s": speeds, "tokens_per_cpu_s": per_cpu_s, **ratios, **ahead, "runs": found}


def medians(found: dict[str, list[dict[str, Any]]], figure: str) -> dict[str, float]:
    """Return {who: its median}; one that failed has none."""
    return {
        name: median(one[figure] for one in ran)
        for name, ran in found.items()
        if all("error" not in one for one in ran)
    }


def unsloth_python(settings: BenchSettings) -> str:
    """Return the Python that has Unsloth, or nothing."""
    if settings.unsloth:
        return str(settings.unsloth.absolute())
    return sys.executable if find_spec("unsloth") else ""


def compare_with_unsloth(speeds: dict[str, float]) -> float | None:
    """Return mathlete's speed over the better of Unsloth's, None where either was not measured."""
    peers = [speed for name, speed in speeds.items() if name.startswith("unsloth")]
    return round(speeds["mathlete"] / max(peers), 2) if peers and "mathlete" in speeds else None


def torch_sees_a_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def main(settings: BenchSettings) -> dict[str, object]:
    """Compare at every shape."""
    if settings.trained.shapes != ("pocket",) and not settings.trained.models:
        if settings.trained.tokenizer is None:
            raise SystemExit("real shapes need --tokenizer DIR")
        if settings.shrink == 1 and not torch_sees_a_gpu():
            raise SystemExit("real shapes need a CUDA device; --shrink 16 tries the command without one")
    shapes = [
        compare(shape, settings)
        for shape in [str(folder.absolute()) for folder in settings.trained.models] or settings.trained.shapes
    ]
    for one in shapes:
        print(f"{one['shape']}: {one['tokens_per_s']} tokens a second")
    if not unsloth_python(settings):
        print("unsloth: not installed here; give the Python of an environment that has it as --unsloth")
    return {
        "ratio_trl_defaults": shapes[0].get("ratio_mathlete"),
        "ratio_over_unsloth": shapes[0]["ratio_over_unsloth"],
        "shapes": shapes,
    }


if __name__ == "__main__":
    chosen = tyro.cli(BenchSettings, description=__doc__)
    if chosen.case:
        print(json.dumps(time_case(Case(**json.loads(chosen.case)))))
    else:
        line = main(chosen)
        if chosen.json:
            print(json.dumps(line))
