"""Models by name: the embedded pocket model, pinned hub presets, folders; loaded for the hardware at hand."""

import logging
import sys
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mathlete.errors import UserError, nearest
from mathlete.prompts import PromptFormat, instruction_of
from mathlete.runs import read_json

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Precision = Literal["auto", "dense", "int8", "nf4"]
"""How weights are held: as the folder says · 16/32-bit · bitsandbytes LLM.int8 · bitsandbytes NF4, double-quantised."""

ROUND_TRIP = (
    "Find the remainder when $23^{7} \\cdot 101$ is divided by 9.\n<think>\n23*7=161, r=8.\n</think>\n\n\\boxed{8}"
)


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """Where a model's files are."""

    name: str
    """What the user called it."""
    location: str
    """A folder, or a hub id."""
    revision: str | None = None
    """Commit of the hub repository."""

    @property
    def folder(self) -> Path | None:
        """The folder, or None for a hub id."""
        return Path(self.location) if Path(self.location).is_dir() else None

    @property
    def instruction(self) -> str:
        """The instruction it is served with."""
        return instruction_of(self.folder or Path(self.location))


def data_folder() -> Path:
    """The project's data: `data/` of a checkout, or the copy inside an installed wheel."""
    installed = Path(__file__).parent / "_data"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "data"


HUB_MODELS = {
    "r1-qwen-1.5b": ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", "ad9f0ae0864d7fbcd1cd905e3c6c5b069cc8b562"),
    "r1-qwen-7b": ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "916b56a44061fd5cd7d6a8fb632557ed4f724f60"),
    "r1-qwen-14b": ("deepseek-ai/DeepSeek-R1-Distill-Qwen-14B", "1df8507178afcc1bef68cd8c393f61a886323761"),
    "r1-llama-8b": ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "6a6f4aa4197940add57724a7707d069478df56b1"),
    # The same in NF4 already: a quarter of the download. No commit of theirs could be verified, see `pinned`.
    "r1-qwen-1.5b-4bit": ("unsloth/DeepSeek-R1-Distill-Qwen-1.5B-bnb-4bit", None),
    "r1-qwen-7b-4bit": ("unsloth/DeepSeek-R1-Distill-Qwen-7B-bnb-4bit", None),
    "r1-qwen-14b-4bit": ("unsloth/DeepSeek-R1-Distill-Qwen-14B-bnb-4bit", None),
    "r1-llama-8b-4bit": ("unsloth/DeepSeek-R1-Distill-Llama-8B-bnb-4bit", None),
}
MODEL_NAMES = ("pocket", *HUB_MODELS)


def model_source(name: str) -> ModelSource:
    """The source of a model named `pocket`, a preset, a folder or a hub id (`owner/name`, `owner/name@commit`).

    Raises:
        UserError: none of these.
    """
    if name == "pocket":
        return ModelSource(name=name, location=str(data_folder() / "pocket" / "model"))
    if name in HUB_MODELS:
        location, revision = HUB_MODELS[name]
        return ModelSource(name=name, location=location, revision=revision)
    if Path(name).is_dir():
        if not (Path(name) / "config.json").is_file():
            raise UserError("a model folder needs config.json", value=name, cure="name the folder the model is in")
        return ModelSource(name=name, location=name)
    location, _, commit = name.partition("@")
    if location.count("/") == 1 and not name.startswith((".", "/", "~")):
        return ModelSource(name=location, location=location, revision=commit or None)
    raise UserError(
        "the model must be a preset, an existing folder or a hub id like owner/name",
        value=repr(name),
        cure=nearest(name, MODEL_NAMES),
    )


def pinned(source: ModelSource) -> tuple[ModelSource, str]:
    """(the source at one commit, where that commit came from); a folder, and what no one can name, as they were.

    A hub model without a commit is pinned to the one this machine has, if it has just one, so that the second run
    reads what the first one read; else to the newest, as the hub names it.
    """
    if source.folder:
        return source, "a folder: its files' hashes are in the manifests"
    if source.revision:
        return source, f"commit {source.revision}"
    if len(have := _cached_commits(source.location)) == 1:
        return replace(source, revision=have[0]), f"commit {have[0]}, the one on this machine"
    if newest := _newest_commit(source.location):
        return replace(source, revision=newest), f"commit {newest}, the newest; others by --model OWNER/NAME@COMMIT"
    return source, "commit unknown: the hub can't be asked"


def _cached_commits(location: str) -> list[str]:
    from huggingface_hub import constants

    snapshots = Path(constants.HF_HUB_CACHE) / f"models--{location.replace('/', '--')}" / "snapshots"
    return sorted(file.parent.name for file in snapshots.glob("*/config.json"))


def _newest_commit(location: str) -> str | None:
    from huggingface_hub import HfApi

    # The library below it is httpx in some versions, httpx2 in others.
    web: Any = sys.modules.get("httpx2") or sys.modules["httpx"]
    try:
        return HfApi().model_info(location).sha
    except (OSError, web.HTTPError):  # offline by setting is an OSError, as is an answer that says no
        return None


