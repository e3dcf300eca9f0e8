"""`samples_TASK_DATE.jsonl` of lm-evaluation-harness (`lm_eval --log_samples`), and details of lighteval.

Layouts: EleutherAI/lm-evaluation-harness, commit 4e7e0d4: `lm_eval/evaluator.py` (doc_id, doc, target, arguments,
resps, filtered_resps, filter, metrics) and `EvaluationTracker.save_results_samples`. `resps` holds for each request the
texts of its repeats; a row stands once for every filter. huggingface/lighteval, commit 3fd1526:
`EvaluationTracker.save`, parquet with the columns doc, metric and model_response, of `Doc` and `ModelResponse`. Neither
has seconds; the harness has no tokens either.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mathlete.files import read_json
from mathlete.logs.entries import (
    Entry,
    Facts,
    LogRow,
    Place,
    as_gold,
    as_text,
    dig,
    fail,
    find_statement,
    list_golds,
    sampling_of,
    says_right,
)
from mathlete.logs.reasoned import join_reasoning, opens_thoughts

_SAMPLES = re.compile(r"samples_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT[\d.-]+)\.jsonl")
_DETAILS = re.compile(r"details_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT[\d.-]+)\.parquet")


def is_harness(row: LogRow) -> bool:
    """Return whether a row is one of the harness's samples."""
    return "doc_id" in row and "resps" in row


def find_results(path: Path) -> Path | None:
    """Return the results that the harness or lighteval wrote of a file's run, which lie elsewhere; None where there are
    none."""
    if named := _SAMPLES.fullmatch(path.name):
        results = path.with_name(f"results_{named['date']}.json")
        return results if results.is_file() else None
    named, parts, at = _DETAILS.fullmatch(path.name), path.resolve().parent.parts, _find_details(path)
    if not named or at is None:
        return None
    results = Path(*parts[:at], "results", *parts[at + 1 : -1], f"results_{named['date']}.json")
    return results if results.is_file() else None


def _find_details(path: Path) -> int | None:
    """Return which part of a file's folder is lighteval's details; None where none is."""
    parts = path.resolve().parent.parts
    return parts.index("details") if "details" in parts else None


def harness_file_facts(path: Path) -> Facts:
    """Return the task from the file's name, and from the results beside it, whose date is the same, the model and
    whether reasoning was left out.

    With think_end_token the harness keeps what stands behind the last such mark (0.4.13, `lm_eval/models/utils.py`,
    `postprocess_generated_text`).
    """
    named, results = _SAMPLES.fullmatch(path.name), find_results(path)
    told = read_json(results) if results else {}
    return Facts(
        model=as_text(told.get("model_name")),
        task=named["task"] if named else path.stem,
        left_out="think_end_token" if _has_end_token(dig(told, "config.model_args")) else "",
    )


def _has_end_token(arguments: object) -> bool:
    """Return whether a model's arguments, an object or NAME=VALUE with commas, name the end of the reasoning."""
    if isinstance(arguments, str):
        arguments = dict(word.strip().partition("=")[::2] for word in arguments.split(","))
    value = as_text(arguments.get("think_end_token")) if isinstance(arguments, Mapping) else None
    return value not in (None, "None")


def harness_facts(row: LogRow) -> Facts:
    """Return the settings of a row's request."""
    settings = dig(row, "arguments.gen_args_0.arg_1")
    sampling = sampling_of(settings, max_tokens="max_gen_toks")
    if isinstance(settings, Mapping) and settings.get("do_sample") is False:
        sampling["temperature"] = 0.0
    return Facts(sampling=sampling)


def read_harness(row: LogRow, place: Place) -> Iterator[Entry]:
    """Yield a sample for each repeat."""
    texts = row["resps"][0] if row["resps"] else []
    if len(row["resps"]) != 1 or not all(isinstance(text, str) for text in texts):
        raise fail(
            place,
            "the harness must have generated texts: a task scored by likelihoods has none",
            value=row["resps"],
            cure="run a task whose output_type is generate_until with `lm_eval --log_samples`",
        )
    doc = row["doc"] if isinstance(row["doc"], Mapping) else {}
    own = doc.get("id")
    prompt = as_text(dig(row, "arguments.gen_args_0.arg_0"))
    for number, text in enumerate(texts):
        yield Entry(
            where=place.where,
            problem_id=own if isinstance(own, str) and own else f"{place.facts.task}-{row['doc_id']}",
            statement=find_statement(doc) or prompt,
            gold=as_gold(row.get("target")),
            other_golds=len(list_golds(row.get("target"))) > 1,
            text=text,
            index=number,
            verdicts=_verdicts({name: row.get(name) for name in row.get("metrics", ())}, of=texts),
            thinking=False if place.facts.left_out else opens_thoughts(prompt),
        )


