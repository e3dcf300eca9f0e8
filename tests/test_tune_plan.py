"""The memory plan against what real models on this machine hold and keep; its laws; how it is asked for."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from weakref import WeakSet

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM, Phi3Config, Phi3ForCausalLM, Qwen2Config, Qwen2ForCausalLM

from mathlete.errors import UserError
from mathlete.models import GPUS, Device, Shape, find_model, load_model
from mathlete.models.shapes import SHAPES
from mathlete.tune import Lora, Recipe, Tune, load_4bit_base, plan_training
from mathlete.tune.cpu import spare_a_cpu
from mathlete.tune.fitting import make_plan, require_room, split_to_fit
from mathlete.tune.loss import score_labels_once
from mathlete.tune.memory import count_nf4_bytes
from mathlete.tune.methods import MethodName
from mathlete.tune.plan import Plan
from mathlete.tune.ranks import Ranks
from mathlete.tune.settings import Updates
from mathlete.tune.start import load_base
from tests.conftest import CommandLine, sample

CPU = Device(name="cpu", memory=2**34, capability=None)
SIZES: dict[str, Any] = {
    "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 3, "num_attention_heads": 8,
    "num_key_value_heads": 2, "vocab_size": 2048,
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Models of random weights, and the pocket model."""
    folder = tmp_path_factory.mktemp("shapes")
    torch.manual_seed(0)
    Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=False)).save_pretrained(folder / "qwen2")
    LlamaForCausalLM(LlamaConfig(**SIZES, head_dim=48)).save_pretrained(folder / "llama")
    Phi3ForCausalLM(Phi3Config(**SIZES, pad_token_id=0)).save_pretrained(folder / "phi3")
    return {"pocket": "pocket", **{name: str(folder / name) for name in ("qwen2", "llama", "phi3")}}


def shape_and_model(name: str) -> tuple[Shape, Any]:
    source = find_model(name)
    return Shape.of(source), load_model(source, precision="nf4")


def bytes_of(tensors: Any) -> int:
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)


@pytest.mark.parametrize("name", ["pocket", "qwen2", "llama", "phi3"])
def test_the_bytes_of_the_base_are_those_of_its_tensors(folders: dict[str, str], name: str) -> None:
    shape, model = shape_and_model(folders[name])
    quantized, dense = [], []
    for weight in model.parameters():
        if hasattr(weight, "quant_state"):
            state = weight.quant_state
            quantized += [weight, state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code]
        else:
            dense.append(weight)
    assert bytes_of(quantized) == count_nf4_bytes(shape)
    assert bytes_of(dense) == plan(shape).parts.base_dense
    assert model.num_parameters() == shape.parameters


def plan(shape: Shape, **more: Any) -> Plan:
    settings: dict[str, Any] = {"device": CPU, "longest": 192, "checkpointing": False}
    recipe = Recipe(**{"tune": Tune(batch=1), **{key: more.pop(key) for key in ("lora", "tune") if key in more}})
    return Plan(shape=shape, recipe=recipe, **{**settings, **more})


@pytest.mark.parametrize("bf16", [False, True])
def test_dequantised_once_the_base_is_dense(folders: dict[str, str], bf16: bool) -> None:
    """As it is on a CPU with and without bf16 instructions."""
    source = find_model(folders["qwen2"])
    shape = Shape.of(source)
    planned = plan(shape, dense=True)
    model = load_4bit_base(source, dense=True, computing="bfloat16" if bf16 else "float32")
    assert planned.parts.base_4bit == 0
    assert planned.parts.base_dense == bytes_of(model.parameters()) * (2 if bf16 else 1)


@pytest.mark.parametrize(
    ("memory", "dense", "checkpointing"),
    [(64, True, False), (14.5, False, False), (12.5, True, True), (4, False, True), (2, False, True)],
)
def test_a_cpu_dequantises_first_where_memory_allows(memory: float, dense: bool, checkpointing: bool) -> None:
    device = replace(CPU, memory=int(memory * 2**30), bf16_instructions=True)
    planned = make_plan(SHAPES["r1-qwen-1.5b"], device=device, recipe=Recipe(tune=Tune(batch=8)), longest=512)
    assert (planned.dense, planned.checkpointing) == (dense, checkpointing)
    assert planned.fits == (memory > 2)
    assert planned.dtype == "bfloat16"
    sharded = make_plan(
        planned.shape, device=device, recipe=planned.recipe, longest=512, ranks=Ranks(size=2, sharded=True)
    )
    assert (sharded.dense, sharded.dtype) == (False, "float32")


