"""The model that training made, by the folders it lies in: what effect, merge and export are measured on."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathlete.export.distributions import load_heldout_rows, log_probabilities
from mathlete.export.exact import EXACT, store_in
from mathlete.export.greedy import Answers
from mathlete.export.model_card import write_adapter_card
from mathlete.export.reference import Heldout, Reference
from mathlete.export.settings import MergeBase
from mathlete.models import Device, ModelSource, load_model, load_prompt_format
from mathlete.tune import AdapterFolder, load_4bit_base

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor
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
    on_16bit: bool = False
    """Whether the adapter was trained on the base's own weights and not on 4-bit ones: elsewhere, for here none is."""
    most_rows: int | None = None
    """Held-out rows that are looked at; None: all."""

    @property
    def is_adapter(self) -> bool:
        """Whether an adapter was trained, and not every weight."""
        return AdapterFolder(self.adapter).holds_adapter

    def write_adapter_card(self) -> None:
        """Write the card beside what was trained, before its step is done."""
        write_adapter_card(self.adapter, source=self.source, data=self.data)

    def load(self, *, dtype: str | None = None) -> "PreTrainedModel":
        """Load the model as it was trained, in eval mode: on its 4-bit base, before any merge.

        `dtype` is what it computes in, by torch's name; None: this device's own. Figures are measured from EXACT.
        """
        # Any: methods whose models are peft's own train no weights that could be merged, and never come here.
        loaded: Any = AdapterFolder(self.adapter).load(self.source, dtype=dtype, on_16bit=self.on_16bit)
        model: PreTrainedModel = loaded
        return model

    def merge(self, *, dtype: str) -> "PreTrainedModel":
        """Return the model in eval mode with the adapter in its weights, or with all its weights as they were trained.

        On a CPU they are in fp32, on a GPU, which may have no room for that, in the type that they will be stored in.
        """
        from peft import PeftModel

        held = EXACT if Device.current().capability is None else dtype
        if not self.is_adapter:
            return self.load(dtype=held)
        # Any: peft puts attributes on the model that its class does not name.
        model: Any = (
            load_4bit_base(self.source, dense=True, dtype=held)
            if self.base == "dequant"
            else load_model(self.source, precision="dense", dtype=held)
        )
        whole: Any = PeftModel.from_pretrained(model, str(self.adapter)).merge_and_unload(safe_merge=True)
        merged: PreTrainedModel = whole.eval()
        return merged

    def load_served(self, *, dtype: str) -> "PreTrainedModel":
        """Load the model as it is served, in eval mode: merged into the weights it was trained on, in a 16-bit type.

        Beside these an adapter's small output is rounded away, layer by layer, which happens to no merged model.
        """
        own = replace(self, base="original" if self.on_16bit else "dequant")
        # Bases are merged in the finer type, whatever it is served in: a step of bfloat16 hides most of an update.
        return store_in(own.merge(dtype="float16"), dtype)

    def load_answering(self) -> "PreTrainedModel":
        """Load the model whose greedy answers all others are held against, in this device's own type, in eval mode."""
        own = Device.current().dtype
        return self.load() if own == EXACT else self.load_served(dtype=own)

    def load_base(self) -> "PreTrainedModel":
        """Load the model that was trained as it was before: an adapter's 4-bit base, where it was trained on that."""
        if not self.is_adapter or self.on_16bit:
            return load_model(self.source, precision="dense")
        return load_4bit_base(self.source, dense=Device.current().capability is None)

    def load_rows(self) -> "Dataset":
        """Load the held-out rows."""
        rows = load_heldout_rows(self.data)
        return rows if self.most_rows is None else rows.select(range(min(self.most_rows, len(rows))))

    def heldout(self, max_tokens: int) -> Heldout:
        """Load the held-out rows with the prompts of their problems; greedy completions have at most so many tokens."""
        return Heldout(rows=self.load_rows(), prompts=load_prompt_format(self.source), max_tokens=max_tokens)

    def measure_distributions(self) -> "Tensor":
        """Return the model's log-probabilities on the held-out rows, (tokens, vocabulary): the same on every device."""
        return log_probabilities(self.load(dtype=EXACT), self.load_rows())

    def reference(self, *, answers: Answers, again: Answers | None, max_tokens: int) -> Reference:
        """Measure the model's distributions on the held-out rows; beside its greedy answers, the reference of hops."""
        heldout, log_probs = self.heldout(max_tokens), self.measure_distributions()
        return Reference(heldout=heldout, log_probabilities=log_probs, answers=answers, again=again)
