"""What Unsloth's, TRL's and peft's guides set: each argument is a row of docs/training.md, and its flags are real."""

import re
import shlex
from pathlib import Path

import pytest

from tests.test_docs_commands import understood

UNSLOTH = {
    "model_name",
    "max_seq_length",
    "load_in_4bit",
    "load_in_8bit",
    "load_in_16bit",
    "full_finetuning",
    "dtype",
    "token",
    "device_map",
    "rope_scaling",
    "trust_remote_code",
    "revision",
    "random_state",
    "use_gradient_checkpointing",
    "loftq_config",
    "qat_scheme",
    "chat_template",
    "mapping",
    "train_on_responses_only",
    "save_method",
    "quantization_method",
    "resume_from_checkpoint",
    "eval_dataset",
}
"""Of `from_pretrained`, `get_peft_model`, `get_chat_template`, `train` and `save_pretrained_gguf` (unsloth 2026.10)."""
GUIDE = {
    *UNSLOTH,
    "r",
    "lora_alpha",
    "lora_dropout",
    "target_modules",
    "bias",
    "use_rslora",
    "use_dora",
    "init_lora_weights",
    "modules_to_save",
    "layers_to_transform",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "num_train_epochs",
    "max_steps",
    "learning_rate",
    "warmup_steps",
    "warmup_ratio",
    "lr_scheduler_type",
    "optim",
    "weight_decay",
    "max_grad_norm",
    "fp16",
    "bf16",
    "logging_steps",
    "save_steps",
    "output_dir",
    "report_to",
    "run_name",
    "seed",
    "packing",
    "dataset_num_proc",
    "dataset_text_field",
    "gradient_checkpointing",
    "push_to_hub",
    "eval_strategy",
}
WHAT = ("a saved adapter", "bottleneck adapters", '"merged_4bit"', "static activation calibration")
"""Rows that are no argument."""


def rows(root: Path) -> list[tuple[str, str]]:
    text = (root / "docs/training.md").read_text(encoding="utf-8")
    table = text.split("<!-- guide: begin -->\n")[1].split("<!-- guide: end -->")[0].splitlines()[2:]
    return [(cells[0].strip(), cells[1].strip()) for line in table if (cells := line.strip("| ").split(" | ", 1))]


def test_every_argument_of_the_guides_has_its_row(root: Path) -> None:
    from peft import LoraConfig
    from trl.trainer.sft_config import SFTConfig

    known = {*UNSLOTH, "warmup_ratio", *LoraConfig.__dataclass_fields__, *SFTConfig.__dataclass_fields__}
    named = [name for argument, _ in rows(root) for name in re.findall("`(.+?)`", argument)]
    assert len(named) == len({*named})
    assert {*named} <= known
    assert {*named} >= GUIDE
    assert [argument for argument, _ in rows(root) if "`" not in argument] == [*WHAT]


def test_its_flags_are_taken_by_the_command_line_or_it_says_why_there_are_none(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = ("none: ", "always: ", "what all methods")
    for argument, here in rows(root):
        commands = [shlex.split(words) for words in re.findall("`(--.+?)`", here)]
        assert bool(commands) != here.startswith(said), argument
        for words in commands:
            own = ["--model", "pocket"] if "--model" not in words else []
            assert understood(["python", "-m", "train", "math", *own, *words]), (words, capsys.readouterr().err)
