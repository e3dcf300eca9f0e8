"""Unsloth's trainer on the rows, base and adapter of bench/train.py, which runs this with `--unsloth PYTHON`.

Unsloth 2026.10.9 takes transformers up to 5.17, TRL up to 1.15 and datasets below 5, so it has an environment of its
own. The calls are its guide's (https://github.com/unslothai/unsloth, README): no dropout in the adapter, which its
kernels are written for; the rest as SFTConfig has it.
"""

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def trainer_of(case: dict[str, Any]) -> Any:
    """Return an SFTTrainer over `case["base"]` in NF4 and `case["rows"]`, a parquet file of input_ids and labels."""
    unsloth: Any = import_module("unsloth")  # before trl, which it changes
    import datasets
    import torch

    trl: Any = import_module("trl")

    torch.manual_seed(0)
    model, tokenizer = unsloth.FastLanguageModel.from_pretrained(
        case["base"], max_seq_length=case["longest"], load_in_4bit=True
    )
    model = unsloth.FastLanguageModel.get_peft_model(
        model, r=case["rank"], lora_alpha=case["alpha"], lora_dropout=0.0, bias="none", target_modules=TARGETS,
        use_gradient_checkpointing="unsloth" if case["recompute"] else False, random_state=0,
    )  # fmt: skip
    config = trl.SFTConfig(
        output_dir=str(Path.cwd()),
        max_steps=case["steps"],
        per_device_train_batch_size=case["batch"],
        gradient_accumulation_steps=case["accumulate"],
        max_length=case["longest"],
        gradient_checkpointing=case["recompute"],
        save_strategy="no",
        report_to="none",
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    rows = datasets.Dataset.from_parquet(case["rows"])
    return trl.SFTTrainer(model=model, args=config, train_dataset=rows, processing_class=tokenizer)


def main() -> None:
    """One case, given as JSON; its last line is the figures."""
    if len(sys.argv) < 2:
        print("unsloth_sft: run by bench/train.py --unsloth PYTHON")
        return
    case = json.loads(sys.argv[1])
    trainer = trainer_of(case)
    import torch

    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    print(json.dumps(import_module("speed").time_training(trainer, warm=case["warm"])))


if __name__ == "__main__":
    main()
