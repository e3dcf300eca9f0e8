"""The parts of `make slow`, each at most half an hour on two slow cores, and the table of when they last ran.

`python -m tests.slow` names the parts; `python -m tests.slow PART FILE` writes the row of bench/SLOW.md from what
pytest wrote with --junitxml.
"""

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree
from zlib import crc32

FAULT = "tests/test_submit_rehearsal.py::test_a_fault_ends_in_a_valid_submission_or_a_refusal["
SHARES = 4
"""Into so many parts the fault matrix is cut: some hundred rehearsals."""
OTHER_VERSION = "tests/test_submit_rehearsal.py::test_a_fault_ends_with_another_version_as_the_matrix_says["
VERSIONS = ("0.3.0", "0.7.0", "1.4.0", "1.7.0")
"""Of kaggle_evaluation, each with the whole matrix in a part of its own; 0.9.0 has the shares."""
PARTS: dict[str, tuple[str, ...]] = {
    "train": (
        "train",
        "train_exports",
        "tune_methods",
        "tune_loss",
        "tune_optimizers",
        "tune_tracking",
        "rows_format",
        "rows_chat",
        "rows_replies",
        "corpus_cases",
        "overlap",
    ),
    "kills": ("train_kills", "train_session", "tune_faults", "ctrl_c"),
    "notebook": ("train_notebook",),
    "ranks": ("tune_ranks", "rows_ray"),
    "export": ("gates", "export_formats", "export_lab", "tune_plan", "bench_train", "pocket_base", "pocket_corpus"),
    "sampling": (
        "sampling_engine",
        "sampling_openai",
        "sampling_servers",
        "sampling_lost",
        "text",
        "sampling_ray",
        "sampling_vllm",
        "harvest_vllm",
        "sampling_vllm_border",
        "vllm_settings",
        "vllm_shapes",
        "bench_sampling",
        "kernel_server",
        "kernel_ladder",
        "replay_votes",
        "eval",
    ),
    "logs": ("logs_odd", "logs_own", "logs_tools"),
    "answers": ("thoughts", "answers_isolation", "answers_rewrites", "answers_algebra", "answers_hostile"),
    "sandbox": ("sampling_sandbox",),
    "gateway": ("sandbox_table", "kernel_gateway", "signals"),
    "folders": ("doctor", "help", "hub_push", "vouching", "model_folders", "mistakes", "stops", "locks"),
    "first-hour": ("first_hour",),
    "docs": ("house", "changes", "docs_commands", "launch_files", "report", "report_exports"),
    "browser": ("report_browser",),
    "submit": (
        "submit_build",
        "submit_bytes",
        "submit_folders",
        "submit_formats",
        "submit_preflight",
        "submit_push",
        "submit_looks",
        "submit_shown",
        "submit_credentials",
        "submit_rehearsal",
        "submit_answer",
        "submit_refused",
        "submit_vllm_embedded",
        "prompts_organiser",
        "kaggle_image",
        "competitions",
    ),
    "vllm": ("rehearsal_vllm", "adapters_vllm", "submit_extra"),
}
"""Files of tests whose slow tests are in the part; the rest of the matrix is in its shares."""
NAMES = (
    *PARTS,
    *(f"faults-{share}" for share in range(1, SHARES + 1)),
    *(f"faults-{version}" for version in VERSIONS),
    "laws",
)
"""`laws` are no slow tests but all those of hypothesis, on more examples."""
TABLE = Path(__file__).parents[1] / "bench" / "SLOW.md"
HEAD = """# When the slow tests last ran

Written by `make slow` and `make slow-PART`, a row for each part; `tests/slow.py` says what is in a part.

| part | date | commit | passed | failed | skipped | seconds | cores |
|---|---|---|---|---|---|---|---|
"""


def parts_of(test: str) -> list[str]:
    """Return the parts that a slow test is in: one, or the table is wrong.

    >>> parts_of("tests/test_eval.py::test_kill_9_loses_and_repeats_no_sample")
    ['sampling']
    >>> [part.partition("-")[0] for part in parts_of(FAULT + "disk-full]")]
    ['faults']
    >>> parts_of(OTHER_VERSION + "1.4.0-disk-full]")
    ['faults-1.4.0']
    """
    if test.startswith(OTHER_VERSION):
        return [f"faults-{version}" for version in VERSIONS if test.startswith(f"{OTHER_VERSION}{version}-")]
    if test.startswith(FAULT):
        return [f"faults-{crc32(test.encode()) % SHARES + 1}"]
    name = test.split("::")[0].removeprefix("tests/test_").removesuffix(".py")
    return [part for part, files in PARTS.items() if name in files]


def row_of(part: str, result: Path) -> str:
    """Return the part's row of the table, from pytest's JUnit file."""
    suite = next(ElementTree.parse(result).iter("testsuite"))
    tests, failed, skipped = (
        sum(int(suite.get(name, "0")) for name in names) for names in (("tests",), ("failures", "errors"), ("skipped",))
    )
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    seconds, cores = round(float(suite.get("time", "0"))), len(os.sched_getaffinity(0))
    cells = (part, date, commit(), tests - failed - skipped, failed, skipped, seconds, cores)
    return f"| {' | '.join(map(str, cells))} |"


def commit() -> str:
    """Return the short hash of the checkout's commit; with a + where files differ from it, this table aside."""
    git = ["git", "-C", str(TABLE.parent)]
    name = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout
    changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    files = [line[3:] for line in changed.splitlines() if not line.endswith(TABLE.name)]
    return name.strip() + ("+" if files else "")


def with_row(table: str, part: str, row: str) -> str:
    """Return the table with the part's row in its place.

    >>> with_row(HEAD + "| docs | old |\\n| laws | old |\\n", "docs", "| docs | new |").splitlines()[-2:]
    ['| docs | new |', '| laws | old |']
    """
    rows = {line.split("|")[1].strip(): line for line in table.splitlines() if line.startswith("| ")}
    rows.pop("part", None)
    rows[part] = row
    return HEAD + "".join(f"{rows[name]}\n" for name in NAMES if name in rows)


def main(words: list[str]) -> None:
    """Name the parts, or write a part's row."""
    if not words:
        print(*NAMES)
        return
    part, result = words
    table = TABLE.read_text(encoding="utf-8") if TABLE.exists() else HEAD
    TABLE.write_text(with_row(table, part, row_of(part, Path(result))), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
