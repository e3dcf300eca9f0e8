import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import chain, product
from pathlib import Path
from threading import Thread
from typing import Any

import datasets
import pytest

from mathlete.corpus import SUITE_NAMES, Corpus, Suite, load_suite, open_source, suites
from mathlete.corpus.sources import (
    _find_cached_commits,
    find_commit,
    find_source,
    load_hub_problems,
    load_sources,
)
from mathlete.corpus.suites import find_default_suites
from mathlete.errors import UserError
from mathlete.problems import hash_problems
from mathlete.traces import TracedProblem
from tests.conftest import CommandLine


def load_traces(name: str, mirror: Path | None = None) -> list[TracedProblem]:
    return list(chain.from_iterable(open_source(name, mirror=mirror)))


def mirror_of(tmp_path: Path, name: str, *rows: Mapping[str, object]) -> Path:
    file = load_sources()[name].mirror_path(tmp_path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "row", "gold"),
    [
        ("aimo-validation-amc", {"id": 3, "problem": "p", "answer": 142.0}, "142"),
        ("aimo-validation-amc", {"id": 3, "problem": "p", "answer": -4.0}, "-4"),
        ("aimo-validation-aime", {"id": 3, "problem": "p", "answer": "033"}, "033"),
        ("gsm8k-test", {"question": "p", "answer": "long\n#### 1,234"}, "1234"),
        ("math500", {"problem": "p", "answer": "\\frac12", "unique_id": "t/3", "subject": "Algebra"}, "\\frac12"),
    ],
)
def test_gold_is_read_as_the_set_writes_it(tmp_path: Path, name: str, row: dict[str, object], gold: str) -> None:
    assert load_hub_problems(name, mirror=mirror_of(tmp_path, name, row))[0].gold == gold


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": 3, "problem": "p"}, r"train\.jsonl:1: a row needs an answer in 'answer'"),
        ({"id": 3, "answer": 1.0}, r"train\.jsonl:1: a row needs a statement in 'problem'"),
        ({"id": 3, "problem": " ", "answer": 1.0}, r"train\.jsonl:1: a row needs a statement"),
    ],
)
def test_bad_row_is_named(tmp_path: Path, row: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_hub_problems("aimo-validation-amc", mirror=mirror_of(tmp_path, "aimo-validation-amc", row))


def test_a_row_behind_the_limit_need_be_no_problem_and_the_hash_is_of_those_that_are(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"problem_idx": number, "problem": f"{number}?", "answer": None if number in (2, 4) else number}
        for number in range(6)
    ]
    mirror = mirror_of(tmp_path, "brumo25", *rows)
    whole = load_suite("brumo25", mirror=mirror, limit=2)
    assert [problem.gold for problem in whole.problems] == ["0", "1", "3", "5"]
    assert whole.sha256 == hash_problems(whole.problems)
    assert "; 2 rows behind the limit are no problem and left out, first " in whole.origin
    # The problems of a source alone are a suite too, for which the cure must hold as well.
    source = load_suite("source:brumo25", mirror=mirror, limit=2)
    assert (source.problems, source.origin) == (whole.problems, whole.origin)
    for name, limit in product(("brumo25", "source:brumo25"), (3, None)):
        with pytest.raises(UserError, match=r":3: a row needs an answer(.|\n)*rows before it alone, --limit 2$"):
            load_suite(name, mirror=mirror, limit=limit)
    mirror_of(tmp_path, "brumo25", *rows[:2], rows[3], rows[5])
    assert "behind the limit" not in load_suite("brumo25", mirror=mirror, limit=2).origin
    mirror_of(tmp_path, "brumo25", rows[2])
    with pytest.raises(UserError, match=r"Fix: mend the row in a folder of your own, --mirror DIR$"):
        load_suite("brumo25", mirror=mirror, limit=2)


def test_solution_becomes_a_trace_without_calculator_marks(tmp_path: Path) -> None:
    row = {"question": "q", "answer": "48/2 = <<48/2=24>>24 clips.\nSo 72.\n#### 72"}
    (traced,) = load_traces("gsm8k", mirror=mirror_of(tmp_path, "gsm8k", row))
    assert (traced.trace.text, traced.trace.answer) == ("48/2 = 24 clips.\nSo 72.", "72")


