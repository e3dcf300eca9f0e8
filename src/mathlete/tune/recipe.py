"""What decides, with model, rows and seed, which adapter a training gives."""

import json
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from mathlete.adapters import find_config_faults
from mathlete.competitions import AdapterRules
from mathlete.errors import UserError
from mathlete.models import Device, ModelSource, Shape, find_model, load_prompt_format
from mathlete.settings import flatten
from mathlete.tune.methods import METHODS, Method, MethodName
from mathlete.tune.optimizers import OPTIMIZERS
from mathlete.tune.settings import Distill, Dpo, Grpo, Lora, Tune
from mathlete.tune.shards import is_sharded

_YOUNGER = {
    "lora": ("bias",),
    "tune": ("optimizer", "weight_decay", "schedule", "warmup_steps"),
    "grpo": (
        "loss_type",
        "importance_sampling_level",
        "mask_truncated_completions",
        "overlong",
        "vllm",
        "vllm_memory",
    ),
}
"""Settings that runs begun before them lack: at their defaults, which are what such a run did, they stay unwritten."""


VLLM = ("0.22.0", "0.31.0")
"""The first and the last vLLM that TRL 1.16 takes (its `is_vllm_available`)."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A method of training with its settings."""

    method: MethodName = "lora"
    """What is trained: peft's adapters, all (full), a LoRA by pairs (dpo), rewards (grpo), teacher (distill)."""
    lora: Lora = field(default_factory=Lora)
    tune: Tune = field(default_factory=Tune)
    dpo: Dpo = field(default_factory=Dpo)
    grpo: Grpo = field(default_factory=Grpo)
    distill: Distill = field(default_factory=Distill)

    @property
    def spec(self) -> Method:
        """The method's entry in the table."""
        return METHODS[self.method]

    @property
    def groups(self) -> dict[str, Lora | Tune | Dpo | Grpo | Distill]:
        """The groups of settings that count for the method, by their names."""
        own = self.spec.group
        return {name: getattr(self, name) for name in ("lora", "tune", *([own] if own else []))}

    @property
    def weight_settings(self) -> dict[str, object]:
        """The settings that change the weights, as a step's record keeps them: those of the method's own groups."""
        groups = {name: flatten(group) for name, group in self.groups.items()}
        # How often it is saved, and where activations are kept, changes no weight.
        for key in ("save_every", "checkpointing"):
            del groups["tune"][key]
        del groups["lora"]["max_rank"]
        for name, group in self.groups.items():
            usual = flatten(type(group)())
            for one in _YOUNGER.get(name, ()):
                if groups[name][one] == usual[one]:
                    del groups[name][one]
        return {"method": self.method, **groups}

    @property
    def engine_share(self) -> float:
        """Share of a GPU's memory that an engine takes which draws samples beside the training."""
        return self.grpo.vllm_memory if self.spec.grouped and self.grpo.vllm else 0.0

    @property
    def teacher(self) -> ModelSource | None:
        """The model that is learned from; None for a method that has none."""
        return _find_teacher(self.distill.teacher) if self.spec.taught and self.distill.teacher else None

    def with_method(self, method: MethodName) -> "Recipe":
        """Return the recipe with another method, LoRA's learning rate scaled to it."""
        tune = replace(self.tune, rate=self.tune.rate * METHODS[method].rate_factor)
        return replace(self, method=method, tune=tune)

    def check(self) -> None:
        """Raise UserError where a value is out of its range, or two do not go together; nothing is loaded for it."""
        for part in (self.lora, self.tune, self.dpo, self.grpo, self.distill):
            part.check()
        spec, method = self.spec, f"--method {self.method}"
        for good, rule, value, cure in (
            (
                self.lora.init == "default" or spec.takes_init,
                f"--lora.init is not for {method}",
                self.lora.init,
                "leave it out",
            ),
            (
                self.lora.bias == "none" or spec.takes_bias,
                f"--lora.bias is not for {method}",
                self.lora.bias,
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
            (
                not spec.taught or self.distill.teacher,
                f"{method} learns from another model",
                "no --distill.teacher",
                "name one with the same tokens: a preset, a folder or a hub id",
            ),
            (
                spec.taught or self.distill.teacher is None,
                f"{method} learns from no other model",
                f"--distill.teacher {self.distill.teacher}",
                "use --method distill, or leave it out",
            ),
        ):
            if not good:
                raise UserError(rule, value=value, cure=cure)

    def require_layers(self, source: ModelSource) -> None:
        """Check that the base has the layers that will be trained.

        Raises:
            UserError: it has not.
        """
        self.spec.tensors(Shape.of(source), self.lora)

    def require_servable(self, source: ModelSource) -> None:
        """Check, where --lora.max-rank says that the adapter is handed in, that vLLM serves what will be trained.

        Raises:
            UserError: it does not.
        """
        if self.lora.max_rank is None:
            return
        config = self.spec.configure(self.lora, Shape.of(source))
        if config is None:
            rule, cure = "what is handed in must be a LoRA", "use --method lora, or leave --lora.max-rank out"
            raise UserError(rule, value=f"--method {self.method}", cure=cure)
        # A base that is none: the settings name no base, and nothing looks for one.
        rules = AdapterRules(base=("any/base",), max_rank=self.lora.max_rank)
        written = json.loads(json.dumps(config.to_dict(), default=sorted))
        for fault in find_config_faults(written, rules=rules):
            value = f"{fault.value} (--method {self.method})"
            raise UserError(fault.rule, value=value, cure="use --method lora or rslora, --lora.bias none")

    def require_teacher(self, source: ModelSource) -> None:
        """Check that the teacher, where there is one, has weights and the tokens of the model that learns from it.

        Raises:
            UserError: it has others: what it knows of a token would be learned of another.
        """
        if (teacher := self.teacher) is None:
            return
        cure = "choose a teacher of the model's own family whose config.json has the same vocab_size"
        sizes = [Shape.of(one).vocabulary for one in (source, teacher)]
        if sizes[0] != sizes[1]:
            rule = "--distill.teacher must have as many embeddings as the model: the loss compares them all"
            raise UserError(rule, value=f"{sizes[1]}, where the model has {sizes[0]}", cure=cure)
        # Behind what is known of a preset without a hub.
        teacher.require_weights()
        own, others = (load_prompt_format(one).tokenizer.get_vocab() for one in (source, teacher))
        if own != others:
            token = min({*own.items()} ^ {*others.items()}, key=lambda item: item[1])[1]
            texts = [next((text for text, index in one.items() if index == token), None) for one in (others, own)]
            rule = "--distill.teacher must have the model's own tokens"
            raise UserError(rule, value=f"token {token} is {texts[0]!r}, the model's {texts[1]!r}", cure=cure)

    def require_device(self) -> None:
        """Check that this machine's device can train so.

        Raises:
            UserError: a setting is for a GPU, or for one process alone.
        """
        name = self.tune.updates.optimizer
        optimizer, flag = OPTIMIZERS[name], f"--tune.optimizer {name}"
        if is_sharded() and not optimizer.shardable:
            raise UserError(
                "FSDP shards torch's own optimizers alone", value=flag, cure="use adamw_torch_fused, or ddp"
            )
        device = Device.current()
        if self.lora.bias != "none" and device.capability is not None and device.dtype != "float32":
            raise UserError(
                "--lora.bias trains on a CPU only: on a GPU bitsandbytes makes biases of 4-bit layers 16-bit numbers",
                value=f"--lora.bias {self.lora.bias}",
                cure="leave it out",
            )
        if device.capability is not None:
            if self.engine_share:
                require_vllm()
            return
        if self.engine_share:
            cure = "leave it out: transformers' own generation draws the samples, one token of all at a time"
            raise UserError("--grpo.vllm draws samples on a GPU", value="no GPU", cure=cure)
        if optimizer.paged:
            unpaged = name.removeprefix("paged_")
            cure = f"use {unpaged if unpaged in OPTIMIZERS else 'adamw_torch_fused'}"
            raise UserError(f"{flag} moves its moments off a GPU", value="no GPU", cure=cure)
        if self.tune.checkpointing == "offload":
            rule = "--tune.checkpointing offload moves activations off a GPU"
            raise UserError(rule, value="no GPU", cure="leave it at auto")


def require_vllm() -> None:
    """Check that a vLLM is installed that TRL takes: of another TRL only warns, and fails at the first sample.

    Raises:
        UserError: there is none, or another version.
    """
    from packaging.version import Version

    rule = f"--grpo.vllm needs a vLLM that TRL 1.16 takes, {VLLM[0]} to {VLLM[1]}"
    cure = f'pip install "vllm>={VLLM[0]},<={VLLM[1]}" into an environment of its own, or leave --grpo.vllm out'
    if find_spec("vllm") is None:
        raise UserError(rule, value="not installed", cure=cure)
    try:
        installed = version("vllm")
    except PackageNotFoundError:
        raise UserError(rule, value="a folder called vllm, and no package", cure=cure) from None
    # Without the build after a plus sign, which would stand behind the last version that is taken.
    if not Version(VLLM[0]) <= Version(Version(installed).base_version) <= Version(VLLM[1]):
        raise UserError(rule, value=installed, cure=cure)


@cache
def _find_teacher(name: str) -> ModelSource:
    """Return a teacher at the commit that it is pinned to, which the hub is asked for once a process."""
    return find_model(name).pin()[0]
