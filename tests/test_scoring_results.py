"""results.json: one way to and from it, byte for byte, and what is said of a file that is another's."""

import json
from pathlib import Path

import pytest

from mathlete.errors import UserError
from mathlete.replay import Replay
from mathlete.runs import write_json
from mathlete.scoring import Results

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize(
    ("name", "kind"),
    [("results.json", Results), ("results_budget.json", Results), ("replay.json", Replay)],
)
def test_a_file_of_commit_616df7d_is_read_and_written_as_it_was(
    tmp_path: Path, name: str, kind: type[Results] | type[Replay]
) -> None:
    """The golden files are of that commit: plain; with budget, tools, judgements; a replay with clocks."""
    record = kind.from_json(json.loads((GOLDEN / name).read_text()))
    write_json(tmp_path / name, record.to_json())
    assert (tmp_path / name).read_bytes() == (GOLDEN / name).read_bytes()
    assert kind.from_json(json.loads((tmp_path / name).read_text())) == record


def test_facts_and_scores_are_read_as_what_they_are() -> None:
    results = Results.from_json(json.loads((GOLDEN / "results_budget.json").read_text()))
    facts = results.facts
    assert facts
    assert (facts.n, facts.model, facts.settings.suite, facts.settings.policy.vote) == (
        4,
        "pocket",
        "three",
        "logprob",
    )
    assert facts.settings.budget
    assert (facts.settings.budget.wall_s, facts.settings.budget.questions) == (30.0, 3)
    assert facts.engine_facts == {"threads": 1, "sandbox": ["namespaces", "filter"]}
    assert sorted(results.scores.maj_at) == [1, 2, 4]
    assert results.scores.maj_at[4] == results.scores.maj_at_k
    assert any(problem.judgements for problem in results.per_problem)
    assert sum(problem.counts.samples for problem in results.per_problem) == results.scores.counts.samples == 12
    assert "12 samples right" in results.describe()


@pytest.mark.parametrize("missing", ["suite", "policy", "maj_at_k_interval", "per_problem", "prompt_sha", "tokens"])
def test_results_that_lack_something_are_named(tmp_path: Path, missing: str) -> None:
    content = json.loads((GOLDEN / "results.json").read_text())
    del content[missing]
    write_json(tmp_path / "results.json", content)
    with pytest.raises(UserError, match=r"results\.json must be as `python -m eval` writes it") as refused:
        Results.read(tmp_path)
    assert missing in str(refused.value)
