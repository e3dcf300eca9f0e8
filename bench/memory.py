"""The memory plan against a GPU's own count: one training step of the real shapes, random weights, on CUDA only.

Each case runs in a process of its own: an NF4 base, the preset's adapter, TRL's loss, two steps of AdamW on a batch
whose rows are all as long as planned. `ratio` is the plan's peak over `torch.cuda.max_memory_allocated`.
"""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Any

import torch
import tyro

from mathlete.models import Device, Shape
from mathlete.models.loading import quiet_libraries
from mathlete.models.shapes import SHAPES
from mathlete.tune import Lora, Recipe, Tune
from mathlete.tune.memory import to_gib
from mathlete.tune.methods import MethodName
from mathlete.tune.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Case:
    """One step."""

    model: str = "r1-qwen-1.5b"
    """Whose shape."""
    method: MethodName = "lora"
    """As of train math."""
    tokens: int = 8192
    """Of each row."""
    batch: int = 1
    """Rows."""
    checkpointing: bool = False
    """Compute activations twice."""


CASES = (
    Case(tokens=4096),
    Case(checkpointing=True),
    Case(tokens=1024, batch=4),
    Case(method="dora", tokens=2048),
    Case(method="ia3", tokens=4096),
    Case(method="full", tokens=2048),
    Case(model="r1-llama-8b", tokens=4096),
    Case(model="r1-llama-8b", checkpointing=True),
    Case(model="r1-qwen-7b", checkpointing=True),
    Case(model="r1-qwen-14b", checkpointing=True),
)


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """Which cases."""

    case: str = ""
    """One case as JSON, in this process; default: all, each in its own."""
    json: bool = False
    """End with one line of JSON."""


def random_model(name: str, shape: Shape, *, quantized: bool) -> Any:
    """Return a model of this shape on the GPU, if any, its blocks' linear layers in NF4, or all of it in fp32."""
    import bitsandbytes
    from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

    sizes: dict[str, Any] = {
        "vocab_size": shape.vocabulary, "hidden_size": shape.hidden, "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads,
        "tie_word_embeddings": shape.tied, "max_position_embeddings": 131072,
    }  # fmt: skip
    config = Qwen2Config(**sizes) if "qwen" in name else LlamaConfig(**sizes, head_dim=shape.head_width)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    narrow = torch.bfloat16 if device == "cuda" else torch.float32
    with torch.device(device):
        auto: Any = AutoModelForCausalLM
        model = auto.from_config(config, dtype=narrow if quantized else torch.float32)
    if not quantized:
        return model
    layers: Any = bitsandbytes.nn
    for path, old in [*model.named_modules()]:
        if isinstance(old, torch.nn.Linear) and path != "lm_head":
            new = layers.Linear4bit(
                old.in_features, old.out_features, bias=old.bias is not None, compute_dtype=narrow,
                quant_type="nf4", device="meta",
            )  # fmt: skip
            new.weight = layers.Params4bit(old.weight.data.cpu(), requires_grad=False, quant_type="nf4").to(device)
            new.bias = old.bias
            model.set_submodule(path, new)
    model.is_loaded_in_4bit = True
    return model.requires_grad_(False)


def step(case: Case) -> dict[str, object]:
    """Two training steps, and what they needed beside what was planned."""
    from peft import get_peft_model
    from trl.trainer.utils import add_fused_lm_head

    recipe = Recipe(method=case.method, lora=Lora(rank=32, dropout=0.05), tune=Tune(batch=case.batch))
    shape, config = SHAPES[case.model], recipe.spec.configure(recipe.lora, SHAPES[case.model])
    device = Device.current(free=True)
    plan = Plan(shape=shape, device=device, recipe=recipe, longest=case.tokens, checkpointing=case.checkpointing)
    base = random_model(case.model, shape, quantized=recipe.spec.quantized)
    model = base if config is None else get_peft_model(base, config)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in weights:
        weight.data = weight.data.float()
    add_fused_lm_head(base, outputs=("log_probs", "entropy", "is_top1"))
    if case.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    optimizer = torch.optim.AdamW(weights, lr=1e-4, fused=True)
    ids = torch.randint(0, 1000, (case.batch, case.tokens), device="cuda")
    mask = torch.ones_like(ids)
    if case.batch > 1:
        mask[0, : case.tokens // 4] = 0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    for _ in range(2):
        with torch.autocast("cuda", torch.bfloat16):
            loss = -model.train()(input_ids=ids, attention_mask=mask, labels=ids, fused_lm_head=True).log_probs.mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 0.3)
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
    measured = torch.cuda.max_memory_allocated()
    ratio = round(plan.allocated / measured, 3)
    return {**asdict(case), "planned_gib": to_gib(plan.allocated), "measured_gib": to_gib(measured), "ratio": ratio}


def main(settings: BenchSettings) -> None:
    """Print each case's figures."""
    if not torch.cuda.is_available():
        print("memory: needs a CUDA device")
        return
    quiet_libraries()
    if settings.case:
        print(json.dumps(step(Case(**json.loads(settings.case)))))
        return
    rows = []
    for case in CASES:
        command = [sys.executable, __file__, "--case", json.dumps(asdict(case))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{case}: {done.stderr.strip().splitlines()[-1][:200]}", file=sys.stderr)
            continue
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print({key: round(value, 3) if isinstance(value, float) else value for key, value in rows[-1].items()})
    if settings.json:
        print(json.dumps({"device": torch.cuda.get_device_name(), "rows": rows}))


if __name__ == "__main__":
    main(tyro.cli(BenchSettings))
