"""Details of lighteval: which cap was in force is told by the results beside them, and by nothing else."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from mathlete.errors import UserError
from mathlete.logs import find_results, read_log
from tests.test_logs import HERE
from tests.test_logs_odd import ROWS, with_value

(DETAILS,) = HERE.glob("details_*.parquet")
DATE = DETAILS.stem.rpartition("_")[2]


@pytest.fixture(autouse=True)
def inside(workdir: Path) -> None:
    """Every test stands in a folder of its own."""


def details(config: dict[str, Any] | None) -> Path:
    """The details in the folders that lighteval makes, with the results of such a config beside them."""
    folder = Path("out/details/me/pocket", DATE)
    folder.mkdir(parents=True)
    if config is not None:
        results = Path("out/results/me/pocket", f"results_{DATE}.json")
        results.parent.mkdir(parents=True)
        results.write_text(json.dumps({"config_general": config}))
    (folder / DETAILS.name).write_bytes(DETAILS.read_bytes())
    return folder / DETAILS.name


CAPS: list[tuple[dict[str, Any] | None, dict[str, float], int | None]] = [
    ({"generation_parameters": {"max_new_tokens": 22, "temperature": 0.6}}, {"max_tokens": 22, "temperature": 0.6}, 6),
    ({"model_config": {"generation_parameters": {"max_new_tokens": 21}}}, {"max_tokens": 21}, 9),
    # The run has no cap of its own: then the task's, of 23 tokens, cuts.
    ({"generation_parameters": {"max_new_tokens": None}}, {"max_tokens": 23}, 3),
    # Nobody says whether the run had one.
    ({"model_name": "me/pocket"}, {}, None),
    (None, {}, None),
]  # fmt: skip
"""(what the results say of the run, its settings, how many of the samples of 20 to 23 tokens were cut)."""


@pytest.mark.parametrize(("config", "sampling", "cut"), CAPS)
def test_the_cap_in_force_says_which_samples_were_cut(
    config: dict[str, Any] | None, sampling: dict[str, float], cut: int | None
) -> None:
    file = details(config)
    # An import is made of them, too.
    assert (find_results(file) is None) == (config is None)
    log = read_log(file, {})
    assert (log.facts.model, log.facts.sampling) == ("me/pocket", sampling)
    ends = [entry.finish for entry in log.entries]
    assert ends.count(None) == (12 if cut is None else 0)
    assert ends.count("length") == (cut or 0)


def test_caps_of_two_tasks_in_one_file_are_refused_where_they_are_in_force() -> None:
    row: dict[str, Any] = ROWS["details.parquet.jsonl"]
    rows = [row, with_value(row, ("doc", "generation_size"), 9)]
    for config, sampling in (({"max_new_tokens": 22}, {"max_tokens": 22}), ({}, None)):
        file = Path(f"{len(config)}", "details/me", DATE, f"details_a_{DATE}.parquet")
        file.parent.mkdir(parents=True)
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
        results = file.parents[3] / "results/me" / f"results_{DATE}.json"
        results.parent.mkdir(parents=True)
        results.write_text(json.dumps({"config_general": {"generation_parameters": config}}))
        if sampling is None:
            with pytest.raises(UserError, match="with the same max_tokens, got 23"):
                read_log(file, {})
        else:
            assert read_log(file, {}).facts.sampling == sampling
