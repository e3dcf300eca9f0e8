"""Files of pocket problems: the frozen suite, and as many others as are wanted."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from mathlete.pocket.generator import PocketItem, generate
from mathlete.problems import problems_sha256, write_problems
from mathlete.runs import write_atomically

_HARD, _EASY = 400, 200
_SEED = 0


def write_pocket_val(folder: Path) -> str:
    """Writes `pocket_val.jsonl`, 400 hard and 200 easy test problems, and its hash beside it; returns the hash.

    No two problems of a family have the same numbers, and no training problem has any problem's numbers.
    """
    problems = [
        item.problem
        for level, count in (("hard", _HARD), ("easy", _EASY))
        for item in generate(families=[level], count=count, seed=_SEED, split="test", unique=True)
    ]
    digest = problems_sha256(problems)
    write_problems(folder / "pocket_val.jsonl", problems)
    write_atomically(folder / "pocket_val.sha256", f"{digest}\n")
    return digest


def write_items(path: Path, items: Iterable[PocketItem], *, traces: bool) -> None:
    """Writes one problem a line, atomically; with `traces` as traced problems, which `python -m train math` reads."""

    def line(item: PocketItem) -> str:
        trace = {"trace": item.trace, "answer": item.problem.gold} if traces else {}
        return json.dumps({**asdict(item.problem), **trace}, ensure_ascii=False) + "\n"

    write_atomically(path, "".join(map(line, items)))
