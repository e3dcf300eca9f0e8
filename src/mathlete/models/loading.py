"""Models loaded for the hardware at hand: dense, in 8 or in 4 bits."""

import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mathlete.errors import UserError
from mathlete.models.hardware import compute_dtype, device_name
from mathlete.models.names import ModelSource, unreachable
from mathlete.runs import read_json

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Precision = Literal["auto", "dense", "int8", "nf4"]
"""How weights are held: as the folder says · 16/32-bit · bitsandbytes LLM.int8 · bitsandbytes NF4, double-quantised."""


def weight_bytes(folder: Path) -> int:
    """Size of a model folder's weights."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def quiet_libraries() -> None:
    """Silences messages that come thousands of times and ask nothing of the user."""
    import transformers

    messages: Any = transformers.logging
    # Every int8 matmul warns that float32 inputs are cast to float16.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="MatMul8bitLt: inputs will be cast")
    # transformers 5 renames it; TRL and peft still ask for it by its old name.
    warnings.filterwarnings("ignore", message="`(is_)?gradient_checkpointing` is deprecated", category=FutureWarning)
    # TRL makes the peft model, and has no word for it.
    warnings.filterwarnings("ignore", message="lora with eva initialization used with low_cpu_mem_usage=False")
    messages.disable_progress_bar()
    messages.set_verbosity_error()


OUTLIER = 6.0
"""Activations from which LLM.int8 keeps a column in 16 bits (arXiv 2208.07339, section 3.2)."""


def quantization(precision: Precision, *, threshold: float = OUTLIER) -> Any:
    """The bitsandbytes configuration of a precision; None for `auto` and `dense`."""
    import transformers

    config: Any = transformers.BitsAndBytesConfig
    if precision == "int8":
        return config(load_in_8bit=True, llm_int8_threshold=threshold)
    if precision == "nf4":
        dtype, _ = compute_dtype()
        return config(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    return None


def load_model(
    source: ModelSource, *, precision: Precision = "auto", dtype: str | None = None, threshold: float = OUTLIER
) -> "PreTrainedModel":
    """The model in eval mode on this machine's device, its weights held as `precision` says.

    Args:
        source: where its files are.
        precision: how its linear layers are held.
        dtype: of activations and dense weights, as torch names it; None takes this machine's.
        threshold: LLM.int8's, where the weights become int8 here.

    Raises:
        UserError: not on this machine nor on the hub, or not a model.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    quiet_libraries()
    own = is_quantized(source)
    if own and precision == "dense":
        raise UserError(
            "dense weights need a model that is not quantised",
            value=source.location,
            cure="leave the precision at auto, merge with --merge-base dequant, or name the original model",
        )
    # A model that is quantised already stays as it is.
    config = None if own else quantization(precision, threshold=threshold)
    # Left out where there is none: transformers takes an explicit None for "not quantised", and loads the integers of
    # an 8-bit folder as if they were the weights.
    quantized = {} if config is None else {"quantization_config": config}
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            source.location,
            revision=source.revision,
            dtype=dtype or compute_dtype()[0],
            device_map={"": device_name()},
            **quantized,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise unreachable(source, error) from error
    if own:
        _compute_in(model, compute_dtype()[0])
    model.train(False)
    return model


def is_quantized(source: ModelSource) -> bool:
    """Whether the model's own files are quantised already.

    Raises:
        UserError: not on this machine nor on the hub, or not a model.
    """
    return "quantization_config" in model_config(source)


def model_config(source: ModelSource) -> dict[str, Any]:
    """The model's config.json.

    Raises:
        UserError: not on this machine nor on the hub, or not a model.
    """
    from transformers.utils.hub import cached_file

    try:
        file = cached_file(source.location, "config.json", revision=source.revision)
    except (OSError, ValueError) as error:
        raise unreachable(source, error) from error
    return read_json(Path(str(file)))


def _compute_in(model: Any, dtype: "torch.dtype") -> None:
    # Its config names the type its maker computed in: bf16, as a rule, which a T4 has not.
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            module.compute_dtype, module.compute_type_is_set = dtype, True
