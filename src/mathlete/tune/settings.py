"""The settings of the four training steps, one frozen dataclass each."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mathlete.errors import UserError

MergeBase = Literal["dequant", "original"]
"""What the adapter is merged into: the dequantised 4-bit weights it was trained on · the model's own weights."""

DeviceName = Literal[
    "t4", "p100", "v100", "l4", "a10g", "rtx4090", "a100-40", "a100-80", "h100", "h200", "rtx5090", "b200"
]
"""GPUs whose memory and capability are known."""

Advance = Callable[[int, int | None, str], None]
"""Moves a progress bar: done, total where it is known, words."""


def require(*rules: tuple[str, object, bool, str]) -> None:
    """Checks (flag, value, whether it is good, rule) in turn.

    Raises:
        UserError: the first that is not good.
    """
    for flag, value, good, rule in rules:
        if not good:
            raise UserError(f"--{flag} must be {rule}", value=value, cure="leave it at the preset's value")


Policy = Literal["all", "shortest_correct", "k_shortest", "longest_under"]
"""Which of a problem's right traces are kept."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Which traces become training rows."""

    max_tokens: int = 512
    """Longest row, prompt and completion together, tokens. A longer one is dropped, never cut."""
    shorten: bool = False
    """End a trace that is too long where it first boxes the right answer, if it fits then."""
    policy: Policy = "all"
    """Of a problem's right traces: all, the shortest, the K shortest, or the longest under so many tokens."""
    traces: int = 2
    """K of k_shortest, 1 or more."""
    longest: int = 4096
    """What a trace with its answer must stay under for longest_under, tokens."""
    heldout: int = 200
    """Rows kept from training to measure what merge and export cost; at most a tenth of all rows, at least one."""

    def check(self) -> None:
        """Raises UserError where a value is out of its range."""
        require(
            ("rows.max-tokens", self.max_tokens, self.max_tokens >= 16, "at least 16"),
            ("rows.heldout", self.heldout, self.heldout >= 1, "at least 1"),
            ("rows.traces", self.traces, self.traces >= 1, "at least 1"),
            ("rows.longest", self.longest, self.longest >= 1, "at least 1"),
        )


