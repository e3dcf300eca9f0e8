"""One problem's completions as each tool logs them: the first is finished, the others ended as `finish` says."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

QUESTION = "What is 40 + 2?"
ASKED = {"id": "p", "problem": QUESTION, "expected_answer": "42"}


def write(folder: Path, rows: Sequence[Mapping[str, Any]], name: str = "log.jsonl") -> Path:
    file = folder / name
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def nemo(folder: Path, texts: Sequence[str], finish: str | None) -> Path:
    return write(folder, [{**ASKED, "generation": text, "finish_reason": finish if n else "stop"}
                          for n, text in enumerate(texts)])  # fmt: skip


def nemo_parsed(folder: Path, texts: Sequence[str], finish: str | None) -> Path:
    """As NeMo-Skills writes them where it is told that the model reasons."""
    rows = [
        {
            **ASKED,
            "generation": text.rpartition("</think>")[2] if "</think>" in text else "",
            "_full_generation": text,
            "_generation_finished_thinking": "</think>" in text,
        }
        for text in texts[1:]
    ]
    return write(folder, rows)


def chat(folder: Path, texts: Sequence[str], finish: str | None) -> Path:
    """Responses of a server that sends the reasoning apart."""
    pairs = [text.split("</think>") for text in texts]
    rows = [{"choices": [{"index": 0, "finish_reason": finish if n else "stop", "message": {
                "role": "assistant", "reasoning_content": pair[0], "content": pair[1] if len(pair) > 1 else None}}],
             "problem_id": "p", "id": f"c{n}"} for n, pair in enumerate(pairs)]  # fmt: skip
    return write(folder, rows)


def chat_as_content(folder: Path, texts: Sequence[str], finish: str | None) -> Path:
    """Responses of a server whose parser takes a text without the end of the reasoning for the answer."""
    rows = [{"choices": [{"index": 0, "finish_reason": finish if n else "stop", "message": {
                "reasoning_content": text.partition("</think>")[0] if "</think>" in text else None,
                "content": text.partition("</think>")[2] if "</think>" in text else text}}],
             "problem_id": "p", "id": f"c{n}"} for n, text in enumerate(texts)]  # fmt: skip
    return write(folder, rows)


def completions(folder: Path, texts: Sequence[str], finish: str | None) -> Path:
    return write(folder, [{"choices": [{"index": 0, "text": text, "finish_reason": finish if n else "stop"}],
                           "problem_id": "p", "id": f"c{n}"} for n, text in enumerate(texts)])  # fmt: skip


def completions_with_prompts(folder: Path, texts: Sequence[str], finish: str | None) -> Path:
    return write(folder, [{"choices": [{"index": 0, "text": text, "finish_reason": finish}], "problem_id": "p",
                           "request": {"prompt": "What?<A><think>\n"}} for text in texts[1:]])  # fmt: skip


def harness(folder: Path, texts: Sequence[str], finish: str | None) -> Path:
    return write(folder, [{"doc_id": 0, "doc": {"id": "p", **ASKED}, "target": "42", "filter": "none",
                           "resps": [[*texts]]}], "samples_t_2026-01-01T00-00-00.0.jsonl")  # fmt: skip


def harness_with_prompts(folder: Path, texts: Sequence[str], finish: str | None) -> Path:
    return write(folder, [{"doc_id": 0, "doc": {"id": "p", **ASKED}, "target": "42", "filter": "none",
                           "arguments": {"gen_args_0": {"arg_0": "What?<A><think>\n", "arg_1": {}}},
                           "resps": [[*texts[1:]]]}], "samples_t_2026-01-01T00-00-00.0.jsonl")  # fmt: skip


def lighteval(folder: Path, texts: Sequence[str], finish: str | None) -> Path:
    row = {"doc": {"id": "p", "task_name": "t", "query": "What?", "choices": ["42"], "gold_index": [0],
                   "generation_size": 5},
           "model_response": {"text": [*texts], "output_tokens": [[1]] + [[1] * 5] * (len(texts) - 1)}}  # fmt: skip
    file = folder / "details_t_2026-01-01T00-00-00.0.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), file)
    return file


def inspect(folder: Path, texts: Sequence[str], finish: str | None) -> Path:
    samples = [{"id": "p", "epoch": n + 1, "input": "What?", "target": "42",
                "output": {"choices": [{"message": {"content": text},
                                        "stop_reason": ("max_tokens" if finish else "unknown") if n else "stop"}]}}
               for n, text in enumerate(texts)]  # fmt: skip
    file = folder / "log.json"
    file.write_text(json.dumps({"status": "success", "eval": {"task": "t"}, "samples": samples}))
    return file


def table(folder: Path, texts: Sequence[str], finish: str | None) -> Path:
    return write(folder, [{"number": "p", "right": "42", "said": text, "why": finish if n else "stop"}
                          for n, text in enumerate(texts)])  # fmt: skip


LAYOUTS: dict[str, Callable[[Path, Sequence[str], str | None], Path]] = {
    one.__name__: one
    for one in (
        *(nemo, nemo_parsed, chat, chat_as_content, completions, completions_with_prompts, harness),
        *(harness_with_prompts, lighteval, inspect, table),
    )
}
COLUMNS = {"problem_id": "number", "gold": "right", "text": "said", "finish": "why"}
