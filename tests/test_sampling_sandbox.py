"""What a model's program can and cannot do: each property attacked by a program, under each set of layers.

All are slow, for each pool of interpreters loads numpy and sympy; CI runs `make slow-sandbox`.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from mathlete.errors import UserError
from mathlete.tir.protection import ProgramLimits, usable_layers
from mathlete.tir.python import Python, Pythons
from tests.conftest import sample
from tests.processes import wait_for_end

pytestmark = pytest.mark.slow
LIMITS = ProgramLimits(timeout_s=20, grace_s=0.3, memory_mib=400, output_chars=400, cpu_s=60)
"""With a wall that a busy machine does not reach where another limit must."""
IMPATIENT = replace(LIMITS, timeout_s=0.7)
GONE = "all variables are gone]"


@pytest.fixture(
    scope="module",
    params=["all that work here", "filter", "hook"],
)
def pools(request: pytest.FixtureRequest) -> Iterator[tuple[Pythons, Pythons]]:
    """Interpreters with a long and with a short wall."""
    os.environ["MATHLETE_TEST_SECRET"] = "hunter2"
    layers = None if request.param == "all that work here" else [request.param]
    if layers == ["filter"] and "filter" not in usable_layers():
        pytest.skip("no libseccomp here")
    with closing(Pythons(LIMITS, layers=layers)) as patient, closing(Pythons(IMPATIENT, layers=layers)) as impatient:
        yield patient, impatient
    with pytest.raises(UserError, match="before their owner is closed"):
        patient.open()
    del os.environ["MATHLETE_TEST_SECRET"]


@pytest.fixture
def pythons(pools: tuple[Pythons, Pythons]) -> Pythons:
    return pools[0]


@pytest.fixture
def python(pythons: Pythons) -> Iterator[Python]:
    with closing(pythons.open()) as opened:
        yield opened


def test_numpy_and_sympy_are_there_and_a_last_expression_is_shown(python: Python) -> None:
    assert python.run("import sympy as sp\nx = sp.Symbol('x')\nsp.solve(x**2 - 4)").output == "[-2, 2]\n"
    assert python.run("import numpy as np\nprint(np.linalg.det(np.eye(3)))").output == "1.0\n"
    assert python.run("'a'").output == "'a'\n"
    assert python.run("").output == ""


def test_variables_live_on_in_a_sample_and_not_beyond(pythons: Pythons, python: Python) -> None:
    python.run("def f(n): return n + 1")
    assert python.run("f(41)").output == "42\n"
    with closing(pythons.open()) as other:
        assert "NameError: name 'f' is not defined" in other.run("f(41)").output


def test_the_same_program_gives_the_same_output_in_every_interpreter(pythons: Pythons) -> None:
    code = "import random, numpy\nprint(random.random(), numpy.random.rand(), list({'a', 'b', 'c'}))"
    outputs = set()
    for _ in range(3):
        with closing(pythons.open()) as one:
            outputs.add(one.run(code).output)
    assert len(outputs) == 1


def test_a_traceback_shows_the_programs_own_lines_only(python: Python) -> None:
    ran = python.run("def f():\n    return 1 / 0\nf()")
    assert ran.failed
    assert 'File "<block 1>", line 2, in f\n    return 1 / 0' in ran.output
    assert ran.output.endswith("ZeroDivisionError: division by zero\n")
    assert ".py" not in ran.output
    assert "SyntaxError" in python.run("1 +").output
    assert python.run("import sys; sys.exit('over')").killed is False


HOSTILE = {
    "fork bomb": ("import os\nwhile True: os.fork()", "PermissionError"),
    "threads and forks": ("import multiprocessing as m\nm.Process(target=print).start()", "Error"),
    "a shell": ("import subprocess\nsubprocess.run('ls')", "PermissionError"),
    "os.system": ("import os\nassert os.system('true') != 0, 'it ran'\nprint('Error')", "Error"),
    "socket": ("import socket\nsocket.socket().connect(('127.0.0.1', 80))", "PermissionError"),
    "url": ("import urllib.request as u\nu.urlopen('http://127.0.0.1')", "Error"),
    "file write": ("open('PLACE', 'w').write('x')", "PermissionError"),
    "file append": ("open('PLACE', 'ab')", "PermissionError"),
    "file below its own folder": ("open('x', 'w')", "PermissionError"),
    "file made by os.open": ("import os\nos.open('PLACE', os.O_CREAT)", "PermissionError"),
    "folder": ("import os\nos.mkdir('PLACE')", "PermissionError"),
    "removal": ("import os\nos.remove('PRESENT')", "PermissionError"),
    "kill of the parent": ("import os\nos.kill(os.getppid(), 9)", "PermissionError"),
    "kill of all": ("import os\nos.kill(-1, 9)", "PermissionError"),
    "10 GB list": ("x = [0] * (10 * 2**30 // 8)", "MemoryError"),
    "10 GB bit by bit": ("x = []\nwhile True: x.append(bytearray(2**20))", GONE),
    "numpy's memory": ("import numpy\nnumpy.ones(2**31)", "MemoryError"),
    "infinite loop": ("while True: pass", "TimeoutError: the program ran too long"),
    "loop in C": ("sum(range(10**12))", GONE),
    "all errors caught": (
        "while True:\n    try:\n        for i in range(10**8): str(i)\n    except BaseException: pass",
        GONE,
    ),
    "signals ignored": (
        "import signal\nfor s in (signal.SIGALRM, signal.SIGTERM, signal.SIGINT): signal.signal(s, signal.SIG_IGN)\n"
        "while True: pass",
        GONE,
    ),
    "signals blocked": (
        "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: pass",
        GONE,
    ),
    "exit": ("import os\nos._exit(0)", GONE),
    "crash": ("import ctypes\nctypes.string_at(0)", GONE),
    "endless recursion": ("import sys\nsys.setrecursionlimit(10**9)\ndef f(): f()\nf()", ""),
    "100 MB print": ("for i in range(10**5): print('y' * 1000)", "characters left out]"),
    "1 GB print": ("for i in range(10**6): print('y' * 1000)", "characters left out]"),
    "own limits raised": ("import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))", "Error"),
}


WALL = ("infinite loop", "loop in C", "all errors caught", "signals ignored", "signals blocked", "endless recursion")
"""These take their whole time."""


RELATED = ("loop in C", "all errors caught", "signals ignored", "endless recursion", "1 GB print", "numpy's memory",
           "threads and forks", "os.system", "url", "file append", "file made by os.open", "kill of all")  # fmt: skip
"""Ended or refused as another is; the first five after a second of a core each."""


@pytest.fixture(scope="module")
def neighbours(pools: tuple[Pythons, Pythons]) -> Iterator[list[Python]]:
    """An interpreter of each owner, beside which all hostile programs run."""
    opened = [pythons.open() for pythons in pools]
    for one in opened:
        one.run("x = 1")
    yield opened
    for one in opened:
        one.close()


@pytest.mark.parametrize("name", sample(*(name for name in HOSTILE if name not in RELATED), slow=RELATED))
def test_hostile_programs_harm_nobody(
    pools: tuple[Pythons, Pythons], neighbours: list[Python], tmp_path: Path, name: str
) -> None:
    present, place = tmp_path / "present", tmp_path / "place"
    present.touch()
    code, expected = HOSTILE[name]
    with closing(pools[name in WALL].open()) as one:
        started = time.monotonic()
        ran = one.run(code.replace("PLACE", str(place)).replace("PRESENT", str(present)))
        assert time.monotonic() - started < 30
        assert expected in ran.output
        assert len(ran.output) < LIMITS.output_chars + 100
        assert present.exists()
        assert not place.exists()
        assert neighbours[name in WALL].run("x").output == "1\n"


def test_interpreters_open_after_all_of_them(pools: tuple[Pythons, Pythons]) -> None:
    for pythons in pools:
        with closing(pythons.open()) as after:
            assert after.run("1 + 1").output == "2\n"


def test_no_variable_of_this_environment_reaches_a_program(python: Python) -> None:
    assert "hunter2" not in python.run("import os\nprint(dict(os.environ))").output
    assert python.run("print(open('/etc/hostname').read() and 1)").failed is False


def test_another_process_environment_is_out_of_reach(python: Python) -> None:
    ran = python.run(f"print(open('/proc/{os.getpid()}/environ').read())")
    assert ran.failed
    assert "hunter2" not in ran.output


NATIVE = (
    *("socket(2, 1, 0)", "fork()", "kill(-1, 9)", "creat(b'x', 511)", "setuid(1)", "unshare(0x10000000)"),
    *("syscall(57)", "syscall(425, 1, 0)", "syscall(319, b'x', 0)"),
    # Calls that are newer than libseccomp's names: the attributes of a file, and one that does not exist yet.
    *("syscall(469, 3, b'', 0, 0, 0)", "syscall(999)"),
    # Signals to the owner of a descriptor (F_SETOWN, F_SETOWN_EX, F_SETSIG, O_ASYNC), leases, notes, locks; a command
    # is an int, whatever stands above it.
    *("fcntl(0, 8, 1)", "fcntl(0, 15, b'12345678')", "fcntl(0, 10, 9)", "fcntl(0, 4, 0o20000)", "fcntl(0, 1024, 0)"),
    *("fcntl(0, 1026, 1)", "fcntl(0, 6, b' ' * 32)", "fcntl(0, 1033, 1)", "flock(0, 2)"),
    "syscall(72, 0, wide(7 << 32 | 8), 1)",
    # FIOSETOWN, SIOCSPGRP, FIOASYNC, TIOCSTI, FS_IOC_SETFLAGS
    *("ioctl(0, 0x8901, b'1234')", "ioctl(0, 0x8902, b'1234')", "ioctl(0, 0x5452, b'1234')", "ioctl(0, 0x5412, b'x')"),
    *("ioctl(0, 0x40086602, b'12345678')", "syscall(16, 0, wide(1 << 32 | 0x5412), b'x')"),
    *("socketpair(1, 2, 0, b'12345678')", "bind(3, b'', 3)", "connect(3, b'', 3)", "sendto(3, b'x', 1, 0, b'', 3)"),
    *("sendmsg(3, b' ' * 64, 0)", "listen(3, 1)", "accept(3, None, None)"),
    *("sched_setaffinity(0, 8, b'12345678')", "setpriority(0, 0, 5)", "nice(5)", "syscall(251, 1, 0, 0)"),
    *("shmget(1, 9, 512)", "msgget(1, 512)", "semget(1, 1, 512)", "shmat(0, None, 0)", "shmctl(0, 0, None)"),
    *("msgsnd(0, b'12345678', 1, 0)", "msgrcv(0, b' ' * 64, 1, 0, 0)", "msgctl(0, 0, None)"),
    *("semop(0, b'12345678', 1)", "mq_open(b'/x', 64, 511, None)", "syscall(241, b'x')"),
    *("prctl(4, 1, 0, 0, 0)", "personality(0x40000)"),
)  # fmt: skip
"""Calls that fail with EPERM; the numbers are those of x86-64."""


def test_native_code_does_not_get_around_the_filter(pythons: Pythons, python: Python) -> None:
    if "filter" not in pythons.layers:
        pytest.skip("no filter")
    code = "import ctypes\nc, wide = ctypes.CDLL(None, use_errno=True), ctypes.c_ulong\nprint(c.{}, ctypes.get_errno())"
    for call in NATIVE:
        assert python.run(code.format(call)).output == "-1 1\n", call


def sends(reply: str, then: str = "") -> str:
    """Return a program that writes the bytes to every descriptor that it has."""
    return f"import os\nfor f in range(3, 64):\n    try: os.write(f, {reply})\n    except OSError: pass\n{then}"


FORGED = 'b\'{"number": 1, "output": "%s", "failed": false}\\n\''
"""A reply to the first program of an interpreter."""
IMPROPER = (
    *("b'no json' + b'\\n'", "b'[1]\\n'", 'b\'{"output": 1, "failed": 2}\\n\'', "b'x' * 10**7", "b'[' * 5000 + b'\\n'"),
    *(FORGED % "x" + " + b'{}'", FORGED.replace("1,", "true,") % "x", FORGED.replace("1,", "7,") % "x"),
    FORGED % ("x" * (LIMITS.output_chars + 200)),
)


@pytest.mark.parametrize("reply", IMPROPER)
def test_forged_and_oversized_replies_cost_the_interpreter_only(pythons: Pythons, reply: str) -> None:
    with closing(pythons.open()) as one:
        assert one.run(sends(reply)).killed


def test_closed_descriptors_cost_the_interpreter_only(pythons: Pythons) -> None:
    with closing(pythons.open()) as one:
        assert one.run("import os\nos.closerange(3, 64)").killed


def test_a_forged_reply_gains_neither_output_nor_time(pools: tuple[Pythons, Pythons]) -> None:
    impatient = pools[1]
    with closing(impatient.open()) as one:
        ran = one.run(sends(FORGED % "mine", "while True:\n    try: sum(range(10**7))\n    except BaseException: pass"))
        assert (ran.output, ran.killed) == ("mine", False)
        # It still runs: a long program does not fit into the channel, and nobody reads it.
        started = time.monotonic()
        assert one.run("x = 1" + " " * 2**20).killed
        assert time.monotonic() - started < impatient.limits.timeout_s + impatient.limits.grace_s + 5
        assert not one.alive
    with closing(impatient.open()) as one:
        assert one.run(sends(FORGED % "mine", "import time; time.sleep(0.3)")).output == "mine"
        time.sleep(0.6)
        # The true reply has come by now: it is not taken for that of the next program.
        assert one.run("1").killed


def test_the_process_that_forks_is_replaced_when_it_has_died(pythons: Pythons) -> None:
    with closing(pythons.open()) as one:
        mine, parent = map(int, one.run("import os\nprint(os.getpid(), os.getppid())").output.split())
        os.kill(parent, signal.SIGKILL)
        wait_for_end(mine)
        assert one.run("1").killed
    for _ in range(4):
        with closing(pythons.open()) as another:
            assert another.run("1 + 1").output == "2\n"


THREADS = """
import ctypes
c = ctypes.CDLL(None)
small, one = ctypes.create_string_buffer(64), ctypes.c_ulong()
c.pthread_attr_init(small)
c.pthread_attr_setstacksize(small, ctypes.c_size_t(16384))
sleep = ctypes.cast(c.sleep, ctypes.c_void_p)
for _ in range(2000):
    assert c.pthread_create(ctypes.byref(one), small, sleep, ctypes.c_void_p(60)) == 0
