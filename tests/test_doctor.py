"""`mathlete doctor`: what it says, that it says no secret, and that it works where torch does not."""

import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from mathlete.programs import DOCTOR, examine_machine
from mathlete.programs.diagnosis import Diagnosis
from tests.conftest import GOLDEN

KEPT = ("PATH", "LANG", "LD_LIBRARY_PATH", "SSL_CERT_FILE")
BROKEN = "raise ImportError('libcudart.so.12: cannot open shared object file')\n"
WITHOUT = "import sys\nsys.path[:] = [path for path in sys.path if not path.endswith('site-packages')]\n"
"""What has Python find no package but those of the shelf."""
SECRETS = {
    "HF_TOKEN": "hf_secret",
    "WANDB_API_KEY": "wandb_secret",
    "KAGGLE_USERNAME": "alice",
    "KAGGLE_KEY": "k_secret",
}
VARYING = [
    (r"\b[0-9a-f]{12}\b", "HASH"),
    (r"\d+(\.\d+)* of \d+(\.\d+)* GiB", "N of N GiB"),
    (r"\d+\.\d+ GiB free", "N GiB free"),
    (r"(?<=needed).*|(?<=further).*|(?<=without).*|(?<=system).*|(?<=Python  ).*|(?<=nvidia-smi).*", " …"),
    (r"(?<=version).*", " …"),
    (r"(?<=threads).*", " …"),
    (r"(?<=  torch) .* is installed", " N is installed"),
]
"""What differs between machines and days, and what stands for it."""


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A folder that is looked through for modules before all others."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    return folder


def consult(folder: Path, shelf: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the doctor in a folder, with an environment that says nothing but these variables."""
    path = os.pathsep.join([str(shelf), *filter(None, sys.path)])
    environment = {name: os.environ[name] for name in KEPT if name in os.environ}
    environment |= {"HOME": str(folder), "PYTHONPATH": path, "PYTHONSAFEPATH": "1", **variables}
    command = [sys.executable, "-m", "mathlete", "doctor", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def normalise(text: str) -> str:
    # A value that was broken into lines is one line again.
    text = re.sub(r"\n {19}", " ", text)
    for pattern, instead in VARYING:
        text = re.sub(pattern, instead, text)
    return text


def test_its_output_is_golden_where_torch_is_broken(tmp_path: Path, shelf: Path) -> None:
    (shelf / "torch.py").write_text(BROKEN)
    (tmp_path / "random.py").touch()
    done = consult(tmp_path, shelf, HF_HUB_OFFLINE="1", **SECRETS)
    assert done.returncode == 1, done.stderr
    assert normalise(done.stdout) == (GOLDEN / "doctor.txt").read_text(), (
        "if it is meant, write what `normalise` makes of it"
    )
    assert not any(len(line) > 80 for line in done.stdout.splitlines())
    assert not [secret for secret in SECRETS.values() if secret in done.stdout + done.stderr]


@pytest.mark.slow
def test_it_says_that_torch_is_missing_and_tells_the_rest(tmp_path: Path, shelf: Path) -> None:
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(("torch-", "torch.")) and entry.name != "torch":
            (shelf / entry.name).symlink_to(entry)
    (shelf / "sitecustomize.py").write_text(WITHOUT)
    done = consult(tmp_path, shelf, "--json")
    assert done.returncode == 1
    diagnosis = Diagnosis.from_json(json.loads(done.stdout.splitlines()[-1]))
    assert [problem.partition(":")[0] for problem in diagnosis.problems] == [
        "torch is missing",
        "torch can't be imported (ModuleNotFoundError",
    ]
    assert diagnosis.sections["devices"]["torch"] == "not installed"
    assert diagnosis.sections["devices"]["GPUs of torch"] == "none"
    assert diagnosis.sections["credentials"] == {"Kaggle": "none", "Hugging Face": "none", "Weights & Biases": "none"}


def test_a_diagnosis_comes_back_from_json() -> None:
    diagnosis = Diagnosis(sections={"room": {"memory": "1 GiB"}}, problems=("no room: make some",))
    assert Diagnosis.from_json(json.loads(json.dumps(diagnosis.to_json()))) == diagnosis


@pytest.mark.slow
def test_a_sound_machine_has_no_problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    diagnosis = examine_machine()
    assert "can't be imported" not in str(diagnosis)
    assert not DOCTOR["doctor"].fails({"problems": []})
    assert diagnosis.sections["devices"]["torch"].startswith(__import__("torch").__version__)


def test_what_cannot_be_read_is_a_problem_with_its_cure(
    tmp_path: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shelf / "torch.py").write_text(BROKEN)
    (tmp_path / ".kaggle").mkdir()
    (tmp_path / ".kaggle" / "kaggle.json").write_text("{ k_secret")
    (tmp_path / ".cache" / "huggingface").mkdir(parents=True)
    (tmp_path / ".cache" / "huggingface" / "token").write_text("hf_secret")
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password wandb_secret\n")
    for name in (*SECRETS, "HF_HOME", "HF_TOKEN_PATH", "NETRC", "KAGGLE_API_TOKEN", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(shelf))
    diagnosis = examine_machine()
    assert diagnosis.sections["credentials"] == {
        "Kaggle": "can't be read",
        "Hugging Face": "present, in ~/.cache/huggingface/token",
        "Weights & Biases": "present, in ~/.netrc",
    }
    assert any("~/.kaggle/kaggle.json, which holds no JSON object" in problem for problem in diagnosis.problems)
    assert "secret" not in str(diagnosis)
