"""Training on a CPU: the loss against the whole logits, dequantised weights, dropout; what is the same to the bit."""

import copy
from typing import Any

import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from mathlete.models import Shape, find_model
from mathlete.tune import METHODS, Lora, chunks, load_4bit_base, loss
from mathlete.tune.cpu import LaneDropout, spare_a_cpu
from mathlete.tune.loss import score_labels_once
from mathlete.tune.methods import MethodName
from tests.conftest import sample

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 700,
}
HEADS: dict[str, tuple[Any, Any]] = {
    "tied": (Qwen2ForCausalLM, Qwen2Config(**SIZES, tie_word_embeddings=True)),
    "own": (LlamaForCausalLM, LlamaConfig(**SIZES, tie_word_embeddings=False)),
    "capped": (Gemma2ForCausalLM, Gemma2Config(**SIZES, head_dim=8, final_logit_softcapping=2.0)),
    "scaled": (CohereForCausalLM, CohereConfig(**SIZES, logit_scale=0.3)),
    "divided": (GraniteForCausalLM, GraniteConfig(**SIZES, logits_scaling=3.0)),
}
FIGURES = ("log_probs", "entropy", "mean_logits", "is_top1")


def model_of(head: str, *, trained: bool) -> Any:
    """Random weights whose logits differ, the head frozen or trained."""
    torch.manual_seed(0)
    kind, config = HEADS[head]
    model = kind(config).eval()
    model.get_input_embeddings().weight.data *= 20
    model.get_output_embeddings().weight.data *= 20 if not config.tie_word_embeddings else 1
    for weight in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
        weight.requires_grad_(trained)
    return model


def batch_of(rows: int = 3, tokens: int = 40) -> dict[str, torch.Tensor]:
    """Rows whose prompts, and the end of one, have no loss."""
    ids = torch.randint(0, 700, (rows, tokens), generator=torch.Generator().manual_seed(1))
    labels = ids.clone()
    labels[:, :7] = -100
    labels[0, 25:] = -100
    return {"input_ids": ids, "labels": labels}


def fused(model: Any) -> Any:
    """A copy with TRL's head, whose labels are scored once."""
    from trl.trainer.utils import add_fused_lm_head

    model = copy.deepcopy(model)
    add_fused_lm_head(model, outputs=FIGURES)
    assert score_labels_once(model)
    return model


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def assert_same_gradients(model: Any, other: Any) -> None:
    ours, theirs = gradients(model), gradients(other)
    assert ours.keys() == theirs.keys()
    assert ours
    for name, gradient in ours.items():
        assert (gradient - theirs[name]).norm() <= 1e-5 * theirs[name].norm(), name


