"""Format: traced problems become token rows, those with a wrong, unproved or unfit trace left out and counted.

The work is kept in parts of a thousand problems, each finished by a rename, so that a killed run goes on.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from mathlete.answers import compare
from mathlete.corpus.traces import TracedProblem, has_marks
from mathlete.errors import UserError
from mathlete.prompts import PromptFormat
from mathlete.runs import read_json, write_atomically, write_json
from mathlete.tune.settings import Advance, Rows

if TYPE_CHECKING:
    from datasets import Dataset

TRAIN, HELDOUT, HEAD = "train", "heldout", "head.jsonl"
IGNORED = -100
"""The label of a token without loss, as torch's cross_entropy has it."""
_PARTS, _PART, _ROWS, _DROPPED = ".parts", 1000, "rows", "dropped.json"
_HEAD = 20


class Row(TypedDict):
    """One training row: what the served prompt is, and what the model must write after it."""

    problem_id: str
    statement: str
    gold: str
    prompt_tokens: int
    input_ids: list[int]
    """Prompt, completion, eos."""
    labels: list[int]
    """IGNORED over the prompt, then the completion's own ids."""


def row_of(traced: TracedProblem, *, prompts: PromptFormat, max_tokens: int) -> Row | str:
    """The row, or the reason why there is none: a flaw of the trace, wrong, unknown, empty, marks or too long."""
    problem, trace = traced.problem, traced.trace
    if trace.flaw:
        return trace.flaw
    verdict = compare(answer=trace.answer, gold=problem.gold).outcome
    if verdict != "equal":
        return "wrong" if verdict == "different" else "unknown"
    if not trace.text.strip():
        return "empty"
    prompt = prompts.prompt_ids(problem.statement)
    completion = prompts.completion_ids(trace=trace.text, answer=trace.answer)
    if has_marks(trace.text) or prompts.tokenizer.eos_token_id in completion[:-1]:
        # Such a row would teach the model to stop, or to leave its reasoning, in the middle of it.
        return "marks"
    if len(prompt) + len(completion) > max_tokens:
        return "too long"
    return Row(
        problem_id=problem.id,
        statement=problem.statement,
        gold=problem.gold,
        prompt_tokens=len(prompt),
        input_ids=prompt + completion,
        labels=[IGNORED] * len(prompt) + completion,
    )


def format_rows(
    output: Path,
    *,
    traced: Iterable[TracedProblem],
    total: int | None,
    prompts: PromptFormat,
    rows: Rows,
    seed: int,
    advance: Advance,
) -> dict[str, object]:
    """Writes `train/` and `heldout/` (datasets folders) and `head.jsonl` (the first rows as text); returns the counts.

    `total` is how many problems the progress bar counts to.

    Raises:
        UserError: fewer than two rows are left.
    """
    import datasets

    datasets.disable_progress_bars()
    made = _parts(output / _PARTS, traced, prompts=prompts, max_tokens=rows.max_tokens)
    parts, dropped = [], Counter[str]()
    for part, counts in made:
        parts += part
        dropped.update(counts)
        advance(sum(map(len, parts)) + dropped.total(), total, f"{dropped.total()} dropped")
    kept = sum(len(part) for part in parts)
    if kept < 2:
        raise UserError(
            f"training needs at least two rows with a right trace, and {kept} of {kept + dropped.total()} is left",
            value=", ".join(f"{reason}: {count}" for reason, count in dropped.items()) or "no problem at all",
            cure="give more problems, or longer rows with --rows.max-tokens",
        )
    train, heldout = _split(parts, count=rows.heldout, seed=seed)
    train.save_to_disk(output / TRAIN)
    heldout.save_to_disk(output / HELDOUT)
    write_atomically(output / HEAD, "".join(_readable(row, prompts) for row in islice(iter(train), _HEAD)))
    shutil.rmtree(output / _PARTS)
    lengths = [len(ids) for ids in train["input_ids"]]
    return {
        "problems": kept + dropped.total(),
        "rows": len(train),
        "heldout": len(heldout),
        "dropped": dict(sorted(dropped.items())),
        "tokens": sum(lengths),
        "longest": max(lengths),
        "trained_tokens": sum(lengths) - sum(train["prompt_tokens"]),
    }


def _parts(
    folder: Path, traced: Iterable[TracedProblem], *, prompts: PromptFormat, max_tokens: int
) -> "Iterator[tuple[list[Dataset], dict[str, Any]]]":
    """Yields (rows, dropped by reason) of a thousand problems at a time, made now or by a run that was killed.

    The rows are one set, or none: datasets saves a set without rows so that it can't be loaded.
    """
    import datasets

    for number, some in enumerate(_batched(traced)):
        part = folder / f"{number:05d}"
        if not part.exists():
            _write_part(part, some, prompts=prompts, max_tokens=max_tokens)
        rows = [datasets.load_from_disk(part / _ROWS)] if (part / _ROWS).exists() else []
        yield rows, read_json(part / _DROPPED)


def _batched(traced: Iterable[TracedProblem]) -> Iterator[list[TracedProblem]]:
    stream = iter(traced)
    while some := list(islice(stream, _PART)):
        yield some


def _write_part(part: Path, some: list[TracedProblem], *, prompts: PromptFormat, max_tokens: int) -> None:
    import datasets

    found = [row_of(one, prompts=prompts, max_tokens=max_tokens) for one in some]
    rows = [row for row in found if not isinstance(row, str)]
    unfinished = part.with_name(f"{part.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    if rows:
        datasets.Dataset.from_list(rows).save_to_disk(unfinished / _ROWS)
    write_json(unfinished / _DROPPED, Counter(reason for reason in found if isinstance(reason, str)))
    unfinished.rename(part)


def _split(parts: "list[Dataset]", *, count: int, seed: int) -> "tuple[Dataset, Dataset]":
    """(train, heldout): held out are the problems whose id hashes lowest, all traces of a problem on the same side."""
    import datasets

    table = datasets.concatenate_datasets(parts)
    ids = table["problem_id"]
    order = sorted(set(ids), key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    if len(order) < 2:
        raise UserError("training needs at least two problems", value=len(order), cure="give more problems")
    chosen = set(order[: min(count, max(1, len(order) // 10))])
    sides: dict[bool, list[int]] = {True: [], False: []}
    for index, name in enumerate(ids):
        sides[name in chosen].append(index)
    return _selected(table, sides[False]), _selected(table, sides[True])


def _selected(table: "Dataset", indices: list[int]) -> "Dataset":
    chosen: Dataset = table.select(indices, keep_in_memory=True)
    return chosen


def _readable(row: Row, prompts: PromptFormat) -> str:
    prompt, completion = row["input_ids"][: row["prompt_tokens"]], row["input_ids"][row["prompt_tokens"] :]
    shown = {
        "problem_id": row["problem_id"],
        "gold": row["gold"],
        "prompt": prompts.tokenizer.decode(prompt),
        "trained": prompts.tokenizer.decode(completion),
        "prompt_tokens": len(prompt),
        "trained_tokens": len(completion),
    }
    return json.dumps(shown, ensure_ascii=False) + "\n"
