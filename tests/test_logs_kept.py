"""What a run or a log says is kept: forced answers, settings that must agree, several verdicts and golds."""

import json
from dataclasses import fields, replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from mathlete.errors import UserError
from mathlete.problems import Problem, write_problems
from mathlete.report.html.tables import score_table
from mathlete.sampling import Sample, SamplingConfig, read_samples
from mathlete.sampling.harvest import Harvest
from mathlete.scoring import EvalRun, Pool, Results, RunFacts, RunSettings, grade
from mathlete.scoring.facts import MAY_DIFFER
from mathlete.solve import BudgetSettings, Policy, Solution
from tests.conftest import CommandLine
from tests.test_logs import HERE, imported, inspect_json, nemo, problems_file, write_lines

SETTINGS = RunSettings(
    suite="sums", suite_sha="x", problems=4, precision="fp32", policy=Policy(n=4, harvest=0.5), engine="transformers",
    budget=BudgetSettings(wall_s=9.0, floor_s=1.0, ceiling_s=3.0, questions=4), tools=None, model_sha="m",
)  # fmt: skip


@pytest.fixture(autouse=True)
def inside(workdir: Path) -> None:
    """Every test stands in a folder of its own."""


def forced_run(folder: str, settings: RunSettings = SETTINGS) -> None:
    """A run on a clock: of four problems one has all samples, two have forced answers and one has nothing."""
    policy, answers = settings.policy, ("7", "7", "8", "9")
    asked = [Problem(id=f"p{number}", statement=f"What is {number}?", gold="8") for number in range(4)]
    solutions = []
    for number, problem in enumerate(asked):
        drawn = [
            Sample(problem_id=problem.id, index=index, seed=policy.sample_seed(problem_id=problem.id, index=index),
                   text="Hm", answer=said, tokens=9 + index, finish="stop", seconds=1.0 + index / 3, logprob_mean=-0.25)
            for index, said in enumerate(answers[: (4, 2, 1, 0)[number]])
        ]  # fmt: skip
        forced = Harvest(text="\\boxed{8}", answer="8", tokens=3, finish="boxed", seconds=0.25)
        late = [
            Sample(problem_id=problem.id, index=3, seed=policy.sample_seed(problem_id=problem.id, index=3), text="So",
                   tokens=7, finish="clock", seconds=2.0, in_thoughts=True, harvest=forced)
        ] * (number in (1, 2))  # fmt: skip
        votes = policy.count_votes([*drawn, *late])
        solutions.append(
            Solution(problem_id=problem.id, answer=votes[0].answer if votes else None, votes=votes, samples=drawn,
                     unfinished=late, seconds=2.5, ended="time" if number else "all")
        )  # fmt: skip
    facts = RunFacts(settings=settings, n=4, model="pocket", engine_facts={}, prompt_sha="p", commit="c", dirty=False,
                     seconds=5.0, tokens_per_s=9.0, resumed_samples=0)  # fmt: skip
    Path(folder).mkdir()
    write_problems(Path(folder, "problems.jsonl"), asked)
    rows = [sample.to_json() for one in solutions for sample in one.voting]
    write_lines(f"{folder}/samples.jsonl", rows)
    Results.of(grade(asked, solutions), facts).write(Path(folder), began=0.0)


@pytest.mark.parametrize("texts", [True, False])
def test_a_run_imported_alone_is_the_run_itself(texts: bool) -> None:
    forced_run("run")
    imported("again", "run", *([] if texts else ["--no-texts"]))
    samples = [read_samples(Path(name, "samples.jsonl")) for name in ("run", "again")]
    hidden = [
        replace(one, text="", seconds=round(one.seconds, 3), harvest=one.harvest and replace(one.harvest, text=""))
        for one in samples[0]
    ]
    assert samples[1] == (samples[0] if texts else hidden)
    run, again = (json.loads(Path(name, "results.json").read_text()) for name in ("run", "again"))
    own = {"suite", "suite_sha", "missing", "commit", "dirty", "tokens_per_s"}
    # Without texts seconds are rounded, as the samples are.
    own |= set() if texts else {"seconds", "per_problem"}
    assert {key: value for key, value in again.items() if key not in own} == {
        key: value for key, value in run.items() if key not in own
    }
    assert (run["problems"], run["harvest"]["samples"], run["harvest"]["unfinished"]) == (4, 2, 2)