@pytest.mark.parametrize("lora", [Lora(), Lora(rank=3, targets=("q_proj", "v_proj", "down_proj"))])
def test_adapter_gradients_and_optimizer_are_exact(folders: dict[str, str], lora: Lora) -> None:
    shape, model = shape_and_model(folders["qwen2"])
    model = adapt(model, lora)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, fused=True)
    model(input_ids=torch.arange(20)[None]).logits.sum().backward()
    optimizer.step()
    parts = plan(shape, lora=lora).parts
    assert bytes_of(weights) == parts.adapter
    assert bytes_of([weight.grad for weight in weights]) == parts.gradients
    moments = [state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    assert bytes_of(moments) == parts.optimizer


def adapt(model: Any, lora: Lora) -> Any:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )  # fmt: skip
    return get_peft_model(model, config).train()


@dataclass(eq=False)
class Held:
    """A tensor that autograd keeps."""

    tensor: torch.Tensor


@contextmanager
def count_held() -> Iterator[WeakSet[Held]]:
    """What autograd keeps; what a discarded part of the graph kept is gone."""
    held: WeakSet[Held] = WeakSet()

    def pack(tensor: torch.Tensor) -> Held:
        one = Held(tensor)
        held.add(one)
        return one

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda one: one.tensor):
        yield held


