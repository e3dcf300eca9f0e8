"""What the page's reader lists: problems with their votes, and training rows, each with its packed traces."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from mathlete.report.html.traces import Trace, packed
from mathlete.report.training import TrainRun
from mathlete.scoring import EvalRun, Graded

Entry = tuple[dict[str, Any], list[Trace]]
"""(what the page tells of one run on one problem, its traces)."""


def entries(runs: Sequence[EvalRun | TrainRun], *, room: int) -> tuple[list[dict[str, Any]], list[str]]:
    """(problems, blocks of traces): each problem's `runs` has an entry or None for each run, which names its block."""
    problems: dict[str, dict[str, Any]] = {}
    traces: list[list[Trace]] = []
    for place, run in enumerate(runs):
        told = _of_evaluation(run) if isinstance(run, EvalRun) else _of_training(run)
        for key, facts, (entry, texts) in told:
            problem = problems.setdefault(key, {**facts, "runs": [None] * len(runs)})
            problem["runs"][place] = {**entry, "block": len(traces)}
            traces.append(texts)
    return list(problems.values()), packed(traces, room=room)


def _of_evaluation(run: EvalRun) -> list[tuple[str, dict[str, Any], Entry]]:
    found = []
    for item in run.graded:
        told = item.problem
        facts = {"id": told.id, "subset": told.subset, "gold": told.gold, "statement": told.statement}
        # Equal ids with other texts are other problems.
        found.append((f"{told.id}\0{told.statement}", facts, _solved(item)))
    return found


def _solved(item: Graded) -> Entry:
    solution, labels = item.solution, item.labels
    verdicts = {sample.index: verdict for sample, verdict in zip(solution.samples, item.verdicts, strict=True)}
    votes = [[vote.answer, vote.count, verdicts[vote.indexes[0]]] for vote in solution.votes]
    leading = _leading(labels, item.verdicts)
    traces = [
        Trace(
            text=sample.text,
            leading=place in leading,
            facts=[
                *(sample.index, sample.answer, verdict, label, sample.tokens, sample.finish),
                *(round(sample.seconds, 3), sample.logprob_mean, None),
            ],
        )
        for place, (sample, verdict, label) in enumerate(zip(solution.samples, item.verdicts, labels, strict=True))
    ]
    return {
        "answer": solution.answer,
        "verdict": item.verdict,
        "votes": votes,
        "right": item.right,
        "n": len(solution.samples),
        "longest": max((sample.tokens for sample in solution.samples), default=0),
        "cut": sum(sample.finish == "length" for sample in solution.samples),
        "seconds": round(solution.seconds, 2),
    }, traces


def _leading(labels: Sequence[int | None], verdicts: Sequence[str]) -> set[int]:
    """Places of the winner's first sample and of the first right one; of the first where there is neither."""
    found = {labels.index(0)} if 0 in labels else set()
    if "equal" in verdicts:
        found.add(verdicts.index("equal"))
    return found or {0}


def _of_training(run: TrainRun) -> list[tuple[str, dict[str, Any], Entry]]:
    found = [_row(number, row) for number, row in enumerate(run.rows)]
    by_reason = sorted(run.dropped, key=lambda row: str(row["reason"]))
    for reason, rows in groupby(by_reason, key=lambda row: str(row["reason"])):
        found += [_left_out(reason, number, row) for number, row in enumerate(rows)]
    return found


def _row(number: int, row: dict[str, Any]) -> tuple[str, dict[str, Any], Entry]:
    text = row["prompt"] + row["trained"]
    tokens = row["prompt_tokens"] + row["trained_tokens"]
    # The last fact is where the loss begins; it goes to the end.
    facts = [0, None, "none", None, tokens, "row", 0, None, len(row["prompt"])]
    told = {"id": row["problem_id"], "subset": "trained on", "gold": row["gold"], "statement": ""}
    entry = {"kind": "row", "votes": [], "n": 1, "longest": tokens, "cut": 0, "seconds": 0}
    return f"row {number}", told, (entry, [Trace(text=text, leading=True, facts=facts)])


def _left_out(reason: str, number: int, row: dict[str, Any]) -> tuple[str, dict[str, Any], Entry]:
    told = {"id": str(row.get("id", number)), "subset": f"left out: {reason}", "gold": str(row.get("gold", "")),
            "statement": str(row.get("statement", ""))}  # fmt: skip
    entry = {"kind": "dropped", "votes": [], "n": 1, "longest": 0, "cut": 0, "seconds": 0}
    text = str(row.get("trace", ""))
    facts = [0, None, "none", None, 0, reason, 0, None, None]
    return f"{reason} {number}", told, (entry, [Trace(text=text, leading=True, facts=facts)])
