"""A rehearsal without namespaces is alone with its own notebook: nobody else's server answers for it."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mathlete.errors import UserError
from mathlete.rehearsal import containers

PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
print(child.pid, flush=True)
child.wait()
time.sleep(60)  # so that it is killed too, and does not end with its child
"""


def test_a_port_that_is_served_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "_PORT_WAIT_S", 0.0)
    with socket.create_server(("", 0)) as other:
        monkeypatch.setattr(containers, "FIRST_PORT", other.getsockname()[1])
        with pytest.raises(UserError, match=r"port \d+ must be free for a rehearsal without namespaces"):
            containers._require_free_port()
    containers._require_free_port()


def test_a_kernel_in_a_session_of_its_own_is_killed_too() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        assert os.getsid(child) == child
        containers.kill_tree(parent.pid)
        assert parent.wait() < 0
    # It may stay for a moment as a zombie, until init has read its end.
    for _ in range(100):
        state = Path(f"/proc/{child}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.05)
    else:
        pytest.fail("the kernel is still there")
    containers.kill_tree(parent.pid)  # nothing is there any more
