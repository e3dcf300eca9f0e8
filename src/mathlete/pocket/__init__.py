"""The pocket corpus: problems with traces of our own making, and the pocket model pretrained on them."""

from mathlete.pocket.generator import FAMILIES, PocketItem, generate, split_of
from mathlete.pocket.training import completion, training_traces

__all__ = ["FAMILIES", "PocketItem", "completion", "generate", "split_of", "training_traces"]
