"""The layers that a training is of, in bases that call them otherwise than Llama or hold several in one."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from mathlete.errors import UserError
from mathlete.models import Shape, find_model
from mathlete.models.layers import list_linears
from mathlete.models.loading import quiet_libraries
from mathlete.models.shapes import PLAIN
from mathlete.tune import Lora, Recipe
from mathlete.tune.methods import METHODS, MethodName
from mathlete.tune.optimizers import count_parameters
from tests.conftest import CommandLine

SIZES: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 99,
    "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1,
}  # fmt: skip
GUIDES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The targets of every guide."""
OTHERS = {
    "phi3": ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
    "glm": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_up_proj", "down_proj"),
    "glm4": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_up_proj", "down_proj"),
    "gpt_neox": ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"),
    "phi": ("q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"),
    "starcoder2": ("q_proj", "k_proj", "v_proj", "o_proj", "c_fc", "c_proj"),
}
"""{kind of model: what a block of it has for these, in their order}."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kinds")


@cache
def find_shape(folder: Path, kind: str) -> Shape:
    AutoConfig.for_model(kind, **SIZES, **heads(kind)).save_pretrained(folder / kind)
    return Shape.of(find_model(str(folder / kind)))


def heads(kind: str) -> dict[str, int]:
    """As many keys as queries where that kind has no fewer."""
    return {} if kind in ("gpt_neox", "phi") else {"num_key_value_heads": 2, "head_dim": 16}


def count_trained(folder: Path, kind: str, recipe: Recipe) -> int:
    """Return the numbers that peft trains."""
    from peft import get_peft_model

    shape = find_shape(folder, kind)
    quiet_libraries()  # peft asks the base by a name that transformers warns of
    base, config = find_model(str(folder / kind)).build_empty(), recipe.spec.configure(recipe.lora, shape)
    assert config is not None
    model: Any = get_peft_model(base, config)
    return int(model.get_nb_trainable_parameters()[0])


@pytest.mark.parametrize("kind", sorted(PLAIN))
def test_the_layers_of_a_plain_kind_are_known_without_building_it(folder: Path, kind: str) -> None:
    shape = find_shape(folder, kind)
    assert shape.own_linears == ()
    built = list_linears(find_model(str(folder / kind)).build_empty())
    assert {name: (inputs, outputs) for name, inputs, outputs in built} == shape.linears


@pytest.mark.parametrize("kind", OTHERS)
def test_targets_of_another_kind_are_refused_with_its_own_which_are_trained(folder: Path, kind: str) -> None:
    shape = find_shape(folder, kind)
    assert {*shape.linears} == {*OTHERS[kind]}
    with pytest.raises(UserError, match=r"--lora\.targets must be linear layers of the base's blocks: ") as caught:
        Recipe(lora=Lora(targets=GUIDES)).require_layers(find_model(str(folder / kind)))
    assert caught.value.cure.startswith(f"use --lora.targets {' '.join(OTHERS[kind])}, ")
    for lora in (Lora(targets=OTHERS[kind]), Lora(targets=OTHERS[kind][:1]), Lora()):
        recipe = Recipe(lora=lora)
        assert count_trained(folder, kind, recipe) == count_parameters(recipe.spec.tensors(shape, lora))


@pytest.mark.parametrize("method", ["ia3", "dora"])
@pytest.mark.parametrize("kind", [*OTHERS, "qwen2"])
def test_a_method_chooses_its_layers_by_the_base(folder: Path, kind: str, method: MethodName) -> None:
    recipe, shape = Recipe(method=method), find_shape(folder, kind)
    assert count_trained(folder, kind, recipe) == count_parameters(METHODS[method].tensors(shape, recipe.lora))


def test_parts_are_the_cure_where_a_base_has_no_layer_of_several(workdir: Path, train: CommandLine) -> None:
    words = ("math", "--model", "pocket", "--tune.batch", 4, "--run", "r", "--lora.targets")
    told = train(*words, "qkv_proj", "down_proj").refusal
    assert "use --lora.targets q_proj k_proj v_proj down_proj" in told
    assert "got w_pack" in (told := train(*words, "w_pack").refusal)
    assert "use --lora.targets all-linear" in told
    assert not Path("r").exists()


@pytest.mark.parametrize(
    ("targets", "cure"),
    [
        (("q_proj,k_proj",), "use --lora.targets q_proj k_proj, with spaces between, which do their work"),
        (("q_proj", "lm_head"), "use --lora.targets q_proj, which do the work of all but lm_head"),
        (("self_attn.q_proj", "w2"), "use --lora.targets q_proj down_proj, which do their work"),
        (("lm_head",), "use --lora.targets all-linear"),
    ],
)
def test_the_cure_for_targets_is_true(targets: tuple[str, ...], cure: str) -> None:
    with pytest.raises(UserError) as caught:
        Recipe(lora=Lora(targets=targets)).require_layers(find_model("pocket"))
    assert caught.value.cure == cure
