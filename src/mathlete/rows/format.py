"""Format: traced problems become token rows; wrong, unproved and unfit traces and suites' problems are left out."""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, overload

from mathlete.errors import UserError
from mathlete.files import replace_when_done
from mathlete.overlap import find_first_duplicates
from mathlete.problems import Problem
from mathlete.prompts import PromptFormat
from mathlete.rows.card import find_cure
from mathlete.rows.figures import Packing, Parity, RowFigures
from mathlete.rows.files import DroppedTrace, RowFiles, RowText
from mathlete.rows.packing import best_fit
from mathlete.rows.parity import PARITY
from mathlete.rows.parts import PART_SIZE, Part, PartMaker
from mathlete.rows.process_parts import make_parts
from mathlete.rows.ray_parts import make_parts_on_ray
from mathlete.rows.row import IGNORED, TokenRow
from mathlete.rows.saving import save_rows
from mathlete.rows.selection import choose_traces, mark_duplicates
from mathlete.rows.settings import Filters, Rows
from mathlete.runs import Advance, write_atomically
from mathlete.traces import TracedProblem

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from numpy.typing import NDArray

    from mathlete.rows.selection import Column

_HEAD = 20
"""Rows that `head.jsonl` shows."""
_KEYS = ["problem_key", "trace_key"]
"""Columns that only the selection needs."""


def format_rows(
    output: Path,
    *,
    traced: Iterable[Sequence[TracedProblem]],
    total: int | None,
    maker: PartMaker,
    seed: int,
    advance: Advance,
    num_proc: int = 1,
    ray: str | None = None,
    size: int = PART_SIZE,
    skipped: Callable[[], str] = lambda: "",
) -> RowFigures:
    """Write the rows and the files about them (`RowFiles`) into the folder `output`; return the figures.

    Args:
        output: an existing folder, which may hold parts of a killed run.
        traced: the traces of one problem at a time.
        total: number of problems that the progress bar counts to.
        maker: turns traces into rows.
        seed: chooses the held-out problems.
        advance: moves the progress bar.
        num_proc: processes that make rows; the rows are the same for any number.
        ray: address of a cluster whose workers are these processes.
        size: problems of a part.
        skipped: says which rows could not be read, if there were any.

    Raises:
        UserError: fewer than two rows are left.
    """
    import datasets

    datasets.disable_progress_bars()
    files = RowFiles(output)
    parts, drops, traces, mismatch = [], Counter[str](), 0, ""
    for part in _make_parts(files.parts, traced, maker=maker, num_proc=num_proc, ray=ray, size=size):
        parts.append(part)
        drops.update(part.figures.drops)
        traces += part.figures.traces
        mismatch = mismatch or part.figures.mismatch
        advance(len(parts) * size, total, f"{drops.total()} traces dropped")
    tables = [table for part in parts if (table := part.rows) is not None]
    if not tables:
        raise _too_few(0, traces=traces, drops=drops, mismatch=mismatch, skipped=skipped())
    table = datasets.concatenate_datasets(tables)
    problems = _number_problems(table, maker.filters)
    kept, reasons = _select(table, problems, rows=maker.rows, filters=maker.filters)
    drops.update(reason for reason in reasons if reason)
    if len(kept) < 2:
        raise _too_few(len(kept), traces=traces, drops=drops, mismatch=mismatch, skipped=skipped())
    # What is held out is trained on nowhere, also where repeated problems are kept.
    apart = _read_column(table, "problem_key") if maker.filters.duplicates == "keep" else problems
    train, heldout = _split(table, kept, apart, count=maker.rows.heldout, seed=seed)
    save_rows(files.train, parts, train, without=_KEYS)
    table.select(heldout, keep_in_memory=True).remove_columns(_KEYS).save_to_disk(files.heldout)
    _write_texts(files, parts, table=table, train=train, reasons=reasons, maker=maker)
    shutil.rmtree(files.parts)
    lengths = _read_column(table, "tokens")
    return RowFigures(
        traces=traces,
        kept=len(kept),
        rows=len(train),
        heldout=len(heldout),
        shortened=int(_read_column(table, "shortened")[kept].sum()),
        tokens=int(lengths[train].sum()),
        trained_tokens=int(_read_column(table, "trained_tokens")[train].sum()),
        longest=int(lengths[train].max()),
        packing=_measure_packing(lengths[train].tolist(), budget=maker.rows.max_tokens),
        drops=dict(sorted(drops.items())),
        parity=Parity(
            rows=len(kept),
            mismatches=sum(count for reason, count in drops.items() if reason.startswith(PARITY)),
            first=mismatch,
        ),
        unverified=int((table.data.column("gold").to_numpy()[kept] == "").sum()),
    )


