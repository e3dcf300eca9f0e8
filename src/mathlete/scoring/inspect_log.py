"""A run as an eval log of Inspect, which its viewer opens: written through inspect_ai's own log API."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from mathlete.errors import UserError
from mathlete.sampling import Sample
from mathlete.scoring.grading import Graded, Verdict
from mathlete.scoring.recording import EvalRun

_STOPS = {"stop": "stop", "boxed": "stop", "length": "max_tokens", "cancelled": "unknown"}
_VALUES = {"equal": "C", "different": "I", "unknown": "I", "none": "N"}
"""Inspect's own letters: correct, incorrect, no answer."""
_SCORER = "mathlete"


def write_inspect_log(run: EvalRun, out: Path) -> Path:
    """Writes the log, each of a problem's samples as an epoch; returns its path.

    Raises:
        UserError: inspect_ai is not installed, the run is unfinished, or the name is not that of a log.
    """
    try:
        from inspect_ai.log import write_eval_log
    except ImportError as error:
        cure = "pip install 'mathlete[inspect]' into an environment of its own, for its pins are not those of this one"
        raise UserError("eval logs for Inspect need inspect_ai, which is not installed", cure=cure) from error
    if out.suffix not in (".eval", ".json"):
        raise UserError("a log's name ends in .eval or .json", value=out.name, cure="use --out NAME.eval")
    if not run.manifest:
        raise UserError("a log is of a finished run", value=str(run.folder), cure="run the evaluation to its end")
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.stem}.writing{out.suffix}")
    write_eval_log(_log(run), temporary)
    temporary.replace(out)
    return out


def _log(run: EvalRun) -> Any:
    from inspect_ai.log import EvalLog, EvalResults, EvalStats

    samples = [sample for item in run.graded for sample in _samples(item, model=run.found["model"])]
    finished = run.manifest["finished"]
    started = datetime.fromisoformat(finished) - timedelta(seconds=run.manifest["seconds"])
    return EvalLog(
        status="success",
        eval=_spec(run),
        results=EvalResults(total_samples=len(samples), completed_samples=len(samples), scores=[_scores(run.found)]),
        stats=EvalStats(started_at=started.isoformat(), completed_at=finished),
        samples=samples,
    )


def _spec(run: EvalRun) -> Any:
    from inspect_ai.log import EvalConfig, EvalDataset, EvalSpec
    from inspect_ai.model import GenerateConfig

    found, sampling = run.found, run.found["policy"]["sampling"]
    ids: list[str | int] = [item.problem.id for item in run.graded]
    told = ("model_sha", "prompt_sha", "suite_sha", "precision", "commit", "dirty", "policy")
    return EvalSpec(
        created=run.manifest["finished"],
        task=found["suite"],
        # The same run gives the same log.
        eval_id=run.manifest["key"][:22],
        run_id=run.manifest["key"][:22],
        task_id=found["suite_sha"][:22],
        dataset=EvalDataset(name=found["suite"], samples=len(ids), sample_ids=ids),
        model=f"{found['engine']}/{found['model']}",
        model_generate_config=GenerateConfig(
            temperature=sampling["temperature"], top_p=sampling["top_p"], max_tokens=sampling["max_tokens"]
        ),
        config=EvalConfig(epochs=found["n"]),
        packages=run.manifest["packages"],
        metadata={key: found[key] for key in told if key in found},
    )


def _scores(found: dict[str, Any]) -> Any:
    from inspect_ai.log import EvalMetric, EvalScore

    told = {"pass@1": found["pass_at_1"], "stderr": found["pass_at_1_se"], f"maj@{found['k']}": found["maj_at_k"]}
    metrics = {name: EvalMetric(name=name, value=value) for name, value in told.items() if value is not None}
    return EvalScore(name=_SCORER, scorer=_SCORER, metrics=metrics)


def _samples(item: Graded, *, model: str) -> list[Any]:
    build = _sample_builder(item, model)
    return [build(*pair) for pair in zip(item.solution.samples, item.verdicts, strict=True)]


def _sample_builder(item: Graded, model: str) -> Callable[[Sample, Verdict], Any]:
    from inspect_ai.log import EvalSample
    from inspect_ai.model import ChatCompletionChoice, ChatMessageUser, ModelOutput, ModelUsage
    from inspect_ai.scorer import Score

    told = item.problem
    facts = {"subset": told.subset, "voted": item.solution.answer, "vote": item.verdict}

    def build(sample: Sample, verdict: Verdict) -> Any:
        reply = _reply(sample.text, model)
        stop: Any = _STOPS[sample.finish]
        usage = ModelUsage(output_tokens=sample.tokens, total_tokens=sample.tokens)
        return EvalSample(
            id=told.id,
            epoch=sample.index + 1,
            input=told.statement,
            target=told.gold,
            messages=[ChatMessageUser(content=told.statement), reply],
            output=ModelOutput(
                model=model, choices=[ChatCompletionChoice(message=reply, stop_reason=stop)], usage=usage
            ),
            scores={
                _SCORER: Score(value=_VALUES[verdict], answer=sample.answer, explanation=f"against gold: {verdict}")
            },
            metadata={**facts, "seed": sample.seed, "finish": sample.finish, "logprob_mean": sample.logprob_mean},
            model_usage={model: usage},
            total_time=sample.seconds,
        )

    return build


def _reply(text: str, model: str) -> Any:
    from inspect_ai.model import ChatMessageAssistant, ContentReasoning, ContentText

    thought, ended, said = text.partition("</think>")
    if not ended:
        return ChatMessageAssistant(content=text, model=model, source="generate")
    parts = [ContentReasoning(reasoning=thought.strip()), ContentText(text=said.strip())]
    return ChatMessageAssistant(content=parts, model=model, source="generate")
