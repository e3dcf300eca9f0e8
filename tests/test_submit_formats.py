"""Every format of an export, built and rehearsed with only the image's packages: it answers, or is refused before."""

import re
from pathlib import Path
from typing import Any

import pytest

from mathlete.competitions import competition
from mathlete.errors import UserError
from mathlete.export import EXPORT_FORMATS, Export
from mathlete.export.effect import rows_of_traces
from mathlete.export.formats.writing import write_format
from mathlete.kernel import KernelConfig
from mathlete.models import find_model, load_prompt_format
from mathlete.pocket import generate_items
from mathlete.problems import read_problems
from mathlete.rehearsal import RehearsalSettings, choose_canaries, fetch_image, rehearse
from mathlete.solve import Policy
from mathlete.submission import Build, build_submission
from tests.conftest import NAMES, POCKET, POCKET_VAL, ROOT

SWEEP = [
    ("merged", "none", "answers"),
    ("int8", "bitsandbytes", "answers"),
    ("w8a16", "compressed-tensors", "answers"),
    ("w8a8", "compressed-tensors", "answers"),
    ("fp8", "compressed-tensors", "answers"),
    ("w4a16", "compressed-tensors", "answers"),
    ("w8a16-gptq", "compressed-tensors", "answers"),
    ("w4a16-gptq", "compressed-tensors", "answers"),
    ("w4a16-awq", "compressed-tensors", "answers"),
    ("q8_0", "", "refused"),
    ("q4_0", "", "refused"),
    ("f16", "", "refused"),
]
"""(format, the wheels it carries beside the project's, how it ends); the table of docs/rehearsal.md."""
COMPETITIONS = ("aimo-2", "aimo-3")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("formats")


def build_format(made: Path, name: Any, rules: str) -> Build:
    model = made / name
    if name == "merged":
        model = POCKET
    elif not model.is_dir():
        if EXPORT_FORMATS[name].is_calibrated:
            pytest.importorskip("llmcompressor", reason="needs the package llmcompressor")
        items = generate_items(families=("hard", "easy"), count=16, seed=1, split="train")
        prompts = load_prompt_format(find_model("pocket"))
        rows_of_traces([item.traced for item in items], prompts).save_to_disk(made / "rows")
        calibration = Export().calibrate(made / "rows", seed=0)
        write_format(model, merged=POCKET, name=name, settings=Export(), calibration=calibration)
    config = KernelConfig(competition=competition(rules), policy=Policy(n=4))
    folder = made / f"{name}-{rules}"
    try:
        return build_submission(
            model=model, config=config, names=NAMES, kaggle=folder / "kaggle", wheels=folder / "wheels"
        )
    except UserError as error:
        if "index" in str(error) or "connection" in str(error):
            pytest.skip("needs a package index")
        raise


def rehearse_format(build: Build, folder: Path, **how: Any) -> Any:
    # The environment that `make setup` made; another one would be downloaded.
    image = fetch_image(ROOT / ".venv" / "kaggle-environment", python="this")
    asked = choose_canaries(read_problems(POCKET_VAL), count=3, rules=build.config.competition)
    return rehearse(build, asked, RehearsalSettings(python=image.python, **how), folder=folder)


@pytest.mark.slow
@pytest.mark.parametrize("rules", COMPETITIONS)
@pytest.mark.parametrize(("name", "wheels", "ends"), SWEEP)
def test_every_format_answers_or_is_refused_before_a_push(
    name: str, wheels: str, ends: str, rules: str, made: Path, tmp_path: Path
) -> None:
    if ends == "refused":
        with pytest.raises(UserError):
            build_format(made, name, rules)
        return
    build = build_format(made, name, rules)
    carried = {wheel.name.split("-")[0].replace("_", "-") for wheel in build.wheels.glob("*.whl")} - {"mathlete"}
    assert (wheels in carried) == (wheels != "none")
    run = rehearse_format(build, tmp_path / "rehearsal")
    assert run.refusal is None, run.refusal
    assert not any(line.fallback for line in run.journal)
    assert sum(line.answered for line in run.journal) > 0


@pytest.mark.slow
@pytest.mark.parametrize("isolated", [True, False])
def test_weights_whose_package_the_image_lacks_are_missed_in_every_layer(
    isolated: bool, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package is installed where the tests run, and the notebook's environment lacks it all the same."""
    from mathlete.rehearsal import containers
    from mathlete.submission.wheelhouse import build_wheelhouse

    build = build_format(made, "w8a16", "aimo-3")
    build_wheelhouse(tmp_path / "wheels", [])
    bare = Build(kaggle=build.kaggle, model=build.model, wheels=tmp_path / "wheels", names=NAMES, config=build.config)
    if not isolated:
        monkeypatch.setattr(containers, "namespaces_work", lambda: False)
    run = rehearse_format(bare, tmp_path / "rehearsal")
    assert run.refusal is not None
    assert "without an answer" in run.refusal.value
    assert "compressed" in str([line.why for line in run.journal])


def test_the_page_has_the_sweep(root: Path) -> None:
    page = (root / "docs" / "rehearsal.md").read_text(encoding="utf-8")
    assert {*EXPORT_FORMATS} == {name for name, _, _ in SWEEP} - {"merged"}
    rows = re.findall(r"^\| ([\w-]+) \| ([\w-]*) \| (answers|refused) \| (answers|refused) \|", page, re.M)
    assert rows == [(name, wheels, ends, ends) for name, wheels, ends in SWEEP]