def _make_parts(
    folder: Path,
    traced: Iterable[Sequence[TracedProblem]],
    *,
    maker: PartMaker,
    num_proc: int,
    ray: str | None,
    size: int,
) -> Iterator[Part]:
    """Return the parts as they are made, by this machine or by a cluster."""
    if ray is None:
        return make_parts(folder, traced, maker=maker, num_proc=num_proc, size=size)
    return make_parts_on_ray(folder, traced, maker=maker, workers=num_proc, address=ray, size=size)


def _too_few(kept: int, *, traces: int, drops: Counter[str], mismatch: str, skipped: str) -> UserError:
    counts = ", ".join(f"{reason}: {count}" for reason, count in drops.most_common())
    counts = "; ".join(filter(None, (counts, skipped))) or "no problem at all"
    most = max(drops, key=drops.__getitem__, default="")
    return UserError(
        f"training needs at least two rows with a right trace, and {kept} of {traces} is left",
        value=f"{counts}; the first that is not as served, {mismatch}" if mismatch else counts,
        cure=find_cure(most) if most else "mend the rows" if skipped else "give more problems with right traces",
    )


def _read_column(table: "Dataset", name: str) -> "Column":
    # Straight from the memory-mapped file: a column of a million rows must not become a million Python objects.
    values: Column = table.data.column(name).to_numpy()
    return values


def _number_problems(table: "Dataset", filters: Filters) -> "Column":
    """Return what identifies the problem of each row: rows of one problem have equal values."""
    import numpy as np

    if filters.duplicates == "keep":
        return _read_column(table, "problem_id")
    keys = _read_column(table, "problem_key")
    if filters.duplicates == "exact":
        return keys
    # One row stands for each distinct statement. np.unique sorts by key; duplicates are looked up in the rows' order,
    # so that a group of rewordings is named after its first row.
    _, first, number = np.unique(keys, return_index=True, return_inverse=True)
    order = np.sort(first)
    firsts = order[find_first_duplicates(_ProblemsAt(table, order))]
    first_of_row = dict(zip(order.tolist(), firsts.tolist(), strict=True))
    return np.asarray([first_of_row[row] for row in first.tolist()])[number]


class _ProblemsAt(Sequence[Problem]):
    """The problems of some rows, read one at a time and without the rows' tokens."""

    def __init__(self, table: "Dataset", rows: "NDArray[np.int64]") -> None:
        self._columns = [table.data.column(name) for name in ("problem_id", "statement", "gold", "answers")]
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Problem: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Problem]: ...
    def __getitem__(self, index: int | slice) -> Problem | Sequence[Problem]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        name, statement, gold, answers = (column[int(self._rows[index])].as_py() for column in self._columns)
        return Problem(id=name, statement=statement, gold=gold, answers=answers)


def _select(table: "Dataset", problems: "Column", *, rows: Rows, filters: Filters) -> tuple[list[int], list[str]]:
    """Return (indices of the rows to keep, each row's reason to drop it or "")."""
    import numpy as np

    repeated = np.zeros(len(table), dtype=bool)
    if filters.duplicates != "keep":
        repeated = mark_duplicates(problems, _read_column(table, "trace_key"))
    # Repeated rows go first: else one of two equal traces could take a place that the policy has for another trace.
    distinct = np.flatnonzero(~repeated)
    # Without the prompt: of two wordings of a problem the shorter one must not win by its statement.
    lengths = _read_column(table, "tokens") - _read_column(table, "prompt_tokens")
    limits = {
        "shortest_correct": {"shortest": 1},
        "k_shortest": {"shortest": rows.traces},
        "longest_under": {"longest_under": rows.longest},
        "all": {},
    }[rows.policy]
    kept = np.zeros(len(table), dtype=bool)
    kept[distinct[choose_traces(problems[distinct], lengths[distinct], **limits)]] = True
    reasons = np.where(kept, "", np.where(repeated, "duplicate", "policy"))
    return np.flatnonzero(kept).tolist(), reasons.tolist()


