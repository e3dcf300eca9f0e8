"""Format: traced problems become token rows; what is wrong, unproved, unfit or in a suite is left out and counted."""

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathlete.corpus.duplicates import first_of_each
from mathlete.corpus.selection import chosen, duplicates
from mathlete.corpus.settings import Filters
from mathlete.errors import UserError
from mathlete.problems import Problem
from mathlete.prompts import PromptFormat
from mathlete.rows.packing import best_fit
from mathlete.rows.parts import SIZE, Maker, Part, make_parts
from mathlete.rows.rows import IGNORED, Row
from mathlete.rows.saving import save_rows
from mathlete.rows.settings import Rows
from mathlete.runs import Advance, write_atomically
from mathlete.traces import TracedProblem

if TYPE_CHECKING:
    from datasets import Dataset
    from numpy import ndarray

TRAIN, HELDOUT, HEAD, DROPPED, OVERLAP = "train", "heldout", "head.jsonl", "dropped.jsonl", "overlap.jsonl"
_PARTS = ".parts"
_HEAD = 20
_KEYS = ["problem_key", "trace_key"]


def format_rows(
    output: Path,
    *,
    traced: Iterable[Sequence[TracedProblem]],
    total: int | None,
    maker: Maker,
    seed: int,
    advance: Advance,
    num_proc: int = 1,
    ray: str | None = None,
    size: int = SIZE,
) -> dict[str, object]:
    """Writes the rows and what is to be read of them into the folder `output`; returns the figures.

    Written are `train/` and `heldout/` (datasets folders), `head.jsonl` (the first rows as text), `overlap.jsonl` (the
    pairs with suites, side by side) and, where the maker keeps them, `dropped.jsonl`.

    Args:
        output: an existing folder, which may hold parts of a run that was killed.
        traced: a problem's traces at a time.
        total: how many problems the progress bar counts to.
        maker: turns traces into rows.
        seed: chooses the held-out problems.
        advance: moves the progress bar.
        num_proc: processes that make rows; the rows are the same for any number.
        ray: address of a cluster whose workers are these processes.
        size: problems of a part.

    Raises:
        UserError: fewer than two rows are left.
    """
    import datasets

    datasets.disable_progress_bars()
    parts, drops, made = [], Counter[str](), 0
    for part in make_parts(output / _PARTS, traced, maker=maker, num_proc=num_proc, size=size, ray=ray):
        parts.append(part)
        drops.update(part.figures["drops"])
        made += part.figures["traces"]
        advance(len(parts) * size, total, f"{drops.total()} traces dropped")
    tables = [table for part in parts if (table := part.rows) is not None]
    table = datasets.concatenate_datasets(tables) if tables else None
    groups = None if table is None else _problems(table, maker.filters)
    keep, reasons = ([], []) if table is None or groups is None else _selected(table, groups, maker)
    drops.update(reason for reason in reasons if reason)
    if table is None or groups is None or len(keep) < 2:
        raise UserError(
            f"training needs at least two rows with a right trace, and {len(keep)} of {made} is left",
            value=", ".join(f"{reason}: {count}" for reason, count in drops.most_common()) or "no problem at all",
            cure=_cure(drops),
        )
    sides = _split(table, keep, groups, count=maker.rows.heldout, seed=seed)
    save_rows(output / TRAIN, parts, sides[0], without=_KEYS)
    table.select(sides[1], keep_in_memory=True).remove_columns(_KEYS).save_to_disk(output / HELDOUT)
    _write_texts(output, parts, table=table, train=sides[0], reasons=reasons, maker=maker)
    shutil.rmtree(output / _PARTS)
    return {
        "traces": made,
        "kept": len(keep),
        **_figures(table, sides, keep, budget=maker.rows.max_tokens),
        "drops": dict(sorted(drops.items())),
        "parity": {"rows": len(keep), "mismatches": drops["parity"]},
    }


def parts_kept(output: Path) -> str:
    """What a stopped run leaves in its folder."""
    parts = output / _PARTS
    return f"{parts}, {sum(path.name.isdigit() for path in parts.glob('*'))} finished parts"


def _cure(drops: Counter[str]) -> str:
    """What helps against the reason that took most."""
    most = max(drops, key=drops.__getitem__, default="")
    return {
        "no gold": "put the right answers into a column gold, or trust the rows with --filters.unverified keep",
        "too long": "use longer rows with --rows.max-tokens, or --rows.shorten",
    }.get(most, "give problems that no suite has" if most.startswith("in ") else "give more problems with right traces")


def _column(table: "Dataset", name: str) -> "ndarray[Any, Any]":
    # Straight from the memory-mapped file: a column of a million rows is no million Python objects.
    found: ndarray[Any, Any] = table.data.column(name).to_numpy()
    return found


def _problems(table: "Dataset", filters: Filters) -> "ndarray[Any, Any]":
    """What tells the problem of each row: rows of one problem have the same."""
    import numpy as np

    if filters.duplicates == "keep":
        return _column(table, "problem_id")
    keys = _column(table, "problem_key")
    if filters.duplicates == "exact":
        return keys
    _, first, number = np.unique(keys, return_index=True, return_inverse=True)
    order = np.sort(first)
    places = first_of_each(_Asked(table, order))
    place_of = dict(zip(order.tolist(), order[places].tolist(), strict=True))
    return np.asarray([place_of[index] for index in first.tolist()])[number]