c.sleep(15)
"""
"""As many threads as its memory holds, which would be all that a machine can have."""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="threads are counted in /proc")
def test_a_program_of_many_threads_is_ended(pools: tuple[Pythons, Pythons]) -> None:
    if "hook" in pools[0].layers:
        pytest.skip("there is no ctypes behind the hook")
    with closing(pools[0].open()) as one:
        done = one.run(THREADS)
        assert done.killed
        assert done.seconds < 15
    with closing(pools[0].open()) as another:
        assert another.run("import threading\nthreading.active_count()").output == "1\n"


def test_descriptors_above_1023_are_read(pythons: Pythons) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1200:
        pytest.skip("no more than 1,200 descriptors here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1050)]
    try:
        opened = [pythons.open() for _ in range(4)]
        assert [one.run("1").output for one in opened] == ["1\n"] * 4
        for one in opened:
            one.close()
    finally:
        for handle in held:
            os.close(handle)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


HINTS = {
    "x(2)": "write *",
    "if x > 1: pass": "no bool",
    "x ^ 2.5": "power is **",
    "import math\nmath.sqrt(x)": "functions of math",
    "import numpy\nnumpy.sqrt(x + 1)": "functions of math",
    "range(x)": "int(…)",
    "Eq(x, 1) + 1": ".lhs - .rhs",
    "solveset(x**2 - 1)[0]": "list(…)",
    "solve(x**2 - 1)[x]": "dict=True",
    "solve(sin(x) + x - 1)": "nsolve",
    "import torch_that_is_not_there": "the standard library",
    "open('x', 'w')": "no files",
    "input()": "no input",
}


@pytest.mark.parametrize("program", sample(*[*HINTS][:4], slow=[*HINTS][4:]))
def test_a_hint_follows_a_frequent_mistake(python: Python, program: str) -> None:
    output = python.run(f"from sympy import *\nx = symbols('x')\n{program}").output
    assert HINTS[program] in output.splitlines()[-1]
    assert output.splitlines()[-1].startswith("[hint: ")


def test_long_integers_are_printed(python: Python) -> None:
    assert python.run("len(str(7**9000))").output == "7606\n"


def test_closing_ends_a_running_program_at_once(pythons: Pythons) -> None:
    one = pythons.open()
    threading.Timer(0.2, one.close).start()
    started = time.monotonic()
    ran = one.run(HOSTILE["all errors caught"][0])
    assert ran.killed
    assert time.monotonic() - started < LIMITS.timeout_s / 2
    one.close()


def test_interpreters_end_with_their_owner_however_it_ends() -> None:
    code = (
        "from mathlete.tir.python import *\nimport os, signal\n"
        f"python = Pythons({LIMITS!r}).open()\n"
        "print(python.run('import os; print(os.getpid(), os.getppid())').output, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    processes = [int(word) for word in done.stdout.split()]
    assert len(processes) == 2
    wait_for_end(*processes)


def test_root_gives_itself_up_where_others_can_read_the_interpreter() -> None:
    if os.getuid() != 0:
        pytest.skip("needs root")
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom mathlete.tir.protection import drop_root\n"
        "sys.path[:], sys.base_prefix = [], '/'\n"
        "drop_root()\nassert os.getuid() == os.getgid() > 60000\n"
        "try: Path(f'/proc/{os.getppid()}/environ').read_bytes()\nexcept PermissionError: print('refused')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "refused\n", done.stderr


@pytest.mark.skipif(os.getuid() != 0 or sys.platform != "linux", reason="needs root on Linux")
def test_a_layer_that_does_not_hold_here_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site-packages").mkdir()
    tmp_path.chmod(0o700)
    monkeypatch.syspath_prepend(str(tmp_path / "site-packages"))
    with closing(Pythons(LIMITS, layers=["uid"])) as pythons, pytest.raises(UserError) as caught:
        pythons.open()
    said = re.search(r"behind the layers uid, got .*not to be read by another user: '(.*)'", str(caught.value))
    assert said, str(caught.value)
    # Of all that lies in closed folders the outermost is named, which is what must be opened.
    closed = Path(said[1])
    assert not closed.stat().st_mode & 0o001
    assert all(above.stat().st_mode & 0o001 for above in closed.parents)
    assert "chmod o+rX" in caught.value.cure
