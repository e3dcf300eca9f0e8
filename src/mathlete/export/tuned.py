"""The model that training made, by the folders it lies in: what effect, merge and export are measured on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mathlete.export.hops import Answers, Heldout, Reference
from mathlete.export.settings import MergeBase
from mathlete.export.survival import log_probabilities
from mathlete.models import ModelSource
from mathlete.tune import AdapterFolder


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

    def load(self) -> Any:
        """The model as it was trained, in eval mode: on its 4-bit base, before any merge."""
        return AdapterFolder(self.adapter).load(self.source)

    def reference(self, *, answers: Answers, max_tokens: int) -> Reference:
        """Distributions of the model on the held-out rows, beside its greedy answers: what exports are measured by."""
        heldout = Heldout.of(self.data, source=self.source, max_tokens=max_tokens)
        log_probs = log_probabilities(self.load(), heldout.rows)
        return Reference(heldout=heldout, log_probabilities=log_probs, answers=answers)