class _Asked(Sequence[Problem]):
    """The problems of some rows, read one at a time and without the rows' tokens."""

    def __init__(self, table: "Dataset", places: "ndarray[Any, Any]") -> None:
        self._columns = [table.data.column(name) for name in ("problem_id", "statement", "gold")]
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> Any:
        name, statement, gold = (column[int(self._places[index])].as_py() for column in self._columns)
        return Problem(id=name, statement=statement, gold=gold)


def _selected(table: "Dataset", groups: "ndarray[Any, Any]", maker: Maker) -> tuple[Sequence[int], list[str]]:
    """(indices of the rows kept, for each row the reason why it is not, or "")."""
    import numpy as np

    rows: Rows = maker.rows
    twice = np.zeros(len(table), dtype=bool)
    if maker.filters.duplicates != "keep":
        twice = duplicates(groups, _column(table, "trace_key"))
    once = np.flatnonzero(~twice)
    lengths = _column(table, "tokens") - _column(table, "prompt_tokens")
    limits = {
        "shortest_correct": {"shortest": 1},
        "k_shortest": {"shortest": rows.traces},
        "longest_under": {"longest_under": rows.longest},
        "all": {},
    }[rows.policy]
    kept = np.zeros(len(table), dtype=bool)
    kept[once[chosen(groups[once], lengths[once], **limits)]] = True
    reasons = np.where(kept, "", np.where(twice, "duplicate", "policy"))
    return np.flatnonzero(kept).tolist(), reasons.tolist()


def _split(
    table: "Dataset", keep: Sequence[int], problems: "ndarray[Any, Any]", *, count: int, seed: int
) -> tuple[list[int], list[int]]:
    """(train, heldout): held out are the problems whose id hashes lowest, all traces of a problem on the same side."""
    ids, groups = _column(table, "problem_id")[keep], problems[keep]
    first = dict(zip(groups[::-1], ids[::-1], strict=True))
    order = sorted(first, key=lambda name: hashlib.sha256(f"{seed}/{first[name]}".encode()).digest())
    if len(order) < 2:
        raise UserError("training needs at least two problems", value=len(order), cure="give more problems")
    held = set(order[: min(count, max(1, len(order) // 10))])
    sides: dict[bool, list[int]] = {True: [], False: []}
    for index, name in zip(keep, groups, strict=True):
        sides[name in held].append(index)
    return sides[False], sides[True]


def _figures(
    table: "Dataset", sides: tuple[list[int], list[int]], keep: Sequence[int], *, budget: int
) -> dict[str, object]:
    lengths, train = _column(table, "tokens"), sides[0]
    return {
        "rows": len(train),
        "heldout": len(sides[1]),
        "shortened": int(_column(table, "shortened")[keep].sum()),
        "tokens": int(lengths[train].sum()),
        "trained_tokens": int(_column(table, "trained_tokens")[train].sum()),
        "longest": int(lengths[train].max()),
        "packing": _packing(lengths[train].tolist(), budget=budget),
    }


def _packing(lengths: Sequence[int], *, budget: int) -> dict[str, object]:
    sequences = len(best_fit(lengths, budget=budget))
    return {"budget": budget, "sequences": sequences, "efficiency": round(sum(lengths) / (sequences * budget), 4)}


def _write_texts(
    output: Path,
    parts: Sequence[Part],
    *,
    table: "Dataset",
    train: Sequence[int],
    reasons: Sequence[str],
    maker: Maker,
) -> None:
    head = (table[index] for index in islice(train, _HEAD))
    write_atomically(output / HEAD, "".join(_readable(row, maker.prompts) for row in head))
    _join(output / OVERLAP, (part.overlap for part in parts))
    if maker.keep_dropped:
        late = (_late(reason, table[index], maker.prompts) for index, reason in enumerate(reasons) if reason)
        _join(output / DROPPED, (part.dropped for part in parts), late)


def _join(file: Path, parts: Iterable[Path], more: Iterable[str] = ()) -> None:
    """The parts' lines in one file, never more than one part in memory."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as out:
        for part in parts:
            out.write(part.read_text(encoding="utf-8"))
        out.writelines(more)
    temporary.replace(file)


def _late(reason: str, row: Row, prompts: PromptFormat) -> str:
    trained = prompts.tokenizer.decode(row["input_ids"][row["prompt_tokens"] : -1])
    problem = {"id": row["problem_id"], "statement": row["statement"], "gold": row["gold"], "source": row["source"]}
    return json.dumps({"reason": reason, **problem, "trace": trained}, ensure_ascii=False) + "\n"


def _readable(row: Row, prompts: PromptFormat) -> str:
    prompt, completion = row["input_ids"][: row["prompt_tokens"]], row["input_ids"][row["prompt_tokens"] :]
    shown = {
        "problem_id": row["problem_id"],
        "gold": row["gold"],
        "prompt": prompts.tokenizer.decode(prompt),
        "trained": prompts.tokenizer.decode(completion),
        "prompt_tokens": len(prompt),
        "trained_tokens": row["trained_tokens"],
        "spans": _spans(row, prompts),
    }
    return json.dumps(shown, ensure_ascii=False) + "\n"


def _spans(row: Row, prompts: PromptFormat) -> list[tuple[str, bool]]:
    """The row's text in spans, each with whether it has loss."""
    runs = groupby(zip(row["input_ids"], row["labels"], strict=True), key=lambda pair: pair[1] != IGNORED)
    return [(str(prompts.tokenizer.decode([token for token, _ in run])), trained) for trained, run in runs]
