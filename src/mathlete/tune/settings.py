"""The settings of an adapter and of its training."""

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from mathlete.errors import UserError, require
from mathlete.tune.optimizers import OptimizerName

Init = Literal["default", "gaussian", "eva"]
"""First weights of an adapter, by peft's names. Of its other ones none works on a 4-bit base (docs/training.md)."""


@dataclass(frozen=True, kw_only=True)
class Lora:
    """The adapter (arXiv 2106.09685): low-rank updates of linear layers."""

    rank: int = 16
    """Rank of each update, 1 or more."""
    alpha: int = 32
    """The update is scaled by alpha / rank."""
    dropout: float = 0.0
    """Share of the adapter's inputs dropped while training, 0 to below 1."""
    targets: tuple[str, ...] = ("all-linear",)
    """Layers of each block that get one, as the base names them (q_proj, qkv_proj); all-linear: all of them, which is
    what matches full tuning (arXiv 2305.14314, section 4)."""
    bias: Literal["none", "lora_only", "all"] = "none"
    """Biases that are trained with it: none, those of its layers, or all of the model's."""
    init: Init = "default"
    """First weights: default (no effect at first), gaussian, or eva (from activations, arXiv 2410.07170)."""
    virtual_tokens: int = 16
    """Tokens before the prompt that --method prefix and prompt train, 1 or more."""
    max_rank: int | None = None
    """Highest rank that may be handed in; what vLLM serves no adapter of is refused then, before the training."""

    @property
    def target_modules(self) -> str | list[str]:
        """The targets as peft takes them."""
        return "all-linear" if "all-linear" in self.targets else list(self.targets)

    def check(self) -> None:
        """Raise UserError where a value is out of its range."""
        alone = "all-linear" not in self.targets or len(self.targets) == 1
        require(
            ("lora.targets", " ".join(self.targets) or "none", bool(self.targets) and alone, "layers, or all-linear"),
            ("lora.rank", self.rank, self.rank >= 1, "at least 1"),
            ("lora.max-rank", self.max_rank, self.max_rank is None or self.max_rank >= 1, "at least 1"),
            (
                "lora.rank",
                self.rank,
                self.rank <= (self.max_rank or self.rank),
                f"at most the {self.max_rank} of --lora.max-rank",
            ),
            ("lora.virtual-tokens", self.virtual_tokens, self.virtual_tokens >= 1, "at least 1"),
            ("lora.alpha", self.alpha, self.alpha >= 1, "at least 1"),
            ("lora.dropout", self.dropout, 0 <= self.dropout < 1, "0 to below 1"),
        )


@dataclass(frozen=True, kw_only=True)
class Updates:
    """The optimizer, and how its learning rate rises and falls."""

    optimizer: OptimizerName = "adamw_torch_fused"
    """By transformers' own name. 8bit: its moments are, in blocks (arXiv 2110.02861); paged: they leave a full GPU."""
    weight_decay: float = 0.0
    """What the optimizer takes from each weight at each step, times the learning rate; 0 or above. Biases keep all."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate goes on after the warm-up: down to 0 as a cosine or a line, or not at all."""
    warmup: float = 0.05
    """Share of the steps in which the learning rate rises, 0 to 1."""
    warmup_steps: int | None = None
    """The same as a number of steps, at most all of them; None: by the share."""

    def check(self) -> None:
        """Raise UserError where a value is out of its range."""
        require(
            ("tune.weight-decay", self.weight_decay, 0 <= self.weight_decay < math.inf, "0 or above"),
            ("tune.warmup", self.warmup, 0 <= self.warmup <= 1, "0 to 1"),
            ("tune.warmup-steps", self.warmup_steps, self.warmup_steps is None or self.warmup_steps >= 0, "at least 0"),
        )

    def warmup_for(self, steps: int) -> int:
        """Return the steps in which the learning rate rises, of so many in all.

        Raises:
            UserError: more than there are.

        >>> Updates(warmup=0.1).warmup_for(50), Updates(warmup_steps=2).warmup_for(50)
        (5, 2)
        """
        if self.warmup_steps is None:
            return round(self.warmup * steps)
        require(("tune.warmup-steps", self.warmup_steps, self.warmup_steps <= steps, f"at most the {steps} steps"))
        return self.warmup_steps


