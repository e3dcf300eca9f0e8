"""A run's scores in the shape of lm-evaluation-harness, for tools that read its result files.

Keys and types as in its `lm_eval/result_schema.py` (https://github.com/EleutherAI/lm-evaluation-harness, commit
293c9dfb6983aa36fd40accb05a1ad32f135edcd): scores are `metric,filter` pairs. The filter `none` takes every sample by
itself, `maj@k` the vote of k, as in its self-consistency tasks. Not covered: its log of samples.
"""

import math
from collections.abc import Mapping
from typing import Any

HARNESS = "lm_eval.json"


def harness_results(results: Mapping[str, Any], *, began: float) -> dict[str, Any]:
    """Return the content of lm_eval.json, made of that of results.json: both ends are files, so both are JSON here.

    Args:
        results: the content of results.json.
        began: when the evaluation began, seconds since 1970.
    """
    suite, policy = results["suite"], results["policy"]
    parts = {suite: results, **{f"{suite}/{name}": part for name, part in results["subsets"].items() if name}}
    names = [*parts]
    generation = {**policy["sampling"], "do_sample": policy["sampling"]["temperature"] > 0}
    return {
        "results": {name: _scores(name, part) for name, part in parts.items()},
        "group_subtasks": {suite: names[1:]},
        "configs": {
            suite: {
                "task": suite,
                "output_type": "generate_until",
                "num_fewshot": 0,
                "repeats": results["n"],
                "generation_kwargs": generation,
                "metadata": {"version": results["suite_sha"], "policy": policy},
            }
        },
        "versions": dict.fromkeys(names, results["suite_sha"]),
        "n-shot": dict.fromkeys(names, 0),
        "higher_is_better": {name: {"exact_match": True, "pass": True} for name in names},
        "n-samples": {name: dict.fromkeys(("original", "effective"), part["problems"]) for name, part in parts.items()},
        "config": {
            "model": results["engine"],
            "model_args": {"pretrained": results["model"], "precision": results["precision"]},
            "model_sha": results["model_sha"],
            "batch_size": None,
            "limit": None,
            "gen_kwargs": generation,
            "random_seed": policy["seed"],
        },
        "git_hash": results["commit"],
        "date": began,
        "model_source": results["engine"],
        "model_name": results["model"],
        "model_name_sanitized": results["model"].replace("/", "__"),
        "chat_template_sha": results["prompt_sha"],
        "task_hashes": {suite: results["suite_sha"]},
        "total_evaluation_time_seconds": str(results["seconds"]),
    }


def _scores(name: str, part: Mapping[str, Any]) -> dict[str, Any]:
    votes = {k: interval["value"] for k, interval in part["maj_at"].items()} | {str(part["k"]): part["maj_at_k"]}
    vote = part["maj_at_k"]
    # The harness gives the standard error of a mean of zeros and ones; results.json has Wilson's interval instead.
    error = math.sqrt(vote * (1 - vote) / (part["problems"] - 1)) if part["problems"] > 1 else "N/A"
    return {
        "name": name,
        "alias": name,
        "sample_len": part["problems"],
        "exact_match,none": part["pass_at_1"],
        "exact_match_stderr,none": "N/A" if part["pass_at_1_se"] is None else part["pass_at_1_se"],
        **{f"exact_match,maj@{k}": value for k, value in votes.items()},
        **{f"exact_match_stderr,maj@{k}": error if k == str(part["k"]) else "N/A" for k in votes},
        **{f"pass,pass@{k}": value for k, value in part["pass_at"].items()},
    }