@pytest.fixture(params=["one", "many"])
def _chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All tokens at once, and some at a time of which some are turned into probabilities at a time."""
    if request.param == "many":
        monkeypatch.setattr(chunks, "CHUNK_BYTES", 4 * 700 * 17)
        monkeypatch.setattr(loss, "BLOCK_BYTES", 4 * 700 * 5)


@pytest.mark.usefixtures("_chunks")
@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("head", HEADS)
def test_losses_and_gradients_are_those_of_the_whole_logits(head: str, trained: bool) -> None:
    plain = model_of(head, trained=trained)
    ours, batch = fused(plain), batch_of()
    expected = plain(**batch)
    output = ours(**batch, fused_lm_head=True)
    assert output.loss.item() == pytest.approx(expected.loss.item(), rel=1e-5)
    expected.loss.backward()
    output.loss.backward()
    assert_same_gradients(ours, plain)
    with torch.no_grad():
        logits = plain(input_ids=batch["input_ids"]).logits[:, :-1].float()
    targets, mask = batch["labels"][:, 1:], batch["labels"][:, 1:] != -100
    shares = logits.log_softmax(-1)
    figures = {
        "log_probs": shares.gather(-1, targets.clamp(min=0)[..., None])[..., 0],
        "entropy": -(shares.exp() * shares).sum(-1),
        "mean_logits": logits.mean(-1),
        "is_top1": logits.argmax(-1) == targets,
    }
    for name, figure in figures.items():
        torch.testing.assert_close(output[name], figure.masked_fill(~mask, 0), rtol=1e-5, atol=1e-5)


def test_packed_rows_are_scored_as_they_are() -> None:
    plain = model_of("tied", trained=False)
    ours, batch = fused(plain), batch_of(rows=1)
    batch["position_ids"] = torch.cat([torch.arange(16), torch.arange(24)])[None]
    batch["labels"][:, 16] = -100  # no token of one row is scored as the next of another
    expected, output = plain(**batch, use_cache=False), ours(**batch, fused_lm_head=True)
    assert output.loss.item() == pytest.approx(expected.loss.item(), rel=1e-5)
    expected.loss.backward()
    output.loss.backward()
    assert_same_gradients(ours, plain)


@pytest.mark.parametrize("trained", [False, True])
def test_passes_of_a_step_add_up_to_one(trained: bool) -> None:
    """Rows with more tokens weigh more, as in one pass over all."""
    plain, batch = model_of("own", trained=trained), batch_of(rows=4)
    ours, count = fused(plain), int((batch["labels"][:, 1:] != -100).sum())
    plain(**batch).loss.backward()
    for rows in (slice(0, 1), slice(1, 4)):
        part = {name: values[rows] for name, values in batch.items()}
        ours(**part, num_items_in_batch=count, fused_lm_head=True).loss.backward()
    assert_same_gradients(ours, plain)


@pytest.mark.parametrize("trained", [False, True])
def test_tokens_may_weigh_differently(trained: bool) -> None:
    """As preferences do, and rewards."""
    plain, batch = model_of("own", trained=trained), batch_of()
    ours, weights = fused(plain), torch.randn(3, 39, generator=torch.Generator().manual_seed(2))
    shares = plain(input_ids=batch["input_ids"]).logits[:, :-1].log_softmax(-1)
    targets = batch["labels"][:, 1:]
    log_probs = shares.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    (log_probs * weights).masked_fill(targets == -100, 0).sum().backward()
    (ours(**batch, fused_lm_head=True).log_probs * weights).sum().backward()
    assert_same_gradients(ours, plain)


@pytest.mark.parametrize("trained", [False, True])
def test_a_batch_without_loss_is_a_zero_that_can_be_differentiated(trained: bool) -> None:
    ours, batch = fused(model_of("own", trained=trained)), batch_of()
    batch["labels"][:] = -100
    output = ours(**batch, fused_lm_head=True)
    output.loss.backward()
    assert output.loss.item() == 0
    assert not any(gradient.any() for gradient in gradients(ours).values())


def test_in_bf16_it_is_as_near_to_fp32_as_the_whole_logits_are() -> None:
    exact = model_of("own", trained=False)
    whole, ours, batch = copy.deepcopy(exact), fused(exact), batch_of()
    exact(**batch).loss.backward()
    with torch.autocast("cpu", torch.bfloat16):
        expected, output = whole(**batch), ours(**batch, fused_lm_head=True)
    expected.loss.backward()
    output.loss.backward()
    assert output.loss.item() == pytest.approx(expected.loss.item(), rel=1e-3)
    truth = gradients(exact)

    def distance(model: Any) -> float:
        return float(sum((gradient - truth[name]).norm() ** 2 for name, gradient in gradients(model).items()))

    assert distance(ours) < 1.2 * distance(whole)


def test_without_the_function_the_forward_pass_of_trl_stays() -> None:
    plain = model_of("tied", trained=False)
    before = plain.forward
    assert not score_labels_once(plain)
    assert plain.forward == before


@pytest.mark.parametrize("dtype", sample("bfloat16", slow=["float32"]))
def test_4_bit_weights_dequantised_once_train_to_the_same_bits(dtype: str) -> None:
    from peft import LoraConfig, get_peft_model

    ids = torch.arange(3, 40)[None]
    seen = []
    for dense in (False, True):
        torch.manual_seed(0)
        base = load_4bit_base(find_model("pocket"), dense=dense, computing=dtype)
        model: Any = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", init_lora_weights="gaussian"))
        for weight in model.parameters():
            if weight.requires_grad:
                weight.data = weight.data.float() + 0.01
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            output = model(input_ids=ids, labels=ids)
        output.loss.backward()
        seen.append([output.loss, *gradients(model).values()])
    assert len(seen[0]) > 20
    assert all(torch.equal(*pair) for pair in zip(*seen, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_by_lanes_is_dropout(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    share, inputs = 0.05, torch.full((300, 1001), 3.0, dtype=dtype, requires_grad=True)
    dropout = LaneDropout(share)
    outputs = dropout(inputs)
    outputs.sum().backward()
    kept = outputs != 0
    assert inputs.grad is not None
    assert torch.equal(inputs.grad != 0, kept)
    # Four standard deviations of as many draws.
    assert (~kept).float().mean().item() == pytest.approx(share, abs=4 * (share / kept.numel()) ** 0.5)
    assert torch.unique(outputs[kept]).tolist() == [
        pytest.approx(3 / 0.95, rel=1e-4 if dtype == torch.float32 else 4e-3)
    ]
    assert not torch.equal(dropout(inputs), outputs)
    assert torch.equal(dropout.eval()(inputs), inputs)
    assert torch.equal(LaneDropout(0.0)(inputs), inputs)


def test_lanes_are_independent_of_each_other() -> None:
    torch.manual_seed(1)
    dropped = (LaneDropout(0.5)(torch.ones(40_000)) == 0).float().view(-1, 4)
    assert (torch.corrcoef(dropped.T) - torch.eye(4)).abs().max() < 0.04
    assert (dropped.mean(0) - 0.5).abs().max() < 0.02


@pytest.mark.parametrize("method", sample("lora", slow=["dora"]))
def test_a_cpu_is_spared_without_another_result(method: MethodName) -> None:
    """Inputs of adapters that stay in 16 bits give the bits that a detour over fp32 gives."""
    from peft import get_peft_model

    ids, seen = torch.arange(3, 40)[None], []
    for spared in (False, True):
        torch.manual_seed(0)
        base = load_4bit_base(find_model("pocket"), dense=True, computing="bfloat16")
        config: Any = METHODS[method].configure(Lora(rank=4), Shape.of(find_model("pocket")))
        model: Any = get_peft_model(base, config)
        if spared:
            spare_a_cpu(model, dtype="bfloat16")
        with torch.autocast("cpu", torch.bfloat16):
            output = model(input_ids=ids, labels=ids)
        output.loss.backward()
        seen.append([output.loss, *gradients(model).values()])
    assert all(torch.equal(*pair) for pair in zip(*seen, strict=True))
