"""Tune: a LoRA adapter on the 4-bit base by TRL's SFTTrainer, on rows that are tokens already.

QLoRA (arXiv 2305.14314): the base in NF4 with double quantisation, adapters on all linear layers. Two things differ
from TRL's own defaults. Adapter weights stay in fp32 (TRL casts them to bf16 on a quantised base): a 16-bit GPU can
train them under autocast, and a checkpoint gives back exactly what it was given. And the order of the rows is made
here, as a function of the seed alone, so that a resumed run sees what an unbroken one sees.
"""

import json
import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathlete.errors import UserError
from mathlete.models import ModelSource, compute_dtype, load_model, load_tokenizer
from mathlete.runs import read_json, require_space, write_atomically, write_json
from mathlete.tune.format import TRAIN
from mathlete.tune.packing import packed
from mathlete.tune.plan import Plan, gib, plan_for, plan_words, require_room, this_device
from mathlete.tune.settings import Advance, Lora, Tune
from mathlete.tune.shapes import shape_of

if TYPE_CHECKING:
    from collections.abc import Callable

METRICS, LOGS = "metrics.jsonl", "logs"
_WHOLE = "whole"
"""Mark of a checkpoint that was written to its end."""
_POOL = 16
"""Batches drawn together and sorted by length, so that a batch has little padding."""


def schedule(lengths: list[int], *, rows: int, batch: int, seed: int) -> list[int]:
    """Indices of `rows` rows in training order: every epoch shuffled, batches of similar length, batches shuffled.

    Args:
        lengths: tokens of each row.
        rows: how many to draw; more than there are start the next epoch.
        batch: rows a step.
        seed: any whole number.
    """
    drawn: list[int] = []
    epoch = 0
    while len(drawn) < rows:
        shuffle = random.Random(f"{seed}/{epoch}").shuffle
        order = list(range(len(lengths)))
        shuffle(order)
        batches = []
        for start in range(0, len(order), _POOL * batch):
            pool = sorted(order[start : start + _POOL * batch], key=lambda index: lengths[index])
            batches += [pool[at : at + batch] for at in range(0, len(pool), batch)]
        shuffle(batches)
        # A short batch in the middle would shift the borders of all that follow.
        batches.sort(key=lambda some: len(some) < batch)
        drawn += [index for some in batches for index in some]
        epoch += 1
    return drawn[:rows]


def tune(
    adapter: Path,
    *,
    data: Path,
    source: ModelSource,
    lora: Lora,
    config: Tune,
    seed: int,
    advance: Advance,
    say: "Callable[[str], None]",
) -> dict[str, object]:
    """Trains the adapter into the folder `adapter`, or goes on from its last whole checkpoint; returns the figures.

    Raises:
        UserError: the model can't be loaded, or the disk has no room.
    """
    import torch

    trainer, plan, steps = _trainer(adapter, data=data, source=source, lora=lora, config=config, seed=seed, say=say)
    trainable = [weight for weight in trainer.model.parameters() if weight.requires_grad]
    # Adapter, two moments and the adapter as saved, in two checkpoints.
    require_space(adapter, needed_bytes=8 * sum(weight.numel() * 4 for weight in trainable))
    trainer.add_callback(_follower(adapter, advance=advance))
    checkpoint = last_whole_checkpoint(adapter)
    if checkpoint is not None:
        say(f"going on from {checkpoint.name}")
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    trainer.model.save_pretrained(adapter)
    _sort_target_modules(adapter)
    curve = _curve(trainer.state.log_history)
    measured = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    if measured is not None:
        say(f"memory: {gib(measured):.2f} GiB measured, {gib(plan.allocated):.2f} planned, CUDA's own aside")
    return {
        "steps": steps,
        "rows_seen": steps * config.batch * config.accumulate,
        "trainable_parameters": sum(weight.numel() for weight in trainable),
        "adapter_dtype": str(trainable[0].dtype).removeprefix("torch."),
        "first_loss": curve[0]["loss"],
        "last_loss": curve[-1]["loss"],
        "planned_peak_bytes": plan.allocated,
        "cuda_peak_bytes": measured,
    }


