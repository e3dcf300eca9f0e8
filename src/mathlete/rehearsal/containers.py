"""Kaggle's two containers on this machine: user, mount, network and pid namespaces, made by util-linux's `unshare`.

One network namespace holds nothing but a loopback. In it the notebook runs in a root of its own (the system read-only,
/kaggle/input read-only, /kaggle/working of limited size), executed by papermill as Kaggle does; in a rerun the gateway
runs beside it in another mount namespace, where `inference_server` resolves to the loopback as long as the notebook
lives. Where namespaces may not be made, the notebook runs with its network blocked by the interpreter alone.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from shlex import quote
from typing import Literal

from mathlete.errors import UserError
from mathlete.rehearsal.environments import NotebookPython, link_this_python
from mathlete.rehearsal.gateway.behaviours import FIRST_PORT
from mathlete.signals import ending_with_parent
from mathlete.temporary import TemporaryFolder

Isolation = Literal["namespaces", "interpreter"]
NOTEBOOK_LOG, GATEWAY_LOG, PROBE_LOG = "notebook.log", "gateway.log", "probe.log"
_PORT_WAIT_S = 10.0
"""Seconds for the server of a rehearsal that has just ended to go."""
_SYSTEM = ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "etc", "opt", "var", "root", "home", "srv")


@dataclass(frozen=True, kw_only=True)
class Disks:
    """The notebook's writable disks, MiB (20 GiB is the documented limit; not confirmed for these competitions)."""

    working_mib: int = 20 * 1024
    """Of /kaggle/working."""
    tmp_mib: int = 20 * 1024
    read_only_tmp: bool = False
    shm_mib: int | None = None
    """Of /dev/shm; None: this machine's."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What goes into the two containers."""

    notebook: Path
    mounts: Mapping[str, Path]
    """{path below /kaggle/input: folder here}, bound read-only."""
    gateway: Sequence[str] = ()
    """The gateway's command, run in its own working folder; empty where the notebook asks itself."""
    rerun: bool = False
    """Whether KAGGLE_IS_COMPETITION_RERUN is set."""
    gateway_mounts: Mapping[str, Path] = field(default_factory=dict)
    """Mounts of the gateway's container; it does not see the notebook's."""
    disks: Disks = field(default_factory=Disks)
    limit_s: float = 3600.0
    """Real seconds after which both containers are ended."""
    python: NotebookPython | None = None
    """What the notebook runs on, and all the packages that it sees; None: this Python with those of the image's that
    are installed here, linked into a folder of the stage."""
    probe: str = ""
    """Python that is run in the notebook's container before the notebook; what it prints is kept."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """Exit codes and output folder of both containers."""

    notebook_code: int | None
    """papermill's exit code; None where it was still running at the end."""
    gateway_code: int | None
    timed_out: bool
    isolation: Isolation
    folder: Path
    """Holds notebook/ (its /kaggle/working), gateway/ and the logs."""


