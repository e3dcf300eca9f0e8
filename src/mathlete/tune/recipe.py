"""What decides, with model, rows and seed, which adapter a training gives."""

from dataclasses import dataclass, field, replace

from mathlete.errors import UserError
from mathlete.tune.methods import METHODS, Method, MethodName
from mathlete.tune.settings import Dpo, Grpo, Lora, Tune


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A method of training with its settings."""

    method: MethodName = "lora"
    """What is trained: adapters by peft's names, every weight (full), a LoRA by preferences (dpo) or rewards (grpo)."""
    lora: Lora = field(default_factory=Lora)
    tune: Tune = field(default_factory=Tune)
    dpo: Dpo = field(default_factory=Dpo)
    grpo: Grpo = field(default_factory=Grpo)

    @property
    def spec(self) -> Method:
        """The method's entry in the table."""
        return METHODS[self.method]

    @property
    def groups(self) -> dict[str, Lora | Tune | Dpo | Grpo]:
        """The groups of settings that count for the method, by their names."""
        own = self.spec.group
        return {name: getattr(self, name) for name in ("lora", "tune", *([own] if own else []))}

    def with_method(self, method: MethodName) -> "Recipe":
        """Return the recipe with another method, LoRA's learning rate scaled to it."""
        tune = replace(self.tune, rate=self.tune.rate * METHODS[method].rate_factor)
        return replace(self, method=method, tune=tune)

    def check(self) -> None:
        """Raise UserError where a value is out of its range, or two do not go together; nothing is loaded for it."""
        for part in (self.lora, self.tune, self.dpo, self.grpo):
            part.check()
        spec, method = self.spec, f"--method {self.method}"
        for good, rule, value, cure in (
            (
                self.lora.init == "default" or spec.takes_init,
                f"--lora.init is not for {method}",
                self.lora.init,
                "leave it out",
            ),
            (spec.packable or self.tune.pack is None, f"{method} can't pack rows", "--tune.pack", "leave it out"),
            (
                spec.recomputable or self.tune.checkpointing not in ("on", "offload"),
                f"{method} can't compute activations twice: its prefix is the KV cache that they would need",
                f"--tune.checkpointing {self.tune.checkpointing}",
                "leave it out",
            ),
            (
                not spec.grouped or self.tune.step_rows % self.grpo.generations == 0,
                "--tune.batch times --tune.accumulate must be a multiple of --grpo.generations",
                f"{self.tune.step_rows} and {self.grpo.generations}",
                f"use --tune.batch {self.grpo.generations}",
            ),
        ):
            if not good:
                raise UserError(rule, value=value, cure=cure)