def test_generation_becomes_a_trace_with_its_own_answer(tmp_path: Path) -> None:
    generations = ["<think>\nnever closed \\boxed{1}", "<think>\n2+2=4\n</think>\n\nIt is $\\boxed{4}$."]
    row = {"problem": "q", "answer": "5", "uuid": "u", "problem_type": "Algebra", "generations": generations}
    cut, traced = load_traces("openr1", mirror=mirror_of(tmp_path, "openr1", row))
    assert (traced.trace.text, traced.trace.answer, traced.problem.gold) == ("2+2=4", "4", "5")
    assert (cut.trace.flaw, cut.trace.answer, cut.problem) == ("unclosed", "", traced.problem)


SUITES_OF_2025_AND_2026 = {
    # Rows with the columns that the sets' cards name; the problems are made up.
    "aime26": ({"problem_idx": 7, "answer": 277, "problem": "p"}, "aime_2026-7", "277", ""),
    "hmmt_feb25": (
        {"problem_idx": 2, "problem": "p", "answer": "\\frac{1}{576}", "problem_type": ["Geometry"]},
        *("hmmt_feb_2025-2", "\\frac{1}{576}", "Geometry"),
    ),
    "hmmt_nov25": (
        {"problem_idx": 30, "problem": "p", "answer": "\\sqrt{23}-2", "problem_type": None},
        *("hmmt_nov_2025-30", "\\sqrt{23}-2", ""),
    ),
    "hmmt_feb26": (
        {"problem_idx": 33, "answer": "3, 4", "problem_type": ["Algebra", "Number Theory"], "problem": "p"},
        *("hmmt_feb_2026-33", "3, 4", "Algebra, Number Theory"),
    ),
    "brumo25": (
        {"problem_idx": 1, "problem": "p", "answer": "2^{99}", "problem_type": ["Combinatorics"]},
        *("brumo_2025-1", "2^{99}", "Combinatorics"),
    ),
    "beyond_aime": ({"problem": "p", "answer": 1234567}, "BeyondAIME-0", "1234567", ""),
    "apex25": (
        {"problem_idx": 12, "answer": "10n+3", "source": "smt_2025", "problem": "p"},
        *("apex_2025-12", "10n+3", "smt_2025"),
    ),
    "apex_shortlist": (
        {"problem_idx": 49, "answer": "\\frac{\\pi}{6}", "source": "cmimc", "problem": "p"},
        *("apex-shortlist-49", "\\frac{\\pi}{6}", "cmimc"),
    ),
}


@pytest.mark.parametrize("suite", SUITES_OF_2025_AND_2026)
def test_suites_of_2025_and_2026_are_read_from_their_own_columns(tmp_path: Path, suite: str) -> None:
    row, name, gold, subset = SUITES_OF_2025_AND_2026[suite]
    source = suite.replace("_", "-").replace("apex-25", "apex25")
    mirror = mirror_of(tmp_path, source, row)
    (problem,) = load_suite(suite, mirror=mirror).problems
    entry = find_source(source)
    assert (problem.id, problem.gold, problem.subset) == (name, gold, subset)
    assert (problem.statement, problem.source, problem.licence) == ("p", entry.hub, entry.licence)
    # As `hf download` leaves it, too.
    jsonl = entry.mirror_path(tmp_path)
    datasets.Dataset.from_list([row]).to_parquet(jsonl.parent / "data" / f"{entry.part.split}-00000-of-00001.parquet")
    jsonl.unlink()
    assert load_suite(suite, mirror=mirror).problems == [problem]
    # And as Kaggle mounts a data set.
    mounted = tmp_path / "datasets" / entry.hub
    mounted.parent.mkdir(parents=True)
    tmp_path.joinpath(*entry.hub.split("/")).rename(mounted)
    assert load_suite(suite, mirror=mirror).problems == [problem]


