"""Which kinds of model the embedded engine draws from as transformers computes them, tried with tiny random ones.

`PYTHONPATH=src runs/image/.environment/bin/python tests/embedded_kinds.py`, in the environment of `submit image`,
prints data/embedded.json, a minute later. A kind is in it where AutoModelForCausalLM has a class for it, and the logits
of two rows, prompts and tokens after them, are those of the whole text read at once. `-v` says of the others why not.
"""

import inspect
import json
import sys
from typing import Any

import torch
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as NAMES

from mathlete.sampling.embedded import check_covered
from mathlete.sampling.embedded.kv import ATTENTION, PromptKV, RowKV, register_attention, token_bytes

SOURCE = (
    "tests/embedded_kinds.py: kinds of model, by model_type, from which the embedded engine draws as transformers "
    "computes them, tried with tiny random models in an environment of `submit image`"
)
NAMED = {
    32: "hidden_size n_embd d_model dim word_embed_proj_dim",
    64: "intermediate_size ffn_dim n_inner ffn_hidden_size vocab_size max_position_embeddings n_positions max_seq_len",
    16: "moe_intermediate_size shared_expert_intermediate_size",
    8: "head_dim kv_lora_rank q_lora_rank qk_nope_head_dim qk_rope_head_dim v_head_dim query_pre_attn_scalar",
    6: "sliding_window",
    4: "num_attention_heads n_head n_heads num_heads num_experts num_local_experts n_routed_experts moe_num_experts "
    "rotary_dim",
    2: "num_hidden_layers n_layer n_layers num_layers num_key_value_heads num_experts_per_tok moe_k",
    1: "n_group topk_group first_k_dense_replace num_shared_experts n_shared_experts",
}
SIZES: dict[str, float | None] = {name: size for size, names in NAMED.items() for name in names.split()}
SIZES |= {"initializer_range": 0.3, "vision_config": None}
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
UNTRIED = ("blt", "falcon_h1")
"""Kinds whose sizes have names of their own, or that are computed token by token: they would take minutes."""
PROMPTS = ([5, 9, 11, 30, 7, 8, 21, 40, 41, 17, 3, 50], [6, 6, 12, 33])
TOKENS = torch.tensor([[13, 14], [22, 31], [44, 4], [9, 10], [11, 11]])
NEAR = 1e-3


def shrink(kind: type[Any]) -> dict[str, Any]:
    taken = inspect.signature(kind.__init__).parameters
    sizes = {name: size for name, size in SIZES.items() if name in taken} | IDS
    # Keys and values of low rank are unfolded for each head.
    return sizes | ({"num_key_value_heads": 4} if "kv_lora_rank" in taken else {})


def make_config(kind: str) -> Any:
    made: Any = CONFIG_MAPPING[kind]
    if "text_config" not in made.sub_configs:
        return made(**shrink(made))
    text = type(made().text_config)
    return made(text_config=shrink(text) | {"model_type": text.model_type})


@torch.inference_mode()
def measure(kind: str) -> float:
    """Return how far the engine's logits are from those of the whole text; transformers raises what it happens to."""
    make: Any = transformers.AutoModelForCausalLM  # has no type hints
    torch.manual_seed(0)
    model = make.from_config(make_config(kind), dtype=torch.float32).train(False)
    check_covered(model.config)
    model.set_attn_implementation("eager")
    wanted = []
    for row, prompt in enumerate(PROMPTS):
        whole = torch.tensor([[*prompt, *TOKENS[:, row]]])
        read = model(input_ids=whole, position_ids=torch.arange(whole.shape[1])[None], use_cache=False)
        wanted.append(read.logits[0, len(prompt) - 1 :])
    return max(float((one - other).abs().max()) for one, other in zip(wanted, draw(model), strict=True))


def draw(model: Any) -> list[torch.Tensor]:
    """Return each row's logits, of the prompt's last token and those after it, as `Batch` asks the model."""
    register_attention()
    model.set_attn_implementation(ATTENTION)
    width = max(map(len, PROMPTS)) - 1
    ids = torch.tensor([[*prompt[:-1], *[0] * (width + 1 - len(prompt))] for prompt in PROMPTS])
    prompts, rows = PromptKV(), RowKV(device=ids.device)
    model(input_ids=ids, position_ids=torch.arange(width)[None], past_key_values=prompts, logits_to_keep=1)
    held = sum(one.nbytes for one in (*prompts.keys, *prompts.values)) // (len(PROMPTS) * width)
    assert held <= token_bytes(model, itemsize=4), f"{held} bytes a token, more than planned"
    rows.add([(prompts.row(row, len(prompt) - 1), 1) for row, prompt in enumerate(PROMPTS)])
    drawn = []
    for tokens in (torch.tensor([prompt[-1] for prompt in PROMPTS]), *TOKENS):
        rows.open_column()
        step = {"input_ids": tokens[:, None], "position_ids": rows.lengths[:, None], "past_key_values": rows}
        drawn.append(model(**step, use_cache=True, logits_to_keep=1).logits[:, -1])
        rows.close_column()
    return [*torch.stack(drawn, dim=1)]


def find_kinds() -> dict[str, str]:
    """Return {kind: why it is not drawn from; "" where it is}."""
    reasons = {}
    for kind in sorted({*NAMES} - {*UNTRIED}):
        try:
            far = measure(kind)
            reasons[kind] = "" if far < NEAR else f"logits differ by {far:.2g}"
        except Exception as error:
            # The border to a library: a kind that cannot be tried may raise anything.
            reasons[kind] = f"{type(error).__name__}: {error}".splitlines()[0]
    return reasons


def main() -> None:
    messages: Any = transformers.logging
    messages.set_verbosity_error()
    reasons = find_kinds()
    kinds = [kind for kind, why in reasons.items() if not why]
    facts = {"transformers": transformers.__version__, "source": SOURCE, "kinds": kinds}
    print(json.dumps(facts, indent=2))
    if "-v" in sys.argv:
        print(*(f"{kind}: {why}" for kind, why in reasons.items() if why), sep="\n", file=sys.stderr)


if __name__ == "__main__":
    main()
