"""Pocket problems as a source of training traces."""

from mathlete.errors import UserError, nearest
from mathlete.pocket.generator import PocketItem, generate_items
from mathlete.traces import TracedProblem

_DEFAULT_COUNT = 9_600
"""Traced problems of a source without a count: 300 steps of 32."""
_EASY_SHARE = {"pocket": 0.15, "pocket-hard": 0.0, "pocket-easy": 1.0}
"""Easy share of each source. `pocket` replays easy problems, so that tuning on hard ones does not forget them."""
TRACE_SOURCES = (*_EASY_SHARE,)
"""Names of the sources."""


def generate_traces(name: str = "pocket", *, count: int | None = None, seed: int = 0) -> list[TracedProblem]:
    """Generate traced problems of the training side, easy ones spread evenly among hard ones.

    Args:
        name: `pocket` (15% easy), `pocket-hard` or `pocket-easy`.
        count: number of problems; None: 9600.
        seed: chooses the problems.

    Raises:
        UserError: an unknown name.
    """
    if name not in _EASY_SHARE:
        raise UserError("the source must be a known one", value=repr(name), cure=nearest(name, [*_EASY_SHARE]))
    count = _DEFAULT_COUNT if count is None else count
    return [item.traced for item in generate_mix(count=count, easy=_EASY_SHARE[name], seed=seed)]


def generate_mix(*, count: int, easy: float, seed: int) -> list[PocketItem]:
    """Generate `count` training items; a share `easy` of them is easy, spread evenly."""
    easy_before = [round(easy * index) for index in range(count + 1)]
    easy_items = generate_items(families=["easy"], count=easy_before[-1], seed=seed, split="train")
    hard_items = generate_items(families=["hard"], count=count - easy_before[-1], seed=seed, split="train")
    sides = {True: iter(easy_items), False: iter(hard_items)}
    return [next(sides[easy_before[index + 1] > easy_before[index]]) for index in range(count)]
