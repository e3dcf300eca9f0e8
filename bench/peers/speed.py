"""How fast a trainer of transformers trains: of its own step counts, whoever's trainer it is.

Imports torch and transformers alone, so that the environment of another trainer can run it too.
"""

import resource
import time
from typing import Any

import torch
from transformers import TrainerCallback


class Clock(TrainerCallback):
    """When training began and when each optimizer step ended, s; and this process's CPU seconds by then."""

    def __init__(self) -> None:
        self.marks: list[float] = []
        self.busy: list[float] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._mark()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._mark()

    def _mark(self) -> None:
        self.marks.append(time.monotonic())
        self.busy.append(time.process_time())


def peak_bytes() -> int:
    """Return the GPU's peak, or of a CPU this process's."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def time_training(trainer: Any, *, warm: int) -> dict[str, object]:
    """Train; return the tokens of rows a second after the first `warm` steps, and the peak of memory.

    Counted are the rows' own tokens as the collator is handed them, never padding. A CPU second gives nearly the same
    on an idle machine as on one that does other work.
    """
    passes: list[int] = []
    clock, collate = Clock(), trainer.data_collator

    def count_tokens(rows: list[dict[str, Any]]) -> Any:
        passes.append(sum(len(row["input_ids"]) for row in rows))
        return collate(rows)

    trainer.data_collator = count_tokens
    trainer.add_callback(clock)
    trainer.train()
    each = trainer.args.gradient_accumulation_steps
    tokens = sum(passes[warm * each : (len(clock.marks) - 1) * each])
    seconds = clock.marks[-1] - clock.marks[warm]
    return {
        "tokens_per_s": round(tokens / seconds, 1),
        "tokens_per_cpu_s": round(tokens / (clock.busy[-1] - clock.busy[warm]), 1),
        "tokens": tokens,
        "seconds": round(seconds, 2),
        "peak_gib": round(peak_bytes() / 2**30, 3),
        "checkpointing": trainer.args.gradient_checkpointing,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }
