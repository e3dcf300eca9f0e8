"""TRL's trainer for a recipe: its plan fits the memory, its rows are in order, its model has the first weights."""

import logging
import random
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mathlete.errors import UserError
from mathlete.models import ModelSource, load_model, load_prompt_format
from mathlete.rows import RowFiles
from mathlete.tune.base_weights import restore_after_sync
from mathlete.tune.fitting import plan_training, require_room
from mathlete.tune.objectives import Task, TrainingData
from mathlete.tune.plan import Plan
from mathlete.tune.recipe import Recipe
from mathlete.tune.shards import shard_on_cpus, sum_in_fp32
from mathlete.tune.start import load_base, set_first_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel, Trainer, TrainingArguments

_SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}
"""transformers' names: its `constant` has no warm-up."""
_POOL_BATCHES = 16
"""Batches drawn together and sorted by length, so that a batch has little padding."""


def schedule(lengths: list[int], *, rows: int, batch: int, seed: int) -> list[int]:
    """Return indices of rows in training order: every epoch shuffled, batches of similar length, batches shuffled.

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
        for start in range(0, len(order), _POOL_BATCHES * batch):
            pool = sorted(order[start : start + _POOL_BATCHES * batch], key=lambda index: lengths[index])
            batches += [pool[at : at + batch] for at in range(0, len(pool), batch)]
        shuffle(batches)
        # A short batch in the middle would shift the borders of all that follow.
        batches.sort(key=lambda indices: len(indices) < batch)
        drawn += [index for indices in batches for index in indices]
        epoch += 1
    return drawn[:rows]


@dataclass(frozen=True, kw_only=True)
class ReadyTrainer:
    """A trainer that is ready to go."""

    trainer: "Trainer"
    plan: Plan
    steps: int
    """Optimizer steps it will do."""
    lengths: Sequence[int] = ()
    """Tokens of each row, in training order; empty where the trainer draws its own order."""
    figures: dict[str, object] = field(default_factory=dict)
    """What is reported of the rows."""

    @property
    def model(self) -> "PreTrainedModel":
        """The model that is trained; with an adapter, peft's, which has the same methods."""
        model: Any = self.trainer.model
        return cast("PreTrainedModel", model)


def prepare_trainer(
    adapter: Path,
    *,
    data: Path,
    source: ModelSource,
    recipe: Recipe,
    seed: int,
    say: Callable[[str], None],
    base: "PreTrainedModel | None" = None,
) -> ReadyTrainer:
    """Make the recipe's trainer.

    Args:
        adapter: where it writes.
        data: folder of the formatted rows.
        source: the model.
        recipe: how it is trained.
        seed: chooses the order of the rows and the first weights.
        say: prints what was chosen and why.
        base: the model's weights, loaded as the method holds them; None loads them.

    Raises:
        UserError: memory has no room, the model can't be loaded, or rows or device do not suit the recipe.
    """
    recipe.require_device()
    _silence_warnings()  # some come when the libraries are imported
    import datasets
    from transformers import PrinterCallback

    from mathlete.tune.cpu import spare_a_cpu
    from mathlete.tune.loss import score_labels_once

    rows, prompts = datasets.load_from_disk(RowFiles(data).train), load_prompt_format(source)
    task = recipe.spec.objective(
        TrainingData(
            folder=data,
            rows=rows,
            prompts=prompts,
            tune=recipe.tune,
            dpo=recipe.dpo,
            grpo=recipe.grpo,
            distill=recipe.distill,
        )
    )
    for one in filter(None, (source, recipe.teacher)):
        require_context(one, longest=task.longest)
    plan = plan_training(source, recipe=recipe, longest=task.longest)
    say(plan.summary())
    require_room(plan)
    steps = recipe.tune.steps_for(task.count)
    arguments = _arguments(task, adapter=adapter, plan=plan, steps=steps, seed=seed, say=say)
    # The order is a function of the seed alone, so that a resumed run sees the rows that an unbroken one sees.
    drawn = steps * recipe.tune.step_rows if task.lengths else 0
    order = schedule([*task.lengths], rows=drawn, batch=recipe.tune.batch, seed=seed)
    options: dict[str, Any] = {"peft_config": recipe.spec.configure(recipe.lora, plan.shape), **task.options}
    if recipe.teacher is not None:
        options["teacher_model"] = load_model(recipe.teacher, dtype=plan.dtype)
        named = recipe.teacher.public_name, recipe.teacher.public_commit
        task.figures["teacher"] = "@".join(filter(None, named))
    trainer = task.trainer(
        model=load_base(source, plan) if base is None else base,
        args=arguments,
        train_dataset=task.rows.select(order, keep_in_memory=True) if task.lengths else task.rows,
        processing_class=prompts.tokenizer,
        **options,
    )
    trainer.remove_callback(PrinterCallback)
    if recipe.engine_share:
        restore_after_sync(trainer)
    if plan.ranks.sharded:
        sum_in_fp32(trainer)
    lengths = [task.lengths[index] for index in order]
    ready = ReadyTrainer(trainer=trainer, plan=plan, steps=steps, lengths=lengths, figures=task.figures)
    if not score_labels_once(ready.model) and task.scores_labels:
        say("loss: computed twice, tile by tile, for this version of TRL has no function to replace")
    if plan.device.capability is None:
        spare_a_cpu(ready.model, dtype=plan.dtype)
    set_first_weights(ready.model, recipe=recipe, rows=rows, padding_id=int(prompts.tokenizer.pad_token_id))
    return ready


