"""What all tests share: the three commands as functions, no hub, one thread, folders that are made once."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from fcntl import LOCK_EX, flock
from functools import cache
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st

from mathlete.shipped import data_folder
from mathlete.signals import ending_with_parent
from mathlete.submission import Build, Names
from tests.collecting import (  # hooks of pytest: it takes them for conftest's own  # noqa: F401
    pytest_addoption,
    pytest_collection_finish,
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_make_parametrize_id,
    pytest_sessionfinish,
    pytest_xdist_make_scheduler,
)
from tests.parsers import remember_parsers

if TYPE_CHECKING:
    from mathlete.prompts import PromptFormat
    from mathlete.report.chart import Chart

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")

remember_parsers()
# A busy machine is no failure: no deadlines. `make slow-laws` tries laws on more examples.
settings.register_profile("quick", deadline=None, max_examples=30)
settings.register_profile("thorough", deadline=None, max_examples=500)
settings.load_profile("quick")


def dear(examples: int) -> settings:
    """Settings of a law that costs much: so many examples in `make test`, as many as of any law in `make slow-laws`."""
    return settings() if settings.get_current_profile_name() == "thorough" else settings(max_examples=examples)


CHARACTERS = st.characters(exclude_categories=["Cs"])
"""All that UTF-8 can write, for `st.text`; alone that tries each of them, which takes a second in a fresh clone."""


ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"
"""What must stay as it is, word for word."""
POCKET = data_folder() / "pocket" / "model"
POCKET_VAL = data_folder() / "pocket" / "pocket_val.jsonl"
NAMES = Names(owner="alice", variation="int8", model_version=1)
"""What the files of `build` are called on Kaggle."""


collect_ignore_glob = ["logs/make_*.py"]
"""Scripts of environments that hold other tools: without these they cannot even be imported."""


def sample(*rows: Any, slow: Iterable[Any]) -> list[Any]:
    """Return the rows of a table for `parametrize`, of which the slow ones run in `make slow` only."""
    return [
        *rows,
        *(pytest.param(*(row if isinstance(row, tuple) else (row,)), marks=pytest.mark.slow) for row in slow),
    ]


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it printed."""

    code: int
    stdout: str
    stderr: str

    @property
    def result(self) -> dict[str, Any]:
        """The line of JSON that a command which succeeded under --json prints last."""
        assert self.code == 0, self.stderr
        line: dict[str, Any] = json.loads(self.stdout.splitlines()[-1])
        return line

    @property
    def refusal(self) -> str:
        """The message of a command that the user has to mend."""
        assert self.code == 2, f"exit code {self.code}\n{self.stderr}"
        return self.stderr


