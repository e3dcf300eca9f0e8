"""Tokenizers, proved by a round trip before they are used, and the prompt format that a model is served with."""

from copy import copy
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mathlete.errors import UserError
from mathlete.models.names import ModelSource, explain_unreachable
from mathlete.prompts import PromptFormat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROUND_TRIP = (
    "Find the remainder when $23^{7} \\cdot 101$ is divided by 9.\n<think>\n23*7=161, r=8.\n</think>\n\n\\boxed{8}"
)
_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "config.json")
_SPARE_TOKENS = (
    *("<|vision_pad|>", "<｜▁pad▁｜>", "<|finetune_right_pad_id|>", "<|reserved_special_token_0|>", "<unk>"),
)
"""Special tokens that no text of these vocabularies has."""


def load_prompt_format(source: ModelSource) -> PromptFormat:
    """Load the tokenizer and return the prompt format that the model is served with."""
    return PromptFormat(tokenizer=load_tokenizer(source), instruction=source.instruction)


def load_tokenizer(source: ModelSource) -> "PreTrainedTokenizerBase":
    """Load the tokenizer, with a padding token that is not eos, and prove its round trip.

    A process reads the same files once. Each caller gets an object of its own over the one vocabulary: a template or
    a padding token that one caller sets is not another's.

    Raises:
        UserError: no tokenizer, no chat template, no token to pad with, or text that does not survive encode and
            decode (transformers 5.9 and 5.13 read some R1 repositories so that spaces are dropped).
    """
    if source.folder and not (source.folder / "tokenizer.json").is_file():
        raise UserError(
            "a model folder needs its tokenizer",
            value=f"no tokenizer.json in {source.location}",
            cure="copy tokenizer.json and tokenizer_config.json from the base model into it",
        )
    files = [source.folder / name for name in _FILES] if source.folder else []
    stats = [file.stat() for file in files if file.is_file()]
    read = _read_tokenizer(source, tuple((stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in stats))
    own = copy(read)
    # A deep copy of a real vocabulary takes longer than reading it anew.
    vars(own).update({name: copy(value) for name, value in vars(read).items() if isinstance(value, dict | list)})
    return own


@lru_cache(maxsize=8)
def _read_tokenizer(source: ModelSource, _versions: tuple[tuple[int, int, int], ...]) -> "PreTrainedTokenizerBase":
    import transformers

    auto: Any = transformers.AutoTokenizer
    try:
        tokenizer: PreTrainedTokenizerBase = auto.from_pretrained(source.location, revision=source.revision)
    except (OSError, ValueError) as error:
        raise explain_unreachable(source, error) from error
    _check_tokenizer(tokenizer, where=source.location)
    _set_padding(tokenizer, where=source.location)
    return tokenizer


def _check_tokenizer(tokenizer: "PreTrainedTokenizerBase", *, where: str) -> None:
    """Raise UserError where the tokenizer loses text, has no eos or no chat template."""
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


def _set_padding(tokenizer: "PreTrainedTokenizerBase", *, where: str) -> None:
    # Padding with eos would mask the label that teaches the model to stop. Qwen's vocabulary has unused special tokens.
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        vocabulary = tokenizer.get_vocab()
        spare = next((token for token in _SPARE_TOKENS if token in vocabulary), None)
        if spare is not None:
            tokenizer.pad_token = spare
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        raise UserError(
            "a tokenizer must have a padding token that is not its eos token",
            value=f"{tokenizer.pad_token!r} in {where}",
            cure='name an unused special token as "pad_token" in its tokenizer_config.json',
        )
    tokenizer.padding_side = "left"
