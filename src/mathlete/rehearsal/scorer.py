"""A strict scorer: what a submission file must be, and the points it gets. Kaggle's own scorer is not public."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mathlete.competitions import Competition


def score_file(file: Path, *, ids: Sequence[str], rules: Competition) -> str | None:
    """Return what makes a submission.parquet unfit, or None.

    It must have exactly the submission's two columns: every id once, answers as int64, not null, in range.
    """
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(file)
    except (pyarrow.ArrowInvalid, OSError) as error:
        # Cut off, as on a full disk, or no parquet at all.
        return f"no parquet file: {error}"
    if table.column_names != [*rules.submission_columns]:
        return f"columns {table.column_names}"
    ids_there = [str(value) for value in table[0].to_pylist()]
    if sorted(ids_there) != sorted(ids):
        return f"ids {len(set(ids_there) & set(ids))}/{len(ids)} covered, {len(ids_there)} rows"
    if str(table[1].type) != "int64":
        return f"answer has type {table[1].type}"
    if nulls := table[1].null_count:
        return f"{nulls} null answers"
    if not all(value in rules.notebook.answers for value in table[1].to_pylist()):
        return "answers out of range"
    return None


def answers_in(file: Path) -> dict[str, int]:
    """Return {id: answer} of a file that `score_file` accepts."""
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(file)
    return dict(zip(map(str, table[0].to_pylist()), table[1].to_pylist(), strict=True))


def score_runs(runs: Sequence[Mapping[str, str]], *, golds: Mapping[str, str], rules: Competition) -> float:
    """Return the competition's score of the runs together.

    Args:
        runs: {problem id: what was handed in} of each run.
        golds: {problem id: gold}, as the organiser has it.
        rules: the competition.

    >>> from mathlete.competitions import competition
    >>> runs = [{"a": "1", "b": "2"}, {"a": "1", "b": "9"}]
    >>> score_runs(runs, golds={"a": "1", "b": "2"}, rules=competition("aimo-3"))
    1.5
    """
    score = 0.0
    for name, gold in golds.items():
        judged = [rules.scorer.judge(run.get(name), gold=gold) for run in runs]
        right, blank = (sum(said) for said in zip(*((one.right, one.read is None) for one in judged), strict=True))
        score += rules.score(right, blank=blank, runs=len(runs))
    return score
