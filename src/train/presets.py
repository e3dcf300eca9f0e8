"""Presets: what a model is trained on and with where the command line says nothing else.

The pocket model's values were found on it (bench/RESULTS.md). The R1 distillations' are the standard ones, not tried
here: rate 2e-4, batch 16, dropout 0.05 and a gradient norm of 0.3 from QLoRA (arXiv 2305.14314, appendix B.2), adapters
on all layers with rank 32 and alpha 32 from "LoRA Without Regret" (Schulman et al. 2025); a thousand or two of
well-chosen problems, from s1 (arXiv 2501.19393) and LIMO (arXiv 2502.03387); of several right traces the shortest,
because longer outputs raised local scores and lowered scores under a clock (the Fast-Math models' reports of AIMO-2).
"""

from dataclasses import dataclass

from mathlete.corpus.settings import Corpus, Filters
from mathlete.models import HUB_MODELS
from mathlete.tune.settings import Lora, Rows, Survival, Tune


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Defaults of `python -m train math` for one model."""

    corpus: Corpus
    rows: Rows
    filters: Filters
    lora: Lora
    tune: Tune
    survival: Survival


POCKET = Preset(
    corpus=Corpus(source=("pocket",), limit=9_800),
    rows=Rows(max_tokens=512, heldout=200),
    # The generator draws some problems twice; the scores of the shipped runs were measured with them.
    filters=Filters(duplicates="keep"),
    lora=Lora(rank=16, alpha=32),
    tune=Tune(rate=2e-3, batch=32),
    survival=Survival(max_tokens=256),
)
DISTILLED = Preset(
    corpus=Corpus(source=("openr1",), limit=2_000),
    rows=Rows(max_tokens=8192, heldout=200, policy="shortest_correct"),
    filters=Filters(),
    lora=Lora(rank=32, alpha=32, dropout=0.05),
    tune=Tune(rate=2e-4, epochs=2.0, batch=1, accumulate=16, clip=0.3, save_every=25, log_every=5),
    survival=Survival(max_tokens=4096),
)
PRESETS = {"pocket": POCKET, **dict.fromkeys(HUB_MODELS, DISTILLED)}


def preset(model: str | None) -> Preset:
    """The preset of a model's name; folders and hub ids have the distillations'."""
    return POCKET if model is None else PRESETS.get(model, DISTILLED)