def namespaces_work() -> bool:
    """Return whether this user may make the namespaces."""
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "-r", "-m", "-n", "-p", "-f", "--mount-proc", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def run_stage(stage: Stage, folder: Path) -> Ended:
    """Run notebook and gateway to their end, or to the limit; keep what they wrote in the folder."""
    for name in ("notebook", "gateway"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    python = stage.python or link_this_python(folder / "python")
    isolated = namespaces_work()
    if not isolated:
        _require_free_port()
    with TemporaryFolder("roots") as roots:
        command = (
            _isolated_command(stage, python, folder, roots) if isolated else _blocked_command(stage, python, folder)
        )
        environment = _clean_environment(stage, python, folder, isolated=isolated)
        # The first process of a pid namespace takes all others with it; the one without ends them by itself.
        end_by = signal.SIGKILL if isolated else signal.SIGTERM
        timed_out = _run(command, environment, limit_s=stage.limit_s, end_by=end_by)
    return Ended(
        notebook_code=_code(folder / "notebook.code"),
        gateway_code=_code(folder / "gateway.code"),
        timed_out=timed_out,
        isolation="namespaces" if isolated else "interpreter",
        folder=folder,
    )


def _require_free_port() -> None:
    """Check that nobody serves where the notebook will: without namespaces the gateway would take theirs for it.

    Raises:
        UserError: another process listens on the port, and still does after a while.
    """
    ends = time.monotonic() + _PORT_WAIT_S
    while True:
        try:
            socket.create_server(("", FIRST_PORT)).close()
        except OSError as error:
            if time.monotonic() > ends:
                raise UserError(
                    f"port {FIRST_PORT} must be free for a rehearsal without namespaces",
                    value=str(error),
                    cure="end what listens there: another rehearsal, or a notebook that serves",
                ) from error
            time.sleep(0.5)
        else:
            return


def kill_tree(pid: int) -> None:
    """Kill a process and all that descend from it; a notebook's kernel has a session of its own, and would stay."""
    import psutil

    try:
        first = psutil.Process(pid)
        processes = [*first.children(recursive=True), first]
    except psutil.NoSuchProcess:
        return
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _run(
    command: Sequence[str], environment: Mapping[str, str], *, limit_s: float, end_by: int = signal.SIGKILL
) -> bool:
    """Run the command and all it starts to its end or to the limit; return whether the limit came first.

    Should this process be killed meanwhile, the kernel ends the command by that signal.
    """
    process = subprocess.Popen(command, start_new_session=True, env=environment, preexec_fn=ending_with_parent(end_by))
    try:
        process.wait(limit_s)
    except subprocess.TimeoutExpired:
        return True
    finally:
        # Killing the first process of the pid namespace ends all in it; without namespaces, its descendants are ended.
        if process.poll() is None:
            kill_tree(process.pid)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return False


def _code(file: Path) -> int | None:
    return int(file.read_text()) if file.is_file() else None


def _clean_environment(stage: Stage, python: NotebookPython, folder: Path, *, isolated: bool) -> dict[str, str]:
    """Return the containers' environment: none of this machine's settings, no credential."""
    scripts = str(python.executable.parent)
    values = {
        "PATH": f"{scripts}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/tmp/home" if isolated else str(folder / "home"),
        "LANG": "C.UTF-8",
        "KAGGLE_KERNEL_RUN_TYPE": "Batch",
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
    }
    if stage.rerun:
        values["KAGGLE_IS_COMPETITION_RERUN"] = "1"
    if not isolated:
        values["PYTHONPATH"] = str(_write_blocker(folder))
    return values


def _isolated_command(stage: Stage, python: NotebookPython, folder: Path, roots: Path) -> list[str]:
    (folder / "stage.sh").write_text(_script(stage, python, folder, roots), encoding="utf-8")
    return [*_isolated_outer(), "bash", str(folder / "stage.sh")]


def _isolated_outer() -> list[str]:
    """Return the words that give a command its namespaces, which end with the process of these words."""
    return ["unshare", "-r", "-m", "-n", "-p", "-f", "--kill-child", "--mount-proc"]


def _script(stage: Stage, python: NotebookPython, folder: Path, roots: Path) -> str:
    """Return the shell script that builds both roots and starts both containers; every path in it is quoted."""
    # On Kaggle there is no checkout: the notebook must run from the wheels alone. Only the gateway sees it.
    checkout = Path(__file__).parents[3]
    hidden = checkout if (checkout / "pyproject.toml").is_file() else None
    return _STAGE.format(
        folder=quote(str(folder.resolve())),
        roots=quote(str(roots.resolve())),
        notebook=quote(str(stage.notebook.resolve())),
        python=quote(str(python.executable)),
        papermill=_quote(python.papermill()),
        system=" ".join(_SYSTEM),
        hidden=quote(str(hidden or "")),
        notebook_needs=_quote(_needs_mount(python.needs, hidden=hidden)),
        gateway_needs=_quote(_needs_mount(_with_targets(sys.prefix, sys.base_prefix, checkout), hidden=None)),
        mounts=_binds(stage.mounts),
        gateway_mounts=_binds(stage.gateway_mounts),
        gateway=_quote(stage.gateway),
        # The code that runs this, wherever an editable installation has it.
        code=quote(str(Path(__file__).parents[2])),
        probe=quote(stage.probe),
        rerun=int(bool(stage.gateway)),
        working=stage.disks.working_mib,
        tmp=stage.disks.tmp_mib,
        shm=stage.disks.shm_mib or 0,
        tmp_mode="ro" if stage.disks.read_only_tmp else "rw",
    )


def _quote(values: Sequence[object]) -> str:
    return " ".join(quote(str(value)) for value in values)


def _with_targets(*folders: str | Path) -> list[Path]:
    """Return the folders, then what they are where one is reached through a link, whose target must be there too."""
    named = [Path(folder) for folder in folders]
    return list(dict.fromkeys([*named, *(folder.resolve() for folder in named)]))


def _needs_mount(folders: Sequence[Path], *, hidden: Path | None) -> list[Path]:
    """Return the folders that lie in none of the system's, or are hidden with the checkout that they lie in."""
    return [f for f in folders if f.parts[1] not in _SYSTEM or (hidden is not None and f.is_relative_to(hidden))]


def _binds(mounts: Mapping[str, Path]) -> str:
    return "\n".join(f'  ro {quote(str(path.resolve()))} "$I"/{quote(name)}' for name, path in mounts.items())


_STAGE = """\
set -eu
F={folder}
mount --make-rprivate /
ip link set lo up 2>/dev/null || true

root() {{  # root DIR HIDDEN MORE...: the system read-only in a fresh tmpfs, HIDDEN emptied, more folders read-only
  R="$1"; H="$2"; shift 2
  mkdir "$R"; mount -t tmpfs -o size=64m tmpfs "$R"
  for d in {system}; do
    [ -e "/$d" ] || continue
    if [ -L "/$d" ]; then ln -s "$(readlink "/$d")" "$R/$d"; continue; fi
    mkdir "$R/$d"; mount --rbind "/$d" "$R/$d"; mount -o remount,bind,ro "$R/$d" 2>/dev/null || true
  done
  mkdir -p "$R/dev" "$R/proc" "$R/sys" "$R/tmp" "$R/kaggle/input" "$R/kaggle/working"
  mount --rbind /dev "$R/dev"; mount --rbind /proc "$R/proc"; mount --rbind /sys "$R/sys" 2>/dev/null || true
  mount -t tmpfs -o size={tmp}m tmpfs "$R/tmp"; mkdir -p "$R/tmp/home"
  # After the system and /tmp, which a checkout may lie in.
  if [ -n "$H" ] && [ -d "$R$H" ]; then mount -t tmpfs tmpfs "$R$H"; fi
  for d in "$@"; do
    mkdir -p "$R$d"; mount --rbind "$d" "$R$d"; mount -o remount,bind,ro "$R$d" 2>/dev/null || true
  done
}}
ro() {{ mkdir -p "$2"; mount --bind "$1" "$2"; mount -o remount,bind,ro "$2"; }}

N={roots}/notebook; G={roots}/gateway

notebook() {{
  root "$N" {hidden} {notebook_needs}; I="$N/kaggle/input"; mount -t tmpfs tmpfs "$I"
{mounts}
  mount -o remount,bind,ro "$I"
  mount -t tmpfs -o size={working}m tmpfs "$N/kaggle/working"
  cp {notebook} "$N/kaggle/working/__notebook__.ipynb"
  [ {tmp_mode} = rw ] || mount -o remount,bind,ro "$N/tmp"
  [ {shm} = 0 ] || mount -t tmpfs -o size={shm}m tmpfs "$N/dev/shm"
  set +e
  [ -z {probe} ] || chroot "$N" {python} -c {probe} > "$F/probe.log" 2>&1
  chroot "$N" /bin/sh -c 'cd /kaggle/working && exec "$0" "$@" __notebook__.ipynb executed.ipynb' {papermill} \\
    > "$F/notebook.log" 2>&1 &
  papermill=$!
  # In a rerun the notebook serves for ever: its container goes with the gateway's.
  while kill -0 $papermill 2>/dev/null && [ ! -e "$F/gateway.code" ]; do sleep 0.1; done
  if kill -0 $papermill 2>/dev/null; then kill -9 $papermill; wait $papermill 2>/dev/null
  else wait $papermill; echo $? > "$F/notebook.code"; fi
  cp -r "$N/kaggle/working/." "$F/notebook/" 2>/dev/null
  : > "$F/hosts"   # with its container the name goes
}}

gateway() {{
  root "$G" "" {gateway_needs}; I="$G/kaggle/input"; mount -t tmpfs tmpfs "$I"
{gateway_mounts}
  mount --bind "$F/hosts" "$G/etc/hosts"
  mount --bind "$F/gateway" "$G/kaggle/working"
  set +e
  PYTHONPATH={code} chroot "$G" /bin/sh -c 'cd /kaggle/working && exec "$0" "$@"' {gateway} > "$F/gateway.log" 2>&1
  echo $? > "$F/gateway.code"
}}

export F N G; export -f root ro notebook gateway
if [ {rerun} = 0 ]; then unshare -m bash -eu -c notebook; exit; fi
printf '127.0.0.1 localhost inference_server\\n' > "$F/hosts"
unshare -m bash -eu -c notebook &
unshare -m bash -eu -c gateway
wait
"""


def _write_blocker(folder: Path) -> Path:
    """Write a sitecustomize that lets no Python socket leave the machine; return its folder."""
    place = folder / "blocker"
    place.mkdir(exist_ok=True)
    (place / "sitecustomize.py").write_text(_BLOCKER, encoding="utf-8")
    return place


_BLOCKER = '''\
"""Lets no Python socket leave this machine."""
import sys


def _refuse(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        if not str(arguments[1][0]).startswith(("127.", "::1", "localhost")):
            raise OSError(101, "Network is unreachable (rehearsal)")
    if event == "socket.getaddrinfo" and arguments[0] not in ("localhost", "127.0.0.1", "::1", None):
        raise OSError(-3, "Temporary failure in name resolution (rehearsal)")


sys.addaudithook(_refuse)
'''


@dataclass(frozen=True, kw_only=True)
class UnisolatedRun:
    """What `mathlete.rehearsal.unisolated` runs, in JSON values."""

    notebook: str
    python: str
    """The notebook's interpreter."""
    papermill: Sequence[str]
    """The command that executes a notebook with it."""
    mounts: Mapping[str, str]
    """{path below /kaggle/input: folder here}."""
    probe: str
    """Python to run before the notebook, or empty."""
    gateway: Sequence[str]
    """The gateway's command, or empty."""
    gateway_mounts: Mapping[str, str]
    folder: str


def _blocked_command(stage: Stage, python: NotebookPython, folder: Path) -> list[str]:
    """Return the command that runs both as plain processes, /kaggle/input being a folder of links."""
    run = UnisolatedRun(
        notebook=str(stage.notebook.resolve()),
        python=str(python.executable),
        papermill=python.papermill(),
        mounts={name: str(path.resolve()) for name, path in stage.mounts.items()},
        probe=stage.probe,
        gateway=list(stage.gateway),
        gateway_mounts={name: str(path.resolve()) for name, path in stage.gateway_mounts.items()},
        folder=str(folder.resolve()),
    )
    return [sys.executable, "-m", "mathlete.rehearsal.unisolated", json.dumps(asdict(run))]
