"""The pocket corpus as the pipeline's training source."""

from mathlete.errors import UserError, nearest
from mathlete.pocket.generator import PocketItem, generate
from mathlete.prompts import completion_text
from mathlete.traces import TracedProblem

EXAMPLES = 9_600
"""Traced problems of a source when no count is asked for: 300 steps of 32."""
_EASY_SHARE = {"pocket": 0.15, "pocket-hard": 0.0, "pocket-easy": 1.0}
"""Easy share of each source. `pocket` replays some easy problems so that tuning on the hard ones forgets nothing."""


def completion(item: PocketItem) -> str:
    """What the model must write after the prompt, without eos."""
    return completion_text(trace=item.trace, answer=item.problem.gold)


def training_traces(name: str = "pocket", *, count: int | None = None, seed: int = 0) -> list[TracedProblem]:
    """`count` traced problems of the training side, easy ones spread evenly among the hard ones.

    Args:
        name: `pocket` (hard with three in twenty easy), `pocket-hard` or `pocket-easy`.
        count: how many; None takes 9600.
        seed: chooses the problems.

    Raises:
        UserError: an unknown name.
    """
    if name not in _EASY_SHARE:
        raise UserError("the source must be a known one", value=repr(name), cure=nearest(name, [*_EASY_SHARE]))
    return [
        item.traced for item in mixed(count=EXAMPLES if count is None else count, easy=_EASY_SHARE[name], seed=seed)
    ]


def mixed(*, count: int, easy: float, seed: int) -> list[PocketItem]:
    """`count` training items, a share `easy` of them easy, spread evenly."""
    easy_before = [round(easy * index) for index in range(count + 1)]
    easy_items = generate(families=["easy"], count=easy_before[-1], seed=seed, split="train")
    hard_items = generate(families=["hard"], count=count - easy_before[-1], seed=seed, split="train")
    sides = {True: iter(easy_items), False: iter(hard_items)}
    return [next(sides[easy_before[index + 1] > easy_before[index]]) for index in range(count)]
