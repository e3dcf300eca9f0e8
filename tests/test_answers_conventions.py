"""Conventions that a suite may set otherwise: each documented pair, both ways, and the way from a suite to a vote."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from mathlete.answers import compare, label_classes, parse
from mathlete.answers.conventions import CHOICES, read_conventions, split_unit
from mathlete.corpus import load_suite
from mathlete.corpus.sources import load_sources
from mathlete.errors import UserError
from mathlete.export.greedy import compare_greedy
from mathlete.overlap.statements import Statement
from mathlete.overlap.suite_index import match_statements
from mathlete.problems import Problem, hash_problems, read_problems, write_problems
from mathlete.rows.filters import boxes_differ, shorten_trace
from mathlete.sampling import Sample
from mathlete.scoring import grade
from mathlete.solve import Policy, Solution

PAIRS = [
    ("log=10", r"\log 1000", "3", True), ("", r"\log 1000", "3", False), ("log=10", r"\log_2 8", "3", True),
    ("log=10", r"\ln e", "1", True), ("log=10", r"\log x", r"\ln x", False), ("", r"\log x", r"\ln x", True),
    ("percent=points", r"50\%", "50", True), ("percent=points", r"50\%", "1/2", False), ("", "50%", "50", False),
    ("percent=points", "50 percent", "50", True), ("percent=points", r"\text{50\%}", "50", True),
    ("residue=class", r"5 \pmod 7", "5", False), ("residue=class", r"5 \pmod 7", r"12 \pmod 7", True),
    ("residue=class", r"n\equiv 5 \pmod 7", "7k+5", True), ("residue=class", r"5 \pmod 7", r"5\pmod 8", False),
    ("residue=class", r"n=7k-2, k\in\mathbb{Z}", r"5 \pmod{7}", True), ("", r"5 \pmod 7", "5", True),
    ("residue=class", r"n\equiv 1\pmod 8 \text{ or } n\equiv 3\pmod 8", r"8k+3, 8k+1", True),
    ("unit=compared", "10 cm", "10 km", False), ("unit=compared", r"10\text{ cm}", "10 cm", True),
    ("unit=compared", "10 cm", "10", False), ("unit=compared", r"10\text{ meters}", "10 meter", True),
    ("unit=compared", r"\frac12\text{ m}^2", r"0.5\ \mathrm{m}^2", True), ("unit=compared", "x+1", "1+x", True),
    ("", "10 cm", "10 km", True), ("degree=angle", r"90^\circ", r"\frac{\pi}{2}", True), ("", "90°", "90", True),
    ("degree=angle", "90°", "90", False), ("degree=angle", r"\sin 30^\circ", "1/2", True),
    ("degree=angle", r"60^\circ, 120^\circ", r"\pi/3,2\pi/3", True),
    ("column=binomial", r"\left(\begin{array}{l}9 \\ 7\end{array}\right)", "36", True),
    ("column=binomial", r"\begin{pmatrix}9\\7\end{pmatrix}", "(9,7)", False),
    ("column=binomial", r"\begin{pmatrix}x\\7\end{pmatrix}", "(x,7)", True),
    ("", r"\begin{pmatrix}9\\7\end{pmatrix}", "(9,7)", True), ("log=10 percent=points", r"\log 10^{50}\%", "50", True),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "a", "b", "same"), PAIRS)
def test_a_convention_decides_in_both_orders(settings: str, a: str, b: str, same: bool) -> None:
    for answer, gold in ((a, b), (b, a)):
        outcome = compare(answer=answer, gold=gold, settings=settings, limit_s=30.0).outcome
        assert outcome == ("equal" if same else "different")


def test_a_hard_pair_goes_to_the_worker_with_its_conventions() -> None:
    integral = r"\int_1^{10} \log x dx"
    assert compare(answer=integral, gold=r"10-\frac{9}{\ln 10}", settings="log=10", limit_s=30.0).outcome == "equal"
    assert compare(answer=integral, gold=r"10-\frac{9}{\ln 10}", limit_s=30.0).outcome == "different"


def test_every_choice_is_documented_and_shipped_settings_are_known(root: Path) -> None:
    table = (root / "docs" / "answers.md").read_text().split("## Settings of a suite")[1].split("\n## ")[0]
    assert dict(re.findall(r"^\| `(\w+)` \| `(\w+)`", table, re.M)) == {name: of[0] for name, of in CHOICES.items()}
    assert all(f"`{choice}`" in table for choices in CHOICES.values() for choice in choices)
    assert {read_conventions(source.golds.answers).percent for source in load_sources().values()} == {
        "hundredth",
        "points",
    }


@pytest.mark.parametrize(
    ("words", "message"), [("logs=10", "must be a known one"), ("log=2", "e or 10"), ("log", "e or 10")]
)
def test_an_unknown_convention_is_refused(words: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        compare(answer="1/2", gold="2", settings=words)


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        *((r"10\text{ cm}^2", "cm^2"), ("10 meters", "m"), ("10", ""), ("x", ""), (r"\frac{1}{2} \mathrm{kg}", "kg")),
        *((r"10\ \mathrm{km}/\mathrm{h}", "km/h"), ("10 m/s", "m/s"), (r"10\pi\text{ m}", "m"), (r"\$10", "$")),
        *(("10 feet", "ft"), (r"10^{\circ}", "°"), ("no solution", ""), (r"\text{Tuesday}", ""), ("x^2", "")),
    ],
)
def test_the_unit_is_what_stands_behind_the_value(text: str, unit: str) -> None:
    assert split_unit(text)[1] == unit


def sample(index: int, answer: str) -> Sample:
    facts = {"problem_id": "a", "index": index, "seed": index, "text": answer, "finish": "stop"}
    return Sample(**facts, tokens=1, seconds=1.0, answer=answer)  # type: ignore[arg-type]


def test_a_suites_conventions_reach_grade_and_vote(tmp_path: Path) -> None:
    problem = Problem(id="a", statement="What percentage?", gold="50", answers="percent=points")
    bare = Problem(id="a", statement="What percentage?", gold="50")
    samples = [sample(0, "0.5"), sample(1, r"50\%"), sample(2, "50")]
    for one, right, counts in ((problem, 2, [2, 1]), (bare, 1, [2, 1])):
        votes = Policy(n=3).count_votes(samples, settings=one.answers)
        assert [vote.count for vote in votes] == counts
        solution = Solution(
            problem_id="a", answer=votes[0].answer, votes=votes, samples=samples, seconds=1.0, ended="all"
        )
        (graded,) = grade([one], [solution])
        assert graded.right == right
        assert (graded.verdict == "equal") == (one is problem)
    file = tmp_path / "mine.jsonl"
    write_problems(file, [problem])
    assert read_problems(file) == [problem] == load_suite(str(file)).problems
    # A problem without conventions of its own is written, and hashed, as it always was.
    assert "answers" not in bare.to_json()
    assert hash_problems([bare]) != hash_problems([problem])
    file.write_text(json.dumps({**problem.to_json(), "answers": "percent=half"}) + "\n")
    with pytest.raises(UserError, match="hundredth or points"):
        load_suite(str(file))


def test_classes_are_those_of_the_conventions() -> None:
    assert label_classes([r"50\%", "50", "1/2"], "percent=points") == [0, 0, 1]
    assert label_classes([r"50\%", "50", "1/2"]) == [0, 1, 0]
    assert parse("50%").value != parse("50%", "percent=points").value


def test_training_data_exports_and_overlap_compare_by_the_conventions_of_a_problem() -> None:
    points = Problem(id="a", statement="s", gold="50", answers="percent=points")
    plain = replace(points, answers="")
    for problem, right in ((points, 1), (plain, 0)):
        compared = compare_greedy([problem], before={"a": "50"}, after={"a": r"50\%"})
        assert (compared.right_before, compared.right_after, compared.unchanged) == (1, right, right)
        assert boxes_differ(r"\boxed{50} and \boxed{50\%}", answers=problem.answers) == (not right)
        assert bool(shorten_trace(r"It is \boxed{50\%}.", gold="50", answers=problem.answers)) == bool(right)
    words = "What percentage of the 128 marbles in the old bag of the shop are blue or green, if {} are neither?"
    one, other = (Statement.parse(words.format(how)) for how in ("64", "64 of them"))
    assert match_statements(one, other, golds=("50", r"50\%")) is None
    for conventions in (("percent=points", ""), ("", "percent=points")):
        assert match_statements(one, other, golds=("50", r"50\%"), conventions=conventions) is not None
