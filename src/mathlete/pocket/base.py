"""The pocket base: a small Qwen2 model pretrained from scratch on pocket problems, mostly easy ones."""

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathlete.errors import UserError, require
from mathlete.files import replace_when_done
from mathlete.pocket.batches import Batches
from mathlete.pocket.tokenizer import build_tokenizer
from mathlete.prompts import PromptFormat
from mathlete.runs import Advance

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase, Qwen2ForCausalLM

_CHECKPOINT = "checkpoint.pt"
_CONTEXT = 1024
_KEY_VALUE_HEADS = 2
_WARM_UP = 0.03
_LAST_RATE = 0.02
"""Share of the peak learning rate at the last step."""
_CLIP = 1.0


@dataclass(frozen=True, kw_only=True)
class PocketBaseConfig:
    """Settings of the pretraining. The defaults rebuild the shipped base."""

    steps: int = 5000
    """Optimizer steps, 1 or more; the learning rate falls as a cosine over all of them."""
    seed: int = 0
    """Chooses initial weights and problems, 0 or more."""
    batch: int = 32
    """Examples per step, 1 or more."""
    hard: float = 0.08
    """Share of hard problems in pretraining, 0 to 1; small, so that tuning has something to teach."""
    hidden: int = 128
    """Hidden size, a multiple of 64 (the block size of NF4 quantisation) and of twice the heads."""
    layers: int = 4
    """Transformer blocks, 1 or more."""
    heads: int = 4
    """Attention heads, a multiple of 2, the number of key-value heads."""
    intermediate: int = 384
    """Intermediate size of the feed-forward network, a multiple of 64."""
    vocabulary: int = 576
    """Vocabulary size at most, 320 or more, a multiple of 64."""
    matrix_rate: float = 0.02
    """Peak learning rate of the matrices inside the blocks (Muon)."""
    other_rate: float = 3e-3
    """Peak learning rate of embeddings, biases and norms (AdamW)."""
    matrix_decay: float = 0.1
    """Weight decay of the matrices, scaled by their learning rate; it keeps weights small enough for 4 and 8 bits."""

    def check(self) -> None:
        """Raise UserError where a value is out of its range."""
        require(
            ("steps", self.steps, self.steps >= 1, "at least 1"),
            ("seed", self.seed, self.seed >= 0, "0 or more"),
            ("batch", self.batch, self.batch >= 1, "at least 1"),
            ("hard", self.hard, 0 <= self.hard <= 1, "0 to 1"),
            ("hidden", self.hidden, self.hidden % 64 == 0 and self.hidden > 0, "a multiple of 64"),
            ("layers", self.layers, self.layers >= 1, "at least 1"),
            (
                "heads",
                self.heads,
                self.heads % 2 == 0 and self.heads > 0 and self.hidden % (2 * self.heads) == 0,
                "even, and twice it must divide the width",
            ),
            (
                "intermediate",
                self.intermediate,
                self.intermediate % 64 == 0 and self.intermediate > 0,
                "a multiple of 64",
            ),
            (
                "vocabulary",
                self.vocabulary,
                self.vocabulary >= 320 and self.vocabulary % 64 == 0,
                "a multiple of 64, at least 320",
            ),
            cure="leave it at its default",
        )


def build_pocket_base(
    output: Path, config: PocketBaseConfig, *, advance: Advance = lambda *_: None
) -> dict[str, object]:
    """Pretrain the pocket base into the folder `output`, which transformers can load.

    An interrupted run resumes from its last checkpoint in the same folder. The same configuration gives the same bytes
    on the same kind of CPU with the same versions of torch and transformers: one thread, fp32. `advance` is told of
    every step.

    Returns:
        Figures for a manifest: parameters, steps, tokens trained on, last loss (nats per token), seconds.

    Raises:
        UserError: a setting out of its range, or a checkpoint of other settings in the folder.
    """
    import torch

    config.check()
    threads = torch.get_num_threads()
    # More threads would change the order of sums and so the bytes, and bring no speed at this size.
    torch.set_num_threads(1)
    try:
        return _build(output, config, advance)
    finally:
        torch.set_num_threads(threads)


def _build(output: Path, config: PocketBaseConfig, advance: Advance) -> dict[str, object]:
    started = time.monotonic()
    prompts = PromptFormat(tokenizer=build_tokenizer(vocabulary=config.vocabulary), instruction="")
    run = _Run(output, config, prompts)
    run.resume()
    losses = run.train(advance)
    run.save()
    return {
        "parameters": sum(weight.numel() for weight in run.model.parameters()),
        "steps": config.steps,
        "trained_tokens": run.tokens,
        "last_loss": round(sum(losses[-100:]) / len(losses[-100:]), 5),
        "seconds": round(time.monotonic() - started, 1),
    }


