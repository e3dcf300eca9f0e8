"""What is trained, and by which objective: one `--method` for adapters, full tuning, preferences and rewards."""

from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from mathlete.errors import UserError, require
from mathlete.tune.settings import Lora, Tune

MethodName = Literal["lora", "rslora", "dora", "full", "prefix", "prompt", "ia3", "dpo", "grpo"]
"""peft's own names for what is trained on traces; full: every weight; dpo and grpo train a LoRA adapter."""
METHODS: tuple[MethodName, ...] = get_args(MethodName)
UNMERGEABLE = ("prefix", "prompt")
"""Virtual tokens before the prompt: no weight of the model holds them."""
RATES = {"full": 0.1, "ia3": 5.0, "prefix": 5.0, "prompt": 10.0, "dpo": 0.05, "grpo": 0.25}
"""A method's learning rate in terms of the preset's, which is LoRA's. Full tuning's best is a tenth of that ("LoRA
Without Regret"). The others are starting points, not searched for: few trained numbers take larger steps, preferences
and rewards smaller ones."""
LORA_METHODS = ("lora", "rslora", "dora", "dpo", "grpo")
BAD_INITS = {
    "pissa": "splits a weight into adapter and rest, and the rest of a 4-bit weight can't be kept (peft refuses it)",
    "olora": "changes the base weights, which would be quantised again: the adapter no longer fits the base it is on",
    "loftq": "quantises the original weights itself, and needs CUDA",
    "corda": "splits a weight into adapter and rest, and the rest of a 4-bit weight can't be kept (peft refuses it)",
    "orthogonal": "takes gradients of integers on a 4-bit base, which torch refuses",
}
"""Initialisations that do not work on a 4-bit base, and why (each was tried with peft 0.21)."""


@dataclass(frozen=True, kw_only=True)
class Dpo:
    """Preference between two traces of one problem (arXiv 2305.18290): the shorter right one wins."""

    beta: float = 0.1
    """How far the model may go from where it began; smaller is farther. Above 0; 0.1 is the paper's."""
    shorter: float = 0.8
    """A right trace is preferred to another right one where it has at most this share of its tokens, above 0 to 1."""
    pairs: int = 4
    """Most pairs of one problem, 1 or more."""

    def check(self) -> None:
        """Raises UserError where a value is out of its range."""
        require(
            ("dpo.beta", self.beta, self.beta > 0, "above 0"),
            ("dpo.shorter", self.shorter, 0 < self.shorter <= 1, "above 0 to 1"),
            ("dpo.pairs", self.pairs, self.pairs >= 1, "at least 1"),
        )


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

    def check(self) -> None:
        """Raises UserError where a value is out of its range."""
        require(
            ("grpo.generations", self.generations, self.generations >= 2, "at least 2"),
            ("grpo.max-tokens", self.max_tokens, self.max_tokens >= 1, "at least 1"),
            ("grpo.temperature", self.temperature, self.temperature > 0, "above 0"),
            ("grpo.brevity", self.brevity, self.brevity >= 0, "at least 0"),
            ("grpo.beta", self.beta, self.beta >= 0, "at least 0"),
        )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that makes one adapter another, beside model, rows and seed."""

    method: MethodName = "lora"
    """What is trained: adapters by peft's names, every weight (full), a LoRA by preferences (dpo) or rewards (grpo)."""
    lora: Lora = field(default_factory=Lora)
    tune: Tune = field(default_factory=Tune)
    dpo: Dpo = field(default_factory=Dpo)
    grpo: Grpo = field(default_factory=Grpo)

    @property
    def quantized(self) -> bool:
        """Whether the base is held in 4 bits."""
        return self.method != "full"

    @property
    def mergeable(self) -> bool:
        """Whether what is trained can become part of the weights."""
        return self.method not in UNMERGEABLE

    def with_method(self, method: MethodName) -> "Recipe":
        """Return the recipe with another method, LoRA's learning rate scaled to it."""
        tune = replace(self.tune, rate=self.tune.rate * RATES.get(method, 1.0))
        return replace(self, method=method, tune=tune)

    def check(self) -> None:
        """Raises UserError where a value is out of its range, or two do not go together; nothing is loaded for it."""
        for part in (self.lora, self.tune, self.dpo, self.grpo):
            part.check()
        init, method = self.lora.init, self.method
        if init in BAD_INITS:
            cure = "use --lora.init default, gaussian or eva"
            raise UserError(f"--lora.init must work on a 4-bit base; {init} {BAD_INITS[init]}", cure=cure)
        step_rows = self.tune.batch * self.tune.accumulate
        plain = method not in ("prefix", "prompt", "dpo", "grpo")
        for good, rule, value, cure in (
            (
                init == "default" or method in LORA_METHODS,
                f"--lora.init is not for --method {method}",
                init,
                "leave it",
            ),
            (plain or self.tune.pack is None, f"--method {method} takes rows apart", "--tune.pack", "leave it out"),
            (
                method != "prefix" or self.tune.checkpointing not in ("on", "offload"),
                "--method prefix can't compute activations twice: its prefix is the cache they would need",
                f"--tune.checkpointing {self.tune.checkpointing}",
                "leave it out",
            ),
            (
                method != "grpo" or step_rows % self.grpo.generations == 0,
                "--tune.batch times --tune.accumulate must be a multiple of --grpo.generations",
                f"{step_rows} and {self.grpo.generations}",
                f"use --tune.batch {self.grpo.generations}",
            ),
        ):
            if not good:
                raise UserError(rule, value=value, cure=cure)
