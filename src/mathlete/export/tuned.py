"""The model that training made, by the folders it lies in: what effect, merge and export are measured on."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathlete.export.distributions import log_probabilities
from mathlete.export.greedy import Answers
from mathlete.export.reference import Heldout, Reference
from mathlete.export.settings import MergeBase
from mathlete.models import ModelSource
from mathlete.tune import AdapterFolder

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class TunedModel:
    """A base model with what was trained on it."""

    source: ModelSource
    """The base model."""
    data: Path
    """Folder of the rows, the held-out ones among them."""
    adapter: Path
    """Folder of the adapter, or of a whole model where every weight was trained."""
    base: MergeBase = "dequant"
    """The weights that an adapter is merged into."""

    @property
    def is_adapter(self) -> bool:
        """Whether an adapter was trained, and not every weight."""
        return AdapterFolder(self.adapter).holds_adapter

    def load(self) -> "PreTrainedModel":
        """Load the model as it was trained, in eval mode: on its 4-bit base, before any merge."""
        # Any: methods whose models are peft's own train no weights that could be merged, and never come here.
        loaded: Any = AdapterFolder(self.adapter).load(self.source)
        model: PreTrainedModel = loaded
        return model

    def reference(self, *, answers: Answers, max_tokens: int) -> Reference:
        """Measure the model's distributions on the held-out rows; beside its greedy answers, the reference of hops."""
        heldout = Heldout.load(self.data, source=self.source, max_tokens=max_tokens)
        log_probs = log_probabilities(self.load(), heldout.rows)
        return Reference(heldout=heldout, log_probabilities=log_probs, answers=answers)