def with_setting(name: str, value: object) -> RunSettings:
    """The settings with another value of one of them, in whatever group it stands."""
    policy = SETTINGS.policy
    changed: dict[str, Any] = {name: value}
    if name in {one.name for one in fields(SamplingConfig)} - {"stop"}:
        return replace(SETTINGS, policy=replace(policy, sampling=replace(policy.sampling, **changed)))
    of_policy = name in {one.name for one in fields(Policy)}
    return replace(SETTINGS, policy=replace(policy, **changed)) if of_policy else replace(SETTINGS, **changed)


def test_all_settings_must_agree_but_those_that_are_named() -> None:
    every = {one.name for kind in (RunSettings, Policy, SamplingConfig) for one in fields(kind)} - {
        "policy",
        "sampling",
    }
    assert every >= MAY_DIFFER
    for name in every:
        assert (with_setting(name, "other").fixed == SETTINGS.fixed) == (name in MAY_DIFFER), name


def trim(*names: str) -> list[Path]:
    """Leave out the problem without a sample: the replay wants some of each."""
    for name in names:
        file = Path(name, "problems.jsonl")
        file.write_text("\n".join(file.read_text().splitlines()[:3]))
    return [*map(Path, names)]


OTHER: list[tuple[str, object, bool]] = [
    # (setting, its value in the other run, whether runs are pooled that differ in it)
    ("dtype", "bfloat16", False),
    ("harvest", 0.0, False),
    ("harvest", 1.0, True),
    ("harvest_tokens", 64, False),
    ("timeout_s", 2.0, False),
    ("temperature", 1.5, False),
    ("tools", {"turns": 2}, False),
    ("opens_thoughts", "yes", False),
    ("vote", "logprob", True),
    ("select", 4, True),
]


@pytest.mark.parametrize(("name", "value", "pooled"), OTHER)
def test_runs_of_other_settings_are_no_slices_of_one(name: str, value: object, pooled: bool) -> None:
    # Forced answers of a weight of 0 are none.
    forced_run("one")
    other = with_setting(name, value)
    forced_run("other", replace(other, policy=replace(other.policy, seed=1)))
    with pytest.raises(UserError, match=f"with the same {name}, got"):
        imported("r", "one", "other")
    folders = trim("one", "other")
    if pooled:
        assert Pool.read(folders).fewest == 2
    else:
        with pytest.raises(UserError, match=f"pooled only with the same {name}, got"):
            Pool.read(folders)


def answer_table(name: str, answers: str) -> Path:
    """A table of answers alone, as a run of one problem a letter and two samples of each."""
    rows = [
        {"id": f"p{at // 2}", "gold": "1", "said": said, "n": at % 2, "took": 1.5} for at, said in enumerate(answers)
    ]
    columns = ("problem_id=id", "gold=gold", "answer=said", "seed=n", "index=n", "seconds=took")
    imported(name, write_lines(f"{name}.jsonl", rows), "--columns", *columns)
    return Path(name)


def test_recordings_without_texts_are_the_same_only_where_all_is() -> None:
    one, other, third = (
        answer_table(name, answers) for name, answers in zip("abc", ("1122", "1221", "1122"), strict=True)
    )
    assert Pool.read([one, other]).fewest == 4
    with pytest.raises(UserError, match="only with different samples, got problem p0 #0 twice"):
        Pool.read([one, other, third])


def test_a_run_on_a_clock_stopped_early_and_so_may_an_unfinished_one() -> None:
    assert Pool.read([answer_table("even", "1122")]).whole
    folder = answer_table("uneven", "112")
    # Of a run on a clock the late samples are missing, and of an unfinished one nobody knows.
    forced_run("clock")
    assert EvalRun.read(Path("clock")).pool.stopped_early
    (folder / "results.json").unlink()
    assert Pool.read([folder]).stopped_early


def test_a_replay_without_tokens_says_its_name_and_no_seconds(evaluate: CommandLine) -> None:
    imported("lm", *HERE.glob("samples_*.jsonl"))
    done = evaluate("replay", "lm", "--n", 2, "--stop", "none", "--simulations", 20, "--out", "out", "--json")
    written = json.loads(Path(done.result["run"], "replay.json").read_text())
    assert (written["recording"], written["longest"], written["timed"]) == ("lm", 0, False)
    assert "lm · score of 3 questions" in done.stderr