def default_model() -> tuple[str, str]:
    """(model name, why) where the user named none."""
    import torch

    if torch.cuda.is_available():
        return "r1-qwen-1.5b", f"a CUDA device is there ({torch.cuda.get_device_name()}); others by --model"
    return "pocket", "no CUDA device here; a real model by --model r1-qwen-1.5b"


BF16_CAPABILITY = 8.0
"""Compute capability from which tensor cores take bf16: Ampere (CUDA C++ Programming Guide, "Compute Capabilities")."""


def dtype_for(capability: float | None) -> tuple[str, str]:
    """(torch's name of the type of activations and dense weights, why) for a CUDA capability, or None for a CPU.

    >>> dtype_for(7.5)[0], dtype_for(8.0)[0], dtype_for(None)[0]
    ('float16', 'bfloat16', 'float32')
    """
    if capability is None:
        return "float32", "CPU: fp32 is the safe choice, bf16 is slower on most CPUs"
    if capability >= BF16_CAPABILITY:
        return "bfloat16", f"compute capability {capability} is 8.0 or later, which has bf16"
    return "float16", f"compute capability {capability} is below 8.0 and has no bf16"


def capability() -> float | None:
    """The CUDA device's compute capability; None where there is none."""
    import torch

    if not torch.cuda.is_available():
        return None
    major, minor = torch.cuda.get_device_capability()
    return major + minor / 10


def compute_dtype() -> tuple["torch.dtype", str]:
    """(dtype of activations and dense weights, why) for this machine."""
    import torch

    name, why = dtype_for(capability())
    found: torch.dtype = getattr(torch, name)
    return found, why


def weight_bytes(folder: Path) -> int:
    """Size of a model folder's weights."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def device_name() -> str:
    """`cuda` where there is one, else `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


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


def _unreachable(source: ModelSource, error: Exception) -> UserError:
    if source.folder:
        return UserError(
            f"{source.location} must be a model folder transformers can load ({error})", cure="export it again"
        )
    return UserError(
        f"{source.location} is neither on this machine nor to be had from the hub ({type(error).__name__})",
        cure=f"on a machine with internet run `hf download {source.location}"
        + (f" --revision {source.revision}" if source.revision else "")
        + " --local-dir DIR`, then use --model DIR here",
    )


def load_tokenizer(source: ModelSource) -> "PreTrainedTokenizerBase":
    """The tokenizer, with a padding token that is not eos, after its round trip is proved.

    Raises:
        UserError: no tokenizer, no chat template, no token to pad with, or text that does not survive encode and
            decode (transformers 5.9 and 5.13 read some R1 repositories so that spaces are dropped).
    """
    import transformers

    auto: Any = transformers.AutoTokenizer

    if source.folder and not (source.folder / "tokenizer.json").is_file():
        raise UserError(
            "a model folder needs its tokenizer",
            value=f"no tokenizer.json in {source.location}",
            cure="copy tokenizer.json and tokenizer_config.json from the base model into it",
        )
    try:
        tokenizer: PreTrainedTokenizerBase = auto.from_pretrained(source.location, revision=source.revision)
    except (OSError, ValueError) as error:
        raise _unreachable(source, error) from error
    check_tokenizer(tokenizer, where=source.location)
    _set_padding(tokenizer, where=source.location)
    return tokenizer


def check_tokenizer(tokenizer: Any, *, where: str) -> None:
    """Raises UserError where the tokenizer loses text, has no eos or no chat template."""
    ids = tokenizer(ROUND_TRIP, add_special_tokens=False)["input_ids"]
    back = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    if back != ROUND_TRIP:
        raise UserError(
            f"the tokenizer of {where} must give back the text it is given",
            value=repr(back[:60]),
            cure="use the tokenizer.json of the base model and a transformers version that reads it right",
        )
    for what, there in (("eos token", tokenizer.eos_token_id is not None), ("chat template", tokenizer.chat_template)):
        if not there:
            raise UserError(
                f"a tokenizer must have its {what}",
                value=f"none in {where}",
                cure="copy it from the base model's folder",
            )


def _set_padding(tokenizer: Any, *, where: str) -> None:
    # Padding with eos would mask the label that teaches the model to stop. Qwen's vocabulary has unused special tokens.
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        vocabulary = tokenizer.get_vocab()
        spare = ("<|vision_pad|>", "<｜▁pad▁｜>", "<|finetune_right_pad_id|>", "<|reserved_special_token_0|>", "<unk>")
        found = next((token for token in spare if token in vocabulary), None)
        if found is not None:
            tokenizer.pad_token = found
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        raise UserError(
            "a tokenizer must have a padding token that is not its eos token",
            value=f"{tokenizer.pad_token!r} in {where}",
            cure='name an unused special token as "pad_token" in its tokenizer_config.json',
        )
    tokenizer.padding_side = "left"


def prompt_format(source: ModelSource) -> PromptFormat:
    """The prompt format the model is served with."""
    return PromptFormat(tokenizer=load_tokenizer(source), instruction=source.instruction)


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
        raise _unreachable(source, error) from error
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
        raise _unreachable(source, error) from error
    return read_json(Path(str(file)))


def _compute_in(model: Any, dtype: "torch.dtype") -> None:
    # Its config names the type its maker computed in: bf16, as a rule, which a T4 has not.
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            module.compute_dtype, module.compute_type_is_set = dtype, True
