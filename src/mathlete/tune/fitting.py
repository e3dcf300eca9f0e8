"""Make training fit a device: fewer rows a pass, activation checkpointing, or a refusal that names what would fit."""

from dataclasses import replace

from mathlete.errors import UserError
from mathlete.models import Device, ModelSource, Shape
from mathlete.tune.memory import to_gib
from mathlete.tune.plan import Plan
from mathlete.tune.ranks import Ranks
from mathlete.tune.recipe import Recipe

_ALONE = Ranks()
"""One process, without a launcher."""


def plan_training(
    source: ModelSource, *, recipe: Recipe, longest: int, gpu: str | None = None, split: bool = False
) -> Plan:
    """Plan the memory of a training before anything is loaded.

    Args:
        source: the model; only its config is read.
        recipe: how it is trained.
        longest: tokens of the longest row.
        gpu: a GPU of the table, or a machine of several, each of which has a process; None: this machine's device with
            the memory that is free.
        split: whether fewer rows a pass are planned where so many don't fit, with as many rows a step; the plan is then
            for all the memory of this machine's device, so that a run that goes on later is split alike. Groups of
            samples stay together.

    Raises:
        UserError: the GPU is not in the table, or the model's config can't be read.
    """
    ranks = Ranks.from_launcher()
    device, count = Device.find(gpu) if gpu else (_this_device(free=not split), 1)
    if count > 1 and ranks.size == 1:
        # A machine of several GPUs has a process on each, as `accelerate launch` starts them.
        ranks = Ranks(size=count)
    shape = Shape.of(source)
    if split and not recipe.spec.grouped:
        recipe = split_to_fit(recipe, shape, device=device, longest=longest, ranks=ranks)
    return make_plan(shape, device=device, recipe=recipe, longest=longest, ranks=ranks)


def _this_device(*, free: bool) -> Device:
    device = Device.current(free=free)
    # The processes of a training have a GPU each, but share the main memory.
    return replace(device, memory=device.memory // Ranks.from_launcher().size) if device.capability is None else device


def make_plan(shape: Shape, *, device: Device, recipe: Recipe, longest: int, ranks: Ranks = _ALONE) -> Plan:
    """Plan with activation checkpointing as the settings say, or for `auto` only where it would not fit otherwise.

    A CPU holds 4-bit weights dequantised where they fit so, for to dequantise them in each pass costs a seventh of it.
    So does a GPU on which an engine draws the samples: TRL hands it the weights with the adapter merged into them, and
    of 4-bit ones without their new scales.
    """
    checkpointing = recipe.tune.checkpointing in ("on", "offload")
    plan = Plan(shape=shape, device=device, recipe=recipe, longest=longest, checkpointing=checkpointing, ranks=ranks)
    again = replace(plan, checkpointing=True)
    last = again if recipe.tune.checkpointing == "auto" and plan.spec.recomputable else plan
    dense = [replace(one, dense=True) for one in (plan, last)]
    if recipe.engine_share:
        return next((one for one in dense if one.fits), dense[-1])
    holds_dense = device.capability is None and plan.spec.quantized and not ranks.sharded
    tried = [plan, last] if not holds_dense else [dense[0], plan, dense[1], last]
    return next((one for one in tried if one.fits), last)


def split_to_fit(recipe: Recipe, shape: Shape, *, device: Device, longest: int, ranks: Ranks = _ALONE) -> Recipe:
    """Return the recipe with as many rows a pass as the device has room for, at most its own, and as many rows a step.

    A pass of one long row leaves a large GPU waiting for the CPU (bench/train.py). Where nothing fits, the recipe stays
    as it is, for the plan to be refused with its cure.
    """
    smaller = recipe
    while not make_plan(shape, device=device, recipe=smaller, longest=longest, ranks=ranks).fits:
        if smaller.tune.batch % (2 * ranks.size):
            return recipe
        halved = replace(smaller.tune, batch=smaller.tune.batch // 2, accumulate=smaller.tune.accumulate * 2)
        smaller = replace(smaller, tune=halved)
    return smaller


def require_room(plan: Plan) -> None:
    """Check that the plan fits.

    Raises:
        UserError: it does not.
    """
    if not plan.fits:
        largest = plan.parts.largest
        needed = to_gib(plan.parts.by_name()[largest])
        raise UserError(
            f"training needs {to_gib(plan.peak):.1f} GiB, of which {largest} {needed:.1f} GiB",
            value=f"{plan.device.memory_gib:.1f} GiB on {plan.device.name}",
            cure=plan.cure,
        )
