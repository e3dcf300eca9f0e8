"""What a training learns from: rows of traces, preferences between two traces, rewards for samples, or a teacher.

Each objective turns the formatted rows into a `Task`: the rows as TRL's trainer takes them, and which trainer that is.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathlete.prompts import PromptFormat
from mathlete.rows import pack_rows
from mathlete.tune.preference import make_pairs
from mathlete.tune.reward import load_reward_rows, make_reward_function
from mathlete.tune.settings import Distill, Dpo, Grpo, Tune

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import Trainer, TrainingArguments


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """What an objective is made of."""

    folder: Path
    """The format step's."""
    rows: "Dataset"
    """Its rows to train on."""
    prompts: PromptFormat
    """Of the model that is trained."""
    tune: Tune
    dpo: Dpo
    grpo: Grpo
    distill: Distill


@dataclass(frozen=True, kw_only=True)
class Task:
    """Rows for one of TRL's trainers."""

    rows: "Dataset"
    longest: int
    """Tokens of the longest sequence."""
    count: int
    """Rows of an epoch, as a batch counts them."""
    trainer: "type[Trainer]"
    config: "type[TrainingArguments]"
    settings: dict[str, Any]
    """Of the configuration, beside those that all trainers share."""
    options: dict[str, Any] = field(default_factory=dict)
    """Of the trainer."""
    lengths: Sequence[int] = ()
    """Tokens of each row; empty where the trainer draws its own order."""
    figures: dict[str, object] = field(default_factory=dict)
    """What is reported of the rows."""
    scores_labels: bool = True
    """Whether its loss is of the tokens that stand in the rows or samples."""


Objective = Callable[[TrainingData], Task]


def learn_rows(data: TrainingData) -> Task:
    """Learn the completions of the rows (TRL's SFTTrainer)."""
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    tune = data.tune
    rows = data.rows if tune.pack is None else pack_rows(data.rows, budget=tune.pack)
    lengths = [len(ids) for ids in rows["input_ids"]]
    settings = {
        "train_sampling_strategy": "sequential",
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "padding_free": tune.pack is not None,
        "max_length": None,
        "activation_offloading": tune.checkpointing == "offload",
    }
    longest = max(data.rows["tokens"])
    return Task(
        rows=rows,
        longest=longest,
        count=len(rows),
        trainer=SFTTrainer,
        config=SFTConfig,
        settings=settings,
        lengths=lengths,
    )


def learn_preferences(data: TrainingData) -> Task:
    """Learn which of two traces of a problem is preferred (TRL's DPOTrainer).

    The reference is the base without the adapter.
    """
    import datasets
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    class TokenDPOTrainer(DPOTrainer):
        # TRL would render and tokenise text; ours are tokens already, proved to be what is served.
        def _prepare_dataset(self, dataset: "Dataset", *_: object) -> "Dataset":
            return dataset

    longest_row = max(data.rows["tokens"])
    pairs = make_pairs(data.folder, prompts=data.prompts, config=data.dpo, max_tokens=longest_row)
    lengths = [pair.tokens for pair in pairs]
    settings = {
        "train_sampling_strategy": "sequential",
        "max_length": None,
        "beta": data.dpo.beta,
        "activation_offloading": data.tune.checkpointing == "offload",
    }
    return Task(
        rows=datasets.Dataset.from_list([vars(pair) for pair in pairs]),
        longest=max(lengths),
        count=len(pairs),
        trainer=TokenDPOTrainer,
        config=DPOConfig,
        settings=settings,
        lengths=lengths,
        figures={"pairs": dict(Counter(pair.kind for pair in pairs))},
    )


def learn_from_rewards(data: TrainingData) -> Task:
    """Learn from the rewards of the model's own samples, which are verified answers (TRL's GRPOTrainer)."""
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    grpo = data.grpo
    rows = load_reward_rows(data.folder, data.prompts)
    settings: dict[str, Any] = {
        "num_generations": grpo.generations,
        "max_completion_length": grpo.max_tokens,
        "temperature": grpo.temperature,
        "beta": grpo.beta,
        "loss_type": grpo.loss_type,
        "importance_sampling_level": grpo.importance_sampling_level,
        "mask_truncated_completions": grpo.mask_truncated_completions,
    }
    longest = max(data.rows["prompt_tokens"]) + grpo.max_tokens
    if grpo.vllm:
        settings |= {
            "use_vllm": True,
            "vllm_mode": "colocate",
            "vllm_gpu_memory_utilization": grpo.vllm_memory,
            "vllm_max_model_length": longest,
        }
    return Task(
        rows=rows,
        longest=longest,
        count=len(rows) * grpo.generations,
        trainer=GRPOTrainer,
        config=GRPOConfig,
        settings=settings,
        options={"reward_funcs": make_reward_function(data.prompts, grpo)},
        figures={"problems": len(rows)},
    )


def learn_from_teacher(data: TrainingData) -> Task:
    """Learn a teacher's probabilities at each token of the model's own samples (TRL's DistillationTrainer)."""
    import datasets
    from trl.trainer.distillation_config import DistillationConfig
    from trl.trainer.distillation_trainer import DistillationTrainer

    class TokenDistillationTrainer(DistillationTrainer):
        # TRL would render and tokenise conversations; ours are tokens already, proved to be what is served.
        def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[Any], None, dict[str, Any]]:
            return prompts, None, {}

    distill = data.distill
    # Traces are not read, and several of one problem give one prompt.
    rows = zip(data.rows["input_ids"], data.rows["prompt_tokens"], strict=True)
    prompts = [*dict.fromkeys(tuple(ids[:length]) for ids, length in rows)]
    settings = {
        "max_completion_length": distill.max_tokens,
        "temperature": distill.temperature,
        "beta": distill.beta,
    }
    return Task(
        rows=datasets.Dataset.from_dict({"prompt": [list(ids) for ids in prompts]}),
        longest=max(map(len, prompts)) + distill.max_tokens,
        count=len(prompts),
        trainer=TokenDistillationTrainer,
        config=DistillationConfig,
        settings=settings,
        figures={"prompts": len(prompts)},
        scores_labels=False,
    )
