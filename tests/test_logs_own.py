"""Slices of one's own runs are joined, and a recording without texts is one that ships."""

import json
from pathlib import Path

import pytest

from mathlete.errors import UserError
from mathlete.problems import Problem, hash_problems, read_problems, write_problems
from mathlete.runs import verify_outputs
from mathlete.sampling import Sample, SamplingConfig, read_samples
from mathlete.scoring import Pool, Results, RunFacts, RunSettings, grade
from mathlete.shipped import data_folder
from mathlete.solve import Policy, Solution
from tests.conftest import POCKET_VAL, CommandLine
from tests.test_logs import imported, write_lines


@pytest.fixture(autouse=True)
def inside(workdir: Path) -> None:
    """Every test stands in a folder of its own."""


def own_run(folder: str, numbers: range, *, seed: int = 0, temperature: float = 0.6) -> None:
    """A finished run of some problems, as an evaluation leaves it."""
    policy = Policy(n=4, seed=seed, sampling=SamplingConfig(temperature=temperature, max_tokens=60))
    asked = [Problem(id=f"p{number}", statement=f"What is {number} + 7?", gold=str(number + 7)) for number in numbers]
    solutions = []
    for number, problem in zip(numbers, asked, strict=True):
        samples = [
            Sample(problem_id=problem.id, index=index, seed=policy.sample_seed(problem_id=problem.id, index=index),
                   text=f"So \\boxed{{{number + 7 + (index + number + seed) % 3}}}", tokens=10 + index + number,
                   answer=str(number + 7 + (index + number + seed) % 3), finish="stop", seconds=1.0 + index / 3,
                   logprob_mean=-0.123456789 * (index + 1))
            for index in range(4)
        ]  # fmt: skip
        votes = policy.count_votes(samples)
        solutions.append(
            Solution(problem_id=problem.id, answer=votes[0].answer, votes=votes, samples=samples, seconds=2.0)
        )
    settings = RunSettings(suite=folder, suite_sha="x", problems=len(asked), precision="fp32", policy=policy,
                           budget=None, tools=None, engine="transformers", model_sha="m")  # fmt: skip
    facts = RunFacts(settings=settings, n=4, model="pocket", engine_facts={"threads": 1}, prompt_sha="p", commit="c",
                     dirty=False, seconds=5.0, tokens_per_s=9.0, resumed_samples=0)  # fmt: skip
    Path(folder).mkdir()
    write_problems(Path(folder, "problems.jsonl"), asked)
    write_lines(f"{folder}/samples.jsonl", [sample.to_json() for one in solutions for sample in one.samples])
    Results.of(grade(asked, solutions), facts).write(Path(folder), began=0.0)


def test_facts_that_contradict_each_other_are_left_out() -> None:
    for name, numbers, facts in (
        ("one", range(3), {"threads": 1}),
        ("two", range(3, 6), {"threads": 2, "breaches": ["kl"]}),
    ):
        own_run(name, numbers)
        results = json.loads(Path(name, "results.json").read_text())
        # Facts of an engine stand between the model and the prompt's hash.
        items = [(key, value) for key, value in results.items() if key != "threads"]
        at = [key for key, _ in items].index("prompt_sha")
        Path(name, "results.json").write_text(json.dumps(dict([*items[:at], *facts.items(), *items[at:]])))
    imported("joined", "one", "two")
    joined = json.loads(Path("joined/results.json").read_text())
    assert "threads" not in joined
    assert joined["breaches"] == ["kl"]


def test_slices_of_a_run_are_joined_to_the_run() -> None:
    own_run("whole", range(12))
    own_run("one", range(5))
    own_run("two", range(5, 12))
    imported("joined", "one", "two", "one")
    joined, whole = (json.loads(Path(name, "results.json").read_text()) for name in ("joined", "whole"))
    same = (
        "per_problem",
        "pass_at_1",
        "maj_at",
        "tokens",
        "n",
        "model",
        "policy",
        "model_sha",
        "prompt_sha",
        "threads",
    )
    assert {key: joined[key] for key in same} == {key: whole[key] for key in same}
    assert joined["seconds"] == 10.0
    assert "missing" not in joined
    assert [one["problems"] for one in json.loads(Path("joined/slices.json").read_text())["slices"]] == [5, 7, 0]
    assert read_samples(Path("joined/samples.jsonl")) == read_samples(Path("whole/samples.jsonl"))


def test_other_seeds_of_a_run_are_more_samples_and_other_settings_are_none() -> None:
    own_run("one", range(5))
    own_run("more", range(5), seed=1)
    imported("deep", "one", "more")
    assert json.loads(Path("deep/results.json").read_text())["n"] == 8
    assert [one.index for one in read_samples(Path("deep/samples.jsonl")) if one.problem_id == "p3"] == [*range(8)]
    own_run("hot", range(5, 12), temperature=1.0)
    with pytest.raises(UserError, match="with the same temperature, got"):
        imported("bad", "one", "hot")