@pytest.mark.parametrize("kind", ["", "competitions"])
def test_the_reference_problems_of_a_competition_are_read_from_where_kaggle_puts_them(
    tmp_path: Path, kind: str
) -> None:
    file = tmp_path / kind / "ai-mathematical-olympiad-progress-prize-3" / "reference.csv"
    file.parent.mkdir(parents=True)
    (tmp_path / "competitions" / file.parent.name).mkdir(parents=True, exist_ok=True)
    file.write_text('id,problem,answer\n424e18,"Let $x$, $y$ be\nintegers.",21818\n000123,q,0\n')
    suite = load_suite("aimo3_reference", mirror=tmp_path)
    ids = [problem.id.rpartition("-")[2] for problem in suite.problems]
    assert (ids, [problem.gold for problem in suite.problems]) == (["424e18", "000123"], ["21818", "0"])
    assert suite.problems[0].statement == "Let $x$, $y$ be\nintegers."
    assert suite.origin == f"{file.parent.name} in {tmp_path}, licence CC-BY-4.0"
    assert "aimo3_reference" in find_default_suites(mirror=tmp_path, hub=False)
    with pytest.raises(
        UserError, match=r"got no --mirror\.\n.*kaggle competitions download ai-\S+ -f reference.csv -p DIR"
    ):
        load_suite("aimo3_reference")
    with pytest.raises(
        UserError, match=r"is read from a folder, got no \S+reference.csv\.\n.*and give --mirror \S+empty"
    ):
        load_suite("aimo3_reference", mirror=tmp_path / "empty")


def test_a_hub_suite_that_is_gone_ends_no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, *, mirror: Path | None) -> Suite:
        if name in ("hmmt_nov25", "apex25"):
            raise UserError(f"{name} cannot be read from the hub", cure="go online")
        return Suite(name=name, sha256=name, problems=[])

    monkeypatch.setattr("mathlete.corpus.settings.load_suite", load)
    # From the hub all are compared but the one that Kaggle has.
    suites, unread = Corpus(source=("gsm8k",), limit=None).load_suites()
    assert {suite.name for suite in suites} == {*SUITE_NAMES} - {"hmmt_nov25", "apex25", "aimo3_reference"}
    assert unread == {name: f"{name} cannot be read from the hub" for name in ("hmmt_nov25", "apex25")}
    with pytest.raises(UserError, match="apex25 cannot be read from the hub"):
        Corpus(source=("gsm8k",), limit=None, against=("aime26", "apex25")).load_suites()


def test_a_set_without_a_commit_is_pinned_at_first_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    snapshots = tmp_path / "datasets--MathArena--aime_2026" / "snapshots"
    seen = []
    for commit in ("1" * 40, "2" * 40):
        (snapshots / commit).mkdir(parents=True)
        _find_cached_commits.cache_clear()
        seen.append(find_commit(find_source("aime26")))
    _find_cached_commits.cache_clear()
    # Of two the newest is asked for, and here there is no hub.
    assert seen == ["1" * 40, None]
    assert find_commit(find_source("math")) == find_source("math").part.revision


def test_the_docs_name_all_suites(root: Path) -> None:
    text = (root / "docs" / "data.md").read_text(encoding="utf-8").partition("## Suites")[2].partition("\n## ")[0]
    told = {
        name: (hub, licence) for name, hub, licence in re.findall(r"^\| `(\S+)` \| (.*?) \| .* \| (.*) \|$", text, re.M)
    }
    assert [*told] == [*SUITE_NAMES]
    for suite, parts in suites._HUB_SUITES.items():
        entries = [find_source(part) for part in parts]
        assert told[suite][0] == ", ".join(entry.hub for entry in entries)
        assert told[suite][1] == "; ".join(dict.fromkeys(entry.licence for entry in entries))
    readme = (root / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in readme for name in SUITE_NAMES)


def test_an_evaluation_says_where_its_suite_came_from(workdir: Path, evaluate: CommandLine) -> None:
    row, *_ = SUITES_OF_2025_AND_2026["hmmt_feb26"]
    mirror_of(workdir, "hmmt-feb26", row)
    words = ("--model", "pocket", "--mirror", workdir, "--n", 1, "--sampling.max-tokens", 8, "--run", "e", "--json")
    done = evaluate("hmmt_feb26", *words)
    assert done.result["problems"] == 1
    assert re.search(
        r"suite hmmt_feb26: 1 problem, sha256 [\da-f]{12}; MathArena/hmmt_feb_2026 in \S+, licence CC-BY-NC-SA-4.0",
        done.stderr,
    )


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (lambda: load_suite("aimo_vall"), r"'aimo_vall'.*\n.*did you mean aimo_val\?"),
        (lambda: load_traces("gsm8kk"), r"'gsm8kk'.*\n.*did you mean gsm8k"),
        (lambda: load_traces("aime24"), r"needs a source with traces, got 'aime24'"),
        (lambda: load_suite("aime24", mirror=Path("nowhere")), r"the mirror must hold HuggingFaceH4/aime_2024"),
        (lambda: load_suite("no.jsonl"), r"the file must exist, got no\.jsonl"),
    ],
)
def test_unknown_names_say_what_is_known(load: object, message: str) -> None:
    assert callable(load)
    with pytest.raises(UserError, match=message):
        load()


