"""Models loaded for the hardware at hand: dense, in 8 or in 4 bits."""

import importlib
import logging
import warnings
from typing import TYPE_CHECKING, Any, Literal

from mathlete.errors import UserError
from mathlete.models.hardware import Device
from mathlete.models.names import ModelSource
from mathlete.models.unreadable import explain_unreadable

if TYPE_CHECKING:
    import torch
    from transformers import BitsAndBytesConfig, PreTrainedModel

Precision = Literal["auto", "dense", "int8", "nf4"]
"""How weights are held: as the folder says · 16/32-bit · bitsandbytes LLM.int8 · bitsandbytes NF4, double-quantised."""


def quiet_libraries() -> None:
    """Silence messages that come thousands of times and need nothing done."""
    import transformers

    messages: Any = transformers.logging
    # Every int8 matmul warns that float32 inputs are cast to float16.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="MatMul8bitLt: inputs will be cast")
    # transformers 5 renames it; TRL and peft still ask a loaded model for it by its old name.
    warnings.filterwarnings("ignore", message="`(is_)?gradient_checkpointing` is deprecated", category=FutureWarning)
    messages.disable_progress_bar()
    messages.set_verbosity_error()
    _draw_no_bars()


def _draw_no_bars() -> None:
    """Have libraries draw no bars of their own: in a log each is one long line, on a terminal it breaks ours.

    compressed-tensors asks for its bars in so many words, which TQDM_DISABLE does not overrule; and that would overrule
    the hub's, whose downloads have no other.
    """
    std: Any = importlib.import_module("tqdm.std")  # has no type hints
    drawn = std.tqdm.__init__
    if drawn.__name__ == "draw_none":
        return

    def draw_none(bar: object, *given: object, **how: object) -> None:
        if not type(bar).__module__.startswith("huggingface_hub"):
            how["disable"] = True
        drawn(bar, *given, **how)

    std.tqdm.__init__ = draw_none


OUTLIER = 6.0
"""Activations from which LLM.int8 keeps a column in 16 bits (arXiv 2208.07339, section 3.2)."""


def _quantization(precision: Precision, *, threshold: float, dtype: "torch.dtype") -> "BitsAndBytesConfig | None":
    """Return the bitsandbytes configuration of a precision that computes in `dtype`; None for `auto` and `dense`."""
    import transformers

    constructor: Any = transformers.BitsAndBytesConfig  # has no type hints
    config: BitsAndBytesConfig | None = None
    if precision == "int8":
        config = constructor(load_in_8bit=True, llm_int8_threshold=threshold)
    elif precision == "nf4":
        config = constructor(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    return config


def load_model(
    source: ModelSource,
    *,
    precision: Precision = "auto",
    dtype: str | None = None,
    threshold: float = OUTLIER,
    gguf_file: str | None = None,
) -> "PreTrainedModel":
    """Load the model in eval mode onto this machine's device, its weights held as `precision` says.

    Args:
        source: where its files are.
        precision: how its linear layers are held.
        dtype: of activations and dense weights, as torch names it; None takes this machine's.
        threshold: LLM.int8's, where the weights become int8 here.
        gguf_file: the GGUF file in its folder to read instead; its weights are dequantised.

    Raises:
        UserError: not on this machine nor on the hub, or not a model.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from mathlete.models.generation import keep_settings

    quiet_libraries()
    if gguf_file is None:
        source.require_weights()
    device = Device.current()
    quantized = gguf_file is None and source.is_quantized()
    if quantized and precision == "dense":
        raise UserError(
            "dense weights need a model that is not quantised",
            value=source.location,
            cure="leave the precision at auto, merge with --merge-base dequant, or name the original model",
        )
    # A model that is quantised already stays as it is.
    computing: torch.dtype = device.torch_dtype if dtype is None else getattr(torch, dtype)
    config = None if quantized else _quantization(precision, threshold=threshold, dtype=computing)
    # Left out where there is none: transformers takes an explicit None for "not quantised", and loads the integers of
    # an 8-bit folder as if they were the weights.
    options: dict[str, Any] = {"quantization_config": config, "gguf_file": gguf_file}
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            source.location,
            revision=source.revision,
            dtype=computing,
            use_safetensors=None if gguf_file else True,
            trust_remote_code=False,
            device_map={"": "cpu" if device.capability is None else "cuda"},
            **{name: value for name, value in options.items() if value is not None},
        )
    except Exception as error:
        # The border to a library that reads a stranger's files: a broken one raises whatever it happens to.
        raise explain_unreadable(source, error) from error
    if quantized:
        _compute_in(model, computing)
    keep_settings(model)
    model.train(False)
    return model


def _compute_in(model: "PreTrainedModel", dtype: "torch.dtype") -> None:
    """Have a model that is quantised on the disk compute in a type: what is dense in it is read in the disk's own."""
    module: Any  # bitsandbytes' classes have no type hints
    for module in model.modules():
        # The config of a 4-bit model names the type that its maker computed in: usually bf16, which a T4 does not have.
        if type(module).__name__ == "Linear4bit":
            module.compute_dtype, module.compute_type_is_set = dtype, True
        weights = [*module.parameters(recurse=False)]
        # Whole modules only: kernels of packed weights expect the scales beside them as they are. The bytes of 4-bit
        # weights may be stored as floating-point numbers.
        if all(
            one.is_floating_point() and one.element_size() > 1 and not hasattr(one, "quant_state") for one in weights
        ):
            for weight in weights:
                weight.data = weight.data.to(dtype)
