"""Training: rows of tokens in, an adapter out, each step resumable.

A `Recipe` says how a model is trained: by which of the `METHODS`, with which adapter (`Lora`) and training (`Tune`)
settings. `plan_training` says, before anything is loaded, how much memory that needs and what to change where it does
not fit. `train_adapter` trains into an `AdapterFolder`, from which the model is loaded as it was trained, on a base of
`load_4bit_base`. Under `accelerate launch` several processes do so together, the `Ranks`, after `require_launcher` has
checked them.

>>> from mathlete.models import find_model
>>> recipe = Recipe(tune=Tune(batch=8)).with_method("dora")
>>> plan = plan_training(find_model("r1-qwen-7b"), recipe=recipe, longest=4096, gpu="l4")
>>> plan.fits, plan.cure
(False, 'use --tune.batch 1 --tune.accumulate 8')
"""

from mathlete.tune.adapters import AdapterFolder, load_4bit_base
from mathlete.tune.fitting import plan_training
from mathlete.tune.methods import METHODS
from mathlete.tune.ranks import Ranks, require_launcher
from mathlete.tune.recipe import Recipe
from mathlete.tune.settings import Lora, Tune
from mathlete.tune.training import train_adapter

__all__ = [
    "METHODS",
    "AdapterFolder",
    "Lora",
    "Ranks",
    "Recipe",
    "Tune",
    "load_4bit_base",
    "plan_training",
    "require_launcher",
    "train_adapter",
]
