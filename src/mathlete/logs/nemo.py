"""Generations of NeMo-Skills: `output-rsSEED.jsonl`, also in chunks.

Layout: NVIDIA-NeMo/Skills, commit 8b18f39: `nemo_skills/inference/generate.py` (`dump_outputs`: the row of the data set
with generation, num_generated_tokens, generation_time), `inference/model/base.py` (reasoning_content, finish_reason,
logprobs), `evaluation/math_grader.py` (predicted_answer, symbolic_correct), `evaluation/metrics/utils.py` (judgement),
and `pipeline/utils/generation.py` for the names of files.
"""

import re
from collections.abc import Iterator

from mathlete.logs.entries import (
    Entry,
    Facts,
    LogRow,
    Place,
    as_count,
    as_gold,
    as_number,
    as_text,
    find_statement,
    list_golds,
    mean_logprob,
)
from mathlete.logs.finishes import as_finish
from mathlete.logs.reasoned import join_reasoning
from mathlete.sampling import Sample

_SEED = re.compile(r"output-rs(\d+)(?:[-_]chunk[-_]?\d+)?\.jsonl")

_JUDGEMENT = re.compile(r"(?i)\bjudg[e]?ment\**\s*:[\s*]*(yes|no)\b")


def is_nemo(row: LogRow) -> bool:
    """Return whether a row is a generation of NeMo-Skills."""
    return "generation" in row and ("expected_answer" in row or "problem" in row)


def nemo_facts(row: LogRow) -> Facts:
    """Return the task; nothing of the model or its settings is in these files."""
    return Facts(task=as_text(row.get("dataset")))


def read_nemo(row: LogRow, place: Place) -> Iterator[Entry]:
    """Yield the row's sample."""
    seed = _SEED.fullmatch(place.path.name)
    logprobs = row["logprobs"] if isinstance(row.get("logprobs"), list) else []
    yield Entry(
        where=place.where,
        problem_id=as_text(row.get("id")),
        statement=find_statement(row),
        gold=as_gold(row.get("expected_answer")),
        other_golds=len(list_golds(row.get("expected_answer"))) > 1,
        subset=as_text(row.get("subset") or row.get("level")) or "",
        text=join_reasoning(row.get("reasoning_content"), row.get("_full_generation") or row["generation"]),
        answer=as_text(row.get("predicted_answer")),
        tokens=as_count(row.get("num_generated_tokens")),
        seconds=as_number(row.get("generation_time")),
        finish=as_finish(row.get("finish_reason")),
        ended=as_text(row.get("finish_reason")),
        logprob_mean=mean_logprob(logprobs),
        logprob_tail=mean_logprob(logprobs, last=Sample.TAIL_TOKENS),
        seed=int(seed[1]) if seed else None,
        uid=f"rs{seed[1]}" if seed else None,
        verdicts=_verdicts(row),
        # It looks for the end of the reasoning where it is told that the model reasons.
        thinking=row.get("_generation_finished_thinking") is False or None,
    )


def _verdicts(row: LogRow) -> dict[str, bool]:
    """Return what its graders said: the symbolic one, and a model as a judge, whose text says yes or no."""
    said = {name: value for name in ("symbolic_correct", "is_correct") if isinstance(value := row.get(name), bool)}
    judged = _JUDGEMENT.search(text) if isinstance(text := row.get("judgement"), str) else None
    return {**said, **({"judgement": judged[1].lower() == "yes"} if judged else {})}