@dataclass(frozen=True, kw_only=True)
class Tune:
    """How the adapter is trained: AdamW, a warm-up, then a cosine to 0, where nothing else is said."""

    rate: float = 2e-3
    """Peak learning rate, above 0."""
    epochs: float = 1.0
    """Passes over the rows, above 0."""
    steps: int | None = None
    """Optimizer steps; None: as many as the epochs give."""
    batch: int = 32
    """Rows of one forward pass, 1 or more."""
    pack: int | None = None
    """Put rows into shared sequences of so many tokens, at least the longest row's; None: pad each to its batch. A
    batch is then so many sequences: 1 is best, for where there is no FlashAttention its mask is quadratic."""
    accumulate: int = 1
    """Gradient accumulation: forward passes of one optimizer step, 1 or more."""
    clip: float = 1.0
    """Largest norm of the gradient, above 0."""
    checkpointing: Literal["auto", "on", "off", "offload"] = "auto"
    """Compute activations twice instead of keeping them; auto: where the memory plan fits only so; offload: and move
    those that are still kept off the GPU, into main memory."""
    compile: bool = False
    """Compile the model's graph first (torch.compile): takes minutes, which only a long run on a GPU wins back."""
    save_every: int = 50
    """Steps between checkpoints, 1 or more: what a kill can cost."""
    log_every: int = 10
    """Steps between points of the loss curve, 1 or more."""
    updates: Annotated[Updates, tyro.conf.arg(name="")] = field(default_factory=Updates)

    def check(self) -> None:
        """Raise UserError where a value is out of its range."""
        require(
            ("tune.rate", self.rate, self.rate > 0, "above 0"),
            ("tune.epochs", self.epochs, 0 < self.epochs < math.inf, "above 0"),
            ("tune.steps", self.steps, self.steps is None or self.steps >= 1, "at least 1"),
            ("tune.batch", self.batch, self.batch >= 1, "at least 1"),
            ("tune.pack", self.pack, self.pack is None or self.pack >= 16, "at least 16"),
            ("tune.accumulate", self.accumulate, self.accumulate >= 1, "at least 1"),
            ("tune.clip", self.clip, self.clip > 0, "above 0"),
            ("tune.save-every", self.save_every, self.save_every >= 1, "at least 1"),
            ("tune.log-every", self.log_every, self.log_every >= 1, "at least 1"),
        )
        self.updates.check()
        if self.steps is not None:
            self.updates.warmup_for(self.steps)

    @property
    def step_rows(self) -> int:
        """Rows of one optimizer step."""
        return self.batch * self.accumulate

    def steps_for(self, rows: int) -> int:
        """Return the optimizer steps over so many rows.

        >>> Tune(batch=4, epochs=2.0).steps_for(10)
        5
        """
        return self.steps or math.ceil(self.epochs * rows / self.step_rows)


@dataclass(frozen=True, kw_only=True)
class Dpo:
    """Preference between two traces of one problem (arXiv 2305.18290): the shorter right one wins."""

    beta: float = 0.1
    """How strongly the model is held to where it began, above 0; 0.1 is the paper's."""
    shorter: float = 0.8
    """A right trace is preferred to another right one where it has at most this share of its tokens, above 0 to 1."""
    pairs: int = 4
    """Most pairs of one problem, 1 or more."""

    def check(self) -> None:
        """Raise UserError where a value is out of its range."""
        require(
            ("dpo.beta", self.beta, self.beta > 0, "above 0"),
            ("dpo.shorter", self.shorter, 0 < self.shorter <= 1, "above 0 to 1"),
            ("dpo.pairs", self.pairs, self.pairs >= 1, "at least 1"),
        )


_BY_TOKEN = ("dapo", "bnpo", "dr_grpo", "cispo")
"""Losses that sum over tokens (TRL 1.16 warns of ratios of whole samples with them)."""