def bytes_kept(held: WeakSet[Held], model: Any) -> int:
    """Bytes of these, each storage once, the model's own tensors aside."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    storages = [one.tensor.untyped_storage() for one in held]
    return sum({one.data_ptr(): one.nbytes() for one in storages if one.data_ptr() not in own}.values())


def count_kept_bytes(
    name: str, recipe: Recipe, *, checkpointing: bool = False, dense: bool = False, device: Device = CPU
) -> tuple[Plan, int]:
    """Return (the plan, bytes that autograd really keeps) of one forward pass of batches of 192 tokens a row."""
    from peft import get_peft_model
    from trl.trainer.utils import add_fused_lm_head

    source, batch = find_model(name), recipe.tune.batch
    plan = Plan(
        shape=Shape.of(source), device=device, recipe=recipe, longest=192, checkpointing=checkpointing, dense=dense
    )
    model: Any = load_base(source, plan)
    config = recipe.spec.configure(recipe.lora, plan.shape)
    model = (model if config is None else get_peft_model(model, config)).train()
    add_fused_lm_head(model if config is None else model.get_base_model())
    assert score_labels_once(model)
    spare_a_cpu(model, dtype=plan.dtype)
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    ids = torch.randint(0, 500, (batch, 192))
    mask = torch.ones_like(ids)
    if batch > 1:
        mask[0, :90] = 0  # left-padded, as a batch of rows that differ in length
    with count_held() as held, torch.autocast("cpu", torch.bfloat16, enabled=plan.dtype == "bfloat16"):
        output = model(input_ids=ids, attention_mask=mask, labels=ids, fused_lm_head=True)
    kept = bytes_kept(held, model)
    del output
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    assert sum(weight.numel() for weight in weights) == plan.trained_parameters
    return plan, kept


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning")
@pytest.mark.parametrize(
    ("name", "batch", "lora", "checkpointing"),
    sample(
        ("qwen2", 2, Lora(targets=("k_proj", "down_proj"), dropout=0.1), False),
        ("llama", 1, Lora(), False),
        ("pocket", 4, Lora(), False),
        ("qwen2", 3, Lora(), True),
        slow=[
            ("qwen2", 1, Lora(), False),
            ("qwen2", 3, Lora(), False),
            ("qwen2", 1, Lora(rank=32, dropout=0.05), True),
            ("qwen2", 1, Lora(rank=32, dropout=0.05), False),
            ("qwen2", 1, Lora(targets=("q_proj", "v_proj")), False),
            ("qwen2", 1, Lora(), True),
            ("qwen2", 1, Lora(targets=("q_proj", "v_proj")), True),
            ("qwen2", 2, Lora(targets=("k_proj", "down_proj"), dropout=0.1), True),
            ("llama", 1, Lora(), True),
            ("phi3", 1, Lora(), False),
            ("phi3", 2, Lora(targets=("qkv_proj",)), False),
            ("pocket", 4, Lora(), True),
        ],
    ),
)
def test_activations_are_within_15_percent_of_what_autograd_keeps(
    folders: dict[str, str], name: str, batch: int, lora: Lora, checkpointing: bool
) -> None:
    recipe = Recipe(lora=lora, tune=Tune(batch=batch))
    plan, kept = count_kept_bytes(folders[name], recipe, checkpointing=checkpointing)
    assert plan.parts.activations == pytest.approx(kept, rel=0.15)


@pytest.mark.parametrize("dropout", sample(0.05, slow=[0.0]))
def test_in_bf16_on_a_cpu_they_are_too(
    folders: dict[str, str], dropout: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Device, "large_model", 0)
    device = replace(CPU, bf16_instructions=True)
    recipe = Recipe(lora=Lora(rank=32, dropout=dropout), tune=Tune(batch=2))
    plan, kept = count_kept_bytes(folders["qwen2"], recipe, dense=True, device=device)
    assert plan.dtype == "bfloat16"
    assert plan.parts.activations == pytest.approx(kept, rel=0.15)


@pytest.mark.parametrize("batch", sample(3, slow=[1]))
@pytest.mark.parametrize("method", sample("dora", "full", "prefix", slow=["ia3", "rslora", "prompt"]))
def test_each_methods_activations_are_within_15_percent(
    folders: dict[str, str], method: MethodName, batch: int
) -> None:
    plan, kept = count_kept_bytes(folders["qwen2"], Recipe(method=method, tune=Tune(batch=batch)))
    assert plan.parts.activations == pytest.approx(kept, rel=0.15)


def test_the_presets_shapes_are_those_of_their_configs(shared: Path) -> None:
    files = list((shared / "tokenizers" / "configs").glob("*.json"))
    shapes = [Shape.from_config(json.loads(file.read_text())) for file in files]
    assert sorted(shape.parameters for shape in shapes) == sorted(shape.parameters for shape in SHAPES.values())
    assert all(shape in SHAPES.values() for shape in shapes)


PLANS = st.builds(
    lambda name, batch, longest, pack, checkpointing, device, rank: make_plan(
        SHAPES[name],
        device=GPUS[device],
        recipe=Recipe(
            lora=Lora(rank=rank),
            tune=Tune(batch=batch, pack=longest if pack else None, checkpointing=checkpointing),
        ),
        longest=longest,
    ),
    st.sampled_from([*SHAPES]),
    st.integers(1, 64),
    st.integers(256, 32768),
    st.booleans(),
    st.sampled_from(["auto", "on", "off"]),
    st.sampled_from([*GPUS]),
    st.integers(1, 256),
)


@given(PLANS)
def test_a_plan_that_does_not_fit_has_a_cure_that_does(planned: Plan) -> None:
    assert planned.peak == sum(planned.parts.by_name().values())
    assert min(planned.parts.by_name().values()) >= 0
    if planned.fits:
        assert planned.cure == ""
        return require_room(planned)
    with pytest.raises(UserError, match=f"GiB on {planned.device.name}"):
        require_room(planned)
    cure = planned.cure
    if not cure.startswith("use --"):
        fixed = ("base_4bit", "base_dense", "adapter", "gradients", "optimizer", "cuda_context")
        assert sum(planned.parts.by_name()[name] for name in fixed) > planned.device.memory / 2
        return None
    words = cure.removeprefix("use ").split()
    named = dict(zip(words, [*words[1:], ""], strict=True))
    tune = Tune(
        batch=int(named.get("--tune.batch", planned.tune.batch)),
        pack=int(named["--tune.pack"]) if "--tune.pack" in named else planned.tune.pack,
        checkpointing="offload" if "offload" in words else "auto",
        updates=Updates(optimizer=named.get("--tune.optimizer", planned.tune.updates.optimizer)),
    )
    longest = int(named.get("--rows.max-tokens", planned.longest))
    assert make_plan(
        planned.shape, device=planned.device, recipe=replace(planned.recipe, tune=tune), longest=longest
    ).fits


@given(PLANS, st.integers(1, 1000))
def test_longer_rows_need_more_and_checkpointing_keeps_less(planned: Plan, more: int) -> None:
    def of(**changed: Any) -> Plan:
        recipe = replace(planned.recipe, tune=Tune(batch=planned.tune.batch))
        settings: Any = {"longest": planned.longest, "checkpointing": False, **changed}
        return Plan(shape=planned.shape, device=planned.device, recipe=recipe, **settings)

    assert of(longest=planned.longest + more).peak > of().peak
    assert of(checkpointing=True).parts.activations < of().parts.activations
    assert of(checkpointing=True).peak < of().peak + of().parts.backward + of()._block


@pytest.mark.parametrize(
    ("model", "device", "batch"),
    [
        ("r1-qwen-1.5b", "h100", 8),
        ("r1-qwen-1.5b", "l4", 8),
        ("r1-qwen-7b", "l4", 2),
        ("r1-qwen-14b", "l4", 1),
        ("r1-llama-8b", "a100-40", 4),
        # Nothing fits: it stays, and the plan's refusal says what would.
        ("r1-qwen-14b", "t4", 8),
    ],
)
def test_a_pass_has_as_many_rows_as_fit_and_a_step_always_the_same(model: str, device: str, batch: int) -> None:
    recipe = Recipe(lora=Lora(rank=32, targets=("all-linear",)), tune=Tune(batch=8, accumulate=2))
    split = split_to_fit(recipe, SHAPES[model], device=GPUS[device], longest=8192)
    assert (split.tune.batch, split.tune.batch * split.tune.accumulate) == (batch, 16)
    fits = make_plan(SHAPES[model], device=GPUS[device], recipe=split, longest=8192).fits
    assert fits == (device != "t4")


@given(PLANS, st.integers(2, 8))
def test_processes_share_rows_and_with_fsdp_the_weights(alone: Plan, processes: int) -> None:
    rows = replace(alone, ranks=Ranks(size=processes))
    shared = replace(alone, ranks=Ranks(size=processes, sharded=True))
    assert rows.tokens * processes >= alone.tokens >= rows.tokens
    assert rows.parts.base_4bit == alone.parts.base_4bit
    held = ("base_4bit", "base_dense", "adapter", "gradients", "optimizer")
    for name in held:
        whole, shard = alone.parts.by_name()[name], shared.parts.by_name()[name]
        assert whole <= shard * processes <= whole + 2 * processes
    # The model is whole for a moment, when it is read.
    assert alone.parts.gathered is None
    assert shared.parts.gathered is not None
    whole = alone.parts.base_4bit + alone.parts.base_dense + alone.parts.adapter
    assert whole <= shared.peak <= rows.peak + shared.parts.gathered


@pytest.mark.parametrize(("model", "device"), [("r1-llama-8b", "t4"), ("r1-qwen-14b-4bit", "l4"), ("pocket", "h200")])
def test_a_plan_is_printed_without_loading_anything(model: str, device: str, workdir: Path, train: CommandLine) -> None:
    done = train("math", "--model", model, "--plan", "--device", device, "--json")
    printed = json.loads(done.stdout)
    assert done.code == (0 if printed["fits"] else 1)
    assert {"peak_gib", "parts", "fits", "cure"} <= printed.keys()
    assert printed["peak_gib"] == pytest.approx(sum(printed["parts"].values()), abs=1e-3)
    assert printed["dtype"] == ("float16" if device == "t4" else "bfloat16")
    assert not [*workdir.iterdir()]


def test_a_plan_for_a_named_gpu_does_without_torch(root: Path) -> None:
    code = (
        "import sys; from mathlete.command import run_command_line as r; from train.commands import COMMANDS as c\n"
        "assert r(['math', '--model', 'r1-qwen-7b', '--plan', '--device', 'l4'], prog='x', commands=c) == 0\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert "base_4bit" in done.stdout


FEW = ("--limit", "20", "--survival.trial-rows", "0")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--device", "t4"], "--device is what to plan for, got t4"),
        (["--plan", "--model", "none/such"], "hf download none/such"),
        (
            ["--tune.checkpointing", "offload", *FEW],
            "--tune.checkpointing offload moves activations off a GPU, got no GPU",
        ),
        (["--tune.batch", "2000000", *FEW], "use --tune.batch 1 --tune.accumulate 2000000"),
    ],
)
def test_what_cannot_be_planned_or_does_not_fit_is_exit_2(
    words: list[str], message: str, workdir: Path, train: CommandLine
) -> None:
    assert message in train("math", *([] if "--model" in words else ["--model", "pocket"]), *words).refusal


def test_devices_are_known_by_name() -> None:
    source = find_model("pocket")
    with pytest.raises(UserError, match="did you mean h100"):
        plan_training(source, recipe=Recipe(), longest=256, gpu="h10")
    assert plan_training(source, recipe=Recipe(), longest=256).device.memory > 2**28
    assert plan(SHAPES["r1-qwen-1.5b"]).to_json()["dtype"] == "float32"
