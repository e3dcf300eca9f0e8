"""The trainer of each method, with its rows in their order, its memory plan and its number of steps."""

import random
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathlete.errors import UserError
from mathlete.models import Device, ModelSource, load_prompt_format
from mathlete.rows import RowFiles, pack_rows
from mathlete.tune.fitting import plan_training, require_room
from mathlete.tune.methods import base_model, peft_config, set_first_weights
from mathlete.tune.plan import Plan
from mathlete.tune.preference import preference_pairs
from mathlete.tune.ranks import rows_per_rank
from mathlete.tune.recipe import Recipe
from mathlete.tune.reward import reward_function, reward_rows
from mathlete.tune.settings import Tune
from mathlete.tune.shards import is_sharded, shard_on_cpus, sum_in_fp32

if TYPE_CHECKING:
    from datasets import Dataset

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


@dataclass(frozen=True, kw_only=True)
class ReadyTrainer:
    """A trainer that is ready to go."""

    trainer: Any
    plan: Plan
    steps: int
    """Optimizer steps it will do."""
    lengths: Sequence[int] = ()
    """Tokens of each row, in training order; empty where the method draws its own."""
    figures: dict[str, object] = field(default_factory=dict)
    """What the method says of its rows."""


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What every method's trainer is made of."""

    adapter: Path
    data: Path
    source: ModelSource
    recipe: Recipe
    seed: int
    say: Callable[[str], None]
    base: Any

    @property
    def tune(self) -> Tune:
        return self.recipe.tune

    def planned(self, longest: int) -> Plan:
        """The memory plan, told and found to fit."""
        plan = plan_training(self.source, recipe=self.recipe, longest=longest)
        self.say(plan.summary())
        require_room(plan)
        return plan

    def order(self, lengths: Sequence[int], *, steps: int) -> list[int]:
        """Indices of the rows of so many steps, in training order."""
        drawn = steps * self.tune.batch * self.tune.accumulate
        return schedule([*lengths], rows=drawn, batch=self.tune.batch, seed=self.seed)

    def arguments(self, kind: Any, *, plan: Plan, steps: int, **more: Any) -> Any:
        """TRL's configuration of this kind."""
        import torch

        config, cuda = self.tune, torch.cuda.is_available()
        if config.checkpointing == "offload" and not cuda:
            rule = "--tune.checkpointing offload moves activations off a GPU"
            raise UserError(rule, value="no GPU", cure="leave it at auto")
        device = Device.current()
        self.say(f"compute in {device.dtype}: {device.dtype_reason}")
        arguments = kind(
            output_dir=str(self.adapter),
            max_steps=steps,
            per_device_train_batch_size=rows_per_rank(config.batch),
            gradient_accumulation_steps=config.accumulate,
            learning_rate=config.rate,
            lr_scheduler_type="cosine",
            warmup_steps=round(config.warmup * steps),
            max_grad_norm=config.clip,
            weight_decay=0.0,
            optim="adamw_torch_fused",
            bf16=device.dtype == "bfloat16",
            fp16=device.dtype == "float16",
            use_cpu=not cuda,
            gradient_checkpointing=plan.checkpointing,
            torch_compile=config.compile,
            dataloader_pin_memory=cuda,
            logging_steps=min(config.log_every, steps),  # at least one point of the curve
            save_steps=config.save_every,
            save_total_limit=2,
            seed=self.seed,
            report_to="none",
            # A loss that is no number must be seen, not replaced by the mean of those before it.
            logging_nan_inf_filter=False,
            disable_tqdm=True,
            **more,
        )
        # One process, one GPU: Trainer would wrap the model in DataParallel, which TRL refuses, were several seen.
        arguments._n_gpu = min(1, arguments.n_gpu)
        shard_on_cpus(arguments)
        return arguments

    def trainer(self, kind: Any, *, rows: "Dataset", tokens: "Dataset", **more: Any) -> Any:
        """TRL's trainer of this kind on the method's model; `tokens` are formatted rows, for the first weights."""
        from transformers import PrinterCallback

        tokenizer = load_prompt_format(self.source).tokenizer
        trainer = kind(
            model=base_model(self.source, self.recipe) if self.base is None else self.base,
            train_dataset=rows,
            processing_class=tokenizer,
            peft_config=peft_config(self.recipe),
            **more,
        )
        trainer.remove_callback(PrinterCallback)
        if is_sharded():
            sum_in_fp32(trainer)
        padding = int(tokenizer.pad_token_id)
        set_first_weights(trainer.model, recipe=self.recipe, rows=tokens, padding=padding)
        return trainer


def _selected(rows: "Dataset", order: list[int]) -> "Dataset":
    return rows.select(order, keep_in_memory=True)