@dataclass(frozen=True)
class CommandLine:
    """`python -m NAME`, called with its words; paths and numbers are words too."""

    name: str

    def __call__(self, *words: object) -> Done:
        """Run the command in this process, which has torch loaded already: a process of its own costs seconds."""
        from mathlete.command import run_command_line

        out, err = (TextIOWrapper(BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
        try:
            with redirect_stdout(out), redirect_stderr(err):
                how = {"prog": f"python -m {self.name}", **self._tables()}
                code = run_command_line([*map(str, words)], **how)
        finally:
            done = [printed.buffer.getvalue().decode() for printed in (out, err)]
            # pytest shows it when the test fails.
            sys.stdout.write(done[0])
            sys.stderr.write(done[1])
        return Done(code, *done)

    def help(self, *words: object) -> str:
        """Return what --help prints on a terminal of 100 columns without colours."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("COLUMNS", "100")
            patch.setenv("NO_COLOR", "1")
            done = self(*words, *([] if "--help-all" in words else ["--help"]))
        assert done.code == 0, done.stderr
        return done.stdout

    def process(self, *words: object, folder: Path | None = None, **environment: str) -> Done:
        """Run the command in a process and a folder of its own, as a user does."""
        done = subprocess.run(
            self.argv(*words),
            cwd=folder,
            env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1", **environment},
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=ending_with_parent(),
        )
        sys.stderr.write(done.stderr)
        return Done(done.returncode, done.stdout, done.stderr)

    def argv(self, *words: object) -> list[str]:
        """Return what starts the command in a process, for tests that kill it or look at it from outside."""
        return [sys.executable, "-m", self.name, *map(str, words)]

    def _tables(self) -> dict[str, Any]:
        match self.name:
            case "train":
                from train.commands import COMMANDS as TRAIN

                return {"commands": TRAIN}
            case "submit":
                from submit.commands import COMMANDS as SUBMIT

                return {"commands": SUBMIT}
            case "hub":
                from mathlete.programs import HUB

                return {"commands": HUB, "prog": "mathlete hub"}
            case "kaggle":
                from mathlete.programs import KAGGLE

                return {"commands": KAGGLE, "prog": "mathlete kaggle"}
            case "doctor":
                from mathlete.programs import DOCTOR

                return {"commands": DOCTOR, "prog": "mathlete"}
            case _:
                from eval.commands import COMMANDS, EVALUATE

                return {"commands": COMMANDS, "otherwise": EVALUATE}


class Extras:
    """What a run does for people beside its work, which is half of what a small one costs: pictures, trackio."""

    def __init__(self) -> None:
        from matplotlib.figure import Figure

        from mathlete.report import html
        from mathlete.tune import tracking

        undrawn = ((Figure, "savefig"), (html, "write_plots"))
        self._owners: tuple[tuple[Any, str], ...] = (*undrawn, (tracking, "find_spec"))
        self._real = [getattr(owner, name) for owner, name in self._owners]

    @contextmanager
    def left_out(self) -> Iterator[None]:
        """Save figures without drawing them, a report's without making them; take trackio for not installed."""
        with self._patched([_save_undrawn, _write_undrawn, lambda _: None]):
            yield

    @contextmanager
    def put_back(self) -> Iterator[None]:
        """Have all done as for a user."""
        with self._patched(self._real):
            yield

    @contextmanager
    def _patched(self, values: Sequence[object]) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for (owner, name), value in zip(self._owners, values, strict=True):
                patch.setattr(owner, name, value)
            yield


def _save_undrawn(figure: object, file: Path, **how: object) -> None:
    Path(file).write_bytes(b"\x89PNG")


def _write_undrawn(folder: Path, charts: Sequence["Chart"]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for file in (files := [folder / f"{chart.key}.png" for chart in charts]):
        _save_undrawn(None, file)
    return files


@pytest.fixture(scope="session", autouse=True)
def kept_sources() -> Iterator[None]:
    """tyro reads the sources of a command's settings once a process, not once a command: two fifths of its time."""
    from tyro import _docstrings

    parsed: Any = _docstrings._ClassTokenization
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parsed, "make", staticmethod(cache(parsed.make.__wrapped__)))
        yield


@pytest.fixture(scope="session")
def lean() -> Iterator[Extras]:
    """Runs in this process leave out their extras."""
    extras = Extras()
    with extras.left_out():
        yield extras


@pytest.fixture
def in_full(lean: Extras) -> Iterator[None]:
    """Runs in this process do all, for a test that looks at their extras."""
    with lean.put_back():
        yield


@pytest.fixture(scope="session")
def train(lean: Extras) -> CommandLine:
    return CommandLine("train")


@pytest.fixture(scope="session")
def evaluate(lean: Extras) -> CommandLine:
    return CommandLine("eval")


@pytest.fixture(scope="session")
def submit() -> CommandLine:
    return CommandLine("submit")


def make_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a copy of the folder that `make` fills; of all processes of the tests the first to ask has it made."""
    base = factory.getbasetemp().parent if "PYTEST_XDIST_WORKER" in os.environ else factory.getbasetemp()
    whole, own = base / f"{name}-whole", factory.mktemp(name)
    with (base / f"{name}.lock").open("w") as lock:
        flock(lock, LOCK_EX)
        if not whole.exists():
            make(unfinished := factory.mktemp(f"{name}-unfinished"))
            unfinished.rename(whole)
    return Path(shutil.copytree(whole, own, dirs_exist_ok=True))


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, submit: CommandLine) -> Path:
    """A folder in which the pocket model was built, in runs/submit and kaggle."""
    # In a process of its own where torch is not loaded: most tests beside may do without.
    start = submit if "torch" in sys.modules else submit.process

    def build(folder: Path) -> None:
        with chdir(folder):
            done = start("build", "--model", "pocket", "--names.owner", "mathlete-demo", "--json")
        assert set(done.result["hashes"]) >= {"notebook", "code", "weights", "wheels"}

    return make_once(tmp_path_factory, "built", build)


@pytest.fixture
def built_wheels(built: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The wheels of `built` in the test's own folder, where another build finds the project's wheel made already."""
    from mathlete.submission import wheelhouse

    (wheel,) = (wheels := built / "runs" / "wheels").glob("mathlete-*.whl")
    monkeypatch.setattr(wheelhouse, "_build_wheel", lambda root, into: Path(shutil.copy(wheel, into)))
    return Path(shutil.copytree(wheels, "runs/wheels"))


@pytest.fixture(scope="session")
def small_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of `build`, which are copied for each test."""
    from mathlete.competitions import competition
    from mathlete.kernel import KernelConfig
    from mathlete.submission.metadata import NOTEBOOK, write_metadata
    from mathlete.submission.notebook import write_notebook

    whole = tmp_path_factory.mktemp("small-build")
    kaggle, model, wheels = (whole / name for name in ("kaggle", "model", "wheels"))
    for folder in (kaggle, model, wheels):
        folder.mkdir()
    write_notebook(kaggle / NOTEBOOK, KernelConfig(), NAMES)
    rules = competition("aimo-3")
    write_metadata(kaggle, NAMES, rules=rules, machine=None, image="", licence="Apache 2.0", weights="int8")
    (model / "config.json").write_text("{}")
    (wheels / "mathlete-0.1.0-py3-none-any.whl").write_bytes(b"wheel")
    return whole


@pytest.fixture
def build(small_build: Path, tmp_path: Path) -> Build:
    """A build whose files are small: a notebook and its metadata, a model without weights, a wheel that is none."""
    from mathlete.kernel import KernelConfig

    shutil.copytree(small_build, tmp_path, dirs_exist_ok=True)
    kaggle, model, wheels = (tmp_path / name for name in ("kaggle", "model", "wheels"))
    return Build(kaggle=kaggle, model=model, wheels=wheels, names=NAMES, config=KernelConfig())


def with_settings(build: Build, folder: Path, **changes: Any) -> Build:
    """Return the build with other settings or names, its notebook and metadata written anew."""
    from mathlete.submission.contents import list_contents
    from mathlete.submission.metadata import NOTEBOOK, write_metadata
    from mathlete.submission.notebook import write_notebook

    names = changes.pop("names", build.names).name_variation(build.model)
    config = replace(build.config, **changes)
    write_notebook(folder / NOTEBOOK, config, names, list_contents(build.model, build.wheels, parts="", machine=""))
    rules = config.competition
    write_metadata(folder, names, rules=rules, machine=None, image="", licence="Apache 2.0", weights="int8")
    return replace(build, kaggle=folder, config=config, names=names)


@pytest.fixture(scope="session")
def pocket() -> "PromptFormat":
    """The pocket model's prompts."""
    from mathlete.models import find_model, load_prompt_format

    return load_prompt_format(find_model("pocket"))


@pytest.fixture(scope="session")
def load_real(shared: Path) -> Callable[[str], "PromptFormat"]:
    """Loads the prompts of a real tokenizer by its name, once a session: reading one and its encoder take seconds."""
    from mathlete.models import ModelSource, load_prompt_format

    return cache(lambda name: load_prompt_format(ModelSource(name=name, location=str(shared / "tokenizers" / name))))


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="module")
def unlimited_steps() -> Iterator[None]:
    """No limit on exact arithmetic: the steps are counted for one answer, and these tests do the work of many."""
    from mathlete.answers import effort

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(effort, "_limited", False)
        yield


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own, in which it stands."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real problem sets and tokenizers, which are not part of the project."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs the folder of real sets and tokenizers beside the checkout")
    return folder


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory, train: CommandLine) -> str:
    """Lines of 40 problems, each with its trace, a longer right one and a wrong one."""
    file = tmp_path_factory.mktemp("pairs") / "one.jsonl"
    assert train("pocket-problems", file, "--families", "hard", "easy", "--count", 40).code == 0
    lines = []
    for one in map(json.loads, file.read_text().splitlines()):
        again = {"trace": f"{one['trace']}\nOnce more, from the beginning.\n{one['trace']}"}
        lines += [one, one | again, one | {"trace": f"{one['trace']}\nOr is it?", "answer": f"{one['gold']}1"}]
    return "".join(json.dumps(line) + "\n" for line in lines)
