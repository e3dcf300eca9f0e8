"""How tests are collected and shared out: doctests, slow parts, which files share a process, the garbage collector.

conftest.py imports these hooks, so that pytest finds them there.
"""

import gc
import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from _pytest.doctest import DoctestModule

from tests.slow import parts_of

# A process holds some million objects that live as long as it does: modules, tests. Python's collector would look
# through them again and again, a tenth of all CPU seconds. Here it begins after the collection of the tests, without
# what is there by then, and works less often; what nobody closed is still told, at the latest as the session ends.
gc.disable()

_GROUPS = {
    # They read real tokenizers and prove their encoders.
    "tokenizers": ("prompts", "rows_encoding", "rows_format", "rows_tokens"),
    # They load peft, TRL and bitsandbytes.
    "training": (
        *("adapters", "tune_optimizers"),
        *("train", "train_exports", "train_presets", "gates", "export_formats", "export_lab", "export_survival"),
        *(
            "export_table",
            "rows_packing",
            "tune_layers",
            "tune_loss",
            "tune_methods",
            "tune_samples",
            "tune_optimizers",
            "tune_plan",
            "tune_schedule",
            "tune_tracking",
            "adapters",
            "adapters_served",
            "adapters_vllm",
            "docs_guide",
        ),
    ),
}
TOGETHER = {f"tests/test_{name}.py": group for group, names in _GROUPS.items() for name in names}
"""{file: its group}: what these load or make, one process does once for all."""
SHARES = ("models", "others", "waiting", "hour")
"""What `make test` runs side by side on two cores: the files of each in a process that collects no others."""
_HOUR = re.compile(r"tests/test_docs_hour\.py")
"""The pocket model's commands of docs/first-hour.md: a whole training, and what follows from it."""
_WAITING = re.compile(r"tests/test_(hub_push|kernel_(gateway|ladder)|sampling_servers|signals|submit_looks)\.py")
"""Files that wait for servers, processes and retries ten times longer than they compute."""
_MODELS = re.compile(
    r"tests/test_(adapters|competitions|contributing|corpus|docs_(commands|guide)|eval|export|first_hour|foreign_files"
    r"|gates|harvest|house|kernel_server|locks|mistakes|model|overlap|plans|pocket|prompts|reasoning|refused"
    r"|report_exports|rows|rules_compared|sampling_(?!sandbox)|sources"
    r"|submit_(answer|build|bytes|choices|extra|folders|mounted|rehearsal|shown|speed|vllm|words)"
    r"|text|thoughts|train|tune|vouching)"
    r"|src/mathlete/(drawing|export|models|rows|sampling/embedded|tune)/"
)
"""How files begin, below the checkout, that load models or many tokenizers."""
SLOW = pytest.StashKey[dict[str, list[str]]]()
"""{slow test: the parts of `make slow` that it is in}, of what was collected."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--part", help="of the slow tests only those of this part of tests/slow.py")
    parser.addoption("--share", choices=SHARES, help="only the files of this share of `make test`")


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each file to one process, and files that stand in `TOGETHER` to the same one."""
    from xdist.scheduler import LoadFileScheduling

    scheduler = LoadFileScheduling(config, log)
    scheduler._split_scope = lambda test: TOGETHER.get(file := test.split("::", 1)[0], file)
    return scheduler


class Doctests:
    """Leaves out the collection of doctests where there are none: it imports the module and looks through all of it."""

    @pytest.hookimpl(wrapper=True)
    def pytest_collect_file(self, file_path: Path) -> Generator[None, list[Any], list[Any]]:
        collectors = yield
        if b">>>" in file_path.read_bytes():
            return collectors
        return [one for one in collectors if not isinstance(one, DoctestModule)]


def share_of(file: str) -> str:
    """Return the share of `make test` that a file is in, by its path below the checkout. Few of "others" load torch."""
    if _HOUR.match(file):
        return "hour"
    if _WAITING.match(file):
        return "waiting"
    return "models" if _MODELS.match(file) else "others"


class Share:
    """Leaves out the files of the other shares: they are not even imported."""

    def __init__(self, name: str, root: Path) -> None:
        self._name, self._root = name, root

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        # That every slow test is in a part is looked at in each share, among the tests that it collects.
        if not collection_path.is_file() or collection_path.name == "test_slow.py":
            return None
        return True if share_of(collection_path.relative_to(self._root).as_posix()) != self._name else None


@pytest.hookimpl(tryfirst=True)
def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name long bytes by their argument: a packed file holds its time, and all processes must name a test the same."""
    return argname if isinstance(val, bytes) and len(val) > 20 else None


def pytest_configure(config: pytest.Config) -> None:
    """Have these asked for every folder: a hook of conftest.py is asked for its own only."""
    config.pluginmanager.register(Doctests())
    if share := config.getoption("share", default=None):
        config.pluginmanager.register(Share(share, config.rootpath))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Note the parts of all slow tests, for a test to look at, and keep those of the part that is asked for."""
    config.stash[SLOW] = {item.nodeid: parts_of(item.nodeid) for item in items if item.get_closest_marker("slow")}
    if wanted := config.getoption("part", default=None):
        kept = [item for item in items if wanted in config.stash[SLOW].get(item.nodeid, ())]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)
    gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish() -> None:
    """Look for what nobody closed once more, and spare what is left then: Python would look through it as it ends."""
    gc.collect()
    gc.freeze()
