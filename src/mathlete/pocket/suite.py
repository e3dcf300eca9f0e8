"""Files of pocket problems: the frozen suite, and files of any size."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from mathlete.pocket.generator import PocketItem, generate_items
from mathlete.problems import hash_problems, write_problems
from mathlete.runs import write_atomically

_HARD, _EASY = 400, 200
_SEED = 0


def write_pocket_val(folder: Path) -> str:
    """Write `pocket_val.jsonl`, 400 hard and 200 easy test problems, and its hash beside it; return the hash.

    No two problems of a family have the same numbers, and no training problem has any problem's numbers.
    """
    problems = [
        item.problem
        for level, count in (("hard", _HARD), ("easy", _EASY))
        for item in generate_items(families=[level], count=count, seed=_SEED, split="test", unique=True)
    ]
    digest = hash_problems(problems)
    write_problems(folder / "pocket_val.jsonl", problems)
    write_atomically(folder / "pocket_val.sha256", f"{digest}\n")
    return digest


def write_items(path: Path, items: Iterable[PocketItem], *, traces: bool) -> None:
    """Write one problem per line, atomically; with `traces`, as traced problems for `python -m train math`."""

    def line(item: PocketItem) -> str:
        trace = {"trace": item.trace, "answer": item.problem.gold} if traces else {}
        return json.dumps({**asdict(item.problem), **trace}, ensure_ascii=False) + "\n"

    write_atomically(path, "".join(map(line, items)))