def require_context(source: ModelSource, *, longest: int) -> None:
    """Check that a model has a position for each token of the longest sequence.

    Raises:
        UserError: it hasn't: what it computes beyond was never trained, and engines refuse it.
    """
    if longest > (context := source.context_tokens()):
        raise UserError(
            f"the longest sequence must fit the {context} positions of {source.name}",
            value=f"{longest} tokens",
            cure="use a lower --rows.max-tokens, or a lower cap on samples (--grpo.max-tokens, --distill.max-tokens)",
        )


def _silence_warnings() -> None:
    # TRL imports it, and it warns of kernels that it could download.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    # transformers 5 renames it; TRL's own configurations still use the old name.
    warnings.filterwarnings("ignore", message="`(is_)?gradient_checkpointing` is deprecated", category=FutureWarning)
    # TRL makes the peft model, and has no setting for it.
    warnings.filterwarnings("ignore", message="lora with eva initialization used with low_cpu_mem_usage=False")


def _arguments(
    task: Task, *, adapter: Path, plan: Plan, steps: int, seed: int, say: Callable[[str], None]
) -> "TrainingArguments":
    """Make TRL's configuration."""
    import torch

    tune, cuda = plan.tune, torch.cuda.is_available()
    say(f"compute in {plan.dtype}: {plan.dtype_reason}")
    shared: dict[str, Any] = {
        "output_dir": str(adapter),
        "max_steps": steps,
        "per_device_train_batch_size": plan.ranks.split_rows(tune.batch),
        "gradient_accumulation_steps": tune.accumulate,
        "learning_rate": tune.rate,
        "lr_scheduler_type": _SCHEDULES[tune.updates.schedule],
        "warmup_steps": tune.updates.warmup_for(steps),
        "max_grad_norm": tune.clip,
        "weight_decay": tune.updates.weight_decay,
        "optim": tune.updates.optimizer,
        "bf16": plan.dtype == "bfloat16",
        "fp16": plan.dtype == "float16",
        "use_cpu": not cuda,
        "gradient_checkpointing": plan.checkpointing,
        "torch_compile": tune.compile,
        "dataloader_pin_memory": cuda,
        "logging_steps": min(tune.log_every, steps),  # at least one point of the curve
        "save_steps": tune.save_every,
        "save_total_limit": 2,
        "seed": seed,
        "report_to": "none",
        # A loss that is no number must be seen, not replaced by the mean of those before it.
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
    }
    arguments = task.config(**shared, **task.settings)
    # One process, one GPU: Trainer would wrap the model in DataParallel, which TRL refuses, were several seen.
    arguments._n_gpu = min(1, arguments.n_gpu)
    shard_on_cpus(arguments)
    return arguments
