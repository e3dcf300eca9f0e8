"""A strict scorer: what a submission file must be, and the points it gets. Kaggle's own scorer is not public."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mathlete.competitions import Competition


def score_file(file: Path, *, ids: Sequence[str], rules: Competition) -> str | None:
    """Return what makes a submission.parquet unfit, or None.

    It must have exactly the columns id and answer, int64, not null, in range, every id once.
    """
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(file)
    if table.column_names != ["id", "answer"]:
        return f"columns {table.column_names}"
    ids_there = [str(value) for value in table["id"].to_pylist()]
    if sorted(ids_there) != sorted(ids):
        return f"ids {len(set(ids_there) & set(ids))}/{len(ids)} covered, {len(ids_there)} rows"
    if str(table["answer"].type) != "int64":
        return f"answer has type {table['answer'].type}"
    if nulls := table["answer"].null_count:
        return f"{nulls} null answers"
    if not all(rules.answer_min <= value <= rules.answer_max for value in table["answer"].to_pylist()):
        return "answers out of range"
    return None


def answers_in(file: Path) -> dict[str, int]:
    """Return {id: answer} of a file that `score_file` accepts."""
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(file)
    return dict(zip(map(str, table["id"].to_pylist()), table["answer"].to_pylist(), strict=True))


def penalised_score(runs: Sequence[Mapping[str, int]], *, golds: Mapping[str, int]) -> float:
    """Return AIMO-3's private score of two runs: 1 for a problem right in both, 0.5 in one, 0 in none.

    >>> penalised_score([{"a": 1, "b": 2}, {"a": 1, "b": 9}], golds={"a": 1, "b": 2})
    1.5

    Source: the evaluation page of ai-mathematical-olympiad-progress-prize-3.
    """
    return sum(sum(run.get(name) == gold for run in runs) / len(runs) for name, gold in golds.items())
