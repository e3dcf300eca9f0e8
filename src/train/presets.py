"""Presets: what a model is trained on and with where the command line says nothing else.

The pocket model's values were found on it (bench/RESULTS.md). The R1 distillations' are the standard ones, none of them
tried here at full size:

- rate 2e-4, batch 16, a gradient norm of 0.3, dropout 0.05 (found to help 7B and 13B): QLoRA (arXiv 2305.14314,
  appendices A.2 and B.2), which has the same rate for 7B and 13B, so 14B keeps it; 8 rows a pass, or as many as fit;
- adapters on all linear layers, rank 32, alpha 32: "LoRA Without Regret" (Schulman et al. 2025);
- two thousand problems, two epochs: a thousand or so well-chosen ones are enough (s1, arXiv 2501.19393; LIMO, arXiv
  2502.03387);
- of several right traces the shortest: longer outputs raised local scores and lowered scores under a clock (the
  Fast-Math models' reports of AIMO-2);
- rows of at most 8192 tokens, where R1-Distill-14B has most of its accuracy (41.8 of 66.9 on AIME 2024 at a cap of
  8192, 61 at 16384, from the same reports) and one GPU of 24 GB still holds a row.

The limits of merge and export are everyone's, calibrated on smaller models (docs/training.md, "The gates").

The precision is not a preset's: `mathlete.models.Device` takes it from the hardware, and the run prints why. The
commits are in `mathlete.models.names.HUB_MODELS`; those of the 4-bit copies are pinned at first use.
"""

from dataclasses import replace

from mathlete.command import LeadingFlags
from mathlete.corpus import Corpus, SourceSpec
from mathlete.export import Forgetting, Survival
from mathlete.models import pick_default_model
from mathlete.rows import Filters, Rows
from mathlete.tune import METHODS, Lora, Recipe, Tune
from train.settings import AfterTraining, DataSettings, MathSettings

POCKET = MathSettings(
    data=DataSettings(
        corpus=Corpus(source=("pocket",), limit=9_800),
        rows=Rows(max_tokens=512, heldout=200),
        # The generator draws some problems twice; the scores of the shipped runs were measured with them.
        filters=Filters(duplicates="keep"),
    ),
    recipe=Recipe(lora=Lora(rank=16, alpha=32), tune=Tune(rate=2e-3, batch=32)),
    after=AfterTraining(forgetting=Forgetting(source="pocket-easy"), survival=Survival(max_tokens=256)),
)
DISTILLED = MathSettings(
    data=DataSettings(
        corpus=Corpus(source=("openr1",), limit=2_000),
        rows=Rows(max_tokens=8192, heldout=200, policy="shortest_correct"),
    ),
    recipe=Recipe(
        lora=Lora(rank=32, alpha=32, dropout=0.05, targets=("all-linear",)),
        tune=Tune(rate=2e-4, epochs=2.0, batch=8, accumulate=2, clip=0.3, save_every=25, log_every=5),
    ),
    # Which general set is at hand is the user's to say: --forgetting.source gsm8k, or a file of traced problems.
    after=AfterTraining(forgetting=Forgetting(), survival=Survival(max_tokens=4096)),
)
# A step of 16 rows takes minutes there: a kill must not cost an hour.
LARGE = replace(
    DISTILLED,
    recipe=replace(DISTILLED.recipe, tune=replace(DISTILLED.recipe.tune, save_every=10, log_every=1)),
)
PRESETS = {
    "pocket": POCKET,
    "r1-qwen-1.5b": DISTILLED,
    "r1-qwen-7b": DISTILLED,
    "r1-qwen-14b": LARGE,
    "r1-llama-8b": DISTILLED,
    "r1-qwen-1.5b-4bit": DISTILLED,
    "r1-qwen-7b-4bit": DISTILLED,
    "r1-qwen-14b-4bit": LARGE,
    "r1-llama-8b-4bit": DISTILLED,
}

LEADING_FLAGS = ("model", "method", "tokenizer", "source")
"""Flags that the defaults of others depend on."""


def preset(model: str) -> MathSettings:
    """Return the settings of a model's name; folders and hub ids have the distillations'."""
    return PRESETS.get(model, DISTILLED)


def default_settings(flags: LeadingFlags) -> MathSettings:
    """Return the settings that hold where the command line is silent: the model's preset, fitted to the method."""
    settings = with_method(preset(_preset_name(flags)), flags.last("method"))
    if any(SourceSpec.names_file(word) for word in flags.values("source")):
        # The preset's limit is that of its own source: a user's file is read to its end.
        corpus = replace(settings.data.corpus, limit=None)
        return replace(settings, data=replace(settings.data, corpus=corpus))
    return settings


def _preset_name(flags: LeadingFlags) -> str:
    if model := flags.last("model"):
        return model
    if flags.values("tokenizer"):
        return "a model that is not the pocket model"
    # --help must not wait until torch has looked for a GPU.
    return "pocket" if flags.asks_for_help else pick_default_model()[0]


def with_method(settings: MathSettings, method: str | None) -> MathSettings:
    """Return the preset as the method needs it: its own learning rate, and for DPO traces to choose between."""
    if method not in METHODS:
        return settings
    changed = replace(settings, recipe=settings.recipe.with_method(method))
    if changed.recipe.spec.wants_wrong_traces:
        data = settings.data
        corpus, rows = replace(data.corpus, keep_dropped=True), replace(data.rows, policy="all")
        return replace(changed, data=replace(data, corpus=corpus, rows=rows))
    return changed if changed.recipe.spec.mergeable else replace(changed, until="tune")