def test_a_recording_without_texts_replays_and_gives_nothing_away(evaluate: CommandLine) -> None:
    own_run("whole", range(12))
    # A sample whose answer is a text, as a model gives one where no number is asked for.
    long = "Indeed, this is so. " * 9
    lines = Path("whole/samples.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    Path("whole/samples.jsonl").unlink()
    write_lines("whole/samples.jsonl", [{**row, "answer": long} if row["answer"] == "9" else row for row in rows])
    imported("full", "whole")
    imported("kept", "whole", "--no-texts")
    results = json.loads(Path("kept/results.json").read_text())
    assert results["missing"] == ["statement", "text"]
    shown = "".join(file.read_text() for file in Path("kept").iterdir())
    assert "What is" not in shown
    assert "Indeed" not in shown
    kept, whole = (json.loads(Path(name, "results.json").read_text()) for name in ("kept", "full"))
    same = ("suite_sha", "maj_at", "pass_at", "losses")
    assert {key: kept.get(key) for key in same} == {key: whole.get(key) for key in same}
    assert kept["suite_sha"] == hash_problems(read_problems(Path("whole/problems.jsonl")))
    assert "boxed" not in shown
    assert "-0.1235" in shown
    # 1,600 of these lines are a third of a megabyte.
    assert Path("kept/samples.jsonl").stat().st_size < 48 * 220
    small = ("--n", 2, "--simulations", 50, "--stop", "none", "exact", "--vote", "majority", "logprob", "--json")
    policies = [evaluate("replay", name, *small).result["policies"] for name in ("whole", "kept")]
    scores = [[(one["score"], one["change"], one["samples_per_problem"]) for one in of] for of in policies]
    assert scores[0] == scores[1]
    # Two recordings are compared by what stands in for their statements.
    own_run("again", range(3, 12), seed=1)
    imported("other", "again", "--no-texts")
    compared = evaluate("compare", "kept", "other", "--json").result
    assert (compared["problems"], compared["left_out"]) == (9, 3)


SQUARES = ", ".join(str(number**2 + 10000) for number in range(30))
PROSE = "No such number exists, for the sum of two odd squares leaves two when it is divided by four, as one sees."
LONG = {
    "set": (rf"\{{{SQUARES}\}}", rf"\{{{', '.join(reversed(SQUARES.split(', ')))}\}}", rf"\{{{SQUARES}, 1\}}"),
    "sum": (
        "+".join(f"{n}x^{{{n}}}" for n in range(2, 20)),
        "+".join(f"x^{{{n}}}{n}" for n in range(2, 20)),
        "7" * 120,
    ),
    "text": (PROSE, PROSE, PROSE.replace("No", "One")),
    "short": ("9", "9.0", PROSE),
}
"""{problem: (gold answer, another way to write it, a wrong answer)}, of which most are longer than a line."""


def test_a_recording_scores_as_its_run_did_whatever_the_answers_are(evaluate: CommandLine) -> None:
    rows = [
        {"id": name, "question": f"Which {name}?", "gold": gold, "said": said, "took": 1 + number / 8}
        for name, (gold, other, wrong) in LONG.items()
        for number, said in enumerate((wrong, gold, other, "1", wrong, other, wrong.replace(" ", "  "), gold))
    ]
    columns = ("--columns", "problem_id=id", "gold=gold", "answer=said", "seconds=took")
    imported("full", write_lines("t.jsonl", rows), *columns)
    imported("kept", "full", "--no-texts")
    imported("same", "full")
    results = [json.loads(Path(name, "results.json").read_text()) for name in ("full", "kept", "same")]
    same = ("right", "unknown", "unanswered", "pass_at", "maj_at", "losses", "fallbacks")
    assert [[of.get(key) for key in same] for of in results] == [[results[0].get(key) for key in same]] * 3
    assert results[0]["right"] == 16
    shown = "".join(file.read_text() for file in Path("kept").iterdir())
    assert "One such number" not in shown
    assert str(29**2 + 10000) in shown
    small = ("--n", 2, "--simulations", 50, "--stop", "none", "exact", "--json")
    policies = [evaluate("replay", name, *small).result["policies"] for name in ("full", "kept")]
    assert policies[0] == policies[1]


TEXTS = [
    r"\text{the answer cannot be given in closed form because the recursion has no simple solution at all there}",
    "Alice wins if and only if n is even since she can always mirror the moves of Bob across the centre of it",
    "All primes p congruent to 1 modulo 4 together with 2, because by Fermat these are sums of two squares",
    "f(x)=x for all real x and the function f(x)=0 which both satisfy it all, as is checked by substitution",
    r"x=\frac{1}{2}\text{ and }x=\frac{-7}{2}\text{ where }a\neq0\text{ and the private }b^2\geq4ac\text{ holds}",
    "3, where we have used that the recursion of the private statement is linear, so its roots are 3 and -1",
    "Das Spiel gewinnt Alice genau dann, wenn n gerade ist, weil sie alle Züge von Bob am Mittelpunkt spiegelt",
    "先手必胜当且仅当n为偶数，因为她总是可以把对手的走法关于棋盘中心对称，所以她永远不会没有棋可走，" * 3,
]
"""Long answers that are prose, of which the checker reads a value in some."""


def test_no_prose_stays_in_a_recording_without_texts_and_its_classes_do() -> None:
    assert all(len(text) > 100 for text in TEXTS)
    rows = [
        {"id": f"p{place}", "gold": "12", "said": said}
        for place, text in enumerate(TEXTS)
        for said in (text, "12", text.replace(" ", "  "), text + ".", "1")
    ]
    rows += [{"id": "right", "gold": "3", "said": said} for said in (TEXTS[5], "3", "3.0", "4")]
    imported("full", write_lines("t.jsonl", rows), "--columns", "problem_id=id", "gold=gold", "answer=said")
    imported("kept", "full", "--no-texts")
    results = [json.loads(Path(name, "results.json").read_text()) for name in ("full", "kept")]
    same = ("right", "unknown", "unanswered", "pass_at", "maj_at", "losses", "fallbacks")
    told = [{key: of.get(key) for key in same} for of in results]
    assert told[0] == told[1]
    votes = [[[vote["count"] for vote in row["votes"]] for row in of["per_problem"]] for of in results]
    assert votes[0] == votes[1]
    for file in Path("kept").iterdir():
        shown = file.read_text()
        assert not any(word in shown for word in ("recursion", "mirror", "Fermat", "substitution", "private", "Bob"))
        assert "对手" not in shown


def test_a_shipped_recording_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch, evaluate: CommandLine) -> None:
    own_run("whole", range(12))
    imported("kept", "whole", "--no-texts")
    Path("data/recordings").mkdir(parents=True)
    Path("kept").rename("data/recordings/sums")
    monkeypatch.setattr("mathlete.shipped.data_folder", lambda: Path("data"))
    words = ("--n", 2, "--simulations", 50, "--stop", "exact", "--json")
    assert evaluate("replay", "sums", *words).result["problems"] == 12
    # A folder of that name comes first.
    own_run("sums", range(5))
    assert evaluate("replay", "sums", *words, "--run", "other").result["problems"] == 5
    assert "a run that is replayed must be a folder" in evaluate("replay", "summs", *words).refusal