def _trainer(
    adapter: Path,
    *,
    data: Path,
    source: ModelSource,
    lora: Lora,
    config: Tune,
    seed: int,
    say: "Callable[[str], None]",
) -> tuple[Any, Plan, int]:
    """(the trainer, the memory plan, the optimizer steps it will do)."""
    import datasets
    from peft import LoraConfig
    from transformers import PrinterCallback
    from trl.trainer.sft_trainer import SFTTrainer

    rows = datasets.load_from_disk(data / TRAIN)
    longest = max(rows["tokens"])
    if config.pack is not None:
        rows = packed(rows, budget=config.pack)
    lengths = [len(ids) for ids in rows["input_ids"]]
    step_rows = config.batch * config.accumulate
    steps = config.steps_for(len(rows))
    order = schedule(lengths, rows=steps * step_rows, batch=config.batch, seed=seed)
    plan = plan_for(shape_of(source), device=this_device(), lora=lora, tune=config, longest=longest)
    say(plan_words(plan))
    require_room(plan)
    model = load_model(source, precision="nf4")
    trainer: Any = SFTTrainer(
        model=model,
        args=_arguments(adapter, config=config, plan=plan, steps=steps, seed=seed, say=say),
        train_dataset=rows.select(order, keep_in_memory=True),
        processing_class=load_tokenizer(source),
        peft_config=LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=lora.target_modules,
            task_type="CAUSAL_LM",
        ),
    )
    trainer.remove_callback(PrinterCallback)
    for weight in trainer.model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()
    return trainer, plan, steps


def _arguments(
    adapter: Path,
    *,
    config: Tune,
    plan: Plan,
    steps: int,
    seed: int,
    say: "Callable[[str], None]",
) -> Any:
    import torch
    from trl.trainer.sft_config import SFTConfig

    if config.offload and not torch.cuda.is_available():
        raise UserError("--tune.offload moves activations off a GPU", value="no GPU", cure="leave it out")
    dtype, why = compute_dtype()
    say(f"compute in {str(dtype).removeprefix('torch.')}: {why}")
    arguments = SFTConfig(
        output_dir=str(adapter),
        max_steps=steps,
        per_device_train_batch_size=config.batch,
        gradient_accumulation_steps=config.accumulate,
        learning_rate=config.rate,
        lr_scheduler_type="cosine",
        warmup_steps=round(config.warmup * steps),
        max_grad_norm=config.clip,
        weight_decay=0.0,
        optim="adamw_torch_fused",
        bf16=dtype == torch.bfloat16,
        fp16=dtype == torch.float16,
        use_cpu=not torch.cuda.is_available(),
        gradient_checkpointing=plan.checkpointing,
        activation_offloading=config.offload,
        dataloader_pin_memory=torch.cuda.is_available(),
        train_sampling_strategy="sequential",
        dataset_kwargs={"skip_prepare_dataset": True},
        padding_free=config.pack is not None,
        max_length=None,
        logging_steps=min(config.log_every, steps),  # at least one point of the curve
        save_steps=config.save_every,
        save_total_limit=2,
        seed=seed,
        report_to="none",
        disable_tqdm=True,
    )
    # One process, one GPU: with several to be seen, Trainer would wrap the model in DataParallel, which TRL refuses.
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


def _follower(adapter: Path, *, advance: Advance) -> Any:
    """The callback that shows progress, keeps the loss curve and marks whole checkpoints."""
    from torch.utils.tensorboard import SummaryWriter
    from transformers import TrainerCallback

    class Follower(TrainerCallback):
        def __init__(self) -> None:
            self.board = SummaryWriter(log_dir=str(adapter / LOGS))

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            curve = _curve(state.log_history)
            advance(state.global_step, state.max_steps, f"loss {curve[-1]['loss']:.4f}" if curve else "")

        def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            curve = _curve(state.log_history)
            write_atomically(adapter / METRICS, "".join(json.dumps(point) + "\n" for point in curve))
            if state.log_history and "loss" in state.log_history[-1]:
                for name, value in curve[-1].items():
                    self.board.add_scalar(f"train/{name}", value, state.global_step)

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            (adapter / f"checkpoint-{state.global_step}" / _WHOLE).touch()

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.board.close()

    return Follower()


_POINT = ("step", "loss", "learning_rate", "grad_norm", "entropy", "mean_token_accuracy")


def _curve(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The points of the loss curve in the trainer's history."""
    return [{key: point[key] for key in _POINT if key in point} for point in history if "loss" in point]


def last_whole_checkpoint(adapter: Path) -> Path | None:
    """The checkpoint to go on from; half-written ones, which a kill leaves, are deleted."""
    whole = []
    for folder in adapter.glob("checkpoint-*"):
        if (folder / _WHOLE).is_file():
            whole.append(folder)
        else:
            shutil.rmtree(folder)
    return max(whole, key=lambda folder: int(folder.name.rpartition("-")[2]), default=None)


def _sort_target_modules(adapter: Path) -> None:
    # peft writes a set in whatever order it has: sorted, the same run gives the same bytes.
    file = adapter / "adapter_config.json"
    config: dict[str, Any] = read_json(file)
    write_json(file, {**config, "target_modules": sorted(config["target_modules"])})