def served(name: str, ids: list[str], texts: list[str]) -> list[object]:
    """Bodies of a server: four samples of each of the three sums, numbered as it likes."""
    problems = [json.loads(line)["id"] for line in Path(problems_file()).read_text().splitlines()]
    rows = [
        {"id": one, "model": "m", "problem_id": problems[at // 4], "object": "chat.completion",
         "choices": [{"index": 0, "message": {"content": text}, "finish_reason": "stop"}]}
        for at, (one, text) in enumerate(zip(ids, texts, strict=True))
    ]  # fmt: skip
    return [write_lines(name, rows), "--problems", "sums.jsonl"]


SAID = [f"{number}: \\boxed{{2}}" for number in range(12)]
IDS: list[tuple[list[str], list[str], bool]] = [
    # (ids, texts, whether they name samples)
    ([f"chatcmpl-{number}" for number in range(12)], ["\\boxed{2}"] * 12, True),
    ([f"chatcmpl-{number % 7}" for number in range(12)], SAID, False),
    (["chatcmpl-A1"] * 12, SAID, False),
    (["chatcmpl-A1"] * 12, ["\\boxed{2}"] * 12, False),
]


@pytest.mark.parametrize(("ids", "texts", "names"), IDS)
def test_an_id_that_stands_for_several_responses_names_none(ids: list[str], texts: list[str], names: bool) -> None:
    words = served("a.jsonl", ids, texts)
    Path("b.jsonl").write_text(Path("a.jsonl").read_text())
    for folder, files in (("one", ["a.jsonl"]), ("twice", ["a.jsonl", "b.jsonl"])):
        said = " ".join(imported(folder, *files, *words[1:]))
        assert len(read_samples(Path(folder, "samples.jsonl"))) == 12
        assert ("the responses' ids name no samples" in said) == (not names)
        assert ("12 samples stand twice and were taken once" in said) == (folder == "twice")


def lm_eval_rows(**metrics: float) -> list[object]:
    rows = [
        {"doc_id": number, "doc": {"problem": f"{number}?"}, "target": str(number), "filter": "none",
         "resps": [[f"\\boxed{{{number}}}"]], "metrics": [*metrics], **metrics}
        for number in range(3)
    ]  # fmt: skip
    return [write_lines("samples_maths.jsonl", rows)]


def lighteval_rows(**metrics: float) -> list[object]:
    doc = {"id": "a", "task_name": "t|0", "query": "1?", "choices": ["1", "one"], "gold_index": [0, 1]}
    rows = [{"doc": doc, "metric": metrics, "model_response": {"text": ["\\boxed{1}"]}}] * 3
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), "details_t.parquet")
    return ["details_t.parquet"]


def nemo_rows(**metrics: object) -> list[object]:
    (file, *_) = nemo()
    rows = [json.loads(line) for line in Path(str(file)).read_text().splitlines()]
    return [write_lines(str(file), [{**row, "symbolic_correct": None, **metrics} for row in rows])]


def inspect_scores(**scores: object) -> list[object]:
    (file,) = inspect_json()
    content = json.loads(Path(str(file)).read_text())
    for sample in content["samples"]:
        sample["target"] = [*([sample["target"]] if isinstance(sample["target"], str) else sample["target"]), "0.5"]
        sample["scores"] = {name: {"value": value} for name, value in scores.items()}
    Path(str(file)).write_text(json.dumps(content))
    return [file]


VERDICTS: list[tuple[Any, dict[str, Any], dict[str, str]]] = [
    # (log, what its scorers say of every sample, {how the sentence begins: how far they agree})
    (lm_eval_rows, {"exact_match": 1}, {"the logs' own scorers agree": "3 of 3"}),
    (lm_eval_rows, {"exact_match": 0, "math_verify": 1, "bleu": 1},
     {"the logs' own 'exact_match' agrees": "0 of 3", "the logs' own 'math_verify' agrees": "3 of 3"}),
    (lighteval_rows, {"extractive_match": 0.0}, {"the logs' own scorers agree": "0 of 3"}),
    (lighteval_rows, {"extractive_match": 1.0, "pass@k:k=1&n=1": 1.0, "length": 1.0},
     {"the logs' own 'extractive_match' agrees": "3 of 3", "the logs' own 'pass@k:k=1&n=1' agrees": "3 of 3"}),
    (nemo_rows, {"judgement": "Reasoning: same.\n**Judgement**: **Yes**"}, {"the logs' own scorers agree": "2 of 3"}),
    (nemo_rows, {"is_correct": False, "judgement": "Judgement: No"},
     {"the logs' own 'is_correct' agrees": "1 of 3", "the logs' own 'judgement' agrees": "1 of 3"}),
    (inspect_scores, {"match": 1.0, "brevity_ok": 1, "length": True}, {"the logs' own scorers agree": "6 of 12"}),
    (inspect_scores, {"match": "C", "model_graded": "I"},
     {"the logs' own 'match' agrees": "6 of 12", "the logs' own 'model_graded' agrees": "6 of 12"}),
]  # fmt: skip