SHIPPED = sorted(path.name for path in (data_folder() / "recordings").iterdir())


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recording_is_whole_small_and_without_texts(name: str, evaluate: CommandLine) -> None:
    folder = data_folder() / "recordings" / name
    assert sum(file.stat().st_size for file in folder.iterdir()) < 10**6
    assert verify_outputs(folder)["step"] == "import"
    pool = Pool.read([folder])
    assert {"text", "statement"} <= pool.missing
    assert all(item.problem.statement.startswith("sha256:") for item in pool.problems)
    assert not any(sample.text for item in pool.problems for sample in item.samples)
    assert evaluate("replay", name, "--n", 4, "--stop", "none", "exact", "--simulations", 50).code == 0
    assert not Path(name).exists()


@pytest.mark.slow
def test_slices_of_an_evaluation_are_joined_to_what_it_would_have_been(evaluate: CommandLine) -> None:
    lines = POCKET_VAL.read_text().splitlines()[::50]
    for name, part in (("whole", lines), ("one", lines[:5]), ("two", lines[5:])):
        Path(f"{name}.jsonl").write_text("\n".join(part))
        assert evaluate(f"{name}.jsonl", "--model", "pocket", "--n", 4, "--run", name).code == 0
    joined = evaluate("import", "one", "two", "--run", "joined", "--json").result
    whole = json.loads(Path("whole/results.json").read_text())
    for key in ("pass_at_1", "maj_at_k", "samples", "tokens", "n", "model"):
        assert joined[key] == whole[key], key
    results = json.loads(Path("joined/results.json").read_text())
    for key in ("suite_sha", "model_sha", "prompt_sha", "policy", "engine", "precision"):
        assert results[key] == whole[key], key
    of_both = [read_samples(Path(name) / "samples.jsonl") for name in ("joined", "whole")]
    drawn = [{(one.problem_id, one.index, one.seed, one.text) for one in of} for of in of_both]
    assert drawn[0] == drawn[1]