def prepare_trainer(
    adapter: Path,
    *,
    data: Path,
    source: ModelSource,
    recipe: Recipe,
    seed: int,
    say: Callable[[str], None],
    base: Any = None,
) -> ReadyTrainer:
    """The method's trainer, after its memory plan was found to fit.

    Args:
        adapter: where it writes.
        data: folder of the formatted rows.
        source: the model.
        recipe: how it is trained.
        seed: chooses the order of the rows and the first weights.
        say: told what was chosen and why.
        base: the model's weights, loaded as the method holds them; None loads them.

    Raises:
        UserError: it does not fit, the model can't be loaded, or the rows are none for the method.
    """
    _silence_warnings()
    job = _Job(adapter=adapter, data=data, source=source, recipe=recipe, seed=seed, say=say, base=base)
    return {"dpo": _preferences, "grpo": _rewards}.get(recipe.method, _traces)(job)


def _silence_warnings() -> None:
    # transformers 5 renames it; TRL's own configurations still use the old name.
    warnings.filterwarnings("ignore", message="`(is_)?gradient_checkpointing` is deprecated", category=FutureWarning)
    # TRL makes the peft model, and has no setting for it.
    warnings.filterwarnings("ignore", message="lora with eva initialization used with low_cpu_mem_usage=False")


def _traces(job: _Job) -> ReadyTrainer:
    """Supervised training on the rows (TRL's SFTTrainer)."""
    import datasets
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    rows = tokens = datasets.load_from_disk(RowFiles(job.data).train)
    plan = job.planned(max(rows["tokens"]))
    if job.tune.pack is not None:
        rows = pack_rows(rows, budget=job.tune.pack)
    steps = job.tune.steps_for(len(rows))
    arguments = job.arguments(
        SFTConfig,
        plan=plan,
        steps=steps,
        train_sampling_strategy="sequential",
        dataset_kwargs={"skip_prepare_dataset": True},
        padding_free=job.tune.pack is not None,
        max_length=None,
        activation_offloading=job.tune.checkpointing == "offload",
    )
    lengths = [len(ids) for ids in rows["input_ids"]]
    order = job.order(lengths, steps=steps)
    trainer = job.trainer(SFTTrainer, args=arguments, rows=_selected(rows, order), tokens=tokens)
    return ReadyTrainer(trainer=trainer, plan=plan, steps=steps, lengths=[lengths[index] for index in order])


def _preferences(job: _Job) -> ReadyTrainer:
    """Preference between two traces of a problem (TRL's DPOTrainer); the reference is the base without the adapter."""
    import datasets
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    class OnTokens(DPOTrainer):
        # TRL would render and tokenise text; ours are tokens already, proved to be what is served.
        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

    tokens = datasets.load_from_disk(RowFiles(job.data).train)
    prompts, config = load_prompt_format(job.source), job.recipe.dpo
    pairs = preference_pairs(job.data, prompts=prompts, config=config, max_tokens=max(tokens["tokens"]))
    plan = job.planned(max(pair["tokens"] for pair in pairs))
    steps = job.tune.steps_for(len(pairs))
    arguments = job.arguments(
        DPOConfig,
        plan=plan,
        steps=steps,
        train_sampling_strategy="sequential",
        max_length=None,
        beta=config.beta,
        activation_offloading=job.tune.checkpointing == "offload",
    )
    lengths = [pair["tokens"] for pair in pairs]
    order = job.order(lengths, steps=steps)
    rows = _selected(datasets.Dataset.from_list(pairs), order)
    return ReadyTrainer(
        trainer=job.trainer(OnTokens, args=arguments, rows=rows, tokens=tokens),
        plan=plan,
        steps=steps,
        lengths=[lengths[index] for index in order],
        figures={"pairs": dict(Counter(pair["kind"] for pair in pairs))},
    )


def _rewards(job: _Job) -> ReadyTrainer:
    """Reinforcement from verified answers (TRL's GRPOTrainer)."""
    import datasets
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    tokens = datasets.load_from_disk(RowFiles(job.data).train)
    prompts, config = load_prompt_format(job.source), job.recipe.grpo
    rows = reward_rows(job.data, prompts)
    plan = job.planned(max(tokens["prompt_tokens"]) + config.max_tokens)
    steps = job.tune.steps_for(len(rows) * config.generations)
    arguments = job.arguments(
        GRPOConfig,
        plan=plan,
        steps=steps,
        num_generations=config.generations,
        max_completion_length=config.max_tokens,
        temperature=config.temperature,
        beta=config.beta,
    )
    trainer = job.trainer(
        GRPOTrainer, args=arguments, rows=rows, tokens=tokens, reward_funcs=reward_function(prompts, config)
    )
    return ReadyTrainer(trainer=trainer, plan=plan, steps=steps, figures={"problems": len(rows)})
