"""What the page's reader lists: problems with their votes, and training rows, each with its packed traces."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from mathlete.losses import CAUSES, Cause
from mathlete.report.html.traces import ShownText, pack_traces
from mathlete.report.training import TrainRun
from mathlete.rows import DroppedTrace, RowText
from mathlete.sampling import Sample
from mathlete.scoring import EvalRun, Graded


@dataclass(frozen=True, kw_only=True)
class ReaderEntry:
    """One run's part in one line of the reader's list."""

    key: str
    """Runs with equal keys share the line."""
    problem: dict[str, str]
    """id, subset, gold and statement, as the page shows them."""
    content: dict[str, object]
    """Answer, votes and counts, for the page's script."""
    traces: list[ShownText]


def list_entries(runs: Sequence[EvalRun | TrainRun], *, trace_bytes: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Return (problems, blocks of traces); `runs` of a problem has, for each run, None or an entry naming its block."""
    problems: dict[str, dict[str, Any]] = {}
    traces: list[list[ShownText]] = []
    for position, run in enumerate(runs):
        for entry in _evaluation_entries(run) if isinstance(run, EvalRun) else _training_entries(run):
            problem = problems.setdefault(entry.key, {**entry.problem, "runs": [None] * len(runs)})
            problem["runs"][position] = {**entry.content, "block": len(traces)}
            traces.append(entry.traces)
    return list(problems.values()), pack_traces(traces, trace_bytes=trace_bytes)


def _evaluation_entries(run: EvalRun) -> list[ReaderEntry]:
    # What another checker said would contradict the grades beside it, which are this one's.
    told = [row.losses for row in run.results.per_problem if row.losses] if run.is_own_graded else []
    causes = {row.id: row.cause for row in told or run.find_losses()}
    return [_problem_entry(item, causes.get(item.problem.id)) for item in run.graded]


def _problem_entry(item: Graded, cause: Cause | None) -> ReaderEntry:
    problem, solution, labels = item.problem, item.solution, item.labels
    leading = _find_leading(labels, item.verdicts)
    traces = [
        ShownText(
            text=sample.text,
            leading=position in leading,
            facts=[
                *(sample.index, sample.answer, grade, label, sample.tokens, sample.finish),
                *(round(sample.seconds, 3), sample.logprob_mean, None),
            ],
            forced=_show_forced(sample, item),
        )
        for position, (sample, grade, label) in enumerate(zip(solution.samples, item.verdicts, labels, strict=True))
    ]
    return ReaderEntry(
        # Two suites may use one id for different problems: only equal texts share a line.
        key=f"{problem.id}\0{problem.statement}",
        problem={
            "id": problem.id,
            "subset": problem.subset,
            "gold": problem.gold,
            "statement": problem.statement,
        },
        content={
            "answer": solution.answer,
            "verdict": item.verdict,
            # A fourth value: those who voted so because they were made to answer.
            "votes": [
                [vote.answer, vote.count, item.judge_class(label), *filter(None, [len(vote.harvested)])]
                for label, vote in enumerate(solution.votes)
            ],
            "right": item.right,
            "n": len(solution.samples),
            "longest": max((sample.tokens for sample in solution.samples), default=0),
            "cut": sum(sample.finish == "length" for sample in solution.samples),
            "seconds": round(solution.seconds, 2),
            "lost": CAUSES[cause].label if cause and cause != "won" else "",
        },
        traces=traces,
    )


def _show_forced(sample: Sample, item: Graded) -> ShownText | None:
    if (forced := sample.harvest) is None:
        return None
    facts = [forced.answer, item.judge_answer(forced.answer), forced.tokens, forced.finish]
    return ShownText(text=forced.text, leading=False, facts=facts)


def _find_leading(labels: Sequence[int | None], verdicts: Sequence[str]) -> set[int]:
    """Return the positions of the winner's first sample and of the first right one; 0 where there is neither."""
    leading = {labels.index(0)} if 0 in labels else set()
    if "equal" in verdicts:
        leading.add(verdicts.index("equal"))
    return leading or {0}


def _training_entries(run: TrainRun) -> list[ReaderEntry]:
    entries = [_row_entry(number, row) for number, row in enumerate(run.rows)]
    by_reason = sorted(run.dropped, key=lambda trace: trace.reason)
    for _, traces in groupby(by_reason, key=lambda trace: trace.reason):
        entries += [_dropped_entry(number, trace) for number, trace in enumerate(traces)]
    return entries


def _row_entry(number: int, row: RowText) -> ReaderEntry:
    tokens = row.prompt_tokens + row.trained_tokens
    # The last fact is the character at which the loss begins; it goes on to the end.
    facts = [0, None, "none", None, tokens, "row", 0, None, len(row.prompt)]
    return ReaderEntry(
        key=f"row {number}",
        problem={"id": row.problem_id, "subset": "trained on", "gold": row.gold, "statement": ""},
        content=_trace_content("row", longest=tokens),
        traces=[ShownText(text=row.prompt + row.trained, leading=True, facts=facts)],
    )


def _dropped_entry(number: int, trace: DroppedTrace) -> ReaderEntry:
    facts = [0, None, "none", None, 0, trace.reason, 0, None, None]
    return ReaderEntry(
        key=f"{trace.reason} {number}",
        problem={
            "id": str(number) if trace.id is None else trace.id,
            "subset": f"left out: {trace.reason}",
            "gold": trace.gold or "",
            "statement": trace.statement or "",
        },
        content=_trace_content("dropped", longest=0),
        traces=[ShownText(text=trace.trace or "", leading=True, facts=facts)],
    )


def _trace_content(kind: str, *, longest: int) -> dict[str, object]:
    """Return the content of a single trace that no model voted on."""
    return {"kind": kind, "votes": [], "n": 1, "longest": longest, "cut": 0, "seconds": 0}