def test_offline_hub_error_names_the_mirror() -> None:
    with pytest.raises(UserError, match=r"aime_2024 cannot be read from the hub.*\n.*--mirror DIR"):
        load_suite("aime24")


@pytest.mark.parametrize("name", ["limo", "numina-cot", "openr1", "math:algebra", "openmath:tir"])
def test_the_hubs_rows_come_through_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """`datasets` reads a folder of the set's name as it reads the set: by config and split, streamed or mapped."""
    src = find_source(name)
    folder = tmp_path.joinpath(*src.hub.split("/"))
    place = f"{src.part.config}/" if src.part.config else ""
    (folder / place).mkdir(parents=True)
    row: dict[str, Any] = {
        src.statement: "2+2?",
        src.golds.answer: "So \\boxed{4}",
        src.trace: "So \\boxed{4}",
        "source": "s",
        "level": "1",
    }
    if src.trace_kind == "generations":
        row |= {src.golds.answer: "4", src.trace: ["<think>\n2+2\n</think>\n\\boxed{4}"], src.id: "u", src.subset: "s"}
    (folder / place / f"{src.part.split}.jsonl").write_text((json.dumps(row) + "\n") * 3)
    head = f"- config_name: {src.part.config or 'default'}\n  data_files:\n  - split: {src.part.split}\n"
    head += f"    path: '{place}*.jsonl'\n"
    (folder / "README.md").write_text(f"---\nconfigs:\n{head}---\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    result = load_traces(name)
    assert [one.trace.answer for one in result] == ["4"] * 3
    assert [one.where for one in result] == [f"{src.hub}[{number}]" for number in range(3)]


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does when it is asked about a set."""

    def do_GET(self) -> None:
        known = self.path == "/api/datasets/GAIR/LIMO"
        body = json.dumps({"id": "GAIR/LIMO", "sha": "5" * 40} if known else {"error": "no such set"}).encode()
        self.send_response(200 if known else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_an_unpinned_set_is_read_at_the_commit_that_the_hub_names() -> None:
    code = (
        "from mathlete.corpus.sources import find_commit, find_source\n"
        "for name in ('limo', 'metamath', 'math'): print(find_commit(find_source(name)))"
    )
    with HTTPServer(("127.0.0.1", 0), Hub) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        variables = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}"}
        asked = [sys.executable, "-c", code]
        there = subprocess.run(asked, env=variables, capture_output=True, text=True, check=True)
        server.shutdown()
    gone = subprocess.run(asked, env=variables, capture_output=True, text=True, check=True)
    pinned = find_source("math").part.revision
    assert there.stdout.split() == ["5" * 40, "None", pinned]
    assert gone.stdout.split() == ["None", "None", pinned]


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("aimo_val", 173),
        ("math500", 500),
        ("aime24", 30),
        ("aime25", 30),
        ("gsm8k", 1319),
        ("math_l4", 754),
        ("math_l5", 721),
    ],
)
def test_real_sets_load_whole_with_unique_ids(shared: Path, name: str, count: int) -> None:
    problems = load_suite(name, mirror=shared / "data" / "hub").problems
    assert (len(problems), len({p.id for p in problems})) == (count, count)
    assert all("." not in p.gold or name == "math500" for p in problems)


def test_every_real_trace_source_loads(shared: Path) -> None:
    mirror = shared / "data" / "hub"
    assert len(load_traces("gsm8k", mirror=mirror)) == 7473
    assert [one.trace.flaw for one in load_traces("openr1", mirror=mirror)] == [""] * 14