@pytest.mark.parametrize(("log", "scores", "agree"), VERDICTS)
def test_each_scorer_of_a_log_is_compared_by_its_name(log: Any, scores: dict[str, Any], agree: dict[str, str]) -> None:
    said = [one for one in imported("r", *log(**scores)) if "with the checker on" in one]
    assert len(said) == len(agree)
    for sentence, (begin, share) in zip(said, agree.items(), strict=True):
        assert sentence.startswith(f"{begin} with the checker on {share} samples")


@pytest.mark.parametrize("log", [lighteval_rows, inspect_scores])
def test_of_several_gold_answers_the_first_counts(log: Any) -> None:
    assert any(
        "samples with several gold answers, of which the first counts: " in one for one in imported("r", *log(acc=1.0))
    )
    assert json.loads(Path("r/results.json").read_text())["right"] in (3, 6)


def test_decimals_and_durations_are_numbers_and_none_is_no_answer() -> None:
    rows = [
        {"id": Decimal("7.00"), "gold": Decimal(2**100), "said": said, "tokens": Decimal("20.00"),
         "n": Decimal(2**53 + 1),
        
         "took": timedelta(seconds=1.5), "mean": Decimal("-0.5")}
        for said in (str(2**100), "None", "nan", "NULL")
    ]  # fmt: skip
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), "t.parquet")
    columns = (
        "problem_id=id",
        "gold=gold",
        "answer=said",
        "tokens=tokens",
        "seconds=took",
        "seed=n",
        "logprob_mean=mean",
    )
    imported("r", "t.parquet", "--columns", *columns)
    first, *others = read_samples(Path("r/samples.jsonl"))
    assert (first.problem_id, first.tokens, first.seconds, first.logprob_mean) == ("7", 20, 1.5, -0.5)
    assert (first.seed, first.answer, [one.answer for one in others]) == (2**53 + 1, str(2**100), [None] * 3)
    assert json.loads(Path("r/results.json").read_text())["right"] == 1


def test_a_path_that_reads_one_of_several_members_says_so() -> None:
    rows = [{"id": 1, "gold": 2, "outputs": [{"text": "\\boxed{2}"}] * members} for members in (1, 8)]
    said = imported("r", write_lines("t.jsonl", rows), "--columns", "problem_id=id", "gold=gold", "text=outputs.0.text")
    assert any("outputs.0.text reads one member of outputs" in one and "others of 1 row;" in one for one in said)


@pytest.mark.parametrize(("who", "words"), [("role", "content"), ("from", "value")])
def test_an_answer_in_a_conversation_leaves_out_no_other(who: str, words: str) -> None:
    chat = [{who: "user", words: "1 + 1?"}, {who: "assistant", words: "\\boxed{2}"}]
    rows = write_lines("t.jsonl", [{"id": 1, "gold": 2, "messages": chat}])
    said = imported("r", rows, "--columns", "problem_id=id", "gold=gold", f"text=messages.1.{words}")
    assert not any("reads one member" in one for one in said)


def test_what_no_log_says_is_no_figure_and_two_tools_need_one_suite(evaluate: CommandLine) -> None:
    (file,) = HERE.glob("samples_*.jsonl")
    assert evaluate("import", file, "--run", "lm", "--no-texts", "--json").result["tokens"] is None
    (row,) = score_table([EvalRun.read(Path("lm"))]).rows
    assert row[-3:-1] == ["–", "–"]
    answer_table("other", "11")
    assert "is imported with --problems SUITE" in evaluate("compare", "lm", "other").refusal