def _split(
    table: "Dataset", kept: Sequence[int], problems: "Column", *, count: int, seed: int
) -> tuple[list[int], list[int]]:
    """Return (train, heldout): the problems whose id hashes lowest are held out, with all their traces."""
    ids, groups = _read_column(table, "problem_id")[kept], problems[kept]
    # Reversed, so that the first row's id stands for its problem.
    id_of = dict(zip(groups[::-1], ids[::-1], strict=True))
    # Hashes, not a shuffle: the order of two problems does not depend on the others, so that more data moves few.
    order = sorted(id_of, key=lambda problem: hashlib.sha256(f"{seed}/{id_of[problem]}".encode()).digest())
    if len(order) < 2:
        raise UserError("training needs at least two problems", value=len(order), cure="give more problems")
    heldout = set(order[: min(count, max(1, len(order) // 10))])
    sides: dict[bool, list[int]] = {True: [], False: []}
    for index, problem in zip(kept, groups, strict=True):
        sides[problem in heldout].append(index)
    return sides[False], sides[True]


def _measure_packing(lengths: Sequence[int], *, budget: int) -> Packing:
    sequences = len(best_fit(lengths, budget=budget))
    return Packing(budget=budget, sequences=sequences, efficiency=round(sum(lengths) / (sequences * budget), 4))


def _write_texts(
    files: RowFiles,
    parts: Sequence[Part],
    *,
    table: "Dataset",
    train: Sequence[int],
    reasons: Sequence[str],
    maker: PartMaker,
) -> None:
    head = (_to_text(table[index], maker.prompts).to_json() for index in islice(train, _HEAD))
    write_atomically(files.head, "".join(map(_to_line, head)))
    _join(files.overlap, (part.overlap for part in parts))
    if maker.keep_dropped:
        dropped = (_to_dropped(reason, table[row], maker.prompts) for row, reason in enumerate(reasons) if reason)
        _join(files.dropped, (part.dropped for part in parts), (_to_line(trace.to_json()) for trace in dropped))


def _to_line(record: object) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _join(file: Path, parts: Iterable[Path], more: Iterable[str] = ()) -> None:
    """Join the parts' lines to one file, with at most one part in memory."""
    with replace_when_done(file) as temporary, temporary.open("w", encoding="utf-8") as out:
        for part in parts:
            out.write(part.read_text(encoding="utf-8"))
        out.writelines(more)


def _to_dropped(reason: str, row: TokenRow, prompts: PromptFormat) -> DroppedTrace:
    return DroppedTrace(
        reason=reason,
        id=row["problem_id"],
        statement=row["statement"],
        gold=row["gold"],
        source=row["source"],
        trace=str(prompts.tokenizer.decode(row["input_ids"][row["prompt_tokens"] : -1])),
    )


def _to_text(row: TokenRow, prompts: PromptFormat) -> RowText:
    prompt, completion = row["input_ids"][: row["prompt_tokens"]], row["input_ids"][row["prompt_tokens"] :]
    return RowText(
        problem_id=row["problem_id"],
        gold=row["gold"],
        prompt=str(prompts.tokenizer.decode(prompt)),
        trained=str(prompts.tokenizer.decode(completion)),
        prompt_tokens=len(prompt),
        trained_tokens=row["trained_tokens"],
        spans=_split_by_loss(row, prompts),
    )


def _split_by_loss(row: TokenRow, prompts: PromptFormat) -> list[tuple[str, bool]]:
    """Return the row's text in spans, each with whether it has loss."""
    runs = groupby(zip(row["input_ids"], row["labels"], strict=True), key=lambda pair: pair[1] != IGNORED)
    return [(str(prompts.tokenizer.decode([token for token, _ in run])), trained) for trained, run in runs]
