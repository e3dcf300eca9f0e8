"""A model's generation settings, saved as its maker wrote them.

transformers saves settings that it did not change as they are, and of changed ones it refuses what it only warns of
while it loads: a temperature without `do_sample`, as Llama 2's and Vicuna's have. A model's eos and padding token are
changed here and by trainers; the other values are its maker's, and engines serve by them.
"""

from typing import TYPE_CHECKING

from transformers import GenerationConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class KeptSettings(GenerationConfig):
    """Generation settings that are saved whatever values they came with."""

    def validate(self, strict: bool = False, user_set_attributes: set[str] | None = None) -> None:
        """Warn of what transformers would refuse to save."""
        # transformers before 5.7 neither gives nor takes the second.
        given = {} if user_set_attributes is None else {"user_set_attributes": user_set_attributes}
        super().validate(strict=False, **given)


def keep_settings(model: "PreTrainedModel") -> None:
    """Have the model's settings, whoever changes their special tokens, be saved with the values that they have."""
    # A kind of model may have a class of its own, or none where it generates nothing.
    if type(settings := getattr(model, "generation_config", None)) is GenerationConfig:
        settings.__class__ = KeptSettings
