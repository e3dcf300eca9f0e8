"""`python -m mathlete.rehearsal.gateway`: the gateway's container of a rehearsal."""

import argparse
import importlib
import os
import re
import sys
from pathlib import Path
from typing import Any

from mathlete.rehearsal.gateway.behaviours import PACKAGES, Behaviour
from mathlete.rehearsal.gateway.gateway import Gateway


def main() -> int:
    """Ask all questions; write result.json and, where all went well, submission.parquet here; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m mathlete.rehearsal.gateway")
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--package", choices=sorted(PACKAGES), help="version of kaggle_evaluation to behave as")
    parser.add_argument("--id-column", default="id", help="test.csv's column of ids")
    parser.add_argument("--submission-id", default="id", help="the submission's column of ids")
    parser.add_argument("--target", default="", help="its column of answers, where the gateway names it")
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--order", choices=("file", "shuffled"), default="shuffled")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--deadline-s", type=float, required=True)
    parser.add_argument("--startup-s", type=float, required=True)
    parser.add_argument("--real", type=Path, help="folder that holds the real kaggle_evaluation package")
    parser.add_argument("--real-module", help="its module of the gateway")
    parser.add_argument("--real-class", help="its gateway's class")
    words = parser.parse_args()
    if words.real:
        return _run_real(words)
    behaviour = Behaviour(
        package=PACKAGES[words.package],
        id_column=words.id_column,
        submission_id=words.submission_id,
        target=words.target,
        deadline_s=words.deadline_s,
        startup_s=words.startup_s,
    )
    gateway = Gateway(behaviour, test=words.test, folder=Path(), host=words.host, order=words.order, seed=words.seed)
    return 0 if gateway.run_and_report()["Succeeded"] else 3


def _run_real(words: argparse.Namespace) -> int:
    """Run Kaggle's package as the user downloaded it; only its order and, on a faster clock, its limits are changed."""
    os.environ["KAGGLE_IS_COMPETITION_RERUN"] = "1"
    sys.path.insert(0, str(words.real))
    package: Any = importlib.import_module("kaggle_evaluation")
    module: Any = importlib.import_module(f"kaggle_evaluation.{words.real_module}")
    module.USE_PRIVATE_SET = words.order == "file"
    relay: Any = importlib.import_module("kaggle_evaluation.core.relay")
    relay.STARTUP_LIMIT_SECONDS = words.startup_s
    # From 1.7.0 on it takes the competition's folder.
    numbers = [int(number) for number in re.findall("[0-9]+", str(getattr(package, "__version__", "")))[:2]]
    data = str(words.test.parent) if numbers >= [1, 7] else (str(words.test),)
    gateway = getattr(module, words.real_class)(data)
    gateway.set_response_timeout_seconds(words.deadline_s)
    gateway.run()
    return 0 if Path("submission.parquet").is_file() else 3


if __name__ == "__main__":
    sys.exit(main())