def learning_rate_share(step: int, *, steps: int) -> float:
    """Return the share of the peak learning rate at a step: a short warm-up, then a cosine.

    >>> [round(learning_rate_share(step, steps=100), 2) for step in (0, 3, 50, 99)]
    [0.33, 1.0, 0.53, 0.02]
    """
    warm_up = max(1, round(_WARM_UP * steps))
    if step < warm_up:
        return (step + 1) / warm_up
    done = (step - warm_up) / max(1, steps - warm_up)
    return _LAST_RATE + (1 - _LAST_RATE) * 0.5 * (1 + math.cos(math.pi * done))


def make_model(config: PocketBaseConfig, tokenizer: "PreTrainedTokenizerBase") -> "Qwen2ForCausalLM":
    """Return an untrained model in fp32 with weights drawn from the seed."""
    import torch
    from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(config.seed)
    generation: Any = GenerationConfig
    ids: dict[str, Any] = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=config.vocabulary,
            hidden_size=config.hidden,
            intermediate_size=config.intermediate,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=_KEY_VALUE_HEADS,
            max_position_embeddings=_CONTEXT,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            tie_word_embeddings=True,
            **ids,
        )
    )
    # The sampling settings that R1's authors recommend are the model's defaults.
    model.generation_config = generation(do_sample=True, temperature=0.6, top_p=0.95, **ids)
    return model


class _Run:
    """One pretraining: model, optimizers and progress."""

    def __init__(self, output: Path, config: PocketBaseConfig, prompts: PromptFormat) -> None:
        self.output, self.config, self.prompts = output, config, prompts
        self.model = make_model(config, prompts.tokenizer)
        self.optimizers = _make_optimizers(self.model, config)
        self.batches = Batches(prompts=prompts, size=config.batch, easy=1 - config.hard, seed=config.seed)
        self.step = self.tokens = 0
        self.losses: list[float] = []

    def train(self, advance: Advance) -> list[float]:
        """Run the remaining steps; return the loss of every step, nats per token."""
        every = max(50, self.config.steps // 20)
        advance(self.step, self.config.steps, "")
        while self.step < self.config.steps:
            self._step()
            recent = self.losses[-every:]
            advance(self.step, self.config.steps, f"loss {sum(recent) / len(recent):.4f} · {self.tokens:,} tokens")
            if self.step % every == 0 or self.step == self.config.steps:
                self._save_checkpoint()
        return self.losses

    def _step(self) -> None:
        import torch

        ids, labels = self.batches.at(self.step)
        share = learning_rate_share(self.step, steps=self.config.steps)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * share
        loss = _compute_loss(self.model, ids, labels)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), _CLIP)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.losses.append(loss.item())
        self.tokens += int((labels >= 0).sum())
        self.step += 1

    def _save_checkpoint(self) -> None:
        """Write the checkpoint atomically."""
        import torch

        state = {
            "config": asdict(self.config),
            "step": self.step,
            "tokens": self.tokens,
            "losses": self.losses,
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        self.output.mkdir(parents=True, exist_ok=True)
        with replace_when_done(self.output / _CHECKPOINT) as temporary:
            torch.save(state, temporary)

    def resume(self) -> None:
        """Load the folder's checkpoint, if there is one.

        Raises:
            UserError: the checkpoint was made with other settings.
        """
        import torch

        file = self.output / _CHECKPOINT
        if not file.is_file():
            return
        state = torch.load(file, weights_only=True)
        if state["config"] != asdict(self.config):
            raise UserError(
                "an unfinished pocket base goes on with its own settings",
                value=f"{file} was made with {state['config']}",
                cure=f"delete {file} or choose another --run",
            )
        self.step, self.tokens, self.losses = state["step"], state["tokens"], state["losses"]
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)

    def save(self) -> None:
        """Write the model folder in 16 bits, then delete the checkpoint."""
        import torch

        model: Any = self.model
        model.to(torch.float16).save_pretrained(self.output)
        self.prompts.tokenizer.save_pretrained(self.output)
        self.prompts.save(self.output)
        (self.output / _CHECKPOINT).unlink(missing_ok=True)


def _compute_loss(model: "Qwen2ForCausalLM", ids: "torch.Tensor", labels: "torch.Tensor") -> "torch.Tensor":
    """Return the mean cross-entropy of the labelled tokens, nats."""
    import torch

    # Padding is on the right and attention is causal: no mask is needed.
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    wanted = labels[:, 1:] >= 0
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[wanted]), labels[:, 1:][wanted])


def _make_optimizers(model: "Qwen2ForCausalLM", config: PocketBaseConfig) -> "list[torch.optim.Optimizer]":
    import torch

    from mathlete.pocket.muon import Muon

    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, weight in model.named_parameters():
        (matrices if weight.ndim == 2 and "embed" not in name else others).append(weight)
    optimizers: list[torch.optim.Optimizer] = [
        Muon(matrices, lr=config.matrix_rate, weight_decay=config.matrix_decay),
        torch.optim.AdamW(others, lr=config.other_rate, weight_decay=0.0, betas=(0.9, 0.98), fused=True),
    ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return optimizers
