"""The sources of the cells: Python that the formatter leaves as it is, in which only the first cell names anything.

They need nothing but Python, git and the image's torch: the project is cloned and installed by the third one.
"""

TITLE = """\
# {title}

Trains by [mathlete]({url}), {where}. Written by `python -m train notebook`; change by hand no cell but the first.

1. Attach the secrets that you need, by these names: `KAGGLE_API_TOKEN` (or `KAGGLE_USERNAME` and `KAGGLE_KEY`) for the
   push of the model, `HF_TOKEN` for gated models. None is written down here.
2. {run}
3. The run stops before the session ends, with a checkpoint. {resume}
4. When the run is finished, the last cell says what it would push as the model's next version: `PUSH = True` does."""
SETTINGS = """\
import time

# The session began a little earlier: RESERVE_MIN covers that, too.
STARTED = time.time()
GIT = {url}
COMMIT = {commit}
# The flags of `python -m train math`.
TRAIN = {words}
# A model of Kaggle's to begin from, OWNER/MODEL/FRAMEWORK/VARIATION/VERSION; empty: as TRAIN says.
BASE = {base}
# A data set's file of problems with traces, OWNER/SLUG/FILE; empty: as TRAIN says.
TRACES = {traces}
# {earlier_is}; where it is not there, the run begins.
EARLIER = {earlier}
# Gets the export as its next version; LICENCE is Kaggle's name of it, empty: as the export's card says.
MODEL = {model}
LICENCE = {licence}
# False: only say what would be sent.
PUSH = {push}
# Minutes before the end at which the run stops: the last step, the copy and the push need them.
HOURS, RESERVE_MIN = {hours}, {reserve_min}
# 0: one for each GPU.
PROCESSES = {processes}
SECRETS = ["KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY", "HF_TOKEN"]
# What the training takes of the image; all else is installed, in the versions that were tested.
FROM_IMAGE = ["torch", "triton", "nvidia-*", "cuda-*"]
INPUT = {input}
# A copy of the run, which outlives the session.
KEPT = {kept}
WORK = {work}
"""
KAGGLE_SECRETS = """\
import importlib
import os
from importlib.util import find_spec

if find_spec("kaggle_secrets"):
    client = importlib.import_module("kaggle_secrets").UserSecretsClient()
    for name in SECRETS:
        try:
            os.environ[name] = client.get_secret(name)
        except Exception as error:  # not attached: what needs it will say so
            print(f"no secret {name}: {type(error).__name__}")
"""
COLAB_SECRETS = """\
import importlib
import os

if "COLAB_RELEASE_TAG" in os.environ:
    importlib.import_module("google.colab.drive").mount("/content/drive")
    secrets = importlib.import_module("google.colab.userdata")
    for name in SECRETS:
        try:
            os.environ[name] = secrets.get(name)
        except Exception as error:  # not there, or not for this notebook: what needs it will say so
            print(f"no secret {name}: {type(error).__name__}")
"""
INSTALL = """\
import re
import subprocess
import sys
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path


def start(*words: str, **variables: str) -> int:
    \"\"\"Start a program whose lines go into the notebook; return its exit code.\"\"\"
    seen = {**os.environ, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", **variables}
    with subprocess.Popen(words, env=seen, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
    return process.returncode


def require(*words: str) -> None:
    \"\"\"Start a program that must succeed: a failing `!pip` does not stop a notebook.\"\"\"
    assert start(*words) == 0, f"{words[0]} failed, see above"


# What hashes code (dill, for data sets) takes a folder of this name for packages, which it does not look into.
code, image, own = Path(WORK, "mathlete"), Path(WORK, "image", "site-packages"), Path(WORK, "venv")
if not code.is_dir():
    require("git", "clone", "--quiet", "--no-checkout", GIT, str(code))
require("git", "-C", str(code), "checkout", "--quiet", "--detach", COMMIT)

# An environment of its own, which sees of the image's packages torch alone: they stay as they are, and none that is too
# old for peft or transformers (torchao 0.10) is in their way.
require(sys.executable, "-m", "venv", "--without-pip", str(own))
PYTHON = str(own / "bin" / "python")
image.mkdir(parents=True, exist_ok=True)
taken = {}
for one in metadata.distributions():
    name = re.sub(r"[-_.]+", "-", one.metadata["Name"]).lower()
    if name not in taken and any(fnmatch(name, pattern) for pattern in FROM_IMAGE):
        taken[name] = one.version
        for top in {file.parts[0] for file in one.files or ()} - {"..", "__pycache__"}:
            if not (image / top).exists():
                (image / top).symlink_to(str(one.locate_file(top)))
assert "torch" in taken, "the image has no torch"
asked = "import sysconfig; print(sysconfig.get_path('purelib'))"
packages = subprocess.check_output([PYTHON, "-c", asked], text=True).strip()
Path(packages, "image.pth").write_text(f"{image}\\n")

tested = (code / "constraints.txt").read_text().splitlines()
pins = [pin for pin in tested if re.sub(r"[-_.]+", "-", pin.split("==")[0]).lower() not in taken]
constraints = Path(WORK, "constraints.txt")
constraints.write_text("\\n".join([*pins, *(f"{name}=={version}" for name, version in taken.items())]) + "\\n")
pip = [sys.executable, "-m", "pip", "--python", PYTHON, "install", "--quiet", "--disable-pip-version-check"]
require(*pip, "--constraint", str(constraints), "--editable", str(code))
require(PYTHON, "-m", "mathlete", "--version")
"""
KAGGLE_FIND = """\
from pathlib import Path


{find_input}

inputs, copies = [], []
if BASE:
    inputs += ["--model", str(find_input("models", BASE, INPUT))]
if TRACES:
    owner, slug, file = TRACES.split("/", 2)
    inputs += ["--source", str(find_input("datasets", f"{{owner}}/{{slug}}", INPUT) / file)]
try:
    copies += [str(find_input("datasets", EARLIER, INPUT))]
except FileNotFoundError as error:
    print(f"no earlier session: {{error}}")
print(*inputs, *copies, sep="\\n")
"""
COLAB_FIND = """\
from pathlib import Path


def download(kind: str, source: str) -> Path:
    \"\"\"Download a model or a data set of Kaggle's; return its folder.\"\"\"
    asked = "import sys, kagglehub; print(getattr(kagglehub, sys.argv[1])(sys.argv[2]))"
    return Path(subprocess.check_output([PYTHON, "-c", asked, kind, source], text=True).splitlines()[-1])


inputs, copies = [], [EARLIER]
if BASE:
    inputs += ["--model", str(download("model_download", BASE))]
if TRACES:
    owner, slug, file = TRACES.split("/", 2)
    inputs += ["--source", str(download("dataset_download", f"{owner}/{slug}") / file)]
print(*inputs, *copies, sep="\\n")
"""
TRAIN = """\
def ask(*words: str) -> str:
    \"\"\"Return what Python, in the environment of its own, prints.\"\"\"
    return subprocess.check_output([PYTHON, *words], text=True).strip()


gpus = int(ask("-c", "import torch; print(torch.cuda.device_count())"))
processes = PROCESSES or max(gpus, 1)
launcher = []
if processes > 1:
    config = ask("-m", "train", "launch-config", "ddp")
    if not gpus:
        # Of a machine without any, so that it can be tried there: with its own flag for that it starts one process.
        text, config = Path(config).read_text(), str(Path(WORK, "cpu.yaml"))
        Path(config).write_text(text.replace("use_cpu: false", "use_cpu: true"))
    launcher = ["-m", "accelerate.commands.launch", "--config_file", config, "--num_processes", str(processes)]
seen = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, range(processes)))} if gpus > processes else {}
ends = STARTED + 60 * (60 * HOURS - RESERVE_MIN)
session = ["--session.minutes", f"{max(ends - time.time(), 0) / 60:.2f}", "--session.grace-min", f"{RESERVE_MIN / 2}"]
session += ["--session.keep", KEPT, "--session.leave-out", "merged", "--session.resume"]
session += dict.fromkeys([*copies, KEPT])
words = ["-m", "train", "math", *TRAIN, *inputs, "--run", str(Path(WORK, "runs", Path(KEPT).name)), *session]
print("python", *launcher, *words, flush=True)
failed = start(PYTHON, *launcher, *words, **seen)
# After the session's time a step without checkpoints is stopped, as by SIGTERM: that is no failure.
failed = 0 if time.time() >= ends else failed
# An error ends the session, and may cost its output; with something to go on from that would be the greater loss.
assert not failed or Path(KEPT, "kept.json").is_file(), f"the training failed with exit code {failed}: see above"
"""
KEEP = """\
finished = any(Path(KEPT).glob("export*/manifest.json"))
if failed:
    print(f"THE TRAINING FAILED with exit code {failed}, see above; what it had done before is in {KEPT}")
elif not finished:
    print(f"NOT FINISHED: what is done so far is in {KEPT}, from which the next session goes on")
else:
    push = [PYTHON, "-m", "mathlete", "kaggle", "push", KEPT, "--model", MODEL]
    push += ["--licence", LICENCE] if LICENCE else []
    code = start(*push, *(["--yes"] if PUSH else []))
    print(f"finished: {KEPT}")
    if code:
        print(f"THE PUSH FAILED with exit code {code}, see above; the model is in {KEPT}")
"""