def _verdicts(metrics: object, *, of: Sequence[object]) -> dict[str, bool]:
    """Return {metric: whether the text is right}; of several texts a metric says no more than a mean."""
    if len(of) != 1 or not isinstance(metrics, Mapping):
        return {}
    return {name: bool(value) for name, value in metrics.items() if says_right(name) and value in (0, 1)}


def is_lighteval(row: LogRow) -> bool:
    """Return whether a row is one of lighteval's details."""
    return isinstance(row.get("doc"), Mapping) and isinstance(row.get("model_response"), Mapping)


def lighteval_file_facts(path: Path) -> Facts:
    """Return the task from the file's name, the model from the folders details/MODEL/DATE, the settings from the run's
    results of that date in results/MODEL.

    lighteval's engines cut at the run's own max_new_tokens, and at the task's cap only where the run has none. So
    without the results no cap is known to be the one in force.
    """
    named, at, results = _DETAILS.fullmatch(path.name), _find_details(path), find_results(path)
    model = path.resolve().parent.parts[at + 1 : -1] if at is not None else ()
    settings = _generation_settings(results) if results else None
    sampling = sampling_of(settings, max_tokens="max_new_tokens")
    return Facts(
        model="/".join(model) or None,
        task=named["task"] if named else None,
        sampling=sampling,
        doubted=("max_tokens",) if settings is None or "max_tokens" in sampling else (),
    )


def _generation_settings(results: Path) -> object:
    """Return the run's settings in its results, where versions of lighteval write them; None where they are not."""
    content = read_json(results)
    places = ("config_general.model_config.generation_parameters", "config_general.generation_parameters")
    return next((value for place in places if isinstance(value := dig(content, place), Mapping)), None)


def lighteval_facts(row: LogRow) -> Facts:
    """Return the task and its cap."""
    sampling = sampling_of({"max_tokens": dig(row, "doc.generation_size")})
    return Facts(task=as_text(dig(row, "doc.task_name")), sampling=sampling)


def read_lighteval(row: LogRow, place: Place) -> Iterator[Entry]:
    """Yield a sample for each text."""
    doc, response = row["doc"], row["model_response"]
    texts = response.get("text") or []
    if not texts:
        raise fail(
            place,
            "lighteval must have generated texts: a task scored by likelihoods has none",
            value=sorted(response),
            cure="run a generative task with `lighteval --save-details`",
        )
    # Several golds are several ways to write one; the first is the data set's.
    golds = doc.get("gold_index")
    several = isinstance(golds, list) and len(golds) > 1
    gold = (golds[0] if golds else None) if isinstance(golds, list) else golds
    lengths = [len(ids) for ids in response.get("output_tokens") or ()]
    cap, reasonings = place.facts.sampling.get("max_tokens"), response.get("reasonings") or ()
    for number, text in enumerate(texts):
        tokens = lengths[number] if len(lengths) == len(texts) else None
        yield Entry(
            where=place.where,
            problem_id=f"{doc.get('task_name') or place.facts.task}-{doc.get('id')}" if doc.get("id") else None,
            statement=as_text(doc.get("original_query")) or as_text(doc.get("query")),
            gold=as_gold(dig(doc, f"choices.{gold}")),
            text=join_reasoning(reasonings[number], text) if len(reasonings) == len(texts) else text,
            tokens=tokens,
            # It logs no reason; but what is as long as the cap was cut by it.
            finish=None if tokens is None or cap is None else "length" if tokens >= cap else "stop",
            index=number,
            other_golds=several,
            verdicts=_verdicts(row.get("metric"), of=texts),
            thinking=opens_thoughts(response.get("input")),
        )