@dataclass(frozen=True, kw_only=True)
class Grpo:
    """Reward for right answers, relative to a group of samples of one problem (arXiv 2402.03300, section 4.1)."""

    generations: int = 8
    """Samples of a problem, 2 or more."""
    max_tokens: int = 256
    """Cap on a sample, tokens."""
    temperature: float = 1.0
    """Of the samples, above 0; 1 samples from the model that is trained."""
    brevity: float = 0.2
    """Bonus of a right answer that has no tokens at all; it falls to 0 at the cap. 0 or more; 0: none."""
    beta: float = 0.0
    """Weight of the KL to the model at the start, 0 or more; 0 as in DAPO (arXiv 2503.14476, section 2.3)."""
    loss_type: Literal["dapo", "grpo", "bnpo", "dr_grpo", "cispo", "sapo", "luspo"] = "dapo"
    """How tokens' losses are added up, by TRL's names; grpo: each sample's mean, dapo: all tokens alike."""
    importance_sampling_level: Literal["token", "sequence"] = "token"
    """Ratio to the model that drew a sample: of each token, or one of the whole sample (GSPO, arXiv 2507.18071)."""
    mask_truncated_completions: bool = False
    """Learn nothing from a sample that the cap cut off (DAPO, section 3.4)."""
    overlong: int = 0
    """Tokens before the cap over which a reward falls by 1 (DAPO, equation 13), 0 to the cap; 0: it does not."""
    vllm: bool = False
    """Draw the samples with vLLM on the GPU that trains, which needs its package."""
    vllm_memory: float = 0.3
    """Share of the GPU that vLLM takes, above 0 to 0.8."""

    def check(self) -> None:
        """Raise UserError where a value is out of its range."""
        require(
            ("grpo.generations", self.generations, self.generations >= 2, "at least 2"),
            ("grpo.max-tokens", self.max_tokens, self.max_tokens >= 1, "at least 1"),
            ("grpo.temperature", self.temperature, self.temperature > 0, "above 0"),
            ("grpo.brevity", self.brevity, self.brevity >= 0, "at least 0"),
            ("grpo.beta", self.beta, self.beta >= 0, "at least 0"),
            ("grpo.overlong", self.overlong, 0 <= self.overlong <= self.max_tokens, "0 to --grpo.max-tokens"),
            ("grpo.vllm-memory", self.vllm_memory, 0 < self.vllm_memory <= 0.8, "above 0 to 0.8"),
        )
        by_sample = self.importance_sampling_level == "sequence"
        if self.loss_type in _BY_TOKEN and by_sample:
            raise UserError(
                "ratios of whole samples need a loss that adds up by sample: others would weigh each by its length",
                value=f"--grpo.loss-type {self.loss_type}",
                cure="use --grpo.loss-type grpo, as GSPO does, or leave --grpo.importance-sampling-level at token",
            )
        if self.loss_type == "luspo" and not by_sample:
            rule = "--grpo.loss-type luspo is for ratios of whole samples"
            raise UserError(rule, value="token", cure="use --grpo.importance-sampling-level sequence")


@dataclass(frozen=True, kw_only=True)
class Distill:
    """The model learns from a teacher's probabilities of each token of its own samples (arXiv 2306.13649)."""

    teacher: str | None = None
    """A model with the same tokens, mostly a larger one: a preset, a folder or a hub id, held as its files are."""
    max_tokens: int = 256
    """Cap on a sample, tokens."""
    temperature: float = 1.0
    """Of the samples and of both models' probabilities, above 0."""
    beta: float = 1.0
    """1: reverse KL, what the teacher would not write is unlearned; 0: forward KL; between: Jensen-Shannon."""

    def check(self) -> None:
        """Raise UserError where a value is out of its range."""
        require(
            ("distill.max-tokens", self.max_tokens, self.max_tokens >= 1, "at least 1"),
            ("distill.temperature", self.temperature, 0 < self.temperature < math.inf, "above 0"),
            ("distill.beta", self.beta, 0 <= self.beta <= 1, "0 to 1"),
        )