Target = Literal["all-linear", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
"""A linear layer of each block, as Qwen2 and Llama name them; all-linear: every one but the output layer."""

Init = Literal["default", "gaussian", "eva", "pissa", "olora", "loftq", "corda", "orthogonal"]
"""First weights of an adapter, by peft's names; default: zero in effect."""


@dataclass(frozen=True, kw_only=True)
class Lora:
    """The adapter (arXiv 2106.09685): low-rank updates of linear layers."""

    rank: int = 16
    """Rank of each update, 1 or more."""
    alpha: int = 32
    """The update is scaled by alpha / rank."""
    dropout: float = 0.0
    """Share of the adapter's inputs dropped while training, 0 to below 1."""
    targets: tuple[Target, ...] = ("all-linear",)
    """Layers that get one; all of them is what matches full tuning (arXiv 2305.14314, section 4)."""

    init: Init = "default"
    """First weights: default, gaussian, eva (from the first rows' activations, arXiv 2410.07170); the others do not
    work on a 4-bit base."""
    virtual_tokens: int = 16
    """Tokens before the prompt that --method prefix and prompt train, 1 or more."""

    @property
    def target_modules(self) -> str | list[str]:
        """The targets as peft takes them."""
        return "all-linear" if "all-linear" in self.targets else list(self.targets)

    def check(self) -> None:
        """Raises UserError where a value is out of its range."""
        alone = "all-linear" not in self.targets or len(self.targets) == 1
        require(
            ("lora.targets", " ".join(self.targets) or "none", bool(self.targets) and alone, "layers, or all-linear"),
            ("lora.rank", self.rank, self.rank >= 1, "at least 1"),
            ("lora.virtual-tokens", self.virtual_tokens, self.virtual_tokens >= 1, "at least 1"),
            ("lora.alpha", self.alpha, self.alpha >= 1, "at least 1"),
            ("lora.dropout", self.dropout, 0 <= self.dropout < 1, "0 to below 1"),
        )


@dataclass(frozen=True, kw_only=True)
class Tune:
    """How the adapter is trained: AdamW, a warm-up, then a cosine to 0."""

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
    """Forward passes of one optimizer step, 1 or more."""
    warmup: float = 0.05
    """Share of the steps in which the rate rises, 0 to 1."""
    clip: float = 1.0
    """Largest norm of the gradient, above 0."""
    checkpointing: Literal["auto", "on", "off", "offload"] = "auto"
    """Compute activations twice instead of keeping them; auto: where the memory plan fits only so; offload: and move
    what is still kept into the machine's memory, which needs a GPU."""
    compile: bool = False
    """Compile the model's graph first (torch.compile): minutes that only a long run on a GPU makes good."""
    save_every: int = 50
    """Steps between checkpoints, 1 or more: what a kill can cost."""
    log_every: int = 10
    """Steps between points of the loss curve, 1 or more."""

    def check(self) -> None:
        """Raises UserError where a value is out of its range."""
        require(
            ("tune.rate", self.rate, self.rate > 0, "above 0"),
            ("tune.epochs", self.epochs, 0 < self.epochs < math.inf, "above 0"),
            ("tune.steps", self.steps, self.steps is None or self.steps >= 1, "at least 1"),
            ("tune.batch", self.batch, self.batch >= 1, "at least 1"),
            ("tune.pack", self.pack, self.pack is None or self.pack >= 16, "at least 16"),
            ("tune.accumulate", self.accumulate, self.accumulate >= 1, "at least 1"),
            ("tune.warmup", self.warmup, 0 <= self.warmup <= 1, "0 to 1"),
            ("tune.clip", self.clip, self.clip > 0, "above 0"),
            ("tune.save-every", self.save_every, self.save_every >= 1, "at least 1"),
            ("tune.log-every", self.log_every, self.log_every >= 1, "at least 1"),
        )

    def steps_for(self, rows: int) -> int:
        """Optimizer steps over so many rows.

        >>> Tune(batch=4, epochs=2.0).steps_for(10)
        5
        """
        return self.steps or math.ceil(self.epochs * rows / (self.batch * self.accumulate))


@dataclass(frozen=True, kw_only=True)
class Survival:
    """What merge and export may cost, measured on the held-out rows against the model as it was trained."""

    kl_merged: float = 1e-4
    """Largest KL(trained || merged), nats a token."""
    kl_int8: float = 1e-3
    """Largest KL(trained || int8), nats a token."""
    greedy: float = 0.99
    """Least share of greedy answers that int8 leaves unchanged, 0 to 1."""
    max_tokens: int = 256
    """Cap on a greedy completion, tokens."""

    def check(self) -> None:
        """Raises UserError where a value is out of its range."""
        require(
            ("survival.kl-merged", self.kl_merged, self.kl_merged > 0, "above 0"),
            ("survival.kl-int8", self.kl_int8, self.kl_int8 > 0, "above 0"),
            ("survival.greedy", self.greedy, 0 <= self.greedy <= 1, "0 to 1"),
            ("survival.max-tokens", self.max_tokens, self.max_tokens >= 1, "at least 1"),
        )


@dataclass(frozen=True, kw_only=True)
class Forgetting:
    """What tuning may cost of another kind of problem, measured on base and trained model before the merge."""

    source: str | None = None
    """Source of such problems with traces, as of --source; pocket-easy: the pocket generator's, unseen ones."""
    problems: int = 200
    """Problems of it, from its beginning, 1 or more."""
    accuracy: float = 0.05
    """Largest fall of greedy accuracy, as a share of the problems, 0 to 1; one that may be chance does not count."""
    loss: float = 0.1
    """Largest rise of the loss on their traces, nats a token, 0 or above; one that may be chance does not count."""

    def check(self) -> None:
        """Raises UserError where a value is out of its range."""
        require(
            ("forgetting.problems", self.problems, self.problems >= 1, "at least 1"),
            ("forgetting.accuracy", self.accuracy, 0 <= self.accuracy <= 1, "0 to 1"),
            ("forgetting.loss", self.loss, self.loss >= 0, "0 or above"),
        )


FormatName = Literal["int8", "w8a16", "w8a8", "q8_0"]
"""8-bit formats: bitsandbytes · compressed-tensors, weights alone · and activations (vLLM) · GGUF (llama.cpp)."""

ServingEngine = Literal["llama.cpp", "vllm"]
"""Engines beside transformers that read exports: llama.cpp q8_0, vllm the others."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """The 8-bit formats the merged model is written in."""

    formats: tuple[FormatName, ...] = ("int8",)
    """int8 is always made, in the run's `export`, for all other commands read it; each other one in `export-NAME`."""
    gpu: DeviceName | None = None
    """The GPU that will serve: a format it can't run is refused, and its 16-bit type is taken (fp16 on a T4)."""
    engines: tuple[ServingEngine, ...] = ("llama.cpp",)
    """Engines that must read their formats too: llama.cpp (q8_0, where its package is) · vllm (the others; it must have
    room beside this process)."""
    threshold: float = 6.0
    """Activations from which LLM.int8 keeps a column in 16 bits, 0 or above; 0: none is kept."""

    @property
    def others(self) -> list[FormatName]:
        """The formats beside int8, each once."""
        return [name for name in dict.fromkeys(self.formats) if name != "int8"]

    def check(self) -> None:
        """Raises UserError where a value is out of its range."""
        require(
            ("export.formats", "none", bool(self.formats), "at least one format"),
            ("export.threshold", self.threshold, 0 <= self.threshold < math.inf, "0 or above"),
        )
